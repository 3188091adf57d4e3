"""The certificate of silence against brute force in whole numbers, and at the edges of what floats can tell."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from small_networks import build

from ood_helpers.polytopes import silent_certificate

TURN, AHEAD = np.array([-0.8, 0.6]), np.array([0.6, 0.8])


def net(*weights):
    return build(weights, [None] * len(weights))


def exact(first, second, u):
    """z0 [m] at direction u in fractions."""
    h = [max(sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, u, strict=True)), Fraction(0)) for row in first]
    return [sum(Fraction(float(a)) * b for a, b in zip(w, h, strict=True)) for w in second]


def edges(first):
    """The edges of the pointed cones on which z0 is linear, whole numbers [r, d]: two or three dimensions."""
    planes = np.vstack([first, np.eye(first.shape[1], dtype=int)])
    if first.shape[1] == 2:
        rays = planes[:, ::-1] * [-1, 1]
    else:
        rays = np.array([np.cross(a, b) for a, b in itertools.combinations(planes, 2)])
    rays = np.unique(rays[rays.any(axis=1)], axis=0)
    return np.vstack([rays, -rays])


def check(first, second):
    """The certificate of a network of whole numbers against its z0 on all edges; the verdict and whether z0 < 0 everywhere."""
    found = silent_certificate(net(first, second, [[1] * len(second), [0] * len(second)]))
    rays = edges(np.array(first))
    z = np.maximum(rays @ np.transpose(first), 0) @ np.transpose(second)
    if found.verdict == "silent":
        assert z.max() <= 0 and found.direction is None and found.bound.max() <= 0
    if found.verdict == "active":
        assert max(exact(first, second, found.direction)) > 0 and np.linalg.norm(found.direction) == pytest.approx(1)
    assert not found.strict or (z.max() < 0 and found.verdict == "silent")
    for value, most in zip(z.max(axis=0), found.bound, strict=True):  # z / |ray| <= bound, in whole numbers
        assert most == np.inf or value <= 0 <= most or (most < 0 and value < 0) or most > 0
    lengths = [int(ray @ ray) for ray in rays]
    for values, length in zip(z.tolist(), lengths, strict=True):
        for value, most in zip(values, found.bound.tolist(), strict=True):
            if most != np.inf:
                a, b = Fraction(value), Fraction(most)
                assert a * abs(a) <= b * abs(b) * length
    return found.verdict, found.strict, "active" if z.max() > 0 else "silent", z.max() < 0


@pytest.mark.parametrize("part", range(4))
def test_in_the_plane_everything_is_decided_as_brute_force_does(part):
    rng = np.random.default_rng(part)
    counts = {"silent": 0, "active": 0, True: 0, False: 0}
    for _ in range(400):
        size = rng.choice([2, 5, 40])
        first = rng.integers(-size, size + 1, (rng.integers(1, 7), 2))
        first[len(first) // 2 :] = first[: len(first) - len(first) // 2] * rng.choice([-2, -1, 1, 3])  # parallel neurons
        second = rng.integers(-4, 3, (rng.integers(1, 3), len(first)))
        verdict, strict, truth, below = check(first, second)
        assert (verdict, strict) == (truth, below)
        counts[verdict] += 1
        counts[strict] += 1
    assert min(counts.values()) >= 3


def test_in_space_what_is_decided_is_so_and_little_is_left_open():
    rng = np.random.default_rng(0)
    counts = {"silent": 0, "active": 0, "undecided": 0}
    strict = 0
    for _ in range(500):
        first = rng.integers(-2, 3, (rng.integers(1, 9), 3))
        first[len(first) // 2 :] = first[: len(first) - len(first) // 2] * rng.choice([-2, -1, 1])
        verdict, is_strict, *_ = check(first, rng.integers(-4, 2, (1, len(first))))
        counts[verdict] += 1
        strict += is_strict
    assert counts["silent"] > 100 < counts["active"] and counts["undecided"] <= 10 <= strict


def test_rounding_makes_nothing_active():
    """The second neuron is the first three times over and takes more than it gives: z0 = −½ relu(x − 13 y)."""
    found = silent_certificate(net([[1, -13], [3, -39], [13, 1]], [[1, -0.5, 0]], [[1], [0]]))
    assert found.verdict == "silent" and not found.strict
    # .1 · 3 is above .3 in floats: z0 = relu(3 a u) − 3 relu(a u) is 0 for the weights as they are, or just not
    for dim in (2, 3):
        rows = np.random.default_rng(0).normal(size=(4, dim))
        found = silent_certificate(net(np.vstack([rows, 4 * rows]), [[-4.0] * 4 + [1.0] * 4], [[1], [0]]))
        assert found.verdict == "silent" and found.bound == [0] and not found.strict


@pytest.mark.parametrize("thin", [1e-3, 1e-8, 1e-13])
def test_thin_cones_are_not_silent(thin):
    first, second = [TURN, -TURN, thin * AHEAD], [[-1, -1.3, 1]]
    found = silent_certificate(net(first, second, [[1], [0]]))
    value = exact(first, second, found.direction)[0]
    assert found.verdict == "active" and value > 0 and found.bound >= float(value)
    space = silent_certificate(net(np.hstack([first, [[0]] * 3]), second, [[1], [0]]))
    assert space.verdict != "silent" and not space.strict and space.bound >= float(value)
    pair = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, thin]])
    assert silent_certificate(net(pair, [[-1, -1, -1, -1, 1]], [[1], [0]])).verdict == "active"


@pytest.mark.parametrize("dim", [2, 3])
def test_what_nothing_pays_for_is_active(dim):
    axes = np.eye(dim)
    found = silent_certificate(net([axes[0], -axes[0], axes[1]], [[-1, -1, 1]], [[1], [0]]))
    assert found.verdict == "active" and found.ratio == [np.inf] and found.bound == pytest.approx([1])


@pytest.mark.parametrize("missed", [1e-3, 1e-6, 1e-9])
def test_what_is_missed_by_little_is_missed(missed):
    """The push points out of the plane that pays by a little: no γ fits, and the neuron is active that way."""
    first = np.array([[1, 0, missed], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    found = silent_certificate(net(first, [[1, -9, -9, -9, -9]], [[1], [0]]))
    assert found.ratio == [np.inf] and found.verdict != "silent" and found.bound >= missed


@pytest.mark.parametrize("dim", [3, 10])
@pytest.mark.parametrize(
    ("push", "verdict"), [(1 - 1e-9, "silent"), (1, "silent"), (1 + 1e-12, None), (1 + 1e-9, None), (1 + 1e-3, "active")]
)
def test_a_load_above_one_by_little_proves_nothing(push, verdict, dim):
    """z0 = push · relu(x1) − Σ |xi|; the ratio is all that counts, so weights of any size say the same."""
    for scale in (1e-60, 1.0, 1e60):
        first = scale * np.vstack([np.eye(dim), -np.eye(dim), np.eye(dim)[:1]])
        found = silent_certificate(net(first, [[-1.0] * (2 * dim) + [push]], [[1], [0]]))
        assert found.verdict in ([verdict] if verdict else ["active", "undecided"])
        assert found.strict == (push < 1) and found.bound >= (push - 1) * scale
        if found.direction is not None:
            assert max(exact(first, [[-1.0] * (2 * dim) + [push]], found.direction)) > 0


def test_strict_says_whether_the_last_biases_alone_decide():
    """Neurons that only push down: off between their cones, where z0 is 0, unless they span all directions positively."""
    for rows, strict in [([[1, 0, 0]], False), (np.eye(3), False), (np.vstack([np.eye(3), [[-1, -1, -1]]]), True)]:
        found = silent_certificate(net(rows, [[-1.0] * len(rows)], [[1], [0]]))
        assert (found.verdict, found.strict, found.ratio.max() <= 1) == ("silent", strict, True)
    dead = silent_certificate(net(np.zeros((2, 3)), [[1.0, -1]], [[1], [0]]))
    assert (dead.verdict, dead.strict, dead.bound) == ("silent", False, [0])


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_what_overflows_is_not_proved_wrong(scale):
    rng = np.random.default_rng(0)
    for dim, tilt in itertools.product((1, 2, 3), (0, 1)):
        first, second = rng.normal(size=(6, dim)), rng.normal(size=(2, 6)) - tilt
        found = silent_certificate(net(first * scale, second * scale, [[1, 1], [0, 0]]))
        assert found.verdict in ("undecided", silent_certificate(net(first, second, [[1, 1], [0, 0]])).verdict)
        assert dim == 3 or found.verdict != "undecided"
