"""TRL's own trainer on a native export, by the recipe of docs/serving.md."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte import encode_bytes
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model

pytestmark = pytest.mark.slow
TEXT = "The capital of France is Paris."


@pytest.mark.parametrize("recipe", [True, False])
def test_rows_of_symbols_teach_the_end_and_appended_text_does_not(recipe, trl, model_writer, tmp_path):
    shape = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "initializer_range": 0.05}
    model_writer(tmp_path / "model", "llama", None, shape)
    folder = export_model(tmp_path / "model", tmp_path / "out", ExportOptions(ExportFormat.NATIVE))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    row = {"input_ids": [12, *encode_bytes(TEXT.encode()).tolist(), 13, 2]} if recipe else {"text": TEXT}
    settings = trl.SFTConfig(
        output_dir=str(tmp_path / "sft"), max_steps=80, learning_rate=5e-3, per_device_train_batch_size=4, report_to=[],
        save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_list([row] * 8)
    trl.SFTTrainer(model=model, args=settings, train_dataset=data, processing_class=tokenizer).train()
    prompt = tokenizer(TEXT[:24], return_tensors="pt")
    written = model.eval().generate(**prompt, max_new_tokens=40, do_sample=False)[0].tolist()
    text = torch.tensor([12, *encode_bytes(TEXT.encode()).tolist()])
    assert written[: len(text)] == text.tolist()
    if recipe:
        assert written[len(text) :] in ([13], [2])
    else:
        assert tokenizer.decode(written).startswith(f"<raw>{TEXT}<eos>")
        assert not {2, 13} & set(written)
