"""A byteified folder works with everything that takes a model folder."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte import decode_bytes
from proxybyte.cli import main
from proxybyte.symbols import Special


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2"])
def folder(make_base, tmp_path_factory, request):
    out = tmp_path_factory.mktemp("byteified") / request.param
    assert main(["byteify", str(make_base(request.param, dtype=torch.float32)), "--out", str(out)]) == 0
    return out


def test_it_generates_raw_bytes(folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("def f(", return_tensors="pt")
    assert prompt["input_ids"][0, 0] == Special.RAW_OPEN
    new = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert set(new.tolist()) <= set(range(64, 320)) | {0, int(Special.EOS), int(Special.RAW_CLOSE)}
    assert isinstance(decode_bytes(new.numpy()), bytes)


def test_packed_documents_of_it_are_those_alone(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    one, two = torch.randint(64, 320, (2, 1, 9), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(9).repeat(2)[None]
    packed = model(torch.cat([one, two], dim=1), position_ids=positions).logits
    alone = torch.cat([model(one).logits, model(two).logits], dim=1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-6)  # Gemma 2 takes its softmax in float32


def test_the_commands_take_it(folder, prepare_texts, tmp_path, capsys):
    prepared = prepare_texts(folder)
    assert main(["info", str(folder)]) == 0
    for view in ("raw", "compressed"):
        words = [
            "eval",
            "bpb",
            str(folder),
            "--data",
            str(prepared),
            "--view",
            view,
            "--no-baselines",
            "--window",
            "64",
        ]
        assert main(words) == 0
    recipe = ["--config", "byteify-full", f"data={prepared}", f"model.checkpoint={folder}"]
    small = ["plan.row_length=64", "plan.budget=640", "evaluation.documents=2", "log.plot=false", "precision=float32"]
    if folder.name == "gemma2":  # a cap on its attention's scores, which SDPA does not know
        assert main(["train", *recipe, f"output={tmp_path / 'run'}"]) == 2
        assert "set model.attention=eager" in capsys.readouterr().err
        small.append("model.attention=eager")
    assert main(["train", *recipe, f"output={tmp_path / 'run'}", *small]) == 0
    assert main(["export", str(tmp_path / "run"), "--format", "full", "--out", str(tmp_path / "full")]) == 0
    native = main(["export", str(folder), "--format", "native", "--out", str(tmp_path / "native")])
    assert native == (2 if folder.name == "gpt2" else 0)  # GPT-2's own names are none of ours
