"""The folder of a Space runs beside the packages that its requirements name, and without this package installed."""

import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.demo.space import export_space

gradio_client = pytest.importorskip("gradio_client")
BLOCKER = """
import sys
from importlib.machinery import PathFinder
ALLOWED, KNOWN = {allowed!r}, {known!r}
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        if path is None and top in KNOWN and top not in ALLOWED:
            return None
        return PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
sys.dont_write_bytecode = True
"""


@pytest.fixture(scope="module")
def space(demo_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("space") / "my-space"
    assert main(["demo", str(demo_run), "--export-space", str(out), "--compressor", "bits-16"]) == 0
    return out


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: list[str]) -> set[str]:
    """Distributions that are installed with ``names``."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = plain(waiting.pop())
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        wanted = [Requirement(line) for line in needs]
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_it_holds_what_a_space_needs_in_the_versions_that_are_installed(space):
    card = (space / "README.md").read_text(encoding="utf-8")
    about = yaml.safe_load(card.split("---")[1])
    assert about["sdk"] == "gradio" and (space / about["app_file"]).is_file()
    assert about["sdk_version"] == metadata.version("gradio")
    for line in (space / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name, version = line.split("==")
        assert metadata.version(name).partition("+")[0] == version
    assert (space / "proxybyte" / "LICENSE").is_file()
    assert not list(space.rglob("*.pyc"))


def test_it_runs_alone(space, tmp_path):
    """In a process that finds no package but those of requirements.txt and what they bring."""
    names = re.findall(r"^([\w-]+)==", (space / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    allowed = closure(names)
    by_module = metadata.packages_distributions()
    modules = {module for module, homes in by_module.items() if {plain(home) for home in homes} & allowed}
    known = {module for module in by_module if not module.startswith("_")} - {"proxybyte"}
    blocker = BLOCKER.format(allowed=sorted(modules), known=sorted(known))
    start = f"{blocker}\nsys.path.insert(0, {str(space)!r})\nimport runpy\n"
    start += f"import proxybyte; assert proxybyte.__file__.startswith({str(space)!r}), proxybyte.__file__\n"
    start += f"runpy.run_path({str(space / 'app.py')!r}, run_name='__main__')\n"
    (tmp_path / "start.py").write_text(start)
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "out").open("w") as out:
        words = [sys.executable, "-u", str(tmp_path / "start.py")]
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path)
    try:
        end = time.time() + 120
        while not (found := re.search(r"http://\S+", (tmp_path / "out").read_text())):
            assert process.poll() is None and time.time() < end, (tmp_path / "out").read_text()
            time.sleep(0.2)
        with pytest.MonkeyPatch.context() as patch:
            from huggingface_hub import constants

            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            client = gradio_client.Client(found[0], verbose=False, analytics_enabled=False)
        shown, steps = client.predict("abcabcabc", 20, 0, "heads and repeats", api_name="/write")
        assert "done: 20 bytes" in shown and "steps" in steps
        assert "bits-16" in client.predict("abc", api_name="/look")
    finally:
        process.terminate()
        process.wait(30)


def test_a_folder_that_is_there_is_replaced_on_demand_alone(space, demo_run):
    with pytest.raises(ProxyByteError, match="exists: choose another folder or pass --force"):
        export_space(demo_run, space)
    before = (space / "README.md").read_bytes()
    assert main(["demo", str(demo_run), "--export-space", str(space), "--compressor", "bits-16", "--force"]) == 0
    assert (space / "README.md").read_bytes() == before


def test_a_space_that_would_name_this_machine_is_refused(demo_run, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(demo_run, tmp_path / "run")
    (tmp_path / "run" / "model" / "notes.txt").write_text(f"made in {Path.home()}/work by somebody")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run" / "model" / "notes.txt").write_text(f"made in {tmp_path}/work")
    with pytest.raises(ProxyByteError, match=r"would say whose machine this is \(model/notes.txt"):
        export_space(tmp_path / "run", tmp_path / "space")
    assert not (tmp_path / "space").exists()
