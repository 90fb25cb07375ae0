import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers import AutoTokenizer

from proxybyte import ProxyByteError, decode_bytes
from proxybyte.chat import ESCAPE, encode_chat
from proxybyte.symbols import NUM_SPECIALS, Special, special_spelling
from proxybyte.tokenization_proxybyte import build_tokenizer, save_tokenizer

SPELLINGS = [special_spelling(symbol) for symbol in range(NUM_SPECIALS)]
FRAGMENTS = [*SPELLINGS, "<", ESCAPE, f"<{ESCAPE}", f"<{ESCAPE}raw>", "raw>", "<ra", "|eot_id|>", "\n", " "]
TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=8).map("".join)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]) | TEXT, "content": TEXT}),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    save_tokenizer(build_tokenizer(chat=True), folder)
    return AutoTokenizer.from_pretrained(folder)


def controls(ids) -> list[int]:
    return [symbol for symbol in ids if symbol < NUM_SPECIALS]


@given(messages=MESSAGES, prompt=st.booleans())
def test_only_the_layout_writes_control_tokens(messages, prompt):
    ids = encode_chat(messages, add_generation_prompt=prompt).tolist()
    turn = [Special.HEADER_START, Special.HEADER_END, Special.END_OF_TURN]
    assert controls(ids) == [Special.RAW_OPEN, *turn * len(messages), *turn[: 2 * prompt]]
    written = "".join(f"{message['role']}\n\n{message['content']}" for message in messages)
    assert decode_bytes(ids).decode() == written + "assistant\n\n" * prompt


@given(messages=MESSAGES, prompt=st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_template_gives_the_same_symbols_as_the_function(tokenizer, messages, prompt):
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
    assert ids == encode_chat(messages, add_generation_prompt=prompt).tolist()


@given(messages=MESSAGES)
@settings(deadline=None)
def test_encoding_the_rendered_text_gives_the_same_symbols(tokenizer, messages):
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == encode_chat(messages).tolist()


def test_text_without_control_tokens_renders_unchanged(tokenizer):
    content = "if a < b: print('<html>', x << 2)"
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert rendered == f"<raw><|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>"


def test_a_control_token_cut_in_two_message_parts_stays_text(tokenizer):
    parts = [{"type": "text", "text": "<ra"}, {"type": "text", "text": "w>"}]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": parts}], return_dict=False)
    assert ids == encode_chat([{"role": "user", "content": "<raw>"}]).tolist()


@pytest.mark.parametrize(
    ("message", "more"),
    [({"content": "", "tool_calls": [{"function": {"name": "f"}}]}, {}),
     ({"content": "a", "reasoning_content": "b"}, {}),
     ({"content": [{"type": "image", "url": "a"}]}, {}), ({"content": "a"}, {"tools": [{"name": "f"}]})],
)  # fmt: skip
def test_what_the_layout_has_no_place_for_is_refused(tokenizer, message, more):
    with pytest.raises(TemplateError, match="this chat layout has"):
        tokenizer.apply_chat_template([{"role": "assistant", **message}], **more)


def test_the_function_refuses_what_the_layout_has_no_place_for():
    with pytest.raises(ProxyByteError, match="holds 'tool_calls'"):
        encode_chat([{"role": "assistant", "content": "", "tool_calls": [1], "name": None}])


def test_any_bytes_can_be_a_message():
    ids = encode_chat([{"role": "user", "content": b"\xff\x00<raw>"}])
    assert decode_bytes(ids) == b"user\n\n\xff\x00<raw>"


def test_the_assistant_mask_covers_answers_and_their_end(tokenizer):
    messages = [{"role": "user", "content": "<eos>é"}, {"role": "assistant", "content": "<raw>é"}]
    out = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True)
    marked = [symbol for symbol, on in zip(out["input_ids"], out["assistant_masks"], strict=True) if on]
    assert marked == [*build_tokenizer()("<raw>é", add_special_tokens=False)["input_ids"], Special.END_OF_TURN]


def test_the_last_message_can_be_continued(tokenizer):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a < b"}]
    ids = tokenizer.apply_chat_template(messages, continue_final_message=True, return_dict=False)
    assert ids == encode_chat(messages).tolist()[:-1]


def test_the_plain_kind_has_no_template_to_get_wrong():
    with pytest.raises(ValueError, match="chat_template"):
        build_tokenizer().apply_chat_template([{"role": "user", "content": "hi"}])
