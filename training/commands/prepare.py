"""``proxybyte prepare``: encode a corpus into the two-view dataset that training reads."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.training.remote import is_remote, place

if TYPE_CHECKING:
    from proxybyte.training.prepare import PreparedManifest

EXAMPLES = """\
  proxybyte prepare corpus --compressor runs/bpe16k --out prepared
  proxybyte prepare corpus --compressor gzip --out prepared-gzip --workers 2 --verify sample
  proxybyte prepare corpus --compressor runs/bpe16k --out prepared --shard 5/64
  proxybyte prepare corpus --compressor runs/bpe16k --out prepared --merge
  torchrun --nproc-per-node 8 -m proxybyte.cli prepare corpus --compressor runs/m1 --out prepared-neural

An interrupted run goes on where it stopped. A finished output is left alone while corpus, compressor and options are
the same, and replaced when they are not. What the compressor cannot code is shown in its raw view alone, and counted
by reason. Any number of shards, at once or not, on any machines that see the same folders, and a --merge write what
one process writes; a shard that was killed is given again and redoes only what it had not finished. Under a launcher
each process is a shard, on its own device, and the last one merges."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``proxybyte prepare``."""
    parser.add_argument("corpus", type=place, metavar="CORPUS", help="a folder that 'proxybyte corpus' wrote")
    parser.add_argument(
        "--compressor",
        required=True,
        type=numbers.path_or_name,
        metavar="NAME_OR_FOLDER",
        help="a compressor's name, or its saved folder",
    )
    parser.add_argument("--out", type=place, required=True, metavar="FOLDER")
    parser.add_argument(
        "--workers",
        type=numbers.processes,
        default=0,
        metavar="N",
        help="processes (default: one a core, where the text is worth it)",
    )
    parser.add_argument(
        "--verify",
        choices=["all", "sample", "none"],
        default="all",
        help="decode each document, or one in 16, and compare; one that differs has no code (default: %(default)s)",
    )
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--shard", type=numbers.part, metavar="I/N", help="encode the I-th of N parts alone, counted from 0"
    )
    parts.add_argument("--merge", action="store_true", help="put together what shards encoded; refuse if some is not")


def run(args: argparse.Namespace) -> None:
    """Prepare, and print the totals."""
    from proxybyte.training import prepare

    options = prepare.PrepareOptions(args.corpus, args.compressor, args.out, args.workers, prepare.Verify(args.verify))
    if is_remote(args.out):
        if args.shard is not None:
            print(prepare.share_beyond(options, prepare.Share(*args.shard)))
        else:
            _tell(prepare.prepare_beyond(options, merge=args.merge), args.out)
    elif args.shard is not None:
        print(prepare.prepare_share(options, prepare.Share(*args.shard)))
    elif args.merge:
        _tell(prepare.merge_shares(options), args.out)
    elif (share := prepare.launched_share(options)) is not None:
        print(prepare.prepare_share(options, share))
        if (merged := prepare.merge_as_last(options)) is not None:
            _tell(merged, args.out)
    else:
        _tell(prepare.prepare_corpus(options), args.out)


def _tell(manifest: "PreparedManifest", output: Path) -> None:
    print(manifest)
    print(f"written to {output}")
    data = shlex.quote(output.name if is_remote(output) else str(output))  # training maps files of this machine
    print(f"next: proxybyte train --config quickstart data={data} output=RUN --dry-run")


COMMAND = Command(
    summary="encode a corpus with a compressor into the dataset that training reads",
    examples=EXAMPLES,
    add_arguments=add_arguments,
    run=run,
)
