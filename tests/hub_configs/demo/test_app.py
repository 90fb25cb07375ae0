"""The page over HTTP, by Gradio's own client; nothing is asked of any other machine."""

import html
import re
import subprocess
import sys

import pytest

from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.demo.app import build_app, serve
from proxybyte.hub_configs.demo.drawing import Change, changed
from proxybyte.hub_configs.demo.model import Drafting, Writing

gradio_client = pytest.importorskip("gradio_client")
CALLED: list[str] = []


def _note(event: str, arguments: tuple) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        CALLED.append(arguments[1][0])
    elif event == "socket.getaddrinfo":
        CALLED.append(str(arguments[0]))


sys.addaudithook(_note)  # for the whole process: hooks cannot be taken back


@pytest.fixture(scope="module")
def client(page):
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)  # the client asks the Hub for a list; the page does not
        return gradio_client.Client(page, verbose=False, analytics_enabled=False)


def visible(shown: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", shown))


def pre(shown: str) -> list[str]:
    """What stands in each drawn text."""
    return [visible(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", shown, re.DOTALL)]


@pytest.mark.parametrize("drafting", [Drafting.NONE, Drafting.HEADS_AND_REPEATS])
def test_writing_streams_and_ends_in_what_the_model_writes(client, demo_model, drafting):
    job = client.submit("abc<b>abcabcabcé", 120, 0, drafting.value, api_name="/write")
    job.result(timeout=60)
    states = [shown for shown, _ in job.outputs()]
    *_, expected = demo_model.write("abc<b>abcabcabcé".encode(), Writing(120, drafting=drafting))
    written = re.sub("[\ud800-\udfff]", "\ufffd", expected.text.decode("utf-8", "surrogateescape"))
    assert pre(states[-1]) == ["abc<b>abcabcabcé" + written], "what is no character, byte by byte"
    assert f"done: {len(expected.text)} bytes, {expected.bits.mean():.3f} bits per byte" in visible(states[-1])
    assert len(states) > 1 and "writing" in visible(states[0]), "the first bytes are shown before the last are there"
    steps = job.outputs()[-1][1]
    rows = steps.count("<tr>") - 1
    assert rows == (-1 if expected.report is None else len(expected.report.steps))


def test_a_text_is_shown_through_every_compressor(client, demo_model):
    text = "def f(self):\n    return <e>\n"
    shown = client.predict(text, api_name="/look")
    assert pre(shown) == [text] * 3, "by bytes, in BPE and in pairs"
    for compressor in demo_model.compressors:
        assert compressor.name in shown
    bits = demo_model.bits(text.encode())
    assert f"{bits.mean():.3f} bits per byte" in visible(shown)
    costs = [float(cost) for cost in re.findall(r'title="([\d.]+) bits', shown)]
    assert sum(costs) == pytest.approx(bits.sum(), abs=0.05 * len(costs))


def test_a_change_is_made_and_shown_beside_the_original(client):
    text = "def mean(values):\n    return total\n"
    after, shown = client.predict(text, Change.TABS.value, 0, api_name="/change")
    assert after == changed(text, Change.TABS)
    assert pre(shown) == [text, after]
    assert "marked" in shown


def test_what_cannot_be_done_is_said_on_the_page(client):
    for shown in (client.predict("x" * 300, api_name="/look"), client.predict("x" * 300, "y", api_name="/compare")):
        assert "exceeds the model's context of 255" in visible(shown)
    (shown, steps) = client.predict("x" * 300, 5, 0, Drafting.NONE.value, api_name="/write")
    assert "leaves no room" in visible(shown) and not steps


def test_nothing_is_asked_of_another_machine(client, page):
    CALLED.clear()  # tests of other files run in this process too
    client.predict("abc", api_name="/look")
    assert "127.0.0.1" in CALLED, "the hook hears"
    assert set(CALLED) <= {"127.0.0.1", "localhost", "::1", "0.0.0.0"}


def test_the_page_loads_nothing_from_elsewhere(page):
    import httpx

    text = httpx.get(page).text
    loaded = re.findall(r'(?:<script[^>]*src|<link[^>]*href)="([^"]+)"', text)
    assert loaded and not [address for address in loaded if re.match(r"(https?:)?//", address)]
    assert "fonts.g" not in text and "fonts.g" not in httpx.get(f"{page}theme.css").text


def test_a_port_that_is_taken_is_named(page, demo_model):
    port = int(page.rstrip("/").rpartition(":")[2])
    with pytest.raises(ProxyByteError, match=f"port {port} cannot be used"):
        serve(build_app(demo_model, "again"), None, port, wait=False)


def test_the_command_says_what_is_missing_before_it_loads_anything(demo_run, tmp_path):
    """Where Gradio is not installed."""
    (tmp_path / "gradio.py").write_text("raise ImportError('absent')\n")
    words = [sys.executable, "-m", "proxybyte.cli", "demo", str(demo_run)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert "pip install 'proxybyte[demo]'" in done.stderr
