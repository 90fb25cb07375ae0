"""A byte model writes on from any byte, under the settings asked for and no others."""

import copy

import pytest

from proxybyte.eval.code.completers import Decoding, make_completer

KNOWN = "Q: zwei\nA: deux\n\nQ: drei\nA: trois\n\n"


@pytest.mark.parametrize("end", range(1, len(KNOWN) - 1))
def test_a_prompt_may_end_at_any_byte_and_is_not_healed(taught_llama, tmp_path, end):
    """In the middle of a word, after spaces, after an empty line: the text goes on as if it had not been cut."""
    completer = make_completer(taught_llama, tmp_path, Decoding(max_new=len(KNOWN)))
    ((written),) = completer.complete([KNOWN[:end]], [], seed=0)
    assert KNOWN[:end] + written == KNOWN


def test_the_models_own_sampling_defaults_do_not_count(taught_llama, tmp_path):
    """Its generation config asks for the one likeliest symbol; sampling at a high temperature does not."""
    model = copy.deepcopy(taught_llama)
    model.generation_config.update(do_sample=True, top_k=1, top_p=0.01, temperature=0.01)
    sampled = make_completer(model, tmp_path, Decoding(temperature=5.0, max_new=8))
    assert len(set(sampled.complete(["Q"] * 8, [], seed=0))) > 4
    greedy = make_completer(model, tmp_path, Decoding(max_new=8))
    assert set(greedy.complete(["Q", "Q"], [], seed=0)) == {KNOWN[1:9]}
