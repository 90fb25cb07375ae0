"""The order of the sub-rooms in docs/architecture.md ("Layers"), read from the source: nothing imports upwards.

Imports inside functions and under ``TYPE_CHECKING`` count too: a circle that a late import hides is a circle.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"modeling_proxy": "proxybyte", "training": "proxybyte.training", "eval": "proxybyte.eval"}
ROOMS["hub_configs"] = "proxybyte.hub_configs"

LAYERS: dict[str, tuple[str, ...]] = {
    "model": ("proxybyte",),
    "artefacts": ("proxybyte.artefacts", "proxybyte.model_loading"),
    "settings": ("proxybyte.training.settings", "proxybyte.hub_configs.presets"),
    "machine": (
        "proxybyte.training.machine",
        "proxybyte.training.remote",
        "proxybyte.training.signs_of_life",
        "proxybyte.training.drawn_text",
    ),
    "texts": ("proxybyte.training.texts",),
    "compressors": ("proxybyte.training.compressors",),
    "corpus": ("proxybyte.training.corpus",),
    "prepare": ("proxybyte.training.prepare",),
    "stream": ("proxybyte.training.stream",),
    "scoring": (
        "proxybyte.eval.scoring",
        "proxybyte.eval.bpb",
        "proxybyte.eval.baselines",
        "proxybyte.eval.surprisal",
        "proxybyte.eval.comparing",
        "proxybyte.eval.completing",
    ),
    "chat": ("proxybyte.training.chat",),
    "byteify": ("proxybyte.training.byteify",),
    "run": ("proxybyte.training.run", "proxybyte.training.train"),
    "run page": ("proxybyte.training.run_page",),
    "held-out data": ("proxybyte.eval.loading", "proxybyte.eval.documents"),
    "noise": ("proxybyte.eval.noise",),
    "sandbox": ("proxybyte.eval.sandbox",),
    "code": ("proxybyte.eval.code",),
    "robustness": ("proxybyte.eval.robustness",),
    "transfer": ("proxybyte.eval.transfer",),
    "tasks": (
        "proxybyte.eval.tasks",
        "proxybyte.eval.lm_eval",
        "proxybyte.eval.lm_eval_chat",
        "proxybyte.eval.lm_eval_model",
    ),
    "export": ("proxybyte.hub_configs",),
    "experiments": ("proxybyte.training.experiments",),
    "commands": (
        "proxybyte.training.commands",
        "proxybyte.eval.commands",
        "proxybyte.hub_configs.commands",
    ),
}
"""Sub-rooms from the ground up, each with the modules and packages that it is made of."""
RANK = {name: number for number, name in enumerate(LAYERS)}
FACADES = {"proxybyte", "proxybyte.training", "proxybyte.eval", "proxybyte.hub_configs"}
"""The ``__init__`` files that list public names: what is imported from them counts as imported from its home."""


def module_of(path: Path) -> str:
    room, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([ROOMS[room], *(part for part in rest if part != "__init__")])


MODULES = {module_of(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def imported(module: str) -> set[tuple[str, str]]:
    """(module, name) of every import of ours in a file; the name is empty for ``import module``."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {(home, alias.name) for alias in node.names}
    return {(home, name) for home, name in found if home.split(".")[0] == "proxybyte"}


def home_of(module: str, name: str) -> str:
    """The file in which a name that is imported from ``module`` is written."""
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    if name and MODULES[module].name == "__init__.py":
        for source, passed_on in sorted(imported(module)):
            if passed_on == name and source != module:
                return home_of(source, name)
    return module


EDGES = {
    module: {home_of(*pair) for pair in imported(module)} - {module} for module in MODULES if module not in FACADES
}


def layer_of(module: str) -> str:
    """The sub-room whose longest prefix of ``module`` it is."""
    found = [
        (len(prefix), name)
        for name, prefixes in LAYERS.items()
        for prefix in prefixes
        if module == prefix or module.startswith(f"{prefix}.")
    ]
    return max(found)[1]


def test_every_sub_room_has_a_place_of_its_own_and_is_there():
    prefixes = [prefix for prefixes in LAYERS.values() for prefix in prefixes]
    assert len(prefixes) == len(set(prefixes))
    assert set(prefixes) <= set(MODULES)
    rooms = {name for name in MODULES if name.startswith(("proxybyte.training.", "proxybyte.eval."))}
    loose = {name for name in rooms if not any(name == one or name.startswith(f"{one}.") for one in prefixes[1:])}
    assert not loose, "give it a place in LAYERS and in docs/architecture.md"


@pytest.mark.parametrize("module", EDGES)
def test_nothing_is_imported_from_a_higher_layer(module):
    own = layer_of(module)
    higher = sorted(target for target in EDGES[module] if RANK[layer_of(target)] > RANK[own])
    assert not higher, f"{module} ({own}) imports {higher[0]} ({layer_of(higher[0])}), which lies above it"


def test_files_import_each_other_in_no_circle():
    known = {module: targets & set(EDGES) for module, targets in EDGES.items()}
    assert len(list(TopologicalSorter(known).static_order())) == len(EDGES)


def reached_from(module: str) -> set[str]:
    """Modules that it is made of, from import to import."""
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= {target for target in EDGES.get(name, ()) if target.startswith("proxybyte.training.")} - reached
    return reached


def test_one_place_opens_a_runs_configuration_and_what_it_is_made_of_gets_its_own_sections():
    run = "proxybyte.training.run"
    told = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if "TrainConfig" in (getattr(node, "id", ""), getattr(node, "name", ""), getattr(node, "attr", ""))
    }
    declared = {f"{run}.config", f"{run}.config_io"}
    below = reached_from(f"{run}.assemble") - {f"{run}.assemble"} - declared
    assert {f"{run}.loop", f"{run}.step", f"{run}.model_source", f"{run}.distributed"} < below
    assert not told & below
    entries = {f"{run}.assemble", f"{run}.dry_run", "proxybyte.training.train"}
    rest = told - declared - entries
    assert all(module.startswith("proxybyte.training.experiments.") for module in rest), rest


def test_the_layers_are_those_of_the_page():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    told = page.partition("## Layers")[2].partition("```")[2].partition("```")[0]
    names = [line.split("  ")[0].strip() for line in told.splitlines() if line.strip()]
    assert names == list(LAYERS)
