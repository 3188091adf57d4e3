"""The subdivision of a square by the kinks of a ReLU network, built layer by layer.

The square [-1, 1]² starts as one face. Each hidden layer is then inserted as a whole:

    1. `_crossings`   where each neuron of the layer changes sign along the edges that are already there
    2. `_chords`      a neuron cuts a convex face along one straight chord, from one crossing to another
    3. `_meetings`    two chords of a face meet exactly when their ends alternate around it: no geometry is needed
    4. `_successors`  so it is known which half-edge follows which, and `walk` collects all faces at once

The number of faces is known before any is built: faces = old faces + chords + meetings. Where kinks coincide, or three meet in
one point, rounding cannot order the crossings: that is noticed, never guessed, and raises `Degenerate`.

An edge e is two half-edges, 2e along it and 2e + 1 back; a face is the cycle of half-edges that have it on their left.
"""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np

from . import flat
from .crossings import along_runs, at_vertices, by_product, by_vertex
from .graph import Graph
from .polygons import FAINT, cross, next_corner, ragged

_KEPT = 3 << 24  # pre-activations of a layer that are kept at a time, at most: 400 MB
_CHUNK = 1 << 12  # new vertices at a time
_SHORT = 1e-13  # an edge this short is a coincidence of kinks; the square is 2 wide

_Around = namedtuple("Around", "crossing side face")
_Pieces = namedtuple("Pieces", "ends run across first last before")


class Degenerate(Exception):
    """Kinks coincide, or three of them meet in one point, as far as rounding can tell."""


