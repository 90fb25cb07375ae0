"""``proxybyte convert evabyte``: checkpoints in the published EvaByte layout, to our layout and back."""

import argparse
import shlex

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.checkpoint_settings import read_settings
from proxybyte.symbols import DocumentOpening

EXAMPLES = """  proxybyte convert evabyte downloads/EvaByte --out evabyte-proxy
  proxybyte convert evabyte run/model --out evabyte --back"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=numbers.path, metavar="FOLDER", help="the checkpoint's folder, in safetensors format"
    )
    parser.add_argument("--out", type=numbers.path, required=True, help="folder to write")
    parser.add_argument(
        "--opening",
        type=DocumentOpening,
        choices=list(DocumentOpening),
        help="how the documents open that it was trained on, kept in the configuration (default: <bos>, as published)",
    )
    parser.add_argument("--back", action="store_true", help="from our layout to EvaByte's")


def _run(args: argparse.Namespace) -> int:
    if args.back and args.opening is not None:
        raise ProxyByteError("--opening is of the way to our layout: leave it out with --back")
    read_settings(args.source)  # before torch is waited for
    from proxybyte.hub_configs.evabyte import from_evabyte, to_evabyte

    if args.back:
        to_evabyte(args.source, args.out)
    else:
        from_evabyte(args.source, args.out, args.opening or DocumentOpening.BOS)
    print(f"written to {args.out}")
    made = shlex.quote(str(args.out))
    back = f"next: proxybyte convert evabyte {made} --out FOLDER"
    print(back if args.back else f"next: proxybyte generate {made} --prompt TEXT --utf8")
    return 0


COMMAND = Command("convert checkpoints of the published EvaByte layout", EXAMPLES, _add_arguments, _run)
