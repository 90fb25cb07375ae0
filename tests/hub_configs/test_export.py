import json
import shutil
from itertools import takewhile

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    dynamic_module_utils,
)

from proxybyte import ProxyByteError, encode_bytes
from proxybyte.cli import main
from proxybyte.hub_configs.export import NATIVE_FAMILIES, ExportFormat, ExportOptions, export_model
from proxybyte.symbols import NUM_RAW_SYMBOLS, document_opening
from proxybyte.tokenization_proxybyte import build_tokenizer, save_tokenizer
from proxybyte.training import CrossViewDrafter
from proxybyte.training.compressors.spelling import Spelling

NATIVE = ExportOptions(ExportFormat.NATIVE)
FULL = ExportOptions(ExportFormat.FULL)
TEXT = "def f(x): # <raw> A\u030a \ufb01 \U0001f642\r\n\treturn x  "


def prompt() -> torch.Tensor:
    return torch.tensor([[12, *encode_bytes(TEXT.encode()).tolist()]])


def raw_logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=prompt()).logits[..., :NUM_RAW_SYMBOLS]


def add_noise(model) -> None:
    """So that no weight, of a norm or a bias, can be lost and not be missed."""
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)


@pytest.mark.parametrize("family", sorted(NATIVE_FAMILIES))
def test_a_native_export_keeps_the_bytes_logits_and_the_tokenizer(family, model_writer, tmp_path):
    model = model_writer(tmp_path / "model", family, add_noise)
    export_model(tmp_path / "model", tmp_path / "out", NATIVE)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert plain.config.model_type == family
    assert plain.__module__.startswith("transformers.models.")
    assert plain.get_input_embeddings().num_embeddings == plain.config.vocab_size == NUM_RAW_SYMBOLS
    torch.testing.assert_close(raw_logits(plain), raw_logits(model), rtol=0, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(TEXT)["input_ids"] == prompt()[0].tolist()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("options", [NATIVE, FULL], ids=["native", "full"])
def test_every_weight_of_the_raw_rows_is_kept_bit_for_bit(tied, options, model_writer, tmp_path):
    model = model_writer(tmp_path / "model", "llama", lambda model: model.bfloat16(), tie_word_embeddings=tied)
    export_model(tmp_path / "model", tmp_path / "out", options)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    rows = NUM_RAW_SYMBOLS if options is NATIVE else model.config.vocab_size
    assert loaded.dtype == torch.bfloat16
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    for name, weight in model.state_dict().items():
        kept = weight[:rows] if name in ("model.embed_tokens.weight", "lm_head.weight") else weight
        assert torch.equal(loaded.state_dict()[name], kept), name


def test_a_qwen2_checkpoint_would_still_change_bytes(tmp_path):
    """Why the export refuses that family; where this fails, Transformers has changed and the refusal can go."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    Qwen2ForCausalLM(Qwen2Config(**shape, vocab_size=NUM_RAW_SYMBOLS)).save_pretrained(tmp_path)
    save_tokenizer(build_tokenizer(), tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXT)["input_ids"] != prompt()[0].tolist()


@pytest.mark.parametrize(
    ("family", "reason"), [("qwen2", "would change bytes.*--format full"), ("phi", "not offered for 'phi'")]
)
def test_a_family_that_cannot_be_native_is_refused_and_nothing_is_left(family, reason, model_writer, tmp_path):
    model_writer(tmp_path / "model", family)
    with pytest.raises(ProxyByteError, match=reason):
        export_model(tmp_path / "model", tmp_path / "out", NATIVE)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_qwen2_model_can_be_exported_full(model_writer, tmp_path):
    model = model_writer(tmp_path / "model", "qwen2")
    export_model(tmp_path / "model", tmp_path / "out", FULL)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(TEXT)["input_ids"] == prompt()[0].tolist()
    assert torch.equal(raw_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), raw_logits(model))


def test_a_full_export_carries_code_and_compressor(llama_run, tmp_path):
    out = export_model(llama_run, tmp_path / "out", FULL)
    auto_map = json.loads((out / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    assert all((out / f"{target.split('.')[0]}.py").is_file() for target in auto_map.values())
    assert json.loads((out / "compressor" / "compressor.json").read_text()) == {"family": "bpe"}
    assert "family `bpe`" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("heads", "options", "said"),
    [
        ({"num_raw_pred_heads": 3}, FULL, "3 more heads"),
        ({"num_pred_heads": 2}, FULL, "1 more head,"),
        ({"num_raw_pred_heads": 3}, NATIVE, "custom_generate="),
        ({}, FULL, None),
        ({}, NATIVE, None),
    ],
)
def test_the_card_of_a_model_with_heads_says_how_to_draft(model_writer, tmp_path, heads, options, said):
    model_writer(tmp_path / "run" / "model", "llama", **heads)
    card = (export_model(tmp_path / "run", tmp_path / "out", options) / "README.md").read_text()
    assert ('draft="heads"' in card or "custom_generate=" in card) == (said is not None)
    assert said is None or said in card
    assert ("split_special_tokens=False" in card) is (options is NATIVE)  # for TRL, which appends ends as text
    assert "$" not in card


def test_a_native_export_carries_no_code(llama_run, tmp_path):
    out = export_model(llama_run, tmp_path / "out", NATIVE)
    names = {path.name for path in out.iterdir()}
    weights = {"model.safetensors", "config.json", "generation_config.json"}
    assert names == {*weights, "tokenizer.json", "tokenizer_config.json", "README.md", "export.json", "SHA256SUMS"}
    assert "auto_map" not in json.loads((out / "config.json").read_text())


def test_heads_that_predict_further_stay_in_a_full_export_and_lie_beside_a_native_one(model_writer, tmp_path):
    model = model_writer(tmp_path / "model", "llama", num_pred_heads=3, num_raw_pred_heads=2)
    full = AutoModelForCausalLM.from_pretrained(export_model(tmp_path / "model", tmp_path / "full", FULL))
    assert torch.equal(full.pred_heads.weight, model.pred_heads.weight)
    assert torch.equal(full.raw_pred_heads.weight, model.raw_pred_heads.weight)
    native = AutoModelForCausalLM.from_pretrained(export_model(tmp_path / "model", tmp_path / "native", NATIVE))
    assert not any("pred_heads" in name for name in native.state_dict())
    assert "num_pred_heads" not in json.loads((tmp_path / "native" / "config.json").read_text())
    torch.testing.assert_close(raw_logits(native), raw_logits(model), rtol=1e-5, atol=1e-5)
    hidden = torch.randn(1, 4, 32)
    heads = load_file(tmp_path / "native" / "draft_heads.safetensors")["heads"]
    torch.testing.assert_close((hidden @ heads.mT).unflatten(-1, (4, 320)), model.head_logits(hidden))


def test_the_prefix_and_the_context_travel_in_the_tokenizer(model_writer, tmp_path):
    model_writer(tmp_path / "model", "llama", document_opening="<bos><raw>")
    tokenizer = AutoTokenizer.from_pretrained(export_model(tmp_path / "model", tmp_path / "out", NATIVE))
    assert tokenizer("a")["input_ids"] == [1, 12, 161]
    # Whoever scores the plain folder opens documents so too.
    assert document_opening(AutoConfig.from_pretrained(tmp_path / "out")) == (1, 12)
    assert tokenizer.model_max_length == 256


def test_a_chat_export_ends_at_the_end_of_a_turn(llama_run, tmp_path):
    out = export_model(llama_run, tmp_path / "out", ExportOptions(ExportFormat.NATIVE, chat=True))
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.generation_config.eos_token_id == [2, 13, 11]
    assert not {2, 11, 13} & set(model.generation_config.suppress_tokens)
    messages = [{"role": "user", "content": "<raw>"}]
    assert AutoTokenizer.from_pretrained(out).apply_chat_template(messages, return_dict=False)[-6:-1] == [
        *encode_bytes(b"<raw>").tolist()
    ]


def test_an_existing_folder_is_kept_without_force_and_replaced_whole_with_it(llama_run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ProxyByteError, match=r"exists.*--force"):
        export_model(llama_run, out, NATIVE)
    with pytest.raises(ProxyByteError, match=r"mine\.txt.*will not be replaced"):
        export_model(llama_run, out, ExportOptions(ExportFormat.NATIVE, force=True))
    assert (out / "mine.txt").read_text() == "mine"
    (out / "mine.txt").unlink()
    export_model(llama_run, out, ExportOptions(ExportFormat.NATIVE, force=True))
    (out / "README.md").write_text("an earlier card")
    export_model(llama_run, out, ExportOptions(ExportFormat.NATIVE, force=True))
    assert "an earlier card" not in (out / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("out", ["", "model"])
def test_the_source_is_never_replaced(out, model_writer, tmp_path):
    model_writer(tmp_path / "run" / "model", "llama")
    with pytest.raises(ProxyByteError, match="holds the model"):
        export_model(tmp_path / "run", tmp_path / "run" / out, ExportOptions(ExportFormat.NATIVE, force=True))
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_a_failed_export_leaves_what_was_there(model_writer, tmp_path):
    model_writer(tmp_path / "model", "llama")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (tmp_path / "out").mkdir()
    with pytest.raises(ProxyByteError, match=r"cannot load the weights in .*model: "):
        export_model(tmp_path / "model", tmp_path / "out", ExportOptions(ExportFormat.NATIVE, force=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_an_unfinished_run_gives_its_newest_checkpoint(model_writer, tmp_path):
    for step, mark in ((2, 1.0), (10, 2.0)):
        folder = tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "model"
        model_writer(folder, "llama", lambda model, mark=mark: model.model.norm.weight.data.fill_(mark))
    (tmp_path / "run" / "checkpoints" / "step-00000011.tmp" / "model").mkdir(parents=True)
    (tmp_path / "run" / "compressor").mkdir()
    (tmp_path / "run" / "compressor" / "compressor.json").write_text("{}")
    out = export_model(tmp_path / "run", tmp_path / "out", FULL)
    assert (out / "compressor" / "compressor.json").is_file()
    assert AutoModelForCausalLM.from_pretrained(out).model.norm.weight.unique().tolist() == [2.0]


def test_a_plain_checkpoint_has_no_full_export_and_one_of_other_symbols_none(llama_run, tmp_path):
    export_model(llama_run, tmp_path / "out", NATIVE)
    with pytest.raises(ProxyByteError, match="plain 'llama' checkpoint already: there is nothing"):
        export_model(tmp_path / "out", tmp_path / "again", FULL)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(**shape, vocab_size=400)).save_pretrained(tmp_path / "other")
    with pytest.raises(ProxyByteError, match="not one of 320 byte symbols"):
        export_model(tmp_path / "other", tmp_path / "again", NATIVE)


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_a_native_folder_that_stock_code_saved_again_is_mended_by_exporting_it(chat, model_writer, tmp_path):
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}}
    model_writer(tmp_path / "model", "llama", backbone_settings=rope, num_raw_pred_heads=2)
    out = export_model(tmp_path / "model", tmp_path / "out", ExportOptions(ExportFormat.NATIVE, chat=chat))
    AutoModelForCausalLM.from_pretrained(out).save_pretrained(tmp_path / "again")
    AutoTokenizer.from_pretrained(out).save_pretrained(tmp_path / "again")
    shutil.copy(out / "draft_heads.safetensors", tmp_path / "again")
    assert "rope_theta" not in json.loads((tmp_path / "again" / "config.json").read_text())
    export_model(tmp_path / "again", tmp_path / "mended", NATIVE)
    mended = tmp_path / "mended"
    names = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert {path.relative_to(mended) for path in mended.rglob("*") if path.is_file()} == names
    for name in names:
        if name.name not in ("README.md", "SHA256SUMS"):
            assert (out / name).read_bytes() == (mended / name).read_bytes(), name
    assert json.loads((mended / "config.json").read_text())["rope_theta"] == 123.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["absent", "--out", "out"], "absent is no folder"),
        (["empty", "--out", "out"], "empty holds no model"),
        (["broken", "--out", "out"], "config.json is damaged"),
    ],
)
def test_a_person_gets_one_sentence_and_exit_code_2(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert main(["export", *arguments, "--format", "native"]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1


def test_the_command_exports_and_says_how_to_load(llama_run, tmp_path, capsys):
    assert main(["export", str(llama_run), "--format", "full", "--out", str(tmp_path / "out")]) == 0
    assert "trust_remote_code=True" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_drafter_of_the_package_plugs_into_the_copy_of_the_class_that_travels(llama_run, tmp_path, monkeypatch):
    folder = export_model(llama_run, tmp_path / "hub", FULL)
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    # Where the package is installed AutoModelForCausalLM takes its class.
    copied = dynamic_module_utils.get_class_from_dynamic_module("modeling_proxybyte.ProxyByteForCausalLM", str(folder))
    model = copied.from_pretrained(folder)
    assert type(model).__module__.startswith("transformers_modules.")
    # Codes may stop short of a text.
    spelling = Spelling([bytes([byte]) for byte in range(50)], lambda text: [*takewhile(lambda byte: byte < 50, text)])
    drafted = model.generate(
        prompt(), max_new_tokens=24, draft=CrossViewDrafter(spelling), draft_repeats=True, return_dict_in_generate=True
    )
    assert drafted.drafts.draft_forwards > 0
    assert torch.equal(drafted.sequences, model.generate(prompt(), max_new_tokens=24))
