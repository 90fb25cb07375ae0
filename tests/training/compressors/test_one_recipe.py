"""One recipe trains a model with every compressor: nothing changes but the line that names the prepared data."""

import json
import math
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxybyte import ProxyByteForCausalLM
from proxybyte.cli import main
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.symbols import Special
from proxybyte.training.compressors import load_compressor, short_names
from proxybyte.training.compressors.bpe_train import Split
from proxybyte.training.compressors.codebook import Boundary, CodebookCompressor
from proxybyte.training.compressors.codebook.growth import GrowthRule, grow
from proxybyte.training.compressors.codebook.reweigh import reweigh
from proxybyte.training.compressors.neural import NeuralCompressor, NeuralSettings
from proxybyte.training.compressors.token_bytes import Order, TokenBytesCompressor
from proxybyte.training.corpus.folder import SCHEMA
from proxybyte.training.run.assemble import open_data
from proxybyte.training.run.config_io import load_config

LEARNT = ["bpe", "token-bytes", "token-bytes-gray", "neural", "neural-cut", "codebook", "codebook-reweighed"]
DATA_LINE = "data: PREPARED\n"
STEPS = 20
RECIPE = f"""\
output: run
{DATA_LINE}precision: float32
model:
  backbone_config: {{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
    num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 256, tie_word_embeddings: true}}
plan: {{row_length: 128, budget: {128 * 4 * STEPS}, budget_unit: symbols}}
batch: {{rows_per_step: 4, rows_per_device: 4}}
optimizer: {{lr: 0.03}}
log: {{trackers: [], plot: false}}
evaluation: {{documents: 2, max_bytes: 100}}
"""


@pytest.fixture(scope="module")
def corpus(sources, held_out, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for split, texts in (("train", [text[:1500] for text in sources[:40]]), ("validation", [held_out[0][:600]])):
        table = pa.table([texts, [split] * len(texts)], schema=SCHEMA)
        pq.write_table(table, folder / f"{split}-00000.parquet")
    return folder


@pytest.fixture(scope="module")
def compressors(trained, small_lm, sources, tmp_path_factory) -> dict[str, str]:
    """What ``prepare --compressor`` is given for each."""
    bpe, trie = trained[Split.CODE], grow(small_lm, GrowthRule(600))
    made = {
        "bpe": bpe,
        "token-bytes": TokenBytesCompressor(bpe, Order.PLAIN),
        "token-bytes-gray": TokenBytesCompressor(bpe, Order.GRAY),
        "neural": NeuralCompressor(small_lm, NeuralSettings(bits=12, least_bytes_per_symbol=0.0)),
        "neural-cut": NeuralCompressor(small_lm, NeuralSettings(bits=12, ending="cut", least_bytes_per_symbol=0.0)),
        "codebook": CodebookCompressor(trie),
        "codebook-reweighed": CodebookCompressor(reweigh(trie, sources[:20], Boundary.NONE)),
    }
    folder = tmp_path_factory.mktemp("compressors")
    for name, compressor in made.items():
        compressor.save(folder / name)
    return {name: str(folder / name) for name in made} | {name: name for name in short_names()}


@pytest.mark.parametrize("name", [*LEARNT, *short_names()])
def test_a_short_training_with_this_compressor(name, compressors, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", str(corpus), "--compressor", compressors[name], "--out", name, "--workers", "1"]) == 0
    Path("recipe.yaml").write_text(RECIPE.replace(DATA_LINE, f"data: {name}\n"))
    assert main(["train", "--config", "recipe.yaml"]) == 0

    config = load_config(Path("recipe.yaml"), [])
    data = open_data(config)
    symbols = data.dataset.batch(range(4 * STEPS)).input_ids
    given = load_compressor(compressors[name])
    assert {Special.RAW_OPEN, Special.COMPRESSED_OPEN} <= set(symbols.ravel().tolist())
    codes = symbols[symbols >= 320] - 320
    assert len(codes) and codes.max() < given.num_symbols
    assert ((symbols >= 64) & (symbols < 320)).any()

    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) == STEPS and all(map(math.isfinite, losses))
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])

    model = ProxyByteForCausalLM.from_pretrained("run/model")
    assert model.get_input_embeddings().num_embeddings == 320 + given.num_symbols
    export_model(Path("run"), Path("exported"), ExportOptions(ExportFormat.FULL))
    row = datasets.load_from_disk(f"{name}/validation")[0]
    for home in ("run", "exported"):
        carried = load_compressor(Path(home, "compressor"))
        assert (carried.family, carried.name) == (given.family, given.name)
        (again,) = carried.encode_batch([row["text"]])
        assert again.tolist() == row["symbols"]
        assert not carried.lossless or carried.decode(again) == row["text"]
