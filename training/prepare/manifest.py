"""``prepared.json``: what a prepared folder holds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from proxybyte.artefacts import PREPARED_MANIFEST
from proxybyte.checksums import sealed_json, unsealed_json
from proxybyte.errors import ProxyByteError
from proxybyte.numbers import MEGABYTE
from proxybyte.provenance import DataFacts

LISTED = 100
"""How many raw documents the manifest lists, of each shard and in all."""


@dataclass(frozen=True)
class SplitTotals:
    """Counts over some documents: a shard, or a split.

    Attributes:
        documents, bytes: all documents.
        symbols, coded_bytes: codes, and the bytes of the documents that have them.
        raw_documents, raw_bytes: documents without a code, shown in their raw view alone.
        raw_reasons: those documents by reason (numbers in the message are written ``N``).
        raw_examples: the first of them, each with its source and the whole reason.
        has_borders: whether hand-offs are possible; false too where no document is coded.
        cut_windows: symbols that lost a byte, of a neural compressor that cuts its windows.
        encode_seconds: time spent in the compressor, summed over workers, verification included.
        files: size in bytes of each Arrow file.
        digests: SHA-256 of each.
    """

    documents: int = 0
    bytes: int = 0
    symbols: int = 0
    coded_bytes: int = 0
    raw_documents: int = 0
    raw_bytes: int = 0
    raw_reasons: dict[str, int] = field(default_factory=dict)
    raw_examples: list[str] = field(default_factory=list)
    has_borders: bool = False
    cut_windows: int = 0
    encode_seconds: float = 0.0
    files: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Bytes of text for each symbol, over the documents that have codes; 0 where none has."""
        return self.coded_bytes / self.symbols if self.symbols else 0.0


def add_totals(parts: Sequence[SplitTotals]) -> SplitTotals:
    """The totals of several shards or splits together."""
    reasons: Counter[str] = Counter()
    for part in parts:
        reasons.update(part.raw_reasons)
    return SplitTotals(
        documents=sum(part.documents for part in parts),
        bytes=sum(part.bytes for part in parts),
        symbols=sum(part.symbols for part in parts),
        coded_bytes=sum(part.coded_bytes for part in parts),
        raw_documents=sum(part.raw_documents for part in parts),
        raw_bytes=sum(part.raw_bytes for part in parts),
        raw_reasons=dict(reasons.most_common()),
        raw_examples=[example for part in parts for example in part.raw_examples][:LISTED],
        has_borders=any(part.has_borders for part in parts),
        cut_windows=sum(part.cut_windows for part in parts),
        encode_seconds=sum(part.encode_seconds for part in parts),
        files={name: size for part in parts for name, size in part.files.items()},
        digests={name: digest for part in parts for name, digest in part.digests.items()},
    )


@dataclass(frozen=True)
class CompressorInfo:
    """Which compressor made the codes; ``digest`` is the hash of its folder's files."""

    family: str
    name: str
    num_symbols: int
    lossless: bool
    digest: str


@dataclass(frozen=True)
class PreparedManifest:
    """The content of ``prepared.json``.

    Attributes:
        fingerprint: hash of the corpus, the compressor and the options; equal fingerprints mean equal datasets.
        verify: which documents were decoded again and compared.
        ratio: bytes of text for each symbol over both splits.
        workers: processes of the last run; 0 where it put together what shards had encoded.
        seconds, mb_per_s: wall time of the last run, and text that it encoded for each second of it (MB = 10^6 bytes).
        data: what the corpus says of its text.
    """

    compressor: CompressorInfo
    train: SplitTotals
    validation: SplitTotals
    fingerprint: str
    verify: str
    ratio: float
    workers: int
    seconds: float
    mb_per_s: float
    data: DataFacts = field(default_factory=DataFacts)
    format_version: int = 2

    @property
    def total(self) -> SplitTotals:
        """Both splits together."""
        return add_totals([self.train, self.validation])

    def to_json(self) -> str:
        """The content of the file, which ends with the digest of all of it."""
        return sealed_json(_MANIFEST.dump_python(self, mode="json"), indent=2)

    def __str__(self) -> str:
        total = self.total
        lines = [f"{'':<12}{'documents':>12}{'MB':>12}{'symbols':>16}{'bytes/symbol':>14}{'raw alone':>10}"]
        for name, part in (("train", self.train), ("validation", self.validation), ("total", total)):
            lines.append(
                f"{name:<12}{part.documents:>12,}{part.bytes / 1e6:>12,.1f}{part.symbols:>16,}{part.ratio:>14.3f}"
                f"{part.raw_documents:>10,}"
            )
        lines.extend(f"raw alone {count:>10,}  {reason}" for reason, count in total.raw_reasons.items())
        if not self.compressor.lossless:
            share = total.cut_windows / max(1, total.symbols)
            lines.append(f"cut windows {total.cut_windows:>8,}  symbols ({share:.1%}) do not determine their last byte")
        rate = total.bytes / MEGABYTE / total.encode_seconds if total.encode_seconds else 0.0
        lines.append(
            f"{self.compressor.name}: {self.mb_per_s:.2f} MB/s with {self.workers} worker(s), {self.seconds:.1f} s"
            if self.mb_per_s
            else f"{self.compressor.name}: {rate:.2f} MB/s in each process; put together in {self.seconds:.1f} s"
        )
        return "\n".join(lines)


_SEALED_SINCE = 2
_MANIFEST = TypeAdapter(PreparedManifest)
TOTALS = TypeAdapter(SplitTotals)


def read_manifest(folder: Path | str) -> PreparedManifest:
    """Read ``folder/prepared.json``.

    Raises:
        ProxyByteError: if there is none, or it is damaged.
    """
    path = (Path(folder) if isinstance(folder, str) else folder) / PREPARED_MANIFEST
    try:
        content = path.read_bytes()
        manifest = _MANIFEST.validate_json(content)
        if manifest.format_version >= _SEALED_SINCE:
            unsealed_json(content)
        return manifest
    except OSError as error:
        raise ProxyByteError(
            f"{folder} is no prepared folder ({PREPARED_MANIFEST}: {error.strerror}): make one with 'proxybyte prepare'"
        ) from error
    except ValueError as error:  # pydantic's own is one
        raise ProxyByteError(f"{path} is damaged: delete {folder} and prepare it again") from error
