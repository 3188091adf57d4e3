"""The polytope around one point, in any dimension: does it ever end?"""

from fractions import Fraction

import numpy as np
from scipy.optimize import linprog

from .exact import whole_numbers
from .network import read, vector

EPS = np.finfo(np.float64).eps  # twice the relative rounding error of one operation
BRANCHES = 200  # signs of neurons that are 0 at x are tried in at most so many ways
LARGEST = 12  # dimensions in which a cone without interior is looked at in fractions


def escape(model, x):
    """A direction in which the polytope around x never ends, a unit vector [d]; None if the polytope is bounded.

    On the polytope of x every neuron keeps its sign s_j, and z_j(x + v) = z_j(x) + a_j·v. So it never ends along v exactly
    where s_j a_j·v >= 0 for all neurons j. For a point on kinks any of the polytopes around it will do, so that None says that
    all of them are bounded: neurons that are 0 at x take the sign that v gives them, layer by layer.

    A linear programme looks for the v that stays farthest from all kinks, and it is checked without rounding; where the cone
    of such v has no interior, v is the float next to one that was found and checked in fractions. "None" is proved by weights
    y > 0 with Σ_j y_j s_j a_j = 0 (Stiemke's lemma), with room for rounding. ArithmeticError where neither can be shown.
    Cost: 0.1 s for 256 neurons and 64 inputs. Raises ValueError as `read` does, or unless x is [d].
    """
    network = read(model)
    x = vector(x, "x", network.in_dim)
    layers = [
        (whole_numbers(np.block([[weight, bias[:, None]], [np.zeros(weight.shape[1]), 1]])), whole_numbers(np.array([leak, 1.0])))
        for weight, bias, leak in zip(network.weights, network.biases, network.leaks, strict=False)  # the logits have no kinks
    ]
    at_x = _signs(layers, whole_numbers(np.append(x, 1)))
    undecided, branches = False, [{}]
    for _ in range(BRANCHES):
        if not branches:
            break
        chosen = branches.pop()
        rows, noise, fork, gates = _rows(network, at_x, chosen)
        v = _farthest(rows)
        if _never_ends(layers, at_x, v):
            return v
        if _proved_bounded(rows, noise):
            continue
        if (found := _past_a_gate(gates)) is not None:
            return found
        if fork is not None:
            branches += [{**chosen, fork: -1}, {**chosen, fork: 1}]
        elif (found := _on_the_rim(layers, at_x, rows, v, chosen)) is not None:
            return found
        else:
            undecided = True
    if undecided or branches:
        raise ArithmeticError(
            "whether the polytope around x ends is undecided: rounding, or too many kinks at x; move x a little"
        )
    return None


def _signs(layers, h, at_x=None):
    """Signs of all hidden neurons, one array per layer, at h = (x, 1); or, given those, of their changes along h = (v, 0)."""
    signs = []
    for i, (matrix, (leak, one)) in enumerate(layers):
        h = matrix @ h
        signs.append(np.sign(h[:-1]).astype(int))
        side = signs[i] if at_x is None else np.where(at_x[i] == 0, signs[i], at_x[i])
        h = np.append(np.where(side > 0, h[:-1] * one, h[:-1] * leak), h[-1:] * one)
    return signs


def _never_ends(layers, at_x, v):
    """Whether no neuron changes its sign along v, exactly. v holds floats, or whole numbers."""
    numbers = v if v.dtype == object else whole_numbers(v)
    along = _signs(layers, np.append(numbers, 0), at_x)
    return all((a * b >= 0).all() for a, b in zip(along, at_x, strict=True))


def _rows(network, at_x, chosen):
    """Rows s_j a_j [n, d] of length 1, how far rounding moved each, the first neuron (layer, j) without a sign or None, gates.

    Neurons behind one without a sign are left out: their slopes depend on it. Each layer before is a gate: the slopes of the
    neurons that pass something on, what rounding moved them, and the rows of all others up to that layer.
    """
    slopes, noise, fork = np.eye(network.in_dim), np.zeros((network.in_dim, network.in_dim)), None
    rows, noises, gates, before = [np.zeros((0, network.in_dim))], [np.zeros(0)], [], np.zeros((0, network.in_dim))
    for i, (weight, leak) in enumerate(zip(network.weights, network.leaks, strict=False)):
        noise = np.abs(weight) @ (noise * (1 + EPS) + EPS * (weight.shape[1] + 8) * (np.abs(slopes) + 1e-290))
        slopes = weight @ slopes
        if i == 0:
            noise = np.zeros_like(slopes)  # the slopes of the first layer are its weights
        side = at_x[i].copy()
        for j in np.flatnonzero(side == 0):
            if slopes[j].any() or noise[j].any():  # else it does not change with v, and has no say
                side[j] = chosen.get((i, j), 0)
                fork = (i, j) if side[j] == 0 and fork is None else fork
        rows.append(side[:, None] * slopes)
        noises.append(np.linalg.norm(noise, axis=1))
        if fork is not None:
            break
        scale = np.where(side > 0, 1, leak)[:, None]
        passing = (scale[:, 0] != 0) & (slopes.any(axis=1) | noise.any(axis=1))
        gates.append((slopes[passing], noises[i + 1][passing], np.vstack([before, rows[i + 1][~passing]])))
        before = np.vstack([before, rows[i + 1]])
        slopes, noise = scale * slopes, np.abs(scale) * noise
    rows, noises = np.concatenate(rows), np.concatenate(noises)
    length = np.linalg.norm(rows, axis=1)
    seen = length > 2 * noises  # the others may be 0
    return rows[seen] / length[seen, None], noises[seen] / length[seen] + EPS * (network.in_dim + 8), fork, gates


