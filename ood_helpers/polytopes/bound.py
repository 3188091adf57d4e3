"""A certain bound on the confidence in a whole box of inputs, any dimension."""

import math

import numpy as np
from scipy.special import expit

from ood_helpers.arrays import float64, whole

from .network import read

EPS = np.finfo(np.float64).eps  # twice the relative rounding error of one operation: each bound below has that much to spare
TINY = 1e-290  # added to sizes, it covers what products lose below the smallest float


def confidence_bound(model, low, high, classes=None):
    """An upper bound [n] on the confidence anywhere in the boxes low <= x <= high, [n, d] each: certain, not tight.

    classes  how many of the first outputs count, 1 to K (of a reject network all but the last); None: all. At least 2 outputs.
    Every ReLU is replaced by two straight lines that enclose it between its own bounds, layer by layer, which leaves affine
    bounds on the logits' differences (CROWN, Zhang et al. 2018). For output k two bounds hold, and the smaller counts:
    p_k <= 1 / (1 + exp(f_l − f_k)) for every l, and p_k <= 1 / (1 + (K − 1) exp(mean of f_l over l ≠ k − f_k)), because exp is
    convex. Everything is rounded outwards: no exact confidence is above the bound, which is 1 where numbers overflow. (The
    network itself, run in floats, may be, by its own rounding.)
    Raises ValueError as `read` does, and for boxes that do not fit it, or are empty.
    """
    network = read(model)
    low, high = np.atleast_2d(float64(low, "low")), np.atleast_2d(float64(high, "high"))
    if low.shape != high.shape or low.shape[1:] != (network.in_dim,):
        raise ValueError(f"low and high must both have shape (n, {network.in_dim}); got {low.shape} and {high.shape}")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ValueError("low and high must hold finite numbers, with low <= high")
    if not all(0 <= leak <= 1 for leak in network.leaks):
        raise ValueError(f"negative_slope of a LeakyReLU must lie in [0, 1] here; got {network.leaks}")
    k = network.n_classes
    if k < 2:
        raise ValueError(f"model must have at least 2 outputs; got {k}")
    if classes is not None and whole("classes", classes, 1) > k:
        raise ValueError(f"classes must be at most {k}, the number of outputs; got {classes}")
    with np.errstate(over="ignore", invalid="ignore"):
        odds = _odds(network, low, high)[:, :classes].max(1)
        bound = expit(odds) * (1 + 16 * EPS) + TINY
    return np.where(bound < 1, bound, 1.0)  # also where it is NaN


def _odds(network, low, high):
    """Upper bounds [n, K] of log(p_k / (1 − p_k)) in boxes; NaN where nothing is known."""
    bounds = []
    for depth, weight in enumerate(network.weights[:-1]):
        both = _highest(network, depth, np.concatenate([np.eye(len(weight)), -np.eye(len(weight))]), low, high, bounds)
        bounds.append((-both[:, len(weight) :], both[:, : len(weight)]))
    k = network.n_classes
    pairs = np.eye(k)[:, None] - np.eye(k)  # [k, l] is f_k - f_l
    rows = np.concatenate([pairs.reshape(k * k, k), pairs.sum(1) / (k - 1)])
    lead = _highest(network, len(network.weights) - 1, rows, low, high, bounds)
    each = lead[:, : k * k].reshape(-1, k, k)
    each[:, range(k), range(k)] = np.inf
    mean, rivals = lead[:, k * k :], math.log(k - 1)
    return np.minimum(each.min(2), mean - rivals + 4 * EPS * (np.abs(mean) + rivals))


def _highest(network, depth, rows, low, high, bounds):
    """Upper bounds [n, m] of rows @ z, z the pre-activations of layer `depth`, in boxes; `bounds` are those of earlier layers.

    A sum of n products is off by at most (n + 1) EPS/2 times the sum of their sizes. `error` adds that up: what `rows` are off
    counts as often as what they are multiplied with, the activations before them, can be large. `rows` may have a relative
    error of EPS from the line or mean before.
    """
    rows, constant, error = np.broadcast_to(rows, (len(low), *rows.shape)), 0.0, 0.0
    for layer in range(depth, -1, -1):
        weight, bias = network.weights[layer], network.biases[layer]
        gamma = EPS * (weight.shape[0] + 8)
        size = np.abs(rows) + TINY
        error = error + gamma * (np.abs(constant) + size @ np.abs(bias) + TINY)
        constant = constant + rows @ bias
        rows = rows @ weight
        most = _sizes(network, layer, low, high, bounds)
        error = error + gamma * ((size @ np.abs(weight) + TINY) @ most[:, :, None])[..., 0]
        if layer:
            up, lift, down = _lines(*bounds[layer - 1], network.leaks[layer - 1])
            positive, negative = np.maximum(rows, 0), np.minimum(rows, 0)
            lifted = (positive @ lift[:, :, None])[..., 0]
            error = error + EPS * (weight.shape[1] + 8) * (np.abs(constant) + lifted + TINY)
            constant = constant + lifted
            rows = positive * up[:, None] + negative * down[:, None]
    middle = low / 2 + high / 2
    half = np.maximum(high - middle, middle - low)
    reach = (np.abs(rows) @ half[:, :, None])[..., 0]
    size = np.abs(constant) + (np.abs(rows) @ np.abs(middle)[:, :, None])[..., 0] + reach + error
    error = error + EPS * (low.shape[1] + 8) * (size + TINY)
    return constant + (rows @ middle[:, :, None])[..., 0] + reach + error


def _sizes(network, layer, low, high, bounds):
    """How large [n, inputs] the inputs of a layer can be in size."""
    if layer == 0:
        return np.maximum(np.abs(low), np.abs(high))
    least, most = bounds[layer - 1]
    return np.maximum(np.maximum(most, -network.leaks[layer - 1] * least), 0)


def _lines(least, most, leak):
    """Lines that enclose max(z, leak z) for z from least to most: up z + lift from above, down z from below."""
    crossing = ~((least >= 0) | (most <= 0))  # also where they are NaN, which must not get lost
    up = np.where(least >= 0, 1.0, leak)
    down = np.where(crossing & (most > -least), 1.0, up)
    up = np.where(crossing, np.clip((most - leak * least) / np.where(crossing, most - least, 1), leak, 1), up)
    lift = np.maximum(most * (1 - up), (leak - up) * least) * (1 + 8 * EPS) + TINY  # convex: it is highest at the ends
    return up, np.where(crossing, lift, 0), down
