"""``proxybyte export``: a trained model as a folder for the Hub."""

import argparse
import shlex

from proxybyte import numbers
from proxybyte.artefacts import MODEL_HELP
from proxybyte.cli import Command

EXAMPLES = """  proxybyte export run --format native --license apache-2.0 --out my-model
  proxybyte export run/checkpoints/step-00001000/model --format full --out my-model --force
  proxybyte export my-model --format gguf --gguf-type q8_0 --out my-gguf"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=numbers.path_or_name, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--format", choices=("native", "full", "gguf"), required=True, help="native: a plain "
                        "checkpoint of 320 symbols, no remote code; full: our class, code files and compressor; "
                        "gguf: one file for llama.cpp")  # fmt: skip
    parser.add_argument("--out", type=numbers.path, required=True, help="folder to write")
    parser.add_argument("--chat", action="store_true", help="for a model trained on chats: chat template, and "
                        "<|eot_id|> ends generation")  # fmt: skip
    parser.add_argument("--gguf-type", choices=("f32", "f16", "q8_0"), default="f16", help="how a GGUF file stores the "
                        "matrices (default: %(default)s)")  # fmt: skip
    parser.add_argument("--license", type=numbers.license_id, metavar="ID", help="of the weights, for the card, as the "
                        "Hub spells it, such as apache-2.0")  # fmt: skip
    parser.add_argument("--max-shard-mb", type=numbers.megabytes, metavar="MB", help="largest file of weights "
                        "(default: that of Transformers)")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")


def _run(args: argparse.Namespace) -> int:
    from proxybyte.artefacts import COMPRESSOR_FOLDER, find_model

    find_model(args.source)  # before torch is waited for
    from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
    from proxybyte.hub_configs.gguf_file import GgufType

    options = ExportOptions(
        ExportFormat(args.format),
        args.chat,
        args.force,
        GgufType(args.gguf_type),
        args.license,
        None if args.max_shard_mb is None else numbers.bytes_of(args.max_shard_mb),
    )
    export_model(args.source, args.out, options)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    if args.format == "gguf":
        print(f"{args.out}: {size / 1e6:.1f} MB, one file for llama.cpp")
        print(f"next: llama-server -m {shlex.quote(str(next(args.out.glob('*.gguf'))))}")
        return 0
    trust = ", trust_remote_code=True" if args.format == "full" else ""
    print(f"{args.out}: {size / 1e6:.1f} MB, checked against {args.source}; load it with")
    print(f"  AutoModelForCausalLM.from_pretrained({str(args.out)!r}{trust})")
    if args.format == "full" and not (args.out / COMPRESSOR_FOLDER).exists():
        print("no compressor lies beside the model, so the folder carries none")
    print(f"next: proxybyte generate {shlex.quote(str(args.out))} --prompt TEXT --utf8")
    return 0


COMMAND = Command("write a trained model as a folder for the Hub", EXAMPLES, _add_arguments, _run)
