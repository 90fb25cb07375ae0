"""``prepare --shard`` and ``--merge``: whatever the shards, their order and their ends, the bytes of one process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxybyte.checksums import verify_folder
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.locks import hold
from proxybyte.training.prepare import (
    PrepareOptions,
    Share,
    merge_shares,
    prepare_corpus,
    prepare_share,
    read_manifest,
)
from proxybyte.training.prepare.run import Unfinished


def content(folder: Path) -> dict[str, bytes]:
    """All files but the manifest, which holds times."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "prepared.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def finished(partial: Path) -> dict[str, tuple[int, int]]:
    """Files of the folder that is being built whose report is there, each with its inode and time."""
    paths = [path for split in ("train", "validation") for path in (partial / split).glob("*.arrow")]
    done = [path for path in paths if (partial / "done" / f"{path.parent.name}-{path.name}.json").exists()]
    return {f"{path.parent.name}/{path.name}": (path.stat().st_ino, path.stat().st_mtime_ns) for path in done}


@pytest.fixture
def options(corpus, tokenizer, tmp_path) -> PrepareOptions:
    return PrepareOptions(corpus, str(tokenizer), tmp_path / "out", workers=1)


@pytest.fixture
def one(corpus, tokenizer, tmp_path) -> Path:
    """What one process writes."""
    prepare_corpus(PrepareOptions(corpus, str(tokenizer), tmp_path / "one", workers=1))
    return tmp_path / "one"


def test_shards_and_a_merge_on_the_command_line_write_the_bytes_of_one_process(
    corpus, tokenizer, one, tmp_path, capsys
):
    words = ["prepare", str(corpus), "--compressor", str(tokenizer), "--out", str(tmp_path / "out"), "--workers", "1"]
    for index in (2, 0, 1):
        assert main([*words, "--shard", f"{index}/3"]) == 0
        assert f"shard {index}/3: " in capsys.readouterr().out
        assert not (tmp_path / "out").exists()
    assert main([*words, "--merge"]) == 0
    assert "next: proxybyte train" in capsys.readouterr().out
    assert content(tmp_path / "out") == content(one)
    verify_folder(tmp_path / "out")
    merged, alone = read_manifest(tmp_path / "out"), read_manifest(one)
    assert (merged.fingerprint, merged.ratio, merged.compressor) == (alone.fingerprint, alone.ratio, alone.compressor)
    assert merged.train.raw_reasons == alone.train.raw_reasons
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "one", "out"]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mixture_of_numbers_of_shards_covers_the_corpus(options, one, tmp_path_factory, data):
    """Shards of several cuts, in any order; then all of one more cut: each does what is left, and no more."""
    output = tmp_path_factory.mktemp("mixed") / "out"
    mine = PrepareOptions(options.corpus, options.compressor, output, workers=1)
    sizes = st.integers(1, 80)
    shares = st.lists(sizes.flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), max_size=4)
    some = data.draw(shares)
    of = data.draw(st.integers(1, 6))
    encoded = 0
    for index, size in [*some, *data.draw(st.permutations([(index, of) for index in range(of)]))]:
        encoded += prepare_share(mine, Share(index, size)).encoded
    assert encoded == read_manifest(one).total.bytes
    assert merge_shares(mine).mb_per_s == 0
    assert content(output) == content(one)


