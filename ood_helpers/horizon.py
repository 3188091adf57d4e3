"""Training at infinity: losses on f0, what a network is infinitely far away.

Far out in direction u a ReLU network grows like f(αu)/α → f0(u), the same network with every bias set to 0: scale the input by
α and every bias by 1/α, and f scales by α (LeakyReLU too). So k* of direction u is argmax f0(u), and a loss on f0 at random
directions trains infinity itself. `polytopes.infinity` then says what has become of all directions in the plane, not only the
sampled ones; `silent_certificate` says in any dimension whether all of them are silent.

A network here is an nn.Sequential (Linear, ReLU, …, Linear), or a `models.Stack` of E of them. Directions are u [n, d], the
same for every network of a stack; losses are means over the directions: a number, or [E] for a stack.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import nn

from ood_helpers import polytopes
from ood_helpers.losses import cross_entropy
from ood_helpers.models import Stack, check_whole

ROUNDING = 1e-9  # a load this little above 1 counts as 1: solvers and sums round


def unit_directions(n, dim, *, generator):
    """n random directions [n, dim] of length 1, uniform on the sphere."""
    check_whole("n", n, 1)
    check_whole("dim", dim, 1)
    return nn.functional.normalize(torch.randn(n, dim, generator=generator), dim=1)


def f0(network, u):
    """The logits at infinity, those of the network without its biases: [n, K] at directions u [n, d]; [E, n, K] for a stack.

    f0(αu) = α f0(u) for α > 0: only its direction matters for who wins. Gradients reach the weights, never the biases.
    Raises ValueError for layers that are not Linear, ReLU or LeakyReLU in turn, and for u that is not a float tensor [n, d].
    """
    return _pre_activations(*_without_biases(network), u)[-1]


def far_field_loss(network, u, radius=10.0):
    """Cross-entropy of f0(radius · u) towards the last class, reject: 0 where reject wins far beyond rounding in every u.

    "Reject wins in every direction" is a strict inequality on the whole sphere, so it survives small changes of the weights.
    u       unit directions [n, d], any d
    radius  positive: how soon a direction counts as won, at a lead of the reject slope of a few times 1/radius
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be a positive number; got {radius}")
    logits = radius * f0(network, u)
    if logits.shape[-1] < 2:
        raise ValueError("network must have at least 2 outputs, the last of them reject; got 1")
    return cross_entropy(logits, torch.full(logits.shape[-2:-1], logits.shape[-1] - 1))


def slope_spread_loss(network, u):
    """Mean squared spread of the slopes: the mean of (1/K) Σ_k (f0_k(u) − mean over the classes)² over directions u [n, d].

    0 only where all classes tie in each u, so that the confidence stays at the softmax of what is left of the biases. Descent
    makes slopes small, not 0: slopes that cancel are a coincidence, and the gradient fades with the spread. The confidence then
    still goes to 1, only further out. For exact ties see `silent_horizon_loss`.
    """
    return f0(network, u).var(-1, correction=0).mean(-1)


def silent_horizon_loss(network, u, margin=0.1):
    """The mean of Σ_j relu(z0_j(u) + margin) over directions u [n, d], z0 the pre-activations of f0's last hidden layer.

    It is 0 exactly where that whole layer is inactive with `margin` to spare, and then every slope is exactly 0: a tie that
    survives small changes of the weights. Its gradient does not fade on the way. With two or more hidden layers it can be 0 in
    all directions. With one it cannot: a neuron with weights w ≠ 0 is active at u = w. (Its neurons can still cancel, as in
    relu(x + 1) − relu(x − 1), and all classes tie; but such a tie does not survive small changes.)

    margin  positive, in units of z0 at length 1
    Raises ValueError unless the activation of the last hidden layer is ReLU: a LeakyReLU is never silent.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be a positive number; got {margin}")
    weights, activations = _without_biases(network)
    if not (activations and isinstance(activations[-1], nn.ReLU)):
        got = activations[-1] if activations else "no hidden layer"
        raise ValueError(f"network must have a last hidden layer of ReLU, which can be silent; got {got}")
    return (_pre_activations(weights, activations, u)[-2] + margin).relu().sum(-1).mean(-1)


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
    read = polytopes.network.read(network)
    if read.leaks != [0.0, 0.0]:
        raise ValueError(f"network must have two hidden layers of ReLU; it has the slopes {read.leaks} below zero")
    first, second = read.weights[:2]
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


def _without_biases(network):
    """The weights of each Linear, [inputs, outputs] or [E, inputs, outputs] for a stack, and the activations between them."""
    if isinstance(network, Stack):
        weights, activations = network.weights, network.activations
    elif isinstance(network, nn.Sequential) and len(network) % 2 == 1:
        for i, layer in enumerate(network[::2]):
            if not isinstance(layer, nn.Linear):
                raise ValueError(f"network, layer {2 * i} ({type(layer).__name__}): expected Linear, ReLU, …, Linear")
        weights, activations = [layer.weight.T for layer in network[::2]], list(network[1::2])
    else:
        raise ValueError(f"network must be a Stack or an nn.Sequential (Linear, ReLU, …, Linear); got {type(network).__name__}")
    for i, activation in enumerate(activations):
        if not isinstance(activation, (nn.ReLU, nn.LeakyReLU)):
            raise ValueError(
                f"network, layer {2 * i + 1} ({type(activation).__name__}): must be ReLU or LeakyReLU; "
                "with another activation the network far away is not the network without its biases"
            )
    return weights, activations


def _pre_activations(weights, activations, u):
    """The pre-activations [..., n, outputs] of every layer without its biases, at u [n, d]; the last are the logits."""
    dim = weights[0].shape[-2]
    if not (isinstance(u, torch.Tensor) and u.is_floating_point() and u.dim() == 2 and u.shape[1] == dim):
        got = f"{u.dtype} {list(u.shape)}" if isinstance(u, torch.Tensor) else type(u).__name__
        raise ValueError(f"u must be a float tensor of shape [n, {dim}], one direction per row; got {got}")
    z = [u.to(weights[0].dtype) @ weights[0]]
    for weight, activation in zip(weights[1:], activations, strict=True):
        z.append(activation(z[-1]) @ weight)
    return z