@dataclass(frozen=True)
class Mesh:
    """A planar subdivision of the square [-1, 1]².

    xy      float [V, 2]  vertices
    ends    int [E, 2]    the two vertices of each edge
    owner   int [E]       the neuron that bends along the edge, counted through all layers; -1 on the rim of the square
    across  int [E]       the neuron that bends across the end of the edge; -1 where the run of edges stops
    runs    int [R + 1]   edges runs[r] … runs[r + 1] - 1 follow one another along a straight line
    loops   int [H]       half-edges of face 0 in counter-clockwise order, then those of face 1, …
    starts  int [F + 1]   face f is loops[starts[f]:starts[f + 1]]
    """

    xy: np.ndarray
    ends: np.ndarray
    owner: np.ndarray
    across: np.ndarray
    runs: np.ndarray
    loops: np.ndarray
    starts: np.ndarray

    def corners(self):
        """The vertex at which each half-edge of `loops` begins, [H]."""
        return self.ends[self.loops >> 1, self.loops & 1]

    def face_of_loops(self):
        """The face to which each half-edge of `loops` belongs, [H]."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def subdivide(network):
    """The `Mesh` of all polytopes of a network on the square [-1, 1]²; raises Degenerate."""
    mesh, hidden = _square(), None
    first = first_neurons(network)
    for layer, size in enumerate(magnitudes(network)[:-1]):
        z = None
        if layer == 1 and not isinstance(network, Graph):
            batches = along_runs(network, mesh)
        elif layer < 2 or isinstance(network, Graph) or len(mesh.xy) * len(size) > _KEPT:
            batches = by_product(network, layer, mesh)
        else:
            z = at_vertices(network, layer, mesh.xy, hidden)
            batches = by_vertex(mesh, z)
        edge, neuron, t = _crossings(batches, FAINT * size)
        old, (mesh, met) = mesh, _insert(mesh, edge, first[layer] + neuron, t)
        kept = z is not None and layer < len(first) - 2 and mesh.xy.size // 2 * z.shape[1] <= _KEPT
        hidden = None if not kept else _carried(z, network.leaks[layer], old.ends[edge], neuron, t, met)
    return mesh


def _carried(z, leak, ends, neuron, t, met):
    """What a layer passes on at all vertices of the new mesh, [V, n], from its pre-activations z at those of the old mesh.

    Between two vertices of an edge, and along a chord, pre-activations are affine: no product is needed for the new vertices.
    """
    tips, other, place = met
    count, meetings = len(z) + len(t), len(place)
    new = np.empty((count + meetings, z.shape[1]))
    new[: len(z)] = z
    for k in range(0, len(t), _CHUNK):
        some = slice(k, k + _CHUNK)
        start, stop = z[ends[some, 0]], z[ends[some, 1]]
        new[len(z) : count][some] = start + t[some, None] * (stop - start)
    crossed = new[len(z) : count]
    crossed[np.arange(len(t)), neuron] = 0
    for k in range(0, meetings, _CHUNK):
        some = slice(k, k + _CHUNK)
        start, stop = crossed[tips[some, 0]], crossed[tips[some, 1]]
        new[count:][some] = start + place[some, None] * (stop - start)
    for crossing in (tips[:, 0], other):
        new[count + np.arange(meetings), neuron[crossing]] = 0
    return np.multiply(new, leak, out=new, where=new < 0)


def _square():
    """The square [-1, 1]² as one face."""
    xy = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    ends = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
    nobody = np.full(4, -1)
    return Mesh(xy, ends, nobody, nobody, runs=np.arange(5), loops=np.arange(0, 8, 2), starts=np.array([0, 4]))


def _crossings(batches, faint):
    """Step 1: where the layer's neurons change sign along the edges, sorted along each edge: edge [X], neuron [X], t [X].

    batches   of (edges [e], row of z at their first vertex [e], at their second vertex [e], z [rows, n])
    faint     [n]; a sign this near to zero would be rounding's choice: raises Degenerate
    t         the place of the crossing, 0 at the first end of the edge, 1 at the second

    Along an edge a pre-activation is affine, so a neuron crosses it once or never. Where a neuron is constant it never does.
    """
    found = []
    for edges, first, second, z in batches:
        positive = z > 0
        row, neuron = np.divmod(np.flatnonzero(positive[first] != positive[second]), z.shape[1])
        z0, z1 = z[first[row], neuron], z[second[row], neuron]
        if (np.minimum(np.abs(z0), np.abs(z1)) <= faint[neuron]).any():
            raise Degenerate("a kink runs through a vertex")
        found.append((edges[row], neuron, z0 / (z0 - z1)))
    edge, neuron, t = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((t, edge))
    return edge[order], neuron[order], t[order]


def _insert(mesh, edge, neuron, t):
    """Steps 2 to 4: the mesh, cut along the kinks of one more layer, given its crossings; raises Degenerate.

    And where its chords meet: the crossings at both ends of one [X, 2], one of the other's [X], the place on the first [X].
    """
    cuts = np.bincount(edge, minlength=len(mesh.ends))
    v0, v1 = mesh.xy[mesh.ends[edge]].transpose(1, 0, 2)
    xy = v0 + t[:, None] * (v1 - v0)

    around = _crossings_around(mesh, cuts)
    p, q = _chords(around.face, neuron[around.crossing])
    a, b = _meetings(p, q)
    tips = around.crossing[np.stack([p, q], axis=1)]
    place_a, place_b = _meeting_places(xy[tips], a, b)
    met = xy[tips[a, 0]] + place_a[:, None] * (xy[tips[a, 1]] - xy[tips[a, 0]])

    names = len(mesh.xy) + np.arange(len(xy) + len(met))  # the new vertices: crossings, then meetings
    old = _split(mesh.ends, cuts, names[: len(xy)], neuron)
    chord_neuron = neuron[tips[:, 0]]
    new, into_a, into_b = _split_chords(names[tips], chord_neuron, a, b, place_a, place_b, names[len(xy) :], number=len(old.ends))
    follow, seeds = _successors(mesh, around, p, q, old, new, into_a, into_b)
    most_sides = np.diff(mesh.starts).max() + np.bincount(around.face[p], minlength=1).max()
    loops, starts = walk(follow, seeds, most_sides)

    xy = np.concatenate([mesh.xy, xy, met])
    ends = np.concatenate([old.ends, new.ends])
    short = np.abs(xy[ends[:, 0]] - xy[ends[:, 1]]) < _SHORT
    if (short[:, 0] & short[:, 1]).any():
        raise Degenerate("kinks coincide or three of them meet in a point")
    owner = np.concatenate([mesh.owner[old.run], chord_neuron[new.run]])
    across = np.concatenate([old.across, new.across])
    runs = np.concatenate([old.first, new.first, [len(ends)]])
    return Mesh(xy, ends, owner, across, runs, loops, starts), (tips[a], tips[b, 0], place_a)


def _crossings_around(mesh, cuts):
    """The crossings in the order in which the loops pass them, [N] each: which, on which side of its edge, of which face.

    cuts [E] counts the crossings on each edge. A crossing inside the square comes up twice, once from each side.
    """
    half = mesh.loops
    here = cuts[half >> 1]
    before = (np.cumsum(cuts) - cuts)[half >> 1]
    step, side = ragged(here), np.repeat(half & 1, here)
    crossing = np.where(side == 0, np.repeat(before, here) + step, np.repeat(before + here - 1, here) - step)
    return _Around(crossing, side, np.repeat(mesh.face_of_loops(), here))


def _chords(face, neuron):
    """Step 2: the two places of each chord in the order around its face, p < q [C]; chords are sorted by p.

    face [N], neuron [N] are those of the crossings, in that order. A convex face is cut by a neuron twice or never.
    """
    key = face * (neuron.max(initial=0) + 1) + neuron
    order = np.argsort(key)
    key, one, other = key[order][::2], order[::2], order[1::2]
    if len(one) != len(other) or (face[one] != face[other]).any() or (neuron[one] != neuron[other]).any():
        raise Degenerate("a neuron cuts a face in a single point")
    if (key[1:] == key[:-1]).any():
        raise Degenerate("a neuron cuts a face more than twice")
    partner = np.zeros(len(face), int)
    partner[np.minimum(one, other)] = np.maximum(one, other)
    p = np.flatnonzero(partner)
    return p, partner[p]


def _meetings(p, q):
    """Step 3: the pairs a, b [X] of chords that meet, p[a] < p[b] < q[a] < q[b]. Cost: the pairs with p[b] < q[a]."""
    rivals = np.searchsorted(p, q) - np.arange(1, len(p) + 1)
    a = np.repeat(np.arange(len(p)), rivals)
    b = a + 1 + ragged(rivals)
    meet = q[b] > q[a]
    return a[meet], b[meet]


def _meeting_places(tips, a, b):
    """Where the chords from tips[:, 0] to tips[:, 1] meet: the fraction of chord a [X] and of chord b [X] that lies before."""
    along = tips[:, 1] - tips[:, 0]
    apart = tips[b, 0] - tips[a, 0]
    turn = cross(along[a], along[b])
    if (turn <= 0).any():
        raise Degenerate("chords that must meet are parallel")
    return cross(apart, along[b]) / turn, cross(apart, along[a]) / turn


def _split(ends, parts, inner, across, number=0):
    """Cut lines into pieces: `_Pieces`, numbered from `number` on, those of a line in a row.

    ends [R, 2] of the lines; parts [R] counts the vertices inner [X] that lie on each line, in order, and across [X] names the
    neuron that bends there. Of the answer: ends [R + X, 2], run [R + X] (whose piece it is), across [R + X] (the neuron at its
    far end, -1 for the last piece), first [R] and last [R] piece of each line, before [X] the piece that ends at an inner vertex.
    """
    count = np.arange(len(ends))
    last = count + np.cumsum(parts)
    before = np.arange(len(inner)) + np.repeat(count, parts)
    pieces, beyond = np.empty((len(ends) + len(inner), 2), int), np.full(len(ends) + len(inner), -1)
    pieces[last - parts, 0], pieces[last, 1] = ends.T
    pieces[before, 1] = pieces[before + 1, 0] = inner
    beyond[before] = across
    return _Pieces(pieces, np.repeat(count, parts + 1), beyond, number + last - parts, number + last, number + before)


def _split_chords(ends, neuron, a, b, place_a, place_b, met, number):
    """Cut chords at their meetings: `_Pieces`, and the piece of chord a and of chord b [X] that ends at each meeting."""
    chord, other = np.concatenate([a, b]), np.concatenate([b, a])
    order = np.lexsort((np.concatenate([place_a, place_b]), chord))
    pieces = _split(ends, np.bincount(chord, minlength=len(ends)), np.tile(met, 2)[order], neuron[other[order]], number)
    into = np.empty(len(chord), int)
    into[order] = pieces.before
    return pieces, *np.split(into, 2)


def _successors(mesh, around, p, q, old, new, into_a, into_b):
    """Step 4: the half-edge that follows each half-edge around its face, -1 outside, and one half-edge of every new face."""
    follow = np.full(2 * (len(old.ends) + len(new.ends)), -1)
    half, back = mesh.loops, mesh.loops & 1
    enter = 2 * np.where(back, old.last[half >> 1], old.first[half >> 1]) + back
    leave = 2 * np.where(back, old.first[half >> 1], old.last[half >> 1]) + back
    follow[leave] = enter[next_corner(mesh.starts)]
    # where a chord ends on an old edge
    before = old.before[around.crossing]
    arriving, leaving = 2 * (before + around.side) + around.side, 2 * (before + 1 - around.side) + around.side
    follow[arriving[p]], follow[arriving[q]] = 2 * new.first, 2 * new.last + 1
    follow[2 * new.last], follow[2 * new.first + 1] = leaving[q], leaving[p]
    # where chords meet, every half-edge turns left; b comes from the right of a
    follow[2 * into_a], follow[2 * into_a + 3] = 2 * into_b + 2, 2 * into_b + 1
    follow[2 * into_b], follow[2 * into_b + 3] = 2 * into_a + 1, 2 * into_a + 2
    # Send the first corner of an old face to infinity, straight up: its rim is then a parabola and p is left of q, so all chords
    # run to the right. The leftmost point of a new face is either at infinity, or where a chord starts, or a meeting.
    seeds = np.concatenate([enter[mesh.starts[:-1]], leaving[p], 2 * into_a + 2])
    return follow, seeds


def walk(follow, seeds, most_sides):
    """All faces at once, a step a side: loops [H] and starts [F + 1]. Raises Degenerate unless each half-edge comes up once."""
    steps, face, current = [], np.arange(len(seeds)), seeds
    while len(face) and len(steps) < most_sides:
        steps.append((face, current))
        current = follow[current]
        unfinished = current != seeds[face]
        face, current = face[unfinished], current[unfinished]
    sides = np.zeros(len(seeds), int)
    for on, _ in steps:
        sides[on] += 1
    starts = np.concatenate([[0], np.cumsum(sides)])
    loops = np.empty(starts[-1], int)
    for step, (on, half) in enumerate(steps):
        loops[starts[on] + step] = half
    if len(face) or not np.array_equal(np.bincount(loops, minlength=len(follow)), follow >= 0):
        raise Degenerate("the faces do not add up to old faces + chords + meetings")
    return loops, starts


def measure(mesh):
    """Centroid [F, 2] and area [F] of every face of the square; raises Degenerate unless all are positive and add up.

    Computed from the face's own first corner: far from the origin the usual formula would lose small faces to rounding.
    """
    corners, following = mesh.corners(), next_corner(mesh.starts)
    origin = mesh.xy[corners[mesh.starts[:-1]]]
    x, y = (mesh.xy[corners, i] - np.repeat(origin[:, i], np.diff(mesh.starts)) for i in (0, 1))
    x_next, y_next = x[following], y[following]
    twice = x * y_next - y * x_next
    area = np.add.reduceat(twice, mesh.starts[:-1]) / 2
    if (area <= 0).any() or abs(area.sum() - 4) > 4e-9:
        raise Degenerate("a polytope has no area")
    moments = [np.add.reduceat((v + v_next) * twice, mesh.starts[:-1]) for v, v_next in ((x, x_next), (y, y_next))]
    return origin + np.stack(moments, axis=1) / (6 * area[:, None]), area


def first_neurons(network):
    """Hidden neurons are counted through all layers: the number of each layer's first neuron, and the total at the end."""
    return np.cumsum([0, *widths_of(network)])


