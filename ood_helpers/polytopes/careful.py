"""The subdivision of a square where kinks coincide, or more than two meet in a point: one neuron after another.

`mesh` inserts a whole layer at once and counts on kinks that cross two at a time. Networks without biases, with equal neurons or
with weights on a grid do not oblige. Here each vertex gets a sign for each neuron: +, −, or 0 where the neuron is 0 but for
rounding. It is decided once, so the faces around a vertex agree about it, and then no geometry is left to decide:

    - an edge from + to − gets a new vertex, at which the neuron is 0;
    - a face with + and − corners is cut by one chord between the two places at which its sign changes;
    - a face without both is not cut. A neuron that is 0 along an edge makes no new one: kinks that coincide are one edge.

How much of a value is rounding is known from how it was computed: from the terms of each sum, through the neurons that are on,
and from how well the vertex itself is placed (crossings of nearly parallel kinks are not).
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from . import flat
from .graph import Graph
from .maps import unpacked
from .mesh import Mesh, independent, walk, widths_of
from .polygons import next_corner

ROUND = 1e-15  # relative rounding of a sum of many floats, against the sum of its terms' sizes
_MOVED = 1e-5  # area, in the square of side 2, by which rounding may move a kink
TRUST = 10  # a value is a sign from so many times its estimated rounding on
_NEAR = 1e-7  # of a layer's largest value: in a graph, what is farther from 0 has a sign without further asking
_SPARE = 100  # times its estimated error, which is known at some vertices only
_HELD = 1 << 23  # values of a layer, or of some of its neurons, that are held at a time: 64 MB, and twice that for their errors


def _values(network, layers, x, misplaced, zero=()):
    """Pre-activations z of hidden layers 0 … layers − 1 at points x [n, 2], as lists [n, width]: z, rounding, uncertainty.

    zero         of the first of these layers, [n, width] each: where a neuron is known to be 0, since its kink was cut there
    rounding     what the sums may have lost, as independent errors
    uncertainty  the same, and what `misplaced` [n], the error of the points themselves, makes of it
    """
    found, h, lost, shaken = ([], [], []), x, np.zeros_like(x), np.repeat(misplaced[:, None], x.shape[1], axis=1)
    for weight, bias, leak in list(zip(network.weights, network.biases, network.leaks, strict=False))[:layers]:
        z = h @ weight.T + bias
        lost = ROUND * (np.abs(h) @ np.abs(weight).T + np.abs(bias)) + independent(lost, weight)
        shaken = independent(shaken, weight)
        if len(found[0]) < len(zero):
            z, lost, shaken = (np.where(zero[len(found[0])], 0.0, part) for part in (z, lost, shaken))
        for kept, new in zip(found, (z, lost, np.hypot(lost, shaken)), strict=True):
            kept.append(new)
        gain = np.where(z > -TRUST * np.hypot(lost, shaken), 1.0, abs(leak))  # a neuron at rest passes nothing on
        h, lost, shaken = np.where(z > 0, z, leak * z), gain * lost, gain * shaken
    return found


def layer_values(network, layer, x, misplaced, zero=()):
    """`_values` of one layer of a `Network` or a `Graph`: z, rounding, uncertainty, each [n, width]."""
    if isinstance(network, Graph):
        return flat.survey(network, x, misplaced, only=layer)[0]
    return [part[-1] for part in _values(network, layer + 1, x, misplaced, zero)]


class _Growing:
    """An array that grows by appending rows."""

    def __init__(self, rows):
        self.room, self.used = np.array(rows), len(rows)

    def append(self, rows):
        if self.used + len(rows) > len(self.room):
            more = np.zeros((max(len(rows), len(self.room)), *self.room.shape[1:]), self.room.dtype)
            self.room = np.concatenate([self.room, more])
        self.room[self.used : self.used + len(rows)] = rows
        self.used += len(rows)

    @property
    def all(self):
        return self.room[: self.used]


class _Cells:
    """The square [-1, 1]², to be cut: vertices, edges (two half-edges 2e and 2e + 1 each), faces as lists of half-edges."""

    def __init__(self):
        self.xy = _Growing(np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]))
        self.misplaced = _Growing(np.zeros(4))
        self.ends = _Growing(np.array([[0, 1], [1, 2], [2, 3], [3, 0]]))
        self.owner = _Growing(np.full(4, -1))
        self.face = _Growing(np.array([0, -1] * 4))  # of each half-edge; -1 outside
        self.loops = [[0, 2, 4, 6]]
        self.parent = []  # the face that each new face was cut from, since the layer began

    def begins(self, half):
        return self.ends.room[half >> 1, half & 1]

    def split_edges(self, edges, new):
        """Put vertex new[i] on edges[i]; the part behind it is a new edge."""
        count = self.ends.used
        self.ends.append(np.stack([new, self.ends.all[edges, 1]], axis=1))
        self.ends.room[edges, 1] = new
        self.owner.append(self.owner.all[edges])
        self.face.append(self.face.all.reshape(-1, 2)[edges].ravel())
        for edge, behind in zip(edges.tolist(), range(count, self.ends.used), strict=True):
            for half, face in enumerate(self.face.room[2 * edge : 2 * edge + 2].tolist()):
                if face >= 0:
                    loop = self.loops[face]
                    at = loop.index(2 * edge + half)
                    loop.insert(at + 1 - half, 2 * behind + half)

    def cut(self, face, first, second, neuron):
        """Cut a face between the corners at places first < second of its loop; the part between them is a new face."""
        loop = self.loops[face]
        inner, outer = loop[first:second], loop[second:] + loop[:first]
        edge, new = self.ends.used, len(self.loops)
        self.ends.append([[self.begins(loop[first]), self.begins(loop[second])]])
        self.owner.append([neuron])
        self.face.append([face, new])
        self.loops[face] = [*outer, 2 * edge]
        self.loops.append([*inner, 2 * edge + 1])
        self.face.room[inner] = new
        self.parent.append(face)

    def mesh(self):
        starts = np.concatenate([[0], np.cumsum([len(loop) for loop in self.loops])])
        loops = np.concatenate([np.array(loop) for loop in self.loops])
        nobody, runs = np.full(self.ends.used, -1), np.arange(self.ends.used + 1)
        return Mesh(self.xy.all, self.ends.all, self.owner.all, nobody, runs, loops, starts)


def _asked(network, layer, cells, zero, start=0):
    """`layer_values` at the vertices from `start` on, of a few vertices at a time: a layer may be wide."""
    room = max(1, _HELD // widths_of(network)[layer])
    for k in range(start, cells.xy.used, room):
        x, misplaced, *known = (part.all[k : k + room] for part in (cells.xy, cells.misplaced, *zero[:layer]))
        yield layer_values(network, layer, x, misplaced, known)


def _values_of(neurons, asked):
    """z, rounding, uncertainty of some neurons of a layer, each [V, n], of what `_asked` gives."""
    found = [[part[:, neurons] for part in some] for some in asked]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _overview(width, asked):
    """Which neurons of a layer are on at all vertices, [width] booleans, and the numbers of those that are neither on nor off."""
    least, most, somewhere = np.full(width, np.inf), np.zeros(width), np.zeros(width, bool)
    for z, _, unsure in asked:
        least, most = np.minimum(least, z.min(axis=0)), np.maximum(most, unsure.max(axis=0))
        somewhere |= (z > TRUST * unsure).any(axis=0)
    everywhere = least > TRUST * most
    return everywhere, np.flatnonzero(~everywhere & somewhere)


class _Quick:
    """One layer of a graph at the vertices: its values; and what they may err by where that matters.

    Errors cost six times as much as values. A value far from 0 has a sign without them: for how misplaced the kink through it
    may be, the errors at some of the vertices are enough. An exact 0 is 0.
    """

    def __init__(self, graph, layer, cells, samples=32):
        self.graph, self.layer, self.cells = graph, layer, cells
        some = np.unique(np.linspace(0, cells.xy.used - 1, samples).astype(int))
        z, lost, slopes = flat.survey(graph, cells.xy.all[some], np.ones(len(some)), only=layer)[0]
        self.lost = lost.max(axis=0)
        self.near = np.maximum(_NEAR * np.abs(z).max(), _SPARE * TRUST * self.lost)
        self.most = (self.near / (_SPARE * TRUST * np.maximum(slopes.max(axis=0), 1e-300))).min()  # of what is misplaced

    def _batches(self, width, start=0):
        room = max(1, _HELD // width)
        for k in range(start, self.cells.xy.used, room):
            yield self.cells.xy.all[k : k + room], self.cells.misplaced.all[k : k + room]

    def overview(self):
        """As `_overview`; a few of the others may be on or off everywhere, too."""
        least, most = np.full(len(self.lost), np.inf), np.zeros(len(self.lost))
        for x, _ in self._batches(len(self.lost)):
            z = flat.values(self.graph, self.layer, x)
            least, most = np.minimum(least, z.min(axis=0)), np.maximum(most, z.max(axis=0))
        everywhere = least > self.near
        return everywhere, np.flatnonzero(~everywhere & (most > 0))

    def values_of(self, neurons, start=0, done=0):
        """As `_values_of`, at the vertices from `start` on. The first `done` of these neurons are not asked about any more."""
        found = []
        if done == len(neurons):
            return [np.zeros((self.cells.xy.used - start, done))] * 3
        for x, misplaced in self._batches(len(self.lost), start):
            z = flat.values(self.graph, self.layer, x)[:, neurons]
            lost = np.repeat(self.lost[None, neurons], len(x), axis=0)
            unsure = lost.copy()
            doubtful = ((np.abs(z) <= self.near[neurons]) & (z != 0))[:, done:].any(axis=1) | (misplaced > self.most)
            if doubtful.any():
                exact = flat.survey(self.graph, x[doubtful], misplaced[doubtful], only=self.layer)[0]
                z[doubtful], lost[doubtful], unsure[doubtful] = (part[:, neurons] for part in exact)
            found.append((z, lost, unsure))
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def subdivide(network):
    """The `Mesh` of all polytopes on the square [-1, 1]², and which hidden neurons are on in each: packed bits, one uint8 array
    [F, bytes] per layer, as `maps.patterns`.

    A neuron that is 0 throughout a face is off. Raises ArithmeticError where rounding leaves no consistent signs.
    """
    cells, on, zero, first = _Cells(), [], [], 0
    remembers = not isinstance(network, Graph)  # its layers are large: their values are asked anew
    for layer, width in enumerate(widths_of(network)):
        cells.parent, faces = [], len(cells.loops)
        asked = None  # where all values are too many they are asked twice or more often
        quick = None if remembers else _Quick(network, layer, cells)
        if remembers and cells.xy.used * width <= _HELD:
            asked = list(_asked(network, layer, cells, zero))
        everywhere, unclear = quick.overview() if quick else _overview(width, asked or _asked(network, layer, cells, zero))
        if remembers:
            zero.append(_Growing(np.zeros((cells.xy.used, width), bool)))
        active = _Growing(np.zeros((faces, len(unclear)), bool))
        room = max(1, _HELD // cells.xy.used)
        for group in range(0, len(unclear), room):
            neurons = unclear[group : group + room]
            found = quick.values_of(neurons) if quick else _values_of(neurons, asked or _asked(network, layer, cells, zero))
            z, lost, unsure = map(_Growing, found)
            asked = None
            for j, neuron in enumerate(neurons.tolist()):
                sign = _signs(z.all[:, j], TRUST * unsure.all[:, j])
                _refuse_large_moves(cells, sign, z.all[:, j], lost.all[:, j], first + neuron)
                for part in zero[layer:]:
                    part.all[:, neuron] = sign == 0
                start = cells.xy.used
                ends = _cross(cells, sign, z.all[:, j], lost.all[:, j])
                if cells.xy.used > start:
                    for part in zero:
                        part.append(part.all[ends].all(axis=0))  # on an edge at whose ends a neuron is 0, it is 0
                    for part in zero[layer:]:
                        part.all[start:, neuron] = True
                    new = (
                        quick.values_of(neurons, start, j + 1)
                        if quick
                        else _values_of(neurons, _asked(network, layer, cells, zero, start))
                    )
                    for growing, part in zip((z, lost, unsure), new, strict=True):
                        growing.append(part)
                sign = np.concatenate([sign, np.zeros(cells.xy.used - start, int)])
                _cut_faces(cells, sign, first + neuron, active, group + j)
        for earlier in range(layer):
            on[earlier] = _inherited(on[earlier], cells.parent)
        on.append(_packed(everywhere, unclear, active.all))
        first += width
    if isinstance(network, Graph) and network.chooses:
        return _merged(cells.mesh(), _decisive(network, on))
    return cells.mesh(), on


def _packed(everywhere, unclear, active):
    """Which neurons of a layer are on in each face, as packed bits, from those that are not the same `everywhere`."""
    found, room = [], max(1, _HELD // len(everywhere))
    for k in range(0, len(active), room):
        some = active[k : k + room]
        rows = np.tile(everywhere, (len(some), 1))
        rows[:, unclear] = some
        found.append(np.packbits(rows, axis=1))
    return np.concatenate(found)


def _decisive(network, packed):
    """`flat.decisive` of packed bits."""
    found = []
    for part in in_batches(network, packed):
        found.append([np.packbits(on, axis=1) for on in flat.decisive(network, part)])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def in_batches(network, packed):
    """The neurons that are on, unpacked, a few faces at a time: lists of one [f, n] boolean array per layer."""
    room = max(1, _HELD // (4 * max([1, *widths_of(network)])))
    for k in range(0, len(packed[0]) if packed else 1, room):
        yield unpacked(network, [part[k : k + room] for part in packed])


def _merged(mesh, on):
    """The mesh without the edges between faces with the same neurons on (packed bits), and which are on in each that is left.

    Together they are where some affine functions are positive, so the new faces are convex, too.
    """
    code = np.unique(np.concatenate(on, axis=1), axis=0, return_inverse=True)[1].ravel()
    face = np.full(2 * len(mesh.ends), -1)
    face[mesh.loops] = mesh.face_of_loops()
    left, right = face.reshape(-1, 2).T
    alike = (left >= 0) & (right >= 0) & (code[left] == code[right])
    pairs = coo_array((np.ones(alike.sum()), (left[alike], right[alike])), shape=(len(code), len(code)))
    group = connected_components(pairs, directed=False)[1]
    one = np.unique(group, return_index=True)[1]
    face = np.where(face < 0, -1, group[face])
    kept = face[::2] != face[1::2]
    follow = np.full(len(face), -1)
    follow[mesh.loops] = mesh.loops[next_corner(mesh.starts)]
    half = np.flatnonzero(np.repeat(kept, 2) & (face >= 0))
    after = follow[half]
    while (inner := ~kept[after >> 1]).any():  # around the end of an edge that goes
        after[inner] = follow[after[inner] ^ 1]
    number = np.cumsum(kept) - 1
    follow = np.full(2 * kept.sum(), -1)
    follow[2 * number[half >> 1] + (half & 1)] = 2 * number[after >> 1] + (after & 1)
    _, start = np.unique(face[half], return_index=True)
    loops, starts = walk(follow, (2 * number[half >> 1] + (half & 1))[start], len(half))
    runs = np.arange(kept.sum() + 1)
    vertices, ends = np.unique(mesh.ends[kept], return_inverse=True)
    ends = ends.reshape(-1, 2)
    mesh = Mesh(mesh.xy[vertices], ends, mesh.owner[kept], mesh.across[kept], runs, loops, starts)
    return mesh, [part[one] for part in on]


def _signs(z, unsure):
    return np.where(np.abs(z) <= unsure, 0, np.sign(z)).astype(int)


def _refuse_large_moves(cells, sign, z, lost, neuron):
    """Where a neuron is 0 only for what a vertex may be misplaced, its kink is moved there: a hair's breadth, or no answer."""
    moved = (sign == 0) & (np.abs(z) > TRUST * lost)
    if not moved.any():
        return
    inside = cells.face.all >= 0
    face, corner = cells.face.all[inside], cells.ends.all.ravel()[inside]
    most = np.zeros(len(cells.loops))
    np.maximum.at(most, face, np.abs(z[corner]))
    share = np.zeros(len(cells.loops))
    np.maximum.at(share, face, np.where(moved[corner], np.abs(z[corner]), 0) / np.maximum(most[face], 1e-300))
    for cell in np.flatnonzero(share > _MOVED).tolist():
        x, y = cells.xy.all[[cells.begins(half) for half in cells.loops[cell]]].T
        if share[cell] * np.abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 > _MOVED:
            raise ArithmeticError(f"neuron {neuron} bends where rounding does not tell nearly parallel kinks apart")


