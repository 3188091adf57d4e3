"""The affine map of a network on every face of its subdivision.

From a face to its neighbour one neuron switches, so the map changes by a rank-one matrix. The changes are added along a tree
that reaches every face from one of them.
"""

from collections import namedtuple
from functools import partial
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from . import flat
from .crossings import BATCH
from .graph import Graph
from .mesh import first_neurons, widths_of

_Tree = namedtuple("Tree", "order up neuron levels")


def dual_tree(mesh, root):
    """A breadth-first `_Tree` of the faces, where faces on the two sides of an edge are neighbours.

    In the tree's order, each [F]: order is the face, up the place of its parent, neuron the one that bends between the two.
    levels are slices of these: the root's children, their children, and so on.
    """
    face, beyond = mesh.face_of_loops(), _faces(mesh)[mesh.loops ^ 1]
    inner = beyond >= 0
    rows = np.concatenate([[0], np.cumsum(inner)])[mesh.starts]
    graph = csr_array((np.ones(rows[-1]), beyond[inner], rows), shape=(len(rows) - 1,) * 2)
    order, parent = breadth_first_order(graph, root)
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    door = np.flatnonzero(beyond == parent[face])
    neuron = np.full(len(order), -1)
    neuron[place[face[door]]] = mesh.owner[mesh.loops[door] >> 1]
    up = place[np.maximum(parent[order], 0)]
    up[0] = 0
    stops = [1]
    while stops[-1] < len(order):
        stops.append(1 + int(np.searchsorted(up[1:], stops[-1])))
    return _Tree(order, up, neuron, [slice(*pair) for pair in pairwise(stops)])


def _faces(mesh):
    """The face on the left of each half-edge, [2E]; -1 outside the square."""
    face = np.full(2 * len(mesh.ends), -1)
    face[mesh.loops] = mesh.face_of_loops()
    return face


def patterns(network, tree, root):
    """The active neurons of every face, in the tree's order: packed bits, one uint8 array [F, bytes] per hidden layer.

    root is a point [1, 2] of the root face. A child differs from its parent in one neuron.
    """
    first = first_neurons(network)
    layer = _layers_of(network, tree.neuron)
    packed = []
    for i, (begin, end) in enumerate(pairwise(first)):
        bits = np.zeros((len(tree.order), -(-(end - begin) // 8)), np.uint8)
        bits[0] = np.packbits(activity(network, root)[0, begin:end])
        byte, bit = np.divmod(tree.neuron - begin, 8)
        flip = np.where(layer == i, 128 >> bit, 0).astype(np.uint8)
        byte = np.where(layer == i, byte, 0)
        for level in tree.levels:
            bits[level] = bits[tree.up[level]]
            bits[np.arange(level.start, level.stop), byte[level]] ^= flip[level]
        packed.append(bits)
    return packed


def unpacked(network, packed):
    """The active neurons as booleans: one [F, n] per hidden layer."""
    return [np.unpackbits(bits, axis=1, count=width) > 0 for bits, width in zip(packed, widths_of(network), strict=True)]


def affine_maps(network, tree, centroids):
    """(slopes, offset) of every face, [F, K, 3].

    Across an edge one neuron switches on, and the map jumps by the neuron's own affine function times the logits' answer to the
    neuron: a rank-one matrix. Both factors come from the list of active neurons, never from differences of values: faces are too
    small for those. The root's map and the jumps along the tree add up to all maps.
    Cost: n operations a face with one or two hidden layers of n neurons, and a matrix product with more.
    """
    packed = patterns(network, tree, centroids[tree.order[:1]])
    maps = np.empty((len(tree.order), network.n_classes, 3))
    maps[0] = _whole(network, partial(_gains, network, packed, [0]))
    for layer, neuron, rows in _switches(network, tree):
        gain = partial(_gains, network, packed, rows)
        size = 1 - network.leaks[layer]
        jump = np.where(packed[layer][rows, neuron // 8] & (128 >> neuron % 8), size, -size)
        inner, outer = _inward(network, layer, neuron, gain), _outward(network, layer, neuron, gain)
        maps[rows] = (jump[:, None] * outer)[:, :, None] * inner[:, None, :]
    for level in tree.levels:
        maps[level] += maps[tree.up[level]]
    answer = np.empty_like(maps)
    answer[tree.order] = maps
    return answer


def _switches(network, tree):
    """For every neuron the faces, as places in the tree, that it parts from their parents: (layer, neuron, rows), in batches."""
    rows = np.argsort(tree.neuron, kind="stable")
    ranges = np.searchsorted(tree.neuron, np.arange(first_neurons(network)[-1] + 1), sorter=rows)
    chunk = max(1, BATCH // (4 * max(len(bias) for bias in network.biases)))
    first = first_neurons(network)
    for layer, (begin, end) in enumerate(pairwise(first)):
        for neuron in range(begin, end):
            for i in range(ranges[neuron], ranges[neuron + 1], chunk):
                yield layer, neuron - begin, rows[i : min(i + chunk, ranges[neuron + 1])]


def _gains(network, packed, rows, layer):
    """What a layer multiplies its pre-activations with on some faces: 1 where a neuron is active, else the leak; [rows, n]."""
    on = np.unpackbits(packed[layer][rows], axis=1, count=len(network.biases[layer])).astype(np.float64)
    leak = network.leaks[layer]
    return leak + (1 - leak) * on if leak else on


def _inward(network, layer, neuron, gain):
    """A neuron's pre-activation as an affine function of the input on some faces: (slopes, offset) [rows or 1, 3]."""
    slopes, offset = network.weights[layer][[neuron]], network.biases[layer][neuron]
    for i in range(layer - 1, -1, -1):
        both = _through(gain(i), slopes, np.column_stack([network.weights[i], network.biases[i]]))
        slopes, offset = both[:, :-1], offset + both[:, -1]
    return np.column_stack([slopes, np.broadcast_to(offset, len(slopes))])


def _outward(network, layer, neuron, gain):
    """By how much the logits answer to a neuron's output on some faces: [rows or 1, K]."""
    answer = network.weights[layer + 1].T[[neuron]]
    for i in range(layer + 1, len(network.leaks)):
        answer = _through(gain(i), answer, network.weights[i + 1].T)
    return answer


def _through(gain, row, matrix):
    """(gain * row) @ matrix; where it is one row for all faces, cheaper as gain @ (row.T * matrix)."""
    return gain @ (row.T * matrix) if len(row) == 1 else (gain * row) @ matrix


def _whole(network, gain):
    """All logits as affine functions of the input on one face: (slopes, offset) [K, 3]."""
    affine = np.column_stack([network.weights[0], network.biases[0]])
    for i, (weight, bias) in enumerate(zip(network.weights[1:], network.biases[1:], strict=True)):
        affine = weight @ (gain(i).T * affine)
        affine[:, -1] += bias
    return affine


def _layers_of(network, neuron):
    """The hidden layer (0, 1, …) of neurons that are counted through all layers."""
    return np.searchsorted(first_neurons(network)[1:], neuron, side="right")


def activity(network, x):
    """Which hidden neurons are active at points x [n, 2], all layers side by side: bool [n, neurons]."""
    if isinstance(network, Graph):
        return flat.activity(network, x)
    on, h = [np.zeros((len(x), 0), bool)], x
    for weight, bias, leak in zip(network.weights, network.biases, network.leaks, strict=False):
        z = h @ weight.T + bias
        on.append(z > 0)
        h = np.where(z > 0, z, leak * z)
    return np.concatenate(on, axis=1)