def widths_of(network):
    """How many neurons each layer of a `Network` or a `Graph` has."""
    return flat.widths(network) if isinstance(network, Graph) else network.widths


def magnitudes(network):
    """The yardstick for rounding in the square, one [n] per Linear: how large the terms are that add up to each neuron.

    The greatest of `sizes` over a coarse grid; a factor of two does not matter. Raises ValueError where numbers overflow.
    """
    side = np.linspace(-1, 1, 9)
    found = [size.max(axis=0) for size in sizes(network, np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2))]
    for i, size in enumerate(found):
        if not np.isfinite(size).all():
            raise ValueError(f"layer {2 * i} (Linear): its outputs exceed the range of float64 in this rectangle")
    return found


def sizes(network, x):
    """How large the numbers are that a float computation of each neuron adds up at points x [n, 2]: one [n, width] per Linear.

    |b| + |W| @ |what the layer before gives|, and what the layers before have rounded away already, as independent errors:
    √(W² @ size²). A neuron that is off passes on neither value nor error: deep networks are not judged by what is off in them.
    """
    if isinstance(network, Graph):
        return [rounding / flat.ROUND for _, rounding, _ in flat.survey(network, x)]
    found, h, size = [], x, np.zeros_like(x)
    with np.errstate(over="ignore", invalid="ignore"):
        for weight, bias, leak in zip(network.weights, network.biases, [*network.leaks, 1.0], strict=True):
            terms = np.abs(h) @ np.abs(weight).T + np.abs(bias)
            before = independent(size, weight)
            z, size = h @ weight.T + bias, terms + before
            found.append(size)
            h, size = np.where(z > 0, z, leak * z), np.where(z > -FAINT * size, 1.0, abs(leak)) * size
    return found


def independent(size, weight):
    """√(size² @ W².T): errors [n, m] pushed through weights [k, m] as independent ones; scaled, since squares overflow first."""
    s, w = (max(np.abs(part).max(initial=0), 1e-300) for part in (size, weight))
    return s * (w * np.sqrt((size / s) ** 2 @ ((weight / w) ** 2).T))
