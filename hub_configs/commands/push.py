"""``proxybyte push``: a model to the Hub, with its card."""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxybyte import numbers
from proxybyte.artefacts import find_model
from proxybyte.cli import Command, add_text_facts
from proxybyte.errors import ProxyByteError

if TYPE_CHECKING:
    from proxybyte.hub_configs.push import PushOptions, Ready

EXAMPLES = """  proxybyte push my-model me/my-model --dry-run
  proxybyte push my-model me/my-model --license apache-2.0 --results results.json
  proxybyte push runs/quickstart me/my-model --format native --license mit --public

The token is that of 'hf auth login', or HF_TOKEN. A new repository is private. Every file is scanned for paths, names
and tokens first; nothing is sent where one is found. An interrupted push goes on when it is given again."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=numbers.path, metavar="FOLDER", help="a run, its model/, a checkpoint, or an export"
    )
    parser.add_argument(
        "repo", type=numbers.hub_name, metavar="OWNER/NAME", help="repository on the Hub, made if it is not there"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be sent and the card, and send nothing"
    )
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument("--private", action="store_true", help="a new repository is private (the default)")
    seen.add_argument("--public", action="store_true", help="a new repository is public")
    parser.add_argument("--revision", type=numbers.name, metavar="BRANCH", help="branch, made if it is not there")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request")
    parser.add_argument(
        "--commit-message",
        type=numbers.name,
        default="Upload with ProxyByte",
        metavar="TEXT",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--allow",
        type=numbers.name,
        action="append",
        default=[],
        metavar="WORD",
        help="a word that the scan finds and that is no secret; may be given several times",
    )
    made = parser.add_argument_group("of a folder that is no export yet")
    made.add_argument("--format", choices=("native", "full", "gguf"), default="full", help="(default: %(default)s)")
    made.add_argument("--chat", action="store_true", help="for a model trained on chats")
    made.add_argument("--max-shard-mb", type=numbers.megabytes, metavar="MB", help="largest file of weights")
    _add_card_arguments(parser.add_argument_group("for the card, beside what the folder knows"))


def _add_card_arguments(card: argparse._ArgumentGroup) -> None:
    several: dict[str, Any] = {"action": "append", "default": []}
    card.add_argument("--license", type=numbers.license_id, metavar="ID", help="of the weights, such as apache-2.0")
    card.add_argument("--base-model", type=numbers.hub_name, metavar="OWNER/NAME", help="the base's name on the Hub")
    card.add_argument(
        "--dataset", type=numbers.hub_name, metavar="OWNER/NAME", help="a dataset on the Hub that it read", **several
    )
    add_text_facts(card, "--data-license")
    card.add_argument(
        "--results",
        type=numbers.path,
        metavar="FILE",
        help="results.json of 'eval code', what 'eval bpb "
        "--json' printed, results of lm-eval, or YAML as .eval_results has it",
        **several,
    )


def _run(args: argparse.Namespace) -> int:
    from proxybyte.hub_configs.push import check_pushable, made_ready, push

    check_pushable(str(args.source))
    options = _options(args)  # results are read before anything is exported
    with _export(args) as export, made_ready(export, options) as ready:
        if args.dry_run:
            _print_plan(ready, options)
            return 0
        done = push(ready, options)
    print(f"{sum(ready.sizes.values()) / 1e6:.1f} MB in {len(ready.sizes)} files, compared with what lies there")
    print(done.url)
    pin = f", trust_remote_code=True, revision={done.code_commit!r}" if done.code_commit else ""
    print(f"load it with AutoModelForCausalLM.from_pretrained({options.repo!r}{pin})")
    return 0


def _options(args: argparse.Namespace) -> "PushOptions":
    from proxybyte.hub_configs.card_results import read_results
    from proxybyte.hub_configs.model_card import Told
    from proxybyte.hub_configs.push import PushOptions
    from proxybyte.provenance import DataFacts

    told = Told(
        license=args.license,
        base_model=args.base_model,
        data=DataFacts(tuple(args.dataset), tuple(args.data_license), tuple(args.language)),
        results=[result for path in args.results for result in read_results(path)],
    )
    return PushOptions(
        repo=args.repo,
        told=told,
        private=not args.public,
        revision=args.revision,
        create_pr=args.create_pr,
        message=args.commit_message,
        allowed=tuple(args.allow),
    )


@contextmanager
def _export(args: argparse.Namespace) -> Iterator[Path]:
    """The folder if it is an export, else one that is made for the time of the push."""
    from proxybyte.hub_configs.push import is_export

    if is_export(args.source):
        if args.chat or args.max_shard_mb:
            raise ProxyByteError(f"{args.source} is an export already: leave --chat and --max-shard-mb out")
        yield args.source
        return
    find_model(args.source)  # before torch is waited for
    from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model

    shard = None if args.max_shard_mb is None else numbers.bytes_of(args.max_shard_mb)
    with tempfile.TemporaryDirectory(prefix="proxybyte-export-") as home:
        out = Path(home) / args.repo.rpartition("/")[2]
        form = ExportFormat(args.format)
        yield export_model(args.source, out, ExportOptions(form, args.chat, license=args.license, shard_bytes=shard))


def _print_plan(ready: "Ready", options: "PushOptions") -> None:
    from proxybyte.hub_configs.model_card import CARD_FILE

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    seen = "private" if options.private else "public"
    print(f"would send to {options.repo} ({seen} if it is new), branch {options.revision or 'main'}:")
    for name, size in ready.sizes.items():
        print(f"  {size:>14,}  {name}")
    print(f"  {sum(ready.sizes.values()):>14,}  bytes in {len(ready.sizes)} files, nothing private found in them")
    print(f"\n{(ready.folder / CARD_FILE).read_text(encoding='utf-8')}")


COMMAND = Command("send a model to the Hub, with its card", EXAMPLES, _add_arguments, _run)
