"""Sweep a direction through a graph of steps, as `fan` does through matrices: every value is an affine map in every sector.

The same sectors are cut at the same kinks, by `fan.cut`; where the greatest of several numbers is taken, a sector is cut where
another one becomes the greatest. Affine steps are pushed through in all sectors at once. So that memory stays bounded the sectors
behind a kink are carried on in groups, the first group to the end before the second.
"""

from array import array

import numpy as np
import torch

from .fan import SUSPICIOUS, _same, cut, sweep
from .graph import OUT_OF_RANGE, ROUNDING, Bend, Graph
from .steps import Affine

_BATCH = 1 << 20  # numbers that the largest value of a group of sectors holds: 8 MB


def swept(network, edges, inputs, slack):
    """`fan.sweep` for a `Network` or a `Graph`."""
    return (_sweep if isinstance(network, Graph) else sweep)(network, edges, inputs, slack)


def _sweep(graph, edges, inputs, slack):
    """As `fan.sweep`; real is False where nothing changes at an edge that the caller brought along."""
    given, ends, maps = edges, array("d"), array("d")  # not many small arrays: between them freed memory would be lost
    start = graph.tensor(inputs).expand(len(edges) - 1, -1, -1, *[-1] * len(graph.shape))
    waiting = [(1, edges, lambda: {0: start})]
    while waiting:
        i, edges, values = waiting.pop()
        values = values()
        while i < len(graph.steps):
            step = graph.steps[i]
            xs = [values[source] for source in step.sources]
            if isinstance(step, Affine):
                values[i] = _pushed(step, xs)
                graph.forget(values, i)
                i += 1
                continue
            _check_range(xs[0])
            parts = (_Bent if isinstance(step, Bend) else _Chosen)(step, edges, xs[0], slack)
            graph.forget(values, i)
            room = max(1, _BATCH // (len(inputs) * graph.widest))
            groups = [range(k, min(k + room, len(parts.old))) for k in range(0, len(parts.old), room)]
            for rows in reversed(groups):
                carry = _carried(parts, values, i, rows)
                waiting.append((i + 1, parts.edges[rows.start : rows.stop + 1], carry))
            break
        else:
            last = values[len(graph.steps) - 1]
            _check_range(last)
            ends.frombytes(edges[:-1].tobytes())
            maps.frombytes(last.numpy().tobytes())
    edges = np.concatenate([np.array(ends).reshape(-1, 2), given[-1:]])
    maps = np.array(maps).reshape(-1, len(inputs), graph.n_classes)
    return edges, maps, _changes(edges, maps, given)


def _carried(parts, values, i, rows):
    """What gives the values in some of the new sectors, when it is their turn."""

    def carry():
        old = torch.from_numpy(parts.old[rows.start : rows.stop])
        return {key: value[old] for key, value in values.items()} | {i: parts.values(np.arange(rows.start, rows.stop))}

    return carry


def _pushed(step, xs):
    """Maps [R, C, …] through an affine step; the last channel receives the constant. Sums of nothing but rounding become 0."""
    rows, channels = xs[0].shape[:2]
    y = step.linear(*(x.flatten(0, 1) for x in xs)).unflatten(0, (rows, channels))
    if step.constant is not None:
        y = torch.cat([y[:, :-1], y[:, -1:] + step.constant], dim=1)
    if step.reach > 2:
        faint = ROUNDING * _terms(step, [x.abs().amax(0) for x in xs])
        near = ((y.abs() <= faint) & (y != 0)).flatten(1).any(1).nonzero()[:, 0]
        for row in near.tolist():
            part = y[row]
            part[part.abs() <= ROUNDING * _terms(step, [x[row].abs() for x in xs])] = 0
    return y


def _terms(step, sizes):
    """How large the terms of each sum are, [C, …], for values of these sizes."""
    size = step.sized(*sizes)
    if step.constant is not None:
        size = torch.cat([size[:-1], size[-1:] + step.constant.abs()])
    return size


def _check_range(maps):
    most, moving = (float(torch.maximum(part.amax(), -part.amin())) for part in (maps, maps[:, : min(2, maps.shape[1])]))
    if not (most < 1e290 and (moving == 0 or moving > 1e-150)):
        raise ValueError(OUT_OF_RANGE)


class _Bent:
    """Sectors cut at the kinks of a bend: edges [R + 1, 2], old [R], and the values behind it."""

    def __init__(self, step, edges, maps, slack):
        self.step, self.shape = step, maps.shape[2:]
        shifted = []
        for at in step.at:
            moved = maps
            if torch.is_tensor(at) or at:
                moved = maps.clone()
                moved[:, -1] -= at
            shifted.append(moved.flatten(2))
        self.maps = maps
        self.cut = cut(edges, (shifted[0] if len(shifted) == 1 else torch.cat(shifted, dim=2)).numpy(), slack)
        self.edges, self.old = self.cut.edges, self.cut.old

    def values(self, rows):
        on = torch.from_numpy(self.cut.active(rows)).reshape(len(rows), len(self.step.at), *self.shape)
        y = self.maps[torch.from_numpy(self.old[rows])]
        y *= self._side(on, self.step.gains)[:, None]
        if any(torch.is_tensor(shift) or shift for shift in self.step.shifts):
            y[:, -1] += self._side(on, self.step.shifts)
        return y

    @staticmethod
    def _side(on, parts):
        """Of the parts of a bend the one that holds, [R, …]."""
        parts = [torch.as_tensor(part, dtype=torch.float64) for part in parts]
        found = parts[0]
        for i, part in enumerate(parts[1:]):
            found = torch.where(on[:, i], part, found)
        return found


class _Chosen:
    """Sectors cut where another of several numbers becomes the greatest: edges [R + 1, 2], old [R], and the greatest ones."""

    def __init__(self, step, edges, maps, slack):
        self.step, self.maps = step, maps.flatten(2)
        m = step.sign * self.maps
        values = [(m[:, :2] * torch.from_numpy(ends)[:, :, None]).sum(1) for ends in (edges[:-1], edges[1:])]
        start, stop = (self._candidates(value) for value in values)  # [R, n, J]
        self.first = start.argmax(-1)
        row, result = (torch.take_along_dim(stop, self.first[..., None], -1)[..., 0] < stop.amax(-1)).nonzero(as_tuple=True)
        last = None
        if maps.shape[1] > 2:  # the constant is a channel of its own: it decides where all else ties
            last = self._candidates(m[:, -1])
            self.first = _best(start, stop, last)
            last = last[row, result].numpy()
        pair, place, leader, self.begins = _overtakings(start[row, result].numpy(), stop[row, result].numpy(), last)
        row, result = row.numpy(), result.numpy()
        roots = sum(edges[row[pair] + end] * part[:, None] for end, part in enumerate(_shares(place)))
        at_start, at_end = (_same(roots, edges[row[pair] + end], slack) for end in (0, 1))
        inside = ~(at_start | at_end)
        sector, roots = row[pair][inside], roots[inside]
        count = len(edges) - 1
        order = np.lexsort((np.append(np.full(count, -1.0), place[inside]), np.append(np.arange(count), sector)))
        points = np.concatenate([edges[:-1], roots])[order]
        new = (order < count) | ~_same(points, np.roll(points, 1, axis=0), slack)
        self.edges = np.concatenate([points[new], edges[-1:]])
        self.old = np.append(np.arange(count), sector)[order][new]
        self.pairs = row, result
        self.following = np.append(np.append(np.full(count, -1.0), place[inside])[order][new][1:], np.inf)
        self.following[np.append(np.diff(self.old) > 0, True)] = np.inf
        kept = at_start | inside
        place = np.where(at_start, -1.0, place)[kept]
        order = np.lexsort((place, pair[kept]))
        self.overtakings = pair[kept][order], place[order], leader[kept][order]

    def _candidates(self, values):
        return torch.where(self.step.index < 0, -torch.inf, values[:, self.step.index.clamp(min=0)])

    def values(self, rows):
        old = self.old[rows]
        best = self.first[torch.from_numpy(old)].numpy()
        row, result = self.pairs
        begin, end = np.searchsorted(row, old), np.searchsorted(row, old, side="right")
        here = np.repeat(np.arange(len(rows)), end - begin)
        pair = (
            np.repeat(begin, end - begin) + np.arange(len(here)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
        )
        best[here, result[pair]] = self._leaders(pair, self.following[rows][here])
        index = torch.take_along_dim(self.step.index[None], torch.from_numpy(best)[:, :, None], dim=2)[:, :, 0]
        y = torch.take_along_dim(self.maps[torch.from_numpy(old)], index[:, None], dim=2)
        return y.reshape(len(rows), -1, *self.step.shape)

    def _leaders(self, pair, before):
        """Who is the greatest in a sector that ends at the place `before`: who last became it."""
        pairs, places, leaders = self.overtakings
        known = np.unique(places)
        rank = np.searchsorted(known, places) + pairs * (len(known) + 1)
        at = np.searchsorted(rank, np.searchsorted(known, before) + pair * (len(known) + 1)) - 1
        began = (at < 0) | (pairs[at] != pair) if len(pairs) else np.ones(len(pair), bool)
        return np.where(began, self.begins[pair], leaders[at] if len(pairs) else 0)


def _best(value, other, last):
    """The candidate with the greatest value; of several the one with the greatest value elsewhere, and of these of `last`."""
    best = value == value.amax(-1, keepdim=True)
    other = torch.where(best, other, -torch.inf)
    best &= other == other.amax(-1, keepdim=True)
    return torch.where(best, last, -torch.inf).argmax(-1)


def _shares(place):
    """How much of a sector's start and of its end makes the point at a place from 0 to ∞: 1 / (1 + place) and the rest."""
    with np.errstate(divide="ignore"):
        return 1 / (1 + place), 1 / (1 + 1 / np.asarray(place))


def _overtakings(start, stop, last=None):
    """Where the greatest of J functions changes between two points, given their values [P, J] at both.

    Returns pair [X], place [X], who is the greatest from there on [X], and at the first point [P]. The place is the distance
    from the first point over that to the second one, from 0 to ∞: exact near both. Of equal functions the greatest `last` counts.
    """
    pairs = np.arange(len(start))
    found = [], [], []
    last = np.zeros_like(start) if last is None else last
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        begins = best = np.lexsort((last, stop, start), axis=1)[:, -1] if len(start) else pairs
        while len(pairs):
            ahead, behind = start[pairs, best][:, None] - start[pairs], stop[pairs] - stop[pairs, best][:, None]
            place = np.where(behind > 0, ahead / behind, np.inf)
            first = place.min(1)
            meets = first < np.inf
            fastest = np.where(place == first[:, None], stop[pairs], -np.inf)
            pairs, best = pairs[meets], np.lexsort((last[pairs], fastest), axis=1)[meets, -1]
            for part, more in zip(found, (pairs, first[meets], best), strict=True):
                part.append(more)
    pair, place, leader = (np.concatenate(part) if part else np.zeros(0, int) for part in found)
    return pair, np.maximum(place, 0.0), leader, begins


def _changes(edges, maps, given):
    """False [R] at given edges at which no map changes."""
    real = np.ones(len(maps), dtype=bool)
    for edge in given[:-1]:
        i = int(np.flatnonzero((edges[:-1] == edge).all(axis=1))[0])
        size = np.maximum(np.abs(maps[i]), np.abs(maps[i - 1]))
        real[i] = (np.abs(maps[i] - maps[i - 1]) > SUSPICIOUS * size.max()).any()
    return real
