"""A certificate that a network is silent in all directions, in any dimension."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from .network import Model, read_chain
from .proofs import whole_numbers

_EPS = np.finfo(np.float64).eps  # twice the relative rounding error of one operation: each bound below has that much to spare
_TINY = 1e-150  # added to sizes and lengths, it covers what products and squares lose below the smallest float
_FRACTIONS = 100_000  # products of fractions a neuron's proof may need: about 0.2 s


@dataclass(frozen=True, eq=False, repr=False)
class SilentCertificate:
    """What `silent_certificate` found out about the last hidden layer of f0, for all directions.

    verdict    "silent": every neuron is inactive, z0 <= 0, in every direction · "active": `direction` shows the contrary ·
               "undecided"
    ratio      [width] an upper bound, at least 0, of the share of a neuron's negative part that its positive part can use up,
               with a rounding of 1e-12: below 1 the neuron is inactive. Only a quick bound where an active direction was found
    bound      [width] an upper bound of z0 at directions of length 1, rounded upwards: "silent" has none above 0
    direction  [d] of length 1 with an active neuron, or None
    strict     True: every bound is below 0, so that z0 < 0 in every direction, and far away the answer is that of the last
               biases. False: not proved; where z0 = 0 the biases of the layers before decide, too
    """

    verdict: str
    ratio: np.ndarray
    bound: np.ndarray
    direction: np.ndarray | None
    strict: bool

    def __repr__(self):
        return f"SilentCertificate({self.verdict!r}, largest ratio {self.ratio.max():.3f}, largest bound {self.bound.max():.3g})"


def silent_certificate(network: Model) -> SilentCertificate:
    """Are all directions silent, not only sampled ones? A `SilentCertificate` for two hidden layers of ReLU, any d.

    The proof is a triangle inequality. A neuron of the second hidden layer of f0 sees the first through weights w_i:
    z0(u) = Σ_i w_i relu(v_i·u) = ½ (Σ_i w_i v_i)·u + ½ Σ_i w_i |v_i·u|. Let P be the neurons with w_i > 0 and N those with
    w_k < 0, and g the vectors that push up: w_i v_i for i in P, and Σ_i w_i v_i. If each is written with those of N,
    g = Σ_k γ_gk v_k, then |g·u| ≤ Σ_k |γ_gk| |v_k·u|, so

        z0(u) ≤ ½ Σ_k (Σ_g |γ_gk| − |w_k|) |v_k·u| ≤ ½ (ratio − 1) Σ_k |w_k| |v_k·u|,    ratio = max_k Σ_g |γ_gk| / |w_k|,

    and a ratio of at most 1 makes z0 ≤ 0 for every u, however many dimensions there are. Any γ is a proof; good ones come from
    weighted least squares, and where those do not suffice from a linear programme, which finds the smallest ratio. (In geometry:
    z0 ≤ 0 says that one zonotope lies in another, and the programme is the test of Sadraddini and Tedrake 2019 for that.)

    No verdict rests on rounding: what γ misses of g, and every sum, is rounded upwards, and a ratio of just 1 is proved in
    fractions, which takes a small network; z0(u) > 0 is computed exactly. In up to two dimensions z0 is looked at, exactly where
    it has to be, along the rays between which it is linear.

    The smallest ratio may be above 1 for a silent neuron: then the verdict is "undecided", unless a search that climbs z0 from
    many directions finds an active one. It may miss, or be unable to write in floats, cones of them that are very thin.
    Raises ValueError for a network that is not an nn.Sequential of Linear, ReLU, Linear, ReLU, Linear.
    """
    layers = read_chain(network)
    if layers.leaks != [0.0, 0.0]:
        raise ValueError(f"network must have two hidden layers of ReLU; it has the slopes {layers.leaks} below zero")
    first, second = layers.weights[:2]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if first.shape[1] <= 2:
            top, direction = _along_rays(first, second)
        else:
            top, direction = np.full(len(second), math.inf), _active_direction(first, second)
        ratio, bound = np.array([_proof(first, w, exact=direction is None) for w in second]).T
    bound = np.fmin(bound, top)
    verdict = "active" if direction is not None else "silent" if (bound <= 0).all() else "undecided"
    return SilentCertificate(verdict, ratio, bound, direction, bool((bound < 0).all()))


def _proof(first, w, exact):
    """The ratio and the bound of one neuron with weights w [n] on the first layer [n, d]: quick ones, or if `exact` good ones."""
    (first, a), (w, b) = _near_one(first), _near_one(w)  # what solvers tolerate is not relative
    n, d = first.shape
    negative, positive = (w < 0) & first.any(axis=1), (w > 0) & first.any(axis=1)
    rows, price = first[negative], -w[negative]
    most = (w[positive] @ np.linalg.norm(first[positive], axis=1) + _TINY) * (1 + _EPS * (n + d + 8)) if positive.any() else 0.0
    up = np.vstack([w[positive, None] * first[positive], w @ first])
    off = _EPS * (n + 8) * (np.vstack([np.abs(up[:-1]), np.abs(w) @ np.abs(first)]) + _TINY)  # how far rounding moved `up`
    if not len(rows) or not np.isfinite(up).all():
        return (math.inf if positive.any() else 0.0), _scaled_up(most, a + b)
    shares = _least_squares(rows, price, up, rounds=40 if exact else 1)
    ratio, bound = _proved(rows, price, up, off, shares)
    if exact and 1 <= ratio < math.inf:
        shares = _programme(rows, price, up)
        ratio, bound = np.minimum((ratio, bound), _proved(rows, price, up, off, shares))
    if exact and 0 < min(bound, most) and ratio < 1 + 1e-6 and _proved_in_fractions(first, w, shares):
        ratio, bound = min(ratio, 1.0), 0.0
    if not positive.any():
        ratio = min(ratio, 1.0)  # what is never pushed up cannot be above 0: γ = w is the proof
    return ratio, _scaled_up(min(bound, most), a + b)


def _near_one(values):
    """Values over a power of two so that the largest is about 1, and its exponent; as they are where that would round."""
    exponent = int(np.frexp(np.abs(values).max())[1])
    scaled = np.ldexp(values, -exponent)
    return (scaled, exponent) if (np.ldexp(scaled, exponent) == values).all() else (values, 0)


def _scaled_up(bound, exponent):
    """bound · 2^exponent, rounded upwards where that underflows."""
    return np.nextafter(np.ldexp(bound, exponent), np.inf) if bound else 0.0


def _proved(rows, price, up, off, shares):
    """Ratio and bound that γ = shares [m, n] proves for up [m, d] ± off; a ratio of ∞ if γ · rows [n, d] is not up.

    No solver is believed. z0(u) ≤ ½ (Σ_k (Σ_g |γ_gk| − |w_k|) |v_k·u| + Σ_g |g − Σ_k γ_gk v_k|), and where the bracket is
    negative |v_k·u| ≥ (v_k·u)² / |v_k|, whose sum is at least the smallest eigenvalue of Σ_k (…) v_k v_kᵀ / |v_k|.
    """
    shares = shares + _solve(rows.T, (up - shares @ rows).T).T
    gamma = _EPS * (sum(shares.shape) + rows.shape[1] + 8)
    use = np.abs(shares).sum(axis=0)
    missed = np.abs(up - shares @ rows)
    fits = (missed <= 1e-12 * np.abs(up).max(axis=1, keepdims=True)).all()
    missed += off + gamma * (np.abs(shares) @ np.abs(rows) + np.abs(up) + _TINY)
    spare = price - use - gamma * (price + use)
    length = np.linalg.norm(rows, axis=1) * (1 + gamma) + _TINY
    above = np.maximum(-spare, 0) @ length + (np.linalg.norm(missed, axis=1) + _TINY).sum()
    below = _least_eigenvalue(rows, np.maximum(spare, 0) / length)
    ratio = (use / price).max() * (1 + gamma) if fits else math.inf
    return ratio, (above * (1 + gamma) - below * (1 - gamma)) / 2 * (1 if above <= below else 1 + gamma)


def _least_eigenvalue(rows, weights):
    """A number at least 0 and not above the smallest eigenvalue of Σ_k weights_k v_k v_kᵀ, v_k the rows [n, d].

    M = Q Λ Qᵀ + R has none below (1 − |QᵀQ − 1|) min Λ − |R|, whatever numbers Q and Λ are.
    """
    n, d = rows.shape
    weighted = rows * weights[:, None]
    matrix = rows.T @ weighted
    if not np.isfinite(matrix).all():
        return 0.0
    values, q = np.linalg.eigh(matrix)
    sizes = (np.abs(q) * np.abs(values)) @ np.abs(q.T)
    rest = np.abs(matrix - (q * values) @ q.T)
    rest += _EPS * (n + d + 8) * (np.abs(rows).T @ np.abs(weighted) + sizes + _TINY)
    skew = np.abs(q.T @ q - np.eye(d)) + _EPS * (d + 8) * (np.abs(q.T) @ np.abs(q))
    return max(0.0, values[0] * (1 - 2 * np.linalg.norm(skew)) - 2 * np.linalg.norm(rest))


def _proved_in_fractions(first, w, shares):
    """Whether a γ near shares [m, n] proves z0 <= 0 exactly: a simple one, mended. False where that takes too long."""
    d = first.shape[1]
    m, k = shares.shape
    if k * m * d > _FRACTIONS or d * d * (k + m) > _FRACTIONS or not np.isfinite(shares).all():
        return False
    v, w = _fractions(first), _fractions(w)
    rows = [row for row, weight in zip(v, w, strict=True) if weight < 0 and any(row)]
    price = [-weight for row, weight in zip(v, w, strict=True) if weight < 0 and any(row)]
    up = [[weight * x for x in row] for row, weight in zip(v, w, strict=True) if weight > 0 and any(row)]
    up.append([sum(weight * x for weight, x in zip(w, column, strict=True)) for column in zip(*v, strict=True)])
    gamma = [[_simple(share) for share in line] for line in shares]
    missed = [
        [x - sum(a * b for a, b in zip(line, column, strict=True)) for x, column in zip(g, zip(*rows, strict=True), strict=True)]
        for g, line in zip(up, gamma, strict=True)
    ]
    if any(map(any, missed)):
        order = np.argsort(np.abs(shares).sum(axis=0) / np.array(price, dtype=float))  # who has most to spare mends
        mended = _solve_exactly([rows[i] for i in order], missed)
        if mended is None:
            return False
        for line, more in zip(gamma, mended, strict=True):
            for i, x in zip(order, more, strict=True):
                line[i] += x
    return all(sum(map(abs, used)) <= most for used, most in zip(zip(*gamma, strict=True), price, strict=True))


def _fractions(values):
    return [_fractions(v) for v in values] if np.ndim(values) else Fraction(float(values))


def _simple(share):
    """The float, or the fraction with a small denominator that it may be the rounding of."""
    simple = Fraction(share).limit_denominator(1000)
    return simple if abs(simple - Fraction(share)) < 1e-9 else Fraction(share)


def _solve_exactly(rows, right):
    """Fractions x [m, n] with x · rows = right, [n, d] and [m, d]: the first rows are used where several could be; or None."""
    n = len(rows)
    table = [list(column) for column in zip(*rows, *right, strict=True)]  # d equations, one column per unknown and right side
    pivots = []
    for column in range(n):
        done = len(pivots)
        chosen = next((i for i in range(done, len(table)) if table[i][column]), None)
        if chosen is None:
            continue
        table[done], table[chosen] = table[chosen], table[done]
        table[done] = [x / table[done][column] for x in table[done]]
        for i, line in enumerate(table):
            if i != done and line[column]:
                table[i] = [x - line[column] * y for x, y in zip(line, table[done], strict=True)]
        pivots.append(column)
    if any(x for line in table[len(pivots) :] for x in line[n:]):
        return None
    solution = [[Fraction(0)] * n for _ in right]
    for line, column in zip(table, pivots, strict=False):
        for x, value in zip(solution, line[n:], strict=True):
            x[column] = value
    return solution


def _least_squares(rows, price, up, rounds):
    """γ = g (VᵀDV)⁻¹ VᵀD, V the rows and D weights that favour, round by round, the neurons with weight to spare."""
    weights, best, least = price, None, math.inf
    for _ in range(rounds):
        root = np.sqrt(weights)[:, None]
        shares = (root * _solve((root * rows).T, up.T)).T
        use = np.abs(shares).sum(axis=0) / price
        if use.max() < least:
            best, least = shares, use.max()
        if least == 0:
            break  # nothing pushes up, or not along the rows
        favour = np.sqrt(use.max() / np.maximum(use, 1e-6 * use.max()))
        weights = np.clip(weights * favour, 1e-4 * price, 1e4 * price)
    return best


def _programme(rows, price, up):
    """γ with the smallest ratio: minimise it over γ = a − b, a and b at least 0, with γV = g and Σ_g (a + b) <= ratio · price."""
    (n, d), m = rows.shape, len(up)
    fit = sparse.kron(sparse.eye(m), rows.T)
    sums = sparse.hstack([sparse.eye(n)] * (2 * m))
    equal = sparse.hstack([fit, -fit, sparse.csr_matrix((m * d, 1))])
    least = sparse.hstack([sums, -price[:, None]])
    cost = np.append(np.zeros(2 * m * n), 1.0)
    found = linprog(cost, A_ub=least, b_ub=np.zeros(n), A_eq=equal, b_eq=up.ravel(), method="highs")
    pairs = np.zeros(2 * m * n) if found.x is None else found.x[:-1]
    return (pairs[: m * n] - pairs[m * n :]).reshape(m, n)


def _solve(matrix, right):
    return np.linalg.lstsq(matrix, right, rcond=None)[0]


def _active_direction(first, second, starts=20, steps=60):
    """A direction of length 1 in which some z0 is positive, or None if climbing finds none. second [m, n]."""
    u = np.vstack([first, np.eye(first.shape[1])])
    u = u[u.any(axis=1)] / np.linalg.norm(u[u.any(axis=1)], axis=1, keepdims=True)
    u = np.vstack([u, -u])
    z = np.maximum(u @ first.T, 0) @ second.T
    u = u[np.argsort(-z, axis=0)[:starts].T]  # [m, starts, d]: the best of the first layer's own directions and the axes
    for step in np.geomspace(0.5, 0.005, steps):
        up = (second[:, None] * (u @ first.T > 0)) @ first
        u = u + step * up / np.maximum(np.linalg.norm(up, axis=2, keepdims=True), 1e-300)
        u = u / np.linalg.norm(u, axis=2, keepdims=True)
        h = np.maximum(u @ first.T, 0)
        z = (h * second[:, None]).sum(axis=2)
        sure = z / ((np.abs(u) @ np.abs(first).T) * np.abs(second[:, None])).sum(axis=2)
        best = np.unravel_index(np.nan_to_num(sure, nan=-1).argmax(), sure.shape)
        if z[best] > 0 and _is_active(first, second, u[best]):
            return u[best]
    return None


def _signs(first, second, u):
    """z0 [..., m] at directions u [..., d], exactly, but for a power of two."""
    h = whole_numbers(u) @ whole_numbers(first).T
    return np.where(h > 0, h, 0) @ whole_numbers(second).T


def _is_active(first, second, u):
    return np.isfinite(u).all() and bool((_signs(first, second, u) > 0).any())


def _along_rays(first, second):
    """The largest that each z0 [m] can be at directions of length 1, and one with a positive z0 or None, for d of 1 or 2.

    z0 is linear between neighbours of the rays on which a neuron switches, its rows and the axes, so its sign is known from
    theirs. They are at most 90° apart: between two of length 1, z0 is at most √2 times the larger value, once if that is not
    positive.
    """
    turned = first[:, ::-1] * [-1, 1] if first.shape[1] == 2 else first
    rays = np.vstack([turned, first, np.eye(first.shape[1])])
    rays = rays[rays.any(axis=1)]
    rays = np.vstack([rays, -rays])
    unit = rays / np.abs(rays).max(axis=1, keepdims=True)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    z = np.maximum(unit @ first.T, 0) @ second.T
    noise = 2 * _EPS * (len(first) + 8) * ((np.abs(unit) @ np.abs(first).T + _TINY) @ np.abs(second).T + _TINY)
    top, sign = z + noise, np.sign(z)
    doubtful = ~(np.abs(z) > noise)
    if (some := doubtful.any(axis=1)).any():
        sign[some] = np.sign(_signs(first, second, rays[some])).astype(float)
        top[doubtful & (sign == 0)] = 0
        top[doubtful & (sign < 0)] = -5e-324  # below 0, no more is known
    active = sign.max(axis=1) > 0
    top = top.max(axis=0)
    top = np.where((sign > 0).any(axis=0), math.sqrt(2) * (1 + 4 * _EPS) * top, np.where(top <= 0, top, math.inf))
    for ray in unit[active][np.argsort(-(z / noise).max(axis=1)[active])[:20]]:
        for stretch in range(-8, 9):  # each rounds to another direction: the cone may be as thin as the gaps between floats
            u = ray * (1 + stretch * _EPS)
            if _is_active(first, second, u):
                return top, u
    return top, None
