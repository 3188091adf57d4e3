"""The polytope around one point, in any dimension: does it ever end?"""

from fractions import Fraction

import numpy as np

from ood_helpers.arrays import Numbers

from .graph import Graph
from .graph_escape import conditions
from .network import Model, read, shape_of, vector
from .proofs import EPS, in_cone, inside, least_pull, whole_numbers

_ENTERED = 8  # random directions in which a point on kinks is left before the polytopes around it are gone through one by one
_CONES = 1000  # as many cones are looked at then: a few seconds


def escape(model: Model, x: Numbers) -> np.ndarray | None:
    """A direction in which a polytope around x never ends, a unit vector [d]; None if every polytope around x is bounded.

    On the polytope of x every neuron keeps its sign s_j, and z_j(x + v) = z_j(x) + a_j·v. So it never ends along v exactly
    where s_j a_j·v >= 0 for all neurons j. A point on kinks has several polytopes around it, those whose closure holds x: they
    differ in the signs of the neurons that are 0 at x. One of them that never ends is enough.

    Both answers are proved for the weights as they are: in floats where their rounding cannot matter, else in whole numbers.
    v lies inside the cone of all ways out; only where that cone is flat or too thin for floats v is the float next to one.
    Cost: 0.01 s for 256 neurons and 64 inputs, about 1 s for 3,000 neurons and 784 inputs.
    Raises ValueError as `read` does, or unless x is [d]; ArithmeticError where it is too large a question to be decided exactly.
    """
    network = read(model, shape_of(x))
    x = vector(x, "x", network)
    if isinstance(network, Graph):
        return _of_graph(network, x)
    unseen = ~np.any(network.weights[0], axis=0)
    if unseen.any() or not network.leaks:
        return np.eye(network.in_dim)[unseen.argmax()]  # an input that no neuron sees
    signs = _signs(network, x)
    if not any((sign == 0).any() for sign in _kinks(network, signs)):
        return _way_out(network, signs)
    undecided, random = None, np.random.default_rng(0)
    for u in random.integers(-(2**40), 2**40, (_ENTERED, network.in_dim)):  # a polytope that x is left into, by chance
        try:
            v = _way_out(network, _exact_signs(network, x, u))
        except ArithmeticError as error:
            undecided = error
        else:
            if v is not None:
                return v
    if undecided:
        raise undecided
    return _search(network, signs)


def _of_graph(graph, x):
    """v of `escape` where there are no matrices: decided in floats, or not at all."""
    rows, error, equal = conditions(graph, x)
    if not len(rows):
        return np.eye(graph.in_dim)[0]
    decided, v = _decide(rows, error, equal)
    if not decided:
        raise ArithmeticError(
            "undecided: rounding could change the answer, and for a network of this form there are no whole numbers"
        )
    return None if v is None else v / np.linalg.norm(v)


def _signs(network, x):
    """The sign of each hidden neuron at x, -1, 0 or 1: a list of arrays [width]."""
    h, error, signs = x, np.zeros(len(x)), []
    with np.errstate(all="ignore"):
        for weight, bias, leak in zip(network.weights, network.biases, network.leaks, strict=False):
            z, size = weight @ h + bias, np.abs(weight) @ np.abs(h) + np.abs(bias)
            error = np.abs(weight) @ error + (len(h) + 3) * EPS * size + 1e-300
            signs.append(np.sign(z).astype(int))
            if not (np.abs(z) > error).all() or not np.isfinite(z).all():
                return _exact_signs(network, x, np.zeros(len(x)))
            scale = np.where(z > 0, 1, leak)
            h, error = scale * z, np.abs(scale) * error + EPS * np.abs(z)
    return signs


def _exact_signs(network, x, u):
    """`_signs` without rounding; a neuron that is 0 at x gets the sign that it has just after leaving x along u."""
    start, way = whole_numbers(np.append(x, 1)), whole_numbers(np.append(u, 0).astype(np.float64))
    h, signs = np.stack([start, way], axis=1), []  # the last row is the common scale
    for weight, bias, leak in zip(network.weights, network.biases, network.leaks, strict=False):
        h = whole_numbers(np.block([[weight, bias[:, None]], [np.zeros(weight.shape[1]), 1]])) @ h
        sign = np.array([(z > 0) - (z < 0) or (t > 0) - (t < 0) for z, t in h[:-1]])
        signs.append(sign)
        h = h * _scales(np.append(sign, 1), leak)[:, None]
    return signs


