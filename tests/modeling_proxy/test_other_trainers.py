"""Trainers of other programs on ours and on the backbone's own class, with the same weights: the same figures."""

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from proxybyte import ProxyByteForCausalLM, build_tokenizer

pytestmark = pytest.mark.slow
TEXTS = [f"def f{number}(x):\n    return x + {number}\n" for number in range(16)]


@pytest.fixture
def pair(tiny_model):
    """Makes our model and the backbone's own, in float32 and with the same weights."""

    def make(kind: str, **backbone) -> tuple[ProxyByteForCausalLM, PreTrainedModel]:
        ours = tiny_model(kind, num_compressed_symbols=0).float()
        for name, value in backbone.items():
            setattr(ours.config.backbone_config, name, value)
        config = ours.config.backbone_config
        theirs = AutoModelForCausalLM.from_config(config).float().eval()
        assert type(theirs) is not type(ours)
        theirs.load_state_dict(ours.state_dict())
        # As AutoModelForCausalLM of a folder would have it, for the mask of padding.
        theirs.generation_config.pad_token_id = ours.generation_config.pad_token_id
        return ours, theirs

    return make


def arguments(folder, **settings) -> dict:
    return {
        "output_dir": str(folder), "max_steps": 4, "learning_rate": 1e-3, "per_device_train_batch_size": 4,
        "report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "seed": 1,
        **settings,
    }  # fmt: skip


def losses_of(trainer: Trainer) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_trainer_learns_what_the_backbones_own_class_learns(pair, tmp_path, kind, smoothing):
    tokenizer = build_tokenizer()
    rows = [{"input_ids": tokenizer(text)["input_ids"]} for text in TEXTS]
    losses = []
    for model in pair(kind):
        settings = TrainingArguments(**arguments(tmp_path, label_smoothing_factor=smoothing))
        collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        losses.append(losses_of(Trainer(model, settings, train_dataset=rows, data_collator=collate)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("method", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"])
def test_virtual_tokens_of_peft_do_what_they_do_to_the_backbones_own_class(pair, method):
    peft = pytest.importorskip("peft")
    symbols = torch.tensor([[12, *range(100, 111)], [12, *range(150, 161)]])
    losses, gradients, texts = [], [], []
    for model in pair("llama"):
        torch.manual_seed(2)
        wrapped = peft.get_peft_model(model, getattr(peft, method)(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
        loss = wrapped(input_ids=symbols, attention_mask=torch.ones_like(symbols), labels=symbols).loss
        losses.append(loss.detach())
        trained = [weight for weight in wrapped.parameters() if weight.requires_grad]
        gradients.append(torch.autograd.grad(loss, trained))
        kwargs = {"attention_mask": torch.ones_like(symbols), "max_new_tokens": 6, "do_sample": False}
        allowed = [*range(64, 320)]
        texts.append(
            wrapped.generate(input_ids=symbols, prefix_allowed_tokens_fn=lambda *_, a=allowed: a, **kwargs).tolist()
        )
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert any(gradient.abs().max() > 0 for gradient in gradients[0])
    assert texts[0] == texts[1]


def test_trl_on_gemma_2_keeps_the_bound_of_its_logits(pair, trl, tmp_path):
    data = Dataset.from_list([{"input_ids": build_tokenizer()(text)["input_ids"]} for text in TEXTS])
    losses = []
    for model in pair("gemma2", final_logit_softcapping=2.0):
        settings = trl.SFTConfig(**arguments(tmp_path, bf16=False, gradient_checkpointing=False))
        trainer = trl.SFTTrainer(model=model, args=settings, train_dataset=data, processing_class=build_tokenizer())
        losses.append(losses_of(trainer))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    # Logits within 2 of each other's mean: no symbol is dearer than log(320) + 4.
    assert losses[0][0] < 9.8
