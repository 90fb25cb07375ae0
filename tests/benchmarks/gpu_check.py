"""``make gpu-check``: is an accelerator right, and how fast? Two minutes, before it is given real work.

Right: forward, backward, greedy text and drafts are the CPU's in float32; documents of a packed row do not see each
other, by SDPA and by FlexAttention; EVA's kernels give what the full mask gives. Fast: a model of 100M parameters in
bfloat16, as its documents lie in the rows and as it is compiled or not.

Each group runs in a process of its own, and each step is written into the JSON as it ends: a step that fails, or takes
the device down with it, loses no other. Without an accelerator the CPU is held against itself; ``--toy`` does all of it
in seconds.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.eva_attention import (
    EvaSpec,
    KeysValues,
    Landmarks,
    find_documents,
    flex_block_mask,
    flex_windowed_attention,
    summarize,
    windowed_attention,
)
from proxybyte.flops import training_flops
from proxybyte.folders import write_json
from proxybyte.hub_configs import load_preset
from proxybyte.training.run.distributed import decoder_blocks

GROUP_SECONDS = 240.0
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12, "RTX 4090": 165e12}
"""Dense bfloat16 FLOPs a second, by what a device's name holds (NVIDIA's data sheets)."""
NEAR = 2e-4
"""Largest difference of float32 results, as a share of the largest value."""
TIE = 1e-3
"""Logits of two symbols so near that rounding chooses between them."""
FAILED = "failed"


@dataclass(frozen=True)
class Place:
    """Where to check.

    Attributes:
        device: an accelerator, or the CPU.
        toy: whether sizes are those of a test.
    """

    device: torch.device
    toy: bool

    @property
    def name(self) -> str:
        """Of the device."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def peak(self) -> float | None:
        """Its dense bfloat16 FLOPs a second, where they are known."""
        return next((flops for part, flops in PEAKS.items() if part in self.name), None)


@dataclass(frozen=True)
class Measured:
    """What a step found.

    Attributes:
        value: its figure.
        unit: of the figure.
        right: whether it is as it should be.
        more: further figures by name.
    """

    value: float
    unit: str
    right: bool
    more: dict[str, Any] = field(default_factory=dict)


Step = Callable[[Place], Measured]


def _near(found: torch.Tensor, wanted: torch.Tensor) -> Measured:
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    off = float((found - wanted).abs().max() / wanted.abs().max())
    return Measured(off, f"largest difference, as a share of the largest value (at most {NEAR:g})", off <= NEAR)


def _model(device: torch.device, attention: str = "sdpa") -> ProxyByteForCausalLM:
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    backbone = {"model_type": "llama", "num_key_value_heads": 2, "max_position_embeddings": 1024, **shape}
    config = ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=200, num_raw_pred_heads=3)
    torch.manual_seed(0)
    model = ProxyByteForCausalLM._from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.1)
    return model.to(device).eval()


LENGTHS = (37, 1, 90, 128)


