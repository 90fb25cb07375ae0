"""The bar off a terminal: whole lines, ten seconds apart, nothing that moves a cursor; on one, tqdm's own."""

import io
import time

import pytest

from proxybyte import progress
from proxybyte.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines_of(seconds: float, **settings) -> str:
    stream = io.StringIO()
    with Progress(total=1000, desc="work", file=stream, **settings) as bar:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            bar.update()
            bar.set_postfix(loss="1.0", refresh=False)
            time.sleep(0.01)
    return stream.getvalue()


def test_a_log_gets_a_line_at_the_beginning_and_one_at_the_end_of_short_work():
    said = lines_of(0.4)
    assert said.count("\n") == 2
    assert "\r" not in said
    assert "" not in said.splitlines()
    assert all(line.startswith("work:") for line in said.splitlines())


def test_lines_come_in_the_interval_and_not_at_each_step(monkeypatch):
    assert progress.SECONDS_BETWEEN_LINES == 10
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.3)
    said = lines_of(1.0, mininterval=0.01)
    assert 3 <= said.count("\n") <= 6


def test_work_that_ends_before_its_delay_says_nothing():
    assert lines_of(0.1, delay=2) == ""


def test_a_message_between_is_a_line_of_its_own():
    stream = io.StringIO()
    with Progress(total=3, file=stream) as bar:
        bar.update()
        bar.write("step 1: 2.0", file=stream)
    assert "step 1: 2.0\n" in stream.getvalue()
    assert "\r" not in stream.getvalue()


@pytest.mark.parametrize("stream", [Terminal()])
def test_a_terminal_gets_a_moving_bar(stream):
    with Progress(total=3, file=stream) as bar:
        bar.update(3)
    assert "\r" in stream.getvalue()
