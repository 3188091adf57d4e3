"""Pre-activations at the vertices of a mesh: by matrix products, and for the second layer by a faster path along lines."""

from functools import partial

import numpy as np

from . import flat
from .graph import Graph
from .network import Network
from .polygons import ragged

BATCH = 1 << 21  # numbers that the large products hold at a time: 16 MB
_BLOCK = 16  # vertices that one small matrix product of `along_runs` advances


def by_product(network, layer, mesh):
    """A layer's pre-activations at the vertices, by matrix products; a generator of batches for `crossings`."""
    if isinstance(network, Graph):
        head, widest = partial(flat.values, network, layer), max(2, flat.widths(network)[layer])
    else:
        head = Network(network.weights[: layer + 1], network.biases[: layer + 1], network.leaks[:layer])
        widest = max(len(bias) for bias in head.biases)
    chunk = max(1, BATCH // (2 * widest))
    for i in range(0, len(mesh.ends), chunk):
        ends = mesh.ends[i : i + chunk]
        vertices, rows = np.unique(ends, return_inverse=True)
        rows = rows.reshape(ends.shape)
        yield np.arange(i, i + len(ends)), rows[:, 0], rows[:, 1], head(mesh.xy[vertices])


def at_vertices(network, layer, xy, hidden=None):
    """A layer's pre-activations at the vertices [V, n]; `hidden` [V, m] is what the layer before passes on there."""
    if hidden is None:
        head = Network(network.weights[: layer + 1], network.biases[: layer + 1], network.leaks[:layer])
        chunk = max(1, BATCH // (2 * max(len(bias) for bias in head.biases)))
        return np.concatenate([head(xy[i : i + chunk]) for i in range(0, len(xy), chunk)])
    weight, bias = network.weights[layer], network.biases[layer]
    z = hidden if hidden.shape[1] == len(bias) else np.empty((len(hidden), len(bias)))  # in place where it fits
    for i in range(0, len(hidden), chunk := max(1, BATCH // len(bias))):
        z[i : i + chunk] = hidden[i : i + chunk] @ weight.T + bias
    return z


def by_vertex(mesh, z):
    """Pre-activations z [V, n] at all vertices as batches for `crossings`."""
    chunk = max(1, 8 * BATCH // z.shape[1])
    for i in range(0, len(mesh.ends), chunk):
        ends = mesh.ends[i : i + chunk]
        vertices = slice(ends.min(), ends.max() + 1)
        yield np.arange(i, i + len(ends)), *(ends - vertices.start).T, z[vertices]


def along_runs(network, mesh):
    """The second layer's pre-activations at the vertices, without a matrix product per vertex; batches for `crossings`.

    Along a line (a kink of the first layer, or a side of the square) each first-layer neuron is affine and bends at one vertex
    at most, at t_k. So a second-layer pre-activation is z(t) = z(0) + slope t + Σ_k W[:, k] jump_k max(t - t_k, 0): two running
    sums, n operations for n neurons where a product takes n². The sums advance _BLOCK vertices at a time.
    """
    counts = np.diff(mesh.runs)
    longest_first = np.argsort(-counts, kind="stable")
    i = 0
    while i < len(counts):
        blocks = -(-counts[longest_first[i]] // _BLOCK)
        size = max(1, BATCH // ((blocks * _BLOCK + 1) * len(network.biases[1])))
        runs = longest_first[i : i + size]
        z = _walk_runs(network, mesh, runs, blocks)
        here, step = np.repeat(np.arange(len(runs)), counts[runs]), ragged(counts[runs])
        row = here * z.shape[1] + step
        yield mesh.runs[runs][here] + step, row, row + 1, z.reshape(-1, z.shape[2])
        i += size


def _walk_runs(network, mesh, runs, blocks):
    """Second-layer pre-activations at the vertices of some runs, [runs, 1 + blocks * _BLOCK, n]; a short run repeats its last."""
    t, kink, jump, start, slope = _bends(network, mesh, runs, blocks * _BLOCK)
    mix = _mix(t.reshape(len(runs), blocks, _BLOCK), jump.reshape(len(runs), blocks, _BLOCK))
    columns = np.ascontiguousarray(network.weights[1].T)
    z = np.empty((len(runs), 1 + blocks * _BLOCK, len(start[0])))
    z[:, 0] = start
    terms = np.empty((len(runs), _BLOCK + 2, z.shape[2]))
    terms[:, -2], terms[:, -1] = start, slope
    for block in range(blocks):
        steps = slice(block * _BLOCK, (block + 1) * _BLOCK)
        terms[:, :-2] = columns[kink[:, steps]]
        new = mix[:, block] @ terms
        z[:, 1 + steps.start : 1 + steps.stop] = new[:, :-1]
        terms[:, -2:] = new[:, -2:]
    return z


def _bends(network, mesh, runs, length):
    """Where the first layer bends along some runs, and how the second layer begins there.

    t [runs, length] of the vertices after the first, the neuron that bends at each, by how much its output's slope jumps there;
    the second layer's pre-activations at the first vertex and their slopes behind it, each [runs, n].
    """
    (w, weight), (b, bias), leak = network.weights[:2], network.biases[:2], network.leaks[0]
    edge = np.minimum(mesh.runs[runs, None] + np.arange(length), mesh.runs[runs + 1, None] - 1)
    begin = mesh.xy[mesh.ends[edge[:, 0], 0]]
    along = mesh.xy[mesh.ends[edge, 1]] - begin[:, None]
    direction = along[:, -1] / np.linalg.norm(along[:, -1], axis=1, keepdims=True)
    t = np.einsum("rsi,ri->rs", along, direction)
    kink, rate = mesh.across[edge], direction @ w.T
    jump = np.where(kink < 0, 0, (1 - leak) * np.abs(np.take_along_axis(rate, np.maximum(kink, 0), axis=1)))
    hidden = begin @ w.T + b
    gain = np.where(hidden > 0, 1.0, leak)
    return t, kink, jump, (hidden * gain) @ weight.T + bias, (rate * gain) @ weight.T


def _mix(t, jump):
    """What turns (W[:, kink] at each vertex, z, slope) before a block into (z at each vertex, slope) after it.

    t, jump [runs, blocks, _BLOCK] -> [runs, blocks, _BLOCK + 1, _BLOCK + 2]
    """
    before = np.concatenate([np.zeros((len(t), 1)), t[:, :-1, -1]], axis=1)[:, :, None]
    mix = np.zeros((*t.shape[:2], _BLOCK + 1, _BLOCK + 2))
    mix[:, :, :-1, :-2] = np.maximum(t[:, :, :, None] - t[:, :, None, :], 0) * jump[:, :, None, :]
    mix[:, :, :-1, -2] = 1
    mix[:, :, :-1, -1] = t - before
    mix[:, :, -1, :-2] = jump
    mix[:, :, -1, -1] = 1
    return mix
