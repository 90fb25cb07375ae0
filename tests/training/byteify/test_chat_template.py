"""The base's chat template on bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxybyte import decode_bytes
from proxybyte.symbols import NUM_SPECIALS, Special, special_spelling
from proxybyte.training.byteify import byteify
from proxybyte.training.chat import chat_tokenizer_in, encode_conversation

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPELLINGS = [special_spelling(symbol) for symbol in range(NUM_SPECIALS)]
TEXT = st.lists(st.sampled_from([*SPELLINGS, "<", "\ufdd0", "<|im_end|>", "é", " "]) | st.text(max_size=4)).map("".join)


@pytest.fixture(scope="module")
def tokenizer(make_base, tmp_path_factory):
    base, out = make_base("llama"), tmp_path_factory.mktemp("chat") / "out"
    (base / "chat_template.jinja").write_text(CHATML)
    assert byteify(str(base), out)["chat_template"]
    return chat_tokenizer_in(out)


def expected(messages, prompt: bool) -> list[tuple[int, bytes]]:
    """Control symbols in order, each with the text after it."""
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": "Be kind"}, *messages]
    parts = [(Special.RAW_OPEN, b"")]
    for message in messages:
        parts.append((Special.HEADER_START, f"{message['role']}\n{message['content']}".encode()))
        parts.append((Special.END_OF_TURN, b"\n"))
    return [*parts, *([(Special.HEADER_START, b"assistant\n")] if prompt else [])]


def split(ids: list[int]) -> list[tuple[int, bytes]]:
    places = [place for place, symbol in enumerate(ids) if symbol < NUM_SPECIALS]
    return [
        (ids[start], decode_bytes(ids[start + 1 : end]))
        for start, end in zip(places, [*places[1:], len(ids)], strict=True)
    ]


@given(question=TEXT, answer=TEXT, prompt=st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_layout_is_the_bases_with_our_control_symbols_and_any_content(tokenizer, question, answer, prompt):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
    assert split(ids) == expected(messages, prompt)


def test_the_targets_are_the_answer_and_its_end(tokenizer):
    chat = encode_conversation(
        tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<eos>é"}]
    )
    targets = chat.labels[chat.labels >= 0].tolist()
    assert targets[-1] == Special.END_OF_TURN
    assert decode_bytes(targets).decode() == "<eos>é"


def test_a_base_without_a_template_carries_none(make_base, tmp_path):
    assert not byteify(str(make_base("llama")), tmp_path / "out")["chat_template"]
    assert chat_tokenizer_in(tmp_path / "out") is None
