"""Servers of other programs: greedy text of a native export, streamed Korean and emoji."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import transformers_serve, vllm_serve
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig

from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model

pytestmark = pytest.mark.slow
PROMPTS = ["x<raw>y</raw>z <eos> <|eot_id|> special 12", "é 한국어 🙂\r\n\t", "def f(x):"]
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}  # vLLM has no kernel for narrower heads on a CPU
SAID = "한é🙂국"
NEW = 24


@pytest.fixture(scope="module")
def serving(tmp_path_factory) -> Path:
    """What ``transformers serve`` needs beside Transformers."""
    folder = tmp_path_factory.mktemp("openai")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        str(folder),
        "openai",
        "fastapi",
        "uvicorn",
    ]
    if subprocess.run(install, check=False, capture_output=True).returncode:
        pytest.skip("no package index at hand")
    return folder


@pytest.fixture(scope="module")
def folders(model_writer, says, tmp_path_factory) -> tuple[Path, Path]:
    """An export with random weights, and one that says ``SAID``."""
    home = tmp_path_factory.mktemp("servers")
    model_writer(home / "any", "llama", None, SHAPE)
    model_writer(home / "says", "llama", says(SAID.encode()), SHAPE, tie_word_embeddings=False)
    options = ExportOptions(ExportFormat.NATIVE)
    return export_model(home / "any", home / "a", options), export_model(home / "says", home / "s", options)


def expected(folder: Path) -> list[str]:
    """What Transformers writes after each prompt."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=NEW, do_sample=False)
        texts.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


@pytest.mark.parametrize("batching", [False, True], ids=["one by one", "continuous batching"])
def test_transformers_serve_gives_the_greedy_text_and_streams_whole_characters(batching, serving, folders):
    options = ["--continuous-batching"] if batching else []
    with transformers_serve(folders[0], serving, *options) as server:
        assert [server.complete(prompt, NEW) for prompt in PROMPTS] == expected(folders[0])
    with transformers_serve(folders[1], serving, *options) as server:
        check_said(server)


def test_vllm_gives_the_greedy_text_and_streams_whole_characters(folders):
    python = os.environ.get("PROXYBYTE_VLLM")
    if python is None:
        pytest.skip("PROXYBYTE_VLLM names no Python that has vLLM (tests/benchmarks/serving_bench.py installs one)")
    with vllm_serve(folders[0], Path(python)) as server:
        assert [server.complete(prompt, NEW) for prompt in PROMPTS] == expected(folders[0])
    with vllm_serve(folders[1], Path(python)) as server:
        check_said(server)


def check_said(server) -> None:
    assert server.complete("Say it.", NEW) == SAID
    pieces = server.stream("Say it.", NEW)
    assert "".join(pieces) == SAID
    assert len([piece for piece in pieces if piece]) > 1
    assert not any("\ufffd" in piece for piece in pieces)


def test_continuous_batching_of_a_native_export_gives_the_greedy_symbols(folders):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folders[0]), AutoTokenizer.from_pretrained(folders[0])
    found = model.generate_batch(
        tokenizer(PROMPTS)["input_ids"],
        generation_config=GenerationConfig(eos_token_id=[2, 13], pad_token_id=0, do_sample=False),
        continuous_batching_config=ContinuousBatchingConfig(page_size=16, num_blocks=16, max_batch_tokens=64),
        max_new_tokens=NEW,
        warmup=False,
    )
    answers = [one.generated_tokens for one in found.values()]
    assert tokenizer.batch_decode(answers, skip_special_tokens=True) == expected(folders[0])
