"""Areas and worst cases, measured on the polytopes that `plane` finds: no sampling.

Inside a polytope every logit f_k is affine, and that decides what is exact:

- the winner changes along straight lines f_k = f_l, so what a class wins of a polytope is a convex polygon: exact;
- the log-odds against a class, log((1 - p_k) / p_k) = log Σ exp(f_l - f_k) over l ≠ k, fall as p_k rises. With two classes they
  are affine too, so p_k exceeds tau on one side of a straight line: exact;
- with more they are convex: in a triangle they lie below the plane through their values at the corners and above each of their
  tangent planes. That brackets areas and maxima, and triangles are split until the bracket is narrow;
- a convex function is greatest at a corner, so the smallest p_k is found among corners: exact for any number of classes.

Exact means to rounding; a difference of logits that could be rounding counts as 0, so that classes tie where they should.

In-distribution discs are cut out exactly: areas by circular sectors, worst cases by the points where circles cross edges. Where
the discs' edges are curved they bend inwards, seen from outside, so no point of an arc can be the greatest value of a convex
function: it lies inside a short tangent, and the function is at least as great at one of its ends.

`means` [m, 2] are the centres of the discs, none by default; `radius` is common to all. The discs must not overlap. Both are in
the coordinates of the rectangle. In a slice of more dimensions these are s₁ and s₂: a ball of radius r is a disc only if the two
axes have length 1 and are orthogonal, and its radius is √(r² - h²) where its centre is a distance h away from the slice.

Every measure raises ValueError for an argument outside what is allowed, and so does a search where the discs leave no point.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from ood_helpers.arrays import Numbers

from .careful import ROUND
from .mesh import magnitudes, sizes
from .plane import Plane
from .polygons import (
    FAINT,
    Polygons,
    area_outside,
    chord_of_circle,
    clip,
    discs_of,
    each,
    join,
    not_negative,
    pick,
    ragged,
)

_ROUNDS = 40  # times that triangles are split at most …
_MOST = 200_000  # … and how many there may be; the bounds hold whenever the splitting stops


class Bounds(NamedTuple):
    """An area that is at least `low` and at most `high`, to rounding."""

    low: float
    high: float


class Peak(NamedTuple):
    """The place where a class is most, or least, probable.

    confidence    the probability there
    point [2]     the place
    winner        the class
    bound         proven: no point of the region has more (or less). Equal to `confidence` where the search is exact
    """

    confidence: float
    point: np.ndarray
    winner: int
    bound: float


def ood_area(polytopes: Plane, means: Numbers = (), radius: float = 0.0) -> float:
    """Area of the rectangle outside the discs."""
    return float(area_outside(_rectangle(polytopes), *discs_of(means, radius)).sum())


def class_areas(polytopes: Plane, means: Numbers = (), radius: float = 0.0) -> np.ndarray:
    """Area [K] that each class wins, outside the discs. Where classes tie the lowest index wins. Exact for any K."""
    discs = discs_of(means, radius)
    areas = np.zeros(polytopes.offsets.shape[1])
    for k, won in _won(polytopes, range(len(areas)), _noise(polytopes)):
        areas[k] = area_outside(won, *discs).sum()
    return areas


def confident_area(
    polytopes: Plane,
    tau: float,
    classes: int | Sequence[int] | None = None,
    means: Numbers = (),
    radius: float = 0.0,
    rtol: float = 1e-5,
) -> Bounds:
    """Area outside the discs where the largest softmax probability among `classes` exceeds tau, as `Bounds`.

    tau      in [0, 1)
    classes  which probabilities count: all by default; for a reject network the in-distribution classes
    rtol     for three or more classes: how far the bounds may lie apart, relative to the area of the rectangle; they lie further
             apart only if that takes more than `_MOST` triangles. With one or two classes the area is exact and the bounds equal
    """
    if not 0 <= tau < 1:
        raise ValueError(f"tau must be a probability in [0, 1), not {tau}")
    discs, total, noise = discs_of(means, radius), polytopes.offsets.shape[1], _noise(polytopes)
    classes = _classes(classes, total)
    budget = not_negative(rtol, "rtol") * polytopes.areas.sum() / len(classes)
    level = np.log1p(-tau) - np.log(tau) if tau else np.inf
    low = high = 0.0
    for k, won in _won(polytopes, classes, noise):
        if total > 2:
            inner, outer = _bracket_area(polytopes, won, k, level, discs, budget, noise)
        else:
            rivals, face = _rivals(_logits(polytopes, won), k), np.repeat(won.source, np.diff(won.starts))
            doubt = _odds_noise(noise, rivals, k, face) if total == 2 else 0.0
            sure = clip(won, level - np.logaddexp.reduce(rivals, axis=0), doubt)
            inner = outer = area_outside(sure, *discs).sum()
        low, high = low + inner, high + outer
    return Bounds(float(low), float(high))


def most_confident(
    polytopes: Plane,
    classes: int | Sequence[int] | None = None,
    means: Numbers = (),
    radius: float = 0.0,
    tol: float = 1e-6,
) -> Peak:
    """Where, outside the discs, the softmax probability of any of `classes` is largest, as a `Peak`.

    With two classes exact: the place is a corner of a polytope, or where a circle crosses an edge. With more the maximum may lie
    inside a polytope: then the log-odds of `bound` and of `confidence` are within `tol`, and so are their logarithms, unless the
    maximum is reached along a whole line, where the search stops early with a wider bound.
    """
    discs, tol = discs_of(means, radius), not_negative(tol, "tol")
    classes = _classes(classes, polytopes.offsets.shape[1])
    points, logits = _candidates(polytopes, discs)
    log_odds = np.stack([_log_odds(logits, k) for k in classes])
    k, i = np.unravel_index(log_odds.argmin(), log_odds.shape)
    best = least = log_odds[k, i]
    point, winner = points[i], classes[k]
    for k in classes if len(logits) > 2 else ():
        value, place, bound = _search(polytopes, k, discs, best, tol)
        if value < best:
            best, point, winner = value, place, k
        least = min(least, bound)
    return Peak(float(expit(-best)), point, winner, float(expit(-least)))


def least_probable(polytopes: Plane, k: int, means: Numbers = (), radius: float = 0.0) -> Peak:
    """Where, outside the discs, class k has its smallest softmax probability, as a `Peak`. Exact for any number of classes.

    For the reject class this is a guarantee: no OOD point has an in-distribution confidence above 1 - confidence.
    """
    (k,) = _classes([k], polytopes.offsets.shape[1])
    points, logits = _candidates(polytopes, discs_of(means, radius))
    log_odds = _log_odds(logits, k)
    i = log_odds.argmax()
    value = float(expit(-log_odds[i]))
    return Peak(value, points[i], k, value)


# ---- arguments ----


def _classes(classes, total) -> list[int]:
    """A sorted list of distinct class numbers: all by default, or one, or several."""
    chosen = list(range(total)) if classes is None else np.atleast_1d(classes).tolist()
    if not chosen or any(k not in range(total) for k in chosen) or len(set(chosen)) < len(chosen):
        raise ValueError(f"classes must be distinct numbers from 0 to {total - 1}, not {chosen}")
    return sorted(int(k) for k in chosen)


def _polygons(polytopes):
    """All polytopes, whole."""
    return Polygons(polytopes.corners, polytopes.starts, np.arange(len(polytopes)))


def _rectangle(polytopes):
    (x0, y0), (x1, y1) = polytopes.lo, polytopes.hi
    return Polygons(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), np.array([0, 4]), np.array([0]))


# ---- logits ----


def _affine(polytopes, face, x):
    """Logits [K, n] of points x [n, 2] by the maps of polytopes `face` [n]."""
    return np.einsum("nkj,nj->kn", polytopes.slopes[face], x) + polytopes.offsets[face].T


def _logits(polytopes, polygons):
    """Logits [K, N] at the corners of parts of polytopes."""
    return _affine(polytopes, np.repeat(polygons.source, np.diff(polygons.starts)), polygons.corners)


def _vertex_logits(polytopes):
    """Every vertex [V, 2] of the subdivision and its logits [K, V], by the map of any polytope around it."""
    corners = polytopes.mesh.corners()
    face = np.zeros(len(polytopes.mesh.xy), int)
    face[corners] = polytopes.mesh.face_of_loops()
    points = np.empty((len(face), 2))
    points[corners] = polytopes.corners
    return points, _affine(polytopes, face, points)


def _log_odds(logits, k):
    """log((1 - p_k) / p_k) [n] of logits [K, n]: convex where the logits are affine, and affine if K is 2; -inf if K is 1."""
    return np.logaddexp.reduce(_rivals(logits, k), axis=0)


def _rivals(logits, k):
    """f_l - f_k [K, n], and -inf for class k itself, which is no rival."""
    rivals = logits - logits[k]
    rivals[k] = -np.inf
    return rivals


def _tangent(polytopes, face, k, x):
    """The log-odds against class k and their gradient at points x [n, 2] of polytopes face [n]: [n], [n, 2].

    The gradient is the mean of the rivals' slopes, weighted with their probabilities, less the slope of k.
    """
    rivals = _rivals(_affine(polytopes, face, x), k)
    log_odds = np.logaddexp.reduce(rivals, axis=0)
    slopes = polytopes.slopes[face]
    return log_odds, np.einsum("kn,nkj->nj", np.exp(rivals - log_odds), slopes) - slopes[:, k]


def _noise(polytopes):
    """How much of each logit may be rounding on each polytope, [M, K]; of a difference of two logits it is the sum of theirs.

    Measured by the terms that add up to the logit there. An affine function that is nowhere negative is at most three times
    greater anywhere on a polygon than at its centroid. Large partitions are measured by a coarse grid.
    """
    network, x = polytopes._square_network, polytopes._centroids
    rounding = 9 * ROUND * (sizes(network, x) if polytopes.is_small else magnitudes(network))[-1]
    return np.broadcast_to(rounding + polytopes.drift, (len(x), network.n_classes))


def _odds_noise(noise, rivals, k, face):
    """How much of the log-odds against class k may be rounding, at points of polytopes face [n] with rivals f_l - f_k [K, n].

    A rival's rounding counts as much as its probability among the rivals: one far behind does no harm.
    """
    share = np.exp(rivals - np.logaddexp.reduce(rivals, axis=0))
    logs = 0 if len(rivals) == 2 else ROUND * len(rivals)
    return noise[face, k] + (share * noise[face].T).sum(axis=0) + logs


# ---- who wins where ----


def _won(polytopes, classes, noise):
    """For each class, what it wins among `classes` of the polytopes: a generator of (k, Polygons). The first of a tie wins."""
    every = _polygons(polytopes)
    sides, classes = np.diff(polytopes.starts), list(classes)
    logits, doubt = _logits(polytopes, every)[classes], np.repeat(noise[:, classes], sides, axis=0).T
    best = logits.argmax(axis=0)
    best, least = (np.take_along_axis(part, best[None], axis=0) for part in (logits, doubt))
    leader = (best - logits <= doubt + least).argmax(axis=0)
    first = leader[polytopes.starts[:-1]]
    decided = each(np.logical_and, leader == np.repeat(first, sides), every)
    contested = pick(every, ~decided)
    for i, k in enumerate(classes):
        part = contested
        for other in classes:
            if other != k:
                logits, face = _logits(polytopes, part), np.repeat(part.source, np.diff(part.starts))
                part = clip(part, logits[k] - logits[other], noise[face, k] + noise[face, other], keep_ties=k < other)
        yield k, join([pick(every, decided & (first == i)), part])


# ---- three and more classes: brackets that are narrowed by splitting triangles ----


def _triangles(polygons):
    """Fans of triangles [T, 3, 2] and what they are part of, source [T]."""
    counts = np.maximum(np.diff(polygons.starts) - 2, 0)
    apex, step = np.repeat(polygons.starts[:-1], counts), ragged(counts)
    return polygons.corners[np.stack([apex, apex + step + 1, apex + step + 2], axis=1)], np.repeat(polygons.source, counts)


def _split(triangles):
    """Each triangle as four half its size, [4T, 3, 2]; the first T are one of each, and so on."""
    a, b, c = triangles.transpose(1, 0, 2)
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    return np.stack([np.concatenate(v) for v in ((a, b, c, ab), (ab, bc, ca, bc), (ca, ab, bc, ca))], axis=1)


def _tangent_at(polytopes, polygons, k):
    """A tangent plane of the log-odds at the corners [N] of each polygon, a lower bound; it touches at the corners' mean."""
    sizes = np.diff(polygons.starts)
    centre = np.stack([each(np.add, polygons.corners[:, i], polygons) for i in (0, 1)], axis=1) / sizes[:, None]
    value, slope = (np.repeat(v, sizes, axis=0) for v in _tangent(polytopes, polygons.source, k, centre))
    return value + (slope * (polygons.corners - np.repeat(centre, sizes, axis=0))).sum(axis=1)


