"""Read an ordinary torch network as plain float64 matrices, or say which layer cannot be read."""

import contextlib
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from ood_helpers.arrays import float64

# sizes of the points at which a network is run: between them kinks come and go, whatever the scale of its inputs
SCALES = (0, 2**-6, 1, 1, 2**4, 2**8, 2**12, 2**20)
SEE_THROUGH = (nn.DataParallel, nn.parallel.DistributedDataParallel)  # they compute what their `.module` does
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
        h = float64(x, "x")
        for weight, bias, leak in zip(self.weights, self.biases, [*self.leaks, 1.0], strict=True):
            z = h @ weight.T + bias
            h = np.where(z > 0, z, leak * z)
        return h

    def leaders(self, u):
        """The classes whose logit grows fastest along the rays α·u, α → ∞: boolean [n, K] for directions u [n, d].

        f(αu)/α → f0(u), the network with every bias set to 0, so the leaders are where f0(u) is largest: one class k*, or
        several where slopes tie. Equal means equal to float64 rounding.
        """
        h = float64(u, "u")
        for weight, leak in zip(self.weights, [*self.leaks, 1.0], strict=True):
            h, weight = _near_one(h, axis=1), _near_one(weight)  # who leads stays the same, and nothing overflows
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

    It is the network that runs in eval mode: pruned, weight-normed and otherwise parametrised layers are read with the weights
    they compute with, and `model(x)` is compared with what was read, at eight points of many sizes. DataParallel, compiled
    modules and other wrappers with a `.module` are looked into. The model is left as it was found.

    Raises ValueError that names the layer for anything else: another module, NaN or infinite weights, two activations in
    a row, two `Linear` without one between them, or sizes that do not fit; and for a model that cannot be run or computes
    something else than its layers say: hooks, or a `forward` of its own, that change values.
    """
    sequential, runs = _unwrapped(model)
    if not isinstance(sequential, nn.Sequential) or len(sequential) == 0:
        raise ValueError(f"model must be a non-empty nn.Sequential of Linear and ReLU or LeakyReLU, not {type(model).__name__}")
    for name, parameter in runs.named_parameters():
        if parameter.is_meta or is_lazy(parameter):
            raise ValueError(
                f"model must hold numbers, but its {name} holds none yet: give it weights, or run it once if it is lazy"
            )
    with _as_it_runs(runs):
        linears, leaks = _layers(sequential)
        x = _points(linears[0][1].weight)
        try:
            logits, trouble = runs(x.clone()), None
        except Exception as error:  # whatever it is; a layer that cannot be read says more, so look at these first
            logits, trouble = None, error
        network = Network(*_numbers(linears), leaks)
        if trouble is not None:
            raise ValueError(
                f"model must run on points {list(x.shape)}; it raised {type(trouble).__name__}: {trouble}"
            ) from trouble
        _compare(logits, x, linears, network, plain=all(map(_is_plain, runs.modules())))
    return network


def _unwrapped(model):
    """The Sequential inside of wrappers, and the outermost module that has to be run to know what they compute."""
    runs = model
    while isinstance(model, nn.Module) and not isinstance(model, nn.Sequential | nn.Linear):
        inner = getattr(model, "_orig_mod", getattr(model, "module", None))
        if not isinstance(inner, nn.Module):
            break
        if model is runs and type(model) in SEE_THROUGH and not (model._forward_hooks or model._forward_pre_hooks):
            runs = inner  # running these two may need devices or processes that are not there
        model = inner
    return model, runs


def _layers(model):
    """The named Linear layers [(name, layer), …] and the slopes of the activations between them; ValueError for other layers."""
    linears, leaks = [], []
    for i, layer in enumerate(model):
        layer = _unwrapped(layer)[0]
        name = f"layer {i} ({type(layer).__name__})"
        if i % 2 == 0:
            if not isinstance(layer, nn.Linear):
                raise ValueError(f"{name}: expected a Linear here; the order must be Linear, ReLU, Linear, …, Linear")
            linears.append((name, layer))
        elif isinstance(layer, nn.ReLU):
            leaks.append(0.0)
        elif isinstance(layer, nn.LeakyReLU):
            if not np.isfinite(layer.negative_slope):
                raise ValueError(f"{name}: negative_slope must be a finite number, not {layer.negative_slope}")
            leaks.append(float(layer.negative_slope))
        else:
            raise ValueError(f"{name}: expected a ReLU or LeakyReLU here; no other module is understood")
    if len(leaks) == len(linears):
        raise ValueError(f"{name}: the last layer must be a Linear that gives the logits")
    return linears, leaks


def _numbers(linears):
    """Weights and biases of the layers, two lists of float64 copies: training the model further does not change them."""
    weights, biases = [], []
    for name, layer in linears:
        weight = float64(layer.weight, f"{name}: weight")
        bias = np.zeros(len(weight)) if layer.bias is None else float64(layer.bias, f"{name}: bias")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError(f"{name}: weights must be finite numbers; it holds NaN or infinity")
        if 0 in weight.shape:
            raise ValueError(f"{name}: has {weight.shape[1]} inputs and {weight.shape[0]} outputs; both must be at least 1")
        if weights and weight.shape[1] != len(weights[-1]):
            raise ValueError(f"{name}: takes {weight.shape[1]} inputs but the layer before it gives {len(weights[-1])}")
        weights.append(weight)
        biases.append(bias)
    return weights, biases


@contextlib.contextmanager
def _as_it_runs(model):
    """Eval mode without gradients, autocast or compiling. Afterwards every module, buffer and random generator is as before.

    Modules get their attributes back, too: old-style pruning and weight norm write `weight` anew in each forward pass, and
    one without gradients must not stay.
    """
    modules = list(model.modules())
    found = [(held, dict(held)) for module in modules for held in (module.__dict__, module._parameters, module._buffers)]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()
    generators = torch.random.fork_rng([device] if device.type == "cuda" else [])
    try:
        for module in modules:
            module.training = False
        with torch.no_grad(), torch.autocast(device.type, enabled=False), eager, generators:
            yield
    finally:
        for held, before in found:
            for name in held.keys() - before.keys():
                del held[name]
            held.update(before)
        for buffer, before in buffers:
            if not torch.equal(buffer, before):
                buffer.data.copy_(before)


def _points(weight):
    """Points [8, d] to run a network at, one of each size in `SCALES`, the same ones every time; exact in any precision."""
    steps = np.random.default_rng(0).integers(-8, 9, size=(len(SCALES), weight.shape[1])) / 8
    dtype = weight.dtype if weight.is_floating_point() or weight.is_complex() else torch.float32  # the others do not run
    return torch.from_numpy(steps * np.array(SCALES)[:, None]).to(dtype).to(weight.device)


def _is_plain(module):
    """Whether a module is torch's own and nothing is hung on it: what it computes is known without running it."""
    own = type(module) in (nn.Sequential, nn.Linear, nn.ReLU, nn.LeakyReLU) and "forward" not in vars(module)
    return own and not (module._forward_hooks or module._forward_pre_hooks)


