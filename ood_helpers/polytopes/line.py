"""A ReLU network along a line, exactly: every breakpoint, and the affine logits between them. Any input dimension, any depth.

The cost is about one matrix product per layer, see `fan`, which does the work: (t, 1) is a direction in a plane, and while t
goes from 0 to 1 (or to infinity) this direction sweeps a part of a quadrant.
"""

from dataclasses import dataclass

import numpy as np

from ood_helpers.arrays import Numbers, float64

from .along import swept
from .network import Model, read, shape_of, vector


@dataclass(frozen=True, eq=False, repr=False)
class Line:
    """logits = offsets[i] + slopes[i] * t on [t[i], t[i + 1]); the last piece ends at `end`.

    t        [B]     breakpoints, ascending; the first is 0, which is only the start
    slopes   [B, K]
    offsets  [B, K]
    end      1.0 for a line, infinity for a ray
    """

    t: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray
    end: float

    def __len__(self) -> int:
        return len(self.t)

    def __repr__(self):
        return f"{type(self).__name__}({len(self)} pieces for t from 0 to {self.end:g}, {self.slopes.shape[1]} logits)"

    def logits(self, t: Numbers) -> np.ndarray:
        """Logits [..., K] at parameters t [...]. Raises ValueError for t outside [0, end] or infinite."""
        t = float64(t, "t")
        if not (np.isfinite(t) & (t >= 0) & (t <= self.end)).all():
            raise ValueError(f"t must be finite and lie in [0, {self.end:g}], not reach from {t.min():g} to {t.max():g}")
        i = np.searchsorted(self.t, t, side="right") - 1
        return self.offsets[i] + self.slopes[i] * t[..., None]


@dataclass(frozen=True, eq=False, repr=False)
class Ray(Line):
    """A `Line` without end. `leaders` [K] is True at the classes whose logit grows fastest for ever: one k*, or a tie."""

    leaders: np.ndarray

    @property
    def winner(self) -> int:
        """k*, the class with the greatest slope in the last piece; the lowest index where several tie."""
        return int(self.leaders.argmax())

    @property
    def tie(self) -> bool:
        """Whether several classes share the greatest slope."""
        return bool(self.leaders.sum() > 1)

    @property
    def limit_confidence(self) -> float:
        """The largest softmax probability for t → ∞: 1 for a unique k*, else the softmax of the tied classes' last offsets."""
        tied = self.offsets[-1, self.leaders]
        return float(1 / np.exp(tied - tied.max()).sum())


def line(model: Model, start: Numbers, end: Numbers) -> Line:
    """The logits at x = start + t * (end - start), t in [0, 1], piece by piece: a `Line`.

    model  nn.Sequential of Linear and ReLU or LeakyReLU
    start, end  points [d]

    Raises ValueError for a model that `read` refuses, for points that are not d finite numbers, and where start equals end.
    """
    network = read(model, shape_of(start))
    start, end = vector(start, "start", network), vector(end, "end", network)
    if (start == end).all():
        raise ValueError("end must differ from start; a line needs two points")
    with np.errstate(over="ignore"):  # `sweep` refuses what exceeds float64
        direction = end - start
    t, slopes, offsets = _pieces(network, start, direction, [0.5, 0.5])
    return Line(t, slopes, offsets, end=1.0)


def ray(model: Model, start: Numbers, direction: Numbers) -> Ray:
    """The logits at x = start + t * direction, t in [0, ∞), piece by piece: a `Ray`.

    The direction is not normalised: t counts multiples of it, and the slopes double where it doubles.
    model  nn.Sequential of Linear and ReLU or LeakyReLU
    start  a point [d];  direction  a vector [d], not 0

    Raises ValueError for a model that `read` refuses, for vectors that are not d finite numbers, and for a zero direction.
    """
    network = read(model, shape_of(start))
    start, direction = vector(start, "start", network), vector(direction, "direction", network)
    if not direction.any():
        raise ValueError("direction must not be the zero vector")
    t, slopes, offsets = _pieces(network, start, direction, [1.0, 0.0])
    return Ray(t, slopes, offsets, end=np.inf, leaders=network.leaders(direction[None])[0])


def _pieces(network, start, direction, last_edge):
    """Breakpoints, slopes and offsets: the constant is u_y = 1 times the offset, so (direction, start) are the input's maps."""
    edges, maps, _ = swept(network, np.array([[0.0, 1.0], last_edge]), np.stack([direction, start]), slack=0)
    return edges[:-1, 0] / edges[:-1, 1], maps[:, 0], maps[:, 1]
