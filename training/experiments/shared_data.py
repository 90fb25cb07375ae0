"""What the cells of a plan share, built once: the corpus, the fitted compressors, the prepared datasets.

Each is made by what the public command calls, so that a plan holds nothing that could not be done by hand; a process
that shares the folder waits while another one builds. Beside each lies ``NAME.settings.json``: what it was made of.
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxybyte.artefacts import COMPRESSOR_MANIFEST, CORPUS_REPORT, PREPARED_MANIFEST
from proxybyte.checksums import verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.folders import tidy, write_text
from proxybyte.locks import hold_if_free, wait_until_free

from ..compressors import FAMILIES
from ..compressors.codebook_compile import COMPILER
from ..corpus import CorpusOptions, collect_corpus
from ..corpus.split import SplitRule
from ..prepare import PrepareOptions, prepare_corpus
from ..texts.records import MEGABYTE, TextRules
from .recorded import Settings, refuse_changed, settings_of
from .schema import CompressorConfig, CorpusConfig, ExperimentPlan, Scalar

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
        tidy(output)  # whoever made it may have been killed behind its last write
        if not _is_made(output, PREPARED_MANIFEST, settings):
            corpus = self.corpus()
            options = PrepareOptions(corpus, self._compressor(name, corpus), output, self.workers)
            _build(output, PREPARED_MANIFEST, lambda: prepare_corpus(options), settings)
        return output

    def corpus(self) -> Path:
        """The corpus folder."""
        asked = self.plan.corpus
        if asked.folder is not None:
            if not (asked.folder / CORPUS_REPORT).is_file():
                raise ProxyByteError(
                    f"corpus.folder {asked.folder} holds no corpus ({CORPUS_REPORT} is missing): "
                    "make one with 'proxybyte corpus', or name sources"
                )
            return asked.folder
        output = self.folder / "corpus"
        options = _corpus_options(asked, output)
        _build(output, CORPUS_REPORT, lambda: collect_corpus(options), settings_of({"corpus": asked}, {}))
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
        where = f"{self.plan.title}: compressors.{name}"
        fitter = FAMILIES[str(asked.fit)].load_fitter()
        given = {**_with_corpus(asked.options, corpus), "corpus": [corpus], "out": fitted}
        _build(fitted, COMPRESSOR_MANIFEST, lambda: fitter.fit(_chosen(fitter.add_arguments, given, where)), settings)
        if asked.compile is not None:
            chosen = {**_with_corpus(asked.compile, corpus), "m1": fitted, "out": output}
            arguments = _chosen(COMPILER.add_arguments, chosen, f"{where}.compile")
            _build(output, COMPRESSOR_MANIFEST, lambda: COMPILER.fit(arguments), settings)
        return str(output)


def _corpus_options(asked: CorpusConfig, output: Path) -> CorpusOptions:
    missing = next((path for path in asked.sources if not path.exists()), None)
    if missing is not None:
        raise ProxyByteError(f"corpus.sources names {missing}, which does not exist")
    limit = None if asked.max_mb is None else int(asked.max_mb * MEGABYTE)
    rules = TextRules() if asked.max_document_mb is None else TextRules(max_bytes=int(asked.max_document_mb * MEGABYTE))
    return CorpusOptions(
        output,
        paths=asked.sources,
        python_packages=asked.python_packages,
        rules=rules,
        split=SplitRule(asked.validation_share, limit, asked.seed),
    )


def _with_corpus(values: Mapping[str, Scalar], corpus: Path) -> dict[str, Any]:
    """Options of a family; the value ``CORPUS`` stands for the plan's corpus folder."""
    return {key.replace("-", "_"): [corpus] if value == "CORPUS" else value for key, value in values.items()}


def _chosen(
    add_arguments: Callable[[argparse.ArgumentParser], None], values: Mapping[str, Any], where: str
) -> argparse.Namespace:
    """The options that a command declares, those in ``values`` in place of their defaults.

    Raises:
        ProxyByteError: if an option is unknown, or its value of another kind or none of its choices.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    known = {action.dest: action for action in parser._actions}
    chosen = {name: action.default for name, action in known.items()}
    for name, value in values.items():
        if name == "out":  # declared by the command around the family
            chosen[name] = value
            continue
        if name not in known:
            raise ProxyByteError(f"{where}: unknown option {name}: the options are {', '.join(sorted(known))}")
        kind, choices = known[name].type, known[name].choices
        try:
            chosen[name] = kind(str(value)) if callable(kind) and not isinstance(value, list | Path) else value
            if known[name].nargs in ("+", "*") and not isinstance(value, list):
                chosen[name] = [chosen[name]]
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ProxyByteError(f"{where}: option {name} cannot be {value!r}") from error
        if choices is not None and chosen[name] not in choices:
            raise ProxyByteError(f"{where}: option {name} is {value!r}: give one of {', '.join(map(str, choices))}")
    return argparse.Namespace(**chosen)


def _record(output: Path) -> Path:
    return output.with_name(f"{output.name}.settings.json")


def _is_made(output: Path, marker: str, settings: Settings) -> bool:
    """Whether ``output`` is there.

    Raises:
        ProxyByteError: if a file of it has changed since, or it was made with other settings, so that new cells would
            not be what the plan says.
    """
    if not (output / marker).is_file():
        return False
    verify_folder(output)
    record = _record(output)
    refuse_changed(json.loads(record.read_bytes()), settings, record)
    return True


def _build(output: Path, marker: str, make: Callable[[], object], settings: Settings) -> None:
    """Make ``output`` once, whatever number of processes ask for it."""
    tidy(output)  # whoever made it may have been killed behind its last write
    while not _is_made(output, marker, settings):
        with hold_if_free(output) as mine:
            if mine and not _is_made(output, marker, settings):
                log.info("making %s", output)
                write_text(_record(output), json.dumps(settings.values, indent=1))
                try:
                    made = make()
                except ProxyByteError as error:
                    raise ProxyByteError(f"{output} could not be made: {error}") from error
                log.info("%s", made)
        if not mine:
            log.info("waiting for the process that makes %s", output)
            wait_until_free(output)
