"""LICENSE and NOTICE travel with the code, from wherever a command is run."""

from pathlib import Path

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.licences import FILES, copy_licence

ROOT = Path(__file__).parents[2]


def test_the_metadata_of_a_checkout_does_not_hide_the_installed_one(tmp_path, monkeypatch):
    """``python -m`` puts the folder it is started in first on the path, and ``pip install -e`` leaves this there."""
    stale = tmp_path / "checkout" / "proxybyte.egg-info"
    stale.mkdir(parents=True)
    (stale / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: proxybyte\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(stale.parent))
    copy_licence(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8")


def test_a_package_without_them_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("proxybyte.hub_configs.licences.distributions", lambda name: iter(()))
    with pytest.raises(ProxyByteError, match="installed without its LICENSE"):
        copy_licence(tmp_path)
