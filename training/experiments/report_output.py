"""A report as Markdown, as JSON and as one HTML page that needs nothing else."""

import base64
import html
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from proxybyte.folders import write_bytes, write_text

from .plots import draw_report
from .report import Condition, Report, curve, transfer_curve, view_of
from .schema import MatchBy
from .statistics import LEAST_FOR_AN_INTERVAL, Interval

_CAPTIONS = {
    "seeds": "Bits per byte of the held-out documents, each seed and the mean",
    "flops": "Bits per byte while training, against training FLOPs",
    "bytes": "Bits per byte while training, against bytes of text shown",
    "scaling": "Bits per byte against the size of the model",
    "transfer": "Bits a byte that the other view in the context saves while training, in both directions",
}
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;border-bottom:1px solid #ccc;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}figure{margin:2rem 0}"""


@dataclass(frozen=True)
class Table:
    """A table of the report: a title, what its columns mean, a head and rows of text."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_report(report: Report, folder: Path) -> Path:
    """Write ``report.md``, ``report.json``, ``report.html`` and the pictures into ``folder``; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_report(report)
    for name, picture in pictures.items():
        write_bytes(folder / f"{name}.png", picture)
    write_text(folder / "report.md", as_markdown(report, list(pictures)))
    write_text(folder / "report.json", json.dumps(as_json(report), indent=1))
    write_text(folder / "report.html", as_html(report, pictures))
    return folder / "report.html"


def tables(report: Report) -> list[Table]:
    """The tables of the report."""
    found = [_means(report), _costs(report)]
    if report.comparisons:
        found.insert(1, _paired(report))
    return found


def as_markdown(report: Report, pictures: Sequence[str] = ()) -> str:
    """The report as Markdown; ``pictures`` lie beside it as ``NAME.png``."""
    parts = [f"# {report.plan.title}", *_lead(report)]
    for table in tables(report):
        rule = ("---", *("---:" for _ in table.head[1:]))
        lines = [f"| {' | '.join(cells)} |" for cells in (table.head, rule, *table.rows)]
        parts += [f"## {table.title}", "\n".join(lines), table.note]
    parts += [f"![{_CAPTIONS[name]}]({name}.png)" for name in pictures]
    return "\n\n".join(parts) + "\n"


def as_html(report: Report, pictures: dict[str, bytes]) -> str:
    """The report as one page, pictures inside."""
    title = html.escape(report.plan.title)
    parts = [f"<h1>{title}</h1>", *(f"<p>{html.escape(text)}</p>" for text in _lead(report))]
    for table in tables(report):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
        parts.append(f"<h2>{html.escape(table.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>")
        parts.append(f"</table><p>{html.escape(table.note)}</p>")
    for name, picture in pictures.items():
        data = base64.b64encode(picture).decode("ascii")
        caption = html.escape(_CAPTIONS[name])
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def as_json(report: Report) -> dict[str, Any]:
    """Everything, figures of every cell among it; numbers that are not finite are null."""
    values = {
        "plan": report.plan.model_dump(mode="json"),
        "conditions": [
            {
                "name": condition.name,
                "arm": condition.first.arm,
                "kind": condition.first.kind.value,
                "compressor": condition.first.compressor,
                "model": condition.first.model,
                "axes": condition.first.axes,
                "view": view_of(condition),
                "bits_per_byte": asdict(condition.bits_per_byte),
                "curve": [asdict(point) for point in curve(condition)],
                "transfer": [asdict(point) for point in transfer_curve(condition)],
            }
            for condition in report.conditions
        ],
        "comparisons": [asdict(comparison) for comparison in report.comparisons],
        "cells": [
            {"seed": cell.seed, **{k: v for k, v in asdict(result).items() if k != "settings"}}
            for condition in report.conditions
            for cell, result in zip(condition.cells, condition.results, strict=True)
        ],
        "unfinished": list(report.unfinished),
    }
    return _finite(values)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lead(report: Report) -> list[str]:
    """Paragraphs before the tables."""
    plan = report.plan
    seeds = ", ".join(map(str, plan.seeds))
    machines = sorted({result.machine for condition in report.conditions for result in condition.results})
    lead = [plan.question] if plan.question else []
    lead.append(f"Matched by {plan.match.by}, {plan.match.budget:.3g} each; seeds {seeds}; on {'; '.join(machines)}.")
    steps = {condition.name: condition.mean(lambda r: r.steps) for condition in report.conditions}
    fewest, most = min(steps, key=steps.__getitem__), max(steps, key=steps.__getitem__)
    if plan.match.by is MatchBy.FLOPS and steps[most] >= 1.5 * steps[fewest]:
        lead.append(
            f"Equal FLOPs are not equal steps: {most} takes {steps[most]:,.0f} optimizer steps and {fewest} "
            f"{steps[fewest]:,.0f}, because their symbols cost differently. Fewer updates are part of what differs."
        )
    if report.unfinished:
        lead.append(f"{len(report.unfinished)} cells are not finished: {', '.join(report.unfinished)}.")
    return lead


