"""Servers of other programs on a port of this machine, asked for greedy text; tests and benchmarks share them."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch

STARTS_WITHIN = 300.0
"""Seconds until a server must answer."""


class Served(Protocol):
    """A model behind a server."""

    def complete(self, prompt: str, most: int) -> str:
        """Greedy text after ``prompt``, of at most ``most`` symbols."""
        ...

    def stream(self, prompt: str, most: int) -> list[str]:
        """The same in the pieces in which it comes."""
        ...


class OpenAiServer:
    """A server with ``/v1/completions``.

    Args:
        port: on this machine.
        model: the name that it knows the model by.
    """

    def __init__(self, port: int, model: str) -> None:
        self._address, self._model = f"http://127.0.0.1:{port}", model

    def answers(self) -> bool:
        """Whether it is up."""
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            return urllib.request.urlopen(f"{self._address}/health", timeout=5).status == 200
        return False

    def complete(self, prompt: str, most: int) -> str:
        """Greedy text after ``prompt``, of at most ``most`` symbols."""
        with self._ask(prompt, most, stream=False) as answer:
            return json.load(answer)["choices"][0]["text"]

    def stream(self, prompt: str, most: int) -> list[str]:
        """The same in the pieces in which it comes."""
        with self._ask(prompt, most, stream=True) as answer:
            told = [json.loads(line[6:]) for line in answer if line.startswith(b"data: {")]
        return [piece["choices"][0]["text"] or "" for piece in told]

    def _ask(self, prompt: str, most: int, stream: bool) -> Any:
        asked = {"model": self._model, "prompt": prompt, "max_tokens": most, "temperature": 0, "stream": stream}
        request = urllib.request.Request(
            f"{self._address}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        return urllib.request.urlopen(request, timeout=STARTS_WITHIN)


class LlamaServer:
    """llama.cpp's server on a port of this machine, in this process.

    Args:
        path: a GGUF file.
        context: symbols of a text.
    """

    def __init__(self, path: Path, context: int = 256) -> None:
        import xllamacpp as llama_cpp  # here, because other servers need it not

        options = llama_cpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx, options.n_parallel, options.warmup, options.verbosity = context, 1, False, 0
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
        # As exact as it can: by default keys and values are kept in 16 bits.
        options.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.cache_type_k = options.cache_type_v = llama_cpp.ggml_type.GGML_TYPE_F32
        self.server = llama_cpp.Server(options)

    def open(self, path: str, body: dict[str, Any]) -> Any:
        """The answer as it comes."""
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return urllib.request.urlopen(
            urllib.request.Request(self.server.listening_address + path, data, kind), timeout=60
        )

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """The whole answer."""
        with self.open(path, body) as answer:
            return json.load(answer)

    def logprobs(self, prompt: str | list[int]) -> torch.Tensor:
        """Of the 256 bytes after ``prompt``; "a" is forced, as half a character gives no answer."""
        forced = [[161, 1000]]
        answer = self.ask("/completion", prompt=prompt, n_predict=1, temperature=0, n_probs=320, logit_bias=forced)
        found = {one["id"]: one["logprob"] for one in answer["completion_probabilities"][0]["top_logprobs"]}
        return torch.tensor([found[symbol] for symbol in range(64, 320)], dtype=torch.float64)

    def greedy(self, prompt: str | list[int], count: int) -> dict[str, Any]:
        """Text, tokens and end after ``prompt``."""
        return self.ask("/completion", prompt=prompt, n_predict=count, temperature=0, return_tokens=True, seed=0)

    def complete(self, prompt: str, most: int) -> str:
        """Greedy text after ``prompt``, of at most ``most`` symbols."""
        return self.greedy(prompt, most)["content"]

    def stream(self, prompt: str, most: int) -> list[str]:
        """The same in the pieces in which it comes."""
        with self.open("/completion", {"prompt": prompt, "n_predict": most, "temperature": 0, "stream": True}) as out:
            return [json.loads(line[6:])["content"] for line in out if line.startswith(b"data: {")]


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def transformers_serve(folder: Path, packages: Path, *options: str) -> Iterator[OpenAiServer]:
    """``transformers serve`` of a native export.

    Args:
        folder: the export.
        packages: a folder with what the extra ``transformers[serving]`` asks for.
        options: such as ``--continuous-batching``.
    """
    port = free_port()
    script = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
    words = [sys.executable, "-c", script, "serve", str(folder), "--port", str(port), "--host", "127.0.0.1"]
    words += ["--device", "cpu", *options]
    with _running(words, {"PYTHONPATH": str(packages)}, OpenAiServer(port, str(folder))) as server:
        yield server


@contextmanager
def vllm_serve(folder: Path, python: Path) -> Iterator[OpenAiServer]:
    """The server of vLLM with a native export, by the Python that has it."""
    port = free_port()
    words = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    words += ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", "--generation-config", "vllm"]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with _running(words, own, OpenAiServer(port, str(folder))) as server:
        yield server


@contextmanager
def _running(words: Sequence[str], more: dict[str, str], server: OpenAiServer) -> Iterator[OpenAiServer]:
    """A process that ends with the block.

    Raises:
        RuntimeError: if it ends by itself or does not answer; with the last that it said.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **more}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while not server.answers():
                if process.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise RuntimeError(f"{words[:4]} does not answer:\n{said.read()[-3000:].decode(errors='replace')}")
                time.sleep(0.2)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
