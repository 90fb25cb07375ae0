"""What symbols spell, read back from a saved compressor: put together, it is the text or its beginning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxybyte.errors import ProxyByteError
from proxybyte.training import load_compressor, load_spelling
from proxybyte.training.compressors.bpe_train import Split, train_bpe
from proxybyte.training.compressors.codebook import CodebookCompressor
from proxybyte.training.compressors.codebook.trie import Trie, extend
from proxybyte.training.compressors.spelling import Spelling

KINDS = ["bpe", "codebook", "bits-16"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> dict[str, tuple[Spelling, object]]:
    """The spelling of each compressor that has one, from its folder, and the compressor."""
    home = tmp_path_factory.mktemp("compressors")
    singles = Trie(np.arange(256, dtype=np.uint32), np.arange(256, dtype=np.uint8))
    trie = extend(singles, np.array([ord("d"), ord("\n")]), np.array([ord("e"), ord(" ")]))
    made = {
        "bpe": train_bpe([b"def f(self):\n    return self\n" * 20], 290, Split.CODE),
        "codebook": CodebookCompressor(trie),
        "bits-16": load_compressor("bits-16"),
    }
    for name, compressor in made.items():
        compressor.save(home / name)
    return {name: (load_spelling(home / name), compressor) for name, compressor in made.items()}


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.one_of(st.binary(max_size=40), st.sampled_from([b"def f(self):\n    return", b"\n \n dede", b"abc"])))
def test_what_the_codes_of_a_text_spell_is_the_text(loaded, kind, text):
    spelling, _ = loaded[kind]
    spelled = b"".join(spelling.spelled[code] for code in spelling.encode(text))
    # Pairs leave the last of an odd number of bytes to the next symbol.
    assert spelled == (text[: len(text) // 2 * 2] if kind == "bits-16" else text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_symbol_spells_what_the_compressor_decodes_it_to(loaded, kind):
    spelling, compressor = loaded[kind]
    assert len(spelling.spelled) <= compressor.num_symbols
    end = [0] if kind == "bits-16" else []
    assert any(len(spelled) > 1 for spelled in spelling.spelled)
    for code in range(0, len(spelling.spelled), 1 + len(spelling.spelled) // 500):
        if spelling.spelled[code]:
            assert compressor.decode(np.array([code, *end])).startswith(spelling.spelled[code])


@pytest.mark.parametrize("name", ["gzip", "bits-1", "bits-4"])
def test_symbols_that_spell_no_byte_strings_are_refused(name, tmp_path):
    load_compressor(name).save(tmp_path / name)
    with pytest.raises(ProxyByteError, match="do not spell"):
        load_spelling(tmp_path / name)


def test_a_folder_without_a_compressor_is_refused(tmp_path):
    with pytest.raises(ProxyByteError):
        load_spelling(tmp_path)
