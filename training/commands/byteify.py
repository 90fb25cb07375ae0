"""``proxybyte byteify``: turn a tokenizer model into one that reads raw bytes."""

import argparse
import shlex

from proxybyte import numbers
from proxybyte.cli import Command

EXAMPLES = """\
  proxybyte byteify HuggingFaceTB/SmolLM2-135M --out smol
  proxybyte byteify model.Q4_1.gguf --out smol --rows begins
  proxybyte byteify folder/ --out big --dtype bfloat16
then
  proxybyte prepare corpus --compressor smol/compressor --out prepared
  proxybyte train --config byteify-lora model.checkpoint=smol data=prepared output=runs/smol"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    schemes = ("token", "begins", "spells", "blend", "mean", "random")
    parser.add_argument(
        "base", type=numbers.path_or_name, metavar="BASE", help="a Hub name, a model folder, or a GGUF file"
    )
    parser.add_argument("--out", type=numbers.path, required=True, metavar="FOLDER", help="model folder to write")
    parser.add_argument("--rows", choices=schemes, default="token", help="how the bytes' rows start: the token that "
                        "is the byte, the mean of tokens that begin with it or spell it, half and half of the first "
                        "two, the mean of all, or noise (default: %(default)s)")  # fmt: skip
    parser.add_argument("--head-rows", choices=schemes, help="the same for a head that is not tied (default: --rows)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights (default: as the "
                        "base was saved; float32 for GGUF)")  # fmt: skip
    parser.add_argument("--seed", type=numbers.seed, default=0, help="of --rows random (default: %(default)s)")


def _run(args: argparse.Namespace) -> None:
    from proxybyte.training.byteify import find_base

    find_base(args.base)  # before torch is waited for
    import torch

    from proxybyte.training.byteify import ByteifyOptions, RowScheme, byteify

    options = ByteifyOptions(
        rows=RowScheme(args.rows),
        head_rows=RowScheme(args.head_rows) if args.head_rows else None,
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        seed=args.seed,
    )
    report = byteify(args.base, args.out, options)
    for name, value in report.items():
        if name != "specials":
            shown = f"{value:,}" if type(value) is int else value
            print(f"{name.replace('_', ' '):<26} {shown}")
    print("specials")
    for ours, theirs in report["specials"].items():
        print(f"  {ours:<24} starts as {theirs}")
    print(f"written to {args.out}")
    compressor = shlex.quote(str(args.out / "compressor"))
    print(f"next: proxybyte prepare CORPUS --compressor {compressor} --out FOLDER, then train (--help shows how)")


COMMAND = Command("turn a tokenizer model into one that reads raw bytes", EXAMPLES, _add_arguments, _run)