def _farthest(rows):
    """The unit vector v whose least product with the rows [n, d] is largest."""
    n, d = rows.shape
    cost = np.append(np.zeros(d), -1.0)
    bounds = [(-1, 1)] * d + [(0, 1)]
    tight = np.hstack([-rows, np.ones((n, 1))])
    found = linprog(cost, A_ub=tight, b_ub=np.zeros(n), bounds=bounds, method="highs") if n else None
    if found is not None and found.x is not None and found.x[-1] > 0:
        v = found.x[:-1]
    else:  # no interior: the largest sum of products, or where that is 0 a direction that changes none
        found = linprog(-rows.sum(axis=0), A_ub=-rows, b_ub=np.zeros(n), bounds=(-1, 1), method="highs")
        v = found.x if n and found.x is not None and np.abs(rows @ found.x).max() > 1e-6 else np.linalg.svd(rows)[2][-1]
    return v / np.linalg.norm(v) if v.any() else np.eye(d)[0]


def _past_a_gate(gates):
    """A unit vector that does not change a layer's output, so nothing behind it, and keeps the other signs; or None.

    Such a v is orthogonal to the slopes that are passed on; it exists next to the float v if these are independent, and the
    others leave it more room than it has to move.
    """
    for slopes, noise, others in gates:
        if len(slopes) >= slopes.shape[1]:
            continue
        length = np.linalg.norm(slopes, axis=1)
        if (length <= 2 * noise).any():
            continue
        slopes, noise = slopes / length[:, None], noise / length
        _, sizes, axes = np.linalg.svd(slopes)
        least = sizes.min(initial=1) - np.linalg.norm(noise)
        others = others[others.any(axis=1)]
        others = others / np.linalg.norm(others, axis=1, keepdims=True)
        free = axes[len(slopes) :]
        v = _farthest(others @ free.T) @ free
        moved = np.linalg.norm(slopes @ v) + np.linalg.norm(noise) + EPS * len(v) ** 2
        if least > 0 and (others @ v).min(initial=1) > 2 * moved / least + 1e-9:  # more than rounding moved the others
            return v / np.linalg.norm(v)
    return None


def _proved_bounded(rows, noise):
    """Whether v = 0 alone has rows · v >= 0, however the rows [n, d] are moved by up to noise [n]."""
    n, d = rows.shape
    if n <= d:
        return False
    least = np.linalg.svd(rows, compute_uv=False)[-1] - np.linalg.norm(noise) - EPS * n * d
    found = linprog(np.ones(n), A_eq=rows.T, b_eq=np.zeros(d), bounds=(1, None), method="highs")
    if found.x is None or least <= 0:
        return False
    y = found.x - np.linalg.lstsq(rows.T, rows.T @ found.x, rcond=None)[0]
    left = np.linalg.norm(rows.T @ y) + (noise + EPS * (n + 8)) @ np.abs(y)
    return y.min() > 0 and left < least * y.min() / 2  # y − R (RᵀR)⁻¹ Rᵀy, of the rows R as they are, is above 0


def _on_the_rim(layers, at_x, rows, v, chosen):
    """v moved so that the neurons it hardly changes do not change at all; None unless it then never ends, exactly."""
    d = len(v)
    if d > LARGEST or len(rows) == 0:
        return None
    h, table = np.vstack([np.array([[int(i == j) for j in range(d)] for i in range(d)], dtype=object), [[0] * d]]), []
    for i, (matrix, (leak, one)) in enumerate(layers):
        h = matrix @ h
        side = np.array([s or chosen.get((i, j), 0) for j, s in enumerate(at_x[i])])
        for line in h[:-1]:
            size = float(max(map(abs, line)))
            if size and abs(np.array([float(Fraction(a) / Fraction(size)) for a in line]) @ v) < 1e-9:
                table.append([Fraction(a) for a in line])
        h = np.vstack([np.where(side[:, None] > 0, h[:-1] * one, h[:-1] * leak), h[-1:] * one])
    solution, pivots = [Fraction(float(a)) for a in v], []
    for line in table:  # elimination; pivots are taken where v is small, so that the others can stay as they are
        for column, other in pivots:
            line = [a - line[column] * b for a, b in zip(line, other, strict=True)]
        if any(line):
            column = max(range(d), key=lambda c: abs(line[c]))
            line = [a / line[column] for a in line]
            pivots = [(c, [a - o[column] * b for a, b in zip(o, line, strict=True)]) for c, o in pivots] + [(column, line)]
    fixed = {column for column, _ in pivots}
    for column, line in pivots:
        solution[column] = -sum(line[c] * solution[c] for c in range(d) if c not in fixed)
    common = np.lcm.reduce(np.array([a.denominator for a in solution], dtype=object))
    numbers = np.array([int(a * common) for a in solution], dtype=object)
    if not numbers.any() or not _never_ends(layers, at_x, numbers):
        return None
    found = np.array([float(a) for a in solution])
    return found / np.linalg.norm(found)
