"""The polytopes of a rectangle: counts, Euler's formula, areas, maps, activation patterns, and every kind of coincidence."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from bench_polytopes import one_by_one
from exact_cells import area, exact_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import build, coarse_networks, disguise, random_network, without_biases
from torch import nn

from ood_helpers.models import mlp
from ood_helpers.polytopes import crossings, maps, mesh
from ood_helpers.polytopes.network import Network, read
from ood_helpers.polytopes.plane import plane

plane_module = importlib.import_module("ood_helpers.polytopes.plane")


def default_network(width, n_classes=2):
    """torch's own initialisation with seed 0: a fixed network on every machine."""
    torch.manual_seed(0)
    layers = [nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_classes)]
    return nn.Sequential(*layers)


def logits_of(polytopes, face, x):
    return np.einsum("nkj,nj->nk", polytopes.slopes[face], x) + polytopes.offsets[face]


def assert_close(logits, expected, rtol=1e-9):
    np.testing.assert_allclose(logits, expected, rtol=0, atol=rtol * (1e-300 + np.abs(expected).max()))


def assert_exact(polytopes, rtol=1e-9):
    """Everything that must hold for any network: a subdivision, its maps, and one polytope per activation pattern."""
    p = polytopes
    box = (p.hi - p.lo).prod()
    assert len(p.mesh.xy) - len(p.mesh.ends) + len(p) == 1  # Euler's formula without the outer face
    assert p.areas.min() > 0
    assert abs(p.areas.sum() - box) <= 1e-9 * box
    assert (np.diff(p.starts) >= 3).all()
    assert len(p.corners) == p.starts[-1]

    assert p.slopes.shape == (len(p), p.network.n_classes, 2)
    assert p.offsets.shape == (len(p), p.network.n_classes)
    # where kinks coincide, logits may be nothing but what is left of terms that cancel: compare with the terms
    scale = mesh.magnitudes(p._square_network)[-1].max() if p._on else np.abs(p.network(p.corners)).max()
    at_centroids = logits_of(p, np.arange(len(p)), p.centroids)
    np.testing.assert_allclose(at_centroids, p.network(p.centroids), rtol=0, atol=rtol * scale)

    active = p._activity(p._centroids)
    assert len(np.unique(active, axis=0)) == len(p)
    np.testing.assert_array_equal(p.locate(p.centroids), np.arange(len(p)))

    x = np.random.default_rng(0).uniform(p.lo, p.hi, (500, 2))
    face = p.locate(x)
    assert face.min() >= 0
    np.testing.assert_allclose(logits_of(p, face, x), p.network(x), rtol=0, atol=rtol * scale)
    assert_inside(p, face, x)


def assert_inside(p, face, x, slack=1e-9):
    """Points x [n, 2] lie in the polygons face [n], up to rounding relative to the rectangle."""
    for f, point in zip(face, (x - p.lo) / (p.hi - p.lo), strict=True):
        polygon = (p.polygon(f) - p.lo) / (p.hi - p.lo)
        along, to_point = np.roll(polygon, -1, axis=0) - polygon, point - polygon
        assert (along[:, 0] * to_point[:, 1] - along[:, 1] * to_point[:, 0]).min() > -slack


# ---- counts and an independent way to the same polytopes ----


@pytest.mark.parametrize(("width", "count"), [(16, 563), (32, 2227), (100, 19300), (200, 79667)])
def test_known_counts(width, count):
    polytopes = plane(default_network(width))
    assert len(polytopes) == count
    assert polytopes._on is None  # the fast way
    if width <= 100:
        assert_exact(polytopes)


def test_the_width_of_the_paper():
    polytopes = plane(default_network(500))
    assert len(polytopes) == 499_090
    assert abs(polytopes.areas.sum() - 1e4) < 1e-5
    some = np.random.default_rng(0).choice(len(polytopes), 2000, replace=False)
    x = polytopes.centroids[some]
    assert_close(logits_of(polytopes, some, x), polytopes.network(x))
    np.testing.assert_array_equal(polytopes.locate(x), some)
    assert len(np.unique(polytopes._code_book[2])) == len(polytopes)  # one code per activation pattern


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), hidden=st.lists(st.integers(1, 7), max_size=3), leak=st.sampled_from([0.0, 0.1]))
def test_same_polygons_as_cutting_one_by_one(seed, hidden, leak):
    model = random_network(np.random.default_rng(seed), [2, *hidden, 3], leak)
    polytopes, pieces = plane(model, -3, 3), one_by_one(model, -3.0, 3.0)
    assert len(polytopes) == len(pieces)
    middle = np.array([polygon.mean(axis=0) for polygon, _, _ in pieces])
    face = polytopes.locate(middle)
    assert len(set(face)) == len(pieces)
    np.testing.assert_allclose(polytopes.slopes[face], [slopes for _, slopes, _ in pieces], atol=1e-9)
    np.testing.assert_allclose(polytopes.offsets[face], [offsets for _, _, offsets in pieces], atol=1e-9)
    for i, (polygon, _, _) in zip(face, pieces, strict=True):
        mine, theirs = polytopes.polygon(i), polygon
        distance = np.abs(mine[:, None] - theirs[None]).sum(axis=2)
        assert distance.min(axis=0).max() < 1e-8
        assert distance.min(axis=1).max() < 1e-8


