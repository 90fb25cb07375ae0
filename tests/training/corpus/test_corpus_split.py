"""Split, cap and duplicates as properties of a pure function."""

import argparse
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxybyte.errors import ProxyByteError, WrongOption
from proxybyte.training.commands import corpus
from proxybyte.training.corpus.collect import CutReader
from proxybyte.training.corpus.split import Catalogue, Fate, SplitRule, decide
from proxybyte.training.texts.records import Document

documents = st.lists(
    st.builds(
        lambda size, kind, key: Document(bytes([kind]) * size, "s", key),
        st.integers(1, 200),
        st.integers(0, 9),
        st.one_of(st.none(), st.sampled_from("abcdefgh")),
    ),
    min_size=1,
    max_size=60,
)
rules = st.builds(
    SplitRule,
    validation_share=st.sampled_from([0.0, 0.05, 0.3, 0.9]),
    max_bytes=st.one_of(st.none(), st.integers(200, 4000)),
    seed=st.integers(0, 3),
)


def fates_of(collected: list[Document], rule: SplitRule) -> list[Fate] | None:
    """The fates, or ``None`` where the rule cannot be met."""
    catalogue = Catalogue()
    for document in collected:
        catalogue.add(document)
    try:
        return [Fate(fate) for fate in decide(catalogue, rule)]
    except ProxyByteError:
        return None


@settings(deadline=None)
@given(documents, rules)
def test_exactly_the_later_copies_are_duplicates(collected, rule):
    fates = fates_of(collected, rule)
    if fates is None:
        return
    seen = set()
    for document, fate in zip(collected, fates, strict=True):
        assert (fate == Fate.DUPLICATE) == (document.text in seen)
        seen.add(document.text)


@settings(deadline=None)
@given(documents, rules)
def test_no_key_is_divided(collected, rule):
    by_key = defaultdict(set)
    for document, fate in zip(collected, fates_of(collected, rule) or [], strict=False):
        if document.key is not None and fate != Fate.DUPLICATE:
            by_key[document.key].add(fate)
    assert all(len(fates) == 1 for fates in by_key.values())


@settings(deadline=None)
@given(documents, rules)
def test_share_and_cap_are_kept(collected, rule):
    fates = fates_of(collected, rule)
    if fates is None:
        return
    pairs = list(zip(collected, fates, strict=True))
    size = {fate: sum(len(document.text) for document, its in pairs if its == fate) for fate in Fate}
    kept = size[Fate.TRAIN] + size[Fate.VALIDATION]
    assert rule.max_bytes is None or kept <= rule.max_bytes
    assert size[Fate.TRAIN] > 0
    assert (size[Fate.VALIDATION] > 0) == (rule.validation_share > 0)
    units = {document.key or document.text for document, fate in pairs if fate == Fate.VALIDATION}
    assert size[Fate.VALIDATION] <= kept * rule.validation_share or len(units) == 1


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=50), min_size=2, max_size=40, unique=True), rules, st.randoms())
def test_order_of_the_sources_changes_nothing(texts, rule, random):
    collected = [Document(text, "s", "abcdef"[text[0] % 6] if text[0] % 2 else None) for text in texts]
    shuffled = random.sample(collected, len(collected))
    before, after = fates_of(collected, rule), fates_of(shuffled, rule)
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        pairs = dict(zip((document.text for document in shuffled), after, strict=True))
        assert before == [pairs[document.text] for document in collected]


