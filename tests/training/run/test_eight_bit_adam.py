"""AdamW with its moments in 8 bits, where bitsandbytes is installed."""

import shutil
from importlib.util import find_spec

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train

INSTALLED = find_spec("bitsandbytes") is not None
WIDE = "model.backbone_config.hidden_size=128"


@pytest.mark.skipif(INSTALLED, reason="bitsandbytes is installed here")
def test_without_the_package_it_is_named(recipe):
    with pytest.raises(ProxyByteError, match="needs the package bitsandbytes: pip install bitsandbytes"):
        train(load_config(recipe(), ["optimizer.kind=adamw_8bit"]))


@pytest.mark.skipif(not INSTALLED, reason="needs bitsandbytes")
def test_a_resumed_run_is_the_uninterrupted_one_and_its_state_is_small(recipe, tmp_path, read_losses):
    sizes = {}
    for kind in ("adamw", "adamw_8bit"):
        config = load_config(recipe(), [f"optimizer.kind={kind}", WIDE, f"output={tmp_path / kind}"])
        train(config)
        sizes[kind] = (config.output / "checkpoints" / "step-00000008" / "optimizer.safetensors").stat().st_size
    before = read_losses(tmp_path / "adamw_8bit")
    shutil.rmtree(tmp_path / "adamw_8bit" / "checkpoints" / "step-00000008")
    train(load_config(recipe(), ["optimizer.kind=adamw_8bit", WIDE, f"output={tmp_path / 'adamw_8bit'}"]))
    assert read_losses(tmp_path / "adamw_8bit") == before
    assert sizes["adamw_8bit"] < 0.5 * sizes["adamw"]
