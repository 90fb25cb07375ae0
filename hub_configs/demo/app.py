"""The page itself, in Gradio: three tabs over one model, served from this machine and asking nothing of any other."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from proxybyte.errors import ProxyByteError, WrongOption

from .drawing import STYLE, Change, changed, compare, compared_html, steps_html, text_html, written_html, wrong_html
from .model import DemoModel, Drafting, Writing

if TYPE_CHECKING:
    import gradio

PROMPT = "class Config"
SAMPLE = """def mean(values):
    total = 0
    for value in values:
        total = total + value

    return total / len(values)
"""
NEW_BYTES, MOST_NEW_BYTES = 200, 1000
_ONE_AT_A_TIME: Any = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "hidden"}
"""For every event that runs the model."""


def import_gradio() -> Any:
    """Gradio, told not to report home.

    Raises:
        ProxyByteError: if it is not installed.
    """
    # Read when it is imported, and by huggingface_hub at each report.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise ProxyByteError("the demo needs the package gradio: pip install 'proxybyte[demo]'") from error
    return gradio


def build_app(model: DemoModel, name: str) -> "gradio.Blocks":
    """The page for ``model``, called ``name`` on it."""
    gr = import_gradio()
    app: gradio.Blocks
    with gr.Blocks(title=f"ProxyByte: {name}", analytics_enabled=False) as app:
        size = model.model.num_parameters()
        gr.Markdown(
            f"# ProxyByte: {name}\nA byte-level model of {size / 1e6:,.2f} M parameters, on this machine's processor. "
            "It reads and writes raw bytes; a colour says what a byte costs it, in bits."
        )
        with gr.Tabs():
            with gr.Tab("Write"):
                _write_tab(gr, model)
            with gr.Tab("Look at a text"):
                _text_tab(gr, model)
            with gr.Tab("Change a text"):
                _change_tab(gr, model)
    return app


def serve(app: "gradio.Blocks", host: str | None, port: int | None, *, wait: bool = True) -> str:
    """Serve the page; returns its address once it answers, or, with ``wait``, when it is stopped.

    Args:
        app: the page.
        host: to listen on; ``GRADIO_SERVER_NAME``, or this machine alone, if absent.
        port: the first free one from 7860 on if absent.
        wait: until Ctrl-C.

    Raises:
        ProxyByteError: if the port is taken.
    """
    gr = import_gradio()
    # Fonts of the reader's machine: others would be fetched, or travel with each page.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, url, _ = app.queue().launch(
            server_name=host,
            server_port=port,
            theme=theme,
            css=STYLE,
            share=False,
            ssr_mode=False,
            pwa=False,
            quiet=True,
            footer_links=[],
            prevent_thread_lock=True,
        )
    except OSError as error:
        told = f"port {port} cannot be used ({error}): give another, or leave it out"
        raise WrongOption(told, "port") from error
    if wait:
        print(f"open {url} in a browser; Ctrl-C ends", flush=True)
        app.block_thread()
    return url


def _write_tab(gr: Any, model: DemoModel) -> None:
    draftings = [drafting.value for drafting in model.draftings]
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            prompt = gr.Textbox(
                PROMPT, label="Prompt (Shift+Enter writes)", lines=5, max_lines=12, elem_id="prompt", autofocus=True
            )
            with gr.Row():
                start = gr.Button("Write", variant="primary", elem_id="write")
                stop = gr.Button("Stop", elem_id="stop")
        with gr.Column(scale=1, min_width=240):
            count = gr.Slider(1, MOST_NEW_BYTES, NEW_BYTES, step=1, label="New bytes")
            temperature = gr.Slider(0, 1.5, 0, step=0.05, label="Temperature (0: the likeliest byte)")
            drafting = gr.Radio(
                draftings,
                value=draftings[0],
                label="Several bytes a step" if len(draftings) > 1 else "A native export writes one byte a step",
            )
    shown = gr.HTML(elem_id="written")
    steps = gr.HTML(elem_id="steps")

    def write(prompt: str, count: int, temperature: float, drafting: str) -> Iterator[tuple[str, str]]:
        writing = Writing(int(count), temperature, drafting=Drafting(drafting))
        try:
            for state in model.write(prompt.encode(errors="surrogateescape"), writing):
                yield written_html(state), steps_html(state)
        except ProxyByteError as error:
            yield wrong_html(str(error)), ""

    asked = [prompt, count, temperature, drafting]
    events = [
        each(write, asked, [shown, steps], api_name=name, **_ONE_AT_A_TIME)
        for each, name in ((start.click, "write"), (prompt.submit, "write_by_key"))
    ]
    stop.click(None, None, None, cancels=events)


def _text_tab(gr: Any, model: DemoModel) -> None:
    def look(text: str) -> str:
        data = text.encode(errors="surrogateescape")
        try:
            return text_html(data, model.bits(data), model.compressed(data))
        except ProxyByteError as error:
            return wrong_html(str(error))

    text = gr.Textbox(SAMPLE, label="Text (drawn anew as you type)", lines=6, max_lines=20, elem_id="text")
    shown = gr.HTML(look(SAMPLE), elem_id="looked")
    text.input(look, text, shown, api_name="look", trigger_mode="always_last", **_ONE_AT_A_TIME)


def _change_tab(gr: Any, model: DemoModel) -> None:
    def side_by_side(before: str, after: str) -> str:
        try:
            return compared_html(
                compare(model, before.encode(errors="surrogateescape"), after.encode(errors="surrogateescape"))
            )
        except ProxyByteError as error:
            return wrong_html(str(error))

    def change(before: str, kind: str, seed: int) -> tuple[str, str]:
        after = changed(before, Change(kind), int(seed))
        return after, side_by_side(before, after)

    kinds = [kind.value for kind in Change]
    first = changed(SAMPLE, Change(kinds[0]))
    with gr.Row():
        before = gr.Textbox(SAMPLE, label="Original", lines=6, max_lines=20, elem_id="before")
        after = gr.Textbox(first, label="Changed (yours to edit)", lines=6, max_lines=20, elem_id="after")
    with gr.Row():
        kind = gr.Dropdown(kinds, value=kinds[0], label="Change", elem_id="kind")
        seed = gr.Number(0, label="Place of the typo (a number)", precision=0, minimum=0)
        apply = gr.Button("Change it", variant="primary", elem_id="change")
    shown = gr.HTML(side_by_side(SAMPLE, first), elem_id="compared")
    apply.click(change, [before, kind, seed], [after, shown], api_name="change", **_ONE_AT_A_TIME)
    for box, name in ((before, "compare_before"), (after, "compare")):
        box.input(side_by_side, [before, after], shown, api_name=name, trigger_mode="always_last", **_ONE_AT_A_TIME)
