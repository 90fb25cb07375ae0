"""Fine-tuning on conversations: which symbols are targets, and both ways to train on them."""

import json

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, Trainer, TrainingArguments

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, build_tokenizer, decode_bytes
from proxybyte.chat import encode_chat
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import IGNORE_INDEX, Special
from proxybyte.training.chat import ChatDataset, chat_tokenizer_in, encode_conversation, encode_row, read_chats
from proxybyte.training.run.config_io import load_config
from proxybyte.training.stream.mixed_view import collate_inputs
from proxybyte.training.stream.plan import BudgetUnit, PlanConfig
from proxybyte.training.train import train

TOKENIZER = build_tokenizer(chat=True)
CHATS = [
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "good day <raw>"}],
    [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "sure?"},
        {"role": "assistant", "content": "yes"},
    ],
]
TURNS = st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1, max_size=3)
TINY = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2}  # fmt: skip


def written(labels) -> list[bytes]:
    """What the targets spell, turn by turn."""
    parts = np.split(labels, np.flatnonzero(labels == Special.END_OF_TURN) + 1)
    return [decode_bytes(part[part != IGNORE_INDEX]) for part in parts[:-1]]


@given(turns=TURNS)
@settings(deadline=None, max_examples=30)
def test_targets_are_the_answers_and_their_ends_and_nothing_else(turns):
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    chat = encode_conversation(TOKENIZER, messages)
    assert chat.input_ids.tolist() == encode_chat(messages).tolist()
    targets = chat.labels != IGNORE_INDEX
    assert (chat.labels[targets] == chat.input_ids[targets]).all()
    assert written(chat.labels) == [answer.encode() for _, answer in turns]


def test_a_conversation_without_an_answer_or_that_begins_with_one_is_refused():
    for messages in (CHATS[0][:1], CHATS[0][1:]):
        with pytest.raises(ProxyByteError, match="needs an answer of the assistant after"):
            encode_conversation(TOKENIZER, messages)


@pytest.mark.parametrize(
    ("line", "words"),
    [("{", r":2: is no object"), ('{"text": 1}', r":2: is no object"), ('{"messages": []}', r":2: is no object"),
     ('{"messages": [{"role": "user", "content": "x"}]}', r":2: a conversation needs")],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line, words):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": CHATS[0]}) + f"\n{line}\n")
    with pytest.raises(ProxyByteError, match=words):
        read_chats(path, TOKENIZER)


TOOLED = build_tokenizer(chat=True)
TOOLED.chat_template = (
    "{{- '<raw>' }}{%- for tool in tools or [] %}{{- tool | tojson }}{%- endfor %}{%- for m in messages %}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>' }}{%- if m.role == 'assistant' and m.reasoning %}"
    "{{- m.reasoning }}{%- endif %}{{- m.content if m.content is string else m.content[0].text }}"
    "{%- for c in m.tool_calls or [] %}{{- c.function | tojson }}{{- '<eos>' }}{%- endfor %}{{- '<|eot_id|>' }}\n"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>' }}{%- endif %}"
)
ASK = {"role": "user", "content": "rain?"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "rain", "arguments": {}}}]}
TOOL = {"name": "rain", "description": "falls"}


def test_what_an_answer_holds_beside_its_content_is_learnt():
    chat = encode_row(TOOLED, {"messages": [ASK, CALL], "tools": json.dumps([TOOL])})
    assert written(chat.labels) == [b'{"name": "rain", "arguments": {}}']
    assert chat.labels[-2:].tolist() == [Special.EOS, Special.END_OF_TURN]
    assert json.dumps(TOOL).encode() in decode_bytes(chat.input_ids)


@pytest.mark.parametrize(
    ("tokenizer", "row", "words"),
    [(TOKENIZER, [ASK, CALL], "no place for tool_calls"),
     (TOKENIZER, [ASK, {**CHATS[0][1], "reasoning_content": "x"}], "no place for reasoning_content"),
     (TOKENIZER, [ASK, {**CHATS[0][1], "thoughts": "x"}], r"message 2 \(assistant\).* nothing of its 'thoughts'"),
     (TOOLED, [ASK, {**CHATS[0][1], "reasoning_content": "x"}], "nothing of its 'reasoning_content'"),
     (TOOLED, [{**ASK, "reasoning": ["x"]}, CALL], "nothing of its 'reasoning'"),
     (TOOLED, [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "url": "b"}]}, CALL],
      "nothing of its 'content', item 2"),
     (TOKENIZER, [{"role": "user", "content": [{"type": "image", "url": "b"}]}, CHATS[0][1]], "has text alone"),
     (TOOLED, [ASK, {"role": "assistant", "content": None}], "has no content"),
     (TOOLED, [ASK, {"role": "assistant"}], "has no content")],
)  # fmt: skip
def test_a_part_of_a_message_that_the_template_leaves_out_is_refused(tokenizer, row, words):
    with pytest.raises(ProxyByteError, match=words):
        encode_row(tokenizer, {"messages": row})


