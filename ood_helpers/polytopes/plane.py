"""Every polytope of a ReLU network in a rectangle of the plane, exactly.

A ReLU network is affine wherever no neuron changes sign. The lines along which neurons do change sign, the *kinks*, cut the
rectangle into convex polygons, and on each of them logits = slopes @ x + offsets. `plane` finds all polygons (`mesh.py` says
how) and all maps (`maps.py`).

Where kinks coincide, or more than two meet in a point, `careful.py` finds the polygons one neuron at a time. The network is
always taken as given: kinks that lie nearer together than rounding can tell count as one.

Inside, the rectangle is the square [-1, 1]², so that every tolerance is a plain number.
"""

from functools import cached_property

import numpy as np

from ood_helpers.arrays import Numbers, float64

from . import careful, flat
from .crossings import BATCH
from .graph import Graph
from .maps import activity, affine_maps, dual_tree, patterns, unpacked
from .mesh import Degenerate, first_neurons, measure, sizes, subdivide, widths_of
from .network import Model, plane_of, read, shape_of, vector
from .polygons import cross, next_corner

_DRIFT = 1e-14  # relative rounding of sums of many maps
_SMALL = 1e8  # multiplications that a product for every map may take
_SLACK = 1e-9  # what the maps may miss the network by, relative to the sizes of the numbers that it adds up there


def plane(
    model: Model,
    lo: Numbers = -50.0,
    hi: Numbers = 50.0,
    origin: Numbers | None = None,
    axes: Numbers | None = None,
) -> "Plane":
    """All polytopes of a network in a rectangle, as a `Plane`.

    model     nn.Sequential of Linear and ReLU or LeakyReLU, any depth, any number of classes
    lo, hi    the rectangle: a number or a pair, lo < hi
    axes      [2, d]: look at the flat x = origin + s₁ axes[0] + s₂ axes[1] of a d-dimensional input space; the rectangle and
              everything in the answer are then in the coordinates s
    origin    [d], zero if left out; only together with axes

    A polytope is where no neuron changes sign and the greatest number of each pool stays the same one. So two neighbours can
    have one map: where what changes between them is at rest further on. Numbers of a pool that are beaten make no edges.
    Cost: two or three µs a polytope; from the third hidden layer on also a matrix product over all vertices. Some 30 µs where
    kinks coincide, or more than two of them meet in a point.
    Raises ValueError for a model that `read` refuses, an empty rectangle, or inputs that do not make a plane, and
    ArithmeticError if an internal check fails: no answer is better than a wrong one.
    """
    network, box = _flat(read(model, shape_of(axes, 1)), origin, axes), _box(lo, hi)
    square = _in_square(network, box)
    if not (isinstance(square, Graph) and square.chooses):  # of numbers behind a ReLU, several are 0 at once
        try:
            return Plane(network, box, subdivide(square))
        except Degenerate:
            pass
    try:
        return Plane(network, box, *careful.subdivide(square))
    except Degenerate as reason:
        raise ArithmeticError(f"rounding leaves the polytopes of this network in this rectangle undecided: {reason}") from None


