"""Command-line options that ``eval code`` and ``eval robustness`` share, and what they ask for."""

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxybyte import numbers
from proxybyte.artefacts import MODEL_HELP, ModelFolder, find_model
from proxybyte.errors import ProxyByteError

if TYPE_CHECKING:
    from proxybyte.eval.code.completers import Completer
    from proxybyte.eval.code.generating import SamplePlan
    from proxybyte.eval.code.judging import Bench


def add_model_options(parser: argparse.ArgumentParser, k_help: str) -> None:
    """The model and how it is sampled; ``k_help`` says what ``-k`` takes."""
    parser.add_argument(
        "folder", type=numbers.path_or_name, nargs="?", metavar="MODEL", help=f"{MODEL_HELP}; tokenizer models too"
    )
    parser.add_argument(
        "-n", "--samples-per-problem", type=numbers.whole(1, 100_000), default=1, metavar="N", help="default: 1"
    )
    parser.add_argument("-k", type=numbers.count, nargs="+", metavar="K", help=k_help)
    parser.add_argument("--temperature", type=numbers.temperature, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--top-p", type=numbers.probability, default=1.0, help="of sampling (default: 1)")
    parser.add_argument("--seed", type=numbers.seed, default=0, help="of sampling (default: 0)")
    parser.add_argument(
        "--max-new",
        type=numbers.count,
        metavar="N",
        help="longest completion in symbols (default: 1536 bytes or 512 tokens)",
    )
    parser.add_argument("--batch-size", type=numbers.count, default=8, metavar="N", help="prompts at once (default: 8)")
    parser.add_argument("--limit", type=numbers.count, metavar="N", help="the first N problems only")
    add_device_options(parser)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Where a model runs, and in which type."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: an accelerator if there is one)")
    parser.add_argument(
        "--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help="default: as saved"
    )


def add_sandbox_options(parser: argparse.ArgumentParser) -> None:
    """The user's word, and limits."""
    parser.add_argument(
        "--confirm-run-unsafe-code",
        action="store_true",
        help="yes, run what the model wrote, in the sandbox; without it nothing is run",
    )
    parser.add_argument(
        "--weak-sandbox", action="store_true", help="run it even where only resource limits can be had (dangerous)"
    )
    parser.add_argument(
        "--timeout", type=numbers.seconds, default=10.0, metavar="SECONDS", help="of a program (default: 10)"
    )
    parser.add_argument(
        "--memory", type=numbers.mebibytes, default=2048, metavar="MIB", help="of a program (default: 2048)"
    )
    parser.add_argument(
        "--workers", type=numbers.whole(1, 1024), metavar="N", help="programs at once (default: one a core)"
    )


def sandbox_bench(args: argparse.Namespace) -> "Bench":
    """Limits and wall as asked for; prints which walls stand.

    Raises:
        ProxyByteError: without ``--confirm-run-unsafe-code``, or where no sandbox can be had.
    """
    from proxybyte.eval.code.judging import Bench
    from proxybyte.eval.sandbox import Limits, capabilities, choose_wall

    wall = choose_wall(confirmed=args.confirm_run_unsafe_code, allow_weak=args.weak_sandbox)
    print(capabilities().report(), file=sys.stderr)
    limits = Limits(wall_seconds=args.timeout, cpu_seconds=max(1, round(args.timeout)), memory_bytes=args.memory << 20)
    known = None if args.output is None else args.output / "verdicts.jsonl"
    return Bench(limits, wall, args.workers, progress=True, known=known)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to complete.

    Attributes:
        completer: the model.
        fingerprint: of its files.
        folder: as it was named.
        settings: what its completions depend on, for a sample file's header.
        plan: how many samples, in which batches.
    """

    completer: "Completer"
    fingerprint: str
    folder: str
    settings: dict[str, Any]
    plan: "SamplePlan"


def check_model(args: argparse.Namespace) -> ModelFolder:
    """Refuse what can be refused of a model and its samples before a set is fetched, and torch is waited for.

    Raises:
        ProxyByteError: if one sample would be drawn several times, or there is no such model.
    """
    if args.temperature == 0 and args.samples_per_problem > 1:
        raise ProxyByteError("greedy decoding writes the same sample every time: give --temperature above 0, or -n 1")
    return find_model(args.folder)


def load_completer(args: argparse.Namespace) -> LoadedModel:
    """The model of the command line.

    Raises:
        ProxyByteError: if an option makes no sense, or the model does not load.
    """
    from proxybyte.eval.code.completers import Decoding, make_completer
    from proxybyte.eval.code.generating import SamplePlan
    from proxybyte.eval.code.samples import fingerprint_model
    from proxybyte.eval.loading import load_model

    if args.folder is None:
        raise ProxyByteError("which model? Give its folder")
    found = check_model(args)
    decoding = Decoding(args.temperature, args.top_p, args.max_new)
    greedy = decoding.temperature == 0
    model = load_model(found, args.device, args.dtype)
    completer = make_completer(model, found.model, decoding)
    settings: dict[str, Any] = {
        "temperature": args.temperature,
        "max_new": completer.max_new,
        "dtype": str(model.dtype),
    }
    if not greedy:
        # What is drawn depends on how samples fall into batches too.
        settings |= {"top_p": args.top_p, "seed": args.seed, "n": args.samples_per_problem, "batch": args.batch_size}
    plan = SamplePlan(args.samples_per_problem, args.batch_size, args.seed, progress=True)
    return LoadedModel(completer, fingerprint_model(found.model), args.folder, settings, plan)
