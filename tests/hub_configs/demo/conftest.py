"""A small model with heads and a compressor beside it, and the page that shows it."""

import pytest

from proxybyte.hub_configs.demo.app import build_app, serve
from proxybyte.hub_configs.demo.model import DemoModel
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.training.compressors.bpe_train import Split, train_bpe


@pytest.fixture(scope="session")
def demo_run(model_writer, tmp_path_factory):
    """A run whose model has heads, with a small BPE beside it."""
    home = tmp_path_factory.mktemp("demo") / "run"
    bpe = train_bpe([b"def f(self):\n    return self\n" * 20], 290, Split.CODE)
    model_writer(home / "model", "llama", num_raw_pred_heads=3, num_compressed_symbols=bpe.num_symbols)
    bpe.save(home / "compressor")
    return home


@pytest.fixture(scope="session")
def demo_native(demo_run, tmp_path_factory):
    return export_model(demo_run, tmp_path_factory.mktemp("demo") / "native", ExportOptions(ExportFormat.NATIVE))


@pytest.fixture(scope="session")
def demo_model(demo_run):
    return DemoModel.load(demo_run, ["gzip", "bits-16"])


@pytest.fixture(scope="session")
def page(demo_model):
    """Address of the page, served by this process."""
    pytest.importorskip("gradio")
    app = build_app(demo_model, "small")
    yield serve(app, None, None, wait=False)
    app.close()
