"""What other programs do with a model: offload it, ask it for metrics, name an end in any form, add tokens."""

import json

import pytest
import torch
from accelerate import cpu_offload
from transformers import (
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from proxybyte import ProxyByteConfig, ProxyByteError, ProxyByteForCausalLM, build_tokenizer, save_tokenizer

SHAPES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
PROMPT = torch.tensor([[12, 70, 80, 90], [12, 71, 81, 91]])


def test_an_offloaded_head_gives_what_it_gives_at_home(tiny_model):
    model = tiny_model(num_pred_heads=2, num_raw_pred_heads=2)
    labels = PROMPT.clone()
    expected = model(PROMPT, labels=labels, return_head_logits=True)
    texts = model.generate(PROMPT, max_new_tokens=8)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.lm_head.weight.is_meta
    with torch.no_grad():
        found = model(PROMPT, labels=labels, return_head_logits=True, return_logits=False)
    torch.testing.assert_close(found.loss, expected.loss.detach())
    torch.testing.assert_close(found.head_logits, expected.head_logits.detach())
    assert torch.equal(model.generate(PROMPT, max_new_tokens=8), texts)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=8, draft="heads"), texts)


@pytest.mark.parametrize(
    "place",
    [
        {"device_map": {"model": "cpu", "lm_head": "disk", "pred_heads": "disk", "raw_pred_heads": "disk"}},
        {"device_map": {"model": "disk", "lm_head": "cpu", "pred_heads": "cpu", "raw_pred_heads": "cpu"}},
        {"device_map": "auto", "max_memory": {"cpu": 60_000}},
    ],
    ids=["heads", "decoder", "auto"],
)
@pytest.mark.parametrize("kind", ["llama", "gemma2", "proxybyte_eva"])
def test_what_lies_on_disk_gives_what_it_gives_in_memory(tiny_model, tmp_path, kind, place):
    settings = {"tie_word_embeddings": False, "num_pred_heads": 2, "num_raw_pred_heads": 2}
    tiny_model(kind, **settings).save_pretrained(tmp_path / "model")
    model = ProxyByteForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = model(PROMPT, labels=PROMPT, return_head_logits=True)
    texts = model.generate(PROMPT, max_new_tokens=8)
    away = ProxyByteForCausalLM.from_pretrained(tmp_path / "model", offload_folder=tmp_path / "disk", **place)
    assert "disk" in away.hf_device_map.values()
    with torch.no_grad():
        found = away(PROMPT, labels=PROMPT, return_head_logits=True)
        raw = away(PROMPT, raw_symbols_only=True).logits
    for name in ("loss", "logits", "head_logits", "target_nll", "head_nll"):
        torch.testing.assert_close(found[name], expected[name], msg=name)
    torch.testing.assert_close(raw[..., :320], expected.logits[..., :320])
    assert torch.equal(away.generate(PROMPT, max_new_tokens=8), texts)
    assert torch.equal(away.generate(PROMPT, max_new_tokens=8, draft="heads"), texts)


class CountingCalls(LogitsProcessor):
    def __init__(self):
        self.calls = 0

    def __call__(self, input_ids, scores):
        self.calls += 1
        scores = scores.clone()
        scores[:, 64 + self.calls] += 1e3
        return scores


def test_drafts_for_a_batch_under_a_processor_with_a_state_are_refused_and_one_row_is_exact(tiny_model):
    model = tiny_model(num_raw_pred_heads=3)
    with pytest.raises(ProxyByteError, match="CountingCalls in a batch of 2"):
        model.generate(PROMPT, max_new_tokens=6, draft="heads", logits_processor=[CountingCalls()])
    row = model.generate(PROMPT[:1], max_new_tokens=6, draft="heads", logits_processor=[CountingCalls()])
    assert row[0, 4:].tolist() == [65, 66, 67, 68, 69, 70]


