"""What drafts cannot be combined with is refused in one sentence."""

import pytest
import torch
from transformers import GenerationConfig, StoppingCriteria

from proxybyte import ByteStreamer
from proxybyte.errors import ProxyByteError

PROMPT = torch.tensor([[12, 70, 80, 90]])


class Never(StoppingCriteria):
    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        return torch.zeros(len(input_ids), dtype=torch.bool)


@pytest.fixture
def model(tiny_model):
    return tiny_model(num_raw_pred_heads=3)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"num_beams": 2}, "beam search"),
        ({"prompt_lookup_num_tokens": 3}, "assisted generation"),
        ({"use_cache": False}, "use_cache"),
        ({"output_scores": True, "return_dict_in_generate": True}, "output_scores"),
        ({"cache_implementation": "static"}, "cache_implementation"),
        ({"draft": "tails"}, "give 'heads', a drafter"),
        ({"draft_bytes": 0}, "draft_bytes is 0"),
        ({"draft_bytes": True}, "draft_bytes is True"),
        ({"draft_rows": 0}, "draft_rows is 0"),
        ({"draft_repeats": 3}, "draft_repeats is 3"),
        ({"draft": None, "draft_repeats": True, "num_beams": 2}, "draft_repeats=True .* beam search"),
        ({"draft": "compressed"}, "CrossViewDrafter of proxybyte.training"),
        ({"draft": object()}, "give 'heads', a drafter"),
        ({"num_return_sequences": 2, "do_sample": True, "streamer": ByteStreamer(print)}, "one row"),
        (
            {"num_return_sequences": 2, "do_sample": True, "eos_token_id": None, "stopping_criteria": [Never()]},
            "eos_token_id",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_combination_that_cannot_be_exact_is_refused(model, settings, reason):
    with pytest.raises((ProxyByteError, ValueError), match=reason) as caught:
        model.generate(PROMPT, max_new_tokens=4, **{"draft": "heads", **settings})
    assert "\n" not in str(caught.value)


def test_a_model_without_heads_says_so(tiny_model):
    with pytest.raises(ProxyByteError, match="has none"):
        tiny_model().generate(PROMPT, max_new_tokens=4, draft="heads")


def test_attention_that_takes_no_mask_is_refused(model):
    model.model.config._attn_implementation = "flex_attention"
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ProxyByteError, match="sdpa"):
        from proxybyte.row_cache import open_rows

        model.model.config._attn_implementation = "sdpa"
        cache = model(PROMPT, use_cache=True).past_key_values
        model.model.config._attn_implementation = "flex_attention"
        open_rows(cache, None, model.model.config)


def test_a_configuration_that_asks_for_drafts_can_be_saved_and_overruled(model, tmp_path):
    GenerationConfig(max_new_tokens=6, draft="heads", draft_bytes=2).save_pretrained(tmp_path)
    config = GenerationConfig.from_pretrained(tmp_path)
    drafted = model.generate(PROMPT, generation_config=config, return_dict_in_generate=True)
    assert len(drafted.drafts.offered) <= 2
    plain = model.generate(PROMPT, generation_config=config, return_dict_in_generate=True, draft=None)
    assert not hasattr(plain, "drafts")
    assert torch.equal(plain.sequences, drafted.sequences)
