"""A training to watch while it goes on."""

import asyncio
import time
from collections.abc import Callable, Iterator

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from ood_helpers.arrays import whole

from . import given
from .demo import Picture
from .living_map import LivingMap


class Live(Picture):
    """A training to watch: Train and Pause, one Step, Reset; the picture follows the training about ten times a second.

    figure  a figure from `plotting.figure`, with all its artists; or a `LivingMap` of the network that is trained
    start   start() begins anew and returns an iterator that takes one training step each time it is asked (`train_steps`)
    draw    draw(steps) changes the artists to what the training has reached after so many steps, and returns the sentence; a map
            follows by itself, and draw may return (sentence, extras), with points, say, that move: see `LivingMap`
    stop    the number of steps after which the training pauses for good
    first   steps taken at once, so that there is something to see

    Training is a task of the kernel's own event loop that lets others have their turn between two pictures: other cells can be
    run meanwhile, and Pause works at once. Only one training runs at a time; starting another pauses it. An error appears in
    place of the sentence, and the picture stays. ValueError or TypeError for arguments that cannot be right.
    """

    SLICE, SLICE_OF_MAP = 0.05, 0.03  # seconds of training between two pictures
    BUTTONS = (("Train", "let it train, or pause it"), ("Step", "one training step"), ("Reset", "begin anew"))
    _running = None

    def __init__(
        self,
        figure: Figure | LivingMap,
        start: Callable[[], Iterator],
        draw: Callable[[int], str | tuple[str, dict]],
        stop: int = 3000,
        first: int = 0,
    ) -> None:
        given.function("start", start, "nothing")
        given.function("draw", draw, "the number of steps", 0)
        stop, first = whole("stop", stop, 0), whole("first", first, 0)
        if first > stop:
            raise ValueError(f"stop and first must satisfy 0 <= first <= stop; got stop {stop}, first {first}")
        self.start, self.draw, self.stop, self.first = start, draw, stop, first
        self._train, step, reset = (ipywidgets.Button(description=name, tooltip=tip) for name, tip in self.BUTTONS)
        super().__init__(figure, [[self._train, step, reset]])
        self._train.on_click(lambda _: self.pause() if self.running else self.train())
        step.on_click(lambda _: self.step())
        reset.on_click(lambda _: self.reset())
        self._begin()
        self._advance(first, np.inf)  # an error here is the notebook's: it is raised

    @property
    def running(self):
        return Live._running is self

    def close(self):
        self.pause()
        self.training.close() if hasattr(self.training, "close") else None
        super().close()

    def reset(self):
        """Begin anew, with the `first` steps."""
        self.pause()
        with self._lock:
            if hasattr(self.training, "close"):
                self.training.close()
            self._begin()
            self._guarded(lambda: self._advance(self.first, np.inf))

    def step(self, steps=1):
        """Take some steps and draw."""
        self.pause()
        self._guarded(lambda: self._advance(steps, np.inf))

    def train(self):
        """Go on until `pause` or the last step. Needs a running event loop, as in Jupyter. Returns the task."""
        if Live._running:
            Live._running.pause()
        Live._running, self._train.description = self, "Pause"
        self._task = asyncio.get_running_loop().create_task(self._run())  # kept: a task that nobody holds may be collected
        return self._task

    def pause(self):
        """Stop after the present slice of training; `train` goes on from there."""
        if self.running:
            Live._running = None
        self._train.description = "Train"

    async def _run(self):
        task = self._task
        while self.running and task is self._task:
            self._guarded(self._slice)
            await asyncio.sleep(0.01)  # the event loop's turn: buttons, other cells

    def _begin(self):
        training = self.start()
        try:
            self.training, self.steps = iter(training), 0
        except TypeError:
            problem = f"start must return an iterator that takes one training step each time; it returned {training!r}"
            raise TypeError(problem) from None

    def _slice(self):
        if self.running:  # still, now that nothing else can happen
            self._advance(self.stop, self.SLICE_OF_MAP if self._maps else self.SLICE)

    def _guarded(self, act):
        try:
            with self._lock:
                act()
        except Exception as error:
            self.pause()
            self._failed(error, "The training")

    def _advance(self, steps, seconds):
        """Up to so many steps, in up to so many seconds, then a picture."""
        end = time.perf_counter() + seconds
        for _ in range(min(steps, self.stop - self.steps)):
            if next(self.training, self) is self:  # the iterator has come to its end
                self.pause()
                break
            self.steps += 1
            if time.perf_counter() > end:
                break
        if self.steps >= self.stop:
            self.pause()
        said = self.draw(self.steps)
        self._show(*(said if self._maps and isinstance(said, tuple) else (said, {})))