def _bracket_area(polytopes, won, k, level, discs, budget, noise):
    """Bounds on the area outside the discs where the log-odds are below `level`, at most `budget` apart."""
    rivals = _rivals(_logits(polytopes, won), k)
    doubt = each(np.maximum, _odds_noise(noise, rivals, k, np.repeat(won.source, np.diff(won.starts))), won)
    inside = each(np.maximum, np.logaddexp.reduce(rivals, axis=0), won) < level - doubt
    outside = each(np.minimum, _tangent_at(polytopes, won, k), won) >= level - doubt
    low = high = area_outside(pick(won, inside), *discs).sum()
    triangles, face = _triangles(pick(won, ~inside & ~outside))
    inner, outer = _bracket(polytopes, triangles, face, k, level, discs, noise)
    for _ in range(_ROUNDS):
        gap = outer - inner
        if gap.sum() <= budget or len(face) > _MOST:
            break
        # the narrowest brackets may use up an eighth of what is left; the other triangles are split
        order = np.argsort(gap)
        done, split = np.split(order, [np.searchsorted(np.cumsum(gap[order]), budget / 8, side="right")])
        low, high, budget = low + inner[done].sum(), high + outer[done].sum(), budget - gap[done].sum()
        triangles, face = _split(triangles[split]), np.tile(face[split], 4)
        inner, outer = _bracket(polytopes, triangles, face, k, level, discs, noise)
    return low + inner.sum(), high + outer.sum()


