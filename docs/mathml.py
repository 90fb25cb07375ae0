"""Formulas as MathML, which browsers draw themselves: nothing to fetch, and no script."""

from latex2mathml.converter import convert


def add_to(app) -> None:
    """Offer Sphinx the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


def _inline(writer, node) -> None:
    writer.body.append(convert(node.astext()))
    _skip()


def _block(writer, node) -> None:
    writer.body.append(f'<div class="math">{convert(node.astext().strip(), display="block")}</div>')
    _skip()


def _skip() -> None:
    from docutils.nodes import SkipNode

    raise SkipNode
