"""A step that holds no target is a loss of zero, and conversations that can never give one are told of."""

import json

import pytest
import torch
from transformers import Trainer, TrainingArguments

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, build_tokenizer
from proxybyte.errors import ProxyByteError
from proxybyte.training.chat import ChatDataset, read_chats
from proxybyte.training.run.config_io import load_config
from proxybyte.training.stream.mixed_view import collate_inputs
from proxybyte.training.stream.plan import PlanConfig
from proxybyte.training.train import train

BACKBONE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
}
LONG, SHORT = "Summarise: " + "word " * 100, "hi"


@pytest.fixture
def chats(tmp_path):
    """Six conversations whose question fills a row of 256 symbols, and two that fit."""

    def write(questions=(LONG,) * 6 + (SHORT,) * 2, answer="hello"):
        path = tmp_path / "chats.jsonl"
        turns = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}] for question in questions
        ]
        path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
        return path

    return write


def model(**more):
    torch.manual_seed(0)
    return ProxyByteForCausalLM(ProxyByteConfig(backbone_config=dict(BACKBONE), num_compressed_symbols=8, **more))


@pytest.mark.parametrize("items", [None, 0, 0.0, torch.tensor(0), torch.tensor(0.0)])
@pytest.mark.parametrize("heads", [{}, {"num_pred_heads": 2, "num_raw_pred_heads": 2}])
def test_no_target_is_no_loss_and_no_gradient(items, heads):
    made = model(**heads)
    output = made(input_ids=torch.randint(64, 320, (2, 16)), labels=torch.full((2, 16), -100), num_items_in_batch=items)
    output.loss.backward()
    assert output.loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in made.parameters())


@pytest.mark.parametrize("items", [0.5, 3, torch.tensor(7)])
def test_what_the_loss_is_divided_by_is_left_as_it_is_where_there_are_targets(items):
    made, ids = model(), torch.randint(64, 320, (1, 16), generator=torch.Generator().manual_seed(0))
    output = made(input_ids=ids, labels=ids, num_items_in_batch=items)
    assert output.loss.item() == pytest.approx(output.target_nll.sum().item() / float(items), rel=1e-6)


def test_a_run_over_rows_without_a_target_goes_on_with_a_loss_of_zero(recipe, chats):
    config = load_config(
        recipe(
            data=str(chats()),
            model={"backbone_config": BACKBONE},
            plan={"row_length": 256, "budget": 2, "budget_unit": "epochs"},
            batch={"rows_per_step": 2, "rows_per_device": 2, "shuffle_steps": 1},
            log={"every": 1, "trackers": [], "plot": False},
            evaluation={"every": 0},
        )
    )
    assert train(config).finished
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    empty = [line for line in lines if line["targets"] == 0]
    assert empty
    assert all(line["loss"] == 0 and line["grad_norm"] == 0 for line in empty)
    trained = [line for line in lines if line["targets"] > 0]
    assert trained
    assert all(0 < line["loss"] < 10 for line in trained)
    weights = ProxyByteForCausalLM.from_pretrained(config.output / "model").parameters()
    assert all(torch.isfinite(weight).all() for weight in weights)


def test_transformers_trainer_keeps_finite_weights(chats, tmp_path):
    data = ChatDataset(read_chats(chats(), build_tokenizer(chat=True)), PlanConfig(row_length=256, budget=2))
    made = model()
    args = TrainingArguments(
        str(tmp_path / "hf"),
        per_device_train_batch_size=2,
        max_steps=4,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(made, args, train_dataset=data, data_collator=collate_inputs)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert 0.0 in losses
    assert all(torch.isfinite(weight).all() for weight in made.parameters())


def test_conversations_that_teach_nothing_are_counted(chats, caplog):
    data = ChatDataset(read_chats(chats(), build_tokenizer(chat=True)), PlanConfig(row_length=256, budget=1), "c.jsonl")
    assert data.without_target == 6
    assert "6 of them without a target" in data.describe()
    assert "c.jsonl: 6 of 8 conversations teach nothing" in caplog.text
    # "hello" and the end of the turn, twice.
    assert "(12 of " in data.describe()


def test_nothing_but_such_conversations_is_refused(chats):
    with pytest.raises(ProxyByteError, match=r"c\.jsonl: no answer .* within a row of 256 symbols.*plan\.row_length"):
        ChatDataset(read_chats(chats((LONG,)), build_tokenizer(chat=True)), PlanConfig(row_length=256), "c.jsonl")


@pytest.mark.parametrize("budget", [0.001, 0.06])
def test_a_budget_that_holds_no_conversation_is_refused(chats, budget):
    read = read_chats(chats(), build_tokenizer(chat=True))
    with pytest.raises(ProxyByteError, match=rf"plan\.budget={budget} epochs of 8 conversation\(s\) hold not one"):
        ChatDataset(read, PlanConfig(row_length=256, budget=budget))


def test_a_budget_of_conversations_beyond_memory_is_refused(chats):
    read = read_chats(chats(), build_tokenizer(chat=True))
    for budget, unit in ((1e15, "epochs"), (1e18, "symbols")):
        with pytest.raises(ProxyByteError, match="of memory and this machine has"):
            ChatDataset(read, PlanConfig(row_length=256, budget=budget, budget_unit=unit))
