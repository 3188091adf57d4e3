"""A slice through a network that the page cannot compute, convolutions and pools, say: what the kernel finds of it.

It goes to `living_map.js` in *tiles*, squares of the slice. Where there are few polytopes, a tile holds each of them with its
affine map, from `polytopes.plane`: the page paints it exactly at any zoom. Where there are too many to wait for, it holds the
logits at the middles of many small squares.
"""

import time

import numpy as np

from ood_helpers import polytopes

SIDE = 440  # of the finest grid of points, that of the map's pixels
_FIRST = 55  # of the grid that comes at once
_MOST = 20_000  # polytopes of a tile: there are not many more places on a map
_DEAR = 45  # what a polytope costs, in points: 30 to 70 were measured
_PROBE = 9  # points a side between which kinks are counted
_BATCH = 512  # points that go through the network at a time
_KEPT = 8  # windows whose points stay in memory
_FINE = 1e-5  # what float32 may do to the difference of two logits; a confidence differs by a quarter of that, at most


class Slice:
    """What is known of a network with two inputs that is no chain.

    graph     the `Graph`, as `polytopes.flat.restricted` gives it
    patience  seconds that may be spent on one window; the first, coarse tile comes anyway
    """

    def __init__(self, graph, patience):
        self.graph, self.patience, self._points = graph, patience, {}

    def tiles(self, window):
        """(what is said of a tile, its buffers as bytes) of a window {x, y, half}: a coarse one, then the best in time."""
        coarse, seconds = self._timed(window)
        yield self._of_points(window, coarse, last=False, says="…")
        count = self._count(window)
        cells, why = None, f"about {float(f'{count:.1g}'):,.0f} polytopes are too many to cut; zoom in to see them"
        if count <= _MOST and count * _DEAR * seconds <= self.patience:
            try:
                cells = self._cut(window)
            except ArithmeticError as error:
                why = str(error)
        if cells:
            yield self._of_cells(window, cells)
        else:
            yield self._of_points(window, self.points(window), last=True, says=why)

    def points(self, window):
        """The logits [side, side, K] at the middles of side × side squares of a window, from the top; as many as time allows."""
        key = tuple(window[name] for name in ("x", "y", "half"))
        if key not in self._points:
            found, seconds = self._timed(window)
            affordable = [n for n in (SIDE, SIDE // 2, SIDE // 4) if n * n * seconds <= self.patience]
            if affordable:
                found = self._logits(window, affordable[0])
            while len(self._points) >= _KEPT:
                del self._points[next(iter(self._points))]
            self._points[key] = found
        return self._points[key]

    def ring(self):
        """Who wins far out at each of 720 directions: start [S] angles and who [S] wins from there on, -1 for a tie."""
        start = (np.arange(720) + 0.5) * np.pi / 360
        leaders = self.graph.leaders(np.stack([np.cos(start), np.sin(start)], axis=1))
        return start - np.pi / 720, np.where(leaders.sum(axis=1) > 1, -1, leaders.argmax(axis=1))

    def far(self, point):
        """What the page says of the ray from 0 through a point [2], exactly."""
        try:
            ray = polytopes.ray(self.graph, np.zeros(2), point)
        except ArithmeticError as error:
            return {"unknown": f"undecided, {error}"}
        leaders = np.flatnonzero(ray.leaders).tolist()
        return {"winner": ray.winner, "tie": ray.tie, "leaders": leaders, "limit": ray.limit_confidence}

    def _timed(self, window):
        """The logits on the coarsest grid, and the seconds that a point took."""
        start = time.perf_counter()
        found = self._logits(window, _FIRST)
        return found, (time.perf_counter() - start) / _FIRST**2

    def _logits(self, window, side):
        axis = window["half"] * (2 * np.arange(side) + 1 - side) / side
        points = np.stack(np.meshgrid(window["x"] + axis, window["y"] - axis), axis=-1)
        parts = np.array_split(points.reshape(-1, 2), side**2 // _BATCH + 1)
        return np.concatenate([self.graph(part) for part in parts]).astype("f4").reshape(side, side, -1)

    def _count(self, window):
        """Roughly how many polytopes a window has, from the kinks between neighbours of a few points of it.

        Straight lines at random that meet a segment as long as a side c times, on average, cut the square into 1 + 2c + πc²/4
        parts: 2c lines meet it, and they meet each other πc²/4 times in it.
        """
        axis = window["half"] * np.linspace(-1, 1, _PROBE)
        points = np.stack(np.meshgrid(window["x"] + axis, window["y"] + axis), axis=-1).reshape(-1, 2)
        on = [z > 0 for z, _, _ in polytopes.flat.survey(self.graph, points)[:-1]]
        on = np.concatenate(polytopes.flat.decisive(self.graph, on), axis=1).reshape(_PROBE, _PROBE, -1)
        met = [(on[1:] != on[:-1]).sum(axis=2).mean(), (on[:, 1:] != on[:, :-1]).sum(axis=2).mean()]
        crossed = (_PROBE - 1) * np.mean(met)
        return 1 + 2 * crossed + np.pi / 4 * crossed**2

    def _cut(self, window):
        middle = np.array([window["x"], window["y"]])
        return polytopes.plane(self.graph, middle - window["half"], middle + window["half"])

    def _of_points(self, window, logits, last, says):
        side = len(logits)
        if last:
            says = f"Evaluated at {side} × {side} points: {says}."
        return window | {"side": side, "last": last, "says": says}, [logits.tobytes()]

    def _of_cells(self, window, cells):
        maps = np.concatenate([cells.slopes, cells.offsets[:, :, None]], axis=2)
        reach = np.append(np.abs([window["x"], window["y"]]) + window["half"], 1)
        double = 2 * (np.abs(maps - maps.astype("f4")) @ reach).max() > _FINE
        x, y, half = (f"{float(f'{window[name]:.3g}'):,g}".replace("-", "−") for name in ("x", "y", "half"))
        says = f"{len(cells):,} polytope{'s' * (len(cells) > 1)}, exactly, in the square of half side {half} around ({x}, {y})."
        buffers = [cells.starts.astype("<u4"), cells.corners.astype("<f8"), maps.astype("<f8" if double else "<f4")]
        return window | {"double": bool(double), "last": True, "says": says}, [part.tobytes() for part in buffers]