class Plane:
    """The polytopes of a network in a rectangle, as `plane` finds them: M polytopes, K classes.

    areas [M], centroids [M, 2]         of each polytope
    slopes [M, K, 2], offsets [M, K]    logits = slopes @ x + offsets; computed when first asked for
    corners [N, 2], starts [M + 1]      polygon i is corners[starts[i]:starts[i + 1]], counter-clockwise
    lo [2], hi [2]                      the rectangle
    network                             the `Network` that was cut up, on two inputs
    """

    def __init__(self, network, box, mesh, on=None):
        """on: the active neurons of each polytope, packed, where `careful` has found them; else those of the dual tree count."""
        self.network, self.mesh, self._on = network, mesh, on
        self.lo, self.hi = box
        self._centroids, areas = measure(mesh)
        self.starts = mesh.starts
        self.areas = areas * ((self.hi - self.lo) / 2).prod()
        self.centroids = self._from_square(self._centroids)

    def __len__(self) -> int:
        return len(self.areas)

    def __repr__(self):
        (left, low), (right, high) = self.lo, self.hi
        return f"Plane({len(self)} polytopes in [{left:g}, {right:g}] × [{low:g}, {high:g}])"

    @cached_property
    def corners(self) -> np.ndarray:
        return self._from_square(self.mesh.xy[self.mesh.corners()])

    def polygon(self, i: int) -> np.ndarray:
        """The corners of polytope i (negative i counts from the end), counter-clockwise, [v, 2]."""
        i = range(len(self))[i]
        return self.corners[self.starts[i] : self.starts[i + 1]]

    def edges(self) -> np.ndarray:
        """Every edge once, as a segment, [E, 2, 2]: what a matplotlib LineCollection takes."""
        return self._from_square(self.mesh.xy)[self.mesh.ends]

    @property
    def slopes(self) -> np.ndarray:
        return self._maps[0]

    @property
    def offsets(self) -> np.ndarray:
        return self._maps[1]

    def locate(self, points: Numbers) -> np.ndarray:
        """The polytope that holds each point, [n]; -1 outside the rectangle. A point on an edge goes to one of its sides.

        A polytope is known by which neurons are active in it: look up which are active at the point. Cost: one forward pass.
        """
        points = float64(points, "points")
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"points must be [n, 2], not {list(points.shape)}")
        found = np.full(len(points), -1)
        inside = np.flatnonzero(((points >= self.lo) & (points <= self.hi)).all(axis=1))
        chunk = max(1, BATCH // max(1, first_neurons(self.network)[-1]))
        for i in range(0, len(inside), chunk):
            rows = inside[i : i + chunk]
            found[rows] = self._look_up(np.clip(self._to_square(points[rows]), -1, 1))
        return found

    def _look_up(self, x):
        """The polytope of points x [n, 2] of the square."""
        keys, polytope, codes = self._code_book
        code = _code(self._activity(x), keys)
        slot = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
        found, lost = polytope[slot], np.flatnonzero(codes[slot] != code)
        if len(lost) and self._on is None:
            raise ArithmeticError(f"no polytope has the active neurons of the point {self._from_square(x[lost[0]])}")
        found[lost] = [self._around(x[i]) for i in lost]  # on kinks that meet: rounding has mixed the sides of several
        return found

    def _activity(self, x):
        """Which neurons are on at points x [n, 2] of the square. Where `careful` was at work, 0 but for rounding is off."""
        if self._on is None:
            return activity(self._square_network, x)
        layers, misplaced = range(len(widths_of(self.network))), np.full(len(x), careful.ROUND)
        found = [careful.layer_values(self._square_network, layer, x, misplaced) for layer in layers]
        on = [z > careful.TRUST * unsure for z, _, unsure in found]
        return np.concatenate(flat.decisive(self.network, on) if isinstance(self.network, Graph) else on, axis=1)

    def _around(self, point):
        """The polytope whose edges the point of the square is on the left of, or nearest to that."""
        begin = self.mesh.xy[self.mesh.corners()]
        along = begin[next_corner(self.starts)] - begin
        left = cross(along, point - begin) / np.linalg.norm(along, axis=1)
        return int(np.minimum.reduceat(left, self.starts[:-1]).argmax())

    @property
    def _square_network(self):
        return _in_square(self.network, (self.lo, self.hi))

    def _from_square(self, x):
        return (self.lo + self.hi) / 2 + (self.hi - self.lo) / 2 * x

    def _to_square(self, x):
        return (x - (self.lo + self.hi) / 2) / ((self.hi - self.lo) / 2)

    @cached_property
    def _tree(self):
        return dual_tree(self.mesh, root=int(np.argmax(self.areas)))

    @cached_property
    def _code_book(self):
        """A random 64-bit key per neuron, the polytopes in the order of their codes, the codes.

        The code of a polytope is the xor of its active neurons' keys: equal for two patterns with a chance of 2^-64. A neuron
        without a kink in the rectangle tells nothing apart, and where it is 0 but for rounding its sign is luck: its key is 0.
        """
        keys = np.random.default_rng(0).integers(1 << 63, size=first_neurons(self.network)[-1], dtype=np.uint64)
        if self._on is not None:
            always, ever = (unpacked(self.network, [fold.reduce(part, axis=0)[None] for part in self._on])
                            for fold in (np.bitwise_and, np.bitwise_or))  # fmt: skip
            keys[np.concatenate(always, axis=1)[0] | ~np.concatenate(ever, axis=1)[0]] = 0
            batches = careful.in_batches(self.network, self._on)
            codes = np.concatenate([_code(np.concatenate(on, axis=1), keys) for on in batches])
            return self._ranked(keys, np.arange(len(self)), codes)
        keys[np.setdiff1d(np.arange(len(keys)), self.mesh.owner)] = 0
        tree = self._tree
        codes = np.zeros(len(self), np.uint64)
        codes[0] = _code(activity(self._square_network, self._centroids[tree.order[:1]]), keys)[0]
        for level in tree.levels:
            codes[level] = codes[tree.up[level]] ^ keys[tree.neuron[level]]
        return self._ranked(keys, tree.order, codes)

    @staticmethod
    def _ranked(keys, polytope, codes):
        ranks = np.argsort(codes)
        codes = codes[ranks]
        if (codes[1:] == codes[:-1]).any():
            raise ArithmeticError("two polytopes have the same active neurons")
        return keys, polytope[ranks], codes

    @cached_property
    def _maps(self):
        square = self._square_network
        if self.is_small:
            order, packed = slice(None), self._on
            if packed is None:
                order = self._tree.order
                packed = patterns(square, self._tree, self._centroids[order[:1]])
            maps = np.empty((len(self), square.n_classes, 3))
            maps[order] = np.concatenate([careful.maps(square, on) for on in careful.in_batches(square, packed)])
        else:
            maps = affine_maps(square, self._tree, self._centroids)
        self._compare(maps)
        slopes = maps[:, :, :2] / ((self.hi - self.lo) / 2)
        return slopes, maps[:, :, 2] - slopes @ ((self.lo + self.hi) / 2)

    @property
    def is_small(self):
        """Whether each map is a product of its own; else they are running sums along a tree, which is quicker for many."""
        if self._on is not None or isinstance(self.network, Graph):
            return True
        return len(self) * max(map(len, self.network.biases)) ** 2 <= _SMALL

    @cached_property
    def drift(self):
        """What the maps' running sums may have lost of each logit, [K]."""
        return self._drift_of(np.concatenate([self.slopes * (self.hi - self.lo)[:1], self.offsets[:, :, None]], axis=2))

    def _drift_of(self, maps):
        return 0.0 if self.is_small else _DRIFT * np.abs(maps).max(axis=(0, 2))

    def _compare(self, maps, samples=200):
        """Check the maps of some polytopes, the largest among them, against the network; raises ArithmeticError."""
        some = np.unique(np.concatenate([np.linspace(0, len(self) - 1, samples).astype(int), np.argsort(-self.areas)[:samples]]))
        x, network = self._centroids[some], self._square_network
        error = np.abs(np.einsum("mkj,mj->mk", maps[some, :, :2], x) + maps[some, :, 2] - network(x))
        if (error > _SLACK * sizes(network, x)[-1] + self._drift_of(maps)).any():
            raise ArithmeticError(f"the affine maps miss the network by {error.max():g}")


def _flat(network, origin, axes):
    """The network on two inputs: itself, or seen from the flat origin + s₁ axes[0] + s₂ axes[1]."""
    dim = network.in_dim
    if axes is None and origin is not None:
        raise ValueError("origin is only used together with axes [2, d]")
    axes = plane_of(axes, network)
    origin = np.zeros(dim) if origin is None else vector(origin, "origin", network)
    return _restricted(network, origin, axes)


def _box(lo, hi):
    """The rectangle's lower and upper corner, each [2]."""
    lo, hi = float64(lo, "lo"), float64(hi, "hi")
    if lo.shape not in ((), (2,)) or hi.shape not in ((), (2,)):
        raise ValueError(f"lo and hi must each be a number or a pair, not of shape {list(lo.shape)} and {list(hi.shape)}")
    lo, hi = np.broadcast_to(lo, 2), np.broadcast_to(hi, 2)
    if not (np.isfinite(lo).all() and np.isfinite(hi).all() and (lo < hi).all()):
        raise ValueError(f"the rectangle must be finite with lo < hi in both directions, not lo={lo.tolist()}, hi={hi.tolist()}")
    return lo, hi


def _in_square(network, box):
    """The network as a function of the square [-1, 1]² that is stretched over the rectangle."""
    lo, hi = box
    return _restricted(network, (lo + hi) / 2, np.diag((hi - lo) / 2))


def _restricted(network, origin, axes):
    return flat.restricted(network, origin, axes) if isinstance(network, Graph) else network.restricted(origin, axes)


def _code(on, keys):
    """The xor of the active neurons' keys, uint64 [n]."""
    return np.bitwise_xor.reduce(np.where(on, keys, np.uint64(0)), axis=1)
