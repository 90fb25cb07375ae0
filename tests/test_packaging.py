"""The wheel and the editable install put one package on the path, and every module of it imports."""

import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from proxybyte.artefacts import BOX_FOLDER

ROOT = Path(__file__).parent.parent
ROOMS = ("modeling_proxy", "training", "eval", "hub_configs")
NUM_MODULES = sum(path.parent.name != "templates" for room in ROOMS for path in (ROOT / room).rglob("*.py"))
IMPORT_ALL = """
import importlib, pkgutil, proxybyte
rooms = ("proxybyte", "proxybyte.training", "proxybyte.eval", "proxybyte.hub_configs")
names = set(rooms)
for room in rooms:
    names |= {m.name for m in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}.")}
for name in names:
    importlib.import_module(name)
print(len(names), proxybyte.__path__[0])
"""


def run(*command, **kwargs) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def clean_python(tmp_path) -> Path:
    """An interpreter that sees the dependencies of this one but not this package.

    A folder named in a ``.pth`` file has its own ``.pth`` files left unread, so an editable install in it is unseen.
    """
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    folders = [path for path in sys.path if path.endswith("site-packages")] or [sysconfig.get_path("purelib")]
    (site / "dependencies.pth").write_text("\n".join(folders) + "\n")
    seen = run(python, "-c", "import importlib.util; print(importlib.util.find_spec('proxybyte'))", cwd=tmp_path)
    assert seen.strip() == "None"
    return python


def pip_install(python: Path, *what) -> None:
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *what)


def copy_of_the_source(folder: Path) -> Path:
    """The tracked files and the untracked ones git would track: building in place would leave files behind."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\n")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def test_every_module_of_the_wheel_imports(tmp_path, clean_python):
    source = copy_of_the_source(tmp_path / "source")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source)
    (wheel,) = tmp_path.glob("proxybyte-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert {f"proxybyte/box/{path.name}" for path in BOX_FOLDER.iterdir()} <= set(packed.namelist())
    pip_install(clean_python, wheel)
    count, place = run(clean_python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    assert int(count) == NUM_MODULES
    assert str(tmp_path / "venv") in place
    assert "COMMAND" in run(clean_python.parent / "proxybyte", "--help", cwd=tmp_path)
    top_level = {path.name for path in Path(place).parent.iterdir()}
    assert not top_level & {"training", "eval", "tests", "hub_configs", "modeling_proxy"}
    presets = list((Path(place) / "hub_configs").rglob("*.yaml"))
    assert len(presets) == len(list((ROOT / "hub_configs").rglob("*.yaml")))


def test_one_version_stands_everywhere():
    """That of setup.py, which is the installed one, beside the citation and the newest section of the changelog."""
    (version,) = re.findall(r'version="([^"]+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert metadata.version("proxybyte") == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\d\S*) \(\d{4}-\d\d-\d\d\)$", changelog, re.MULTILINE)[0] == version
    assert changelog.index("## Unreleased") < changelog.index(f"## {version} ")


def test_the_license_is_the_one_that_is_declared():
    assert citation_license() == "Apache-2.0"
    assert "Apache-2.0" in (
        metadata.metadata("proxybyte")["License"],
        metadata.metadata("proxybyte")["License-Expression"],
    )
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def citation_license() -> str:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["license"]


def test_hooks_run_the_versions_that_are_tested():
    pinned = set((ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n"))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "codespell", "large-files"}
    wanted = {needed for hook in hooks for needed in hook["additional_dependencies"] if "pre-commit" not in needed}
    assert wanted <= pinned


def test_an_editable_install_follows_the_source(tmp_path, clean_python):
    source = copy_of_the_source(tmp_path / "source")
    pip_install(clean_python, "--editable", source)
    count, place = run(clean_python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    assert int(count) == NUM_MODULES
    assert place == str(source / "modeling_proxy")
    (source / "training" / "fresh.py").write_text("ANSWER = 42\n")
    fresh = "import proxybyte.training.fresh as f; print(f.ANSWER)"
    assert run(clean_python, "-c", fresh, cwd=tmp_path).strip() == "42"
