"""The dependency rule of docs/architecture.md, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "modeling_proxy": "proxybyte",
    "training": "proxybyte.training",
    "eval": "proxybyte.eval",
    "hub_configs": "proxybyte.hub_configs",
}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.parent.name != "templates")
HUB_MAY_IMPORT = {"torch", "transformers", "numpy", "tokenizers", "huggingface_hub", "safetensors"}
HOUSE_MAY_IMPORT = HUB_MAY_IMPORT | {"filelock", "matplotlib", "pyarrow", "pydantic", "shtab", "tqdm", "zstandard"}
STAYS_HOME = {"cli", "numbers", "user_paths", "folders", "locks", "checksums", "faults", "privacy", "progress"}
STAYS_HOME |= {"artefacts", "model_loading", "provenance"}
"""Modules of the model's room that do not travel to the Hub."""
SIBLING_ROOMS = ("proxybyte.training", "proxybyte.eval", "proxybyte.hub_configs")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(level, dotted module) of every import statement, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def test_there_is_no_folder_that_shadows_the_package():
    assert not (ROOT / "proxybyte").exists()
    assert all((ROOT / room / "__init__.py").exists() for room in ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_what_they_may(path):
    room = room_of(path)
    own = ROOMS[room]
    for level, module in imports_of(path):
        if room == "modeling_proxy":
            assert level <= 1, f"{path}: '{'.' * level}{module}' cannot travel to the Hub"
            assert not (level and "." in module), f"{path}: '.{module}' is not in the same folder"
            top = module.split(".")[0]
            standard = top in sys.stdlib_module_names
            allowed = HOUSE_MAY_IMPORT if path.stem in STAYS_HOME else HUB_MAY_IMPORT
            assert level or standard or top in allowed, f"{path} imports {module}"
            continue
        assert level <= 2, f"{path}: relative import {'.' * level}{module} leaves its package"
        foreign = [sibling for sibling in SIBLING_ROOMS if sibling != own and module.startswith(f"{sibling}.")]
        assert not foreign, f"{path} imports {module}: take it from {foreign[0]} itself, its public names"


def reached_from(*names: str) -> set[str]:
    """Modules of the model's room that Transformers carries along: by ``from .x import y``, from file to file."""
    reached, waiting = set(), set(names)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        imports = imports_of(ROOT / "modeling_proxy" / f"{name}.py")
        waiting |= {module for level, module in imports if level and module} - reached
    return reached


def test_what_no_model_needs_does_not_travel_to_the_hub():
    reached = reached_from("modeling_proxybyte", "configuration_proxybyte", "tokenization_proxybyte")
    assert "errors" in reached
    assert not reached & {*STAYS_HOME, ""}


def test_sixteen_files_travel_and_the_page_names_each(tmp_path):
    from proxybyte import ProxyByteConfig, ProxyByteForCausalLM

    backbone = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    config = ProxyByteConfig(backbone_config={**backbone, "num_hidden_layers": 1, "num_key_value_heads": 1})
    ProxyByteForCausalLM(config).save_pretrained(tmp_path)
    carried = {path.stem for path in tmp_path.glob("*.py")}
    assert carried == reached_from("modeling_proxybyte", "configuration_proxybyte")
    assert len(carried) == 16
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    told = page.partition("| file | question |\n")[2].partition("\n\n")[0]
    assert carried == {name for line in told.splitlines() for name in line.split("|")[1].split("`")[1::2]}


def test_what_travels_repeats_no_name_that_its_owner_at_home_spells_otherwise():
    from proxybyte import artefacts, hub_upload, provenance
    from proxybyte.hub_configs.card_facts import EXPORT_REPORT

    origins = {provenance.BYTEIFY_REPORT, provenance.TRAINING_REPORT, EXPORT_REPORT}
    assert origins < set(hub_upload._FILES)
    assert set(hub_upload._FOLDERS) == {artefacts.COMPRESSOR_FOLDER, artefacts.CHAT_FOLDER}
    assert hub_upload._MODEL == artefacts.MODEL_FOLDER


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 500, f"{path} is long: split it by responsibility"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name} is long"


def test_no_module_is_loaded_under_two_names():
    """Importing the whole package loads each of our files once (a folder on sys.path would load some twice)."""
    script = """
import collections, importlib, pkgutil, sys
for room in ("proxybyte", "proxybyte.training", "proxybyte.eval", "proxybyte.hub_configs"):
    for module in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}."):
        importlib.import_module(module.name)
files = collections.Counter(m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)
                            and "__spec__" in vars(m) and m.__spec__ and m.__spec__.name.startswith("proxybyte"))
names = [n for n in sys.modules if n.split(".")[0] in ("modeling_proxy", "training", "hub_configs")]
assert max(files.values()) == 1, files.most_common(3)
assert not names, names
print(len(files))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= len(FILES)


def test_help_does_not_wait_for_torch():
    script = "import sys; from proxybyte.cli import build_parser, load_commands; build_parser(load_commands()); "
    script += "print([m for m in ('torch', 'transformers', 'datasets', 'accelerate') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
