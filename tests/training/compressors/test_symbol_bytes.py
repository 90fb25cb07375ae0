"""Bytes of symbols by arrays, against joining them one by one."""

from itertools import accumulate

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.training.compressors.symbol_bytes import SymbolBytes

TABLES = st.lists(st.none() | st.binary(max_size=20), min_size=1, max_size=40)


@given(TABLES, st.data())
def test_symbols_spell_what_joining_gives(table, data):
    symbols = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=60))
    repeats = data.draw(st.sampled_from([1, 1, 1, 500]))  # beyond what is spelled at once
    symbols = symbols * repeats
    strings = [table[symbol] or b"" for symbol in symbols]
    spelled = SymbolBytes.of(table)
    codes = np.array(symbols, dtype=np.uint16)
    assert spelled.spell(codes) == b"".join(strings)
    assert spelled.ends(codes).tolist() == list(accumulate(map(len, strings)))
    assert [spelled.string(symbol) for symbol in range(len(table))] == [text or b"" for text in table]


@given(TABLES, st.data())
def test_the_first_symbols_spell_so_many_bytes(table, data):
    symbols = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=60))
    places = sorted(data.draw(st.lists(st.integers(0, len(symbols)), max_size=9)))
    found = SymbolBytes.of(table).before(np.array(symbols, dtype=np.uint16), np.array(places, dtype=np.int64))
    assert found.tolist() == [sum(len(table[symbol] or b"") for symbol in symbols[:place]) for place in places]


@given(TABLES, st.data(), st.binary(max_size=3))
def test_symbols_are_compared_with_a_text_as_spelled(table, data, more):
    symbols = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=60))
    text = b"".join(table[symbol] or b"" for symbol in symbols)
    spelled, codes = SymbolBytes.of(table), np.array(symbols, dtype=np.uint16)
    speaks = all(table[symbol] for symbol in symbols)
    assert spelled.spells(codes, text) is speaks
    assert spelled.spells(codes, text + more) is (speaks and not more)
    if text:
        place = data.draw(st.integers(0, len(text) - 1))
        assert not spelled.spells(codes, text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        assert not spelled.spells(codes, text[:-1])
