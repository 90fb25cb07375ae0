"""Sampling with drafts follows the distribution of sampling without."""

from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from transformers import LogitsProcessor, LogitsProcessorList

from proxybyte.symbols import Special

LETTERS = (64, 65, 66)
HORIZON = 3
TEXTS = 1500
OTHERS = [symbol for symbol in range(360) if symbol not in LETTERS]
CASES = {
    "temperature": {"top_k": 0, "temperature": 5.0},
    "top-p": {"top_k": 0, "temperature": 5.0, "top_p": 0.85},
    "top-k and repetition penalty": {"top_k": 2, "repetition_penalty": 1.7, "temperature": 3.0},
    "by length": {"top_k": 0, "temperature": 4.0, "min_p": 0.1, "logits_processor": "by length"},
}


class FavouringLengths(LogitsProcessor):
    """A caller's own, which depends on how long the text is."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, LETTERS[input_ids.shape[1] % 3]] += 2.0
        return scores


@torch.no_grad()
def exact_distribution(model, prompt: torch.Tensor, settings: dict) -> torch.Tensor:
    """Probability of each text of ``HORIZON`` letters, from one full forward pass a position and generate's scores."""
    texts = list(product(LETTERS, repeat=HORIZON))
    scores = []
    for position in range(HORIZON):
        prefixes = sorted({text[:position] for text in texts})
        ids = torch.cat([prompt.expand(len(prefixes), -1), torch.tensor(prefixes, dtype=torch.long)], dim=1)
        padding = prompt.ne(0).long().expand(len(prefixes), -1)
        seen = torch.cat([padding, torch.ones(len(prefixes), position, dtype=torch.long)], dim=1)
        logits = model(ids, attention_mask=seen).logits[:, -1].float()
        rule = prepared(model, prompt, settings)
        rows = [rule(ids[i : i + 1], logits[i : i + 1]) for i in range(len(ids))]
        processed = torch.cat(rows).softmax(-1)
        scores.append(dict(zip(prefixes, processed, strict=True)))
    return torch.stack([torch.stack([scores[i][text[:i]][text[i]] for i in range(HORIZON)]).prod() for text in texts])


def prepared(model, prompt: torch.Tensor, settings: dict) -> LogitsProcessorList:
    """The processors that generate makes of ``settings``."""
    caught = []

    def catch(_, input_ids, logits_processor, **kwargs):
        caught.append(logits_processor)
        return input_ids

    model.generate(prompt, attention_mask=prompt.ne(0).long(), custom_generate=catch, **settings)
    return caught[0]


@pytest.mark.parametrize("kind", ["llama", "proxybyte_eva"])
@pytest.mark.parametrize("case", sorted(CASES))
def test_sampled_texts_follow_the_exact_distribution(tiny_model, foretold, kind, case):
    """Chi-square over all texts of a tiny vocabulary, in a batch of thousands of rows of two padded prompts."""
    model = tiny_model(kind)
    raw = int(Special.RAW_OPEN)
    prompts = torch.tensor([[raw, 70, 80, 90], [0, 0, raw, 75]])
    mask = prompts.ne(0).long()
    settings = {
        "do_sample": True,
        "max_new_tokens": HORIZON,
        "eos_token_id": None,
        "suppress_tokens": OTHERS,
        **CASES[case],
    }
    if "logits_processor" in settings:
        settings["logits_processor"] = LogitsProcessorList([FavouringLengths()])
    torch.manual_seed(0)
    # Each row's draft is another text, so that every text is drafted right in some rows and wrong in others.
    drafts = torch.tensor(LETTERS)[torch.randint(3, (2 * TEXTS, 4 + HORIZON))]
    sampled = model.generate(
        prompts,
        attention_mask=mask,
        num_return_sequences=TEXTS,
        custom_generate=foretold(drafts, most=3, error=0.0),
        return_dict_in_generate=True,
        **settings,
    )
    assert 0.1 < sampled.drafts.acceptance[0] < 0.9
    for row, prompt in enumerate([prompts[:1], prompts[1:]]):
        new = sampled.sequences[row * TEXTS : (row + 1) * TEXTS, 4:]
        assert_distributed_as(new, exact_distribution(model, prompt, settings).double())


@pytest.mark.parametrize("heads", [False, True])
def test_texts_sampled_with_repeats_follow_the_exact_distribution(tiny_model, heads):
    """Whatever letter comes first, the prompt has it before, so that each row drafts what followed it there."""
    model = tiny_model(num_raw_pred_heads=2)
    raw = int(Special.RAW_OPEN)
    texts = ["bcabaabbcabbccbcabcabbcab", "aabcabaccbcabbabbcabcbcab"]
    prompts = torch.tensor([[raw, *(LETTERS[ord(letter) - ord("a")] for letter in text)] for text in texts])
    prompts[1, :4] = torch.tensor([0, 0, 0, raw])
    settings = {
        "do_sample": True,
        "max_new_tokens": HORIZON,
        "eos_token_id": None,
        "suppress_tokens": OTHERS,
        "top_k": 0,
        "temperature": 5.0,
    }
    torch.manual_seed(0)
    sampled = model.generate(
        prompts,
        attention_mask=prompts.ne(0).long(),
        num_return_sequences=TEXTS,
        draft_repeats=True,
        draft="heads" if heads else None,
        return_dict_in_generate=True,
        **settings,
    )
    assert 0.1 * TEXTS < sampled.drafts.repeated < 3 * TEXTS
    for row, prompt in enumerate([prompts[:1], prompts[1:]]):
        new = sampled.sequences[row * TEXTS : (row + 1) * TEXTS, prompts.shape[1] :]
        assert_distributed_as(new, exact_distribution(model, prompt, settings).double())


def assert_distributed_as(new: torch.Tensor, exact: torch.Tensor) -> None:
    """Chi-square of texts ``(TEXTS, HORIZON)`` against the probability of each; rare ones count together."""
    numbers = ((new - LETTERS[0]) * 3 ** torch.arange(HORIZON - 1, -1, -1)).sum(1)
    seen = torch.bincount(numbers, minlength=3**HORIZON).double()
    possible = exact > 0
    assert not seen[~possible].any()
    frequent = exact * TEXTS >= 5
    groups = [torch.cat([part[frequent], part[possible & ~frequent].sum()[None]]) for part in (seen, exact * TEXTS)]
    if groups[1][-1] < 5:
        groups = [torch.cat([part[:-2], part[-2:].sum()[None]]) for part in groups]
    assert len(groups[0]) > 4
    expected = groups[1] * (groups[0].sum() / groups[1].sum())
    assert chisquare(groups[0].numpy(), expected.numpy()).pvalue > 1e-3
