"""Damaged input of every kind: an error in one sentence or a counted skip; no traceback, no hang, nothing accepted.

A surface is something that is read: a file of a kind, with a good example of it, a way to damage it, and what reads it.
What a reader accepts is compared with what another program reads from the same bytes, or with the undamaged content
where sums vouch for it.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from damage import damaged, damaged_json, damaged_lines
from soak_inputs import Inputs

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError

SECONDS = 20
"""After which reading something of a few kilobytes counts as a hang."""
ACCEPTED, REFUSED = "accepted", "refused"


class Fault(AssertionError):
    """A reader that did what it must not."""


@dataclass(frozen=True)
class Surface:
    """Something that is read.

    Attributes:
        name: for messages.
        good: content that is as it should be.
        damage: makes another content of it.
        read: is given the content in a folder of its own; raises :class:`Fault`, or says whether it was accepted.
    """

    name: str
    good: bytes
    damage: Callable[[bytes, random.Random], bytes]
    read: Callable[[bytes, Path], str]


def try_once(surface: Surface, rng: random.Random, folder: Path) -> str:
    """Damage and read once, in an empty folder; whether it was accepted.

    Raises:
        Fault: naming the surface; the content lies in ``folder/content``.
    """
    content = surface.damage(surface.good, rng)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "content").write_bytes(content)
    with _no_longer_than(SECONDS, surface.name):
        return surface.read(content, folder)


@contextlib.contextmanager
def _no_longer_than(seconds: int, what: str) -> Iterator[None]:
    def over(*_: object) -> None:
        raise Fault(f"{what}: it hangs")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def command(*words: object) -> tuple[int, str]:
    """A command's exit code, and what it said on stderr; anything but 0, or 2 with one sentence, is a fault."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        code = main([str(word) for word in words])
    text = said.getvalue()
    sentences = [line for line in text.splitlines() if line.startswith("proxybyte: ")]
    if code not in (0, 2) or "Traceback" in text or (code == 2 and len(sentences) != 1):
        raise Fault(f"{words[0]} ended with {code}: {text[-500:]}")
    return code, text


def loaded(load: Callable[[], Any], *named: Path) -> Any:
    """What ``load`` returns, ``None`` where it refuses in one sentence with one of the names.

    Raises:
        Fault: if it raises anything else.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return load()
    except ProxyByteError as error:
        if "\n" in str(error) or not any(path.name in str(error) for path in named):
            raise Fault(f"the sentence names no file: {error}") from error
        return None
    except (Fault, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise Fault(f"{type(error).__name__}: {str(error)[:300]}") from error


def surfaces(inputs: Inputs) -> list[Surface]:
    """All, on these inputs."""
    return [*_texts(inputs), *_settings(inputs), *_folders(inputs), *_tables(inputs)]


def _texts(inputs: Inputs) -> Iterator[Surface]:
    lines = "\n".join(json.dumps({"text": f"text {number} é", "id": number}) for number in range(8)).encode()

    def corpus(suffix: str, plain: Callable[[bytes], bytes | None]) -> Callable[[bytes, Path], str]:
        def read(content: bytes, folder: Path) -> str:
            path = folder / f"lines{suffix}"
            path.write_bytes(content)
            code, said = command("corpus", path, "--out", folder / "out", "--validation-share", "0")
            if code == 2:
                if path.name not in said:
                    raise Fault(f"the sentence does not name the file: {said[-300:]}")
                return REFUSED
            text = plain(content)
            if text is None:
                raise Fault("an archive that is none was accepted")
            _same_documents(_documents(folder / "out"), _by_hand(text))
            return ACCEPTED

        return read

    import gzip

    import zstandard

    yield Surface("JSON lines", lines, damaged_lines, corpus(".jsonl", lambda content: content))
    yield Surface(
        "JSON lines in gzip", gzip.compress(lines, mtime=0), damaged, corpus(".jsonl.gz", _unpacked(gzip.decompress))
    )
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(lines)
    yield Surface("JSON lines in Zstandard", frame, damaged, corpus(".jsonl.zst", _unzstd))


def _unpacked(unpack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes | None]:
    def plain(content: bytes) -> bytes | None:
        try:
            return unpack(content)
        except Exception:
            return None

    return plain


def _unzstd(content: bytes) -> bytes | None:
    """By the library's own streaming reader."""
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True) as reader:
            return reader.read()
    except zstandard.ZstdError:
        return None


