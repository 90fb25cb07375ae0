"""Collect text into a corpus folder: readers for each kind of source, a split that leaks nothing, a shard writer."""

from proxybyte.training.corpus.collect import KIND, CorpusOptions, collect_corpus
from proxybyte.training.corpus.folder import CorpusReport, read_report
from proxybyte.training.corpus.shares import collect_share, merge_corpus

__all__ = ["KIND", "CorpusOptions", "CorpusReport", "collect_corpus", "collect_share", "merge_corpus", "read_report"]