# ---- any network ----


@settings(max_examples=80)
@given(data=st.data())
def test_random_networks(data):
    depth = data.draw(st.integers(1, 4))
    width = st.integers(1, {1: 40, 2: 40, 3: 16, 4: 10}[depth])
    sizes = [2, *data.draw(st.lists(width, min_size=depth, max_size=depth)), data.draw(st.integers(1, 6))]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    model = random_network(rng, sizes, data.draw(st.sampled_from([0.0, 0.01, 0.3])))
    half = data.draw(st.sampled_from([1.0, 50.0]))
    assert_exact(plane(model, -half, half))


@settings(max_examples=60)
@given(coarse_networks(2), st.booleans(), st.integers(0, 2**32 - 1))
def test_weights_on_a_coarse_grid(parts, turned, seed):
    """Zero rows, duplicates, dead layers, concurrent kinks and zero biases, exactly or up to rounding."""
    weights, biases, leak = parts
    if turned:
        rng = np.random.default_rng(seed)
        weights, biases = disguise(weights, biases, np.linalg.qr(rng.normal(size=(2, 2)))[0], rng)
    polytopes = plane(build(weights, biases, float(leak)), -4, 4)
    assert_exact(polytopes)
    expected = read(build(weights, biases, float(leak)))(polytopes.centroids)
    logits = logits_of(polytopes, np.arange(len(polytopes)), polytopes.centroids)
    size = mesh.magnitudes(polytopes._square_network)[-1].max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12 * (1e-300 + size))


