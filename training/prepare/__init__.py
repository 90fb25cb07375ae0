"""Turn a corpus folder into a prepared folder: every document as bytes and as the codes of one compressor."""

from proxybyte.training.machine import Share
from proxybyte.training.prepare.beyond import prepare_beyond, share_beyond
from proxybyte.training.prepare.manifest import PreparedManifest, SplitTotals, read_manifest
from proxybyte.training.prepare.run import (
    PrepareOptions,
    launched_share,
    merge_as_last,
    merge_shares,
    prepare_corpus,
    prepare_share,
)
from proxybyte.training.prepare.shard import Verify

__all__ = [
    "PrepareOptions",
    "PreparedManifest",
    "Share",
    "SplitTotals",
    "Verify",
    "launched_share",
    "merge_as_last",
    "merge_shares",
    "prepare_beyond",
    "prepare_corpus",
    "prepare_share",
    "read_manifest",
    "share_beyond",
]
