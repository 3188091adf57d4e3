"""Read an ordinary torch network as plain float64 matrices, or say which layer cannot be read."""

from dataclasses import dataclass

import numpy as np
from torch import nn

ROUNDING = 1e-13  # a sum of floats this small against the sum of its terms' sizes is taken for rounding noise: it is 0


@dataclass(frozen=True)
class Network:
    """A fully connected network as numbers: `Linear`, kink, `Linear`, …, `Linear`.

    weights  one float64 array [outputs, inputs] per `Linear`
    biases   one float64 array [outputs] per `Linear`
    leaks    one slope per hidden layer for negative pre-activations: 0 for ReLU, the `negative_slope` of a LeakyReLU
    """

    weights: list
    biases: list
    leaks: list

    @property
    def in_dim(self):
        return self.weights[0].shape[1]

    @property
    def n_classes(self):
        return self.weights[-1].shape[0]

    def __call__(self, x):
        """Logits [..., K] of points x [..., d]."""
        h = np.asarray(x, dtype=np.float64)
        for weight, bias, leak in zip(self.weights, self.biases, [*self.leaks, 1.0], strict=True):
            z = h @ weight.T + bias
            h = np.where(z > 0, z, leak * z)
        return h

    def leaders(self, u):
        """The classes whose logit grows fastest along the rays α·u, α → ∞: boolean [n, K] for directions u [n, d].

        f(αu)/α → f0(u), the network with every bias set to 0, so the leaders are where f0(u) is largest: one class k*, or
        several where slopes tie. Equal means equal to float64 rounding.
        """
        h = np.asarray(u, dtype=np.float64)
        for weight, leak in zip(self.weights, [*self.leaks, 1.0], strict=True):
            z, size = h @ weight.T, np.abs(h) @ np.abs(weight).T
            z[np.abs(z) <= ROUNDING * size] = 0
            h = np.where(z > 0, z, leak * z)
        best = h.argmax(axis=1)[:, None]
        margin = np.take_along_axis(h, best, axis=1) - h
        return margin <= ROUNDING * (np.take_along_axis(size, best, axis=1) + size)

    def restricted(self, origin, axes):
        """The same network seen from a flat of its input space: s -> f(origin + axes.T @ s), axes [m, d]."""
        weight, bias = self.weights[0], self.biases[0]
        return Network([weight @ axes.T, *self.weights[1:]], [bias + weight @ origin, *self.biases[1:]], self.leaks)


def read(model):
    """The `Network` of an `nn.Sequential` of `Linear` and `ReLU` (or `LeakyReLU`), any depth, also without hidden layers.

    Raises ValueError that names the layer for anything else: another module, NaN or infinite weights, two activations in
    a row, two `Linear` without one between them, or sizes that do not fit.
    """
    if not isinstance(model, nn.Sequential) or len(model) == 0:
        raise ValueError(f"model must be a non-empty nn.Sequential of Linear and ReLU or LeakyReLU, not {type(model).__name__}")
    weights, biases, leaks = [], [], []
    for i, layer in enumerate(model):
        name = f"layer {i} ({type(layer).__name__})"
        if i % 2 == 0:
            if not isinstance(layer, nn.Linear):
                raise ValueError(f"{name}: expected a Linear here; the order must be Linear, ReLU, Linear, …, Linear")
            weight = _float64(layer.weight)
            bias = np.zeros(len(weight)) if layer.bias is None else _float64(layer.bias)
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise ValueError(f"{name}: weights must be finite numbers; it holds NaN or infinity")
            if 0 in weight.shape:
                raise ValueError(f"{name}: has {weight.shape[1]} inputs and {weight.shape[0]} outputs; both must be at least 1")
            if weights and weight.shape[1] != len(weights[-1]):
                raise ValueError(f"{name}: takes {weight.shape[1]} inputs but the layer before it gives {len(weights[-1])}")
            weights.append(weight)
            biases.append(bias)
        elif isinstance(layer, nn.ReLU):
            leaks.append(0.0)
        elif isinstance(layer, nn.LeakyReLU):
            if not np.isfinite(layer.negative_slope):
                raise ValueError(f"{name}: negative_slope must be a finite number, not {layer.negative_slope}")
            leaks.append(float(layer.negative_slope))
        else:
            raise ValueError(f"{name}: expected a ReLU or LeakyReLU here; no other module is understood")
    if len(leaks) == len(weights):
        raise ValueError(f"{name}: the last layer must be a Linear that gives the logits")
    return Network(weights, biases, leaks)


def plane_of(axes, dim):
    """Two directions [2, dim] that span a plane, as float64; the plane itself if `axes` is None and dim is 2.

    Raises ValueError where axes are missing, of another shape, not finite, or do not span a plane.
    """
    if axes is None:
        if dim != 2:
            raise ValueError(f"axes must be given for a model with {dim} inputs: axes [2, {dim}], two vectors that span a plane")
        return np.eye(2)
    axes = np.asarray(axes, dtype=np.float64)
    if axes.shape != (2, dim):
        raise ValueError(f"axes must have shape (2, {dim}), not {axes.shape}")
    if not np.isfinite(axes).all() or np.linalg.matrix_rank(axes) < 2:
        raise ValueError("axes must be two finite vectors that span a plane: independent, not zero and not parallel")
    return axes


def vector(values, name, size):
    """`values` as a float64 vector [size], or a ValueError that names the argument."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), the input dimension of the model, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must hold finite numbers; it holds NaN or infinity")
    return values


def _float64(parameter):
    """A copy, so that training the model further does not change what was read."""
    return parameter.detach().cpu().numpy().astype(np.float64)
