"""The documentation site: these pages, and a page for each part of the package from its docstrings (``make docs``)."""

import builtins
import collections.abc
import importlib
import pkgutil
import re
import sys
import typing
from pathlib import Path

from sphinx.ext.napoleon.docstring import GoogleDocstring

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import mathml  # noqa: E402  (beside this file)

project = "ProxyByte"
author = "the ProxyByte authors"
copyright = "the ProxyByte authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["images", "results/*.json"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

html_theme = "furo"
html_title = "ProxyByte"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False

nitpicky = False  # "sphinx -n" lists names without a target: other libraries', and short names of ours
suppress_warnings = ["ref.python"]  # a name that its package passes on has two targets, which are one
# Names of Python and of other libraries, whose lists of names would have to be fetched. Ours are all held to.
OTHERS = (
    "argparse",
    "ast",
    "collections",
    "datasets",
    "enum",
    "gradio",
    "logging",
    "matplotlib",
    "np",
    "numpy",
    "pathlib",
    "peft",
    "pydantic",
    "queue",
    "tokenizers",
    "torch",
    "transformers",
    "typing",
)
nitpick_ignore_regex = [
    (r"py:.*", rf"~?({'|'.join(OTHERS)})\b.*"),
    (r"py:.*", rf"({'|'.join([*dir(builtins), *dir(typing), *dir(collections.abc)])})(\[.*)?"),
]

ROOMS = ("proxybyte", "proxybyte.training", "proxybyte.eval", "proxybyte.hub_configs")
API = HERE / "api"
TITLES = {
    "proxybyte": "Model and shared parts",
    "proxybyte.training": "Training",
    "proxybyte.eval": "Evaluation",
    "proxybyte.hub_configs": "Hub and demo",
}


def api_pages() -> dict[str, list[str]]:
    """Module names of each page: one page a package, commands and templates aside."""
    found: dict[str, list[str]] = {}
    for room in ROOMS:
        package = importlib.import_module(room)
        found.setdefault(room, [room])
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            name = module.name
            if {"commands", "templates", "inside"} & set(name.split(".")):
                continue
            if module.ispkg:
                found.setdefault(name, [name])
            elif name.rpartition(".")[0] in found:
                found[name.rpartition(".")[0]].append(name)
    return found


def write_api_pages() -> None:
    """Write them beside the other pages, each only where it has changed, so that a second build is short."""
    API.mkdir(exist_ok=True)
    pages = api_pages()
    wanted = {}
    for package, modules in pages.items():
        title = TITLES.get(package, package.removeprefix("proxybyte."))
        parts = [f"{title}\n{'=' * len(title)}\n"]
        for module in modules:
            if module != package:
                parts.append(f"{module}\n{'-' * len(module)}\n")
            parts.append(f".. automodule:: {module}\n")
        wanted[API / f"{package}.rst"] = "\n".join(parts)
    names = "\n".join(f"   {package}" for package in pages)
    wanted[API / "index.rst"] = f"API\n===\n\n.. toctree::\n   :maxdepth: 1\n\n{names}\n"
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in set(API.glob("*.rst")) - set(wanted):
        path.unlink()


def github_math(text: str) -> str:
    """The formulas of GitHub's Markdown in the words of MyST."""
    text = re.sub(r"\$`([^`]+)`\$", r"{math}`\1`", text)
    return re.sub(r"^```math$", "```{math}", text, flags=re.MULTILINE)


def setup(app) -> None:
    """Called by Sphinx."""
    # Of a variable's text Napoleon takes what stands before a colon for its type; here types are annotations.
    GoogleDocstring._consume_inline_attribute = lambda self: ("", self._dedent(self._consume_to_end()))
    write_api_pages()
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, github_math(source[0])))
    mathml.add_to(app)
