"""Read an ordinary torch network as plain float64 matrices, or say which layer cannot be read."""

import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from ood_helpers.arrays import Numbers, dense, float64, whole
from ood_helpers.closed import Closed

from .graph import ROUNDING, SEE_THROUGH, Graph, Untraced, cut_softmax, only, traced

# sizes of the points at which a network is run: between them kinks come and go, whatever the scale of its inputs
_SCALES = (0, 2**-6, 1, 1, 2**4, 2**8, 2**12, 2**20)


@dataclass(frozen=True)
class Network:
    """A fully connected network as numbers: `Linear`, kink, `Linear`, …, `Linear`.

    weights  one float64 array [outputs, inputs] per `Linear`
    biases   one float64 array [outputs] per `Linear`
    leaks    one slope per hidden layer for negative pre-activations: 0 for ReLU, the `negative_slope` of a LeakyReLU
    shape    of one input of the model that was read, where that is not a vector
    """

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    leaks: list[float]
    shape: tuple | None = None

    @property
    def in_dim(self):
        return self.weights[0].shape[1]

    @property
    def n_classes(self):
        return self.weights[-1].shape[0]

    @property
    def widths(self):
        """How many neurons each hidden layer has."""
        return [len(bias) for bias in self.biases[:-1]]

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


# what `read` reads: a module; pairs (W, b), with ReLU between; a state dict; what `read` gave before
Model = nn.Module | Sequence[tuple[Numbers, Numbers]] | Mapping[str, torch.Tensor] | Network | Graph


def read(model: Model, shape: Sequence[int] | None = None) -> Network | Graph:
    """A piecewise affine network as numbers: a `Network` of matrices where it is a chain, else a `Graph` of steps.

    model  an nn.Module of one input: any `forward` that torch.fx can trace, of layers and functions that are affine or piecewise
           affine (docs/your_network.md lists them) · [(W, b), …], with ReLU between · the state dict of such a network · what
           `read` gave before
    shape  of one input, without the batch: (2,), (1, 28, 28). Where it is left out it is that of the first Linear

    It is the network that runs in eval mode: pruned, weight-normed and otherwise parametrised layers are read with the weights
    they compute with, and `model(x)` is compared with what was read, at eight points of many sizes. DataParallel, compiled
    modules and other wrappers with a `.module` are looked into. The model is left as it was found.

    Raises ValueError that names the layer or step for anything else: one that is not piecewise affine, NaN or infinite weights,
    train mode where it matters, or sizes that do not fit; and for a model that cannot be run or computes something else than its
    layers say: hooks, or a `forward` of its own, that change values.
    """
    if isinstance(model, Network | Graph):
        return model
    if isinstance(model, Closed):
        model = model.plain()
    if isinstance(model, dict):
        return _from_pairs(_pairs_of(model), "the state dict")
    if isinstance(model, list | tuple) and model:
        return _from_pairs(model, "model")
    sequential, runs = _unwrapped(model)
    if not isinstance(sequential, nn.Module) or (isinstance(sequential, nn.Sequential) and len(sequential) == 0):
        raise ValueError(
            "model must be a non-empty nn.Sequential or another nn.Module, a list of pairs (W, b), or a state dict; "
            f"not {type(model).__name__}"
        )
    for name, parameter in runs.named_parameters():
        if parameter.is_meta or is_lazy(parameter):
            raise ValueError(
                f"model must hold numbers, but its {name} holds none yet: give it weights, or run it once if it is lazy"
            )
    if any(isinstance(module, torch.jit.ScriptModule) for module in runs.modules()):
        raise ValueError("model must not be scripted or traced by torch.jit: give the module that it was made from")
    in_training = {name for name, module in runs.named_modules(remove_duplicate=False) if module.training}
    if not _is_alternating(sequential):
        return _traced(runs, shape, in_training)
    try:
        return _alternating(sequential, runs)
    except _Differs:
        try:  # its forward may say what its layers do not
            return _traced(runs, shape, in_training)
        except ValueError:
            pass
        raise


