"""Drafts of a native export in plain Transformers, by the code in its folder."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model

PROMPTS = ["def f(x):", "é", "a much longer prompt, <raw> and all\n"]


def always_say_the_same(model) -> None:
    """The same hidden state everywhere, which the heads read as the model's own head does: all drafts are right."""
    model.model.embed_tokens.weight.data[:] = model.model.embed_tokens.weight.data[200]
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model.lm_head.weight.data[161] = model.model.embed_tokens.weight.data[0]
    model.raw_pred_heads.weight.data = model.lm_head.weight.data[:320].repeat(3, 1)


@pytest.fixture(scope="module", params=["llama", "gemma2", "sure"])
def folder(request, model_writer, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param)
    family, change = ("llama", always_say_the_same) if request.param == "sure" else (request.param, None)
    model_writer(home / "model", family, change, num_raw_pred_heads=3)
    return export_model(home / "model", home / "out", ExportOptions(ExportFormat.NATIVE))


def forwards_of(model) -> list[int]:
    """Symbols of each forward pass from now on."""
    seen: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args or [kwargs["input_ids"]])[0].shape[1]), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("texts", [PROMPTS[:1], PROMPTS], ids=["one", "padded batch"])
def test_drafts_write_what_greedy_decoding_writes(folder, texts):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompts = tokenizer(texts, padding=True, return_tensors="pt")
    expected = model.generate(**prompts, max_new_tokens=24, do_sample=False)
    seen = forwards_of(model)
    drafted = model.generate(
        **prompts, max_new_tokens=24, do_sample=False, custom_generate=str(folder), trust_remote_code=True
    )
    assert drafted.tolist() == expected.tolist()
    if "sure" in str(folder):
        assert len(seen) == (1 + 6) * len(texts)  # 24 bytes, four a step


def test_a_processor_and_a_streamer_see_each_symbol_once_and_in_order(folder):
    class Forbids(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lengths = []

        def __call__(self, ids, scores):
            self.lengths.append(ids.shape[1])
            return scores.index_fill(1, ids[0, -1:], -torch.inf)

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(PROMPTS[0], return_tensors="pt")
    outputs, lengths, texts = [], [], []
    for more in ({}, {"custom_generate": str(folder), "trust_remote_code": True}):
        processor, streamer = Forbids(), TextStreamer(tokenizer)
        written: list[str] = []
        streamer.on_finalized_text = lambda text, stream_end=False, written=written: written.append(text)
        out = model.generate(**prompt, max_new_tokens=16, logits_processor=[processor], streamer=streamer, **more)
        outputs.append(out.tolist())
        lengths.append(processor.lengths)
        texts.append("".join(written))
    assert outputs[0] == outputs[1]
    assert lengths[0] == lengths[1]
    assert texts[0] == texts[1]


def test_sampling_is_transformers_own(folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(PROMPTS[0], return_tensors="pt")
    outputs = []
    for more in ({}, {"custom_generate": str(folder), "trust_remote_code": True}):
        torch.manual_seed(0)
        outputs.append(model.generate(**prompt, max_new_tokens=8, do_sample=True, **more).tolist())
    assert outputs[0] == outputs[1]


def test_who_trusts_the_folder_gets_drafts_without_asking(folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    trusting = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    prompt = tokenizer(PROMPTS[0], return_tensors="pt")
    expected = model.generate(**prompt, max_new_tokens=16)
    assert trusting.generate(**prompt, max_new_tokens=16).tolist() == expected.tolist()
