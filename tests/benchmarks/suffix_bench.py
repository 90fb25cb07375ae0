"""What suffix rows cost where a model writes: the look-up in the trie, and the hash, beside a model without them.

A Llama of 1M parameters beside its rows, the smallest for which it matters, writes greedily on one core; the three
take turns, so that whatever else the machine does hits all of them. The look-up is as long as it is for any model.
"""

import statistics
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from figures import Figure, one_core

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.byte_codec import encode_bytes
from proxybyte.hub_configs import load_preset
from proxybyte.suffix_rows import SuffixTable
from proxybyte.training.compressors.bpe_train import train_bpe

CODES = 4096
NEW = 96
TURNS = 7


def measure(long: bool) -> Iterator[Figure]:
    """Rows ``suffix_exact_generate`` and ``suffix_hashed_generate``."""
    texts = [path.read_bytes() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]]
    spelled = train_bpe([text for text in texts if text], CODES).spelled
    models = {name: _model() for name in ("none", "exact", "hashed")}
    models["exact"].add_suffix_rows(SuffixTable.build(spelled or []), 0.5)
    models["hashed"].add_hashed_suffix_rows(4, 0.5)
    prompt = torch.tensor([[12, *encode_bytes(texts[0][:128]).tolist()]])
    speeds: dict[str, list[float]] = {name: [] for name in models}
    with one_core():
        for _ in range(TURNS):
            for name, model in models.items():
                start = time.process_time()
                model.generate(prompt, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
                speeds[name].append(NEW / (time.process_time() - start))
    baseline = statistics.median(speeds["none"][1:])
    for name, what in (("exact", f"the longest of {CODES} BPE symbols"), ("hashed", "the last 4 bytes, hashed")):
        value = statistics.median(speeds[name][1:])
        yield {
            "name": f"suffix_{name}_generate",
            "value": value,
            "unit": f"bytes/CPU s, greedy, batch 1, tiny-llama, each byte read with the row of {what}; baseline: none",
            "baseline": baseline,
            "ratio": value / baseline,
        }


def _model() -> ProxyByteForCausalLM:
    backbone = dict(load_preset("tiny-llama").backbone_config)
    torch.manual_seed(0)
    return ProxyByteForCausalLM(ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=CODES)).eval()
