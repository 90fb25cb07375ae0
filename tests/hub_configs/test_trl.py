"""TRL's own trainers on a native export, by the recipes of docs/serving.md."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte import encode_bytes
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model

pytestmark = pytest.mark.slow
PROMPT, ANSWER = "The capital of France is", " Paris."
TEXT = PROMPT + ANSWER
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "initializer_range": 0.05}
SETTINGS = {
    "per_device_train_batch_size": 4, "report_to": [], "save_strategy": "no", "use_cpu": True, "bf16": False,
    "gradient_checkpointing": False, "disable_tqdm": True,
}  # fmt: skip


class Recipe(StrEnum):
    """How the ends come into the rows."""

    SYMBOLS = "rows of symbols"
    ENDS_READ = "the tokenizer reads what TRL appends"
    NONE = "as it is"


def symbols(text: str) -> list[int]:
    return [12, *encode_bytes(text.encode()).tolist()]


@dataclass
class Student:
    """A native export under TRL."""

    model: Any
    tokenizer: Any

    def writes(self) -> list[int]:
        """Greedy symbols after the prompt, as the folder's own tokenizer reads it."""
        prompt = torch.tensor([symbols(PROMPT)])
        out = self.model.eval().generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False
        )
        return out[0, prompt.shape[1] :].tolist()


@pytest.fixture
def student(model_writer, tmp_path):
    model_writer(tmp_path / "model", "llama", None, SHAPE)
    folder: Path = export_model(tmp_path / "model", tmp_path / "out", ExportOptions(ExportFormat.NATIVE))

    def load(recipe: Recipe) -> Student:
        options = {"split_special_tokens": False} if recipe is Recipe.ENDS_READ else {}
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        return Student(AutoModelForCausalLM.from_pretrained(folder), tokenizer)

    return load


def ends_right(written: list[int]) -> bool:
    answer = symbols(ANSWER)[1:]
    return written[: len(answer)] == answer and written[len(answer) :] in ([13], [2])


@pytest.mark.parametrize("recipe", Recipe)
def test_fine_tuning_teaches_the_end_by_either_recipe_and_never_without(recipe, trl, student, tmp_path):
    taught = student(recipe)
    row = {"input_ids": [*symbols(TEXT), 13, 2]} if recipe is Recipe.SYMBOLS else {"text": TEXT}
    settings = trl.SFTConfig(output_dir=str(tmp_path / "sft"), max_steps=80, learning_rate=5e-3, **SETTINGS)
    trainer = trl.SFTTrainer(
        model=taught.model, args=settings, train_dataset=Dataset.from_list([row] * 8), processing_class=taught.tokenizer
    )
    (read, *_) = trainer.train_dataset["input_ids"]
    expected = {
        Recipe.SYMBOLS: [*symbols(TEXT), 13, 2],
        Recipe.ENDS_READ: [*symbols(TEXT), 2],
        Recipe.NONE: symbols(TEXT + "<eos>"),
    }
    assert list(read) == expected[recipe]
    trainer.train()
    written = taught.writes()
    if recipe is Recipe.NONE:
        assert taught.tokenizer.decode(written).startswith(f"{ANSWER}<eos>")
        assert not {2, 13} & set(written)
    else:
        assert ends_right(written)


@pytest.mark.parametrize("recipe", [Recipe.ENDS_READ, Recipe.NONE])
def test_preferences_teach_the_end_where_the_tokenizer_reads_it_and_never_without(recipe, trl, student, tmp_path):
    taught = student(recipe)
    endless = Dataset.from_list([{"input_ids": symbols(PROMPT + ANSWER * 6)}] * 8)
    first = trl.SFTConfig(output_dir=str(tmp_path / "sft"), max_steps=80, learning_rate=5e-3, **SETTINGS)
    trl.SFTTrainer(model=taught.model, args=first, train_dataset=endless, processing_class=taught.tokenizer).train()
    assert not {2, 13} & set(taught.writes())
    pairs = Dataset.from_list([{"prompt": PROMPT, "chosen": ANSWER, "rejected": ANSWER * 2}] * 8)
    # With the likelihood of what is chosen in the loss: preferences alone push this small a model away from any text.
    both = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0]}
    settings = trl.DPOConfig(output_dir=str(tmp_path / "dpo"), max_steps=60, learning_rate=2e-3, **both, **SETTINGS)
    trainer = trl.DPOTrainer(model=taught.model, args=settings, train_dataset=pairs, processing_class=taught.tokenizer)
    end = [2] if recipe is Recipe.ENDS_READ else symbols("<eos>")[1:]
    assert list(trainer.train_dataset["chosen_ids"][0]) == [*symbols(ANSWER)[1:], *end]
    trainer.train()
    assert ends_right(taught.writes()) is (recipe is Recipe.ENDS_READ)
