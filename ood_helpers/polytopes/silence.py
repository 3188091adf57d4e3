"""A certificate that a network is silent in all directions, in any dimension."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from .network import read

ROUNDING = 1e-9  # a load this little above 1 counts as 1: solvers and sums round


@dataclass(frozen=True, eq=False, repr=False)
class SilentCertificate:
    """What `silent_certificate` found out about the last hidden layer of f0, for all directions.

    verdict    "silent": every neuron is inactive in every direction · "active": `direction` shows the contrary · "undecided"
    load       [width] an upper bound, at least 0, of the share of a neuron's negative part that its positive part can use up:
               up to 1 it is inactive in all directions. Only a quick bound where an active direction was found
    bound      [width] an upper bound of z0 at directions of length 1; below 0 where the load is below 1
    direction  [d] of length 1 with an active neuron, or None
    """

    verdict: str
    load: np.ndarray
    bound: np.ndarray
    direction: np.ndarray | None

    def __repr__(self):
        return f"SilentCertificate({self.verdict!r}, largest load {self.load.max():.3f})"


def silent_certificate(network):
    """Are all directions silent, not only sampled ones? A `SilentCertificate` for two hidden layers of ReLU, any d.

    The proof is a triangle inequality. A neuron of the second hidden layer of f0 sees the first through weights w_i:
    z0(u) = Σ_i w_i relu(v_i·u) = ½ (Σ_i w_i v_i)·u + ½ Σ_i w_i |v_i·u|. Let P be the neurons with w_i > 0 and N those with
    w_k < 0, and g the vectors that push up: w_i v_i for i in P, and Σ_i w_i v_i. If each is written with those of N,
    g = Σ_k γ_gk v_k, then |g·u| ≤ Σ_k |γ_gk| |v_k·u|, so

        z0(u) ≤ ½ Σ_k (Σ_g |γ_gk| − |w_k|) |v_k·u| ≤ ½ (load − 1) Σ_k |w_k| |v_k·u|,    load = max_k Σ_g |γ_gk| / |w_k|,

    and a load of at most 1 makes z0 ≤ 0 for every u, however many dimensions there are. Any γ is a proof; good ones come from
    weighted least squares, and where those do not suffice from a linear programme, which finds the smallest load. (In geometry:
    z0 ≤ 0 says that one zonotope lies in another, and the programme is the test of Sadraddini and Tedrake 2019 for that.)

    The smallest load may be above 1 for a silent neuron: then the verdict is "undecided", unless a search that climbs z0 from
    many directions finds an active one. A silent verdict holds up to a relative rounding of 1e-9, an active one exactly.
    Raises ValueError for a network that is not an nn.Sequential of Linear, ReLU, Linear, ReLU, Linear.
    """
    layers = read(network)
    if layers.leaks != [0.0, 0.0]:
        raise ValueError(f"network must have two hidden layers of ReLU; it has the slopes {layers.leaks} below zero")
    first, second = layers.weights[:2]
    direction = _active_direction(first, second)
    loads = [_load(first, w, exact=direction is None) for w in second]
    load = np.array(loads)
    bound = np.array([_bound(first, w, share) for w, share in zip(second, load, strict=True)])
    verdict = "active" if direction is not None else "silent" if load.max() <= 1 + ROUNDING else "undecided"
    return SilentCertificate(verdict, load, bound, direction)


def _load(first, w, exact):
    """The load of one neuron with weights w [n] on the first layer [n, d]: a quick one, or if `exact` one that may decide."""
    negative = (w < 0) & first.any(axis=1)
    rows, price = first[negative], -w[negative]
    up = np.vstack([w[w > 0, None] * first[w > 0], w @ first])
    up = up[up.any(axis=1)]
    if not len(up) or not len(rows):
        return math.inf if len(up) else 0.0
    load = _proved(rows, price, up, _least_squares(rows, price, up, rounds=40 if exact else 1))
    if not (w > 0).any():
        return min(load, 1.0)  # what is never pushed up cannot be above 0: γ = w is the proof
    return min(load, _proved(rows, price, up, _programme(rows, price, up))) if exact and 1 < load < math.inf else load


def _proved(rows, price, up, shares):
    """The load of γ = shares [m, n], made to fit up [m, d] = γ · rows [n, d]; ∞ if that cannot be. No solver is believed."""
    shares = shares + _solve(rows.T, (up - shares @ rows).T).T
    fits = np.abs(up - shares @ rows).max() <= 1e-12 * np.abs(up).max()
    return (np.abs(shares).sum(axis=0) / price).max() if fits else math.inf


def _least_squares(rows, price, up, rounds):
    """γ = g (VᵀDV)⁻¹ VᵀD, V the rows and D weights that favour, round by round, the neurons with load to spare."""
    weights, best, least = price, None, math.inf
    for _ in range(rounds):
        root = np.sqrt(weights)[:, None]
        shares = (root * _solve((root * rows).T, up.T)).T
        use = np.abs(shares).sum(axis=0) / price
        if use.max() < least:
            best, least = shares, use.max()
        favour = np.sqrt(use.max() / np.maximum(use, 1e-6 * use.max()))
        weights = np.clip(weights * favour, 1e-4 * price, 1e4 * price)
    return best


def _programme(rows, price, up):
    """γ with the smallest load: minimise it over γ = a − b, a and b at least 0, with γV = g and Σ_g (a + b) <= load · price."""
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


def _bound(first, w, load):
    """The largest that ½ (load − 1) Σ_k |w_k| |v_k·u| can be, |u| = 1: for a load below 1 by |t| >= t² up to t = 1."""
    price, length = np.maximum(-w, 0), np.linalg.norm(first, axis=1)
    most = np.maximum(w, 0) @ length
    if load > 1:
        return most if load == math.inf else min(most, (load - 1) / 2 * (price @ length))
    unit = first / np.maximum(length, 1e-300)[:, None]
    return (load - 1) / 2 * np.linalg.eigvalsh(unit.T @ (unit * (price * length)[:, None]))[0]


def _active_direction(first, second, starts=20, steps=60):
    """A direction of length 1 in which some z0 is positive beyond rounding, or None if climbing finds none. second [m, n]."""
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
        over = z - 1e-12 * (h * np.abs(second[:, None])).sum(axis=2)
        if over.max() > 0:
            return u[np.unravel_index(over.argmax(), over.shape)]
    return None
