"""``corpus.json``: what was read, kept and left out, and why."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from proxybyte.artefacts import CORPUS_REPORT
from proxybyte.errors import ProxyByteError
from proxybyte.provenance import DataFacts
from proxybyte.training.corpus.writer import SplitCount
from proxybyte.training.texts.records import MEGABYTE, left_out_lines

LISTED_PACKAGES = 1000


@dataclass(frozen=True)
class CorpusReport:
    """The report of one collection.

    Attributes:
        options: what was asked for.
        train, validation: documents, bytes of text and shards written.
        duplicates, over_cap: documents and bytes that were fit but are not kept.
        left_out: how many lines or files were left out, by reason.
        passed_over: how many files of folders have an ending that was not asked for, by ending; ending in ``/``, how
            many folders of a name were not entered.
        examples: the first faults among them, each with its place and reason.
        packages: how many packages or keys were kept; 0 where every document stands alone.
        packages_held_out: how many of them are in the validation split.
        validation_packages: names of those held out (the first thousand in alphabetical order).
        data: what was said of the text: its licence, its languages, its name on the Hub.
    """

    options: dict[str, Any]
    train: SplitCount
    validation: SplitCount
    duplicates: SplitCount
    over_cap: SplitCount
    left_out: dict[str, int]
    examples: list[str]
    packages: int = 0
    packages_held_out: int = 0
    validation_packages: list[str] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    data: DataFacts = field(default_factory=DataFacts)
    format_version: int = 1

    def to_json(self) -> str:
        """The content of ``corpus.json``."""
        return _ADAPTER.dump_json(self, indent=2).decode("utf-8") + "\n"

    def __str__(self) -> str:
        kept = self.train.bytes + self.validation.bytes
        share = self.validation.bytes / kept if kept else 0.0
        of_documents = self.validation.documents / max(1, self.train.documents + self.validation.documents)
        held_out = f"{self.validation.shards} shards, {share:.2%} of bytes, {of_documents:.2%} of documents"
        lines = [
            _line("train", self.train, f"{self.train.shards} shards"),
            _line("validation", self.validation, held_out),
            f"mean size         {_mean(self.train):>12,}  bytes in train, {_mean(self.validation):,} in validation",
            _line("exact duplicates", self.duplicates, "dropped"),
        ]
        if self.over_cap.documents:
            lines.append(_line("over --max-mb", self.over_cap, "dropped"))
        if self.packages:
            lines.append(f"groups            {self.packages:>12,}  of which {self.packages_held_out:,} held out")
        return "\n".join([*lines, *left_out_lines(self.left_out, self.passed_over, self.examples)])


_ADAPTER = TypeAdapter(CorpusReport)


def read_report(folder: Path) -> CorpusReport:
    """Read the report of a corpus folder.

    Raises:
        ProxyByteError: if there is none or it is damaged.
    """
    path = folder / CORPUS_REPORT
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise ProxyByteError(
            f"{folder} is no corpus folder ({CORPUS_REPORT}: {error.strerror}): make one with 'proxybyte corpus'"
        ) from error
    except ValidationError as error:
        raise ProxyByteError(f"{path} is damaged: collect the corpus again") from error


def _line(name: str, count: SplitCount, note: str) -> str:
    return f"{name:<17} {count.documents:>12,}  documents  {count.bytes / MEGABYTE:>10,.1f} MB  {note}"


def _mean(count: SplitCount) -> int:
    return round(count.bytes / count.documents) if count.documents else 0