class WantsToEndItsTurn(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores.index_fill(1, torch.tensor([11]), 1e4)


@pytest.mark.parametrize("ends", [11, [2, 11], (2, 13, 11), torch.tensor(11), torch.tensor([2, 11])], ids=str)
def test_an_end_is_one_in_any_form(tiny_model, ends):
    out = tiny_model().generate(PROMPT[:1], max_new_tokens=3, eos_token_id=ends, logits_processor=[WantsToEndItsTurn()])
    assert out[0, 4:].tolist() == [11]


def test_a_draft_in_the_generation_config_of_a_folder_is_kept(tiny_model, tmp_path):
    model = tiny_model(num_raw_pred_heads=3)
    model.generation_config.draft = "heads"
    model.save_pretrained(tmp_path)
    assert ProxyByteForCausalLM.from_pretrained(tmp_path).generation_config.draft == "heads"


def test_a_draft_in_a_folder_of_an_earlier_version_is_kept(tiny_model, tmp_path):
    """That called its generation config a copy of the model's configuration."""
    tiny_model(num_raw_pred_heads=3).save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    saved = json.loads(path.read_text())
    assert not saved.get("_from_model_config")
    path.write_text(json.dumps({**saved, "_from_model_config": True, "draft": "heads", "draft_bytes": 2}))
    config = ProxyByteForCausalLM.from_pretrained(tmp_path).generation_config
    assert (config.draft, config.draft_bytes, config.eos_token_id) == ("heads", 2, saved["eos_token_id"])
    assert not config._from_model_config


def test_embeddings_alone_are_a_prompt_for_drafts(tiny_model):
    model = tiny_model(num_raw_pred_heads=3)
    embeddings = model.get_input_embeddings()(PROMPT).detach()
    expected = model.generate(PROMPT, max_new_tokens=8)[:, 4:]
    assert torch.equal(model.generate(inputs_embeds=embeddings, max_new_tokens=8, draft="heads"), expected)


def test_evaluation_gives_logits_beside_the_loss_unless_the_configuration_says_not(tiny_model):
    model = tiny_model()
    with torch.no_grad():
        assert torch.equal(model(PROMPT, labels=PROMPT).logits, model(PROMPT).logits)
        model.config.logits_in_evaluation = False
        assert model(PROMPT, labels=PROMPT).logits is None


def test_tools_find_the_class_and_the_sizes(tiny_config):
    assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["proxybyte"] == "ProxyByteForCausalLM"
    gemma = ProxyByteConfig(backbone_config={"model_type": "gemma2", "final_logit_softcapping": 7.0})
    assert gemma.final_logit_softcapping == 7.0
    assert tiny_config().to_dict()["hidden_size"] == 32
    assert ProxyByteConfig.from_dict(tiny_config().to_dict()).hidden_size == 32


def test_a_setting_that_contradicts_the_weights_is_refused_by_name(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    for setting in ({"num_compressed_symbols": 10}, {"vocab_size": 330}, {"tie_word_embeddings": True}):
        with pytest.raises(ProxyByteError, match=next(iter(setting))):
            ProxyByteForCausalLM.from_pretrained(tmp_path, **setting)
    with pytest.raises(ProxyByteError, match="loss_chunk_size"):
        ProxyByteForCausalLM.from_pretrained(tmp_path, loss_chunk_size=0)


def test_a_model_is_not_resized_for_a_token_that_a_loaded_tokenizer_took(tiny_model, tmp_path):
    save_tokenizer(build_tokenizer(chat=True), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["<tool_call>"], special_tokens=True)
    for codes in (0, 40):
        with pytest.raises(ProxyByteError, match=r"resize_token_embeddings: .*<extra_id_19>"):
            tiny_model(num_compressed_symbols=codes).resize_token_embeddings(len(tokenizer))


@pytest.mark.parametrize(("kind", "codes"), [("llama", 40), ("gemma2", 0)])
def test_continuous_batching_writes_what_generate_writes(tiny_model, kind, codes):
    model = tiny_model(kind, num_compressed_symbols=codes).float()
    texts = [[12, *range(100, 110)], [12, 70, 80, 81], [12, 90]]
    expected = [model.generate(torch.tensor([text]), max_new_tokens=8)[0, len(text) :].tolist() for text in texts]
    found = model.generate_batch(
        texts,
        generation_config=GenerationConfig(eos_token_id=[2, 13], pad_token_id=0, do_sample=False),
        continuous_batching_config=ContinuousBatchingConfig(page_size=16, num_blocks=8, max_batch_tokens=32),
        max_new_tokens=8,
        warmup=False,
    )
    assert [one.generated_tokens for one in found.values()] == expected


def test_continuous_batching_that_cannot_be_right_is_refused_at_once(tiny_model):
    suffixes = tiny_model(suffix_rows={"nodes": 2, "longest": 1, "mix": 0.5})
    for model, named in ((tiny_model("proxybyte_eva"), "proxybyte_eva"), (suffixes, "suffix rows")):
        with pytest.raises(ProxyByteError, match=rf"generate_batch\) does not run with .*{named}"):
            model.generate_batch([[12, 70]], max_new_tokens=2)


@pytest.mark.parametrize("codes", [0, 40])
@pytest.mark.parametrize("own", [True, False], ids=["right drafts", "wrong drafts"])
def test_a_native_model_assists_the_full_one(tiny_model, codes, own):
    model = tiny_model(num_compressed_symbols=codes)
    native = LlamaForCausalLM(LlamaConfig(**SHAPES, num_key_value_heads=2, vocab_size=320)).double().eval()
    if own:
        rows = {"model.embed_tokens.weight", "lm_head.weight"}
        weights = {name: one[:320] if name in rows else one for name, one in model.state_dict().items()}
        native.load_state_dict(weights)
    expected = model.generate(PROMPT[:1], max_new_tokens=12)
    assert torch.equal(model.generate(PROMPT[:1], max_new_tokens=12, assistant_model=native), expected)
    torch.manual_seed(0)
    drawn = model.generate(PROMPT[:1], max_new_tokens=12, assistant_model=native, do_sample=True)
    assert set(drawn[0, 4:].tolist()) <= set(range(64, 320)) | {0, 2, 13}


def test_an_assistant_over_raw_symbols_reads_no_compressed_ones(tiny_model):
    model, raw = tiny_model(), tiny_model(num_compressed_symbols=0)
    with pytest.raises(ProxyByteError, match="assistant_model reads raw symbols alone"):
        model.generate(torch.tensor([[14, 330, 331]]), max_new_tokens=4, assistant_model=raw)
    expected = model.generate(PROMPT[:1], max_new_tokens=8)
    assert torch.equal(model.generate(PROMPT[:1], max_new_tokens=8, assistant_model=raw), expected)
