"""Files of ours whose code runs from text to loss, and of them those that run again for every step.

``python tests/benchmarks/files_to_loss.py`` prints both lists; docs/architecture.md holds the counts.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM
from proxybyte.training.compressors import load_compressor
from proxybyte.training.corpus import CorpusOptions, collect_corpus
from proxybyte.training.prepare import PrepareOptions, prepare_corpus
from proxybyte.training.run.data import read_rows
from proxybyte.training.stream.mixed_view import MixedViewDataset, collate
from proxybyte.training.stream.placement import Lengths
from proxybyte.training.stream.plan import PlanConfig, StreamPlan
from proxybyte.training.stream.prepared import PreparedSplit

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("modeling_proxy", "training", "eval", "hub_configs")
BACKBONE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


@contextmanager
def files_that_run(found: set[str]) -> Iterator[None]:
    """Add the files of ours whose functions are called meanwhile in this thread."""

    def called(frame: Any, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ROOMS:
            found.add(str(path.relative_to(ROOT)))

    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)


def prepare(folder: Path) -> MixedViewDataset:
    """From text files to rows."""
    (folder / "text").mkdir()
    for number in range(40):
        (folder / "text" / f"{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 8)
    collect_corpus(CorpusOptions(folder / "corpus", paths=[folder / "text"]))
    prepare_corpus(PrepareOptions(folder / "corpus", "bits-8", folder / "prepared", workers=1))
    split = PreparedSplit(folder / "prepared" / "train")
    plan = StreamPlan(Lengths(split.n_bytes, split.n_symbols, None), PlanConfig(row_length=64, budget=1), 2)
    return MixedViewDataset(split, plan)


def step(rows: MixedViewDataset, model: ProxyByteForCausalLM) -> Callable[[], None]:
    """One step's rows and their loss."""

    def run() -> None:
        model(**collate(read_rows(rows, [0, 1])).model_inputs()).loss.backward()

    return run


def main() -> None:
    """Print the two lists."""
    whole: set[str] = set()
    hot: set[str] = set()
    with tempfile.TemporaryDirectory() as folder, files_that_run(whole):
        rows = prepare(Path(folder))
        codes = load_compressor("bits-8").num_symbols
        model = ProxyByteForCausalLM(ProxyByteConfig(backbone_config=BACKBONE, num_compressed_symbols=codes))
        work = step(rows, model)
        work()
        sys.setprofile(None)
        with files_that_run(hot):
            work()
    for title, files in (("from text to loss", whole | hot), ("of them for every step", hot)):
        print(f"{len(files)} files {title}:")
        print(*(f"  {name}" for name in sorted(files)), sep="\n")


if __name__ == "__main__":
    main()
