"""Certain bounds on a graph of steps in a box, backwards through convolutions: what `confidence_bound` needs of it.

As for matrices (CROWN, Zhang et al. 2018), with two differences: every value has interval bounds, too, the smaller of both bounds
counts, and only the numbers that may lie on either side of a kink are bounded backwards. All rounding is bounded and added, as in
`bound`: a sum of k products errs by at most k EPS/2 times the sum of their sizes.
"""

import math

import torch

from .graph import BATCH
from .proofs import EPS
from .steps import Affine, Bend

_TINY = 1e-300


def highest(graph, rows, low, high):
    """Upper bounds [m] of rows [m, K] @ logits in the box low <= x <= high, [d] each."""
    box = _Box(graph, *(graph.tensor(side) for side in (low, high)))
    last = len(graph.steps) - 1
    given = torch.from_numpy(rows).reshape(len(rows), *graph.steps[last].shape)
    found = torch.minimum(box.backwards(last, given), box.directly(last, given))
    return torch.where(torch.isfinite(found), found, torch.inf).numpy()


class _Box:
    """The least and the greatest value of every step in a box of inputs, [1, …] each, as far as they can be proved."""

    def __init__(self, graph, low, high):
        self.graph, self.least, self.most, self.lines = graph, [low], [high], {}
        for i, step in enumerate(graph.steps[1:], 1):
            if isinstance(step, Affine):
                least, most = self._affine(step)
            else:
                self._tighten(step)
                least, most = self._kink(i, step)
            self.least.append(least)
            self.most.append(most)

    def largest(self, i):
        return torch.maximum(self.least[i].abs(), self.most[i].abs())

    def steps_of(self, step):
        """How many roundings a sum of this step, or of all its numbers, may meet."""
        return 1.01 * (step.reach + math.prod(step.shape) + 2 * len(self.graph.steps) + 12)

    def _affine(self, step):
        middle = [(self.least[s] + self.most[s]) / 2 for s in step.sources]
        wide = [_up(torch.maximum(self.most[s] - m, m - self.least[s])) for s, m in zip(step.sources, middle, strict=True)]
        value, spread = step(*middle), step.sized(*wide)
        size = step.sized(*(self.largest(s) for s in step.sources)) + _size(step.constant)
        error = self.steps_of(step) * EPS * 2 * size + _TINY * (1 + size)
        return _down(value - spread - error), _up(value + spread + error)

    def _tighten(self, step):
        """Bound backwards what may lie on both sides of a kink."""
        source = step.sources[0]
        least, most = self.least[source].flatten(), self.most[source].flatten()
        if isinstance(step, Bend):
            unclear = torch.zeros_like(least, dtype=torch.bool)
            for at in step.at:
                place = _full(at, step.shape).flatten()
                unclear |= (least < place) & (most > place)
        else:
            low, high = (step.candidates(step.sign * part)[0] for part in (self.least[source], self.most[source]))
            low, high = (low, high) if step.sign > 0 else (high, low)
            rivals = high >= low.amax(1, keepdim=True)
            index = step.index[rivals & (rivals.sum(1, keepdim=True) > 1)]
            unclear = torch.zeros_like(least, dtype=torch.bool)
            unclear[index[index >= 0]] = True
        numbers = unclear.nonzero()[:, 0]
        room = max(1, BATCH // (2 * self.graph.widest))
        for k in range(0, len(numbers), room):
            some = numbers[k : k + room]
            rows = torch.zeros(2 * len(some), len(least), dtype=torch.float64)
            rows[torch.arange(len(some)), some], rows[len(some) + torch.arange(len(some)), some] = 1, -1
            found = self.backwards(source, rows.reshape(-1, *self.least[source].shape[1:]))
            most[some] = torch.fmin(most[some], found[: len(some)])
            least[some] = torch.fmax(least[some], -found[len(some) :])
        self.least[source], self.most[source] = (part.reshape(self.least[source].shape) for part in (least, most))

    def _kink(self, i, step):
        """Least and most behind a kink; and the lines that enclose it: their slopes and offsets, or who is the greatest."""
        least, most = self.least[step.sources[0]], self.most[step.sources[0]]
        if not isinstance(step, Bend):
            self.lines[i] = _choice(step, least, most)
            return step(least), step(most)
        ends = [least, most, *(_full(at, step.shape)[None].clamp(least, most) for at in step.at)]
        values = [step(end) for end in ends]
        error = 4 * EPS * torch.stack([_steepest(step) * end.abs() + _farthest(step) for end in ends]).amax(0) + _TINY
        self.lines[i] = _enclosing(step, ends, values, error)
        values = torch.stack(values)
        return _down(values.amin(0) - error), _up(values.amax(0) + error)

    def directly(self, i, rows):
        """Upper bounds [m] of rows [m, …] on the values of step i, from the bounds of the values one step before."""
        step = self.graph.steps[i]
        if not isinstance(step, Affine):
            return torch.full((len(rows),), torch.inf, dtype=torch.float64)
        total, error = self._through(step, rows)
        return _up(total + self._at_bounds(self._back(step, rows), step.sources) + error)

    def _at_bounds(self, coefficients, sources):
        total = 0.0
        for part, source in zip(coefficients, sources, strict=True):
            total = total + ((part.clamp(min=0) * self.most[source]) + (part.clamp(max=0) * self.least[source])).flatten(1).sum(1)
            size = (part.abs() * self.largest(source)).flatten(1).sum(1)
            total = total + 1.01 * (part[0].numel() + 12) * EPS * size + _TINY
        return total

    def _back(self, step, rows):
        zeros = [torch.zeros(len(rows), *self.least[source].shape[1:], dtype=torch.float64) for source in step.sources]
        return torch.func.vjp(step.linear, *zeros)[1](rows)

    def _through(self, step, rows):
        """What an affine step adds to the bounds of rows [m, …] of it, and the rounding."""
        size = step.sized(*(self.largest(source) for source in step.sources)) + _size(step.constant)
        error = self.steps_of(step) * EPS * (rows.abs() * size).flatten(1).sum(1) + _TINY * (
            1 + size.sum() + rows.abs().flatten(1).sum(1)
        )
        constant = 0.0 if step.constant is None else (rows * step.constant).flatten(1).sum(1)
        return constant, error

    def backwards(self, i, rows):
        """Upper bounds [m] of rows [m, …] on the values of step i, from the box of the input."""
        waiting, total = {i: rows}, torch.zeros(len(rows), dtype=torch.float64)
        for j in range(i, 0, -1):
            if j not in waiting:
                continue
            rows, step = waiting.pop(j), self.graph.steps[j]
            if isinstance(step, Affine):
                constant, error = self._through(step, rows)
                parts = self._back(step, rows)
            else:
                constant, error, parts = self._kinked(j, step, rows)
            total = total + constant + error
            for source, part in zip(step.sources, parts, strict=True):
                waiting[source] = waiting[source] + part if source in waiting else part
        if 0 in waiting:
            total = total + self._at_bounds([waiting[0]], [0])
        return torch.where(torch.isnan(total), torch.inf, _up(total))

    def _kinked(self, j, step, rows):
        up, lift, down, drop = self.lines[j]
        positive, negative = rows.clamp(min=0), rows.clamp(max=0)
        constant = (positive * lift + negative * drop).flatten(1).sum(1)
        largest = self.largest(step.sources[0])
        if isinstance(step, Bend):
            parts = positive * up + negative * down
            size = torch.maximum(up.abs(), down.abs()) * largest + torch.maximum(lift.abs(), drop.abs())
        else:
            parts = torch.zeros(len(rows), largest.numel(), dtype=torch.float64)
            for part, (place, counts) in ((positive, up), (negative, down)):
                parts.scatter_add_(1, place.expand(len(rows), -1), part.flatten(1) * counts)
            parts = parts.reshape(-1, *largest.shape[1:])
            size = torch.maximum(lift.abs(), drop.abs()) + largest.max()
        error = 1.01 * (2 * rows[0].numel() + 2 * len(self.graph.steps) + 12) * EPS * (rows.abs() * size).flatten(1).sum(1)
        return constant, error + _TINY * (1 + rows.abs().flatten(1).sum(1)), [parts]


def _up(values):
    return torch.nextafter(values, torch.full_like(values, torch.inf))


def _down(values):
    return torch.nextafter(values, torch.full_like(values, -torch.inf))


def _size(constant):
    return 0.0 if constant is None else constant.abs()


def _full(values, shape):
    return torch.as_tensor(values, dtype=torch.float64).expand(shape)


def _steepest(step):
    return torch.stack([_full(gain, step.shape).abs() for gain in step.gains]).amax(0)


def _farthest(step):
    return torch.stack([_full(part, step.shape).abs() for part in (*step.shifts, *step.at)]).amax(0)


def _enclosing(step, ends, values, error):
    """Lines above and below a bend between its own bounds: up z + lift from above, down z + drop from below.

    Any slope will do, as long as the line lies on its side at both ends and at each bend between them. Where the function is
    convex, above is the chord and below the side that is longer; where it is concave, the other way round.
    """
    (least, most), shape = ends[:2], ends[0].shape
    flat = most <= least
    chord = torch.where(flat, 0.0, (values[1] - values[0]) / torch.where(flat, 1.0, most - least))
    up = down = chord
    if len(step.at) == 1:
        left, right, at = (_full(part, step.shape).expand(shape) for part in (step.gains[0], step.gains[1], step.at[0]))
        longer = torch.where(most - at > at - least, right, left)
        up, down = torch.where(right >= left, chord, longer), torch.where(right >= left, longer, chord)
        inside = (least < at) & (most > at)
        side = torch.where(least >= at, right, left)
        up, down = torch.where(inside, up, side), torch.where(inside, down, side)
    above = torch.stack([value - up * end for value, end in zip(values, ends, strict=True)])
    below = torch.stack([value - down * end for value, end in zip(values, ends, strict=True)])
    spare = error + 4 * EPS * (
        torch.maximum(up.abs(), down.abs()) * torch.maximum(least.abs(), most.abs()) + torch.stack(values).abs().amax(0)
    )
    return up, _up(above.amax(0) + spare), down, _down(below.amin(0) - spare)


def _choice(step, least, most):
    """The greatest of several numbers is at most the greatest of their bounds, and at least each of them; one may be sure to win.

    Above and below: (which number, whether it counts), and a constant.
    """
    low, high = step.candidates(step.sign * least)[0], step.candidates(step.sign * most)[0]
    low, high = (low, high) if step.sign > 0 else (high, low)
    best = low.argmax(1)
    others = high.clone()
    others[torch.arange(len(best)), best] = -torch.inf
    sure = low.amax(1) >= others.amax(1)
    place = torch.take_along_dim(step.index, best[:, None], 1)[:, 0].clamp(min=0)
    one, zero = torch.ones(len(best), dtype=torch.float64), torch.zeros(1, *step.shape, dtype=torch.float64)
    ceiling = torch.where(sure, 0.0, high.amax(1)).reshape(1, *step.shape)
    loose, tight = ((place, sure.double()), ceiling), ((place, one), zero)
    if step.sign > 0:
        return *loose, *tight
    return tight[0], zero, loose[0], -ceiling