def _scales(sign, leak):
    """The slopes of the neurons in whole numbers, all times the same: 1 above 0, `leak` below."""
    leak = Fraction(leak)
    return np.where(sign > 0, leak.denominator, leak.numerator).astype(object)


def _kinks(network, signs):
    """The signs with 1 for each neuron that sees only silent ones, and never changes."""
    seen, kinks = np.ones(network.in_dim, dtype=bool), []
    for weight, leak, sign in zip(network.weights, network.leaks, signs, strict=False):
        seen = (weight != 0) @ seen
        kinks.append(np.where(seen, sign, 1))
        seen = seen & ((sign >= 0) | (leak != 0))
    return kinks


def _way_out(network, signs):
    """v of `escape` for one polytope, that with these signs."""
    last = len(network.leaks)
    decided, v = _decide(*_rows(network, signs, 0, last))
    dead = last  # often the cone is flat: later layers forbid that a layer changes at all
    for layer in range(last - 2, -1, -1) if not decided else ():
        proved, way = _decide(*_rows(network, signs, layer + 1, dead))
        dead = layer if proved and way is None else dead
    if dead < last:
        decided, v = _decide(*_rows(network, signs, 0, dead))
    if not decided:
        v = in_cone(_exact_rows(network, signs), network.in_dim)
        v = None if v is None else (v / max(abs(v))).astype(np.float64)
    return None if v is None else v / np.linalg.norm(v)


def _rows(network, signs, start, dead):
    """The conditions s_j a_j·v >= 0 as unit rows [n, d], how far each can be from the right one [n], and which must be 0 [n].

    v is the change of the input, or for start > 0 that of the pre-activations of layer start − 1 that are passed on. Neurons
    that never change have no row. Those of layer `dead` that pass something on must not change, and no later layer counts.
    """
    slopes = np.eye(network.in_dim)
    rows, errors, equal = [np.zeros((0, len(slopes)))], [np.zeros(0)], [np.zeros(0, bool)]
    if start:
        sign, scale = signs[start - 1], _passes(signs[start - 1], network.leaks[start - 1])
        slopes = np.diag(scale)[:, scale != 0]
        rows = [np.diag(sign)[(scale != 0) & (sign != 0) & (network.leaks[start - 1] != 1)][:, scale != 0]]
        errors, equal = [np.zeros(len(rows[0]))], [np.zeros(len(rows[0]), bool)]
    error, seen = np.zeros(len(slopes)), slopes.any(axis=1)
    layers = list(zip(network.weights, network.leaks, signs, strict=False))
    with np.errstate(all="ignore"):
        for layer in range(start, min(dead + 1, len(layers))):
            weight, leak, sign = layers[layer]
            scale = _passes(sign, leak)
            error = np.abs(weight) @ (error + (sum(slopes.shape) + 9) * EPS * np.linalg.norm(slopes, axis=1))
            slopes, seen = weight @ slopes, (weight != 0) @ seen
            still = (layer == dead) & (scale != 0)
            asks = seen & (still | ((sign != 0) & (leak != 1)))
            length = np.linalg.norm(slopes[asks], axis=1)
            rows.append(np.where(sign[asks] < 0, -1, 1)[:, None] * slopes[asks] / length[:, None])
            errors.append(np.where((length > 1e-140) & (length < 1e140), error[asks] / length, np.inf) + 9 * EPS)
            equal.append(still[asks])
            slopes, error, seen = scale[:, None] * slopes, np.abs(scale) * error, seen & (scale != 0)
    return np.concatenate(rows), np.nan_to_num(np.concatenate(errors), nan=np.inf), np.concatenate(equal)


def _passes(sign, leak):
    """What each neuron passes on: 1 above 0, `leak` below, nothing where it stays at 0."""
    return np.where(sign == 0, float(leak == 1), np.where(sign > 0, 1.0, leak))


