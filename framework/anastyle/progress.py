"""How far a study is: one bar for all of it, or a plain line every ten seconds where nobody watches a terminal."""

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from anastyle.speaker import is_main

LINE_EVERY = 10.0  # seconds between lines where there is no terminal


class Stage:
    """A stage's part of the bar; a context manager."""

    def __init__(self, progress: "Progress", title: str, steps: int, done: int) -> None:
        self._progress = progress
        self.title = title
        self.steps = steps
        self.step = 0
        self.resume(done)

    def resume(self, done: int) -> None:
        """Count steps that an earlier run had done: they fill the bar, and say nothing about speed."""
        skipped = done - self.step
        self.step = done
        self._progress._skip(skipped, self)

    def advance(self, steps: int = 1, images: int = 0) -> None:
        """Count steps done now, and the images they took."""
        self.step += steps
        self._progress._advance(steps, images, self)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.note(text)

    def close(self) -> None:
        """Show where the stage stands; a line, if any, is printed at once."""
        self._progress._show(self, now=True)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Progress:
    """The bar of a study. Only rank 0 shows anything."""

    def __init__(
        self, total_steps: int, *, stream: TextIO | None = None, enabled: bool | None = None, whole: str = "study"
    ) -> None:
        self.total, self._whole = total_steps, whole
        self.done = 0
        self._worked = 0  # steps done by this process
        self._started: float | None = None
        self._rate = 0.0  # images per second, of late
        self._images, self._images_since = 0, 0.0
        self._shown = float("-inf")
        self._stream = stream or sys.stderr
        self._enabled = is_main() if enabled is None else enabled
        self._bar: tqdm | None = None
        if self._enabled and self._stream.isatty():
            bar = "{desc} {percentage:3.0f}%|{bar}| {postfix}"
            self._bar = tqdm(total=total_steps, file=self._stream, bar_format=bar, dynamic_ncols=True)

    def stage(self, variant: str, seed: int, stage: str, steps: int, done: int = 0) -> Stage:
        """Begin a stage of ``steps`` steps, ``done`` of which an earlier run has done."""
        return Stage(self, f"{variant}/s{seed} {stage}", steps, done)

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end of the whole study at the speed so far; None before the first step."""
        if self._started is None or not self._worked:
            return None
        return (time.monotonic() - self._started) / self._worked * max(self.total - self.done, 0)

    def note(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _skip(self, steps: int, stage: Stage) -> None:
        self.done += steps
        if self._started is None:
            self._started = self._images_since = time.monotonic()
        self._show(stage)

    def _advance(self, steps: int, images: int, stage: Stage) -> None:
        self.done += steps
        self._worked += steps
        self._images += images
        seconds = time.monotonic() - self._images_since
        if seconds >= 1.0:
            self._rate = self._images / seconds
            self._images, self._images_since = 0, time.monotonic()
        self._show(stage)

    def _show(self, stage: Stage, now: bool = False) -> None:
        if not self._enabled:
            return
        where = f"{stage.step}/{stage.steps} steps"
        rate = f", {self._rate:.0f} images/s" if self._rate else ""
        left = "" if self.seconds_left is None else f", {_clock(self.seconds_left)} left"
        if self._bar is not None:
            self._bar.n = min(self.done, self.total)
            self._bar.set_description_str(stage.title, refresh=False)
            self._bar.set_postfix_str(f"{where}{rate}{left}", refresh=False)
            if now or time.monotonic() - self._shown >= 0.1:
                self._shown = time.monotonic()
                self._bar.refresh()
        elif now or time.monotonic() - self._shown >= LINE_EVERY:
            self._shown = time.monotonic()
            share = 100 * self.done / self.total if self.total else 100
            self.note(f"{stage.title} {where}, {self._whole} {share:.0f} %{rate}{left}")


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