def read_chain(model: Model) -> Network:
    """`read` for what needs matrices; ValueError for a network that is none of Linear layers with kinks between them."""
    network = read(model)
    if isinstance(network, Graph):
        raise ValueError(
            "model must be a chain, layer after layer, for this question; it has skips, pools or convolutions too large "
            "for matrices"
        )
    return network


class _Differs(ValueError):
    """A model computes something else than was read."""


def _alternating(sequential, runs):
    """The `Network` of Linear, ReLU, …, Linear, as it stands there; raises `_Differs` where `runs` computes something else."""
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


def _traced(runs, shape, in_training):
    """The `Network` or `Graph` of a module of any form; raises ValueError as `read` does."""
    root = runs
    while isinstance(getattr(root, "_orig_mod", None), nn.Module):
        root = root._orig_mod
    own = getattr(root, "input_shape", None)
    if shape is None or (own is not None and math.prod(own) == math.prod(shape)):
        shape = _shape_of(root)
    shape = tuple(whole("each number of shape", n, 1) for n in ((shape,) if np.ndim(shape) == 0 else shape))
    with _as_it_runs(runs), _In64():
        _in_float64(runs)
        steps = np.random.default_rng(0).integers(-8, 9, size=(len(_SCALES), *shape)) / 8
        x = torch.from_numpy(steps * np.array(_SCALES).reshape(-1, *[1] * len(shape)))
        try:  # one by one: a forward may count on a batch of one
            logits, trouble = [float64(only(runs(one[None].clone())), "the logits model(x)").reshape(1, -1) for one in x], None
        except Exception as error:
            logits, trouble = None, error
        try:
            graph = _graph_of(root, shape, in_training)
        except Untraced:
            if trouble is None:
                raise
        if trouble is not None:
            raise ValueError(
                f"model must run on points {[1, *shape]} of float64; it raised {type(trouble).__name__}: {trouble}. Give points "
                "in the shape that one input has, without the axis of the batch"
            ) from trouble
        _compare_steps(logits, x, graph)
    matrices = graph.matrices()
    return Network(*matrices, shape=shape) if matrices else graph


def _graph_of(model, shape, in_training):
    """`traced`, of what is in a wrapper where its own forward cannot be traced."""
    try:
        return traced(model, shape, in_training)
    except ValueError:
        inner = getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            raise
    return traced(inner, shape, {name.removeprefix("module.") for name in in_training})


class _In64(torch.overrides.TorchFunctionMode):
    """Casts to float32 are casts to float64: a forward that begins with x.float() is one of the numbers as they are."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def in64(part):
            return torch.float64 if part is torch.float32 else part

        function = torch.Tensor.double if function is torch.Tensor.float else function
        return function(*map(in64, args), **{name: in64(part) for name, part in (kwargs or {}).items()})


def _shape_of(model):
    """The shape of one input where nobody has given it: that of a file, or that of the first layer with weights."""
    shape = getattr(model, "input_shape", None)
    if shape is not None:
        return tuple(shape)
    for name, layer in model.named_modules():
        where = f"layer {name} ({type(layer).__name__})"
        if isinstance(layer, nn.Unflatten):
            return (math.prod(layer.unflattened_size),)
        if isinstance(layer, nn.Linear | nn.BatchNorm1d):
            return (layer.in_features if isinstance(layer, nn.Linear) else layer.num_features,)
        if isinstance(layer, nn.modules.conv._ConvNd | nn.modules.batchnorm._NormBase):
            raise ValueError(f"{where}: works on any size of input; say which: polytopes.read(model, shape=(1, 28, 28))")
    raise ValueError("shape must be given: no layer says how many inputs the model has; polytopes.read(model, shape=(2,))")


def _in_float64(model):
    """Give every module its numbers in float64, on the cpu, for as long as `_as_it_runs` lasts."""
    for name, module in model.named_modules():
        for held in (module._parameters, module._buffers, vars(module)):
            for key, value in held.items():
                if isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16):
                    raise ValueError(
                        f"layer {name} ({type(module).__name__}): its {key} is of {str(value.dtype).removeprefix('torch.')}, "
                        "too coarse to be compared with what it computes; call model.float() first"
                    )
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    plain = dense(value.detach().cpu(), key)
                    held[key] = nn.Parameter(plain, requires_grad=False) if isinstance(value, nn.Parameter) else plain


def _compare_steps(logits, x, graph):
    """ValueError unless a model's logits at points x are those of its steps, but for the rounding of float64."""
    values, largest = {0: x[:, None]}, x.abs().flatten(1).amax(1)
    for i, step in enumerate(graph.steps[1:], 1):
        values[i] = step(*(values[source] for source in step.sources))
        graph.forget(values, i)
        largest = torch.maximum(largest, values[i].abs().flatten(1).amax(1))
    expected = values[len(graph.steps) - 1].reshape(len(x), -1).numpy()
    if {len(row[0]) for row in logits} != {graph.n_classes}:
        raise ValueError(f"model must give {graph.n_classes} logits for one input, not {len(logits[0][0])}")
    got, room = np.concatenate(logits), 1e-9 * largest.numpy()[:, None]
    if not np.isfinite(expected).any():
        raise ValueError("model must give finite logits somewhere to be compared with its layers: scale it")
    differs = ~(np.abs(got - expected) <= room) & np.isfinite(expected)
    if differs.any():
        i, k = np.unravel_index(differs.argmax(), differs.shape)
        raise _Differs(_difference(got[i, k], expected[i, k], i, k))