def _bracket(polytopes, triangles, face, k, level, discs, noise):
    """Bounds [T], [T] on the area of each triangle, outside the discs, where the log-odds are below `level`."""
    parts = Polygons(triangles.reshape(-1, 2), np.arange(0, 3 * len(face) + 1, 3), face)
    rivals = _rivals(_logits(polytopes, parts), k)
    above, below = np.logaddexp.reduce(rivals, axis=0), _tangent_at(polytopes, parts, k)
    doubt = _odds_noise(noise, rivals, k, np.repeat(face, 3))
    parts = parts._replace(source=np.arange(len(face)))
    inner, outer = (clip(parts, level - values, doubt) for values in (above, below))
    inner, outer = (np.bincount(part.source, area_outside(part, *discs), len(face)) for part in (inner, outer))
    return inner, np.maximum(inner, outer)


def _candidates(polytopes, discs):
    """The points that can hold the greatest value of a convex function outside the discs, [n, 2], and their logits [K, n]."""
    means, radius = discs
    vertices, logits = _vertex_logits(polytopes)
    outside = np.ones(len(vertices), bool)
    points, values = [], []
    begin, end = polytopes.mesh.ends.T
    for mean in means if radius else ():
        outside &= np.linalg.norm(vertices - mean, axis=1) >= radius * (1 - FAINT)  # a corner on the circle counts
        enter, leave = chord_of_circle(vertices[begin] - mean, vertices[end] - mean, radius)
        for t, crosses in ((enter, (enter > 0) & (enter < leave)), (leave, (leave < 1) & (enter < leave))):
            a, b, share = begin[crosses], end[crosses], t[crosses]
            points.append(vertices[a] + share[:, None] * (vertices[b] - vertices[a]))
            values.append(logits[:, a] + share * (logits[:, b] - logits[:, a]))
    points, values = np.concatenate([*points, vertices[outside]]), np.concatenate([*values, logits[:, outside]], axis=1)
    if len(points) == 0:
        raise ValueError("the discs cover the whole rectangle: no OOD point is left")
    return points, values


