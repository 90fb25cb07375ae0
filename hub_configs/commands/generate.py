"""``proxybyte generate``: raw bytes in, raw bytes out."""

import argparse
import sys

from proxybyte import numbers
from proxybyte.artefacts import BOX, MODEL_HELP, find_model
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError

EXAMPLES = """\
  proxybyte generate --prompt "class BertConfig("        # by the small model that comes with the package
  proxybyte generate my-model --prompt "def fibonacci(n):" --max-new-bytes 200
  proxybyte generate run --prompt-file start.py --temperature 0.8 --seed 1 --utf8
  proxybyte generate my-model --prompt-file start.py --draft heads --draft-repeats --report
  head -c 500 some.py | proxybyte generate my-model > continued.py"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=numbers.path_or_name,
        nargs="?",
        default=BOX,
        metavar="MODEL",
        help=f"{MODEL_HELP} (default)",
    )
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", help="text to continue (default: the bytes on standard input)")
    prompt.add_argument("--prompt-file", type=numbers.path, help="file whose bytes to continue")
    parser.add_argument(
        "--max-new-bytes", type=numbers.count, metavar="N", help="default: 200, or what the context leaves"
    )
    parser.add_argument(
        "--temperature", type=numbers.temperature, default=0.0, help="0 (default) takes the likeliest byte"
    )
    parser.add_argument("--seed", type=numbers.seed, default=0, help="for temperatures above 0 (default: %(default)s)")
    parser.add_argument("--utf8", action="store_true", help="let nothing but valid UTF-8 come out")
    parser.add_argument(
        "--draft",
        choices=("heads", "compressed"),
        help="write several bytes a step, drafted by its heads or in its compressed view; the output is the same",
    )
    parser.add_argument(
        "--draft-repeats", action="store_true", help="draft what the text says again, with or without --draft"
    )
    parser.add_argument(
        "--draft-bytes", type=numbers.count, metavar="N", help="draft at most so many (default: what it can)"
    )
    parser.add_argument("--report", action="store_true", help="say on standard error how well the drafts were")
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: an accelerator if there is one)")


def _run(args: argparse.Namespace) -> int:
    find_model(args.model)  # before a prompt, and torch, is waited for
    prompt = _prompt(args)
    from proxybyte.hub_configs.generate import GenerateOptions, generate_bytes

    options = GenerateOptions(
        max_new_bytes=args.max_new_bytes,
        temperature=args.temperature,
        seed=args.seed,
        utf8=args.utf8,
        device=args.device,
        draft=args.draft,
        draft_repeats=args.draft_repeats,
        draft_bytes=args.draft_bytes,
    )
    drafts = generate_bytes(args.model, prompt, options, _write)
    if drafts is not None and args.report:
        shares = " ".join(f"{share:.0%}" for share in drafts.acceptance)
        print(
            f"\n{drafts.symbols} symbols in {drafts.forwards} forward passes and {drafts.draft_forwards} that drafted, "
            f"{drafts.repeated} of them copied from the text; drafts right up to each place: {shares or 'none'}",
            file=sys.stderr,
        )
    return 0


def _write(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _prompt(args: argparse.Namespace) -> bytes:
    if args.prompt is not None:
        return args.prompt.encode(errors="surrogateescape")
    if args.prompt_file is None:
        if sys.stdin.isatty():
            print("reading the prompt from standard input; Ctrl-D ends it", file=sys.stderr)
        return sys.stdin.buffer.read()
    try:
        return args.prompt_file.read_bytes()
    except OSError as error:
        raise ProxyByteError(f"--prompt-file {args.prompt_file} cannot be read: {error.strerror}") from error


COMMAND = Command("continue a prompt, byte by byte, on standard output", EXAMPLES, _add_arguments, _run)
