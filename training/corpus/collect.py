"""Collect sources into a corpus folder, in two passes.

The first pass reads everything, judges it and remembers 32 bytes a document; then duplicates, cap and split are
decided on the whole; the second pass reads again and writes what is kept. So memory does not grow with the text,
and neither the cap nor the split depends on the order of the sources.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from proxybyte.artefacts import CORPUS_REPORT, PREPARED_MANIFEST, Split, is_hub_name
from proxybyte.checksums import digest_of_input
from proxybyte.errors import ProxyByteError
from proxybyte.folders import check_output, is_made_of, locked_output, whole_folder, write_text
from proxybyte.progress import Progress
from proxybyte.provenance import DataFacts
from proxybyte.training.corpus.folder import LISTED_PACKAGES, CorpusReport, SplitCount, SplitWriter, read_report
from proxybyte.training.corpus.split import Catalogue, Fate, SplitRule, decide
from proxybyte.training.remote import reaching
from proxybyte.training.texts.records import (
    DEFAULT_SUFFIXES,
    MEGABYTE,
    Advance,
    Document,
    LeftOut,
    Reader,
    Skip,
    TextRules,
    digest_of,
)
from proxybyte.training.texts.sources import open_path, python_packages_reader
from proxybyte.training.texts.tables import DatasetName, DatasetReader

_log = logging.getLogger(__name__)

KIND = "corpus"
"""Of output (``proxybyte.folders``)."""


@dataclass(frozen=True)
class CutReader:
    """A source whose documents come in pieces; a piece keeps the key, or the document's identity
    where it has none, so that a package stays in one split, and so does a document.

    Attributes:
        whole: the source.
        max_bytes: longest piece. A piece ends with a line where that leaves it more than half as long, otherwise
            between two characters.
    """

    whole: Reader
    max_bytes: int

    def stored_bytes(self) -> int:
        """See :class:`~.records.Reader`."""
        return self.whole.stored_bytes()

    def parts(self) -> Sequence[Reader]:
        """See :class:`~.records.Reader`."""
        return [CutReader(part, self.max_bytes) for part in self.whole.parts()]

    def identity(self) -> str:
        """See :class:`~.records.Reader`."""
        return f"{self.whole.identity()} cut to {self.max_bytes}"

    def read(self, advance: Advance) -> Iterator[Document | Skip]:
        """See :class:`~.records.Reader`."""
        for item in self.whole.read(advance):
            if isinstance(item, Skip):
                yield item
                continue
            whole = digest_of(item.text)
            start = 0
            while start < len(item.text):
                end = cut_after(item.text, start, self.max_bytes)
                name = item.source if end - start == len(item.text) else f"{item.source}@{start}"
                yield replace(item, text=item.text[start:end], source=name, whole=whole)
                start = end


def cut_after(text: bytes, start: int, max_bytes: int) -> int:
    """Where the piece of ``text`` that begins at ``start`` ends."""
    end = start + max_bytes
    if end >= len(text):
        return len(text)
    line = text.rfind(b"\n", start + max_bytes // 2, end) + 1
    if line:
        return line
    # Continuation bytes of UTF-8 are 10xxxxxx; three at most follow a first one.
    border = next((place for place in range(end, end - 4, -1) if text[place] & 0xC0 != 0x80), end)
    return border if border > start else end


@dataclass(frozen=True)
class CorpusOptions:
    """What to collect, and into which folder.

    Attributes:
        output: the corpus folder.
        paths: folders, tables (:data:`~proxybyte.training.texts.sources.TABLES`), and text files.
        python_packages: collect the standard library and the installed packages too.
        dataset: a dataset to collect too.
        suffixes: endings of the files that are taken from a folder.
        rules: what counts as a document.
        split: cap, validation share and seed.
        shard_bytes: text in one parquet shard.
        cut_bytes: cut documents into pieces of at most this size (:class:`~.cut.CutReader`); ``None`` for no cut.
        strict: stop at the first fault.
        examples: how many of the things left out the report lists.
        overwrite: replace an earlier corpus in ``output``.
        licenses, languages: what is known of the text, for the cards of models that read it.
    """

    output: Path
    paths: tuple[Path, ...] = ()
    python_packages: bool = False
    dataset: DatasetName | None = None
    suffixes: tuple[str, ...] = DEFAULT_SUFFIXES
    rules: TextRules = field(default_factory=TextRules)
    split: SplitRule = field(default_factory=SplitRule)
    shard_bytes: int = 256 * MEGABYTE
    cut_bytes: int | None = None
    strict: bool = False
    examples: int = 100
    overwrite: bool = False
    licenses: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


def collect_corpus(options: CorpusOptions) -> CorpusReport:
    """Write the corpus folder ``options.output`` and return its report.

    An output that these options made of this very text is left as it is: a command that was killed in its last moment
    may be given again.

    Raises:
        ProxyByteError: for a source that cannot be read, nothing to collect, an output that exists, or, with
            ``strict``, the first fault in the content.
    """
    with locked_output(options.output):
        return _collect(options)


def _collect(options: CorpusOptions) -> CorpusReport:
    refuse_another(options)
    readers = open_sources(options)
    return write_corpus(options, _surveys(readers, options), _documents(readers))


def _surveys(readers: list[Reader], options: CorpusOptions) -> Iterator["Survey"]:
    with _bar("reading", sum(reader.stored_bytes() for reader in readers)) as bar:
        for reader in readers:
            for part in reader.parts():
                yield survey(part, options, bar.update)


def refuse_another(options: CorpusOptions) -> None:
    """Refuse an output that holds a corpus which these options cannot have made, or something else.

    Raises:
        ProxyByteError: if it does.
    """
    if _is_there(options) and read_report(options.output).options != _asked(options):
        raise _exists(options.output)
    check_output(options.output, KIND)


def _is_there(options: CorpusOptions) -> bool:
    return (options.output / CORPUS_REPORT).exists() and not options.overwrite


def write_corpus(options: CorpusOptions, found: Iterable["Survey"], documents: Iterator[Document]) -> CorpusReport:
    """Decide on what was found, and write what is kept; the lock on the output is held.

    Args:
        options: what was asked for.
        found: what the first pass found, part by part.
        documents: the same documents once more, in the same order.

    Raises:
        ProxyByteError: if nothing was found, a document changed meanwhile, or the output holds another corpus.
    """
    catalogue, left_out, digest = Catalogue(), LeftOut(options.examples), hashlib.sha256()
    for part in found:
        catalogue.extend(*part.catalogue.content())
        left_out.merge(part.left_out)
        digest.update(part.digest.encode())
        del part  # before the next is there
    if not len(catalogue):
        raise left_out.nothing_else(", ".join(map(str, options.paths)) or "what was named")
    made_of = digest_of_input(repr(_asked(options)), digest.hexdigest())
    if _is_there(options):
        if not is_made_of(options.output, KIND, made_of):
            raise _exists(options.output)
        _log.info("%s is up to date", options.output)
        return read_report(options.output)
    fates = decide(catalogue, options.split)
    with whole_folder(options.output, KIND, made_of) as folder:
        train, validation = _write(documents, catalogue, fates, folder, options.shard_bytes)
        report = _report(options, catalogue, fates, left_out)
        report = replace(report, train=train, validation=validation)
        write_text(folder / CORPUS_REPORT, report.to_json())
    return report


def _exists(output: Path) -> ProxyByteError:
    return ProxyByteError(f"{output} holds another corpus already: name another --out or pass --overwrite")


def open_sources(options: CorpusOptions) -> list[Reader]:
    """A reader for each source.

    Raises:
        ProxyByteError: if there is none, a path is wrong or its kind is not known.
    """
    readers = [_open_path(path, options) for path in options.paths]
    if options.python_packages:
        readers.append(python_packages_reader(options.rules))
    if options.dataset is not None:
        readers.append(DatasetReader(options.dataset, options.rules))
    if options.cut_bytes is not None:
        readers = [CutReader(reader, options.cut_bytes) for reader in readers]
    if not readers:
        raise ProxyByteError("nothing to collect: name a folder or file, --python-packages or --dataset NAME")
    return readers


def _open_path(path: Path, options: CorpusOptions) -> Reader:
    with reaching(path):
        if any((path / made).is_file() for made in (CORPUS_REPORT, PREPARED_MANIFEST)):
            raise ProxyByteError(f"{path} was made by 'proxybyte corpus' or 'prepare': name what it was collected from")
        return open_path(path, options.suffixes, options.rules)


@dataclass(frozen=True)
class Survey:
    """What the first pass found in one part of the sources.

    Attributes:
        catalogue: the documents.
        left_out: what is none, or not to be had.
        digest: SHA-256 of all of it, with where each came from.
    """

    catalogue: Catalogue
    left_out: LeftOut
    digest: str


def survey(
    part: Reader, options: CorpusOptions, advance: Advance, keep: Callable[[Document], None] = lambda _: None
) -> Survey:
    """First pass over one part: what is there, and what is wrong with it.

    Args:
        part: of a source.
        options: what was asked for.
        advance: see :class:`~.records.Reader`.
        keep: called with each document.

    Raises:
        ProxyByteError: for the first fault, with ``strict``; if the part cannot be read.
    """
    catalogue, left_out, digest = Catalogue(), LeftOut(options.examples), hashlib.sha256()
    for item in part.read(advance):
        if isinstance(item, Document):
            catalogue.add(item)
            digest.update(f"{item.source}\n{item.key}\n".encode() + catalogue.digest(len(catalogue) - 1))
            keep(item)
        elif options.strict and item.reason.is_fault:
            raise ProxyByteError(f"{item}; --strict stops here, without it this is left out and counted")
        else:
            left_out.add(item)
            digest.update(f"{item}\n".encode())
    return Survey(catalogue, left_out, digest.hexdigest())


def _write(
    documents: Iterator[Document], catalogue: Catalogue, fates: np.ndarray, folder: Path, shard_bytes: int
) -> tuple[SplitCount, SplitCount]:
    """Second pass: write what is kept, in reading order; the counts of train and validation."""
    kept = int(catalogue.sizes[fates <= Fate.VALIDATION].sum())
    train, validation = (SplitWriter(folder, name, shard_bytes) for name in Split)
    writers, fate_of = {int(Fate.TRAIN): train, int(Fate.VALIDATION): validation}, fates.tobytes()  # plain, for speed
    index = -1
    with train, validation, _bar("writing", kept) as bar:
        for index, document in enumerate(documents):
            if index >= len(catalogue) or digest_of(document.text) != catalogue.digest(index):
                raise ProxyByteError(f"{document.source}, or what came before it, changed meanwhile: run again")
            writer = writers.get(fate_of[index])
            if writer is not None:
                writer.add(document)
                bar.update(len(document.text))
    if index + 1 < len(catalogue):
        raise ProxyByteError(f"{len(catalogue) - index - 1} documents at the end have gone meanwhile: run again")
    return train.close(), validation.close()


def _documents(readers: list[Reader]) -> Iterator[Document]:
    for reader in readers:
        for item in reader.read(lambda _: None):
            if not isinstance(item, Skip):
                yield item


def _report(options: CorpusOptions, catalogue: Catalogue, fates: np.ndarray, left_out: LeftOut) -> CorpusReport:
    sizes, units = catalogue.sizes, catalogue.units
    by_fate = {fate: SplitCount(int((fates == fate).sum()), int(sizes[fates == fate].sum())) for fate in Fate}
    names = catalogue.unit_names
    kept = {names[unit] for unit in np.unique(units[fates <= Fate.VALIDATION]).tolist() if unit in names}
    held_out = sorted(names[unit] for unit in np.unique(units[fates == Fate.VALIDATION]).tolist() if unit in names)
    return CorpusReport(
        options=_asked(options),
        train=by_fate[Fate.TRAIN],
        validation=by_fate[Fate.VALIDATION],
        duplicates=by_fate[Fate.DUPLICATE],
        over_cap=by_fate[Fate.OVER_CAP],
        left_out=left_out.counts,
        examples=left_out.examples,
        passed_over=left_out.passed_over,
        packages=len(kept),
        packages_held_out=len(held_out),
        validation_packages=held_out[:LISTED_PACKAGES],
        data=_told(options),
    )


def _told(options: CorpusOptions) -> DataFacts:
    """What the report says of the text; a dataset in a folder has no name that others know."""
    name = options.dataset.name if options.dataset else ""
    return DataFacts((name,) if is_hub_name(name) else (), options.licenses, options.languages)


def _asked(options: CorpusOptions) -> dict[str, Any]:
    """The options as the report holds them: without paths of this machine, and what is done to an earlier output."""
    paths = tuple(Path(path.name) for path in options.paths)
    asked = replace(options, output=Path(options.output.name), paths=paths, overwrite=False)
    return TypeAdapter(CorpusOptions).dump_python(asked, mode="json")


def _bar(what: str, total: int) -> Progress:
    """A progress bar in bytes that shows itself after two seconds."""
    return Progress(total=total, desc=what, unit="B", unit_scale=True, delay=2)
