"""Training M1, with checkpoints from which an interrupted fit goes on."""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from proxybyte.checksums import seal, unseal
from proxybyte.errors import ProxyByteError, WrongOption
from proxybyte.folders import write_bytes
from proxybyte.progress import Progress

from .float_lm import FloatByteLM
from .sampling import NO_TARGET, TextSampler

CHECKPOINT = "fit.safetensors"
_CHECKPOINT_SECONDS = 60
_SHOWN_EVERY = 20
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class FitOptions:
    """How M1 is trained.

    Attributes:
        width: units of the state; 1024 is 4 million parameters, 3500 is 40 million.
        steps: optimizer steps.
        batch: places in the text that each step reads from.
        context: bytes that are read from each place, from a fresh context.
        learning_rate: at its peak; it warms up over 50 steps and falls to 1% along a cosine.
        seed: of the weights and the places.
    """

    width: int = 1024
    steps: int = 4000
    batch: int = 512
    context: int = 32
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ProxyByteError: if one is not positive, or ``width`` is no multiple of 8.
        """
        for name in ("width", "steps", "batch", "context", "learning_rate"):
            if getattr(self, name) <= 0:
                raise WrongOption(f"{name} {getattr(self, name)}: must be positive", name)
        if self.width % 8:
            told = f"width {self.width}: must be a multiple of 8, for the int8 matrix units"
            raise WrongOption(told, "width")

    def rate(self, step: int) -> float:
        """Learning rate of ``step``."""
        falling = 0.505 + 0.495 * math.cos(math.pi * step / self.steps)
        return self.learning_rate * min(1.0, (step + 1) / 50) * falling


@dataclass
class _Run:
    model: FloatByteLM
    optimizer: torch.optim.AdamW
    step: int


def fit_folder(output: Path) -> Path:
    """Where the fit of a compressor that goes to ``output`` keeps what it did: beside it."""
    output = output.resolve()
    return output.with_name(f"{output.name}.fit")


def remove_checkpoint(folder: Path) -> None:
    """Remove what :func:`fit` kept in ``folder``, once the compressor is saved."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    with suppress(OSError):  # others may keep something there
        folder.rmdir()


def fit(
    sampler: TextSampler, options: FitOptions, folder: Path, device: torch.device, keep: bool = False
) -> FloatByteLM:
    """Train M1 on ``sampler``'s text.

    Args:
        sampler: the text.
        options: how.
        folder: where checkpoints are written, once a minute and on interruption; one of a fit with the same options
            and text is gone on from. It is removed at the end.
        device: where to train.
        keep: write the last checkpoint and leave it, until the model is saved and :func:`remove_checkpoint` is called.
    """
    path = Path(folder) / CHECKPOINT
    run = _start(sampler, options, device)
    key = json.dumps({**asdict(options), "text": hashlib.sha256(sampler.text.tobytes()).hexdigest()})
    if path.exists():
        _resume(run, path, key)
    bar = Progress(total=options.steps, initial=run.step, desc="fitting M1", unit="step", delay=2)
    with bar, _saved_on_exit(run, path, key):
        saved = time.monotonic()
        while run.step < options.steps:
            bits = _train_step(run, sampler, options)
            bar.update()
            if run.step % _SHOWN_EVERY == 0:
                bar.set_postfix_str(f"{bits.item():.3f} bits a byte")
            if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                _save(run, path, key)
                saved = time.monotonic()
    if keep:
        _save(run, path, key)
    else:
        path.unlink(missing_ok=True)
    return run.model


@torch.no_grad()
def bits_per_byte(model: FloatByteLM, sampler: TextSampler, options: FitOptions) -> float:
    """Mean cost of a byte over 4096 contexts of ``sampler``'s text that no training step drew."""
    text, targets = (torch.from_numpy(a) for a in sampler.batch(4096, options.context, (options.seed, 1, 0)))
    device = model.head.weight.device
    return (_loss(model, text.to(device), targets.to(device)) / math.log(2)).item()


def _start(sampler: TextSampler, options: FitOptions, device: torch.device) -> _Run:
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        model = FloatByteLM(options.width, torch.from_numpy(sampler.byte_counts())).to(device)
    return _Run(model, torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01), 0)


def _train_step(run: _Run, sampler: TextSampler, options: FitOptions) -> torch.Tensor:
    for group in run.optimizer.param_groups:
        group["lr"] = options.rate(run.step)
    device = run.model.head.weight.device
    text, targets = sampler.batch(options.batch, options.context, (options.seed, 0, run.step))
    loss = _loss(run.model, torch.from_numpy(text).to(device), torch.from_numpy(targets).to(device))
    run.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimizer.step()
    run.step += 1
    return loss.detach() / math.log(2)


def _loss(model: FloatByteLM, text: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(text).flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET)


@contextmanager
def _saved_on_exit(run: _Run, path: Path, key: str) -> Iterator[None]:
    """Keep what was done if the work inside is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        _save(run, path, key)
        raise


def _save(run: _Run, path: Path, key: str) -> None:
    tensors = dict(run.model.state_dict())
    for name, parameter in run.model.named_parameters():
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = run.optimizer.state[parameter][moment]
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"key": key, "step": str(run.step)}
    write_bytes(path, seal(save({name: tensor.contiguous() for name, tensor in tensors.items()}, about)))


def _resume(run: _Run, path: Path, key: str) -> None:
    try:
        content = unseal(path.read_bytes())
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError):
        raise ProxyByteError(
            f"{path}: is no checkpoint, is cut short, or is damaged; remove it to fit from the start"
        ) from None
    about = header.get("__metadata__", {})
    if about.get("key") != key:
        raise ProxyByteError(f"{path}: is of a fit with other options or other text; give them, or remove it")
    run.model.load_state_dict({name: tensors[name] for name in run.model.state_dict()})
    run.step = int(about["step"])
    for name, parameter in run.model.named_parameters():
        moments = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
        run.optimizer.state[parameter] = {"step": torch.tensor(float(run.step)), **moments}
