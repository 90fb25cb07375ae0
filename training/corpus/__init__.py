"""Collect text into a corpus folder: readers for each kind of source, a split that leaks nothing, a shard writer."""

from proxybyte.training.corpus.collect import CorpusOptions, collect_corpus
from proxybyte.training.corpus.folder import CorpusReport, read_report

__all__ = ["CorpusOptions", "CorpusReport", "collect_corpus", "read_report"]
