"""The command ``proxybyte``: finds its sub-commands by entry point, so that this room imports no other.

A sub-command is an object :class:`Command` under the entry-point group ``proxybyte.commands``. Its name may hold
one dot: ``eval.bpb`` is typed ``proxybyte eval bpb``. Modules that hold commands import what is slow (torch,
transformers, datasets) inside ``run``, so that ``--help`` answers at once.
"""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from typing import Any, NoReturn

from .checksums import SKIP_FLAG, SKIP_VARIABLE, SUMS
from .errors import ProxyByteError, WrongOption
from .faults import disk_full_sentence, unexpected_sentence
from .numbers import NotTaken, language_code, license_id
from .privacy import keep_logs_discreet, without_secrets

GROUP = "proxybyte.commands"
DEBUG_FLAG = "--debug"
WAIT_POLICY = "OMP_WAIT_POLICY"
_SAY_HOW_THREADS_WAIT = (WAIT_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


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


def add_text_facts(group: argparse._ArgumentGroup, license_flag: str) -> None:
    """Declare what only a person can say of a text: its licences and natural languages."""
    several: dict[str, Any] = {"action": "append", "default": []}
    group.add_argument(
        license_flag,
        type=license_id,
        metavar="ID",
        help="a licence of the text as the Hub spells it, such as cc-by-4.0; may be given several times",
        **several,
    )
    group.add_argument(
        "--language",
        type=language_code,
        metavar="CODE",
        help="a natural language of the text, such as en; may be given several times",
        **several,
    )


class _PrintCompletion(argparse.Action):
    """``--print-completion bash``: the script of ``shtab``, imported for this alone."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        """Print it for the shell that is named, and stop."""
        import shtab

        print(shtab.complete(parser, shell=given[1]))
        parser.exit()


def load_commands() -> dict[str, Command]:
    """All installed sub-commands by dotted name, in alphabetical order."""
    return {entry.name: entry.load() for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong with a value as any other bad input is said: in one sentence.

    Attributes:
        details: what ``--help`` shows at its end, made when it is asked for.
    """

    details: Callable[[], str] | None = None

    def format_help(self) -> str:
        """The help, with its details."""
        return super().format_help() + (f"\n{self.details()}" if self.details else "")

    def error(self, message: str) -> NoReturn:
        """End with the usage and exit code 2, or with the sentence of a type in :mod:`.numbers`."""
        wrong = sys.exc_info()[1]  # argparse calls this while it handles its own error
        if isinstance(wrong, argparse.ArgumentError) and isinstance(wrong.__context__, NotTaken):
            raise ProxyByteError(f"{wrong.argument_name} {wrong.message}")
        super().error(without_secrets(message))


def build_parser(commands: dict[str, Command]) -> argparse.ArgumentParser:
    """Parser with one sub-parser a command; a dotted name becomes a group with sub-commands of its own."""
    parser = Parser(
        prog="proxybyte",
        description="Train byte-level language models on mixed views of text; run them on raw bytes.",
        epilog="'proxybyte COMMAND --help' shows each command's options and examples. Every command takes "
        f"{DEBUG_FLAG} (show the traceback of a fault) and {SKIP_FLAG} (load data and weights without comparing them "
        f"with {SUMS}).",
    )
    parser.add_argument("--version", action="version", version=f"proxybyte {version('proxybyte')}")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=["bash", "zsh", "tcsh"],
        help="print a script that completes commands and options in that shell, and stop",
    )
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
    """Run ``proxybyte`` and return its exit code (:func:`report_fault`)."""
    let_threads_sleep(os.environ)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keep_logs_discreet()
    for client in ("httpx", "httpx2"):  # of the Hub, which tell every request
        logging.getLogger(client).setLevel(logging.WARNING)
    words, debug = take_common_flags(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser(load_commands()).parse_args(words)
        return args.run(args) or 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
        return report_fault(error)


def let_threads_sleep(environment: MutableMapping[str, str]) -> None:
    """Let threads of OpenMP that wait for each other sleep rather than spin, unless ``environment`` says how they wait.

    Beside another process that is busy, a thread that spins takes the very core that the one it waits for needs
    (docs/training.md has the figures). The runtime reads it once, when torch is loaded; processes started later inherit
    it.
    """
    if not any(name in environment for name in _SAY_HOW_THREADS_WAIT):
        environment[WAIT_POLICY] = "passive"


def take_common_flags(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words without the flags that every command takes at any place, and whether ``--debug`` was among them."""
    end = words.index("--") if "--" in words else len(words)
    if SKIP_FLAG in words[:end]:
        os.environ[SKIP_VARIABLE] = "1"
    left = [word for word in words[:end] if word not in (DEBUG_FLAG, SKIP_FLAG)]
    return [*left, *words[end:]], DEBUG_FLAG in words[:end]


def report_fault(error: BaseException) -> int:
    """Say in one sentence on stderr what stopped a command; its exit code.

    2 for what a person can mend, 70 for what nobody expected, 130 for Ctrl-C, 0 for a reader that closed the pipe.
    """
    if isinstance(error, BrokenPipeError):
        return 0
    if isinstance(error, KeyboardInterrupt):
        sentence, code = "interrupted", 130
    elif isinstance(error, ProxyByteError):
        sentence, code = error.on_command_line() if isinstance(error, WrongOption) else str(error), 2
    elif (full := disk_full_sentence(error)) is not None:
        sentence, code = full, 2
    elif isinstance(error, OSError) and error.filename is not None:
        sentence, code = f"{error.filename}: {error.strerror}", 2
    else:
        sentence, code = unexpected_sentence(error), 70
    print(f"proxybyte: {without_secrets(sentence)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