def _by_hand(content: bytes) -> Counter[bytes]:
    """Texts of JSON lines, read the plain way; each once, as duplicates are dropped."""
    texts = []
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        try:
            value = json.loads(line.decode("utf-8"))
            if isinstance(value, dict) and isinstance(value.get("text"), str) and value["text"]:
                texts.append(value["text"].encode("utf-8"))
        except (ValueError, RecursionError):
            continue
    return Counter(dict.fromkeys(texts, 1))


def _documents(corpus: Path) -> Counter[bytes]:
    tables = [pq.read_table(path) for path in sorted(corpus.glob("*.parquet"))]
    return Counter(text for table in tables for text in table["text"].to_pylist())


def _same_documents(found: Counter[bytes], expected: Counter[bytes]) -> None:
    if found != expected:
        raise Fault(f"accepted {list(found - expected)[:2]}, lost {list(expected - found)[:2]}")


def _tables(inputs: Inputs) -> Iterator[Surface]:
    table, sink = pa.table({"text": [f"text {number}" for number in range(50)]}), pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True, row_group_size=10)
    texts = Counter(text.encode() for text in table["text"].to_pylist())

    def read(content: bytes, folder: Path) -> str:
        path = folder / "rows.parquet"
        path.write_bytes(content)
        code, said = command("corpus", path, "--out", folder / "out", "--validation-share", "0")
        if code == 2:
            if path.name not in said:
                raise Fault(f"the sentence does not name the file: {said[-300:]}")
            return REFUSED
        found = _documents(folder / "out")
        if found - texts:
            _same_documents(found, Counter(_by_pyarrow(path)))
        return ACCEPTED

    yield Surface("parquet", sink.getvalue().to_pybytes(), damaged, read)


def _by_pyarrow(path: Path) -> dict[bytes, int]:
    """Texts of a table of which no sum vouches for all: its footer has none."""
    column = pq.read_table(path, columns=["text"], page_checksum_verification=True)["text"]
    return {text if isinstance(text, bytes) else text.encode(): 1 for text in column.to_pylist() if text}


def _settings(inputs: Inputs) -> Iterator[Surface]:
    from proxybyte.training.experiments.schema import load_plan
    from proxybyte.training.run.config_io import load_config

    def recipe(content: bytes, folder: Path) -> str:
        path = folder / "recipe.yaml"
        path.write_bytes(content)
        return REFUSED if loaded(lambda: load_config(path), path) is None else ACCEPTED

    def plan(content: bytes, folder: Path) -> str:
        path = folder / "plan.yaml"
        path.write_bytes(content)
        return REFUSED if loaded(lambda: load_plan(path), path) is None else ACCEPTED

    for name, read, path in (("recipe", recipe, "recipe.yaml"), ("plan", plan, "plan.yaml")):
        good = (inputs.folder / path).read_bytes()
        yield Surface(f"{name} as YAML", good, damaged, read)
        yield Surface(f"{name} as JSON", _as_json(good), damaged_json, read)
    problems = (inputs.folder / "problems.jsonl").read_bytes()

    def asked(content: bytes, folder: Path) -> str:
        path = folder / "problems.jsonl"
        path.write_bytes(content)
        words = ("--data", path, "--generate-only", "--max-new", "1", "-n", "1", "-k", "1")
        code, said = command("eval", "code", inputs.folder / "run" / "model", *words, "--output", folder / "out")
        if code == 2 and path.name not in said:
            raise Fault(f"the sentence does not name the file: {said[-300:]}")
        return ACCEPTED if code == 0 else REFUSED

    yield Surface("problems", problems, damaged_lines, asked)
    yield from _conversations()


def _conversations() -> Iterator[Surface]:
    from proxybyte import build_tokenizer
    from proxybyte.training.chat import read_chats

    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    good = "\n".join(json.dumps({"messages": turns}) for _ in range(3)).encode()
    tokenizer = build_tokenizer(chat=True)

    def read(content: bytes, folder: Path) -> str:
        path = folder / "chats.jsonl"
        path.write_bytes(content)
        return REFUSED if loaded(lambda: read_chats(path, tokenizer), path) is None else ACCEPTED

    yield Surface("conversations", good, damaged_lines, read)


