"""How far from the data does a network have an opinion? A proven ball outside of which its answer is constant."""

import math
from typing import NamedTuple

import numpy as np
from scipy import sparse

from .network import Model, read_chain
from .proofs import EPS
from .silence import silent_certificate

_TINY = 1e-290  # covers what products lose below the smallest float
_SMALL = 3e6  # inputs · neurons · neurons up to which the slower proof by `silent_certificate` is tried


class Horizon(NamedTuple):
    """What `horizon_radius` proved.

    centre  [d] · radius  at least 0: at every x with Σ_k |x_k − centre_k| ≥ radius the logits are the same
    logits  [K] these: exactly the last biases where the last hidden layer falls silent; where an earlier one does, what the
            layers after it make of its constant values, computed in float64
    """

    centre: np.ndarray
    radius: float
    logits: np.ndarray


def horizon_radius(model: Model) -> Horizon:
    """A `Horizon`: the centre and l1 radius of a ball outside of which the network's answer is proved to be constant, any d.

    It reads the proof off the weights, whoever trained them: no neuron's role is taken for granted. With t = x − c, bounds on all
    neurons of a layer are kept as

        G_i + Σ_k (L⁺_ik relu(t_k) + L⁻_ik relu(−t_k)) ≤ h_i(x) ≤ H_i + Σ_k (U⁺_ik relu(t_k) + U⁻_ik relu(−t_k)),

    with L, U ≥ 0: relu(a + b) ≤ relu(a) + relu(b) gives U, and neurons that look at one input, such as the pairs ±(x_k − c_k) of
    a closed network, and sums of such give L. In the next layer z_j(x) ≤ B_j − Σ_k (slope⁺_jk relu(t_k) + slope⁻_jk relu(−t_k));
    where all slopes are positive, neuron j is off at |t|₁ ≥ B_j / (its smallest slope). A hidden layer of such neurons and of
    constant ones makes the network constant. The centre is where the neurons of single inputs have their kinks.

    Where that proves nothing and the network has two hidden layers and is small (inputs times widths up to three million), a
    strict `silent_certificate` is tried, which is not bound to the axes. Its z0_j(u) ≤ −m_j for |u|₂ = 1 and
    z_j(x) ≤ z0_j(x) + β_j + Σ_i (relu(w_ji) relu(b_i) + relu(−w_ji) relu(−b_i)) give a ball around 0.

    All sums are rounded outwards: the proof is that of the weights as numbers; a network that runs in float32 rounds by itself.
    ValueError as for `read`, for fewer than two hidden layers of ReLU, which are never silent, and for a LeakyReLU, which is
    never off. ArithmeticError where nothing could be proved: such a network may be constant far away all the same.
    """
    network = read_chain(model)
    if any(network.leaks):
        raise ValueError(f"model must have ReLU only: a LeakyReLU is never silent; got the slopes {network.leaks} below zero")
    if len(network.leaks) < 2:
        raise ValueError(
            "model must have two hidden layers or more: with one, a neuron with weights w ≠ 0 is active at x = t·w for all large "
            f"t; got {len(network.leaks)}"
        )
    centre = _centre(network.weights[0], network.biases[0])
    with np.errstate(all="ignore"):  # what overflows proves nothing
        radius, layer = _along_the_axes(network, centre)
        if not radius < math.inf and math.prod((network.in_dim, *map(len, network.weights[:2]))) <= _SMALL:
            centre, radius, layer = np.zeros_like(centre), _by_certificate(model, network), 1
    if not radius < math.inf:
        raise ArithmeticError(
            "undecided: it could not be proved that the model is constant far away. A network of `models.closed_mlp` is; "
            "any other may be active in some direction (`polytopes.infinity` and `polytopes.silent_certificate` can tell)"
        )
    h = np.maximum(np.where(network.weights[layer].any(axis=1), 0, network.biases[layer]), 0)
    for weight, bias in zip(network.weights[layer + 1 :], network.biases[layer + 1 :], strict=True):
        z = weight @ h + bias
        h = np.maximum(z, 0)
    return Horizon(centre, float(radius), z)