def _means(report: Report) -> Table:
    rows = []
    for condition in report.conditions:
        interval = condition.bits_per_byte
        values = [result.bits_per_byte for result in condition.results]
        compressed = condition.compressed_bpb
        rows.append(
            (
                condition.name,
                view_of(condition),
                str(interval.n),
                f"{interval.mean:.4f}",
                _interval(interval),
                f"{min(values):.4f} to {max(values):.4f}",
                "-" if compressed is None else f"{compressed:.4f}",
            )
        )
    note = (
        "BPB: bits per byte of held-out documents, in the view named; interval: Student's t over seeds, 95%; "
        "compressed: BPB of the same documents and model in the compressed view."
    )
    head = ("condition", "view", "seeds", "BPB", "95% interval", "lowest to highest", "compressed")
    return Table("Bits per byte", note, head, tuple(rows))


def _paired(report: Report) -> Table:
    rows = [
        (
            comparison.condition,
            comparison.baseline,
            str(comparison.test.difference.n),
            f"{comparison.test.difference.mean:+.4f}",
            _interval(comparison.test.difference, sign=True),
            _p(comparison.test.p),
            _p(comparison.p_holm),
            _p(comparison.test.p_sign_flip),
        )
        for comparison in report.comparisons
    ]
    note = (
        "Difference: mean over seeds of condition minus baseline, negative is better than the baseline; p: paired t "
        "test; Holm: corrected for the number of comparisons; sign flip: exact test without a distribution, which "
        "three seeds cannot bring below 0.25."
    )
    head = ("condition", "baseline", "pairs", "difference", "95% interval", "p", "Holm", "sign flip")
    return Table("Paired over seeds", note, head, tuple(rows))


def _costs(report: Report) -> Table:
    rows = tuple(_cost(condition) for condition in report.conditions)
    note = "Means over seeds; text in MB (10^6 bytes) shown in each view; backbone: weights beside embedding and head."
    head = ("condition", "parameters", "backbone", "steps", "FLOPs", "symbols", "raw MB", "compressed MB", "minutes")
    return Table("What each cost", note, head, rows)


def _cost(condition: Condition) -> tuple[str, ...]:
    result = condition.results[0]
    return (
        condition.name,
        f"{result.parameters:,}",
        f"{result.backbone_parameters:,}",
        f"{condition.mean(lambda r: r.steps):,.0f}",
        f"{condition.mean(lambda r: r.flops):.3g}",
        f"{condition.mean(lambda r: r.symbols):,.0f}",
        f"{condition.mean(lambda r: r.raw_bytes) / 1e6:.2f}",
        f"{condition.mean(lambda r: r.compressed_bytes) / 1e6:.2f}",
        f"{condition.mean(lambda r: r.seconds) / 60:.1f}",
    )


def _interval(interval: Interval, sign: bool = False) -> str:
    if interval.n < LEAST_FOR_AN_INTERVAL:
        return f"{interval.n} seed{'s' if interval.n > 1 else ''}: no interval"
    return f"{interval.low:+.4f} to {interval.high:+.4f}" if sign else f"{interval.low:.4f} to {interval.high:.4f}"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
