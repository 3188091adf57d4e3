"""Sweep a direction through a plane and follow every neuron: the engine behind `line` and `infinity`.

Both questions are the same one. Along a line x = start + t·direction a pre-activation is a·t + c = (a, c)·(t, 1). Far away,
at x = α·u, it is α·(m·u) + c with m·u as its leading part. Either way its sign is the sign of a *homogeneous* function m·u
of a two-dimensional u that turns: through one quadrant for a line (t = u_x / u_y), round the whole circle for infinity.

Only the direction of u counts, so u walks along the diamond |u_x| + |u_y| = 1. On each side of the diamond m·u is an
ordinary affine function, with one root at most, and a network made of such functions is piecewise affine. So, layer by layer:

1. `cut`: the signs of m·u at both edges of every sector; where they differ the sector is cut at the root;
2. `_Cut.push`: the maps m of the next layer, by a matrix product at the start of each old sector, and by running sums
   inside it: crossing one neuron's root adds a multiple of one column of the weights (a rank-one update).

The product starts afresh in every old sector and at least every `_BLOCK` rows, which stops the sums from drifting.
With n neurons a layer and B sectors before the cut, R after it, this costs O(B·n²) + O(R·n) and not O(R·n²).
"""

from dataclasses import dataclass

import numpy as np

from .network import ROUNDING

_BLOCK = 32  # rows after which a running sum is replaced by a fresh matrix product
SUSPICIOUS = 1e-8  # running sums this small against their possible size may be mostly rounding noise


def _linear(inputs, weight, bias):
    """Maps [rows, C, n] through a `Linear`: [rows, C, n']. The last channel is the constant, it receives the bias."""
    maps = (inputs.reshape(-1, inputs.shape[-1]) @ weight.T).reshape(*inputs.shape[:-1], -1)
    maps[:, -1] += bias
    return maps


def _exact_linear(inputs, weight, bias):
    """Like `linear`, with every sum that is nothing but the rounding noise of its terms set to exactly 0."""
    maps = _linear(inputs, weight, bias)
    size = _linear(np.abs(inputs), np.abs(weight), np.abs(bias))
    maps[np.abs(maps) <= ROUNDING * size] = 0
    return maps


def _edge_values(edges, maps):
    """m·u of every neuron at every edge [B + 1, n].

    The functions are continuous, so the sector that starts at an edge speaks for both sides of it: each sign is decided once.
    Where m = 0 the value is 0 at both edges, whatever rounding says on their other sides.
    """
    values = np.concatenate([maps[:, 0], maps[-1:, 0]]) * edges[:, :1]
    values += np.concatenate([maps[:, 1], maps[-1:, 1]]) * edges[:, 1:]
    sector, neuron = _where(values[:-1] == 0)
    still = (maps[sector, 0, neuron] == 0) & (maps[sector, 1, neuron] == 0)
    values[sector[still] + 1, neuron[still]] = 0
    return values


