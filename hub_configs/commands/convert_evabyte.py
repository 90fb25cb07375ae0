"""``proxybyte convert evabyte``: checkpoints in the published EvaByte layout, to our layout and back."""

import argparse

from proxybyte import numbers
from proxybyte.cli import Command

EXAMPLES = """  proxybyte convert evabyte downloads/EvaByte --out evabyte-proxy
  proxybyte convert evabyte run/model --out evabyte --back"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=numbers.path, metavar="FOLDER", help="the checkpoint's folder, in safetensors format"
    )
    parser.add_argument("--out", type=numbers.path, required=True, help="folder to write")
    parser.add_argument("--back", action="store_true", help="from our layout to EvaByte's")


def _run(args: argparse.Namespace) -> int:
    from proxybyte.hub_configs.evabyte import from_evabyte, to_evabyte

    (to_evabyte if args.back else from_evabyte)(args.source, args.out)
    print(f"{args.out}: written")
    return 0


COMMAND = Command("convert checkpoints of the published EvaByte layout", EXAMPLES, _add_arguments, _run)
