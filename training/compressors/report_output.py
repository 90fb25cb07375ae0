"""A compressor report as a table, a JSON file and plots."""

from pathlib import Path

from proxybyte.folders import write_figure, write_json

from ..drawn_text import distinct_colours
from .report import CompressorReport, Report

REPORT_JSON = "report.json"
_COLUMNS = (
    "compressor",
    "symbols",
    "bytes/sym",
    "enc MB/s",
    "dec MB/s",
    "distance",
    "used",
    "entropy",
    "BPB unigram",
    "BPB fixed",
    "chunks/sym",
    "prefix",
    "refused",
    "changed",
    "cut",
)
_LEGEND = """\
distance: mean normalised Levenshtein distance between the codes of {samples:,} snippets of {characters} characters
before and after {share:.0%} of the characters are deleted (0 same, 1 unlike). used: share of the vocabulary seen.
entropy: bits a symbol by frequency. BPB unigram, BPB fixed: bits a byte of a model that knows the frequencies alone,
and of fixed-width storage. chunks/sym: different strings behind one symbol; prefix: how much of them they share.
cut: share of the symbols that lost a byte."""


def as_table(report: Report) -> str:
    """The report as aligned text."""
    rows = [_COLUMNS, *(_row(one, report.n_documents) for one in report.compressors)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines = [f"{row[0].ljust(widths[0])}{line[widths[0] :]}" for row, line in zip(rows, lines, strict=True)]
    head = f"{report.n_documents:,} documents, {report.n_bytes:,} bytes, {report.threads} threads"
    options = report.options
    legend = _LEGEND.format(samples=options.samples, characters=options.characters, share=options.share)
    return "\n".join([head, "", *lines, "", legend])


def _row(one: CompressorReport, n_documents: int) -> tuple[str, ...]:
    hits = one.collisions
    return (
        one.name,
        f"{one.num_symbols:,}",
        f"{one.bytes_per_symbol:.3f}",
        f"{one.encode_mb_per_s:.3g}",
        _or_dash(one.decode_mb_per_s, ".3g"),
        _or_dash(None if one.stability is None else one.stability.distance, ".3f"),
        f"{one.frequencies.used_share:.1%}",
        f"{one.frequencies.entropy_bits:.2f}",
        f"{one.bpb_unigram:.3f}",
        f"{one.bpb_fixed:.3f}",
        _or_dash(None if hits is None else hits.chunks_per_symbol, ".2f"),
        _or_dash(None if hits is None else hits.prefix_ratio, ".2f"),
        f"{one.refused}/{n_documents}",
        _or_dash(one.changed, "d"),
        "-" if one.lossless else f"{one.cut_share:.1%}",
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``report.json`` and the plots into ``folder`` (made if absent); returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REPORT_JSON
    write_json(path, report.as_json())
    return [path, _plot_bars(report, folder), _plot_ranks(report, folder), _plot_choice(report, folder)]


def _figure(rows: int, columns: int, width: float, height: float):
    # An explicit canvas: no display, and no state shared with a caller's own plots.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _plot_bars(report: Report, folder: Path) -> Path:
    """Ratio, speed, stability and vocabulary use, one panel each."""
    names = [one.name for one in report.compressors]
    panels = [
        ("bytes per symbol", [one.bytes_per_symbol for one in report.compressors], False),
        ("encode, MB/s", [one.encode_mb_per_s for one in report.compressors], True),
        (
            "distance after deletions",
            [one.stability.distance if one.stability else 0.0 for one in report.compressors],
            False,
        ),
        ("share of vocabulary used", [one.frequencies.used_share for one in report.compressors], False),
    ]
    figure, axes = _figure(1, len(panels), 14, 1.2 + 0.35 * len(names))
    for place, (axis, (title, values, log)) in enumerate(zip(axes[0], panels, strict=True)):
        bars = axis.barh(names, values, color=f"C{place}", log=log)
        axis.bar_label(bars, fmt=lambda value: f"{value:,.4g}", padding=2, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.margins(x=0.3)
        axis.invert_yaxis()
        if place:
            axis.tick_params(labelleft=False)
    return _save(figure, folder / "compressors.png")


def _plot_ranks(report: Report, folder: Path) -> Path:
    """Share of occurrences by rank."""
    figure, axes = _figure(1, 1, 9, 4.5)
    for one, colour in zip(report.compressors, distinct_colours(len(report.compressors)), strict=True):
        ranks, shares = zip(*one.frequencies.by_rank, strict=True)
        axes[0, 0].loglog(ranks, shares, marker=".", color=colour, label=one.name)
    axes[0, 0].set(xlabel="rank of the symbol", ylabel="share of occurrences")
    figure.legend(loc="outside right upper", fontsize=8)
    return _save(figure, folder / "compressors_frequencies.png")


def _plot_choice(report: Report, folder: Path) -> Path:
    """Ratio against stability: a good proxy lies to the lower right."""
    figure, axes = _figure(1, 1, 8, 4.5)
    markers = "osD^v<>"  # seven, so that they do not repeat in step with the ten colours
    palette = distinct_colours(len(report.compressors))
    for place, (one, colour) in enumerate(zip(report.compressors, palette, strict=True)):
        if one.stability is not None:
            spot = {"marker": markers[place % len(markers)], "color": [colour], "label": one.name}
            axes[0, 0].scatter(one.bytes_per_symbol, one.stability.distance, **spot)
    figure.legend(loc="outside right upper", fontsize=8)
    axes[0, 0].set(xlabel="bytes per symbol", ylabel="distance after deletions", ylim=(0, 1))
    return _save(figure, folder / "compressors_choice.png")


def _save(figure, path: Path) -> Path:
    write_figure(path, figure, dpi=120)
    return path