def _cross(cells, sign, z, lost):
    """A new vertex wherever an edge leads from + to −; returns the ends of these edges, [2, n]."""
    a, b = cells.ends.all.T
    edges = np.flatnonzero(sign[a] * sign[b] < 0)
    a, b = a[edges], b[edges]
    gap = np.abs(z[a]) + np.abs(z[b])
    t = np.abs(z[a]) / gap
    along = cells.xy.all[b] - cells.xy.all[a]
    vertices = cells.xy.used + np.arange(len(edges))
    cells.xy.append(cells.xy.all[a] + t[:, None] * along)
    cells.misplaced.append(np.abs(along).max(axis=1) * ((1 - t) * lost[a] + t * lost[b]) / gap + ROUND)
    cells.split_edges(edges, vertices)
    return np.stack([a, b])


def _cut_faces(cells, sign, neuron, active, j):
    """Cut every face with + and − corners, and note in `active`[:, j] which faces are on the + side."""
    origin = cells.ends.all.ravel()
    inside = cells.face.all >= 0
    face, here = cells.face.all[inside], sign[origin[inside]]
    plus, minus = (np.bincount(face[here * s > 0], minlength=len(cells.loops)) > 0 for s in (1, -1))
    active.all[:, j] = plus & ~minus
    for cell in np.flatnonzero(plus & minus).tolist():
        places, last, zero = [], None, None
        around = [int(sign[cells.begins(half)]) for half in cells.loops[cell]]
        start = next(i for i, s in enumerate(around) if s)
        for i in range(start, start + len(around) + 1):
            s = around[i % len(around)]
            if last is not None and s and s != last:
                places.append(None if zero is None else zero % len(around))  # the last corner before i at which the neuron is 0
            if s:
                last, zero = s, None
            elif zero is None:
                zero = i
        if len(places) != 2 or None in places:
            raise ArithmeticError(f"rounding leaves no order of the kinks around a polytope near neuron {neuron}")
        first, second = sorted(places)
        cells.cut(cell, first, second, neuron)
        active.append(active.all[[cell]])
        between = next(s for s in around[first + 1 : second] if s)
        active.room[[cell, active.used - 1], j] = [between < 0, between > 0]


def _inherited(on, parent):
    """The rows of `on`, and for each new face a copy of those of the face that it was cut from."""
    source = list(range(len(on)))
    for face in parent:
        source.append(source[face])
    return on[source]


def maps(network, on, batch=1 << 21):
    """The affine map of every face, (slopes, offset) [F, K, 3], from the neurons that are on in it."""
    if isinstance(network, Graph):
        return flat.maps(network, on)
    faces = len(on[0]) if on else 1
    widest = max(map(len, network.biases))
    found, chunk = [], max(1, batch // (3 * widest))
    for i in range(0, faces, chunk):
        affine = np.column_stack([network.weights[0], network.biases[0]])[None]
        for hidden, weight, bias, leak in zip(on, network.weights[1:], network.biases[1:], network.leaks, strict=True):
            affine = weight @ (np.where(hidden[i : i + chunk, :, None], 1.0, leak) * affine)
            affine[:, :, -1] += bias
        found.append(np.broadcast_to(affine, (min(chunk, faces - i), *affine.shape[1:])))
    return np.concatenate(found)
