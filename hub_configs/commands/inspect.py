"""``proxybyte inspect``: what a folder or a model on the Hub is and where it comes from, file by file."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from proxybyte import numbers
from proxybyte.artefacts import MODEL_HELP
from proxybyte.cli import Command

if TYPE_CHECKING:
    from proxybyte.hub_configs.inspecting import Inspection

EXAMPLES = """  proxybyte inspect runs/quickstart
  proxybyte inspect prepared
  proxybyte inspect me/my-model --json

What a model costs is said by 'info'; this says what it is, what it was trained on, and whether its files are those that
were written."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "named",
        type=numbers.path_or_name,
        metavar="FOLDER",
        help=f"{MODEL_HELP}; also a corpus, prepared data, a compressor or an adapter",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")


def _run(args: argparse.Namespace) -> int:
    from proxybyte.hub_configs.inspecting import inspect_artefact

    found = inspect_artefact(args.named)
    print(json.dumps(found.as_dict(), indent=2) if args.json else _text(args.named, found))
    return 0


def _text(named: str, found: "Inspection") -> str:
    lines = [f"{named}: {found.kind}"]
    for section, facts in found.facts.items():
        rows = _rows(facts)
        width = max((len(name) for name, _ in rows), default=0)
        lines += ["", section, *(f"  {name:<{width}}  {value}" for name, value in rows)]
    total = sum(file.size for file in found.files.values())
    lines += ["", f"{len(found.files)} files, {total:,} bytes"]
    lines += [f"  {file.sha256[:16]}  {file.size:>14,}  {name} ({file.sum})" for name, file in found.files.items()]
    return "\n".join(lines)


def _rows(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _shown(value)))
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


COMMAND = Command("what a folder or a model on the Hub is, and where it comes from", EXAMPLES, _add_arguments, _run)
