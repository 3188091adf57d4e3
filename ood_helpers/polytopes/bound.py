"""A certain bound on the confidence in a whole box of inputs, any dimension."""

import math

import numpy as np
from scipy.special import expit

from ood_helpers.arrays import Numbers, float64, whole

from .graph import Graph
from .graph_bound import highest
from .network import Model, Network, flat_rows, read, shape_of
from .proofs import EPS


def confidence_bound(model: Model, low: Numbers, high: Numbers, classes: int | None = None) -> np.ndarray:
    """An upper bound [n] on the confidence anywhere in the boxes low <= x <= high, [n, d] each: certain, not tight.

    classes  how many of the first outputs count (of a reject network all but the last), from 1 to K; None: all K >= 2 of them.
    Every ReLU is replaced by two straight lines that enclose it between its own bounds, layer by layer, which leaves affine
    bounds on the logits' differences (CROWN, Zhang et al. 2018). For output k two bounds hold, and the smaller counts:
    p_k <= 1 / (1 + exp(f_l − f_k)) for every l, and p_k <= 1 / (1 + (K − 1) exp(mean of f_l over l ≠ k − f_k)), because exp is
    convex. The confidence is that of the weights as numbers: all rounding here is bounded and added (Higham 2002, section 3.1),
    but a network that runs in float32 rounds by itself. Where float64 overflows the bound is 1.
    The slopes of the lines below are not optimised box by box (α-CROWN, Xu et al. 2021): in 25 boxes around the two Gaussians,
    trained 2-100-100-2, that took 14 to 26 times as long, for a bound lower by .0006 (half-side .2) and .005 (.5) in the median.
    Raises ValueError as `read` does, for boxes that do not fit it, or are empty, and for any other `classes`.
    """
    network = read(model, shape_of(low, batch=np.ndim(low) > 1))
    low, high = (flat_rows(np.atleast_2d(float64(box, name)), network) for box, name in ((low, "low"), (high, "high")))
    if low.shape != high.shape or low.shape[1:] != (network.in_dim,):
        raise ValueError(f"low and high must both have shape (n, {network.in_dim}); got {low.shape} and {high.shape}")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ValueError("low and high must hold finite numbers, with low <= high")
    if isinstance(network, Network) and not all(0 <= leak <= 1 for leak in network.leaks):
        raise ValueError(f"negative_slope of a LeakyReLU must lie in [0, 1] here; got {network.leaks}")
    k = network.n_classes
    if k < 2:
        raise ValueError(f"model must have at least 2 outputs; got {k}")
    classes = k if classes is None else whole("classes", classes, 1)
    if classes > k:
        raise ValueError(f"classes must be at most {k}, the number of outputs of the model; got {classes}")
    pairs = np.eye(k)[:, None] - np.eye(k)  # [k, l] is f_k - f_l
    rows = np.concatenate([pairs.reshape(k * k, k), pairs.sum(1) / (k - 1)])
    with np.errstate(all="ignore"):  # what overflows counts as infinite
        if isinstance(network, Graph):
            lead = np.array([highest(network, rows, *box) for box in zip(low, high, strict=True)]).reshape(-1, len(rows))
        else:
            lead = _leads(network, rows, low, high)
    each = lead[:, : k * k].reshape(-1, k, k)
    each[:, range(k), range(k)] = np.inf
    mean = np.nextafter(lead[:, k * k :] - np.nextafter(math.log(k - 1), -1), np.inf)
    odds = np.minimum(each.min(2), mean)[:, :classes].max(1)
    return np.minimum(expit(np.maximum(odds, -700)) * (1 + 8 * EPS), 1)  # below -700 exp(-odds) would overflow


def _leads(network, rows, low, high):
    """Upper bounds [n, m] of rows [m, K] @ logits in boxes, from bounds on each layer: CROWN's or the interval's."""
    bounds = []
    for depth, weight in enumerate(network.weights):
        asked = rows if depth == len(network.leaks) else np.concatenate([np.eye(len(weight)), -np.eye(len(weight))])
        most = _highest(network, depth, asked, low, high, bounds)
        if depth:
            most = np.minimum(most, _from_layer(network, depth, asked, bounds[-1]))
        if depth < len(network.leaks):
            bounds.append((-most[:, len(weight) :], most[:, : len(weight)]))
    return most


def _from_layer(network, depth, rows, before):
    """Upper bounds [n, m] of rows @ z in layer `depth` from the bounds on the layer before alone; rounding as in `_highest`."""
    weight, bias, leak = network.weights[depth], network.biases[depth], network.leaks[depth - 1]
    least, most = (np.where(z > 0, z, np.nextafter(leak * z, side)) for z, side in zip(before, (-np.inf, np.inf), strict=True))
    size = np.maximum(np.abs(least), np.abs(most)) @ np.abs(weight).T + np.abs(bias)
    steps = 1.01 * (sum(weight.shape) + len(bias) + 12)
    error = steps * EPS / 2 * size @ np.abs(rows).T + 1e-300 * (1 + size.sum(1))[:, None]
    both, constant = rows @ weight, rows @ bias
    highest = most @ np.maximum(both, 0).T + least @ np.minimum(both, 0).T + constant + error
    return np.where(np.isfinite(highest), highest, np.inf)


def _highest(network, depth, rows, low, high, bounds):
    """Upper bounds [n, m] of rows @ z, z the pre-activations of layer `depth`, in boxes; `bounds` are those of earlier layers.

    Whatever is computed here, a sum of k products errs by at most k · EPS/2 times the sum of their sizes. `size` bounds
    |W||h| + |b| in the box, so an error in rows @ weight counts at once by what it can do to the result.
    """
    rows, constant, error = np.broadcast_to(rows, (len(low), *rows.shape)), 0.0, 0.0
    for layer in range(depth, -1, -1):
        weight, bias = network.weights[layer], network.biases[layer]
        largest = np.maximum(*np.abs(bounds[layer - 1] if layer else (low, high)))
        size = largest @ np.abs(weight).T + np.abs(bias)
        steps = 1.01 * (sum(weight.shape) + 2 * depth + 12)  # over outputs, inputs, layers; a hundredth, as this rounds, too
        error = error + steps * EPS / 2 * (np.abs(rows) @ size[:, :, None])[..., 0] + 1e-300 * (1 + largest.sum(1))[:, None]
        constant = constant + rows @ bias
        rows = rows @ weight
        positive, negative = np.maximum(rows, 0), np.minimum(rows, 0)
        if layer:
            up, lift, down = _lines(*bounds[layer - 1], network.leaks[layer - 1])
            constant = constant + (positive @ lift[:, :, None])[..., 0]
            rows = positive * up[:, None] + negative * down[:, None]
    highest = constant + (positive @ high[:, :, None])[..., 0] + (negative @ low[:, :, None])[..., 0] + error
    return np.where(np.isfinite(highest), highest, np.inf)


def _lines(least, most, leak):
    """Lines that enclose max(z, leak z) for z from least to most: up z + lift from above, down z from below.

    Whatever slope rounding makes of `up`, the line with it that lies above at both ends lies above between them; the rounding of
    `lift` is counted in `_highest`.
    """
    crossing = (least < 0) & (most > 0)
    up = np.where(least >= 0, 1.0, leak)
    down = np.where(crossing & (most > -least), 1.0, up)
    up = np.where(crossing, (most - leak * least) / np.where(crossing, most - least, 1), up)
    lift = np.maximum(most * (1 - up), (leak - up) * least)
    return up, np.where(crossing, lift, 0), down
