"""Areas and worst cases, measured on the polytopes that `plane` finds: no sampling.

Inside a polytope every logit is affine, and that decides what is exact:

- the winner changes along straight lines f_k = f_l, so what a class wins of a polytope is a convex polygon: exact;
- with two classes the confidence rises with f_k - f_l, which is affine, so it exceeds tau on one side of a straight line: exact;
- with more, -log p_k = log Σ_l exp(f_l - f_k) is convex: in a triangle it lies below the plane through its values at the corners
  and above each of its tangent planes. That brackets areas and maxima, and triangles are split until the bracket is narrow;
- a convex function is greatest at a corner, so the smallest p_k is found among corners: exact for any number of classes.

In-distribution discs are cut out exactly: areas by circular sectors, worst cases by the points where circles cross edges. Where
the discs' edges are curved they bend inwards, seen from outside, so no point of an arc can be the greatest value of a convex
function: it lies inside a short tangent, and the function is at least as great at one of its ends.

`means` [m, 2] are the centres of the discs, none by default, `radius` is common to all.
"""

from typing import NamedTuple

import numpy as np

from .mesh import cross, next_corner, ragged

ROUNDS = 24  # times that triangles are split at most …
MOST = 200_000  # … and how many there may be; the bounds hold whenever the splitting stops


class Bounds(NamedTuple):
    """An area that is at least `low` and at most `high`."""

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


class Polygons(NamedTuple):
    """Convex polygons in one array: polygon i is corners[starts[i]:starts[i + 1]], a part of the polygon source[i]."""

    corners: np.ndarray
    starts: np.ndarray
    source: np.ndarray


def ood_area(polytopes, means=(), radius=0.0):
    """Area of the rectangle outside the discs."""
    return float(_area_outside(_rectangle(polytopes), *_discs(means, radius)).sum())


def class_areas(polytopes, means=(), radius=0.0):
    """Area [K] that each class wins, outside the discs. Where classes tie the lowest index wins. Exact for any K."""
    discs = _discs(means, radius)
    areas = np.zeros(polytopes.offsets.shape[1])
    for k, won in _won(polytopes, range(len(areas))):
        areas[k] = _area_outside(won, *discs).sum()
    return areas


def confident_area(polytopes, tau, classes=None, means=(), radius=0.0, rtol=1e-5):
    """Area outside the discs where the largest softmax probability among `classes` exceeds tau, as `Bounds`.

    tau      in [0, 1)
    classes  which probabilities count: all by default; for a reject network the in-distribution classes
    rtol     for three or more classes: how far the bounds may lie apart, relative to the area of the rectangle. With one or
             two classes the area is exact and the bounds are equal
    """
    if not 0 <= tau < 1:
        raise ValueError(f"tau must be a probability in [0, 1), not {tau}")
    discs, total = _discs(means, radius), polytopes.offsets.shape[1]
    classes = _classes(classes, total)
    budget = rtol * polytopes.areas.sum() / len(classes)
    low = high = 0.0
    for k, won in _won(polytopes, classes):
        if total == 1 or tau == 0:
            part = [_area_outside(won, *discs).sum()] * 2
        elif total == 2:
            logits = _logits(polytopes, won)
            part = [_area_outside(_clip(won, logits[k] - logits[1 - k] - np.log(tau / (1 - tau))), *discs).sum()] * 2
        else:
            part = _bracket_area(polytopes, won, k, -np.log(tau), discs, budget)
        low, high = low + part[0], high + part[1]
    return Bounds(float(low), float(high))


def most_confident(polytopes, classes=None, means=(), radius=0.0, tol=1e-6):
    """Where, outside the discs, the softmax probability of any of `classes` is largest, as a `Peak`.

    With two classes exact: the place is a corner of a polytope, or where a circle crosses an edge. With more the maximum may lie
    inside a polytope: then log(bound) is within `tol` of log(confidence), unless the maximum is reached along a whole line, where
    the search stops early with a wider bound.
    """
    discs = _discs(means, radius)
    classes = _classes(classes, polytopes.offsets.shape[1])
    points, logits = _candidates(polytopes, discs)
    surprise = np.stack([_surprise(logits, k) for k in classes])
    k, i = np.unravel_index(surprise.argmin(), surprise.shape)
    found, least = (surprise[k, i], points[i], classes[k]), surprise[k, i]
    if len(logits) > 2:
        found, least = _search(polytopes, classes, discs, found, tol)
    return Peak(float(np.exp(-found[0])), found[1], int(found[2]), float(np.exp(-least)))