def _pairs_of(state):
    """The pairs (weight, bias) of a state dict of Linear layers, in its order."""
    pairs = {}
    for key, value in state.items():
        layer, _, part = str(key).rpartition(".")
        if part not in ("weight", "bias") or np.ndim(value) != (2 if part == "weight" else 1):
            raise ValueError(
                f"the state dict must hold the weight [outputs, inputs] and bias of Linear layers only; its {key} is neither. "
                "Load it into its model, and give that"
            )
        pairs.setdefault(layer, {})[part] = value
    for layer, parts in pairs.items():
        if "weight" not in parts:
            raise ValueError(f"the state dict must hold a weight for each bias; {layer} has none")
    return [(parts["weight"], parts.get("bias")) for parts in pairs.values()]


def _from_pairs(pairs, name):
    """The `Network` with the given weights and biases (or None), and ReLU between."""
    weights, biases = [], []
    for i, pair in enumerate(pairs):
        where = f"{name}, pair {i}"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"{where}: must be (W, b), the weight [outputs, inputs] and bias [outputs] of a Linear layer")
        weight = float64(pair[0], f"{where}: W")
        if weight.ndim != 2 or 0 in weight.shape:
            raise ValueError(f"{where}: W must be [outputs, inputs], not {list(weight.shape)}")
        bias = np.zeros(len(weight)) if pair[1] is None else float64(pair[1], f"{where}: b")
        if bias.shape != (len(weight),):
            raise ValueError(f"{where}: b must be [{len(weight)}], one number for each row of W, not {list(bias.shape)}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError(f"{where}: weights must be finite numbers; it holds NaN or infinity")
        if weights and weight.shape[1] != len(weights[-1]):
            raise ValueError(f"{where}: takes {weight.shape[1]} inputs but the pair before it gives {len(weights[-1])}")
        weights.append(weight)
        biases.append(bias)
    return Network(weights, biases, [0.0] * (len(weights) - 1))


def without_softmax(model: nn.Module) -> nn.Module:
    """The model without the Softmax or LogSoftmax at its end: it gives the logits. A module that shares the model's weights.

    Raises ValueError where no such step comes last.
    """
    if isinstance(model, nn.Sequential) and len(model) > 1 and isinstance(model[-1], nn.Softmax | nn.LogSoftmax):
        return model[:-1]
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be an nn.Module, not {type(model).__name__}")
    return cut_softmax(model)


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


def _is_alternating(model):
    """Whether a model is a Sequential of Linear, ReLU or LeakyReLU, Linear, …, Linear: no tracing is needed."""
    if not isinstance(model, nn.Sequential) or len(model) % 2 == 0:
        return False
    kinds = (nn.Linear, nn.ReLU | nn.LeakyReLU)
    return all(isinstance(_unwrapped(layer)[0], kinds[i % 2]) for i, layer in enumerate(model))


def _layers(model):
    """The named Linear layers [(name, layer), …] and the slopes of the activations between them."""
    linears, leaks = [], []
    for i, layer in enumerate(model):
        layer = _unwrapped(layer)[0]
        name = f"layer {i} ({type(layer).__name__})"
        if i % 2 == 0:
            linears.append((name, layer))
            continue
        leak = layer.negative_slope if isinstance(layer, nn.LeakyReLU) else 0.0
        if not np.isfinite(leak):
            raise ValueError(f"{name}: negative_slope must be a finite number, not {leak}")
        leaks.append(float(leak))
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
    """Points [8, d] to run a network at, one of each size in `_SCALES`, the same ones every time; exact in any precision."""
    steps = np.random.default_rng(0).integers(-8, 9, size=(len(_SCALES), weight.shape[1])) / 8
    dtype = weight.dtype if weight.is_floating_point() or weight.is_complex() else torch.float32  # the others do not run
    return torch.from_numpy(steps * np.array(_SCALES)[:, None]).to(dtype).to(weight.device)


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
        raise _Differs(_difference(got[i, k], expected[i, k], i, k))


def _difference(got, expected, i, k):
    return (
        f"model must compute what its layers say, but logit {k} of model(x) is {got:.6g} and that of its layers "
        f"{expected:.6g}, at a point of size {_SCALES[i]:g}. A hook, a wrapper, random numbers or its forward change it: "
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


def plane_of(axes, network):
    """Two directions [2, d] that span a plane, as float64; the plane itself if `axes` is None and d is 2.

    Raises ValueError where axes are missing, of another shape, not finite, or do not span a plane.
    """
    dim = network.in_dim
    if axes is None:
        if dim != 2:
            raise ValueError(f"axes must be given for a model with {dim} inputs: axes [2, {dim}], two vectors that span a plane")
        return np.eye(2)
    axes = float64(axes, "axes")
    if axes.shape == (2, *(network.shape or ())):
        axes = axes.reshape(2, dim)
    if axes.shape != (2, dim):
        raise ValueError(f"axes must have shape (2, {dim}), not {axes.shape}")
    if not np.isfinite(axes).all() or np.linalg.matrix_rank(axes) < 2:
        raise ValueError("axes must be two finite vectors that span a plane: independent, not zero and not parallel")
    return axes


def vector(values, name, network):
    """A point or direction as a float64 vector [d], or a ValueError that names the argument."""
    values = float64(values, name)
    if values.shape == network.shape:
        values = values.ravel()
    if values.shape != (network.in_dim,):
        raise ValueError(f"{name} must have shape {_shapes(network)}, the input dimension of the model, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must hold finite numbers; it holds NaN or infinity")
    return values


def flat_rows(values, network):
    """Points or directions [n, d] as they are, and [n, *shape] as [n, d]."""
    return values.reshape(len(values), -1) if network.shape and values.shape[1:] == network.shape else values


def _shapes(network):
    vector = f"({network.in_dim},)"
    return vector if network.shape in (None, (network.in_dim,)) else f"{network.shape} or {vector}"


def shape_of(values, batch=0):
    """The shape that points have, without the first `batch` axes; None where they have none."""
    try:
        shape = tuple(values.shape) if isinstance(values, torch.Tensor) else np.shape(values)
    except (ValueError, RuntimeError, TypeError):
        return None
    return shape[batch:] or None


def _near_one(values, axis=None):
    """The values times a power of two, so that the largest along the axis (or of all) is about 1: exact."""
    return np.ldexp(values, -np.frexp(np.abs(values).max(axis=axis, keepdims=True))[1])
