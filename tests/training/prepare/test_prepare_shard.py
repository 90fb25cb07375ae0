"""One shard: what cannot be coded stays raw and is counted, and a compressor that breaks its contract is stopped."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.training.compressors.protocol import CannotEncode
from proxybyte.training.prepare.columns import prepared_features
from proxybyte.training.prepare.manifest import SplitTotals
from proxybyte.training.prepare.shard import ShardEncoder, Verify, finished
from proxybyte.training.prepare.tasks import ShardTask, plan_tasks


class Zlib:
    """A real, lossless compressor without borders, which refuses a document that holds a digit."""

    family, name, num_symbols, lossless = "zlib", "zlib", 256, True

    def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray | CannotEncode]:
        return [
            CannotEncode(f"byte {document.index(b'7')} is a 7")
            if b"7" in document
            else np.frombuffer(zlib.compress(document), np.uint8)
            for document in documents
        ]

    def decode(self, codes: np.ndarray) -> bytes:
        return zlib.decompress(codes.tobytes())

    def borders(self, codes: np.ndarray) -> np.ndarray | None:
        return None

    def save(self, folder: Path) -> None:
        raise AssertionError("not needed here")

    @classmethod
    def load(cls, folder: Path) -> "Zlib":
        return cls()


class Identity(Zlib):
    """A byte a symbol."""

    name = "identity"

    def encode_batch(self, documents):
        return [np.frombuffer(document, np.uint8) for document in documents]

    def decode(self, codes):
        return codes.tobytes()

    def borders(self, codes):
        return np.arange(1, len(codes) + 1)


class LosesCapitals(Identity):
    """Says that it is lossless, and is not."""

    def encode_batch(self, documents):
        return super().encode_batch([document.lower() for document in documents])


class CannotDecode(Identity):
    def decode(self, codes):
        raise ProxyByteError("no")


class EmptyCode(Identity):
    def encode_batch(self, documents):
        return [np.empty(0, np.uint8) for _ in documents]


class OutOfRange(Identity):
    num_symbols = 100


class ShortBorders(Identity):
    def borders(self, codes):
        return np.arange(len(codes))


def write_corpus(folder: Path, texts: Sequence[bytes | None], row_group: int = 1000) -> Path:
    folder.mkdir(exist_ok=True)
    schema = pa.schema([("text", pa.large_binary()), ("source", pa.string())])
    table = pa.table([texts, [f"s{number}" for number in range(len(texts))]], schema=schema)
    pq.write_table(table, folder / "train-00000.parquet", row_group_size=row_group, write_page_checksum=True)
    return folder


def encode(
    tmp_path: Path, compressor: Zlib, texts: Sequence[bytes | None], verify: Verify = Verify.ALL
) -> tuple[pa.Table, SplitTotals]:
    (task,) = plan_tasks(write_corpus(tmp_path / "corpus", texts), "digest", verify)
    totals = run_task(tmp_path / "out", compressor, task, verify)
    with pa.OSFile(str(tmp_path / "out" / "train" / task.file_name)) as stream:
        return pa.ipc.open_stream(stream).read_all(), totals


def run_task(folder: Path, compressor: Zlib, task: ShardTask, verify: Verify = Verify.ALL) -> SplitTotals:
    for name in ("train", "done"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    schema = prepared_features(compressor.num_symbols).arrow_schema
    return ShardEncoder(compressor, schema, folder, verify, lambda _: None).run(task)


def test_refused_documents_stay_raw_in_place_and_are_counted_by_reason(tmp_path):
    table, totals = encode(tmp_path, Zlib(), [b"aaa", b"a7", b"bbb", b"aaa7", b"c"])
    assert table["text"].to_pylist() == [b"aaa", b"a7", b"bbb", b"aaa7", b"c"]
    assert [count < 0 for count in table["n_symbols"].to_pylist()] == [False, True, False, True, False]
    assert [len(codes) for codes in table["symbols"].to_pylist()][1::2] == [0, 0]
    assert (totals.documents, totals.bytes, totals.coded_bytes) == (5, 13, 7)
    assert (totals.raw_documents, totals.raw_bytes) == (2, 6)
    assert totals.raw_reasons == {"byte N is a N": 2}
    assert totals.raw_examples == ["s1: byte 1 is a 7", "s3: byte 3 is a 7"]
    assert totals.symbols == sum(len(codes) for codes in table["symbols"].to_pylist())


def test_without_borders_the_column_is_zero_and_the_totals_say_so(tmp_path):
    table, totals = encode(tmp_path, Zlib(), [b"a" * 100])
    assert table["borders"].to_pylist() == [[0] * 15]
    assert not totals.has_borders


def test_with_borders_the_totals_say_so(tmp_path):
    table, totals = encode(tmp_path, Identity(), [b"a" * 160])
    assert table["borders"].to_pylist() == [list(range(10, 160, 10))]
    assert totals.has_borders


@pytest.mark.parametrize(
    ("compressor", "reason"),
    [
        (LosesCapitals(), "its code decodes to other bytes"),
        (CannotDecode(), "its code cannot be decoded: no"),
        (EmptyCode(), "the compressor gave no symbols"),
    ],
)
def test_document_that_would_not_come_back_stays_raw(tmp_path, compressor, reason):
    table, totals = encode(tmp_path, compressor, [b"CAPITAL"])
    assert totals.raw_reasons == {reason: 1}
    assert table["n_symbols"].to_pylist() == [-1]


def test_sample_decodes_one_in_sixteen_and_none_decodes_nothing(tmp_path):
    texts = [b"CAPITAL %d" % number for number in range(40)]
    assert encode(tmp_path, LosesCapitals(), texts, Verify.SAMPLE)[1].raw_documents == 3
    assert encode(tmp_path, LosesCapitals(), texts, Verify.NONE)[1].raw_documents == 0


def test_lossy_compressor_is_not_decoded(tmp_path):
    compressor = LosesCapitals()
    compressor.lossless = False
    assert encode(tmp_path, compressor, [b"CAPITAL"])[1].raw_documents == 0


@pytest.mark.parametrize(
    ("compressor", "message"), [(OutOfRange(), "codes outside 0 to 99"), (ShortBorders(), "borders that do not fit")]
)
def test_compressor_that_breaks_its_contract_is_stopped(tmp_path, compressor, message):
    with pytest.raises(ProxyByteError, match=message):
        encode(tmp_path, compressor, [b"xyz"])
    assert not any(path.suffix == ".arrow" for path in (tmp_path / "out" / "train").iterdir())
    assert not any((tmp_path / "out" / "done").iterdir())


@pytest.mark.parametrize("text", [b"", None])
def test_empty_document_in_a_corpus_is_an_error_that_names_its_row(tmp_path, text):
    with pytest.raises(ProxyByteError, match=r"train-00000\.parquet, row group 0, row 2: the document is empty"):
        encode(tmp_path, Identity(), [b"a", text])


def test_damaged_corpus_shard_is_an_error_that_names_it(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [b"%d" % number * 50 for number in range(100)])
    path = corpus / "train-00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    (task,) = plan_tasks(corpus, "digest", Verify.ALL)
    with pytest.raises(ProxyByteError, match=r"train-00000\.parquet.* cannot be read"):
        run_task(tmp_path / "out", Identity(), task)


@pytest.mark.parametrize("damage", [b"", b"PAR1"])
def test_corpus_shard_without_a_footer_is_an_error_that_names_it(tmp_path, damage):
    (tmp_path / "train-00000.parquet").write_bytes(damage)
    with pytest.raises(ProxyByteError, match=r"train-00000\.parquet cannot be read"):
        plan_tasks(tmp_path, "digest", Verify.ALL)


def test_parquet_that_is_no_corpus_shard_is_an_error(tmp_path):
    pq.write_table(pa.table({"text": [b"a"]}), tmp_path / "train-00000.parquet")
    with pytest.raises(ProxyByteError, match="no column 'source'"):
        plan_tasks(tmp_path, "digest", Verify.ALL)


def test_corpus_without_a_document_is_an_error(tmp_path):
    with pytest.raises(ProxyByteError, match="holds no training document"):
        plan_tasks(write_corpus(tmp_path / "corpus", []), "digest", Verify.ALL)


def test_tasks_hold_every_row_group_once_and_in_order(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [b"x" * (1 + number % 50) for number in range(1000)], row_group=3)
    tasks = plan_tasks(corpus, "digest", Verify.ALL)
    assert [group for task in tasks for group in task.row_groups] == list(range(334))
    assert 32 <= len(tasks) <= 64
    assert len({task.file_name for task in tasks}) == len(tasks)


def test_task_counts_as_finished_only_while_file_and_report_are_whole(tmp_path):
    (task,) = plan_tasks(write_corpus(tmp_path / "corpus", [b"abc"]), "digest", Verify.ALL)
    out = tmp_path / "out"
    assert finished(out, task) is None
    totals = run_task(out, Identity(), task)
    assert finished(out, task) == totals
    arrow = out / "train" / task.file_name
    content = arrow.read_bytes()
    arrow.write_bytes(content[:-1])
    assert finished(out, task) is None
    arrow.write_bytes(content)
    (report,) = (out / "done").iterdir()
    report.write_text(report.read_text()[:-5])
    assert finished(out, task) is None