def least_probable(polytopes, k, means=(), radius=0.0):
    """Where, outside the discs, class k has its smallest softmax probability, as a `Peak`. Exact for any number of classes.

    For the reject class this is a guarantee: no OOD point has an in-distribution confidence above 1 - confidence.
    """
    (k,) = _classes([k], polytopes.offsets.shape[1])
    points, logits = _candidates(polytopes, _discs(means, radius))
    surprise = _surprise(logits, k)
    i = surprise.argmax()
    value = float(np.exp(-surprise[i]))
    return Peak(value, points[i], k, value)


# ---- arguments ----


def _classes(classes, total):
    """A list of distinct class numbers, all by default."""
    chosen = list(range(total) if classes is None else classes)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(total)):
        raise ValueError(f"classes must be distinct numbers from 0 to {total - 1}, not {chosen}")
    return [int(k) for k in chosen]


def _discs(means, radius):
    """Centres [m, 2] and the common radius."""
    means = np.asarray(means, dtype=np.float64)
    means = means.reshape(0, 2) if means.size == 0 else means
    if means.ndim != 2 or means.shape[1] != 2 or not np.isfinite(means).all():
        raise ValueError(f"means must be finite and [m, 2], not of shape {list(means.shape)}")
    if not (np.isfinite(radius) and radius >= 0):
        raise ValueError(f"radius must be a finite number, 0 or more, not {radius}")
    i, j = np.triu_indices(len(means), 1)
    if (np.linalg.norm(means[i] - means[j], axis=1) < 2 * radius).any():
        raise ValueError(f"the discs of radius {radius} around the means overlap; they must lie apart")
    return means, float(radius)


# ---- polygons ----


def _rectangle(polytopes):
    (x0, y0), (x1, y1) = polytopes.lo, polytopes.hi
    return Polygons(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), np.array([0, 4]), np.array([0]))


def _pick(polygons, keep):
    """Some of the polygons, keep [P] boolean."""
    sizes = np.diff(polygons.starts)[keep]
    corners = np.repeat(polygons.starts[:-1][keep], sizes) + ragged(sizes)
    return Polygons(polygons.corners[corners], np.concatenate([[0], np.cumsum(sizes)]), polygons.source[keep])


def _join(parts):
    corners, starts, source = zip(*parts, strict=True)
    sizes = np.concatenate([np.diff(s) for s in starts])
    return Polygons(np.concatenate(corners), np.concatenate([[0], np.cumsum(sizes)]), np.concatenate(source))


def _each(ufunc, values, polygons):
    """ufunc over the corners of each polygon: values [N] -> [P]."""
    return ufunc.reduceat(values, polygons.starts[:-1]) if len(polygons.source) else values[:0]


def _clip(polygons, values, keep_ties=False):
    """The part of each polygon where an affine function is positive, given its values [N] at the corners.

    A polygon on which the function is 0 everywhere goes, or stays with `keep_ties`.
    """
    following = next_corner(polygons.starts)
    after = values[following]
    kept, cut = values >= 0, (values > 0) & (after < 0) | (values < 0) & (after > 0)
    top = _each(np.maximum, values, polygons)
    some = np.repeat((top > 0) | keep_ties & (top == 0), np.diff(polygons.starts))
    kept, cut = kept & some, cut & some
    here = kept.astype(int) + cut
    place = np.cumsum(here) - here
    corners = np.empty((here.sum(), 2))
    corners[place[kept]] = polygons.corners[kept]
    begin, share = polygons.corners[cut], values[cut] / (values[cut] - after[cut])
    corners[place[cut] + kept[cut]] = begin + share[:, None] * (polygons.corners[following[cut]] - begin)
    sizes = _each(np.add, here, polygons)
    left = sizes > 0
    return Polygons(corners, np.concatenate([[0], np.cumsum(sizes[left])]), polygons.source[left])


def _areas(polygons):
    """Area [P], from each polygon's own first corner."""
    local = polygons.corners - np.repeat(polygons.corners[polygons.starts[:-1]], np.diff(polygons.starts), axis=0)
    x, y = local.T
    following = next_corner(polygons.starts)
    return _each(np.add, x * y[following] - y * x[following], polygons) / 2


