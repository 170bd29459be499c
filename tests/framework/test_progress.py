"""The bar of a study: what it says, how it counts, and that other ranks are silent."""

import io

import pytest

from anastyle import progress as module
from anastyle.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_without_a_terminal_there_is_a_plain_line_now_and_then(clock):
    stream = io.StringIO()
    progress = Progress(200, stream=stream)

    with progress.stage("full", 42, "align", 100) as bar:
        for _ in range(30):
            clock.now += 1
            bar.advance(1, 8)
    progress.close()

    lines = stream.getvalue().splitlines()
    assert len(lines) == 5  # at the start, every ten of thirty seconds, and at the end
    assert lines[-1] == "full/s42 align 30/100 steps, study 15 %, 8 images/s, 0:02:50 left"


def test_steps_done_earlier_fill_the_bar_but_say_nothing_about_speed(clock):
    progress = Progress(1000, stream=io.StringIO())
    bar = progress.stage("full", 1, "diffuse", 500)

    bar.resume(400)
    assert progress.seconds_left is None
    clock.now += 10
    bar.advance(5)

    assert progress.done == 405
    assert progress.seconds_left == pytest.approx(2 * 595)


def test_a_reused_stage_counts_as_done(clock):
    progress = Progress(300, stream=io.StringIO())

    progress.stage("concat", 1, "align", 100, done=100).close()

    assert progress.done == 100


def test_on_a_terminal_a_note_stands_above_the_bar():
    stream = Terminal()
    progress = Progress(10, stream=stream)

    with progress.stage("full", 42, "align", 10) as bar:
        bar.advance(5, 40)
        bar.note("reused stage autoencode")
    progress.close()

    text = stream.getvalue()
    assert "reused stage autoencode\n" in text
    assert "full/s42 align" in text
    assert "5/10 steps" in text
    assert " 50%|" in text


def test_other_ranks_say_nothing(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    stream = io.StringIO()
    progress = Progress(10, stream=stream)

    with progress.stage("full", 42, "align", 10) as bar:
        bar.advance(5, 40)
        bar.note("hello")
    progress.note("hello")
    progress.close()

    assert stream.getvalue() == ""