@dataclass(eq=False)
class _Cut:
    """Sectors of a fan cut at the roots of one layer. B old sectors, R new ones, n neurons, F sign changes.

    maps      [B, C, n]   the layer's pre-activations: channels 0 and 1 are m, the last one is the constant
    sign      [B, n]      sign of m·u right after the start of each old sector; 0 only where m = 0
    edges     [R + 1, 2]  new sector i lies between edges[i] and edges[i + 1], points of the diamond
    old       [R]         the old sector that each new one is a part of
    flips     3 × [F]     row (new sector) at whose start a sign changes, old sector, neuron; in the order of the rows
    flip_row  [B, n]      the same as a table; R where a neuron keeps its sign
    """

    maps: np.ndarray
    sign: np.ndarray
    edges: np.ndarray
    old: np.ndarray
    flips: tuple
    flip_row: np.ndarray

    def signs(self, rows):
        """Sign of m·u inside the given new sectors: [len(rows), n]."""
        old = self.old[rows]
        return np.where(self.flip_row[old] <= rows[:, None], -self.sign[old], self.sign[old])

    def active(self, rows):
        """Which neurons are on inside the given new sectors. If m is exactly 0 the sign of the constant decides."""
        sign = self.signs(rows)
        return (sign > 0) | ((sign == 0) & (self.maps[self.old[rows], -1] > 0))

    def activated(self, rows, leak):
        """The maps behind the activation in the given new sectors: [len(rows), C, n]."""
        maps = self.maps[self.old[rows]]
        maps *= np.where(self.active(rows), 1.0, leak)[:, None, :]
        return maps

    def starts(self):
        """True [R] where a new sector starts together with an old one."""
        return np.diff(self.old, prepend=-1) > 0

    def push(self, weight, bias, leak):
        """The maps [R, C, n'] of the next layer in every new sector."""
        fresh = self.starts()
        fresh[::_BLOCK] = True
        maps = np.empty((len(self.old), self.maps.shape[1], len(weight)))
        maps[fresh] = _linear(self.activated(np.flatnonzero(fresh), leak), weight, bias)
        maps[~fresh] = self._jumps(fresh, weight, leak)
        steps = np.arange(len(fresh)) - np.maximum.accumulate(np.where(fresh, np.arange(len(fresh)), 0))
        for k in range(1, steps.max() + 1):
            rows = np.flatnonzero(steps == k)
            maps[rows] += maps[rows - 1]
        return self._denoised(maps, weight, bias, leak)

    def _jumps(self, fresh, weight, leak):
        """What each row without a fresh product adds to the row before it: the columns of the neurons that change there."""
        row, sector, neuron = (part[~fresh[self.flips[0]]] for part in self.flips)
        if len(row) == 0:
            return np.empty((0, self.maps.shape[1], len(weight)))
        bend = (leak - 1) * self.sign[sector, neuron]  # the gate goes from 1 to leak, or back
        change = bend[:, None] * self.maps[sector, :, neuron]  # [F, C]
        columns = change[:, :, None] * weight.T[neuron][:, None, :]
        first_of_row = np.flatnonzero(np.diff(row, prepend=-1))
        return columns if len(first_of_row) == len(row) else np.add.reduceat(columns, first_of_row)

    def _denoised(self, maps, weight, bias, leak):
        """Running sums destroy exact zeros, and exact zeros decide ties: rows with suspiciously small sums are computed anew."""
        largest = max(1.0, abs(leak)) * np.abs(self.maps).max(axis=0, keepdims=True)
        bound = SUSPICIOUS * _linear(largest, np.abs(weight), np.abs(bias))
        row, channel, neuron = np.unravel_index(np.flatnonzero(np.abs(maps) <= bound), maps.shape)
        rows = np.unique(row[maps[row, channel, neuron] != 0])
        if len(rows):
            maps[rows] = _exact_linear(self.activated(rows, leak), weight, bias)
        return maps


def cut(edges, maps, slack):
    """Cut the sectors between edges [B + 1, 2] at the roots of the pre-activations maps [B, C, n]: a `_Cut`.

    slack  0 or 1, see `_same`
    """
    values = _edge_values(edges, maps)
    signs = np.sign(values).astype(np.int8)
    sector, neuron, position, roots = _roots(edges, values, signs, slack)

    order = np.lexsort((np.append(np.zeros(len(maps)), position), np.append(np.arange(len(maps)), sector)))
    points = np.concatenate([edges[:-1], roots])[order]
    is_root = order >= len(maps)
    new = ~(is_root & _same(points, np.roll(points, 1, axis=0), slack))  # coincident kinks change together, in one row
    row = np.cumsum(new) - 1
    which = order[is_root] - len(maps)
    flips = row[is_root], sector[which], neuron[which]
    flip_row = np.full(signs[1:].shape, row[-1] + 1, dtype=np.int32)
    flip_row[flips[1], flips[2]] = flips[0]
    old = np.append(np.arange(len(maps)), sector)[order][new]
    return _Cut(maps, _starting_signs(signs, edges, maps), np.concatenate([points[new], edges[-1:]]), old, flips, flip_row)