def _single(weight):
    """The neurons (rows) that look at one input alone, and at which."""
    rows = np.flatnonzero(np.count_nonzero(weight, axis=1) == 1)
    return rows, np.abs(weight[rows]).argmax(axis=1)


def _centre(weight, bias):
    """Of the kinks of neurons that look at input k alone the middle one, for every k: [d]; 0 where there are none."""
    rows, axis = _single(weight)
    kink = -bias[rows] / weight[rows, axis]
    order = np.lexsort((kink, axis))
    first, end = (np.searchsorted(axis[order], np.arange(weight.shape[1]), side) for side in ("left", "right"))
    centre = np.zeros(weight.shape[1])
    found = end > first
    centre[found] = kink[order][(first + end - 1)[found] // 2]
    return np.where(np.isfinite(centre), centre, 0)


def _along_the_axes(network, centre):
    """The smallest radius that a hidden layer from the second on proves, ∞ if none does, and the layer's place."""
    weight, bias = network.weights[0], network.biases[0]
    noise = 2 * EPS * (len(centre) + 8)
    at_centre = weight @ centre + bias
    error = noise * (np.abs(weight) @ np.abs(centre) + np.abs(bias)) + _TINY
    above, below = np.maximum(at_centre + error, 0), np.zeros(len(bias))
    pushes = (network.weights[1] > 0).any(axis=0)  # the pairs of a closed network do not: no product with their slopes
    up = np.hstack([np.maximum(weight[pushes], 0), np.maximum(-weight[pushes], 0)])
    rows, axis = _single(weight)
    below[rows] = np.minimum(at_centre - error, 0)[rows]
    ends = weight[rows, axis]
    low = sparse.csr_array((np.abs(ends), (rows, axis + len(centre) * (ends < 0))), (len(bias), 2 * len(centre)))
    best = math.inf, 0
    for layer in range(1, len(network.leaks)):
        weight, bias, after = network.weights[layer], network.biases[layer], network.weights[layer + 1]
        noise = 2 * EPS * (weight.shape[1] + 8)
        push, pull = np.maximum(weight, 0), np.maximum(-weight, 0)
        rise = (push[:, pushes] @ up) * (1 + noise) - (low.T @ pull.T).T * (1 - noise) + _TINY
        size = push @ above + pull @ np.abs(below) + np.abs(bias)
        most = push @ above - pull @ below + bias + noise * size + _TINY
        slope = -rise.max(axis=1)
        needed = np.where(slope > 0, np.maximum(most, 0) / slope * (1 + 4 * EPS), math.inf)
        off = ~push.any(axis=1) & (bias <= 0)
        needed[off | ~weight.any(axis=1) | ~after.any(axis=0)] = 0  # off everywhere, constant, or of no consequence
        best = min(best, (float(needed.max()), layer))
        if layer + 1 == len(network.leaks):
            return best
        sums = (pull == 0).all(axis=1)  # only these get a lower bound other than 0
        below = np.where(sums, push @ below + bias - noise * size - _TINY, 0)
        low = sparse.csr_array(push * sums[:, None]) @ low
        low.data = np.maximum(low.data * (1 - noise) - _TINY, 0)
        pushes = (after > 0).any(axis=0)
        above, up = np.maximum(most, 0), np.maximum(rise[pushes], 0)


def _by_certificate(model, network):
    """The l1 radius around 0 that a strict `silent_certificate` gives, ∞ if it gives none."""
    if len(network.leaks) != 2:
        return math.inf
    found = silent_certificate(model)
    if not found.strict:
        return math.inf
    weight, bias = network.weights[1], network.biases[0]
    most = network.biases[1] + np.maximum(weight, 0) @ np.maximum(bias, 0) + np.maximum(-weight, 0) @ np.maximum(-bias, 0)
    most += 2 * EPS * (len(bias) + 8) * (np.abs(weight) @ np.abs(bias) + np.abs(network.biases[1])) + _TINY
    radius = (most / -found.bound).max() * math.sqrt(network.in_dim)  # |x|₁ <= √d |x|₂
    return max(float(radius) * (1 + 8 * EPS), 0.0)
