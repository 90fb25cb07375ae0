"""``proxybyte eval lm``: lm-eval with our model class and tasks."""

import argparse
import shlex
import sys

from proxybyte.cli import Command

EXAMPLES = """\
  proxybyte eval lm --model_args pretrained=exported/native --tasks proxybyte --batch_size 8
  proxybyte eval lm --model_args pretrained=exported/full,dtype=bfloat16 --tasks proxybyte_prose --output_path out/
  proxybyte eval lm ls tasks
  proxybyte eval lm run --help        # lm-eval's own options"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="lm-eval's own arguments; --model is ours and --include_path our tasks unless given",
    )
    # argparse leaves a remainder that begins with an option to the caller; with no option prefix, nothing does.
    parser.prefix_chars = "\0"
    parser.set_defaults(print_help=parser.print_help)


def _run(args: argparse.Namespace) -> int:
    if not args.arguments or args.arguments[0] in ("-h", "--help"):
        args.print_help()
        return 0
    from proxybyte.eval.lm_eval import main

    code = main(args.arguments)
    if code == 0 and (made := _value(args.arguments, "--output_path")):
        parts = (part.partition("=") for part in _value(args.arguments, "--model_args").split(","))
        model = {key: value for key, _, value in parts}
        print(f"results are in {made}", file=sys.stderr)
        named = shlex.quote(model.get("pretrained", "MODEL"))
        print(f"next: proxybyte eval bpb {named} --data TEXT", file=sys.stderr)
    return code


def _value(words: list[str], option: str) -> str:
    """What was given for ``option`` of lm-eval, joined by ``=`` or behind it; empty if it was not."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.partition("=")[0] == option:
            return word.partition("=")[2] or following
    return ""


COMMAND = Command(
    summary="run lm-eval on a byte model",
    examples=EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