def _search(polytopes, k, discs, best, tol):
    """The smallest log-odds against class k outside the discs, if below `best`: (value, point, a proven lower bound).

    Triangles whose tangent plane stays above the best value so far are dropped, the others are split.
    """
    every, point = _polygons(polytopes), None
    near = each(np.minimum, _tangent_at(polytopes, every, k), every) < best - tol
    triangles, face = _triangles(pick(every, near))
    for _ in range(_ROUNDS):
        centre = triangles.mean(axis=1)
        value, slope = _tangent(polytopes, face, k, centre)
        free = np.flatnonzero((value < best) & ~_in_a_disc(centre[:, None], discs))
        if len(free):
            i = free[value[free].argmin()]
            best, point = value[i], centre[i]
        lower = value + np.einsum("tj,tcj->tc", slope, triangles - centre[:, None]).min(axis=1)
        alive = (lower < best - tol) & ~_in_a_disc(triangles, discs)
        least = min(best - tol, lower[alive].min(initial=np.inf))
        if not alive.any() or len(face) > _MOST:
            break
        triangles, face = _split(triangles[alive]), np.tile(face[alive], 4)
    return best, point, least


def _in_a_disc(x, discs):
    """Which groups x [T, c, 2] of points lie inside a disc, all points of the group inside the same one: boolean [T]."""
    means, radius = discs
    inside = [(np.linalg.norm(x - mean, axis=2) < radius).all(axis=1) for mean in means]
    return np.any(inside, axis=0) if inside else np.zeros(len(x), bool)