def _area_outside(polygons, means, radius):
    """Area [P] of each polygon outside the discs."""
    areas = _areas(polygons)
    for mean in means if radius else ():
        near = np.ones(len(areas), bool)
        for i in (0, 1):
            near &= _each(np.minimum, polygons.corners[:, i], polygons) < mean[i] + radius
            near &= _each(np.maximum, polygons.corners[:, i], polygons) > mean[i] - radius
        areas[near] -= area_in_disc(_pick(polygons, near), mean, radius)
    return np.maximum(areas, 0)


def area_in_disc(polygons, mean, radius):
    """Area [P] that each polygon shares with a disc.

    Each edge, seen from the centre, adds the triangle over the part of it inside the circle, and circular sectors over the rest.
    """
    p = polygons.corners - mean
    q = p[next_corner(polygons.starts)]
    enter, leave = _chord_of_circle(p, q, radius)
    a, b = p + enter[:, None] * (q - p), p + leave[:, None] * (q - p)
    return _each(np.add, (cross(a, b) + radius**2 * (_angle(p, a) + _angle(b, q))) / 2, polygons)


def _chord_of_circle(p, q, radius):
    """The part of each segment p to q [n, 2] that lies inside a circle around 0, from and to, as fractions in [0, 1]."""
    along = q - p
    square, slope = (along**2).sum(axis=1), (p * along).sum(axis=1)
    depth = slope**2 - square * ((p**2).sum(axis=1) - radius**2)
    root = np.sqrt(np.maximum(depth, 0))
    inside = (depth > 0) & (square > 0)
    ends = [np.divide(-slope + sign * root, square, out=np.zeros(len(p)), where=inside) for sign in (-1, 1)]
    return np.clip(ends, 0, 1)


def _angle(u, v):
    """The turn from u to v, in (-π, π]."""
    return np.arctan2(cross(u, v), (u * v).sum(axis=1))


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


def _surprise(logits, k):
    """-log p_k [n] of logits [K, n], k a class or one per point; convex where the logits are affine."""
    top = logits.max(axis=0)
    return np.log(np.exp(logits - top).sum(axis=0)) + (top - logits[k, np.arange(logits.shape[1])])


def _tangent(polytopes, face, k, x):
    """-log p_k and its gradient at points x: [n], [n, 2]. k is a class, or one per point."""
    logits = _affine(polytopes, face, x)
    p = np.exp(logits - logits.max(axis=0))
    p /= p.sum(axis=0)
    slopes = polytopes.slopes[face]
    return _surprise(logits, k), np.einsum("kn,nkj->nj", p, slopes) - slopes[np.arange(len(face)), k]


# ---- who wins where ----


def _won(polytopes, classes):
    """For each class, what it wins among `classes` of the polytopes: a generator of (k, Polygons)."""
    every = Polygons(polytopes.corners, polytopes.starts, np.arange(len(polytopes)))
    logits = _vertex_logits(polytopes)[1]
    leader = logits[classes].argmax(axis=0)[polytopes.mesh.corners()]
    first = leader[polytopes.starts[:-1]]
    decided = _each(np.logical_and, leader == np.repeat(first, np.diff(polytopes.starts)), every)
    contested = _pick(every, ~decided)
    for i, k in enumerate(classes):
        part = contested
        for other in classes:
            if other != k:
                logits = _logits(polytopes, part)
                part = _clip(part, logits[k] - logits[other], keep_ties=k < other)
        yield k, _join([_pick(every, decided & (first == i)), part])


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
    """A tangent plane of -log p_k at the corners [N] of each polygon, a lower bound, taken at the mean of the corners."""
    sizes = np.diff(polygons.starts)
    centre = np.stack([_each(np.add, polygons.corners[:, i], polygons) for i in (0, 1)], axis=1) / sizes[:, None]
    value, slope = _tangent(polytopes, polygons.source, k, centre)
    return np.repeat(value, sizes) + (
        np.repeat(slope, sizes, axis=0) * (polygons.corners - np.repeat(centre, sizes, axis=0))
    ).sum(1)


