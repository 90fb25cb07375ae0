"""The memory-mapped reader: what it gives is what was written; broken folders are refused by name."""

import shutil

import numpy as np
import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.training.stream.prepared import PreparedSplit

TEXTS = [b"a", b"hello world, this is text", bytes(range(256)), b"\0\0\0", "häß€".encode()]


def test_documents_come_back_as_written(prepared_split):
    split = prepared_split(TEXTS, raw_only=[2])
    assert len(split) == len(TEXTS)
    for number, text in enumerate(TEXTS):
        assert split.raw(number, 0, len(text)).tobytes() == text
        assert split.raw(number, len(text) - 1, len(text)).tobytes() == text[-1:]
        assert split.n_bytes[number] == len(text)
        assert split.source(number) == f"document-{number}"
    assert split.n_symbols.tolist() == [1, 13, -1, 2, 4]
    padded = np.frombuffer(TEXTS[4], np.uint8).reshape(-1, 2)
    np.testing.assert_array_equal(split.compressed(4, 0, 4), padded[:, 0].astype(int) * 200 + padded[:, 1] % 200)


def test_borders_are_one_row_a_document(prepared_split):
    split = prepared_split([bytes(64), bytes(32)])
    assert split.borders.shape == (2, 15)
    assert split.borders[0].tolist() == [4 * part for part in range(1, 16)]


def test_an_absent_folder_is_refused_by_name(tmp_path):
    with pytest.raises(ProxyByteError, match=r"no prepared split at .*nowhere"):
        PreparedSplit(tmp_path / "nowhere")


def test_a_missing_shard_is_refused_by_name(prepared_split):
    folder = prepared_split(TEXTS).folder
    next(folder.glob("data-*.arrow")).unlink()
    with pytest.raises(ProxyByteError, match=f"{folder.name} cannot be read"):
        PreparedSplit(folder)


def test_a_truncated_shard_is_refused_by_name(prepared_split):
    folder = prepared_split(TEXTS).folder
    shard = next(folder.glob("data-*.arrow"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ProxyByteError, match=f"{folder.name} cannot be read"):
        PreparedSplit(folder)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(ProxyByteError, match="lacks the column"):
        PreparedSplit(tmp_path / "other")
    shutil.rmtree(tmp_path / "other")


@pytest.mark.parametrize("damage", ["cut", "zeros", "text", "empty"])
@pytest.mark.parametrize("name", ["data-00000", "state.json", "dataset_info.json"])
def test_a_damaged_file_of_a_split_is_named(prepared_split, name, damage):
    folder = prepared_split([b"some text", b"some more"]).folder
    (path,) = folder.glob(f"{name}*")
    content = path.read_bytes()
    wrong = {"cut": content[: len(content) // 3], "zeros": bytes(len(content)), "text": b"no such", "empty": b""}
    path.write_bytes(wrong[damage])
    with pytest.raises(ProxyByteError, match=f"{path.name}.*prepare it again") as error:
        PreparedSplit(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["[]", "null", "5", '{"_data_files": 5}', '{"_data_files": [{"filename": 3}]}'])
def test_a_state_of_another_shape_is_refused_by_folder(prepared_split, content):
    folder = prepared_split([b"some text"]).folder
    (folder / "state.json").write_text(content)
    with pytest.raises(ProxyByteError, match=f"{folder} cannot be read .*prepare it again"):
        PreparedSplit(folder)