def _decide(rows, error, equal):
    """(True, v): rows @ v >= 0, and 0 where `equal`, for a v ≠ 0 · (True, None): for none · (False, None): floats cannot tell."""
    (n, d), slack = rows.shape, error + (rows.shape[1] + 3) * EPS
    if not error.max(initial=0) < 0.1:
        return False, None
    still, moving = rows[equal], rows[~equal]
    basis = np.linalg.svd(still)[2][len(still) :].T if len(still) else np.eye(d)  # all v that keep `still` at 0
    if not basis.shape[1]:
        v, y = None, np.zeros(len(moving))
    elif not len(moving):
        v, y = basis[:, 0], None
    else:
        v, y = _push(moving @ basis)
        v = None if v is None else basis @ v / np.linalg.norm(v)
    if v is not None:
        away = 0.0  # the v that keeps `still` exactly at 0 is at most this far away
        if len(still):
            away = np.linalg.norm(np.abs(still @ v) + slack[equal])
            least = least_pull(still.T, np.ones(d)) / d**0.5 - np.linalg.norm(slack[equal])  # of |c @ still|, |c| = 1
            away = 1.01 * away / least if least > 0 else np.inf
        return (True, v) if (moving @ v > 1.01 * (slack[~equal] + away)).all() else (False, None)
    if y is not None:  # Σ y_j a_j = 0 with y > 0 where it may move leaves no v ≠ 0 with all a_j·v >= 0
        price = np.ones(n)
        price[~equal] = y
        factor = price.copy()
        factor[equal] = np.linalg.lstsq(still.T, -(y @ moving), rcond=None)[0] if len(still) else 0
        rest = np.linalg.norm(factor @ rows) + np.abs(factor) @ (slack + n * EPS) + 4 * price @ slack
        return least_pull(rows, price) > 1.01 * rest, None
    return False, None


def _exact_rows(network, signs):
    """The same rows in whole numbers, each times something positive, as a list."""
    _check_size(network, len(network.leaks))
    slopes, rows = None, []
    for weight, leak, sign in zip(network.weights, network.leaks, signs, strict=False):
        slopes = whole_numbers(weight) if slopes is None else whole_numbers(weight) @ slopes
        rows += [s * row for s, row in zip(sign.tolist(), slopes, strict=True) if s and leak != 1 and row.any()]
        slopes = slopes * _scales(sign, leak)[:, None]
    return rows


def _check_size(network, layers):
    """Raises ArithmeticError where the slopes of so many layers would take minutes in whole numbers."""
    if sum(weight.size for weight in network.weights[1:layers]) * network.in_dim > 1e7:
        raise ArithmeticError("undecided: rounding could change the answer, and this network is too large for whole numbers")


def _push(rows, rounds=60):
    """(v, None) with rows @ v about >= 1, or (None, y) with y >= 0 and y @ rows about 0, or (None, None): floats, no proof.

    Newton's method for the smallest ½ Σ_j y_j², y = max(1 − rows @ v, 0), which is 0 or has the gradient y @ rows = 0.
    """
    v = rows.sum(axis=0)
    for _ in range(rounds):
        left = 1 - rows @ v
        y = np.maximum(left, 0)
        if y.max() < 0.5:
            return v, None
        if np.linalg.norm(y @ rows) < 1e-11 * y.sum():
            return None, y
        matrix = rows[y > 0].T @ rows[y > 0]
        step = np.linalg.solve(matrix + 1e-13 * np.trace(matrix) / len(v) * np.eye(len(v)), y @ rows)
        gain, low, high = rows @ step, 0.0, 1.0
        while gain @ np.maximum(left - high * gain, 0) > 0 and high < 1e9:
            low, high = high, 2 * high
        for _ in range(20):  # halving: the best length of the step lies between low and high
            middle = (low + high) / 2
            low, high = (middle, high) if gain @ np.maximum(left - middle * gain, 0) > 0 else (low, middle)
        v = v + high * step
    return None, None


def _search(network, signs):
    """v of `escape` at a point with neurons that are 0, from all polytopes around it, layer by layer, in whole numbers."""
    last = max(layer for layer, sign in enumerate(_kinks(network, signs)) if (sign == 0).any())
    _check_size(network, last + 1)
    undone, cones = [([], None, [])], 0  # the signs chosen so far, the slopes of what is passed on, the conditions of the kinks
    while undone:
        chosen, slopes, near = undone.pop()
        layer = len(chosen)
        if layer > last:
            v = _way_out(network, chosen + signs[layer:])
            if v is not None:
                return v
            continue
        rows = whole_numbers(network.weights[layer])
        rows = rows if slopes is None else rows @ slopes
        sides = [(signs[layer], near)]
        for j in np.flatnonzero((signs[layer] == 0) & rows.any(axis=1) & (network.leaks[layer] != 1)):
            grown = []
            for sign, near in sides:
                for s in (1, -1):
                    cones += 1
                    if cones > _CONES:
                        raise ArithmeticError("undecided: x lies on too many kinks to go through all polytopes around it")
                    if inside(np.array([*near, s * rows[j]]))[0] is not None:
                        grown.append((np.where(np.arange(len(sign)) == j, s, sign), [*near, s * rows[j]]))
            sides = grown
        undone += [([*chosen, sign], rows * _scales(sign, network.leaks[layer])[:, None], near) for sign, near in sides]
    return None
