"""A certain bound on the confidence in a whole box of inputs, any dimension."""

import math

import numpy as np
from scipy.special import expit

from .network import read


def confidence_bound(model, low, high, classes=None):
    """An upper bound [n] on the confidence anywhere in the boxes low <= x <= high, [n, d] each: certain, not tight.

    classes  how many of the first outputs count (of a reject network all but the last); None: all. At least 2 outputs.
    Every ReLU is replaced by two straight lines that enclose it between its own bounds, layer by layer, which leaves affine
    bounds on the logits' differences (CROWN, Zhang et al. 2018). For output k two bounds hold, and the smaller counts:
    p_k <= 1 / (1 + exp(f_l − f_k)) for every l, and p_k <= 1 / (1 + (K − 1) exp(mean of f_l over l ≠ k − f_k)), because exp is
    convex. Raises ValueError as `read` does, and for boxes that do not fit it, or are empty.
    """
    network = read(model)
    low, high = (np.atleast_2d(np.asarray(v, dtype=np.float64)) for v in (low, high))
    if low.shape != high.shape or low.shape[1:] != (network.in_dim,):
        raise ValueError(f"low and high must both have shape (n, {network.in_dim}); got {low.shape} and {high.shape}")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ValueError("low and high must hold finite numbers, with low <= high")
    if not all(0 <= leak <= 1 for leak in network.leaks):
        raise ValueError(f"negative_slope of a LeakyReLU must lie in [0, 1] here; got {network.leaks}")
    if network.n_classes < 2:
        raise ValueError(f"model must have at least 2 outputs; got {network.n_classes}")
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
    odds = np.minimum(each.min(2), lead[:, k * k :] - math.log(k - 1))
    return expit(odds[:, :classes].max(1))


def _highest(network, depth, rows, low, high, bounds):
    """Upper bounds [n, m] of rows @ z, z the pre-activations of layer `depth`, in boxes; `bounds` are those of earlier layers."""
    rows, constant = np.broadcast_to(rows, (len(low), *rows.shape)), 0.0
    for layer in range(depth, -1, -1):
        constant = constant + rows @ network.biases[layer]
        rows = rows @ network.weights[layer]
        if layer:
            up, lift, down = _lines(*bounds[layer - 1], network.leaks[layer - 1])
            positive, negative = np.maximum(rows, 0), np.minimum(rows, 0)
            constant = constant + (positive @ lift[:, :, None])[..., 0]
            rows = positive * up[:, None] + negative * down[:, None]
    middle, half = (high + low) / 2, (high - low) / 2
    return constant + (rows @ middle[:, :, None])[..., 0] + (np.abs(rows) @ half[:, :, None])[..., 0]


def _lines(least, most, leak):
    """Lines that enclose max(z, leak z) for z from least to most: up z + lift from above, down z from below."""
    crossing = (least < 0) & (most > 0)
    up = np.where(least >= 0, 1.0, leak)
    down = np.where(crossing & (most > -least), 1.0, up)
    up = np.where(crossing, (most - leak * least) / np.where(crossing, most - least, 1), up)
    return up, np.where(crossing, most * (1 - up), 0), down
