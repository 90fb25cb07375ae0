"""Turn a corpus folder into a prepared folder: every document as bytes and as the codes of one compressor."""

from proxybyte.training.prepare.manifest import PreparedManifest, SplitTotals, read_manifest
from proxybyte.training.prepare.run import PrepareOptions, prepare_corpus
from proxybyte.training.prepare.shard import Verify

__all__ = ["PrepareOptions", "PreparedManifest", "SplitTotals", "Verify", "prepare_corpus", "read_manifest"]