def test_a_killed_shard_is_done_again_and_no_other(tmp_path, tokenizer, some_text, write_shard):
    (tmp_path / "corpus").mkdir()
    texts = [some_text(number, 10_000) for number in range(320)]
    write_shard(tmp_path / "corpus" / "train-00000.parquet", texts[:200], 5)
    write_shard(tmp_path / "corpus" / "train-00001.parquet", texts[200:], 5)
    options = PrepareOptions(tmp_path / "corpus", str(tokenizer), tmp_path / "out", workers=1)
    partial = tmp_path / "out.partial"
    for index in (0, 2):
        prepare_share(options, Share(index, 3))
    others = finished(partial)
    words = ["prepare", tmp_path / "corpus", "--compressor", tokenizer, "--out", tmp_path / "out", "--shard", "1/3"]
    command = [sys.executable, "-m", "proxybyte.cli", *map(str, words), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while len(finished(partial)) < len(others) + 2:
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = finished(partial)
    with pytest.raises(Unfinished, match=r"pieces are not encoded, the first of them row group \d+ of .*parquet: run"):
        merge_shares(options)
    assert finished(partial) == before, "a merge that is refused takes nothing away"

    again = prepare_share(options, Share(1, 3))
    assert again.kept == len(before) - len(others)
    after = finished(partial)
    assert before.items() <= after.items(), "what was finished is left as it was"
    assert len(after) - len(before) == again.tasks - again.kept
    merge_shares(options)
    prepare_corpus(PrepareOptions(options.corpus, options.compressor, tmp_path / "one", workers=1))
    assert content(tmp_path / "out") == content(tmp_path / "one")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_merge_that_nobody_has_begun_leaves_nothing(options, tmp_path):
    with pytest.raises(Unfinished, match=r"(\d+) of \1 pieces are not encoded"):
        merge_shares(options)
    assert not list(tmp_path.glob("out*"))


def test_shards_of_a_finished_output_have_nothing_to_do(options, one, tmp_path):
    prepare_corpus(options)
    inode = options.output.stat().st_ino
    done = [prepare_share(options, Share(index, 2)) for index in range(2)]
    assert [each.kept for each in done] == [each.tasks for each in done]
    assert merge_shares(options).fingerprint == read_manifest(one).fingerprint
    assert options.output.stat().st_ino == inode
    assert not (tmp_path / "out.partial").exists()


def test_what_is_left_of_another_compressor_is_not_used(options, lowercase_tokenizer, one):
    other = PrepareOptions(options.corpus, str(lowercase_tokenizer), options.output, workers=1)
    prepare_share(other, Share(0, 2))
    for index in range(2):
        prepare_share(options, Share(index, 2))
    merge_shares(options)
    assert content(options.output) == content(one)


def test_a_damaged_shard_of_the_output_is_not_merged(options, tmp_path):
    prepare_share(options, Share())
    path = next((tmp_path / "out.partial" / "train").glob("*.arrow"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(Unfinished, match="1 of"):
        merge_shares(options)
    assert prepare_share(options, Share()).kept == prepare_share(options, Share(0, 1)).tasks - 1


def test_a_corpus_file_that_changed_since_is_noticed_by_the_shards_that_read_it(
    tmp_path, tokenizer, some_text, write_shard
):
    (tmp_path / "text").mkdir()
    for number in range(6):
        (tmp_path / "text" / f"{number}.py").write_bytes(some_text(number, 3_000))
    words = ["corpus", str(tmp_path / "text"), "--by-document", "--out", str(tmp_path / "corpus")]
    assert main(words) == 0
    options = PrepareOptions(tmp_path / "corpus", str(tokenizer), tmp_path / "out", workers=1)
    shard = tmp_path / "corpus" / "validation-00000.parquet"
    write_shard(shard, [b"as many documents, but others"], 1)
    said = []
    for index in range(2):
        try:
            prepare_share(options, Share(index, 2))
        except ProxyByteError as error:
            said.append(str(error))
    assert len(said) == 1 and said[0].startswith(f"{shard} is not what was written")


class TestAtOnce:
    def test_one_shard_is_refused_to_a_second_process(self, options, tmp_path):
        with hold(tmp_path / "out.partial" / "shard-0-of-2"):
            prepare_share(options, Share(1, 2))
            code, said = self.elsewhere(options, "--shard", "0/2")
        assert code == 2 and f"is being written by process {os.getpid()}" in said

    def test_nobody_merges_while_a_shard_is_at_work(self, options, tmp_path):
        prepare_share(options, Share())
        for how in (["--merge"], []):
            with hold(tmp_path / "out.partial" / "shard-7-of-9"):
                code, said = self.elsewhere(options, *how)
            assert code == 2 and f"shard-7-of-9 is being written by process {os.getpid()}" in said
        merge_shares(options)

    def test_no_shard_begins_while_another_process_prepares_all(self, options):
        with hold(options.output):
            code, said = self.elsewhere(options, "--shard", "0/2")
        assert code == 2 and f"is being written by process {os.getpid()}" in said

    def elsewhere(self, options, *how: str) -> tuple[int, str]:
        words = [options.corpus, "--compressor", options.compressor, "--out", options.output, "--workers", "1", *how]
        command = [sys.executable, "-m", "proxybyte.cli", "prepare", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stderr


@pytest.mark.parametrize("part", ["3/3", "1", "-1/2", "0/0", "a/b", "1/2/3", "0.5/2", "\u0661/\u0662"])
def test_a_part_that_is_none_is_one_sentence(part, capsys):
    assert main(["prepare", "corpus", "--compressor", "gzip", "--out", "out", f"--shard={part}"]) == 2
    assert capsys.readouterr().err.startswith("proxybyte: --shard must be")


class TestManifest:
    def test_each_bit_of_the_digest_of_the_compressor_counts(self, options):
        prepare_corpus(options)
        path = options.output / "prepared.json"
        whole = path.read_bytes()
        begin = whole.index(read_manifest(options.output).compressor.digest.encode())
        for bit in range(8 * 32):
            flipped = bytearray(whole)
            flipped[begin + bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(ProxyByteError, match="is damaged"):
                read_manifest(options.output)

    def test_one_without_a_check_from_an_earlier_version_is_read(self, options):
        import json

        prepare_corpus(options)
        path = options.output / "prepared.json"
        fields = json.loads(path.read_text())
        del fields["sha256"]
        path.write_text(json.dumps(fields))
        with pytest.raises(ProxyByteError, match="is damaged"):
            read_manifest(options.output)
        path.write_text(json.dumps({**fields, "format_version": 1}))
        assert read_manifest(options.output).fingerprint == fields["fingerprint"]
