"""What anyone who downloads an export does with it, in both formats, through stock Transformers."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList, pipeline

from proxybyte import decode_bytes, encode_bytes
from proxybyte.logits_processors import Utf8LogitsProcessor
from proxybyte.streaming import ByteStreamer
from proxybyte.symbols import Special

ENDS = {int(Special.EOS), int(Special.RAW_CLOSE)}
PROMPTS = ["def f(x):", "é", "", "a much longer prompt, <raw> and all\n"]


@pytest.fixture(scope="module")
def model(exported):
    return AutoModelForCausalLM.from_pretrained(exported)


@pytest.fixture(scope="module")
def tokenizer(exported):
    return AutoTokenizer.from_pretrained(exported)


def grown(model, prompt: torch.Tensor, steps: int) -> list[int]:
    """Greedy continuation by brute force: the whole row again for each byte."""
    row = prompt
    for _ in range(steps):
        with torch.inference_mode():
            logits = model(input_ids=row, use_cache=False).logits[0, -1]
        allowed = [*ENDS, *range(64, 320)]
        best = allowed[int(logits[allowed].argmax())]
        row = torch.cat([row, torch.tensor([[best]])], dim=1)
        if best in ENDS:
            break
    return row[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("text", PROMPTS)
def test_greedy_generation_is_the_likeliest_byte_again_and_again(model, tokenizer, text):
    prompt = tokenizer(text, return_tensors="pt")
    out = model.generate(**prompt, max_new_tokens=24)
    assert out[0, prompt["input_ids"].shape[1] :].tolist() == grown(model, prompt["input_ids"], 24)


@pytest.mark.parametrize(
    "how", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 0}], ids=["greedy", "beam", "sampling"]
)
@pytest.mark.parametrize("text", PROMPTS)
def test_cached_equals_uncached(model, tokenizer, text, how):
    outputs = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        prompt = tokenizer(text, return_tensors="pt")
        outputs.append(model.generate(**prompt, max_new_tokens=16, use_cache=use_cache, **how).tolist())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}], ids=["greedy", "beam"])
def test_a_left_padded_batch_is_each_prompt_alone(model, tokenizer, how):
    batch = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    assert (batch["input_ids"][2, :3] == Special.PAD).all()
    together = model.generate(**batch, max_new_tokens=16, **how)[:, batch["input_ids"].shape[1] :]
    for text, row in zip(PROMPTS, together.tolist(), strict=True):
        prompt = tokenizer(text, return_tensors="pt")
        alone = model.generate(**prompt, max_new_tokens=16, **how)[0, prompt["input_ids"].shape[1] :].tolist()
        assert row[: len(alone)] == alone
        assert set(row[len(alone) :]) <= {int(Special.PAD)}


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_nothing_but_bytes_and_an_end_comes_out(model, tokenizer, seed):
    torch.manual_seed(seed)
    prompt = tokenizer(["a", "bc"], padding=True, return_tensors="pt")
    width = prompt["input_ids"].shape[1]
    out = model.generate(**prompt, max_new_tokens=40, do_sample=True, temperature=20.0, top_k=0)[:, width:]
    for row in out.tolist():
        ended = next((at for at, symbol in enumerate(row) if symbol in ENDS), len(row))
        assert all(64 <= symbol < 320 for symbol in row[:ended])
        assert set(row[ended + 1 :]) <= {int(Special.PAD)}


def test_generation_ends_at_the_closing_sentinel(model, tokenizer):
    prompt = tokenizer("a", return_tensors="pt")
    wish = LogitsProcessorList([lambda _, scores: scores.index_fill(1, torch.tensor([Special.RAW_CLOSE]), 1e4)])
    out = model.generate(**prompt, max_new_tokens=10, logits_processor=wish)
    assert out[0].tolist() == [12, 161, Special.RAW_CLOSE]


@pytest.mark.parametrize("how", [{}, {"num_beams": 2}, {"do_sample": True, "temperature": 3.0}])
def test_the_utf8_guarantee_holds_in_a_batch_of_any_kind(model, tokenizer, how):
    prompt = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    width = prompt["input_ids"].shape[1]
    guard = LogitsProcessorList([Utf8LogitsProcessor(max_length=width + 33)])
    for row in model.generate(**prompt, max_new_tokens=33, logits_processor=guard, **how)[:, width:]:
        decode_bytes(row).decode()


def test_the_text_generation_pipeline_continues_the_text(model, tokenizer):
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    text = "if a < b: # <raw>"
    prompt = tokenizer(text, return_tensors="pt")
    expected = model.generate(**prompt, max_new_tokens=12)[0]
    (result,) = generator(text, max_new_tokens=12, do_sample=False)
    assert result["generated_text"] == tokenizer.decode(expected, skip_special_tokens=True)
    assert result["generated_text"].startswith(text)


def test_streaming_gives_what_generate_returns(model, tokenizer):
    prompt = tokenizer("x = ", return_tensors="pt")
    out = io.StringIO()
    whole = model.generate(**prompt, max_new_tokens=30, streamer=ByteStreamer(out.write))
    new = decode_bytes(whole[0, prompt["input_ids"].shape[1] :])
    assert out.getvalue() == new.decode(errors="replace")


def test_bytes_that_are_no_text_can_be_a_prompt(model):
    prompt = torch.tensor([[Special.RAW_OPEN, *encode_bytes(b"\xff\xfe\x00").tolist()]])
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5)
    assert decode_bytes(out[0]).startswith(b"\xff\xfe\x00")