def test_tools_that_the_template_leaves_out_are_refused():
    with pytest.raises(ProxyByteError, match="no place for tools"):
        encode_row(TOKENIZER, {"messages": CHATS[0], "tools": [TOOL]})
    with pytest.raises(ProxyByteError, match="writes nothing of the row's 'documents'"):
        encode_row(TOOLED, {"messages": CHATS[0], "documents": [TOOL]})
    with pytest.raises(ProxyByteError, match="'tools' is a dict: give a list"):
        encode_row(TOOLED, {"messages": CHATS[0], "tools": TOOL})


def test_a_token_that_was_added_to_the_tokenizer_is_refused(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["good day"], special_tokens=True)
    with pytest.raises(ProxyByteError, match="token of its own for 'good day'"):
        encode_conversation(tokenizer, CHATS[0])


def test_labels_of_messages_that_the_template_leaves_out_are_counted():
    answer = {"role": "tool", "content": "no", "tool_call_id": "a1", "name": None}
    chat = encode_row(TOOLED, {"messages": [ASK, CALL, answer, CHATS[0][1]], "tools": None})
    assert chat.unwritten == {"'tool_call_id'": 1}
    said = ChatDataset([chat, chat], PlanConfig(row_length=512, budget=1)).describe()
    assert said.endswith("key 'tool_call_id' of 2 messages not written")


def chats(count: int = 7):
    return [encode_conversation(TOKENIZER, CHATS[number % 2]) for number in range(count)]


@pytest.mark.parametrize("row_length", [70, 160, 512])
def test_each_epoch_shows_each_conversation_once_alone_and_whole(row_length):
    dataset = ChatDataset(chats(), PlanConfig(row_length=row_length, budget=2))
    seen = []
    for row in range(len(dataset)):
        one = dataset[row]
        starts = np.flatnonzero(one["position_ids"] == 0)
        for start, end in zip(starts, [*starts[1:], row_length], strict=True):
            ids = one["input_ids"][start:end]
            if ids[0] != Special.PAD:
                ids = ids[ids != Special.PAD]
                assert (one["position_ids"][start:end] == np.arange(end - start)).all()
                seen.append(ids.tolist())
    cut = [chat.input_ids[:row_length].tolist() for chat in dataset.chats]
    assert sorted(seen) == sorted(cut * 2)
    assert dataset.truncated == sum(len(chat.input_ids) > row_length for chat in dataset.chats)


def test_a_budget_in_symbols_fills_that_many_rows():
    config = PlanConfig(row_length=128, budget=128 * 40, budget_unit=BudgetUnit.SYMBOLS)
    assert len(ChatDataset(chats(), config)) == 40
    with pytest.raises(ProxyByteError, match="text_bytes is not for chats"):
        ChatDataset(chats(), PlanConfig(row_length=128, budget=100, budget_unit=BudgetUnit.TEXT_BYTES))


def tiny_model() -> ProxyByteForCausalLM:
    torch.manual_seed(0)
    return ProxyByteForCausalLM(ProxyByteConfig(backbone_config=TINY))


def test_packed_conversations_have_the_loss_of_each_alone():
    dataset, model = ChatDataset(chats(4), PlanConfig(row_length=512, budget=1)), tiny_model().eval()
    assert len(dataset) == 1
    with torch.inference_mode():
        packed = model(**collate_inputs([dataset[0]])).loss
        alone = [model(torch.tensor(c.input_ids)[None], labels=torch.tensor(c.labels)[None]) for c in chats(4)]
    total = sum(float(output.target_nll.sum()) for output in alone)
    count = sum(int((c.labels != IGNORE_INDEX).sum()) for c in chats(4))
    assert float(packed) == pytest.approx(total / count, rel=1e-5)


def test_the_trainer_of_transformers_learns_the_answers(tmp_path):
    dataset, model = ChatDataset(chats(8), PlanConfig(row_length=160, budget=1)), tiny_model()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=30, learning_rate=3e-2, per_device_train_batch_size=2, report_to=[],
        save_strategy="no", logging_steps=30, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    before = float(model(**collate_inputs([dataset[0]])).loss.detach())
    Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collate_inputs).train()
    model.eval()
    assert float(model(**collate_inputs([dataset[0]])).loss.detach()) < before / 3


def test_our_loop_trains_on_a_file_of_conversations_and_carries_the_template(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": CHATS[number % 2]}) + "\n" for number in range(16)))
    recipe = tmp_path / "recipe.yaml"
    values = {
        "output": str(tmp_path / "run"), "data": str(path), "precision": "float32",
        "model": {"backbone_config": TINY}, "plan": {"row_length": 160, "budget": 10},
        "batch": {"rows_per_step": 2, "rows_per_device": 2}, "optimizer": {"lr": 3e-2},
        "log": {"every": 1, "trackers": [], "plot": True},
    }  # fmt: skip
    recipe.write_text(yaml.safe_dump(values))
    train(load_config(recipe))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] / 3
    carried = chat_tokenizer_in(tmp_path / "run" / "model")
    assert carried.chat_template == TOKENIZER.chat_template
    assert not (tmp_path / "run" / "compressor").exists()
