"""``proxybyte eval transfer``: one checkpoint through bytes and through its compressor's symbols."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxybyte import numbers
from proxybyte.artefacts import MODEL_HELP, find_model
from proxybyte.cli import Command
from proxybyte.folders import write_text

if TYPE_CHECKING:
    from proxybyte.eval.transfer import Pair, Written

EXAMPLES = """\
  proxybyte eval transfer runs/quickstart/run --data runs/quickstart/prepared
  proxybyte eval transfer exported/full --data notes.txt more.jsonl --limit 32 --json > transfer.json
  proxybyte eval transfer runs/a/checkpoints/step-00001000/model --data prepared --samples samples.jsonl
  proxybyte eval transfer exported/full --data prepared --set humaneval --confirm-run-unsafe-code   # pass@1 as well

The compressor is the one in the run or the full export; --compressor names another copy of it."""

DEFAULT_TRANSLATED = 192
"""Bytes of each document that are translated, where the model's context holds them in both views."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    from proxybyte.eval.code.options import add_device_options, add_sandbox_options
    from proxybyte.eval.documents import add_document_options

    parser.add_argument("folder", type=numbers.path_or_name, metavar="MODEL", help=MODEL_HELP)
    add_document_options(parser)
    parser.add_argument("--limit", type=numbers.count, default=64, metavar="N", help="first N documents (default: 64)")
    parser.add_argument(
        "--compressor",
        type=numbers.path_or_name,
        metavar="NAME_OR_FOLDER",
        help="in the place of the one that the model carries",
    )
    parser.add_argument(
        "--max-bytes", type=numbers.count, default=4096, metavar="N", help="scored of each document (4096)"
    )
    parser.add_argument(
        "--translate-bytes",
        type=numbers.count,
        metavar="N",
        help="translated of each document (default: 192, or what the model's context holds in both views)",
    )
    add_device_options(parser)
    parser.add_argument(
        "--samples", type=numbers.path, metavar="FILE", help="write every translation as a line of JSON"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument(
        "--set",
        choices=["humaneval", "humaneval-plus", "mbpp", "mbpp-plus"],
        help="translate this set's published solutions too, and run what comes out",
    )
    parser.add_argument(
        "--set-data", type=numbers.path, metavar="FILE", help="the set's rows, as for 'eval code --data'"
    )
    add_sandbox_options(parser)


def _run(args: argparse.Namespace) -> int:
    from proxybyte.eval.documents import read_held_out
    from proxybyte.training import source_of

    bench = None if args.set is None else _bench(args)
    find_model(args.folder)  # this, and the text, before torch is waited for
    texts = read_held_out(source_of(args, args.data, args.split), args.limit).texts
    from proxybyte.eval.bpb import bits_per_byte, compressed_bits_per_byte
    from proxybyte.eval.scoring import Scoring
    from proxybyte.eval.transfer import load_two_views, pair_up

    two = load_two_views(args.folder, args.compressor, args.device, args.dtype)
    pairs, left_out = pair_up(texts, two.compressor, args.max_bytes)
    if left_out:
        print(f"{left_out} documents have no codes and are left out", file=sys.stderr)
    short = _to_translate(two, texts, args.translate_bytes)  # what does not fit is said before the work
    scoring = Scoring(progress=True)
    sizes = [len(pair.text) for pair in pairs]
    views = {
        "raw": bits_per_byte(two.model, [pair.text for pair in pairs], scoring).as_dict(),
        "compressed": compressed_bits_per_byte(two.model, [p.codes for p in pairs], sizes, scoring).as_dict(),
    }
    figures, samples = _translations(two, short)
    figures = {"compressor": two.compressor.name, "views": views, **figures}
    if bench is not None:
        figures["programs"] = _programs(two, args, bench)
    if args.samples:
        write_text(args.samples, "".join(json.dumps(line) + "\n" for line in samples))
    print(json.dumps(figures, indent=2) if args.json else _table(figures))
    if args.samples:
        print(f"every translation is in {args.samples}", file=sys.stderr)
    else:
        print("--samples FILE writes every translation down", file=sys.stderr)
    print(f"next: proxybyte export {shlex.quote(str(args.folder))} --format native --out FOLDER", file=sys.stderr)
    return 0


def _to_translate(two: Any, texts: Sequence[bytes], asked: int | None) -> "Sequence[Pair]":
    """Heads of the documents in both views, of ``asked`` bytes or as many as fit.

    Raises:
        ProxyByteError: if ``asked`` bytes are too many for the model's positions.
    """
    from proxybyte.eval.transfer import check_fits, fitting_bytes, pair_up

    size = asked or fitting_bytes(two, texts, DEFAULT_TRANSLATED)
    if asked is None and size < DEFAULT_TRANSLATED:
        print(f"{size} bytes of each document are translated: the model's context holds no more twice", file=sys.stderr)
    pairs, _ = pair_up(texts, two.compressor, size)
    check_fits(two, pairs)
    return pairs


def _bench(args: argparse.Namespace) -> Any:
    """Asked for before the model is loaded, because without the user's word there is nothing to run."""
    from proxybyte.eval.code.options import sandbox_bench

    args.output = None
    return sandbox_bench(args)


def _programs(two: Any, args: argparse.Namespace, bench: Any) -> dict[str, Any]:
    """Figures of the set's solutions, translated in both directions and run."""
    from proxybyte.eval.code.problems import CodeSet
    from proxybyte.eval.code.sources import load_problems
    from proxybyte.eval.transfer import Direction, programs_in_both_views, translate_programs

    problems = load_problems(CodeSet(args.set), args.set_data)[: args.limit]
    programs = programs_in_both_views(two, problems)
    figures: dict[str, Any] = {"set": args.set, "programs": len(programs.pairs), "left_out": programs.left_out}
    for direction in Direction:
        found = translate_programs(two, programs, direction, bench, progress=True)
        figures[str(direction)] = {**_figures(found.written), "pass@1": vars(found.pass_at_1)}
    return figures


def _translations(two: Any, pairs: Sequence[Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of translation in both directions and of continuation in both views; the translations as JSON lines."""
    from proxybyte.eval.transfer import Direction, continue_text, translate, translation_bpb
    from proxybyte.symbols import View

    translation, samples = {}, []
    for direction in Direction:
        written = translate(two, pairs, direction, progress=True)
        figures = _figures(written)
        figures["exact"] = sum(one.exact for one in written) / len(written)
        figures["bits_per_byte"] = translation_bpb(two, pairs, direction)
        translation[str(direction)] = figures
        samples += [_sample(str(direction), one) for one in written]
    continuation = {}
    for view in View:
        written = continue_text(two, pairs, view, progress=True)
        if written:
            continuation[str(view)] = _figures(written)
    return {"translation": translation, "continuation": continuation}, samples


def _figures(written: "Sequence[Written]") -> dict[str, float]:
    count = len(written)
    spelled = sum(len(one.produced) for one in written)
    return {
        "documents": count,
        "edit_distance": sum(one.distance for one in written) / count,
        "right_bytes": sum(one.right_bytes for one in written) / count,
        "passes_per_byte": sum(one.symbols for one in written) / max(spelled, 1),
    }


def _sample(direction: str, one: "Written") -> dict[str, Any]:
    """Bytes that are no UTF-8 are shown by their escapes."""
    text = {name: getattr(one, name).decode("utf-8", "backslashreplace") for name in ("expected", "produced")}
    return {"direction": direction, **text, "exact": one.exact, "distance": one.distance, "ended": one.ended}


def _table(figures: dict[str, Any]) -> str:
    lines = [f"{'the same documents':<28} {'BPB':>8} {'documents':>10} {'bytes':>10} {'bytes/symbol':>13}"]
    for view, found in figures["views"].items():
        bits, ratio = found["bits_per_byte"], found["bytes_per_symbol"]
        lines.append(f"{view:<28} {bits:>8.4f} {found['documents']:>10,} {found['bytes']:>10,} {ratio:>13.2f}")
    lines += ["", f"{'translation, greedy':<28} {'exact':>8} {'distance':>10} {'right bytes':>12} {'BPB given':>10}"]
    for direction, found in figures["translation"].items():
        lines.append(
            f"{direction:<28} {found['exact']:>8.3f} {found['edit_distance']:>10.3f} {found['right_bytes']:>12.1f}"
            f" {found['bits_per_byte']:>10.4f}"
        )
    lines += ["", f"{'continuation, greedy':<28} {'distance':>8} {'right bytes':>12} {'passes/byte':>12}"]
    for view, found in figures["continuation"].items():
        lines.append(
            f"{view:<28} {found['edit_distance']:>8.3f} {found['right_bytes']:>12.1f} {found['passes_per_byte']:>12.3f}"
        )
    if programs := figures.get("programs"):
        lines += ["", f"{programs['programs']} programs of {programs['set']}, {programs['left_out']} left out"]
        for direction in figures["translation"]:
            found = programs[direction]
            score = found["pass@1"]
            lines.append(
                f"{direction:<28} pass@1 {score['mean']:.2%} ({score['low']:.2%} to {score['high']:.2%}), "
                f"distance {found['edit_distance']:.3f}"
            )
    return "\n".join(lines)


COMMAND = Command(
    summary="one checkpoint through bytes and through its compressor: bits per byte, translation, continuation",
    examples=EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
