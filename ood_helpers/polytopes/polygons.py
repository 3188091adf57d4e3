"""Convex polygons, many in one array: their corners, areas, parts on one side of a line, and parts outside discs."""

from typing import NamedTuple

import numpy as np

FAINT = 1e-12  # a length or pre-activation this small, against the sizes that made it, has no sign that can be trusted


class Polygons(NamedTuple):
    """Convex polygons in one array: polygon i is corners[starts[i]:starts[i + 1]], a part of the polygon source[i]."""

    corners: np.ndarray
    starts: np.ndarray
    source: np.ndarray


def ragged(counts):
    """0 … counts[0] - 1, then 0 … counts[1] - 1, and so on, in one array."""
    stops = np.cumsum(counts)
    return np.arange(stops[-1] if len(stops) else 0) - np.repeat(stops - counts, counts)


def next_corner(starts):
    """The place of the next corner around each face, in an array that holds the corners of face after face, [N]."""
    following = np.arange(1, starts[-1] + 1)
    following[starts[1:] - 1] = starts[:-1]
    return following


def cross(u, v):
    """The cross product of vectors u, v [..., 2]."""
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def discs_of(means, radius):
    """Centres [m, 2] and the common radius."""
    radius = not_negative(radius, "radius")
    means = np.asarray(means, dtype=np.float64)
    means = means.reshape(0, 2) if means.size == 0 else means
    if means.ndim != 2 or means.shape[1] != 2 or not np.isfinite(means).all():
        raise ValueError(f"means must be finite and [m, 2], points of the rectangle's plane, not of shape {list(means.shape)}")
    i, j = np.triu_indices(len(means), 1)
    if (np.linalg.norm(means[i] - means[j], axis=1) < 2 * radius * (1 - FAINT)).any():
        raise ValueError(f"the discs of radius {radius} around the means overlap; they must lie apart, or touch")
    return means, radius


def not_negative(value, name):
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number, 0 or more, not {value}")
    return float(value)


def pick(polygons, keep):
    """Some of the polygons, keep [P] boolean."""
    sizes = np.diff(polygons.starts)[keep]
    corners = np.repeat(polygons.starts[:-1][keep], sizes) + ragged(sizes)
    return Polygons(polygons.corners[corners], np.concatenate([[0], np.cumsum(sizes)]), polygons.source[keep])


def join(parts):
    """Several `Polygons` as one."""
    corners, starts, source = zip(*parts, strict=True)
    sizes = np.concatenate([np.diff(s) for s in starts])
    return Polygons(np.concatenate(corners), np.concatenate([[0], np.cumsum(sizes)]), np.concatenate(source))


def each(ufunc, values, polygons):
    """ufunc over the corners of each polygon: values [N] -> [P]."""
    return ufunc.reduceat(values, polygons.starts[:-1]) if len(polygons.source) else values[:0]


def clip(polygons, values, noise, keep_ties=False):
    """The part of each polygon where an affine function is positive, given its values [N] at the corners.

    A polygon on which the function is 0 everywhere goes, or stays with `keep_ties`: the part by values and that by -values with
    `keep_ties` make up the whole. Values up to `noise` count as 0.
    """
    values = np.where(np.abs(values) <= noise, 0, values)
    following = next_corner(polygons.starts)
    after = values[following]
    kept, cut = values >= 0, (values > 0) & (after < 0) | (values < 0) & (after > 0)
    top, bottom = each(np.maximum, values, polygons), each(np.minimum, values, polygons)
    some = np.repeat((top > 0) | keep_ties & (top == 0) & (bottom == 0), np.diff(polygons.starts))
    kept, cut = kept & some, cut & some
    here = kept.astype(int) + cut
    place = np.cumsum(here) - here
    corners = np.empty((here.sum(), 2))
    corners[place[kept]] = polygons.corners[kept]
    begin, share = polygons.corners[cut], values[cut] / (values[cut] - after[cut])
    corners[place[cut] + kept[cut]] = begin + share[:, None] * (polygons.corners[following[cut]] - begin)
    sizes = each(np.add, here, polygons)
    left = sizes > 0
    return Polygons(corners, np.concatenate([[0], np.cumsum(sizes[left])]), polygons.source[left])


def _areas(polygons):
    """Area [P], from each polygon's own first corner."""
    local = polygons.corners - np.repeat(polygons.corners[polygons.starts[:-1]], np.diff(polygons.starts), axis=0)
    x, y = local.T
    following = next_corner(polygons.starts)
    return each(np.add, x * y[following] - y * x[following], polygons) / 2


def area_outside(polygons, means, radius):
    """Area [P] of each polygon outside the discs. Only those whose bounding box meets the disc's are compared with it."""
    found = _areas(polygons)
    for mean in means if radius else ():
        near = np.ones(len(found), bool)
        for i in (0, 1):
            near &= each(np.minimum, polygons.corners[:, i], polygons) < mean[i] + radius
            near &= each(np.maximum, polygons.corners[:, i], polygons) > mean[i] - radius
        found[near] -= _area_in_disc(pick(polygons, near), mean, radius)
    return np.maximum(found, 0)


def _area_in_disc(polygons, mean, radius):
    """Area [P] that each polygon shares with a disc.

    Each edge, seen from the centre, adds the triangle over the part of it inside the circle, and circular sectors over the rest.
    """
    p = polygons.corners - mean
    q = p[next_corner(polygons.starts)]
    enter, leave = chord_of_circle(p, q, radius)
    a, b = p + enter[:, None] * (q - p), p + leave[:, None] * (q - p)
    return each(np.add, (cross(a, b) + radius**2 * (_angle(p, a) + _angle(b, q))) / 2, polygons)


def chord_of_circle(p, q, radius):
    """The part of each segment p to q [n, 2] that lies inside a circle around 0, from and to, as fractions in [0, 1]."""
    along = q - p
    square, slope = (along**2).sum(axis=1), (p * along).sum(axis=1)
    depth = square * radius**2 - cross(p, q) ** 2  # positive where the line passes the centre within the radius
    root = np.sqrt(np.maximum(depth, 0))
    inside = (depth > 0) & (square > 0)
    ends = [np.divide(-slope + sign * root, square, out=np.zeros(len(p)), where=inside) for sign in (-1, 1)]
    return np.clip(ends, 0, 1)


def _angle(u, v):
    """The turn from u to v, in (-π, π]."""
    return np.arctan2(cross(u, v), (u * v).sum(axis=1))
