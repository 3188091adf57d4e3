"""A slice through a network that the page cannot compute, convolutions and pools, say: what the kernel finds of it.

It goes to `living_map.js` in *tiles*, squares of the slice. Where there are few polytopes, a tile holds each of them with its
affine map, from `polytopes.plane`: the page paints it exactly, at any zoom. Where there are too many to wait for, it holds the
logits at the middles of many small squares.
"""

import functools
import math
import time

import numpy as np

from ood_helpers import polytopes

_SIDES = [55, 110, 220, 440]  # of grids of points, from the first sight to that of the map's pixels
_BATCH = 256  # points that go through the network at a time
_MOST = 20_000  # polytopes of a tile: a map has not many more places for them
_DEAR = 80  # what a polytope costs, in points: 30 to 80 were measured
_PROBE = 9  # points a side between which kinks are counted
_KEPT = 8  # windows whose points stay in memory
_FINE = 1e-5  # what float32 may do to the difference of two logits; a confidence differs by a quarter of that, at most


class Slice:
    """What is known of a network with two inputs that is no chain.

    graph     a `Graph` with two inputs
    patience  seconds that finding polytopes may take; points, in between which the kernel does other things, may take ten times
              as many, the finest ones a quarter
    """

    def __init__(self, graph, patience):
        self.graph, self.patience, self._points, self._pace = graph, patience, {}, math.inf

    def tiles(self, window):
        """(what is said of a tile, its buffers as bytes) of a window {x, y, half}, better and better, or None: more is to come.

        The last tile has the polytopes, or as many points as there is patience for.
        """
        logits = self._known(window)
        if logits is None:
            logits = yield from self._logits(window, _SIDES[0])
            yield _of_points(window, logits)
        count = self._count(window)
        why = f"about {float(f'{count:.1g}'):,.0f} polytopes are too many to cut; zoom in to see them"
        if count <= _MOST and count * _DEAR * self._pace <= self.patience:
            try:
                yield _of_cells(window, self._cut(window))
                return
            except ArithmeticError as error:
                why = str(error)
        for side in self._sides():
            if side > len(logits):
                logits = yield from self._logits(window, side)
                yield _of_points(window, logits)
        yield _of_points(window, self._keep(window, logits), why)

    def points(self, window):
        """The logits [side, side, K] at the middles of side × side squares of a window, from the top."""
        logits = self._known(window)
        if logits is None:
            logits = _at_once(self._logits(window, _SIDES[0]))
            if sides := self._sides():
                logits = _at_once(self._logits(window, sides[-1]))
        return self._keep(window, logits)

    @functools.cached_property
    def ring(self):
        """Who wins far out at each of 720 directions: start [S] angles and who [S] wins from there on, -1 for a tie."""
        middle = (np.arange(720) + 0.5) * np.pi / 360
        leaders = self.graph.leaders(np.stack([np.cos(middle), np.sin(middle)], axis=1))
        return middle - np.pi / 720, np.where(leaders.sum(axis=1) > 1, -1, leaders.argmax(axis=1))

    def far(self, point):
        """What the page says of the ray from 0 through a point [2], exactly."""
        try:
            ray = polytopes.ray(self.graph, np.zeros(2), point)
        except ArithmeticError as error:
            return {"unknown": f"undecided, {error}"}
        leaders = np.flatnonzero(ray.leaders).tolist()
        return {"winner": ray.winner, "tie": ray.tie, "leaders": leaders, "limit": ray.limit_confidence}

    def _known(self, window):
        return self._points.get(tuple(window.values()))

    def _keep(self, window, logits):
        self._points.pop(tuple(window.values()), None)
        while len(self._points) >= _KEPT:
            del self._points[next(iter(self._points))]  # the oldest
        self._points[tuple(window.values())] = logits
        return logits

    def _sides(self):
        """The grids, finer than the first, that there is patience for."""
        shares = dict.fromkeys(_SIDES[1:], 10) | {_SIDES[-1]: 0.25}
        return [side for side, share in shares.items() if side**2 * self._pace <= share * self.patience]

    def _logits(self, window, side):
        """Returns the logits [side, side, K]; yields None after every batch, so that the kernel can do something in between."""
        axis = window["half"] * (2 * np.arange(side) + 1 - side) / side
        points = np.stack(np.meshgrid(window["x"] + axis, window["y"] - axis), axis=-1).reshape(-1, 2)
        found = []
        for batch in np.array_split(points, math.ceil(len(points) / _BATCH)):
            start = time.perf_counter()
            found.append(self.graph(batch).astype("f4"))
            self._pace = min(self._pace, (time.perf_counter() - start) / len(batch))  # what a busy machine adds does not count
            yield None
        return np.concatenate(found).reshape(side, side, -1)

    def _count(self, window):
        """Roughly how many polytopes a window has, from the kinks between neighbours of a few points of it.

        If straight lines at random meet a segment as long as a side c times, on average, 2c of them meet the square, and cut it
        into 1 + 2c + πc²/4 parts. Kinks are not that random: in trained convolutional networks there were half as many parts.
        """
        axis = window["half"] * np.linspace(-1, 1, _PROBE)
        points = np.stack(np.meshgrid(window["x"] + axis, window["y"] + axis), axis=-1).reshape(-1, 2)
        on = [z > 0 for z, _, _ in polytopes.flat.survey(self.graph, points)[:-1]]
        on = np.concatenate(polytopes.flat.decisive(self.graph, on), axis=1).reshape(_PROBE, _PROBE, -1)
        met = [(on[1:] != on[:-1]).sum(axis=2).mean(), (on[:, 1:] != on[:, :-1]).sum(axis=2).mean()]
        crossed = (_PROBE - 1) * np.mean(met)
        return 1 + 2 * crossed + np.pi / 8 * crossed**2

    def _cut(self, window):
        middle = np.array([window["x"], window["y"]])
        return polytopes.plane(self.graph, middle - window["half"], middle + window["half"])


def _at_once(steps):
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _of_points(window, logits, why=None):
    """A tile of logits [side, side, K]; the last one of its window says why there are no polytopes."""
    side = len(logits)
    says = f"Evaluated at {side} × {side} points: {why}." if why else "…"
    return window | {"side": side, "last": why is not None, "says": says}, [logits.tobytes()]


def _of_cells(window, cells):
    """A tile of the polytopes of a `Plane`."""
    maps = np.concatenate([cells.slopes, cells.offsets[:, :, None]], axis=2)
    reach = np.append(np.abs([window["x"], window["y"]]) + window["half"], 1)
    double = bool(2 * (np.abs(maps - maps.astype("f4")) @ reach).max() > _FINE)
    x, y, half = (f"{window[name]:.3g}".replace("-", "−") for name in ("x", "y", "half"))
    says = f"{len(cells):,} polytope{'s' * (len(cells) > 1)}, exactly, in the square of half side {half} around ({x}, {y})."
    buffers = [cells.starts.astype("<u4"), cells.corners.astype("<f8"), maps.astype("<f8" if double else "<f4")]
    return window | {"double": double, "last": True, "says": says}, [part.tobytes() for part in buffers]
