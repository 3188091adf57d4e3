"""A plane to paint a world on: points of each class, and OOD points."""

import math
from numbers import Real

import torch

from ood_helpers import worlds
from ood_helpers.arrays import Numbers, whole

from .living_map import LivingMap


class Painting(LivingMap):
    """A plane on which the reader places, moves and erases points with the mouse or by keyboard; Python gets them as a world.

    n_classes  1 to 4
    std        of the cloud around each point, see `worlds.Painted`
    points     (x [n, 2], y [n]): points to begin with, y = -1 for OOD
    window     half the width of the plane that is shown
    colours    of the map that `show` draws below the points, as for `LivingMap`

    A click places a point of the chosen class, a drag moves one, Delete, or a click with "erase", takes it away. By keyboard: 0
    to 3, o (OOD) and e choose, the arrow keys move a cross, Enter places, m takes hold of the point there until it is pressed
    again, Ctrl+Z takes back. `painting.painted` holds the points, [[x, y, class or -1], …], and can be observed:
    `painting.observe(function, "painted")`.
    """

    def __init__(
        self,
        n_classes: int = 2,
        *,
        std: float = 1.0,
        points: tuple[Numbers, Numbers] | None = None,
        window: float = 20.0,
        colours: str = "bands",
        title: str = "A plane to paint points on",
    ) -> None:
        if whole("n_classes", n_classes, 1) > 4:
            raise ValueError(f"n_classes must be at most 4, the classes that have a colour and a marker; got {n_classes}")
        if isinstance(std, bool) or not isinstance(std, Real) or not 0 < std < math.inf:
            raise ValueError(f"std must be a positive number; got {std!r}")
        self.std = std
        super().__init__(None, classes=n_classes, points=points, window=window, colours=colours, title=title)
        spec = self.spec | {
            "paint": n_classes,
            "points": [],
            "hint": self._hint(),
        }
        with self.hold_sync():
            self.spec, self.painted = spec, self.spec["points"]
        if any(not -1 <= k < n_classes for *_, k in self.painted):
            raise ValueError(f"points must be of the classes 0 to {n_classes - 1}, or -1 for OOD")

    @property
    def world(self):
        """What is painted, as a world. ValueError names a class that has no point yet."""
        points = torch.tensor(self.painted).reshape(-1, 3)
        x, y = points[:, :2], points[:, 2].long()
        for k in range(self.spec["paint"]):
            if not (y == k).any():
                raise ValueError(f"class {k} has no point yet: place at least one")
        return worlds.Painted(x[y >= 0], y[y >= 0], x[y < 0], std=self.std)

    def show(self, network, classes=None):
        """Draw a network below the points: two inputs, an output for each class, and perhaps one more, reject; None draws none.

        classes  how many of the `n_classes` the network knows, the first ones; default: all
        """
        self._classes = self.spec["paint"] if classes is None else whole("classes", classes, 1)
        with self.hold_sync():
            for name, value in self._drawn({} if network is None else {(): network}, [], self.spec).items():
                setattr(self, name, value)

    def words(self):
        counts = [sum(k == which for *_, k in self.painted) for which in range(-1, self.spec["paint"])]
        classes = ", ".join(f"{count} of class {k}" for k, count in enumerate(counts[1:]))
        return f"Painted: {classes}, and {counts[0]} OOD."

    def _drawn(self, sweep, first, fixed):
        drawn = super()._drawn(sweep, first, fixed)
        if self._colours == "shades":
            drawn["spec"]["look"]["least"] = 0.0  # far from all points a colour would seem to say something
            drawn["spec"]["key"].insert(-1, ("white", "undecided"))
        return drawn

    def _hint(self):
        return (
            "Click: place a point, drag: move it. Keys, after a click or Tab: 0–3, o, e choose, arrows move a cross, Enter "
            "places, m moves, Delete, Ctrl+Z. Wheel, + and −: zoom."
        )

    def _sweep(self, networks):
        return {}  # none until `show`
