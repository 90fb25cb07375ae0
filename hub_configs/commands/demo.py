"""``proxybyte demo``: a page to try a model on, served from this machine or written as a Space."""

import argparse
import shlex
from pathlib import Path

from proxybyte import numbers
from proxybyte.artefacts import BOX, MODEL_HELP, find_model
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError

EXAMPLES = """  proxybyte demo runs/quickstart/run
  proxybyte demo my-model --compressor bits-8 --compressor runs/bpe --port 8000
  proxybyte demo runs/quickstart/run --export-space my-space"""
DEFAULT_COMPRESSORS = ("gzip", "bits-16")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=numbers.path_or_name, nargs="?", default=BOX, metavar="MODEL", help=f"{MODEL_HELP} (default)"
    )
    parser.add_argument(
        "--compressor",
        action="append",
        type=numbers.path_or_name,
        metavar="NAME",
        help="show texts through this one too, a short name or a folder; may be given again "
        f"(default: {' and '.join(DEFAULT_COMPRESSORS)}, beside the model's own)",
    )
    parser.add_argument("--host", type=numbers.name, metavar="ADDRESS", help="listen there (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=numbers.whole(1, 65535), metavar="N", help="default: the first free one from 7860 on"
    )
    parser.add_argument(
        "--export-space", type=numbers.path, metavar="FOLDER", help="write a folder to upload as a Space; serve nothing"
    )
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")


def _run(args: argparse.Namespace) -> int:
    find_model(args.model)  # before torch is waited for
    names = tuple(args.compressor or DEFAULT_COMPRESSORS)
    if args.export_space is not None:
        from proxybyte.hub_configs.demo.space import export_space

        export_space(args.model, args.export_space, names, force=args.force)
        size = sum(path.stat().st_size for path in args.export_space.rglob("*") if path.is_file())
        print(f"{args.export_space}: {size / 1e6:.1f} MB, a Space that runs without a GPU")
        print(f"next: hf upload USER/SPACE {shlex.quote(str(args.export_space))} --repo-type space")
        return 0
    if args.force:
        raise ProxyByteError("--force goes with --export-space: leave it out, or name the folder to replace")
    from proxybyte.hub_configs.demo.app import build_app, import_gradio, serve
    from proxybyte.hub_configs.demo.model import DemoModel

    import_gradio()  # before the weights are read
    model = DemoModel.load(args.model, names)
    serve(build_app(model, Path(args.model).name), args.host, args.port)
    return 0


COMMAND = Command("try a model in a browser: what it writes and what each byte costs", EXAMPLES, _add_arguments, _run)
