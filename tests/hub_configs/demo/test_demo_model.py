"""What the demo says of a model, against forward passes of one prefix after another in float64."""

import math
import threading

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.demo.model import DemoModel, Drafting, Writing

PROMPT = "abcabcabcabcabc é".encode()


@pytest.fixture(scope="module", params=["run", "native"])
def model(request):
    folder = request.getfixturevalue({"run": "demo_run", "native": "demo_native"}[request.param])
    return DemoModel.load(folder, ["gzip", "bits-16"])


def alone(model: DemoModel, text: bytes) -> list[float]:
    """Bits of each byte, each by a pass of its own."""
    plain = AutoModelForCausalLM.from_pretrained(model.folder.found.model).double().eval()
    symbols = [12, *(64 + byte for byte in text)]
    found = []
    for place in range(1, len(symbols)):
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([symbols[:place]]), use_cache=False).logits[0, -1, :320]
        found.append(-(logits[symbols[place]] - logits.logsumexp(0)).item() / math.log(2))
    return found


def last(model: DemoModel, writing: Writing, prompt: bytes = PROMPT):
    *earlier, state = model.write(prompt, writing)
    for before in earlier:
        assert state.text.startswith(before.text) and not before.done
    assert state.done
    return state


def test_greedy_bytes_are_the_likeliest_and_cost_what_they_cost(model):
    state = last(model, Writing(24))
    assert len(state.text) == 24
    whole = alone(model, PROMPT + state.text)
    np.testing.assert_allclose(state.prompt_bits, whole[: len(PROMPT)], atol=1e-3)
    np.testing.assert_allclose(state.bits, whole[len(PROMPT) :], atol=1e-3)


def test_drawn_bytes_cost_what_they_cost_at_temperature_one(model):
    state = last(model, Writing(24, temperature=1.5, seed=3))
    assert state.text != last(model, Writing(24)).text
    np.testing.assert_allclose(state.bits, alone(model, PROMPT + state.text)[len(PROMPT) :], atol=1e-3)


def test_a_full_model_with_heads_can_draft_in_every_way_and_a_native_one_in_none(demo_model, demo_native):
    assert set(demo_model.draftings) == set(Drafting)
    assert DemoModel.load(demo_native).draftings == (Drafting.NONE,)


@pytest.mark.parametrize("drafting", [each for each in Drafting if each is not Drafting.NONE])
def test_steps_tell_what_was_drafted_and_what_of_it_stands_in_the_text(demo_model, drafting):
    plain = last(demo_model, Writing(60))
    state = last(demo_model, Writing(60, drafting=drafting))
    assert state.text == plain.text, "drafts change nothing"
    np.testing.assert_allclose(state.bits, plain.bits, atol=1e-3)
    place = 0
    for step in state.report.steps:
        drafted = [symbol - 64 for symbol in step.symbols]  # below 0 for a sentinel
        assert drafted[: step.accepted] == list(state.text[place : place + step.accepted])
        assert step.kept in (step.accepted, step.accepted + 1)
        if step.accepted < len(drafted) and step.kept > step.accepted:
            assert drafted[step.accepted] != state.text[place + step.accepted]
        place += step.kept
    assert place == len(state.text)
    assert len(state.report.steps) == state.report.forwards
    if drafting is Drafting.REPEATS:
        assert any(step.repeated for step in state.report.steps)


def test_who_stops_asking_stops_the_writing(demo_model):
    before = threading.active_count()
    states = demo_model.write(b"a", Writing(200))
    assert not next(states).done
    states.close()
    assert threading.active_count() == before
    assert last(demo_model, Writing(3)).done, "and the model is free again"


def test_the_end_of_the_context_ends_the_writing_and_a_prompt_beyond_it_is_refused(demo_model):
    assert len(last(demo_model, Writing(1000), b"x" * 240).text) == 256 - 241
    with pytest.raises(ProxyByteError, match="leaves no room in the model's context of 256"):
        next(demo_model.write(b"x" * 256, Writing(5)))
    with pytest.raises(ProxyByteError, match="exceeds the model's context of 255"):
        demo_model.bits(b"x" * 256)


def test_every_compressor_shows_where_its_symbols_end(demo_model):
    text = b"def f(self):\n    pass "
    bpe, gzip, pairs = demo_model.compressed(text)
    assert bpe.compressor.startswith("bpe") and bpe.ends[-1] == len(text) and len(bpe.ends) == len(bpe.codes)
    assert gzip.ends is None and len(gzip.codes)
    assert len(text) == 22 and sorted(set(pairs.ends.tolist())) == list(range(2, 23, 2))


def test_a_compressor_that_is_not_there_is_named(demo_run):
    with pytest.raises(ProxyByteError, match="no compressor 'absent'"):
        DemoModel.load(demo_run, ["absent"])
