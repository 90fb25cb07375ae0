"""``proxybyte eval noise``: bits per byte against the share of noised characters, several models beside each other."""

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxybyte import numbers
from proxybyte.artefacts import MODEL_HELP, ModelFolder, find_model
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_figure, write_json

if TYPE_CHECKING:
    from proxybyte.eval.noise import Noise, NoiseCurve, Score

EXAMPLES = """\
  proxybyte eval noise exported/native smollm2 --data prepared --limit 32 --out noise
  proxybyte eval noise runs/bytes runs/proxy runs/tokenizer --data prepared --kinds mixed homoglyph --out noise
  proxybyte eval noise exported/native --data notes.txt --shares 0 0.05 0.1 --seeds 1 --out noise

Byte models read raw bytes, others their tokens. noise/results.json has every figure, noise/noise.png the curves."""

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    from proxybyte.eval.code.options import add_device_options
    from proxybyte.eval.documents import add_document_options

    parser.add_argument(
        "folders", type=numbers.path_or_name, nargs="+", metavar="MODEL", help=f"{MODEL_HELP}; tokenizer models too"
    )
    add_document_options(parser)
    parser.add_argument("--limit", type=numbers.count, default=64, metavar="N", help="first N documents (default: 64)")
    parser.add_argument("--out", type=numbers.path, required=True, metavar="FOLDER", help="for results.json, noise.png")
    parser.add_argument(
        "--shares",
        type=numbers.real(0, 1),
        nargs="+",
        default=SHARES,
        metavar="SHARE",
        help="of characters that are struck, rising from 0 to 1 (default: 0 0.02 0.05 0.1 0.2)",
    )
    parser.add_argument(
        "--kinds",
        type=numbers.name,
        nargs="+",
        default=["mixed"],
        metavar="KIND",
        help="delete, swap, case, indent, homoglyph, or mixed: the first three, drawn anew each time (default: mixed)",
    )
    parser.add_argument(
        "--seeds", type=numbers.count, default=3, metavar="N", help="draws of the noise, from seed 0 (default: 3)"
    )
    add_device_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")


def _run(args: argparse.Namespace) -> int:
    from proxybyte.eval.documents import read_held_out
    from proxybyte.eval.noise import draw_noise, measure_noise, noise_crossing
    from proxybyte.training import source_of

    kinds, shares = _kinds(args.kinds), tuple(args.shares)
    if any(high <= low for low, high in itertools.pairwise(shares)):
        raise ProxyByteError(f"--shares must rise, not {' '.join(f'{share:g}' for share in shares)}")
    if len(set(args.folders)) < len(args.folders):
        raise ProxyByteError("one of the models is named twice: give each once")
    found = [find_model(folder) for folder in args.folders]  # before torch is waited for
    texts = read_held_out(source_of(args, args.data, args.split), args.limit).texts
    curves = []
    for folder, model in zip(args.folders, found, strict=True):
        score = _scorer(args, model)
        curves += [measure_noise(score, str(folder), texts, kind, shares, range(args.seeds)) for kind in kinds]
    first = {curve.kind: curve for curve in curves if curve.model == str(args.folders[0])}
    crossings = [
        {"kind": curve.kind.value, "models": [first[curve.kind].model, curve.model], "share": met}
        for curve in curves
        if curve is not first[curve.kind]
        for met in [noise_crossing(first[curve.kind], curve)]
    ]
    results = {"documents": len(texts), "curves": [curve.as_dict() for curve in curves], "crossings": crossings}
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "results.json", results)
    write_figure(args.out / "noise.png", draw_noise(curves), 110)
    print(json.dumps(results, indent=2) if args.json else _table(curves))
    if not args.json:
        print("\n".join(_crossing_line(one) for one in crossings))
    print(f"figures in {args.out / 'results.json'}, curves in {args.out / 'noise.png'}", file=sys.stderr)
    again = shlex.join(["proxybyte", "eval", "noise", *map(str, args.folders), "--kinds", "homoglyph", "indent"])
    print(f"next: {again} --data PATH --out FOLDER, for other noise", file=sys.stderr)
    return 0


def _kinds(names: Sequence[str]) -> "list[Noise]":
    """Kinds of noise by name.

    Raises:
        ProxyByteError: if one is none.
    """
    from proxybyte.eval.noise import Noise

    unknown = [name for name in names if name not in set(Noise)]
    if unknown:
        raise ProxyByteError(f"--kinds must be some of {', '.join(Noise)}, not {unknown[0]!r}")
    return [Noise(name) for name in dict.fromkeys(names)]


def _scorer(args: argparse.Namespace, found: ModelFolder) -> "Score":
    from proxybyte.eval.loading import load_model, text_scorer
    from proxybyte.eval.scoring import Scoring

    score = text_scorer(load_model(found, args.device, args.dtype), found, Scoring(progress=True))
    return lambda texts: score(texts).bits_per_byte


def _table(curves: "Sequence[NoiseCurve]") -> str:
    width = max(len(curve.model) for curve in curves)
    lines = [f"{'BPB of the noised text':<{width}}  {'noise':<9}  " + "  ".join(f"{s:>7.1%}" for s in curves[0].shares)]
    width = max(width, len("BPB of the noised text"))
    lines += [
        f"{curve.model:<{width}}  {curve.kind.value:<9}  " + "  ".join(f"{mean:>7.4f}" for mean in curve.means)
        for curve in curves
    ]
    return "\n".join(lines)


def _crossing_line(found: dict) -> str:
    one, other = found["models"]
    if found["share"] is None:
        return f"{found['kind']}: {one} and {other} do not cross"
    return f"{found['kind']}: {one} and {other} cross at {found['share']:.1%}"


COMMAND = Command(
    summary="bits per byte against noise in the text, models beside each other",
    examples=EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
