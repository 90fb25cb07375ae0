"""The documentation site: pages have their place, quoted messages are the code's own, it builds without a warning."""

import ast
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROOMS = ("modeling_proxy", "training", "eval", "hub_configs")
USER_PAGES = ("train_one", "ablate", "byteify_yours", "serve", "evaluate")


def toctrees() -> list[str]:
    """Names in the toctrees of the index."""
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(":")]


def test_every_page_is_in_one_toctree_and_every_entry_is_a_page():
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
    entries = toctrees()
    assert len(entries) == len(set(entries))
    assert set(entries) - {"api/index"} == pages - {"index"}


@pytest.mark.parametrize("name", USER_PAGES)
def test_each_kind_of_user_has_a_page_that_begins_with_commands_and_is_named_first(name):
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert "```sh\nproxybyte " in text  # tests/test_docs.py parses them
    assert f"]({name}.md)" in (DOCS / "index.md").read_text(encoding="utf-8")


def sentences_of_the_source() -> list[str]:
    """Every string of the code, with ``…`` for each value that is put into it."""
    found = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def quoted() -> list[str]:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^> (.*)$", text, re.MULTILINE)


def test_every_quoted_message_stands_in_the_source():
    source = sentences_of_the_source()
    # A wrong option is told as its caller spells it: the command line puts its dashes before.
    said = {message: message.removeprefix("--") for message in quoted()}
    absent = [message for message, spelled in said.items() if not any(spelled in sentence for sentence in source)]
    assert len(quoted()) >= 20
    assert not absent


def test_a_message_that_nobody_says_would_be_found_out():
    source = sentences_of_the_source()
    assert not any("… is no folder: give us … (OWNER/MODEL)" in sentence for sentence in source)


def test_what_the_site_needs_is_pinned_and_an_extra():
    setup, pins = ((ROOT / name).read_text(encoding="utf-8") for name in ("setup.py", "constraints.txt"))
    (extra,) = re.findall(r'"docs": \[(.*?)\]', setup)
    needed = re.findall(r'"([\w-]+)>=', extra)
    assert set(needed) == {"sphinx", "myst-parser", "furo", "latex2mathml"}
    assert all(re.search(rf"^{name}==", pins, re.MULTILINE | re.IGNORECASE) for name in needed)


class Page(HTMLParser):
    """Addresses that a page links to or loads, and the places in it that can be linked to."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in ("script", "img", "iframe") and given.get("src"):
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") == "stylesheet":
            self.loads.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built from a copy of the pages with warnings as errors."""
    for package in ("sphinx", "myst_parser", "furo", "latex2mathml"):
        pytest.importorskip(package)
    home = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, home / "docs", ignore=shutil.ignore_patterns("api"))
    (words,) = re.findall(r"-m sphinx (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    options = words.replace("docs build/site", f"{home / 'docs'} {home / 'site'}").split()
    done = subprocess.run([sys.executable, "-m", "sphinx", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return home / "site"


@pytest.mark.slow
def test_the_site_builds_and_every_link_in_it_leads_somewhere(site):
    pages = {path.relative_to(site): Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 60
    for name, page in pages.items():
        for link in page.links + page.loads:
            if re.match(r"(https?|mailto):", link):
                continue
            target, _, place = unquote(link).partition("#")
            path = (site / name.parent / target).resolve() if target else (site / name).resolve()
            assert path.exists(), f"{name} links to {link}"
            if place and path.suffix == ".html":
                assert place in pages[path.relative_to(site.resolve())].ids, f"{name} links to {link}"
        assert not [load for load in page.loads if re.match(r"(https?:)?//", load)], f"{name} loads from elsewhere"


@pytest.mark.slow
def test_roles_and_formulas_render_and_the_search_finds_words(site):
    text = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html") if "_modules" not in path.parts)
    outside = re.sub(r"<(code|pre)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.findall(r":(?:func|class|meth|attr|mod|math|data):`", outside)
    assert len(re.findall("<math ", text)) > 70
    assert "$`" not in outside and "mathjax" not in text.lower()
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "surpris" in index and "byteifi" in index
