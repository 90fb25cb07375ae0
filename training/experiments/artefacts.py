"""What the cells of a plan share, built once: the corpus, the fitted compressors, the prepared datasets.

Each is made by the public command, so that a plan holds nothing that could not be done by hand, and a process that
shares the folder waits while another one builds. Beside each lies ``NAME.settings.json``: what it was made of.
"""

import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxybyte.cli import main as proxybyte
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_text

from ..compressors.protocol import MANIFEST as COMPRESSOR_MANIFEST
from ..corpus.report import REPORT as CORPUS_MANIFEST
from ..prepare.manifest import MANIFEST as PREPARED_MANIFEST
from .claims import claim, wait_for_claim
from .schema import CompressorConfig, CorpusConfig, ExperimentPlan, Scalar
from .settings import Settings, refuse_changed, settings_of

log = logging.getLogger(__name__)

RAW_ONLY_COMPRESSOR = "gzip"
"""Prepared with where no arm has a compressor: a dataset carries one, and this one needs no fitting."""


@dataclass(frozen=True)
class Artefacts:
    """The shared folders of a plan.

    Attributes:
        plan: what they are made for.
        folder: where they lie.
        workers: processes for preparing; 0 for one a core.
    """

    plan: ExperimentPlan
    folder: Path
    workers: int = 0

    def prepared(self, compressor: str | None) -> Path:
        """The dataset prepared with a compressor of the plan, built with all that it rests on if it is not there.

        Raises:
            ProxyByteError: if the corpus is missing, or one of the commands fails.
        """
        name = compressor or next(iter(self.plan.compressors), RAW_ONLY_COMPRESSOR)
        output = self.folder / "prepared" / name
        settings = self._settings(name)
        if not _is_made(output, PREPARED_MANIFEST, settings):
            corpus = self.corpus()
            words = ["prepare", str(corpus), "--compressor", self._compressor(name, corpus), "--out", str(output)]
            _build(output, PREPARED_MANIFEST, [*words, "--workers", str(self.workers)], settings)
        return output

    def corpus(self) -> Path:
        """The corpus folder."""
        asked = self.plan.corpus
        if asked.folder is not None:
            if not (asked.folder / CORPUS_MANIFEST).is_file():
                raise ProxyByteError(
                    f"corpus.folder {asked.folder} holds no corpus ({CORPUS_MANIFEST} is missing): "
                    "make one with 'proxybyte corpus', or name sources"
                )
            return asked.folder
        output = self.folder / "corpus"
        _build(output, CORPUS_MANIFEST, _corpus_words(asked, output), settings_of({"corpus": asked}, {}))
        return output

    def _settings(self, compressor: str) -> Settings:
        """What a compressor, and the data prepared with it, are made of."""
        known = self.plan.compressors.get(compressor, CompressorConfig(use=compressor))
        return settings_of({"corpus": self.plan.corpus, "compressor": known}, {})

    def _compressor(self, name: str, corpus: Path) -> str:
        """Name or folder of a compressor, fitted if it has to be."""
        if name not in self.plan.compressors:
            return name
        asked, settings = self.plan.compressors[name], self._settings(name)
        if asked.use is not None:
            return asked.use
        output = self.folder / "compressors" / name
        fitted = output if asked.compile is None else output.with_name(f"{name}-m1")
        _build(fitted, COMPRESSOR_MANIFEST, _fit_words(asked, corpus, fitted), settings)
        if asked.compile is not None:
            words = ["compressor", "compile", str(fitted), "--out", str(output), *_options(asked.compile, corpus)]
            _build(output, COMPRESSOR_MANIFEST, words, settings)
        return str(output)


def _corpus_words(asked: CorpusConfig, output: Path) -> list[str]:
    missing = next((path for path in asked.sources if not path.exists()), None)
    if missing is not None:
        raise ProxyByteError(f"corpus.sources names {missing}, which does not exist")
    words = ["corpus", *map(str, asked.sources), "--out", str(output)]
    words += ["--validation-share", str(asked.validation_share), "--seed", str(asked.seed)]
    words += ["--python-packages"] if asked.python_packages else []
    limits = {"--max-mb": asked.max_mb, "--max-document-mb": asked.max_document_mb}
    return words + [word for name, value in limits.items() if value is not None for word in (name, str(value))]


def _fit_words(asked: CompressorConfig, corpus: Path, output: Path) -> list[str]:
    words = ["compressor", "fit", str(asked.fit), "--corpus", str(corpus), "--out", str(output)]
    return words + _options(asked.options, corpus)


def _options(values: Mapping[str, Scalar], corpus: Path) -> list[str]:
    """Command-line options of a family; the value ``CORPUS`` stands for the plan's corpus folder."""
    words: list[str] = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, str(corpus) if value == "CORPUS" else str(value)]
    return words


def _record(output: Path) -> Path:
    return output.with_name(f"{output.name}.settings.json")


def _is_made(output: Path, marker: str, settings: Settings) -> bool:
    """Whether ``output`` is there.

    Raises:
        ProxyByteError: if it was made with other settings, so that new cells would not be what the plan says.
    """
    if not (output / marker).is_file():
        return False
    record = _record(output)
    if record.is_file():  # there is none beside what earlier versions made
        refuse_changed(json.loads(record.read_bytes()), settings, record)
    return True


def _build(output: Path, marker: str, words: list[str], settings: Settings) -> None:
    """Run a command that makes ``output`` once, whatever number of processes ask for it."""
    while not _is_made(output, marker, settings):
        with claim(output) as mine:
            if mine and not _is_made(output, marker, settings):
                write_text(_record(output), json.dumps(settings.values, indent=1))
                log.info("$ proxybyte %s", shlex.join(words))
                try:
                    code = proxybyte(words)
                except SystemExit as stop:  # argparse has said why
                    code = 2 if stop.code else 0
                if code:
                    raise ProxyByteError(f"{output} could not be made: 'proxybyte {shlex.join(words)}' says why above")
        if not mine:
            wait_for_claim(output)
