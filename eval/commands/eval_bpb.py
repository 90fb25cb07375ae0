"""``proxybyte eval bpb``: bits per byte of a model on held-out text, beside what needs no model."""

import argparse
import json
import shlex
import sys
from typing import TYPE_CHECKING

from proxybyte import numbers
from proxybyte.artefacts import MODEL_HELP, ModelFolder, find_model
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.symbols import View

if TYPE_CHECKING:
    from proxybyte.eval.bpb import BPBResult
    from proxybyte.eval.documents import HeldOut

EXAMPLES = """\
  proxybyte eval bpb exported/full --data prepared
  proxybyte eval bpb run/checkpoints/step-00001000/model --data prepared --view compressed
  proxybyte eval bpb exported/native --data notes.txt code.py more.jsonl --json > bpb.json
  proxybyte eval bpb smollm2/ --data prepared      # a tokenizer model, per byte of text"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    from proxybyte.eval.code.options import add_device_options
    from proxybyte.eval.documents import add_document_options

    parser.add_argument(
        "folder", type=numbers.path_or_name, metavar="MODEL", help=f"{MODEL_HELP}; tokenizer models too"
    )
    add_document_options(parser)
    parser.add_argument("--limit", type=numbers.count, metavar="N", help="score the first N documents only")
    parser.add_argument(
        "--view", type=View, choices=list(View), default=View.RAW, help="of a byte model (default: raw)"
    )
    parser.add_argument(
        "--window", type=numbers.count, metavar="N", help="symbols in one window (default: the model's limit)"
    )
    parser.add_argument(
        "--stride", type=numbers.count, metavar="N", help="distance between windows (default: half a window)"
    )
    parser.add_argument("--batch-positions", type=numbers.count, metavar="N", help="positions in one forward pass")
    add_device_options(parser)
    parser.add_argument("--no-baselines", action="store_true", help="leave out gzip, xz and the uniform model")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")


def _run(args: argparse.Namespace) -> int:
    found = find_model(args.folder)  # before torch is waited for
    from proxybyte.eval.documents import coded_only, read_held_out
    from proxybyte.training import source_of

    held_out = read_held_out(source_of(args, args.data, args.split), args.limit)
    if args.view is View.COMPRESSED:
        held_out = coded_only(held_out)
        if held_out.uncoded:
            print(f"{held_out.uncoded} documents have no codes and are left out", file=sys.stderr)
    results = _score_model(args, found, held_out)
    if not args.no_baselines:
        results |= _baselines(held_out.texts)
    if args.json:
        print(json.dumps({name: result.as_dict() for name, result in results.items()}, indent=2))
    else:
        print(_table(results))
        print(f"next: proxybyte {_following(args, next(iter(results)))}", file=sys.stderr)
    return 0


def _following(args: argparse.Namespace, scored: str) -> str:
    """What a person would type next about the same model, of which ``scored`` says how it reads text."""
    model = shlex.quote(str(args.folder))
    if scored.endswith("(tokens)"):
        return f"byteify {model} --out FOLDER"
    return f"generate {model} --prompt TEXT --utf8"


def _score_model(args: argparse.Namespace, found: ModelFolder, held_out: "HeldOut") -> "dict[str, BPBResult]":
    from proxybyte.eval.bpb import compressed_bits_per_byte
    from proxybyte.eval.loading import ModelKind, load_model, model_kind, text_scorer
    from proxybyte.eval.scoring import Scoring

    scoring = Scoring(args.window, args.stride, args.batch_positions, progress=True)
    model = load_model(found, args.device, args.dtype)
    tokens = model_kind(model) is ModelKind.TOKENS
    if args.view is View.COMPRESSED:
        if tokens:
            raise ProxyByteError(f"{args.folder} has no compressed view: it is a tokenizer model")
        codes, byte_counts = held_out.codes or [], [len(text) for text in held_out.texts]
        result = compressed_bits_per_byte(model, codes, byte_counts, scoring)
    else:
        result = text_scorer(model, found, scoring)(held_out.texts)
    return {f"{args.folder} ({'tokens' if tokens else args.view})": result}


def _baselines(texts: list[bytes]) -> "dict[str, BPBResult]":
    from proxybyte.eval.baselines import gzip_bits_per_byte, uniform_bits_per_byte, xz_bits_per_byte

    return {
        "gzip -9, each document": gzip_bits_per_byte(texts),
        "xz -6e, each document": xz_bits_per_byte(texts),
        "uniform over 320 symbols": uniform_bits_per_byte(texts),
    }


def _table(results: "dict[str, BPBResult]") -> str:
    width = max(map(len, results))
    lines = [f"{'':<{width}}  {'BPB':>8}  {'documents':>10}  {'bytes':>12}  {'bytes/symbol':>12}  {'seconds':>8}"]
    for name, result in results.items():
        figures = result.as_dict()
        lines.append(
            f"{name:<{width}}  {figures['bits_per_byte']:>8.4f}  {figures['documents']:>10,}  {figures['bytes']:>12,}"
            f"  {figures['bytes_per_symbol']:>12.2f}  {figures['seconds']:>8.1f}"
        )
    return "\n".join(lines)


COMMAND = Command(
    summary="bits per byte of a model on held-out text",
    examples=EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
