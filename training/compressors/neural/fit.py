"""Training M1, with checkpoints from which an interrupted fit goes on."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from proxybyte.checksums import seal, unseal
from proxybyte.errors import ProxyByteError, WrongOption
from proxybyte.folders import write_bytes
from proxybyte.progress import Progress

from . import byte_lm
from .byte_lm import ByteLM

EMBEDDING = 64


class FloatByteLM(nn.Module):
    """A GRU over bytes. Every sequence starts from the zero state, as every window does where M1 is used.

    Args:
        width: units of the state.
        byte_counts: shape ``(256,)``; how often each byte occurs in the text to be learned. The zero state predicts
            these frequencies from the start (it only has the head's bias to do it with, which learns slowly).
    """

    def __init__(self, width: int, byte_counts: Tensor):
        super().__init__()
        self.embedding = nn.Embedding(byte_lm.VOCABULARY, EMBEDDING)
        self.gru = nn.GRU(EMBEDDING, width)
        self.head = nn.Linear(width, byte_lm.VOCABULARY)
        counts = byte_counts.double() + 1
        with torch.no_grad():
            self.head.bias.copy_((counts / counts.sum()).log())

    @property
    def width(self) -> int:
        """Units of the state."""
        return self.head.in_features

    def forward(self, text: Tensor) -> Tensor:
        """Logits (nats) of each byte from those before it.

        Args:
            text: ``(L, B)`` int64.

        Returns:
            ``(L, B, 256)``; element ``[t]`` has seen ``text[:t]``.
        """
        states, _ = self.gru(self.embedding(text[:-1]))
        return self.head(torch.cat([states.new_zeros(1, *states.shape[1:]), states]))


@torch.no_grad()
def quantise(model: FloatByteLM) -> ByteLM:
    """Round a trained model to integers; weights to 8 bits with a power of two for each row."""
    wide = model.width
    weight = {name: parameter.detach().double().cpu() for name, parameter in model.gru.named_parameters()}
    inputs = model.embedding.weight.double().cpu() @ weight["weight_ih_l0"].T + weight["bias_ih_l0"]
    inputs[:, : 2 * wide] += weight["bias_hh_l0"][: 2 * wide]
    recurrent, shift = _quantise_rows(weight["weight_hh_l0"])
    target = torch.full_like(shift, byte_lm.STATE_BITS)
    target[2 * wide :] = byte_lm.GATE_BITS
    head, head_shift = _quantise_rows(model.head.weight.double().cpu() / math.log(2))
    steps = torch.arange(-byte_lm.INDEX_MAX, byte_lm.INDEX_MAX + 1).double() * 2.0**-byte_lm.STATE_BITS
    tensors = {
        "inputs": inputs * 2**byte_lm.STATE_BITS,
        "recurrent": recurrent,
        "recurrent_scale": 2.0 ** (target - shift - byte_lm.STATE_BITS),
        "candidate_bias": weight["bias_hh_l0"][2 * wide :] * 2**byte_lm.GATE_BITS,
        "head": head,
        "head_scale": 2.0 ** (byte_lm.LOGIT_BITS - head_shift - byte_lm.STATE_BITS),
        "head_bias": model.head.bias.double().cpu() / math.log(2) * 2**byte_lm.LOGIT_BITS,
        "sigmoid": torch.sigmoid(steps) * 2**byte_lm.GATE_BITS,
        "tanh": (torch.tanh(steps) * 2**byte_lm.STATE_BITS).clamp(-byte_lm.STATE_MAX, byte_lm.STATE_MAX),
        "exp2": 2.0 ** (byte_lm.WEIGHT_BITS - _fractions(byte_lm.EXPONENTS)),
        "sum_steps": (2.0 ** (byte_lm.WEIGHT_BITS + _fractions(byte_lm.SUM_STEPS)[1:])).ceil(),
    }
    for name, tensor in tensors.items():
        if not name.endswith("_scale"):
            tensor.round_()
    int8 = {name: tensors.pop(name).to(torch.int8) for name in ("recurrent", "head")}
    return ByteLM(**int8, **{name: tensor.float() for name, tensor in tensors.items()})


def _fractions(last: int) -> Tensor:
    """0, 1/64, 2/64, ... up to ``last`` 64ths (units of a logit)."""
    return torch.arange(last + 1).double() * 2.0**-byte_lm.LOGIT_BITS


def _quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers ``q`` within +-127 and shifts ``s`` such that ``q * 2^-s`` is near ``weight``, row by row.

    The shift is the finest that neither clips the row's largest weight nor lets its sum pass the exact range.
    """
    largest = weight.abs().amax(dim=1).clamp(min=2.0**-8)
    total = weight.abs().sum(dim=1).clamp(min=2.0**-8)
    room = (byte_lm.EXACT / byte_lm.STATE_MAX - weight.shape[1]) / total
    shift = torch.minimum(byte_lm.STATE_MAX / largest, room).log2().floor().clamp(-8, 14)
    limit = byte_lm.STATE_MAX
    return (weight * 2.0 ** shift[:, None]).round().clamp(-limit, limit), shift


NO_TARGET = -100


@dataclass(frozen=True, eq=False)
class TextSampler:
    """Documents as one array, from which batch ``i`` is a pure function of ``(seed, i)``.

    Attributes:
        text: ``(n,)`` uint8; the documents one after another.
        ends: ``(d,)`` int64, ascending; where each document ends.
    """

    text: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, documents: Sequence[bytes]) -> Self:
        """A sampler of ``documents``.

        Raises:
            ProxyByteError: if they hold no byte.
        """
        ends = np.cumsum([len(document) for document in documents if document], dtype=np.int64)
        if not len(ends):
            raise ProxyByteError("there is no text to fit M1 on")
        return cls(np.frombuffer(b"".join(documents), np.uint8), ends)

    def byte_counts(self) -> np.ndarray:
        """How often each byte occurs, shape ``(256,)``."""
        return np.bincount(self.text, minlength=256)

    def batch(self, size: int, context: int, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, ``(context, size)`` int64 each.

        Each column is the text from a place drawn uniformly; targets beyond its document are :data:`NO_TARGET`.
        """
        start = np.random.default_rng(seed).integers(0, len(self.text), size)
        place = start + np.arange(context)[:, None]
        inside = place < self.ends[np.searchsorted(self.ends, start, side="right")]
        text = self.text[np.minimum(place, len(self.text) - 1)].astype(np.int64)
        return text, np.where(inside, text, NO_TARGET)


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
