"""As many colours as lines: pictures of many conditions repeat none."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from proxybyte.training.drawn_text import distinct_colours
from proxybyte.training.run.plots import _mark, _stretch
from proxybyte.training.stream.schedule import Phases


@pytest.mark.parametrize("count", [0, 1, 10, 11, 20, 21, 60])
def test_no_two_colours_are_alike(count):
    assert len(set(distinct_colours(count))) == len(distinct_colours(count)) == count


def axes_with(phases: Phases):
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 100], [5, 1])
    _mark(axes, phases)
    return axes


def test_phases_are_marked_where_the_plan_says_that_they_begin():
    axes = axes_with(Phases(100, 20, 70))
    borders = [line.get_xdata()[0] for line in axes.get_lines()[1:]]
    assert borders == [20, 70]
    assert [(text.get_text(), text.get_position()[0]) for text in axes.texts] == [
        ("warmup", 10),
        ("steady", 45),
        ("decay", 85),
    ]


def test_empty_phases_have_no_mark_and_one_alone_has_none():
    axes = axes_with(Phases(100, 0, 60))
    assert [text.get_text() for text in axes.texts] == ["steady", "decay"]
    assert [line.get_xdata()[0] for line in axes.get_lines()[1:]] == [60]
    assert not axes_with(Phases(100, 0, 100)).texts


@pytest.mark.parametrize(("values", "scale"), [([8.9, 2.1], "log"), ([8.9, 3.1], "linear"), ([8.9, 0.0], "linear")])
def test_a_curve_that_falls_far_is_drawn_on_a_logarithmic_axis_and_its_marks_below_it(values, scale):
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 100], values)
    _stretch(axes)
    _mark(axes, Phases(100, 20, 70))
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low < min(values) < max(values) < high
    below = [
        axes.transData.inverted().transform(axes.transAxes.transform((0, text.get_position()[1])))[1]
        for text in axes.texts
    ]
    assert all(low < place < min(values) for place in below)
