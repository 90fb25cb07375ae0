"""Several compressors side by side on the same text: ``proxybyte compressor report``."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_figure, write_json
from proxybyte.progress import Progress
from proxybyte.training.texts import batches

from ..drawn_text import distinct_colours
from .measures import (
    Collisions,
    EditedSamples,
    Frequencies,
    Stability,
    collisions,
    delete_characters,
    frequencies,
    stability,
)
from .protocol import CannotEncode, Compressor, cut_windows, usable_threads

MEGABYTE = 1_000_000
_BATCH_BYTES = 2 * MEGABYTE


@dataclass(frozen=True)
class ReportOptions:
    """How much to measure.

    Attributes:
        samples: snippets for stability; 0 leaves it out.
        characters: length of a snippet.
        share: share of its characters that are deleted.
        collision_bytes: text over which collisions are counted.
        seed: of the snippets and deletions.
    """

    samples: int = 80_000
    characters: int = 512
    share: float = 0.1
    collision_bytes: int = 2 * MEGABYTE
    seed: int = 0


@dataclass(frozen=True)
class CompressorReport:
    """One compressor on the text.

    Attributes:
        name: what the report calls it.
        num_symbols: size of its vocabulary.
        lossless: as it says.
        refused: documents it cannot code; the rest of the figures is over those that it can.
        changed: documents that did not come back all the same; None for a compressor that is not lossless.
        cut_share: share of the symbols that lost a byte (neural windows with the lossy ending); 0 if lossless.
        bytes_per_symbol: bytes of text over symbols.
        encode_mb_per_s: megabytes of text a second, all cores.
        decode_mb_per_s: the same for decoding, one document at a time; None for a compressor that is not lossless.
        frequencies: of the symbols.
        bpb_fixed: bits a byte if each symbol is stored in ``log2(num_symbols)`` bits.
        bpb_unigram: bits a byte for a model that knows the symbols' frequencies and nothing else.
        collisions: None where no symbol stands for bytes of its own (gzip).
        stability: None if it was left out.
    """

    name: str
    num_symbols: int
    lossless: bool
    refused: int
    changed: int | None
    cut_share: float
    bytes_per_symbol: float
    encode_mb_per_s: float
    decode_mb_per_s: float | None
    frequencies: Frequencies
    bpb_fixed: float
    bpb_unigram: float
    collisions: Collisions | None
    stability: Stability | None


@dataclass(frozen=True)
class Report:
    """All compressors, and on what they were measured."""

    n_bytes: int
    n_documents: int
    threads: int
    options: ReportOptions
    compressors: list[CompressorReport]

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def compare(compressors: Mapping[str, Compressor], documents: Sequence[bytes], options: ReportOptions) -> Report:
    """Measure each compressor on the same documents and the same edits.

    Args:
        compressors: any, by what the report calls each.
        documents: held-out text, in memory.
        options: how much to measure.

    Raises:
        ProxyByteError: if a compressor can code none of it.
    """
    edited = None
    if options.samples:
        edited = delete_characters(
            documents, options.samples, characters=options.characters, share=options.share, seed=options.seed
        )
    reports = [measure(name, compressor, documents, edited, options) for name, compressor in compressors.items()]
    return Report(sum(map(len, documents)), len(documents), usable_threads(), options, reports)


def measure(
    name: str,
    compressor: Compressor,
    documents: Sequence[bytes],
    edited: EditedSamples | None,
    options: ReportOptions,
) -> CompressorReport:
    """Measure one compressor; see :class:`CompressorReport`."""
    coded = _encode(compressor, documents)
    changed, decode_seconds = _decode(compressor, coded) if compressor.lossless else (None, None)
    n_bytes, n_symbols = sum(map(len, coded.texts)), sum(map(len, coded.codes))
    ratio = n_bytes / n_symbols
    found = frequencies(coded.codes, compressor.num_symbols)
    few = int(np.searchsorted(np.cumsum([len(text) for text in coded.texts]), options.collision_bytes)) + 1
    return CompressorReport(
        name=name,
        num_symbols=compressor.num_symbols,
        lossless=compressor.lossless,
        refused=len(documents) - len(coded.texts),
        changed=changed,
        cut_share=coded.cut_windows / n_symbols,
        bytes_per_symbol=ratio,
        encode_mb_per_s=n_bytes / MEGABYTE / coded.seconds,
        decode_mb_per_s=n_bytes / MEGABYTE / decode_seconds if decode_seconds else None,
        frequencies=found,
        bpb_fixed=float(np.log2(compressor.num_symbols)) / ratio,
        bpb_unigram=found.entropy_bits / ratio,
        collisions=collisions(compressor, coded.texts[:few], coded.codes[:few]),
        stability=None if edited is None else _stability(compressor, edited),
    )


@dataclass(frozen=True)
class _Coded:
    """The documents that could be coded, their codes, the windows cut in them, and the seconds that coding took."""

    texts: list[bytes]
    codes: list[np.ndarray]
    cut_windows: int
    seconds: float


def _encode(compressor: Compressor, documents: Sequence[bytes]) -> _Coded:
    compressor.encode_batch(documents[:1])  # whatever is built on first use is not part of the speed
    coded = _Coded([], [], 0, 0.0)
    seconds, cut_before = 0.0, cut_windows(compressor)
    with _bar(f"{compressor.name}: encode", sum(map(len, documents)), "B") as bar:
        for batch in batches(documents, _BATCH_BYTES):
            start = time.perf_counter()
            results = compressor.encode_batch(batch)
            seconds += time.perf_counter() - start
            bar.update(sum(map(len, batch)))
            for text, code in zip(batch, results, strict=True):
                if not isinstance(code, CannotEncode):
                    coded.texts.append(text)
                    coded.codes.append(code)
    if not sum(map(len, coded.codes)):
        raise ProxyByteError(f"{compressor.name}: can code none of the {len(documents)} documents")
    return replace(coded, seconds=seconds, cut_windows=cut_windows(compressor) - cut_before)


def _decode(compressor: Compressor, coded: _Coded) -> tuple[int, float]:
    """How many documents do not come back, and the seconds that decoding took."""
    changed, seconds = 0, 0.0
    with _bar(f"{compressor.name}: decode", sum(map(len, coded.texts)), "B") as bar:
        for text, code in zip(coded.texts, coded.codes, strict=True):
            start = time.perf_counter()
            try:
                changed += compressor.decode(code) != text
            except ProxyByteError:
                changed += 1
            seconds += time.perf_counter() - start
            bar.update(len(text))
    return changed, seconds


def _stability(compressor: Compressor, edited: EditedSamples) -> Stability:
    with _bar(f"{compressor.name}: stability", len(edited.before), " snippets") as bar:
        return stability(compressor, edited, bar.update)


def _bar(what: str, total: int, unit: str) -> Progress:
    return Progress(desc=what, total=total, unit=unit, unit_scale=True, leave=False, delay=1)


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