def _bracket_area(polytopes, won, k, level, discs, budget):
    """Bounds on the area outside the discs where -log p_k < level, at most `budget` apart."""
    surprise = _surprise(_logits(polytopes, won), k)
    inside = _each(np.maximum, surprise, won) < level
    outside = _each(np.minimum, _tangent_at(polytopes, won, k), won) >= level
    low = high = _area_outside(_pick(won, inside), *discs).sum()
    triangles, face = _triangles(_pick(won, ~inside & ~outside))
    for _ in range(ROUNDS):
        inner, outer = _bracket(polytopes, triangles, face, k, level, discs)
        gap = outer - inner
        if gap.sum() <= budget or len(face) > MOST:
            break
        # the narrowest brackets may use up an eighth of what is left; the other triangles are split
        order = np.argsort(gap)
        done, split = np.split(order, [np.searchsorted(np.cumsum(gap[order]), budget / 8, side="right")])
        low, high, budget = low + inner[done].sum(), high + outer[done].sum(), budget - gap[done].sum()
        triangles, face = _split(triangles[split]), np.tile(face[split], 4)
    return low + inner.sum(), high + outer.sum()


def _bracket(polytopes, triangles, face, k, level, discs):
    """Bounds [T], [T] on the area of each triangle, outside the discs, where -log p_k < level."""
    parts = Polygons(triangles.reshape(-1, 2), np.arange(0, 3 * len(face) + 1, 3), face)
    above = _surprise(_logits(polytopes, parts), k)
    below = _tangent_at(polytopes, parts, k)
    parts = parts._replace(source=np.arange(len(face)))
    inner, outer = (_clip(parts, level - values) for values in (above, below))
    inner, outer = (np.bincount(part.source, _area_outside(part, *discs), len(face)) for part in (inner, outer))
    return inner, np.maximum(inner, outer)


def _candidates(polytopes, discs):
    """The points that can hold the greatest value of a convex function outside the discs, [n, 2], and their logits [K, n]."""
    means, radius = discs
    vertices, logits = _vertex_logits(polytopes)
    outside = np.ones(len(vertices), bool)
    points, values = [], []
    begin, end = polytopes.mesh.ends.T
    for mean in means if radius else ():
        outside &= np.linalg.norm(vertices - mean, axis=1) >= radius
        enter, leave = _chord_of_circle(vertices[begin] - mean, vertices[end] - mean, radius)
        for t, crosses in ((enter, (enter > 0) & (enter < leave)), (leave, (leave < 1) & (enter < leave))):
            a, b, share = begin[crosses], end[crosses], t[crosses]
            points.append(vertices[a] + share[:, None] * (vertices[b] - vertices[a]))
            values.append(logits[:, a] + share * (logits[:, b] - logits[:, a]))
    points, values = np.concatenate([*points, vertices[outside]]), np.concatenate([*values, logits[:, outside]], axis=1)
    if len(points) == 0:
        raise ValueError("the discs cover the whole rectangle: no OOD point is left")
    return points, values


def _search(polytopes, classes, discs, found, tol):
    """The smallest -log p_k outside the discs over all `classes`: (value, point, class), and a proven lower bound.

    found   the best known so far, (value, point, class)

    Triangles whose tangent plane stays above the best value are dropped, the others are split.
    """
    every = Polygons(polytopes.corners, polytopes.starts, np.arange(len(polytopes)))
    parts = []
    for k in classes:
        near = _each(np.minimum, _tangent_at(polytopes, every, k), every) < found[0] - tol
        triangles, face = _triangles(_pick(every, near))
        parts.append((triangles, face, np.full(len(face), k)))
    triangles, face, k = (np.concatenate(part) for part in zip(*parts, strict=True))
    for _ in range(ROUNDS):
        centre = triangles.mean(axis=1)
        value, slope = _tangent(polytopes, face, k, centre)
        free = np.flatnonzero(~_in_a_disc(centre[:, None], discs))
        if len(free) and value[free].min() < found[0]:
            best = free[value[free].argmin()]
            found = value[best], centre[best], k[best]
        lower = value + np.einsum("tj,tcj->tc", slope, triangles - centre[:, None]).min(axis=1)
        alive = (lower < found[0] - tol) & ~_in_a_disc(triangles, discs)
        least = min(found[0] - tol, lower[alive].min(initial=np.inf))
        if not alive.any() or len(face) > MOST:
            break
        triangles, face, k = _split(triangles[alive]), np.tile(face[alive], 4), np.tile(k[alive], 4)
    return found, max(least, 0.0)


def _in_a_disc(x, discs):
    """Which groups x [T, c, 2] of points lie inside one disc."""
    means, radius = discs
    inside = [(np.linalg.norm(x - mean, axis=2) < radius).all(axis=1) for mean in means]
    return np.any(inside, axis=0) if inside else np.zeros(len(x), bool)
