"""What a text says again is found wherever it is, and changes nothing but how many forward passes it takes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LogitsProcessor, LogitsProcessorList

from proxybyte import build_tokenizer
from proxybyte.drafters import MATCH, Repeats, RepeatsDrafting
from proxybyte.drafting import Draft, Texts, alike, worth_verifying
from proxybyte.symbols import Special
from proxybyte.training.compressors.cross_view import CrossViewDrafter
from proxybyte.training.compressors.spelling import Spelling

NEW = 40
RAW = int(Special.RAW_OPEN)
FEW = st.lists(st.integers(64, 66), max_size=60)
LOOP = torch.tensor([[RAW, *[70, 80, 90, 100] * 4, 70, 80]])


def searched(text: list[int], most: int) -> list[int]:
    """The draft from its definition: look at every earlier place, the latest first, and copy symbol by symbol."""
    if len(text) < MATCH:
        return []
    for end in range(len(text) - 1, MATCH - 1, -1):
        if text[end - MATCH : end] == text[-MATCH:]:
            copied = list(text)
            for place in range(most):
                copied.append(copied[end + place])
            return copied[len(text) :]
    return []


@given(pieces=st.lists(FEW, max_size=6), most=st.integers(0, 20))
def test_drafts_are_those_of_a_search_through_the_whole_text(pieces, most):
    repeats, text = Repeats(), []
    for piece in pieces:
        repeats.extend(piece)
        text += piece
        assert repeats.draft(most) == searched(text, most)


@given(
    st.lists(st.lists(st.floats(0, 1), max_size=9).map(lambda sure: sorted(sure, reverse=True)), min_size=1, max_size=5)
)
def test_a_place_is_verified_while_all_rows_together_gain_by_it(sures):
    drafts = [Draft(list(range(len(sure))), sure) for sure in sures]
    cut = worth_verifying(drafts)
    width = max(len(draft.symbols) for draft in cut)
    promised = [sum(sure[place] for sure in sures if place < len(sure)) / len(sures) for place in range(9)]
    assert all(share >= 0.15 - 1e-9 for share in promised[:width])
    assert width == 9 or promised[width] < 0.15 + 1e-9
    assert [draft.symbols for draft in cut] == [draft.symbols[:width] for draft in drafts]
    assert {len(row) for row in alike(cut, 7)} == {width}


def test_how_sure_a_repeat_is_follows_how_often_repeats_were_right():
    texts = Texts(LOOP, pad=0)
    drafter = RepeatsDrafting(None, 4)
    first = drafter.propose(texts, 4)[0]
    assert first.symbols == [90, 100, 70, 80] and first.repeated
    texts.new[0] += first.symbols
    better = drafter.propose(texts, 4)[0]
    assert better.sure[0] > first.sure[0]
    texts.new[0] += [99, 70, 80, 90, 100, 70]
    assert drafter.propose(texts, 4)[0].sure[0] < better.sure[0]


@pytest.mark.parametrize("kind", ["llama", "mistral", "proxybyte_eva"])
@pytest.mark.parametrize("draft", [None, "heads", "compressed"])
def test_greedy_output_is_that_of_one_byte_at_a_time(tiny_model, padded, kind, draft):
    """Texts of two letters, which soon say everything again."""
    model = tiny_model(kind, num_raw_pred_heads=5)
    prompts = padded()
    prompts["input_ids"] = torch.where(prompts["input_ids"] < 64, prompts["input_ids"], 64 + prompts["input_ids"] % 2)
    settings = {"max_new_tokens": NEW, "suppress_tokens": [symbol for symbol in range(360) if symbol not in (64, 65)]}
    expected = model.generate(**prompts, **settings)
    if draft == "compressed":
        draft = CrossViewDrafter(Spelling([bytes([byte]) for byte in range(40)], list))
    drafted = model.generate(**prompts, **settings, draft=draft, draft_repeats=True, return_dict_in_generate=True)
    assert torch.equal(drafted.sequences, expected)
    assert drafted.drafts.repeated > 0


class Following(LogitsProcessor):
    """Makes a text go round in a circle of four symbols, but for the end after ``length`` columns."""

    keeps_no_state = True

    def __init__(self, length: int | None = None) -> None:
        self.length = length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        following = {70: 80, 80: 90, 90: 100, 100: 70}
        scores = scores.clone()
        ends = input_ids.shape[1] == self.length
        for row, last in enumerate(input_ids[:, -1].tolist()):
            scores[row, int(Special.RAW_CLOSE) if ends else following[last]] += 1e4
        return scores


def test_a_text_that_repeats_takes_the_fewest_forward_passes_and_any_model(tiny_model):
    model = tiny_model()
    settings = {"max_new_tokens": 1 + 16 * 3, "logits_processor": LogitsProcessorList([Following()])}
    drafted = model.generate(LOOP, **settings, draft_repeats=True, return_dict_in_generate=True)
    assert torch.equal(drafted.sequences, model.generate(LOOP, **settings))
    assert drafted.drafts.forwards <= 6
    assert drafted.drafts.repeated == drafted.drafts.symbols - drafted.drafts.forwards


@pytest.mark.parametrize("length", range(19, 40, 3))
def test_a_text_ends_exactly_where_it_would_however_far_the_repeat_goes(tiny_model, length):
    model = tiny_model()
    settings = {"max_new_tokens": 30, "logits_processor": LogitsProcessorList([Following(length)])}
    expected = model.generate(LOOP, **settings)
    assert expected.shape[1] == length + 1
    assert torch.equal(model.generate(LOOP, **settings, draft_repeats=True), expected)


def test_stop_strings_end_a_text_where_they_would(tiny_model):
    model = tiny_model()
    settings = {"max_new_tokens": 30, "logits_processor": LogitsProcessorList([Following()])}
    stop = bytes([100 - 64, 70 - 64]).decode()
    settings |= {"stop_strings": [stop], "tokenizer": build_tokenizer()}
    expected = model.generate(LOOP, **settings)
    assert expected.shape[1] < LOOP.shape[1] + 30
    assert torch.equal(model.generate(LOOP, **settings, draft_repeats=True), expected)


@pytest.mark.parametrize("new", [1, 2, 5, 17])
def test_no_more_is_written_than_was_asked_for(tiny_model, new):
    model = tiny_model()
    rule = LogitsProcessorList([Following()])
    for draft_bytes in (None, 3):
        written = model.generate(
            LOOP, max_new_tokens=new, logits_processor=rule, draft_repeats=True, draft_bytes=draft_bytes
        )
        assert written.shape[1] == LOOP.shape[1] + new


def test_a_row_drafts_the_same_whatever_rows_are_with_it_and_ends(padded):
    """By the definition of repeats: only how sure they are depends on the other rows."""
    ids = torch.cat([LOOP, LOOP.flip(1)])
    texts, drafter = Texts(ids, pad=0), RepeatsDrafting(None, 5)
    both = drafter.propose(texts, 5)
    assert [draft.symbols for draft in both] == [searched(row, 5) for row in ids.tolist()]
    drafter.keep([1])
    texts.active = [1]
    texts.new[1] += [100, 90]
    assert drafter.propose(texts, 5)[0].symbols == searched([*ids[1].tolist(), 100, 90], 5)
