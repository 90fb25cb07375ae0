"""Small models with sharp random weights, as folders and as exports."""

import json
import os
import site
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, encode_bytes
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.tokenization_proxybyte import build_tokenizer, save_tokenizer

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
FAMILY_SETTINGS = {
    "gemma2": {"final_logit_softcapping": None},
    "mixtral": {"num_local_experts": 2},
    "phi3": {"original_max_position_embeddings": 256},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}


def write_model(
    folder: Path, family: str, change: Callable | None = None, backbone_settings: dict | None = None, **settings
) -> ProxyByteForCausalLM:
    """Build a model, let ``change`` alter it, and save it with its tokenizer."""
    torch.manual_seed(0)
    backbone = {"model_type": family, **SHAPE, **FAMILY_SETTINGS.get(family, {}), **(backbone_settings or {})}
    config = ProxyByteConfig(backbone_config=backbone, **{"num_compressed_symbols": 50, **settings})
    model = ProxyByteForCausalLM(config).eval()
    if change is not None:
        change(model)
    model.save_pretrained(folder)
    save_tokenizer(build_tokenizer(opening=config.document_opening), folder)
    return model


@pytest.fixture(scope="session")
def model_writer() -> Callable[..., ProxyByteForCausalLM]:
    """:func:`write_model`, which tests cannot import."""
    return write_model


@pytest.fixture(scope="session")
def llama_run(tmp_path_factory) -> Path:
    """A finished run: its model and the compressor beside it."""
    run = tmp_path_factory.mktemp("run")
    write_model(run / "model", "llama")
    (run / "compressor").mkdir()
    (run / "compressor" / "compressor.json").write_text('{"family": "bpe"}')
    return run


@pytest.fixture(scope="session", params=[ExportFormat.NATIVE, ExportFormat.FULL])
def exported(request, llama_run, tmp_path_factory) -> Path:
    """The run's export in each format."""
    out = tmp_path_factory.mktemp("hub") / f"{request.param}-model"
    return export_model(llama_run, out, ExportOptions(request.param))


PUSH = "import sys; from proxybyte.cli import main; sys.exit(main(sys.argv[1:]))"


class Hub:
    """A server on a folder; :meth:`start` again goes on with what it holds."""

    token = "hf_" + "testtoken" * 4

    def __init__(self, home: Path):
        self.home = home
        self.process: subprocess.Popen | None = None

    def start(self, *options: str) -> None:
        words = [
            sys.executable,
            str(Path(__file__).with_name("hub_server.py")),
            str(self.home / "store"),
            "--token",
            self.token,
            *options,
        ]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def environment(self, **more: str) -> dict[str, str]:
        """Of a client, with a cache of its own."""
        mine = {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(self.home / "hf"),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **mine, **more}

    def push(self, *words: str | Path, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", PUSH, "push", *map(str, words)],
            env=self.environment(**environment),
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )

    def requests(self) -> list[str]:
        with urllib.request.urlopen(f"{self.url}/_log") as answer:
            return json.load(answer)

    def repo(self, name: str) -> Any:
        return json.loads((self.home / "store" / "repos.json").read_text())[name]

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """Content of a branch's files."""
        repo = self.repo(name)
        files = repo["commits"][repo["branches"][branch]]["files"]
        return {path: (self.home / "store" / "blobs" / file["sha256"]).read_bytes() for path, file in files.items()}


@pytest.fixture
def hub(tmp_path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def hub_class() -> type[Hub]:
    """:class:`Hub`, which tests cannot import."""
    return Hub


@pytest.fixture(scope="session")
def stranger(tmp_path_factory) -> Path:
    """Python of a fresh environment with links to every installed package but ours."""
    home = tmp_path_factory.mktemp("stranger")
    venv.create(home, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    installed = {Path(entry) for entry in [*sys.path, *site.getsitepackages()] if Path(entry).name == "site-packages"}
    for folder in installed:
        for entry in folder.iterdir():
            ours = "proxybyte" in entry.name.lower() or entry.suffix in (".pth", ".egg-link")
            if not ours and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    return home / "bin" / "python"


def _says(text: bytes, end: int = 2) -> Callable:
    """A change after which the model answers any prompt that ends in ``.`` with ``text`` and the symbol ``end``."""
    chain = [64 + ord("."), *encode_bytes(text).tolist(), end]
    assert len(set(chain)) == len(chain)

    def change(model):
        rows = torch.eye(64)
        weight = model.model.embed_tokens.weight.data
        weight.zero_()
        model.lm_head.weight.data.zero_()
        for place, (symbol, following) in enumerate(pairwise(chain)):
            weight[symbol] = model.lm_head.weight.data[following] = rows[place]
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.data.zero_()
            layer.mlp.down_proj.weight.data.zero_()

    return change


@pytest.fixture(scope="session")
def says() -> Callable[..., Callable]:
    """Of a text and an end: a change of a tiny Llama that has it answer so, for tests of programs that stream."""
    return _says