def test_seed_draws_another_split_and_the_same_seed_the_same():
    collected = [Document(b"%d" % number, "s", None) for number in range(2000)]
    first, again, other = (fates_of(collected, SplitRule(0.3, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first is not None and other is not None
    both = np.mean([a == b == Fate.VALIDATION for a, b in zip(first, other, strict=True)])
    assert 0.05 < both < 0.13  # 0.3 * 0.3 where the draws are independent


def test_one_package_cannot_be_held_out():
    with pytest.raises(ProxyByteError, match="--by-document"):
        catalogue = Catalogue()
        for number in range(5):
            catalogue.add(Document(b"%d" % number, "s", "same"))
        decide(catalogue, SplitRule(0.1))


def test_cap_below_the_smallest_package_is_an_error():
    catalogue = Catalogue()
    catalogue.add(Document(b"a" * 100, "s", "a"))
    catalogue.add(Document(b"b" * 90, "s", "b"))
    with pytest.raises(ProxyByteError, match="smallest package or document has 9e-05 MB"):
        decide(catalogue, SplitRule(0.1, max_bytes=80))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_share_outside_zero_to_one_is_an_error(share):
    with pytest.raises(WrongOption, match=r"validation_share is .*: give a share from 0") as error:
        SplitRule(validation_share=share)
    assert error.value.on_command_line().startswith("--validation-share is ")


def test_the_command_has_the_rules_own_defaults():
    parser = argparse.ArgumentParser()
    corpus.add_arguments(parser)
    asked = parser.parse_args(["--python-packages", "--out", "folder"])
    assert (asked.validation_share, asked.seed) == (SplitRule().validation_share, SplitRule().seed)


SIZES = {
    "books and notes": [100_000] * 20 + [500] * 2000,
    "books and notes of all lengths": [*range(50_000, 150_000, 5_000), *range(100, 1900, 1), *range(100, 300)],
    "log-normal": np.random.default_rng(0).lognormal(6, 1.5, 3000).astype(int) + 1,
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("seed", range(4))
def test_short_documents_are_held_out_as_often_as_long_ones(sizes, seed):
    draw = np.random.default_rng(1)
    collected = [Document(draw.bytes(int(size)), "s", None) for size in sizes]
    fates = fates_of(collected, SplitRule(0.05, seed=seed))
    held_out = np.array([fate == Fate.VALIDATION for fate in fates])
    lengths = np.asarray(sizes)
    assert 0.04 < held_out.mean() < 0.06
    assert 0.03 < lengths[held_out].sum() / lengths.sum() <= 0.05
    assert 0.6 < lengths[held_out].mean() / lengths[~held_out].mean() < 1.1


@pytest.mark.parametrize("seed", range(4))
def test_a_cap_keeps_documents_of_all_sizes_too(seed):
    sizes = np.array(SIZES["books and notes"])
    draw = np.random.default_rng(1)
    collected = [Document(draw.bytes(int(size)), "s", None) for size in sizes]
    fates = fates_of(collected, SplitRule(0.0, max_bytes=int(sizes.sum()) // 10, seed=seed))
    kept = np.array([fate == Fate.TRAIN for fate in fates])
    assert 0.08 < kept.mean() < 0.12
    assert kept[:20].sum() == 2


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=90), min_size=2, max_size=40, unique=True), st.integers(0, 3))
def test_pieces_of_one_document_are_in_one_split_and_the_cut_changes_no_document_s_split(texts, seed):
    """A document is a unit of the split, whatever it is cut into."""
    whole = [Document(text, str(number), None) for number, text in enumerate(texts)]

    class Given:
        def stored_bytes(self) -> int:
            return 0

        def read(self, advance):
            yield from whole

    pieces = list(CutReader(Given(), 7).read(lambda _: None))
    fates = fates_of(pieces, SplitRule(0.3, seed=seed))
    assert fates is not None
    by_document = defaultdict(set)
    for piece, fate in zip(pieces, fates, strict=True):
        if fate != Fate.DUPLICATE:
            by_document[piece.source.partition("@")[0]].add(fate)
    assert all(len(fates) == 1 for fates in by_document.values())


def test_a_single_document_in_pieces_cannot_be_held_out_of_itself():
    catalogue = Catalogue()
    for number in range(5):
        catalogue.add(Document(b"%d" % number, "s", None, whole=b"the same document"))
    with pytest.raises(ProxyByteError, match="--by-document"):
        decide(catalogue, SplitRule(0.1))
