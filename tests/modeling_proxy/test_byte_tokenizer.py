import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from proxybyte import ProxyByteError, decode_bytes, encode_bytes
from proxybyte.symbols import NUM_RAW_SYMBOLS, NUM_SPECIALS, Special, special_spelling
from proxybyte.tokenization_proxybyte import build_tokenizer, save_tokenizer

SPELLINGS = [special_spelling(symbol) for symbol in range(NUM_SPECIALS)]
TEXT = st.lists(st.text(max_size=8) | st.sampled_from(SPELLINGS)).map("".join)


def symbols_of(text: str) -> list[int]:
    return encode_bytes(text.encode()).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(build_tokenizer(), path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@given(st.binary())
def test_any_bytes_come_back_from_their_symbols(data):
    symbols = encode_bytes(data)
    assert decode_bytes(symbols, strict=True) == data
    assert symbols.tolist() == [64 + byte for byte in data]


@given(st.lists(st.integers(0, 70_000)))
def test_decoding_leaves_out_what_is_no_byte(symbols):
    assert decode_bytes(symbols) == bytes(symbol - 64 for symbol in symbols if 64 <= symbol < 320)


def test_strict_decoding_names_the_first_symbol_that_is_no_byte():
    with pytest.raises(ValueError, match="symbol 13 at position 1"):
        decode_bytes([64, Special.RAW_CLOSE, 12], strict=True)


@given(text=TEXT)
@settings(max_examples=300)
def test_a_text_is_raw_and_its_bytes_also_where_it_spells_sentinels(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids == [Special.RAW_OPEN, *symbols_of(text)]
    assert decode_bytes(ids).decode() == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@given(text=TEXT)
def test_decode_without_skipping_spells_the_sentinels(tokenizer, text):
    assert tokenizer.decode([12, *symbols_of(text), 13, 2]) == f"<raw>{text}</raw><eos>"


@given(data=st.binary())
def test_decode_shows_bytes_that_are_no_utf8_as_replacement_characters(tokenizer, data):
    assert tokenizer.decode(encode_bytes(data).tolist()) == data.decode(errors="replace")


@given(text=TEXT)
def test_offsets_are_the_character_each_byte_belongs_to(tokenizer, text):
    encoding = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    owners = [at for at, character in enumerate(text) for _ in character.encode()]
    assert encoding["offset_mapping"] == [(at, at + 1) for at in owners]


@pytest.mark.parametrize("side", ["left", "right"])
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_a_padded_batch_is_each_text_alone_beside_padding(tokenizer, side, texts):
    batch = tokenizer(texts, padding=True, padding_side=side, return_tensors="np")
    width = 1 + max(len(text.encode()) for text in texts)
    for text, ids, mask in zip(texts, batch["input_ids"], batch["attention_mask"], strict=True):
        alone = [Special.RAW_OPEN, *symbols_of(text)]
        padding = [Special.PAD] * (width - len(alone))
        assert ids.tolist() == (padding + alone if side == "left" else alone + padding)
        assert mask.tolist() == [int(symbol != Special.PAD) for symbol in ids]


def test_a_long_line_is_encoded_whole(tokenizer):
    text = "x" * 150_000 + "é" * 50_000
    assert tokenizer(text, verbose=False)["input_ids"] == [12, *symbols_of(text)]


def test_the_saved_folder_says_all_that_it_must(folder, tokenizer):
    assert {path.name for path in folder.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    saved = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = saved["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(NUM_RAW_SYMBOLS))
    assert [vocabulary[spelling] for spelling in SPELLINGS] == list(range(NUM_SPECIALS))
    assert saved["model"]["merges"] == saved["added_tokens"] == []
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["additional_special_tokens"] == SPELLINGS
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer.vocab_size == len(tokenizer) == NUM_RAW_SYMBOLS
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<raw>", Special.RAW_OPEN)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (Special.EOS, Special.PAD)
    assert tokenizer.padding_side == "left"
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]


def test_every_special_is_known_by_its_spelling(tokenizer):
    assert tokenizer.convert_tokens_to_ids(SPELLINGS) == list(range(NUM_SPECIALS))
    assert tokenizer.decode(range(NUM_SPECIALS), skip_special_tokens=True) == ""


def test_splitting_stays_exact_after_saving_again(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("<raw></raw>")["input_ids"] == [12, *symbols_of("<raw></raw>")]
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("<raw>").ids == [12, *symbols_of("<raw>")]


@given(text=TEXT)
def test_the_library_tokenizers_alone_reads_sentinels_as_text(folder, text):
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert backend.encode(text).ids == [Special.RAW_OPEN, *symbols_of(text)]
    assert backend.decode([*symbols_of(text), 13, 2]) == f"{text}</raw><eos>"


def test_the_objects_own_save_writes_what_save_tokenizer_writes(folder, tmp_path):
    build_tokenizer().save_pretrained(tmp_path)
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("chat", [False, True])
def test_a_new_token_is_refused_because_its_id_is_a_compressed_symbol(chat, tmp_path):
    tokenizer = build_tokenizer(chat=chat)
    for add in (
        lambda: tokenizer.add_tokens(["<tool_call>"], special_tokens=True),
        lambda: tokenizer.add_special_tokens({"pad_token": "[PAD]"}),
    ):
        with pytest.raises(ProxyByteError, match=r"no new token: '(<tool_call>|\[PAD\])' would get id 320"):
            add()
    assert tokenizer.add_special_tokens({"pad_token": "<extra_id_19>"}) == 0
    assert (len(tokenizer), tokenizer.pad_token_id) == (NUM_RAW_SYMBOLS, 19)
    assert len(pickle.loads(pickle.dumps(tokenizer))) == NUM_RAW_SYMBOLS


def test_a_loaded_tokenizer_with_a_new_token_is_not_saved(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool_call>"])
    with pytest.raises(ProxyByteError, match="no new token"):
        save_tokenizer(tokenizer, tmp_path)


def test_a_caller_who_asks_gets_sentinels_parsed(tokenizer):
    assert tokenizer("<raw>a</raw>", split_special_tokens=False, add_special_tokens=False)["input_ids"] == [12, 161, 13]
    assert tokenizer("<raw>")["input_ids"] == [12, *symbols_of("<raw>")]


def test_a_tokenizer_loaded_for_trl_reads_an_appended_end_as_one_symbol(folder):
    """docs/serving.md, "TRL"."""
    reading = AutoTokenizer.from_pretrained(folder, split_special_tokens=False)
    assert reading("a " + reading.eos_token)["input_ids"] == [12, *symbols_of("a "), 2]
    plain = AutoTokenizer.from_pretrained(folder)
    assert plain("a " + plain.eos_token)["input_ids"] == [12, *symbols_of("a <eos>")]


def test_bos_can_be_left_out_at_loading(folder):
    bare = AutoTokenizer.from_pretrained(folder, add_bos_token=False)
    assert bare("ab")["input_ids"] == symbols_of("ab")


def test_document_prefix_opens_with_bos_and_raw(tmp_path):
    save_tokenizer(build_tokenizer(opening="<bos><raw>", model_max_length=4096), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("a")["input_ids"] == [Special.BOS, Special.RAW_OPEN, 161]
    assert tokenizer("a", "b")["input_ids"] == [1, 12, 161, 1, 12, 162]
    assert tokenizer.model_max_length == 4096
