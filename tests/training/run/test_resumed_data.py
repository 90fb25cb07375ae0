"""A run goes on with the data that it began with, known by content and not by lengths."""

import json
import shutil
from dataclasses import replace

import datasets
import numpy as np
import pytest

from proxybyte.artefacts import PREPARED_MANIFEST
from proxybyte.errors import ProxyByteError
from proxybyte.training.prepare.manifest import CompressorInfo, PreparedManifest, SplitTotals
from proxybyte.training.run.assemble import open_data
from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train

MANIFEST_OF = PreparedManifest(
    compressor=CompressorInfo("bpe", "bpe", 280, True, "0" * 32),
    train=SplitTotals(),
    validation=SplitTotals(),
    fingerprint="a" * 32,
    verify="all",
    ratio=1.0,
    workers=1,
    seconds=1.0,
    mb_per_s=1.0,
)


@pytest.fixture
def folder(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "data")


def manifest_of(folder, fingerprint="a" * 32):
    """A manifest that holds the numbers of documents which lie in ``folder``."""
    splits = {name: datasets.load_from_disk(str(folder / name)) for name in ("train", "validation")}
    totals = {name: SplitTotals(documents=len(split)) for name, split in splits.items()}
    return replace(MANIFEST_OF, fingerprint=fingerprint, **totals).to_json()


def with_other_codes(folder):
    """Every document's codes backwards: other content under the same lengths, as Gray-coded token bytes are."""
    split = datasets.load_from_disk(str(folder / "train"))
    column = [np.asarray(codes)[::-1].tolist() for codes in split["symbols"]]
    table = split.data.table.set_column(
        split.column_names.index("symbols"),
        "symbols",
        datasets.table.pa.array(column, split.data.table.schema.field("symbols").type),
    )
    shutil.rmtree(folder / "train")
    datasets.Dataset(table.combine_chunks()).save_to_disk(str(folder / "train"), num_shards=3)


def test_codes_of_equal_lengths_are_other_data(recipe, folder):
    path = recipe(data=str(folder))
    train(load_config(path))
    with_other_codes(folder)
    with pytest.raises(ProxyByteError, match=r"data is not the data that the run in .*run began with"):
        train(load_config(path))


def test_the_manifest_says_which_data_it_is(recipe, folder):
    (folder / PREPARED_MANIFEST).write_text(manifest_of(folder))
    path = recipe(data=str(folder))
    train(load_config(path))
    moved = folder.rename(folder.parent / "moved")
    assert train(load_config(path, [f"data={moved}"])).finished
    (moved / PREPARED_MANIFEST).write_text(manifest_of(moved, "b" * 32))
    with pytest.raises(ProxyByteError, match="is not the data that the run"):
        train(load_config(path, [f"data={moved}"]))


def test_a_checkpoint_holds_the_fingerprint_of_the_manifest(recipe, folder):
    (folder / PREPARED_MANIFEST).write_text(manifest_of(folder))
    config = load_config(recipe(data=str(folder)))
    train(config)
    state = json.loads((config.output / "checkpoints" / "step-00000008" / "state.json").read_text())
    assert state["data"] == "a" * 32


def test_conversations_are_known_by_their_words_and_by_who_wrote_them(recipe, tmp_path):
    def digest(*turns):
        path = tmp_path / "chats.jsonl"
        line = {"messages": [{"role": role, "content": content} for role, content in turns]}
        path.write_text((json.dumps(line) + "\n") * 9)
        plan = {"row_length": 64, "budget": 2, "budget_unit": "epochs"}
        return open_data(load_config(recipe(data=str(path), plan=plan))).fingerprint

    first = digest(("user", "hi"), ("assistant", "hello"))
    assert first == digest(("user", "hi"), ("assistant", "hello"))
    assert first != digest(("user", "hi"), ("assistant", "hellp"))


def test_a_damaged_manifest_is_named(recipe, folder):
    (folder / PREPARED_MANIFEST).write_text("{")
    with pytest.raises(ProxyByteError, match=r"prepared\.json is damaged"):
        open_data(load_config(recipe(data=str(folder))))