def _roots(edges, values, signs, slack):
    """Where values change their sign inside a sector: sector, neuron, position in it from 0 to ∞, and root [F, 2].

    The position is the distance from the start over that from the end, so that roots near the end keep their order, too.
    A root that coincides with an edge to rounding is moved onto it: `signs` becomes 0 there.
    """
    sector, neuron = _where(signs[:-1] * signs[1:] < 0)
    before, after = np.abs(values[sector, neuron]), np.abs(values[sector + 1, neuron])
    roots = edges[sector] * (after / (before + after))[:, None] + edges[sector + 1] * (before / (before + after))[:, None]
    for shift in (0, 1):
        at_edge = _same(roots, edges[sector + shift], slack)
        signs[sector[at_edge] + shift, neuron[at_edge]] = 0
    inside = signs[sector, neuron] * signs[sector + 1, neuron] < 0
    with np.errstate(over="ignore"):
        return sector[inside], neuron[inside], (before / after)[inside], roots[inside]


def _starting_signs(signs, edges, maps):
    """Sign right after each sector's start [B, n]: a value of 0 there is decided by the sector's middle, 0 only if m = 0."""
    start = signs[:-1].copy()
    sector, neuron = _where(start == 0)
    middle = edges[sector] + edges[sector + 1]
    start[sector, neuron] = np.sign(maps[sector, 0, neuron] * middle[:, 0] + maps[sector, 1, neuron] * middle[:, 1])
    return start


def _where(mask):
    """Row and column numbers of the True entries, like `np.nonzero` but several times as fast on large masks."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


def _same(u, v, slack):
    """Where two directions u, v [P, 2] of one quadrant are equal to rounding.

    With slack 0 the ratios u_x / u_y may differ by a relative 1e-13, what a line needs; with slack 1 the angles by about 1e-13.
    """
    left, right = u[:, 0] * v[:, 1], u[:, 1] * v[:, 0]
    return np.abs(left - right) <= ROUNDING * (np.abs(left) + np.abs(right) + slack)


def sweep(network, edges, inputs, slack):
    """Carry a fan of directions through a network.

    edges   [E + 1, 2]  points of the diamond |x| + |y| = 1 in walking order, consecutive ones in the same quadrant
    inputs  [C, d]      the network's input as a map of u; its last channel is the one that biases are added to
    slack   0 or 1, see `_same`

    Returns edges [R + 1, 2], maps [R, C, K] of the logits, and real [R]: whether any neuron changes at a sector's first
    edge (False at edges that the caller brought along only to start with). ValueError where numbers do
    not fit into float64.
    """
    _check_range(inputs[None], network.weights[0])
    maps = _exact_linear(inputs[None], network.weights[0], network.biases[0]).repeat(len(edges) - 1, axis=0)
    real = np.zeros(len(maps), dtype=bool)
    for weight, bias, leak in zip(network.weights[1:], network.biases[1:], network.leaks, strict=True):
        _check_range(maps, weight)
        layer = cut(edges, maps, slack)
        maps = layer.push(weight, bias, leak)
        real = real[layer.old] | ~layer.starts()
        rows = np.flatnonzero(~real)
        real[rows] = (layer.active(rows) != layer.active((rows - 1) % len(real))).any(axis=1)
        edges = layer.edges
    _check_range(maps, np.ones((1, 1)))
    return edges, maps, real


def _check_range(maps, weight):
    """ValueError where maps times weights may leave what float64 holds: sums that overflow, products that vanish."""
    most, moving, heaviest = (float(max(part.max(), -part.min())) for part in (maps, maps[:, :2], weight))
    if not (most < 1e290 and most * heaviest < 1e290 and all(size == 0 or size > 1e-150 for size in (moving, heaviest))):
        raise ValueError("the network's numbers exceed the range of float64: scale weights, biases or points nearer to 1")