def _row() -> dict[str, torch.Tensor]:
    """One row of several documents."""
    symbols = torch.randint(64, 520, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    labels = symbols.masked_fill(positions == 0, -100)
    return {"input_ids": symbols, "position_ids": positions, "labels": labels}


def _pass(device: torch.device, attention: str = "sdpa") -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and the gradient of all weights, in one tensor."""
    model, row = _model(device, attention), {name: part.to(device) for name, part in _row().items()}
    output = model(**row, use_cache=False, return_logits=True)
    output.loss.backward()
    return output.logits.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


def forward(place: Place) -> Measured:
    """Logits of a packed row."""
    return _near(_pass(place.device)[0], _pass(torch.device("cpu"))[0])


def backward(place: Place) -> Measured:
    """Gradient of all weights, heads among them."""
    return _near(_pass(place.device)[1], _pass(torch.device("cpu"))[1])


def _written(device: torch.device, **drafting: Any) -> torch.Tensor:
    prompt = torch.randint(64, 320, (1, 24), generator=torch.Generator().manual_seed(2))
    prompt = torch.cat([torch.tensor([[12]]), prompt], dim=1)
    model = _model(device)
    model.generation_config.eos_token_id = None
    found = model.generate(prompt.to(device), max_new_tokens=64, do_sample=False, **drafting)
    return found[0].cpu()


def _same_text(found: torch.Tensor, wanted: torch.Tensor) -> Measured:
    """Equal, or parted where two symbols are as good as each other."""
    length = min(len(found), len(wanted))
    differs = (found[:length] != wanted[:length]).nonzero()
    alike = int(differs[0]) if len(differs) else length
    right = len(found) == len(wanted) == alike
    if not right and alike < length:
        with torch.no_grad():
            logits = _model(torch.device("cpu"))(wanted[None, :alike]).logits[0, -1]
        right = float(abs(logits[found[alike]] - logits[wanted[alike]])) < TIE
    return Measured(float(alike), f"symbols alike, of {len(wanted)}", right)


def generation(place: Place) -> Measured:
    """Greedy text."""
    return _same_text(_written(place.device), _written(torch.device("cpu")))


def drafts(place: Place) -> Measured:
    """Greedy text with drafts of heads and of repeats, against one symbol a step on a CPU."""
    wanted = _written(torch.device("cpu"))
    both = [_same_text(_written(place.device, **how), wanted) for how in ({"draft": "heads"}, {"draft_repeats": True})]
    return min(both, key=lambda found: (found.right, found.value))


def _packed(place: Place, attention: str) -> Measured:
    """Logits of documents packed into a row against each document alone."""
    model, row = _model(place.device, attention), _row()
    symbols, positions = (row[name].to(place.device) for name in ("input_ids", "position_ids"))
    alone = _model(place.device)
    with torch.no_grad():
        wanted = torch.cat([alone(piece).logits for piece in symbols.split(LENGTHS, dim=1)], dim=1)
        return _near(model(symbols, position_ids=positions, use_cache=False).logits, wanted)


def packed_sdpa(place: Place) -> Measured:
    """Isolation by SDPA."""
    return _packed(place, "sdpa")


def packed_flex(place: Place) -> Measured:
    """Isolation by FlexAttention."""
    return _packed(place, "flex_attention")


def packed_flex_gradient(place: Place) -> Measured:
    """FlexAttention's gradient against SDPA's, which a CPU does not have."""
    attention = "sdpa" if place.device.type == "cpu" else "flex_attention"
    return _near(_pass(place.device, attention)[1], _pass(torch.device("cpu"))[1])


SPEC = EvaSpec(window=64, chunk=8, rollback=8)


def _eva_inputs(device: torch.device) -> tuple[list[torch.Tensor], Landmarks, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_(torch.is_grad_enabled())

    qkv = [draw(1, 2, sum(LENGTHS), 32) for _ in range(3)]
    return qkv, Landmarks(draw(2, 32), draw(2, 32)), _row()["position_ids"].to(device)


def _eva_plain() -> torch.Tensor:
    """The equations of ``proxybyte.eva_attention``, by the full mask, on the CPU."""
    (query, key, value), landmarks, positions = _eva_inputs(torch.device("cpu"))
    length, scale = query.shape[2], query.shape[3] ** -0.5
    document = (positions[0] == 0).cumsum(0)
    column = torch.arange(length)
    keys, values, sees = [], [], []
    for first in range(0, length // SPEC.chunk * SPEC.chunk, SPEC.chunk):
        members = column[first : first + SPEC.chunk]
        members = members[document[members] == document[members[-1]]]
        k, v = key[:, :, members], value[:, :, members]
        by_mu = torch.einsum("hd,bhjd->bhj", landmarks.mu, k).softmax(-1)
        by_phi = (scale * (torch.einsum("hd,bhjd->bhj", landmarks.phi, k) - k.square().sum(-1) / 2)).softmax(-1)
        keys.append(torch.einsum("bhj,bhjd->bhd", by_mu, k))
        values.append(torch.einsum("bhj,bhjd->bhd", by_phi, v))
        sees.append((first // SPEC.window < column // SPEC.window) & (document[members[-1]] == document))
    near = (column[:, None] // SPEC.window == column // SPEC.window) & (document[:, None] == document)
    mask = torch.cat([torch.stack(sees, 1), near & (column[:, None] >= column)], dim=1)
    scores = query @ torch.cat([torch.stack(keys, 2), key], 2).transpose(2, 3) * scale
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ torch.cat([torch.stack(values, 2), value], 2)


def _eva_fast(place: Place, flex: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    qkv, landmarks, positions = _eva_inputs(place.device)
    documents, length = find_documents(positions), qkv[0].shape[2]
    assert documents is not None
    part = slice(0, SPEC.chunks_before(length - 1) * SPEC.chunk)
    held = KeysValues(qkv[1][:, :, part], qkv[2][:, :, part])
    summaries = summarize(held, landmarks, SPEC.chunk, documents.starts[:, part])
    inputs = [*qkv, landmarks.mu, landmarks.phi]
    if flex:
        mask = flex_block_mask(length, SPEC, documents.starts, place.device)
        return flex_windowed_attention(tuple(qkv), summaries, mask), inputs
    return windowed_attention(tuple(qkv), summaries, SPEC, documents), inputs


def eva_blocks(place: Place) -> Measured:
    """EVA's kernel by blocks against the full mask."""
    return _near(_eva_fast(place, flex=False)[0], _eva_plain())


def eva_flex(place: Place) -> Measured:
    """EVA by FlexAttention against the full mask."""
    with torch.no_grad():
        return _near(_eva_fast(place, flex=True)[0], _eva_plain())


def eva_gradient(place: Place) -> Measured:
    """Gradients of all inputs, by FlexAttention on an accelerator, against the CPU's blocks."""
    gradients = []
    for where, flex in ((place, place.device.type != "cpu"), (Place(torch.device("cpu"), place.toy), False)):
        found, inputs = _eva_fast(where, flex)
        weights = torch.linspace(-1, 1, found.numel()).view(found.shape).to(found.device)
        gradients.append(torch.cat([g.flatten().cpu() for g in torch.autograd.grad((found * weights).sum(), inputs)]))
    return _near(*gradients)


@dataclass(frozen=True)
class Workload:
    """What is trained.

    Attributes:
        preset: a size of ``hub_configs/presets``.
        attention: its implementation.
        compiled: whether decoder blocks are.
        documents: in each row; 1 leaves SDPA its causal kernel.
    """

    preset: str
    attention: str
    compiled: bool
    documents: int


def _speed(place: Place, work: Workload) -> Measured:
    """Steps of forward, backward and AdamW in bfloat16."""
    rows, length, codes = (2, 64, 40) if place.toy else (8, 2048, 16_384)
    preset = load_preset(work.preset.replace("100m", "tiny") if place.toy else work.preset)
    backbone = {**preset.backbone_config, **({"num_hidden_layers": 1} if place.toy else {})}
    config = ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=codes)
    attention = "sdpa" if place.device.type == "cpu" else work.attention
    model = ProxyByteForCausalLM._from_config(config, attn_implementation=attention).to(place.device).train()
    if work.compiled:
        for block in decoder_blocks(model):
            block.compile(backend="aot_eager" if place.toy else "inductor")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(64, 320 + codes, (rows, length), device=place.device)
    positions = torch.arange(length, device=place.device) % (length // work.documents)
    batch = {"input_ids": ids, "position_ids": positions.expand(rows, -1), "labels": ids, "use_cache": False}

    def step() -> float:
        begun = time.perf_counter()
        with torch.autocast(place.device.type, torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if place.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - begun

    first = step()
    least, seconds = (1, 0.0) if place.toy else (4, 5.0)
    step()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        times.append(step())
    a_step = sorted(times)[len(times) // 2]
    flops = rows * training_flops(config, length, length // work.documents) / a_step
    memory = None if place.device.type == "cpu" else torch.accelerator.max_memory_allocated() / 1e9
    more = {
        "parameters": model.num_parameters(),
        "symbols_per_s": rows * length / a_step,
        "flops_per_s": flops,
        "peak_flops_per_s": place.peak,
        "peak_memory_gb": memory,
        "step_s": a_step,
        "first_step_s": first,
        "loss_is_finite": bool(torch.isfinite(model(**batch).loss.detach())),
    }
    unit = (
        "of the device's dense bfloat16 peak (MFU)" if place.peak else "FLOPs a second: the device's peak is not known"
    )
    return Measured(flops / (place.peak or 1.0), unit, more["loss_is_finite"], more)


def one_document_a_row(place: Place) -> Measured:
    """SDPA's causal kernel, nothing compiled."""
    return _speed(place, Workload("100m-llama", "sdpa", False, 1))


def one_document_a_row_compiled(place: Place) -> Measured:
    """The same, compiled."""
    return _speed(place, Workload("100m-llama", "sdpa", True, 1))


def packed_rows(place: Place) -> Measured:
    """Four documents a row, SDPA under a mask."""
    return _speed(place, Workload("100m-llama", "sdpa", False, 4))


def packed_rows_flex(place: Place) -> Measured:
    """Four documents a row, FlexAttention."""
    return _speed(place, Workload("100m-llama", "flex_attention", False, 4))


def packed_rows_flex_compiled(place: Place) -> Measured:
    """The same, compiled."""
    return _speed(place, Workload("100m-llama", "flex_attention", True, 4))


def eva(place: Place) -> Measured:
    """EVA, four documents a row."""
    return _speed(place, Workload("100m-eva", "flex_attention", False, 4))


GROUPS: dict[str, tuple[Step, ...]] = {
    "model": (forward, backward, generation, drafts),
    "packed": (packed_sdpa, packed_flex, packed_flex_gradient),
    "eva": (eva_blocks, eva_flex, eva_gradient),
    "speed": (one_document_a_row, packed_rows, packed_rows_flex),
    "speed_compiled": (one_document_a_row_compiled, packed_rows_flex_compiled),
    "speed_eva": (eva,),
}


def keep(out: Path, step: str, entry: dict[str, Any]) -> None:
    """Put a step's entry into the file; all others stay."""
    steps = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {**steps, step: entry})


def check_group(group: str, place: Place, out: Path) -> bool:
    """Run the steps of a group in this process; whether all are right."""
    torch.set_float32_matmul_precision("highest")
    right = True
    # A toy is to find typing errors, not to wait for a compiler.
    with torch.compiler.set_stance("force_eager" if place.toy and group in ("packed", "eva") else "default"):
        for step in GROUPS[group]:
            begun, about = time.perf_counter(), {"device": place.name, "torch": torch.__version__}
            try:
                found = step(place)
            except Exception as error:
                traceback.print_exc()
                entry: dict[str, Any] = {"right": False, "said": f"{type(error).__name__}: {error}"}
                value = FAILED
            else:
                entry = {"right": found.right, "value": found.value, "unit": found.unit, **found.more}
                value = f"{found.value:.4g} {found.unit}"
            keep(out, step.__name__, {**entry, **about, "seconds": round(time.perf_counter() - begun, 2)})
            print(f"{step.__name__:<28} {'' if entry['right'] else 'WRONG: '}{value}", flush=True)
            right = right and entry["right"]
    return right


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything; 1 if a step is wrong or missing."""
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__.partition("\n")[0])
    parser.add_argument("groups", nargs="*", help=f"which to check (default: all): {', '.join(GROUPS)}")
    parser.add_argument("--toy", action="store_true", help="sizes of a test, in seconds on a CPU")
    parser.add_argument("--cpu", action="store_true", help="the CPU, though there is an accelerator")
    parser.add_argument("--out", type=Path, default=Path("build/gpu_check.json"), help="JSON (default: %(default)s)")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    unknown = [name for name in args.groups if name not in GROUPS]
    if unknown:
        parser.error(f"no group {unknown[0]}: the groups are {', '.join(GROUPS)}")
    found = None if args.cpu else torch.accelerator.current_accelerator(check_available=True)
    if args.only:
        return 0 if check_group(args.only, Place(found or torch.device("cpu"), args.toy), args.out) else 1
    wanted = args.groups or list(GROUPS)
    for step in (step for name in wanted for step in GROUPS[name]):
        keep(args.out, step.__name__, {"right": False, "said": "did not come to its end"})
    wrong = [name for name in wanted if not _in_a_process(name, args)]
    print(f"written to {args.out}" + (f"; wrong: {', '.join(wrong)}" if wrong else ""))
    return 1 if wrong else 0


def _in_a_process(group: str, args: argparse.Namespace) -> bool:
    words = [sys.executable, __file__, "--only", group, "--out", str(args.out)]
    words += ["--toy"] * args.toy + ["--cpu"] * args.cpu
    try:
        return subprocess.run(words, check=False, timeout=GROUP_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


if __name__ == "__main__":
    sys.exit(main())
