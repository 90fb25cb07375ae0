"""The command ``proxybyte``: finds its sub-commands by entry point, so that this room imports no other.

A sub-command is an object :class:`Command` under the entry-point group ``proxybyte.commands``. Its name may hold
one dot: ``eval.bpb`` is typed ``proxybyte eval bpb``. Modules that hold commands import what is slow (torch,
transformers, datasets) inside ``run``, so that ``--help`` answers at once.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from typing import NoReturn

from .errors import ProxyByteError
from .numbers import NotTaken

GROUP = "proxybyte.commands"


@dataclass(frozen=True)
class Command:
    """One sub-command.

    Attributes:
        summary: one line for the list of commands.
        examples: command lines to copy, shown under the options.
        add_arguments: declares the arguments on a parser.
        run: does the work; returns the exit code (``None`` counts as 0).
    """

    summary: str
    examples: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


def load_commands() -> dict[str, Command]:
    """All installed sub-commands by dotted name, in alphabetical order."""
    return {entry.name: entry.load() for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong with a value as any other bad input is said: in one sentence."""

    def error(self, message: str) -> NoReturn:
        """End with the usage and exit code 2, or with the sentence of a type in :mod:`.numbers`."""
        wrong = sys.exc_info()[1]  # argparse calls this while it handles its own error
        if isinstance(wrong, argparse.ArgumentError) and isinstance(wrong.__context__, NotTaken):
            raise ProxyByteError(f"{wrong.argument_name} {wrong.message}")
        super().error(message)


def build_parser(commands: dict[str, Command]) -> argparse.ArgumentParser:
    """Parser with one sub-parser a command; a dotted name becomes a group with sub-commands of its own."""
    parser = Parser(
        prog="proxybyte",
        description="Train byte-level language models on mixed views of text; run them on raw bytes.",
        epilog="'proxybyte COMMAND --help' shows each command's options and examples.",
    )
    parser.add_argument("--version", action="version", version=f"proxybyte {version('proxybyte')}")
    top = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    groups: dict[str, argparse._SubParsersAction] = {}
    for name, command in commands.items():
        group, _, leaf = name.rpartition(".")
        if group and group not in groups:
            members = sorted(other.rpartition(".")[2] for other in commands if other.startswith(f"{group}."))
            holder = top.add_parser(group, help=f"sub-commands: {', '.join(members)}")
            groups[group] = holder.add_subparsers(title="commands", metavar="COMMAND", required=True)
        sub = (groups[group] if group else top).add_parser(
            leaf,
            help=command.summary,
            description=command.summary,
            epilog=f"examples:\n{command.examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``proxybyte`` and return its exit code: 0, 2 for bad input (one sentence on stderr), 130 for Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        args = build_parser(load_commands()).parse_args(argv)
        return args.run(args) or 0
    except ProxyByteError as error:
        print(f"proxybyte: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        print(f"proxybyte: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("proxybyte: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
