"""Networks for the polytope tests: with given weights, random ones, and degenerate ones on a coarse grid."""

import copy
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn


def build(weights, biases, leak=0.0):
    """A float64 nn.Sequential with the given weights and biases (None: a Linear without bias)."""
    layers = []
    for weight, bias in zip(weights, biases, strict=True):
        weight = torch.as_tensor(np.array(weight, dtype=np.float64))
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.float64)
        linear.weight.data = weight
        if bias is not None:
            linear.bias.data = torch.as_tensor(np.array(bias, dtype=np.float64))
        layers += [linear, nn.LeakyReLU(leak) if leak else nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def random_network(rng, sizes, leak=0.0, bias=True):
    """Gaussian weights and biases; sizes reach from the input dimension to the number of classes."""
    weights = [rng.normal(size=(n, m)) / np.sqrt(m) for m, n in pairwise(sizes)]
    return build(weights, [rng.normal(size=len(w)) if bias else None for w in weights], leak)


def without_biases(model):
    model = copy.deepcopy(model)
    for layer in model:
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            layer.bias.data.zero_()
    return model


@st.composite
def coarse_networks(draw, in_dim):
    """Weights and biases in {-2, …, 2}: zero rows, duplicates, parallels, antiparallels and dead layers all the time."""
    sizes = [in_dim, *draw(st.lists(st.integers(1, 5), min_size=0, max_size=3)), draw(st.integers(1, 4))]
    number = st.integers(-2, 2)
    weights = [[[draw(number) for _ in range(m)] for _ in range(n)] for m, n in pairwise(sizes)]
    with_bias = draw(st.booleans())
    biases = [[draw(number) if with_bias else 0 for _ in row] for row in weights]
    return (
        weights,
        biases,
        draw(
            st.sampled_from([Fraction(0), Fraction(1, 4), Fraction(-1, 2), Fraction(2), Fraction(1), Fraction(-1), Fraction(-3)])
        ),
    )


def disguise(weights, biases, rotation, rng):
    """The same network with turned inputs and scaled layers: every coincidence now holds only up to rounding."""
    scales = np.exp(rng.normal(size=len(weights)))
    weights = [np.array(weight) * scale for weight, scale in zip(weights, scales, strict=True)]
    biases = [np.array(bias) * scale for bias, scale in zip(biases, np.cumprod(scales), strict=True)]
    return [weights[0] @ rotation, *weights[1:]], biases


def exact_affine(h, weight, bias):
    """Maps of the next layer from the maps of the one before, tuples whose last entry is the constant, in fractions."""
    channels = range(len(h[0]))
    return [
        tuple(
            sum((w * x[i] for w, x in zip(row, h, strict=True)), start=Fraction(b if i == channels[-1] else 0)) for i in channels
        )
        for row, b in zip(weight, bias, strict=True)
    ]
