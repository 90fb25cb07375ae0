"""Cross-view targets: places, loss and gradient by hand; resume, processes, FLOPs, and what export leaves of them."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from proxybyte import ProxyByteForCausalLM
from proxybyte.errors import ProxyByteError
from proxybyte.flops import training_flops
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.training.compressors import load_compressor
from proxybyte.training.compressors.regroup import RegroupCompressor
from proxybyte.training.run.assemble import model_source, open_data, row_flops
from proxybyte.training.run.config_io import load_config
from proxybyte.training.run.cross_view import CROSS_VIEW_FILE, CrossView, first_bytes
from proxybyte.training.run.spelled import symbol_bytes
from proxybyte.training.stream.mixed_view import collate
from proxybyte.training.train import train

KEY = "levers.cross_view"
ON = [f"{KEY}.symbols.value=0.3", f"{KEY}.first_bytes.value=0.2", f"{KEY}.count=2", f"{KEY}.borders.value=0.1"]
RAW = ["plan.schedule.rate=0", "plan.schedule.warmup=0", "raw_rows_only=true"]
SWITCHED = ["plan.schedule.rate=1", "plan.schedule.switch=1", "plan.schedule.decay=0.3"]
ALL_LEVERS = [*SWITCHED, "levers.spelled_rows=true", "suffix_rows.mix.value=0.5"]
NO_DROPOUT = "model.backbone_config.attention_dropout=0"
HALF = "plan.schedule.rate=0.5"


def raw_stretches(row):
    """First column and bytes of each run of raw text in a list of symbols."""
    begin = None
    for column, symbol in enumerate([*row, 0]):
        if 64 <= symbol < 320:
            begin = column if begin is None else begin
        elif begin is not None:
            yield begin, bytes(s - 64 for s in row[begin:column])
            begin = None


def by_hand(ids, compressor, words, count):
    """Every target of the definition: kind, row, column, targets."""
    for number, row in enumerate(ids):
        for begin, text in raw_stretches(row):
            codes = compressor.encode_batch([text])[0].tolist()
            if len(codes) < 2:
                continue
            ends = [begin + sum(len(words[c]) for c in codes[: k + 1]) - 1 for k in range(len(codes))]
            assert ends[-1] == begin + len(text) - 1
            if ends[-1] == len(row) - 1:
                codes, ends = codes[:-1], ends[:-1]
            for end, code in zip(ends, codes[1:], strict=False):
                yield "symbol", number, end, [code]
            for column in range(begin, ends[-1]):
                yield "border", number, column, [int(column in ends[:-1])]
        for column in range(len(row) - 1):
            if row[column + 1] >= 320 and (word := words[row[column + 1] - 320]):
                yield "bytes", number, column, [64 + byte for byte in word[:count]]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_loss_and_gradient_are_those_of_the_definition(recipe, count):
    config = load_config(recipe(), [*ON, NO_DROPOUT, HALF, f"{KEY}.count={count}"])
    data = open_data(config)
    model = model_source(config, data.num_codes).make(None).double()
    cross = CrossView(config.levers.cross_view, data, model, None)
    cross.border_rows.data.normal_(std=0.1)
    batch = collate(data.dataset.batch(range(len(data.dataset))))
    ids = batch.input_ids.tolist()
    compressor = load_compressor(data.compressor)
    wanted = list(by_hand(ids, compressor, symbol_bytes(compressor), count))
    kinds = [kind for kind, *_ in wanted]
    assert min(kinds.count(kind) for kind in ("symbol", "border", "bytes")) > 40
    assert {target[0] for kind, _, _, target in wanted if kind == "border"} == {0, 1}
    # Some stretch reaches its row's end.
    assert any(64 <= row[-1] < 320 for row in ids)

    def hidden():
        return model(**batch.model_inputs(), return_hidden=True).last_hidden_state

    moved = [*model.parameters(), cross.border_rows]
    found = cross.loss(model, batch.input_ids, hidden(), 0)
    gradients = torch.autograd.grad(found, moved)
    head = model.lm_head.weight
    rows = {"symbol": head[320:], "bytes": head[:320], "border": cross.border_rows}
    weights = {"symbol": 0.3, "bytes": 0.2, "border": 0.1}
    states, total = hidden(), 0.0
    for kind, row, column, targets in wanted:
        said = torch.log_softmax(rows[kind] @ states[row, column], dim=0)
        total = total - weights[kind] * sum(said[target] for target in targets) / len(targets)
    torch.testing.assert_close(found, total, rtol=1e-12, atol=0)
    for mine, theirs in zip(gradients, torch.autograd.grad(total, moved), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-11)


def test_a_step_adds_the_signals_and_divides_by_targets(recipe, tmp_path, read_losses):
    """The border rows alone, which start at zero: their first gradient is known without a model."""
    steps = 8
    on = [*RAW, NO_DROPOUT, f"{KEY}.borders.value=0.5", "optimizer.clip=1e9", "learning_rate.warmup=0"]
    train(load_config(recipe(), on))
    train(load_config(recipe(), [*RAW, NO_DROPOUT, f"output={tmp_path / 'plain'}", "optimizer.clip=1e9"]))
    ours, plain = read_losses(tmp_path / "run"), read_losses(tmp_path / "plain")
    assert len(ours) == steps
    # The loss that is told is that of the bytes alone; the norm has the border rows' gradient in it.
    assert ours[0][1] == plain[0][1]
    config = load_config(recipe(), on)
    data = open_data(config)
    model = model_source(config, data.num_codes).make(None)
    batch = collate(data.dataset.batch(data.row_order(config.batch, config.plan.seed).rows(0)))
    states = model(**batch.model_inputs(), return_hidden=True).last_hidden_state.detach()
    compressor = load_compressor(data.compressor)
    gradient = torch.zeros(2, states.shape[2])
    for kind, row, column, (target,) in by_hand(batch.input_ids.tolist(), compressor, symbol_bytes(compressor), 1):
        if kind == "border":
            gradient += torch.outer(torch.tensor([0.5, 0.5]) - torch.eye(2)[target], states[row, column])
    expected = (gradient * 0.5 / batch.num_targets).norm()
    assert ours[0][2] ** 2 - plain[0][2] ** 2 == pytest.approx(float(expected) ** 2, rel=1e-3)


@pytest.mark.parametrize("more", [[HALF], RAW, [HALF, "levers.spelled_rows=true"], ALL_LEVERS])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(recipe, tmp_path, read_losses, more):
    whole = load_config(recipe(), [*ON, *more, f"output={tmp_path / 'whole'}"])
    train(whole)
    config = load_config(recipe(), [*ON, *more])
    train(config)
    shutil.rmtree(config.output / "checkpoints/step-00000008")
    shutil.rmtree(config.output / "model")
    train(config)
    assert read_losses(config.output) == read_losses(whole.output)
    for name in ("model/model.safetensors", f"checkpoints/step-00000008/{CROSS_VIEW_FILE}"):
        assert (config.output / name).read_bytes() == (whole.output / name).read_bytes()
    rows = load_file(config.output / f"checkpoints/step-00000008/{CROSS_VIEW_FILE}")
    assert all(bool(tensor.ne(0).all()) for tensor in rows.values())


def test_off_from_the_start_is_a_run_without_it(recipe, tmp_path, read_losses):
    train(
        load_config(recipe(), [f"{KEY}.first_bytes.value=1", f"{KEY}.first_bytes.hold=0", f"{KEY}.first_bytes.end=0"])
    )
    train(load_config(recipe(), [f"output={tmp_path / 'plain'}"]))
    assert read_losses(tmp_path / "run") == read_losses(tmp_path / "plain")


def test_two_processes_give_the_losses_of_one(recipe, launch, tmp_path, read_losses):
    config = load_config(recipe(), [*ON, HALF, f"output={tmp_path / 'alone'}"])
    train(config)
    process = launch(recipe(), *ON, HALF, launcher=("torch.distributed.run", "--nproc-per-node", "2", "-m"))
    assert process.wait(timeout=120) == 0, process.communicate()[1]
    assert read_losses(tmp_path / "run") == [pytest.approx(line, rel=2e-5) for line in read_losses(config.output)]


def test_nothing_of_it_is_left_in_model_and_exports(recipe, tmp_path):
    config = load_config(recipe(), ON)
    train(config)
    assert not [name for name in load_file(config.output / "model/model.safetensors") if "border" in name]
    out = export_model(config.output, tmp_path / "native", ExportOptions(ExportFormat.NATIVE))
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == 320
    full = export_model(config.output, tmp_path / "full", ExportOptions(ExportFormat.FULL))
    assert not [name for name in load_file(full / "model.safetensors") if "border" in name]


def test_plain_bytes_get_rows_for_the_symbols_and_are_scored_without(recipe):
    config = load_config(recipe(), [*ON, *RAW])
    train(config)
    model = ProxyByteForCausalLM.from_pretrained(config.output / "model")
    compressor = load_compressor(config.data / "compressor")
    assert model.config.num_compressed_symbols == compressor.num_symbols
    first = model_source(config, compressor.num_symbols).make(None)
    moved = (model.lm_head.weight - first.lm_head.weight)[320:].abs().amax(dim=1)
    assert (moved > 0).sum() > 20


def test_its_flops_are_counted_where_it_speaks(recipe):
    plain = load_config(recipe(), [*RAW, f"{KEY}.symbols.value=0"])
    config = load_config(recipe(), [*ON, *RAW, f"{KEY}.symbols.hold=0.5", f"{KEY}.symbols.end=0.5"])
    data = open_data(config)
    shape = model_source(config, data.num_codes).make(None).config
    compressor = load_compressor(data.compressor)
    rows = data.dataset.batch(range(len(data.dataset))).input_ids.tolist()
    assert len(rows) == 32
    counted = {"symbol": 0, "border": 0, "bytes": 0}
    for kind, row, _, _ in by_hand(rows, compressor, symbol_bytes(compressor), 2):
        counted[kind] += kind != "symbol" or row < 16
    products = counted["symbol"] * compressor.num_symbols + counted["border"] * 2
    # Forward, and backward for the rows and for the states: two FLOPs each time.
    added = row_flops(config, shape, data) - training_flops(shape, 64, data.document_length, True)
    assert added == pytest.approx(6 * 32 * products / 32)
    assert row_flops(plain, shape, data) == training_flops(shape, 64, data.document_length, True)


def test_first_bytes_of_symbols():
    table = first_bytes([b"ab", None, b"", b"xyz"], 5, 2)
    assert table.tolist() == [[161, 162], [-1, -1], [-1, -1], [184, 185], [-1, -1]]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["compute.parallel=fsdp"], "cross_view runs under"),
        (["plan.superposed=4"], "leave levers.cross_view out"),
        (
            ["model.checkpoint=x", "model.backbone_config=null", "trainable.adapter.kind=lora"],
            "leave trainable.adapter",
        ),
    ],
)
def test_what_does_not_fit_is_refused(recipe, overrides, said):
    with pytest.raises(ProxyByteError, match=said):
        load_config(recipe(), [*ON, *overrides])


def test_a_compressor_that_does_not_spell_is_refused(recipe, prepared, write_split, tmp_path):
    folder = tmp_path / "nibbles"
    compressor = RegroupCompressor(4)
    compressor.save(folder / "compressor")
    write_split(folder / "train", [b"some words " * 9] * 30, compressor)
    with pytest.raises(ProxyByteError, match="cross_view does not go with"):
        train(load_config(recipe(data=str(folder)), ON))