def _compare(logits, x, linears, network, plain):
    """ValueError unless a model's logits at points x are those of its layers, computed as torch does: but for rounding."""
    h = x
    for (_, layer), leak in zip(linears, [*network.leaks, 1.0], strict=True):
        h = F.linear(h, layer.weight, layer.bias)
        h = F.leaky_relu(h, leak) if leak else F.relu(h)
    got, expected = float64(logits, "the logits model(x)"), float64(h, "the logits of the layers")
    if got.shape != expected.shape:
        raise ValueError(f"model must map points {list(x.shape)} to logits {list(expected.shape)}, not {list(got.shape)}")
    if not (plain or np.isfinite(expected[1:]).any()):  # 0 is no test
        raise ValueError(
            "model must give finite logits somewhere to be compared with its layers: call model.double(), or scale it"
        )
    if np.array_equal(got, expected, equal_nan=True):  # the rule, to the last bit; the rest is for other ways to sum
        return
    with np.errstate(over="ignore", invalid="ignore"):
        room = _rounding(network, float64(x, "x"), x.dtype)
        differs = ~((np.abs(got - expected) <= room) & (room < np.inf)) & ~np.isnan(room)
    if differs.any():
        i, k = np.unravel_index(differs.argmax(), differs.shape)
        raise ValueError(
            f"model must compute what its layers say, but logit {k} of model(x) is {got[i, k]:.6g} and that of its layers "
            f"{expected[i, k]:.6g}, at a point of size {SCALES[i]:g}. A hook, a wrapper or a forward of its own changes it: "
            "remove that, or write its effect into the weights and biases"
        )


def _rounding(network, x, dtype):
    """How far rounding in a dtype may move logits [n, K] at points x: generous; NaN where numbers exceed what the dtype can hold.

    Rounding errors of different neurons are taken as independent: bounds that add up their sizes grow exponentially with depth.
    """
    unit, most = torch.finfo(dtype).eps / 2, torch.finfo(dtype).max
    h, noise = x, np.zeros_like(x)
    for weight, bias, leak in zip(network.weights, network.biases, [*network.leaks, 1.0], strict=True):
        z, terms = h @ weight.T + bias, np.abs(h) @ np.abs(weight).T + np.abs(bias)
        noise = np.sqrt((noise**2 + (unit * h) ** 2) @ (weight**2).T)  # what was there, and the rounding of each product
        noise += unit * (np.abs(z) + np.abs(bias)) + min(unit, 2**-24) * terms  # half precision is summed in single
        noise[(terms > most).any(1)] = np.nan
        h, noise = np.where(z > 0, z, leak * z), max(1.0, abs(leak)) * noise
    return (4 if unit > 2**-24 else 32) * noise  # where neurons are much alike, their errors are, too


def plane_of(axes, dim):
    """Two directions [2, dim] that span a plane, as float64; the plane itself if `axes` is None and dim is 2.

    Raises ValueError where axes are missing, of another shape, not finite, or do not span a plane.
    """
    if axes is None:
        if dim != 2:
            raise ValueError(f"axes must be given for a model with {dim} inputs: axes [2, {dim}], two vectors that span a plane")
        return np.eye(2)
    axes = float64(axes, "axes")
    if axes.shape != (2, dim):
        raise ValueError(f"axes must have shape (2, {dim}), not {axes.shape}")
    if not np.isfinite(axes).all() or np.linalg.matrix_rank(axes) < 2:
        raise ValueError("axes must be two finite vectors that span a plane: independent, not zero and not parallel")
    return axes


def vector(values, name, size):
    """`values` as a float64 vector [size], or a ValueError that names the argument."""
    values = float64(values, name)
    if values.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), the input dimension of the model, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must hold finite numbers; it holds NaN or infinity")
    return values


def _near_one(values, axis=None):
    """The values times a power of two, so that the largest along the axis (or of all) is about 1: exact."""
    return np.ldexp(values, -np.frexp(np.abs(values).max(axis=axis, keepdims=True))[1])
