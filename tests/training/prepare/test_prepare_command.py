"""``proxybyte prepare`` on the command line: what it prints, and one sentence for each mistake."""

import pytest

from proxybyte.cli import main
from proxybyte.training.prepare import read_manifest


class TestCommandLine:
    def refused(self, capsys, *arguments) -> str:
        code = main(["prepare", *map(str, arguments)])
        err = capsys.readouterr().err
        assert code == 2
        (sentence,) = [line for line in err.splitlines() if line.startswith("proxybyte: ")]
        assert "Traceback" not in err
        return sentence

    def test_totals_are_printed(self, tmp_path, corpus, tokenizer, capsys):
        output = tmp_path / "out"
        assert main(["prepare", str(corpus), "--compressor", str(tokenizer), "--out", str(output)]) == 0
        out = capsys.readouterr().out
        assert "bytes/symbol" in out
        assert "MB/s" in out
        assert f"{read_manifest(output).total.symbols:,}" in out

    def test_corpus_that_does_not_exist(self, tmp_path, corpus, tokenizer, capsys):
        sentence = self.refused(capsys, tmp_path / "corpse", "--compressor", tokenizer, "--out", tmp_path / "out")
        assert "is no corpus folder" in sentence
        assert "did you mean 'corpus'?" in sentence
        assert not list(tmp_path.glob("out*"))

    def test_compressor_that_does_not_exist(self, tmp_path, corpus, capsys):
        sentence = self.refused(capsys, corpus, "--compressor", "nothing", "--out", tmp_path / "out")
        assert "'nothing'" in sentence
        assert not list(tmp_path.glob("out*"))

    def test_output_that_holds_something_else(self, tmp_path, corpus, tokenizer, capsys):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").touch()
        sentence = self.refused(capsys, corpus, "--compressor", tokenizer, "--out", tmp_path / "out")
        assert "will not be replaced" in sentence
        assert (tmp_path / "out" / "mine.txt").exists()

    def test_negative_number_of_workers(self, tmp_path, corpus, tokenizer, capsys):
        arguments = (corpus, "--compressor", tokenizer, "--out", tmp_path / "out", "--workers", -1)
        assert "--workers must be at least 0, not -1" in self.refused(capsys, *arguments)

    def test_damaged_corpus_shard(self, tmp_path, corpus, tokenizer, capsys):
        shard = corpus / "train-00001.parquet"
        shard.write_bytes(shard.read_bytes()[:-9])
        sentence = self.refused(capsys, corpus, "--compressor", tokenizer, "--out", tmp_path / "out")
        assert f"{shard} cannot be read" in sentence

    @pytest.mark.parametrize("damage", ["", "{}", "[1"])
    def test_damaged_manifest(self, tmp_path, corpus, tokenizer, capsys, damage):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "prepared.json").write_text(damage)
        sentence = self.refused(capsys, corpus, "--compressor", tokenizer, "--out", tmp_path / "out")
        assert "will not be replaced" in sentence and "prepared.json" in sentence
        assert (tmp_path / "out" / "prepared.json").read_text() == damage
