"""A large run on paper: time, storage, network and cost from rates, and which part binds.

``python tests/benchmarks/on_paper.py`` prints the table of docs/scale.md; each input is an option.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from transformers import AutoModelForCausalLM

from proxybyte.flops import training_flops
from proxybyte.hub_configs import load_preset

STATE_BYTES = 12
"""Of a weight in a checkpoint: itself and AdamW's two moments, float32."""
STEP_BYTES = 8
"""That FSDP2 moves to and from a GPU for each weight of a forward and backward pass: bfloat16 gathered twice, the
gradient in float32 scattered once."""
CODE_BYTES = 2
"""Of a compressed symbol in a prepared folder."""


def told(default: float | str, text: str):
    """An input with its default, its unit and where it is from."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Inputs:
    """What the arithmetic starts from."""

    preset: str = told("7b-llama", "size in hub_configs/presets")
    codes: int = told(65_536, "symbols of the compressor")
    text_tb: float = told(3.3, "TB of text, shown once")
    bytes_per_symbol: float = told(2.9, "of the compressed view; published for a tokenizer on code")
    compressed: float = told(0.9, "share of the text in that view")
    row_length: int = told(4096, "symbols of a row")
    rows_per_device: int = told(8, "rows of a forward pass, one of which makes a step here")
    gpus: int = told(64, "GPUs")
    gpus_per_host: int = told(8, "of them in a host")
    peak_tflops: float = told(989, "of a GPU in bfloat16 without sparsity (H100 SXM, its data sheet)")
    utilisation: float = told(0.4, "of that by model FLOPs; assumed, not measured here")
    gpu_hour: float = told(2.5, "dollars; assumed")
    network_gb_s: float = told(50, "GB/s to and from a GPU between hosts (400 Gbit/s each); assumed")
    prepare_mb_s: float = told(7.6, "MB/s of a core in 'prepare', every document verified; measured")
    prepare_cores: int = told(64, "cores that prepare")
    stream_mb_s: float = told(224, "MB/s of text that a core makes rows of; measured")
    write_gb_s: float = told(2, "GB/s that a host writes to shared storage; assumed")
    sha_gb_s: float = told(1.4, "GB/s of SHA-256 of a core; measured")
    every: int = told(500, "steps between checkpoints, the default")
    keep: int = told(2, "checkpoints that are kept, the default")


@dataclass(frozen=True)
class Estimate:
    """What follows.

    Attributes:
        weights: of the model.
        symbols: that the model is shown.
        compute: seconds of all steps' arithmetic.
        network: seconds of all steps' traffic between hosts, which FSDP2 moves beside the arithmetic.
        stall: seconds of all checkpoints.
        reading: seconds that one core of each process makes rows.
        prepare: seconds of 'prepare'.
        steps: of the run.
        checkpoint: bytes.
        prepared: bytes.
        host_memory: bytes of a host before the model is shared out: each process makes all of it.
    """

    weights: int
    symbols: float
    compute: float
    network: float
    stall: float
    reading: float
    prepare: float
    steps: float
    checkpoint: float
    prepared: float
    host_memory: float

    @classmethod
    def of(cls, given: Inputs) -> "Estimate":
        """Multiply and divide."""
        text = given.text_tb * 1e12
        codes = text * given.compressed / given.bytes_per_symbol
        symbols = codes + text * (1 - given.compressed)
        weights, flops = _of_model(given)
        steps = symbols / (given.gpus * given.rows_per_device * given.row_length)
        share = weights * STATE_BYTES / given.gpus
        save = share * min(given.gpus, given.gpus_per_host) / (given.write_gb_s * 1e9) + share / (given.sha_gb_s * 1e9)
        return cls(
            weights=weights,
            symbols=symbols,
            compute=symbols * flops / (given.gpus * given.peak_tflops * 1e12 * given.utilisation),
            network=_crosses(given) * steps * STEP_BYTES * weights / (given.network_gb_s * 1e9),
            stall=steps / given.every * save,
            reading=text / given.gpus / (given.stream_mb_s * 1e6),
            prepare=text / (given.prepare_cores * given.prepare_mb_s * 1e6),
            steps=steps,
            checkpoint=weights * STATE_BYTES,
            prepared=text * (1 + CODE_BYTES / given.bytes_per_symbol),
            host_memory=4.0 * weights * given.gpus_per_host,
        )

    @property
    def training(self) -> float:
        """Seconds: rows are read, and weights moved, beside the arithmetic; checkpoints stop it."""
        return max(self.compute, self.network, self.reading) + self.stall

    @property
    def binds(self) -> str:
        """The part that training waits for most."""
        parts = {"arithmetic": self.compute, "network": self.network, "checkpoints": self.stall, "rows": self.reading}
        return max(parts, key=parts.__getitem__)


def _crosses(given: Inputs) -> bool:
    """Whether there is more than one host; then it is as if all traffic went between hosts, the most there can be."""
    return given.gpus > given.gpus_per_host


def _of_model(given: Inputs) -> tuple[int, float]:
    """Weights, and training FLOPs of a symbol."""
    config = load_preset(given.preset).config(given.codes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    weights = sum(weight.numel() for weight in model.parameters())
    return weights, training_flops(config, given.row_length) / given.row_length


def table(given: Inputs) -> list[tuple[str, str]]:
    """The estimate in rows."""
    found = Estimate.of(given)
    days, step = found.training / 86_400, found.compute / found.steps
    part, moved = found.network / found.steps, STEP_BYTES * found.weights / 1e9
    hours = given.gpus * found.training / 3600
    return [
        ("model", f"{given.preset}, {found.weights / 1e9:.2f} thousand million weights"),
        ("symbols", f"{found.symbols:.3g} of {given.text_tb:g} TB of text"),
        ("prepare", f"{found.prepare / 3600:.1f} h on {given.prepare_cores} cores"),
        ("prepared folder", f"{found.prepared / 1e12:.2f} TB, text and symbols"),
        ("training", f"{days:.1f} days on {given.gpus} GPUs, {found.steps:,.0f} steps of {step:.2f} s"),
        ("network", f"{moved:.0f} GB a GPU and step, at most {part:.2f} s beside {step:.2f} s"),
        ("rows", f"{found.reading / 3600:.2f} h of a core for each process in {days * 24:.0f} h"),
        ("checkpoint", f"{found.checkpoint / 1e9:.0f} GB, {found.checkpoint / given.gpus / 1e9:.2f} GB a process; "
                       f"{(given.keep + 1) * found.checkpoint / 1e9:.0f} GB with the one being written"),
        ("stall", f"{found.stall / found.training:.2%} of the time, every {given.every} steps"),
        ("host memory", f"{found.host_memory / 1e9:.0f} GB at the start, each of {given.gpus_per_host} processes all"),
        ("cost", f"{hours:,.0f} GPU hours, ${hours * given.gpu_hour:,.0f}"),
        ("binds", found.binds),
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="on_paper", description=__doc__.partition("\n")[0])
    for each in fields(Inputs):
        kind = type(each.default)
        text = f"{each.metadata['help']} (default: %(default)s)"
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=each.default, help=text)
    given = Inputs(**vars(parser.parse_args(argv)))
    for name, text in table(given):
        print(f"{name:<16} {text}")


if __name__ == "__main__":
    main()
