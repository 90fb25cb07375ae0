"""``proxybyte compare``: two models, by configuration and origin, and byte by byte on a text."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxybyte import numbers
from proxybyte.artefacts import CONFIG_FILE, MODEL_HELP, ModelFolder, find_model
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError

if TYPE_CHECKING:
    from proxybyte.eval.comparing import Comparison

EXAMPLES = """  proxybyte compare runs/a runs/b
  proxybyte compare runs/a runs/b --data prepared --limit 20
  proxybyte compare my-model me/my-model --data notes.txt --json

Of a text, both read the beginnings of its documents, up to --max-bytes and to what both contexts hold."""
_ABSENT = "-"
_NOISE = frozenset(
    {
        *("architectures", "auto_map", "id2label", "label2id", "torch_dtype", "transformers_version", "rope_scaling"),
        *("rope_theta", "problem_type", "return_dict", "output_attentions", "output_hidden_states", "_name_or_path"),
        *("chunk_size_feed_forward", "is_encoder_decoder", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id"),
    }
)
"""Keys of a configuration that say nothing of the model, or say again what another says."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    from proxybyte.eval.documents import add_document_options

    parser.add_argument("first", type=numbers.path_or_name, metavar="A", help=MODEL_HELP)
    parser.add_argument("second", type=numbers.path_or_name, metavar="B", help="the same")
    add_document_options(parser, required=False)
    parser.add_argument("--limit", type=numbers.count, metavar="N", help="the first N documents only")
    parser.add_argument("--max-bytes", type=numbers.count, metavar="N", help="of each document")
    parser.add_argument("--places", type=numbers.count_or_none, default=10, metavar="N", help="list the N bytes "
                        "on which they differ most (default: %(default)s)")  # fmt: skip
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: an accelerator if there is one)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")


def _run(args: argparse.Namespace) -> int:
    found = find_model(args.first), find_model(args.second)
    told = tuple(map(_facts, found))
    names = sorted({*told[0], *told[1]}, key=lambda name: (name.partition(".")[0], name))
    pairs = {name: [facts.get(name) for facts in told] for name in names}  # null says as little as no entry
    different = {name: both for name, both in pairs.items() if both[0] != both[1]}
    result: dict[str, Any] = {"models": [args.first, args.second], "differences": different}
    if args.data:
        result["text"] = _text(_compare(args, found), args.places)
    print(json.dumps(result, indent=2) if args.json else _tables(result))
    return 0


def _facts(found: ModelFolder) -> dict[str, Any]:
    """Configuration and origin under dotted names."""
    from proxybyte.provenance import BYTEIFY_REPORT, TRAINING_REPORT

    facts: dict[str, Any] = {}
    for file, name in ((BYTEIFY_REPORT, "byteified"), (TRAINING_REPORT, "training")):
        facts |= _flat(_read(found.model / file), name)
    config = _read(found.model / CONFIG_FILE)
    decoder = config.pop("backbone_config", None) or config  # of a plain checkpoint all of it is the decoder's
    ours = config if decoder is not config else {}
    for part, name in ((ours, "model"), (decoder, "decoder")):
        facts |= _flat({key: value for key, value in part.items() if key not in _NOISE}, name)
    return facts


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ProxyByteError(f"{path} cannot be read: make or copy its folder again ({error})") from error


def _flat(content: Any, name: str) -> dict[str, Any]:
    parts: Iterable[tuple[Any, Any]]
    if isinstance(content, dict):
        parts = content.items()
    elif isinstance(content, list) and any(isinstance(each, dict | list) for each in content):
        parts = enumerate(content)
    else:
        return {name: content}
    return {key: value for part, each in parts for key, value in _flat(each, f"{name}.{part}").items()}


def _compare(args: argparse.Namespace, found: tuple[ModelFolder, ModelFolder]) -> "Comparison":
    from proxybyte.eval.documents import read_held_out
    from proxybyte.training import source_of

    texts = read_held_out(source_of(args, args.data, args.split), args.limit).texts  # before torch is waited for
    from proxybyte.eval.comparing import compare_models
    from proxybyte.eval.loading import ModelKind, load_model, model_kind

    first, second = (load_model(each, args.device, "auto") for each in found)
    for name, model in ((args.first, first), (args.second, second)):
        if model_kind(model) is ModelKind.TOKENS:
            raise ProxyByteError(f"{name} is a tokenizer model, which has no bits for single bytes: give byte models")
    return compare_models(first, second, texts, args.max_bytes)


def _text(made: "Comparison", count: int) -> dict[str, Any]:
    first, second = made.bits_per_byte
    return {
        "documents": len(made.texts),
        "bytes": made.n_bytes,
        "bits_per_byte": [first, second],
        "documents_better_by_first": made.first_is_better,
        "kinds": {kind: {"bytes": n, "bits": [a, b]} for kind, (n, a, b) in made.by_kind().items()},
        "places": [  # where they are equal there is nothing to see
            {
                "document": place.document,
                "offset": place.offset,
                "before": place.before.decode("utf-8", "backslashreplace"),
                "byte": place.byte,
                "bits": list(place.bits),
            }
            for place in made.most_different(count)
            if place.bits[0] != place.bits[1]
        ],
    }


def _tables(result: dict[str, Any]) -> str:
    lines = [f"A  {result['models'][0]}", f"B  {result['models'][1]}", ""]
    different = result["differences"]
    if different:
        rows = [(name, *map(_cell, both)) for name, both in different.items()]
        lines += _columns([("differs", "A", "B"), *rows])
    else:
        lines.append("configuration and origin are the same")
    if "text" in result:
        lines += ["", *_text_lines(result["text"])]
    return "\n".join(lines)


def _text_lines(text: dict[str, Any]) -> list[str]:
    first, second = text["bits_per_byte"]
    head = f"{text['documents']} documents, {text['bytes']:,} bytes; A is better on {text['documents_better_by_first']}"
    rows: list[tuple[str, ...]] = [("mean bits of", "bytes", "A", "B", "B - A")]
    rows.append(("all bytes", f"{text['bytes']:,}", f"{first:.4f}", f"{second:.4f}", f"{second - first:+.4f}"))
    for kind, figures in text["kinds"].items():
        a, b = figures["bits"]
        rows.append((kind, f"{figures['bytes']:,}", f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}"))
    lines = [head, "", *_columns(rows)]
    if text["places"]:
        rows = [("document", "offset", "byte", "A", "B", "B - A", "after")]
        for place in text["places"]:
            a, b = place["bits"]
            shown = repr(chr(place["byte"])) if place["byte"] < 128 else f"0x{place['byte']:02x}"
            where = (str(place["document"]), str(place["offset"]), shown)
            rows.append((*where, f"{a:.2f}", f"{b:.2f}", f"{b - a:+.2f}", repr(place["before"])))
        lines += ["", *_columns(rows)]
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return _ABSENT
    text = f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


COMMAND = Command("where two models differ: configuration, training, bits per byte", EXAMPLES, _add_arguments, _run)