def _as_json(content: bytes) -> bytes:
    import yaml

    return json.dumps(yaml.safe_load(content)).encode()


def _folders(inputs: Inputs) -> Iterator[Surface]:
    """One file of a folder of ours, damaged: nothing is accepted but what says the same."""
    from proxybyte.model_loading import load_causal_model, load_tokenizer
    from proxybyte.training.compressors import load_compressor
    from proxybyte.training.run.checkpoint import read_state
    from proxybyte.training.stream.prepared import PreparedSplit

    text = b"def one(self): return 1 \xce\xbb"

    def coded(folder: Path) -> list[int]:
        coder = load_compressor(folder)
        (codes,) = coder.encode_batch([text])
        return np.asarray(codes).tolist()

    def rows(folder: Path) -> Any:
        split = PreparedSplit(folder / "train")
        lengths = zip(split.n_bytes.tolist(), split.n_symbols.tolist(), strict=True)
        return [(split.raw(i, 0, n).tobytes(), split.compressed(i, 0, m).tolist()) for i, (n, m) in enumerate(lengths)]

    def weights(folder: Path) -> Any:
        return {name: value.tolist() for name, value in load_causal_model(folder).state_dict().items()}

    def ids(folder: Path) -> Any:
        return load_tokenizer(folder)("text é")["input_ids"]

    run = inputs.folder / "run"
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    vouched = {
        "bpe compressor": (inputs.folder / "bpe", ["compressor.json", "tokenizer.json"], coded),
        "neural compressor": (inputs.folder / "m1", ["*"], coded),
        "prepared data": (inputs.folder / "prepared", ["train/*", "prepared.json", "SHA256SUMS"], rows),
        "weights": (run / "model", ["*.safetensors", "SHA256SUMS"], weights),
        "checkpoint": (checkpoint, ["*", "model/*.safetensors"], lambda folder: vars(read_state(folder))),
    }
    for name, (place, patterns, load) in vouched.items():
        same = load(place)
        for path in sorted({path for pattern in patterns for path in place.glob(pattern) if path.is_file()}):
            yield _one_file(name, place, path, load, same)
    foreign = {
        "tokenizer": (inputs.folder / "base", ["tokenizer.json", "tokenizer_config.json"], ids),
        "tokenizer as a compressor": (inputs.folder / "base", ["tokenizer.json"], coded),
        "model": (run / "model", ["config.json", "model.safetensors", "generation_config.json"], weights),
    }
    for name, (place, patterns, load) in foreign.items():
        for pattern in patterns:
            yield _one_file(name, place, place / pattern, load, None)


def _one_file(name: str, place: Path, path: Path, load: Callable[[Path], Any], same: Any) -> Surface:
    """``path`` of the folder ``place``, damaged; what is accepted must be ``same``, unless nothing vouches for it."""
    inside = path.relative_to(place)

    def read(content: bytes, folder: Path) -> str:
        copy = folder / place.name
        shutil.copytree(place, copy, symlinks=True)
        (copy / inside).write_bytes(content)
        if same is None:
            (copy / "SHA256SUMS").unlink(missing_ok=True)
        found = loaded(lambda: load(copy), copy / inside, copy)
        if found is None:
            return REFUSED
        if same is not None and found != same and inside.name != "SHA256SUMS":
            raise Fault(f"{inside} was accepted, and what was read is not what was written")
        return ACCEPTED

    damage = damaged_json if path.suffix == ".json" else damaged
    return Surface(f"{name}: {inside}", path.read_bytes(), damage, read)


def fuzz(inputs: Inputs, home: Path, seed: int, going_on: Callable[[], bool]) -> Iterator[tuple[str, str]]:
    """Every surface in turn, as long as ``going_on`` says so: its name, and what became of it or the fault."""
    number = 0
    every = surfaces(inputs)
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.setrecursionlimit(1000)
    while going_on():
        surface = every[number % len(every)]
        name = f"{surface.name} #{seed + number // len(every)}"
        try:
            yield surface.name, try_once(surface, random.Random(name), home / "fuzz")
        except Fault as fault:
            yield surface.name, f"{name}: {fault}"
        number += 1