def test_a_neuron_that_is_zero_but_for_rounding():
    """3.7 b − 3.7 b may be 0 when one point is computed, and 1e-17 among a hundred. It has no kink, so it tells nothing apart."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-4, 4, (100, 2))
    for _ in range(30):
        scale, b = rng.uniform(0.1, 10), rng.uniform(0.1, 1)
        weights = [rng.normal(size=(4, 2)), np.zeros((4, 4)), np.zeros((4, 4)), rng.normal(size=(3, 4))]
        weights[2][1] = [0, 0, scale, -scale]
        polytopes = plane(build(weights, [rng.normal(size=4), np.array([0, 0, b, b]), np.zeros(4), np.zeros(3)], 0.0), -4, 4)
        assert polytopes.locate(x).tolist() == [polytopes.locate(point[None])[0] for point in x]


def test_deep_and_narrow():
    model = random_network(np.random.default_rng(3), [2] + [8] * 10 + [3])
    assert_exact(plane(model, -2, 2))


def test_large_weights():
    model = random_network(np.random.default_rng(1), [2, 12, 12, 4])
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight *= 30
    assert_exact(plane(model, -10, 10))


@pytest.mark.parametrize("leak", [-0.5, 0.5, 1.0, 2.0])
def test_unusual_slopes_of_leaky_relu(leak):
    assert_exact(plane(random_network(np.random.default_rng(0), [2, 8, 6, 2], leak), -3, 3))


# ---- one coincidence at a time ----


def one_layer(weight, bias):
    return build([weight, np.ones((1, len(weight)))], [bias, [0.0]])


@pytest.mark.parametrize(
    ("weight", "bias", "count", "careful"),
    [
        ([[1, 0]], [80], 1, False),  # no kink in the box
        ([[1, 0]], [50], 1, True),  # a kink along the left edge
        ([[-1, 0]], [-50], 1, False),  # the same, active outside: no polytope touches it
        ([[1, 1]], [100], 1, True),  # through a corner from outside
        ([[1, -1]], [0], 2, True),  # through two corners
        ([[1, 0], [1, 0]], [3, 3], 2, True),  # duplicate neurons
        ([[1, 0], [-2, 0]], [3, -6], 2, True),  # the same kink, the other way round
        ([[1, 0], [1, 0], [2, 0]], [3, -4, 1], 4, False),  # parallel
        ([[1, 0], [0, 1], [1, 1]], [0, 0, 0], 6, True),  # three kinks through a point
        ([[0, 0], [1, 0]], [0, 3], 2, False),  # a zero row
        ([[0, 0], [0, 0]], [-1, 1], 1, False),  # nothing but zero rows
    ],
)
def test_coincidences(weight, bias, count, careful):
    polytopes = plane(one_layer(weight, bias))
    assert len(polytopes) == count
    assert bool(polytopes._on) == careful
    assert_exact(polytopes)


@pytest.mark.parametrize(("width", "count"), [(10, 20), (100, 200)])
def test_kinks_through_one_point(width, count):
    model = mlp(width=width, depth=1, init="glorot", generator=torch.Generator().manual_seed(0))
    polytopes = plane(model, -1, 1)
    assert len(polytopes) == count
    assert_exact(polytopes)


@settings(max_examples=60)
@given(coarse_networks(2))
def test_counts_and_areas_of_coarse_networks_against_exact_fractions(parts):
    """Regions cut out by the kinks, by rational arithmetic: count, areas, and the map of each."""
    weights, biases, leak = parts
    model = build(weights, biases, float(leak))
    polytopes, cells = plane(model, -4, 4), exact_cells(weights, biases, leak, 4)
    assert len(polytopes) == len(cells)
    np.testing.assert_allclose(np.sort(polytopes.areas), np.sort([float(area(cell)) for cell, _ in cells]), rtol=1e-9)


def test_a_deep_network_is_not_replaced_by_another():
    """Rounding that neurons carry along while they are off must not count: 40 layers, values about 100."""
    generator, layers, n = torch.Generator().manual_seed(2), [], 2
    for _ in range(40):
        layer = nn.Linear(n, 8)
        nn.init.normal_(layer.weight, 0, 2 / n**0.5, generator=generator)
        nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
        layers, n = [*layers, layer, nn.ReLU()], 8
    model = nn.Sequential(*layers, nn.Linear(8, 3)).double()
    polytopes = plane(model, -1, 1)
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    logits = logits_of(polytopes, polytopes.locate(x), x)
    np.testing.assert_allclose(logits, read(model)(x), atol=1e-9 * np.abs(logits).max())


@pytest.mark.parametrize("sizes", [[2, 60, 2], [2, 30, 30, 3], [2, 8, 8, 8, 2]])
def test_zero_biases(sizes):
    model = without_biases(random_network(np.random.default_rng(0), sizes))
    polytopes = plane(model)
    assert polytopes._on
    assert_exact(polytopes)


@pytest.mark.parametrize("layer", [0, 2])
def test_dead_layer(layer):
    model = random_network(np.random.default_rng(0), [2, 6, 6, 2])
    model[layer].bias.data[:] = -1e4
    polytopes = plane(model)
    assert_exact(polytopes)
    if layer == 0:
        assert len(polytopes) == 1
        np.testing.assert_allclose(polytopes.slopes, 0, atol=1e-12)


def test_constant_neurons_on_a_face_are_no_kinks():
    """Where the first layer rests, the second is constant, and b = 0 there would be a sign that only rounding decides."""
    model = build([[[1, 0.3]], [[1], [1], [-1]], [[1, 1, 1]]], [[0.7], [0, 1, -1], [0]])
    polytopes = plane(model)
    assert len(polytopes) == 2
    assert_exact(polytopes)


def test_all_duplicates():
    model = default_network(20)
    model[0].weight.data[:], model[0].bias.data[:] = model[0].weight.data[0].clone(), model[0].bias.data[0].clone()
    assert_exact(plane(model))


# ---- the internal checks ----


def test_a_neuron_that_cuts_a_face_once_is_noticed():
    with pytest.raises(mesh.Degenerate, match=r"single point"):
        mesh._chords(np.array([0, 0, 0]), np.array([0, 1, 1]))


def test_a_neuron_that_cuts_a_face_four_times_is_noticed():
    with pytest.raises(mesh.Degenerate, match=r"more than twice"):
        mesh._chords(np.array([0, 0, 0, 0]), np.array([5, 5, 5, 5]))


def test_a_sign_that_rounding_would_choose_is_noticed():
    def batch(z):
        return [(np.array([7]), np.array([0]), np.array([1]), np.array([[z], [-3.0]]))]

    edge, neuron, t = mesh._crossings(batch(1.0), np.array([1e-12]))
    assert (edge, neuron, t) == (7, 0, 0.25)
    with pytest.raises(mesh.Degenerate, match="through a vertex"):
        mesh._crossings(batch(1e-13), np.array([1e-12]))


@pytest.mark.parametrize(("gap", "apart"), [(1e-9, True), (1e-14, False)])
def test_kinks_side_by_side(gap, apart):
    """Two kinks from the lower to the upper side of the square."""
    edge, neuron, t = np.array([0, 0, 2, 2]), np.array([0, 1, 1, 0]), np.array([0.5, 0.5 + gap, 0.5 - gap, 0.5])
    if apart:
        cut, _ = mesh._insert(mesh._square(), edge, neuron, t)
        np.testing.assert_allclose(np.sort(mesh.measure(cut)[1]), [4 * gap, 2 - 4 * gap, 2], rtol=1e-6)
        return
    with pytest.raises(mesh.Degenerate, match="coincide"):
        mesh._insert(mesh._square(), edge, neuron, t)


@pytest.mark.parametrize("seeds", [[0, 2], [0, 1, 3], [0]])
def test_faces_that_do_not_add_up_are_noticed(seeds):
    """Half-edges in two cycles, 0 1 2 and 3 4; each must be walked once."""
    follow = np.array([1, 2, 0, 4, 3, -1])
    loops, starts = mesh.walk(follow, np.array([0, 3]), most_sides=3)
    np.testing.assert_array_equal(loops, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(starts, [0, 3, 5])
    with pytest.raises(mesh.Degenerate, match="do not add up"):
        mesh.walk(follow, np.array(seeds), most_sides=3)
    with pytest.raises(mesh.Degenerate, match="do not add up"):
        mesh.walk(follow, np.array([0, 3]), most_sides=2)


def test_a_face_without_area_is_noticed():
    square = mesh._square()
    inside_out = dataclasses.replace(square, loops=(square.loops ^ 1)[::-1])
    with pytest.raises(mesh.Degenerate, match="no area"):
        mesh.measure(inside_out)


def test_an_impossible_order_of_meetings_is_noticed(monkeypatch):
    """Three chords that meet in pairs, in an order that no straight lines have: the faces do not add up."""
    true_places = mesh._meeting_places

    def swapped(tips, a, b):
        place_a, place_b = true_places(tips, a, b)
        both = np.flatnonzero(a == 0)
        place_a[both] = place_a[both[::-1]]
        return place_a, place_b

    model = one_layer([[1, 0.1], [0.1, 1], [1, 1.2]], [0, 0, 5])
    count = len(plane(model))
    monkeypatch.setattr(mesh, "_meeting_places", swapped)
    with pytest.raises(mesh.Degenerate):
        mesh.subdivide(plane_module._in_square(read(model), plane_module._box(-50, 50)))
    polytopes = plane(model)
    assert polytopes._on and len(polytopes) == count  # the careful way finds them all the same


def test_wrong_maps_are_noticed(monkeypatch):
    true_maps = plane_module.affine_maps
    monkeypatch.setattr(plane_module, "affine_maps", lambda *a: true_maps(*a) * (1 + 1e-6))
    monkeypatch.setattr(plane_module, "_SMALL", 0)
    polytopes = plane(default_network(16))
    with pytest.raises(ArithmeticError, match=r"miss the network"):
        polytopes.slopes  # noqa: B018


def test_a_point_without_a_polytope_is_noticed():
    polytopes = plane(default_network(16))
    inside_first = polytopes.centroids[:1]
    keys, polytope, codes = polytopes._code_book
    polytopes._code_book = keys, polytope[polytope != 0], codes[polytope != 0]
    with pytest.raises(ArithmeticError, match="no polytope has the active neurons of the point"):
        polytopes.locate(inside_first)


def test_second_layer_along_lines_is_the_matrix_product():
    network = Network(*[getattr(read(default_network(40)), name) for name in ("weights", "biases", "leaks")])
    square = plane_module._in_square(network, plane_module._box(-50, 50))
    first = mesh.subdivide(Network([*square.weights[:1], np.ones((1, 40))], [*square.biases[:1], np.zeros(1)], square.leaks[:1]))
    edges = []
    for edge, before, after, z in mesh.along_runs(square, first):
        for rows, end in ((before, 0), (after, 1)):
            x = first.xy[first.ends[edge, end]]
            expected = Network(square.weights[:2], square.biases[:2], square.leaks[:1])(x)
            np.testing.assert_allclose(z[rows], expected, atol=1e-12 * np.abs(expected).max())
        edges.append(edge)
    np.testing.assert_array_equal(np.sort(np.concatenate(edges)), np.arange(len(first.ends)))


def test_batches_do_not_change_the_answer(monkeypatch):
    model = random_network(np.random.default_rng(2), [2, 12, 10, 8, 3])
    whole = plane(model, -3, 3)
    for module in (crossings, maps, plane_module):
        monkeypatch.setattr(module, "BATCH", 300)
    parts = plane(model, -3, 3)
    np.testing.assert_array_equal(parts.starts, whole.starts)
    np.testing.assert_allclose(parts.corners, whole.corners, atol=1e-12)
    np.testing.assert_allclose(parts.slopes, whole.slopes, atol=1e-12)
    np.testing.assert_array_equal(parts.locate(parts.centroids), np.arange(len(parts)))


# ---- the rectangle, slices, and what plotting needs ----


def test_no_hidden_layer_is_one_polytope():
    model = nn.Sequential(nn.Linear(2, 3))
    polytopes = plane(model, [-1, 0], [3, 2])
    assert len(polytopes) == 1
    np.testing.assert_allclose(polytopes.slopes[0], model[0].weight.detach(), atol=1e-7)
    np.testing.assert_allclose(polytopes.offsets[0], model[0].bias.detach(), atol=1e-7)
    np.testing.assert_allclose(polytopes.polygon(0), [[-1, 0], [3, 0], [3, 2], [-1, 2]])
    assert polytopes.areas[0] == pytest.approx(8)
    np.testing.assert_allclose(polytopes.centroids[0], [1, 1])
    assert_exact(polytopes)


@pytest.mark.parametrize(("lo", "hi"), [([-50, -1], [50, 1]), ([1000, -2000], [1040, -1950]), (-1e5, 1e5), (0.1, 0.1001)])
def test_any_rectangle(lo, hi):
    model = random_network(np.random.default_rng(0), [2, 20, 20, 3])
    model[0].bias.data -= model[0].weight.data @ torch.as_tensor(np.add(lo, hi) / 2 * np.ones(2))  # the kinks' centre
    polytopes = plane(model, lo, hi)
    assert len(polytopes) > 10 or np.max(np.subtract(hi, lo)) < 1e-3
    assert_exact(polytopes)


def test_a_known_subdivision():
    polytopes = plane(one_layer([[1, 0], [0, 1]], [-1, -2]), 0, 4)
    assert sorted(polytopes.areas) == pytest.approx([2, 2, 6, 6])
    order = np.lexsort(polytopes.centroids.T)
    np.testing.assert_allclose(polytopes.centroids[order], [[0.5, 1], [2.5, 1], [0.5, 3], [2.5, 3]], atol=1e-12)
    np.testing.assert_allclose(polytopes.slopes[order, 0], [[0, 0], [1, 0], [0, 1], [1, 1]], atol=1e-12)
    np.testing.assert_allclose(polytopes.offsets[order, 0], [0, -1, -2, -3], atol=1e-12)


@pytest.mark.parametrize("d", [2, 5, 50])
def test_slices(d):
    rng = np.random.default_rng(d)
    model = random_network(rng, [d, 15, 12, 4])
    origin, axes = rng.normal(size=d), rng.normal(size=(2, d))
    polytopes = plane(model, -5, 5, origin=origin, axes=axes)
    assert len(polytopes) > 20
    assert_exact(polytopes)
    s = rng.uniform(-5, 5, (300, 2))
    assert_close(logits_of(polytopes, polytopes.locate(s), s), read(model)(origin + s @ axes))


def test_a_slice_through_zero_needs_no_origin():
    model, axes = random_network(np.random.default_rng(0), [4, 9, 2]), np.eye(2, 4)
    np.testing.assert_array_equal(plane(model, axes=axes).areas, plane(model, axes=axes, origin=np.zeros(4)).areas)


def test_edges_and_polygons_for_plotting():
    polytopes = plane(default_network(16), -10, 10)
    edges, owner = polytopes.edges(), polytopes.mesh.owner
    layers = np.where(owner < 0, -1, owner // 16)  # that bends along each edge; -1 on the rim
    assert edges.shape == (len(layers), 2, 2)
    assert set(layers) == {-1, 0, 1}
    rim = np.linalg.norm(edges[:, 1] - edges[:, 0], axis=1)[layers == -1].sum()
    assert rim == pytest.approx(80)
    middle = edges.mean(axis=1)
    z = polytopes.network.weights[0] @ middle[layers == 0].T + polytopes.network.biases[0][:, None]
    np.testing.assert_allclose(np.abs(z).min(axis=0), 0, atol=1e-10)  # a kink of layer 0 is where one of its neurons is 0
    for i in (0, 5, -1):
        polygon = polytopes.polygon(i)
        x, y = polygon.T
        area = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
        assert area == pytest.approx(polytopes.areas[i])
    np.testing.assert_array_equal(polytopes.polygon(-1), polytopes.corners[polytopes.starts[-2] :])
    with pytest.raises(IndexError):
        polytopes.polygon(len(polytopes))


def test_locate_on_edges_vertices_and_outside():
    polytopes = plane(default_network(32))
    assert (polytopes.locate([[50.001, 0], [0, -1e9], [np.nan, 0]]) == -1).all()
    assert (polytopes.locate([[50, 50], [-50, 3], [0, -50]]) >= 0).all()
    assert len(polytopes.locate(np.zeros((0, 2)))) == 0
    face = polytopes.locate(polytopes.corners)
    assert face.min() >= 0
    assert_inside(polytopes, face[::7], polytopes.corners[::7], slack=1e-8)
    with pytest.raises(ValueError, match=r"points must be \[n, 2\], not \[3\]"):
        polytopes.locate([1, 2, 3])


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lo": 1, "hi": 1}, r"lo < hi"),
        ({"lo": 2, "hi": 1}, r"lo < hi"),
        ({"lo": [0, 5], "hi": [1, 4]}, r"lo < hi"),
        ({"lo": -np.inf}, "finite"),
        ({"hi": np.nan}, "finite"),
        ({"lo": [0, 0, 0]}, "number or a pair"),
        ({"origin": [0, 0]}, "only used together with axes"),
        ({"axes": np.eye(3)}, r"axes must have shape \(2, 2\), not \(3, 3\)"),
        ({"axes": np.eye(2), "origin": [0, 0, 0]}, r"origin must have shape \(2,\)"),
        ({"axes": [[1, 2], [2, 4]]}, "independent"),
        ({"axes": [[1, 2], [0, 0]]}, "independent"),
        ({"axes": [[1, np.nan], [0, 1]]}, "finite"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        plane(default_network(4), **arguments)


def test_bad_networks():
    with pytest.raises(ValueError, match=r"3 inputs.*axes"):
        plane(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"layer 1 .Sigmoid"):
        plane(nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2)))
    model = default_network(4)
    model[2].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"layer 2 .Linear"):
        plane(model)
    model = build([[[1e200, 0]], [[1e200]], [[1]]], [[0], [0], [0]])
    with pytest.raises(ValueError, match=r"layer 2 .Linear.: its outputs exceed"):
        plane(model)


@pytest.mark.parametrize("seed", range(5))
def test_kinks_that_meet_but_for_rounding_are_told(seed):
    """Ten kinks through (0.3, 0.7) as floats have them: twenty polytopes, whatever the last digits say."""
    weight = np.random.default_rng(seed).normal(size=(10, 2))
    polytopes = plane(build([weight, np.ones((2, 10))], [-weight @ [0.3, 0.7], np.zeros(2)]), -1, 1)
    assert len(polytopes) == 20
    assert_exact(polytopes)


@pytest.mark.parametrize(
    ("p", "q", "a", "b", "d", "s", "box"),
    [
        (3, 11, 1, 5, 2.0**-19, 2048, (-2.7, 1.9)),
        (7, 19, 2, 9, 2.0**-25, 2048, (-2.7, 1.9)),
        (11, 17, 4, 10, 2.0**-17, 128, (-2.7, 1.9)),
        (3, 19, 2, 2, 2.0**-28, 128, (-1, 1)),
    ],
)
def test_a_kink_through_the_corner_of_a_needle_makes_no_sliver(p, q, a, b, d, s, box):
    """Three lines through (a/p, b/q), two of them of the first layer and at an angle of d or so: six polytopes.

    Rounding shifts the corner along the needle by much more than the third line, of the second layer, is apart from it there.
    """
    weights = [[[0, q], [d * p, q], [s * d * p, q]], [[0, 0, 1]], [[1], [-1]]]
    polytopes = plane(build(weights, [[-b, -b - d * a, q + s * p], [-q - s * p - b - s * d * a], [0, 0]]), *box)
    assert len(polytopes) == 6
