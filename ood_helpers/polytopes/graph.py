"""A torch module of any form as a graph of steps: what `line`, `plane` and the others compute with where there are no matrices.

`torch.fx` runs the module's `forward` once with symbols in place of numbers and writes down what it calls. Each call that is
known (`steps`) is kept, in float64; parts that do not depend on the input are computed at once; any other call is refused by
its name.
"""

import itertools
import math
import operator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import fx, nn

from ood_helpers.arrays import float64

from .steps import Affine, Bend, Most, Refused, Steps, depends, is_value, numbers, of_function, of_layer, values_in

BATCH = 1 << 22  # numbers that a step holds at a time: 32 MB
ROUNDING = 1e-13  # a sum of floats this small against the sum of its terms' sizes is taken for rounding noise: it is 0
OUT_OF_RANGE = "the network's numbers exceed the range of float64: scale weights, biases or points nearer to 1"
_CHAIN = 1 << 23  # numbers that the matrices of a graph may hold in all: 64 MB
SEE_THROUGH = (nn.DataParallel, nn.parallel.DistributedDataParallel)  # they compute what their `.module` does
_SOFTMAX = ("softmax", "log_softmax", "Softmax", "LogSoftmax")
_RESHAPES = ("reshape", "view", "flatten", "squeeze", "unsqueeze", "Flatten", "Unflatten")  # what may follow a softmax
_TRAINED = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd, nn.RReLU)  # they compute something else in train mode


@dataclass(frozen=True, eq=False)
class Graph:
    """A piecewise affine network as steps: entry 0 of `steps` is the input, the last one gives the logits.

    shape    of one input, without the axis of the batch
    last_use [steps] the step after which the value of each is not needed any more
    """

    steps: list
    shape: tuple
    last_use: list = field(init=False)

    def __post_init__(self):
        last = list(range(len(self.steps)))
        for i, step in enumerate(self.steps):
            for source in step.sources if step else ():
                last[source] = i
        object.__setattr__(self, "last_use", last)

    @property
    def in_dim(self):
        return math.prod(self.shape)

    @property
    def n_classes(self):
        return math.prod(self.steps[-1].shape)

    @property
    def kinks(self):
        """The numbers of the steps that are not affine."""
        return [i for i, step in enumerate(self.steps) if isinstance(step, Bend | Most)]

    @property
    def chooses(self):
        """Whether the greatest of several numbers is taken somewhere."""
        return any(isinstance(step, Most) for step in self.steps[1:])

    @property
    def widest(self):
        """How many numbers the largest value holds."""
        return max(self.in_dim, *(math.prod(step.shape) * (step.index.shape[1] if isinstance(step, Most) else 1)
                                  for step in self.steps[1:]))  # fmt: skip

    def tensor(self, x):
        """Points [n, d] as values of the input, [n, 1, …]."""
        return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)).reshape(-1, 1, *self.shape)

    def __call__(self, x):
        """Logits [..., K] of points x [..., d] or [..., *shape]."""
        x = float64(x, "x")
        lead = x.shape[: x.ndim - len(self.shape)] if x.shape[x.ndim - len(self.shape) :] == self.shape else x.shape[:-1]
        return self.logits(x.reshape(-1, self.in_dim)).reshape(*lead, self.n_classes)

    def logits(self, x):
        """Logits [n, K] of points x [n, d], in batches."""
        chunk = max(1, BATCH // self.widest)
        found = [self.run(self.tensor(x[i : i + chunk]))[len(self.steps) - 1] for i in range(0, len(x), chunk)]
        return torch.cat(found).reshape(len(x), -1).numpy() if found else np.zeros((0, self.n_classes))

    def run(self, x, start=0, stop=None, kept=None):
        """The values of the steps up to `stop` that are still needed then, as a dict; `kept` are those before `start`."""
        stop = len(self.steps) if stop is None else stop
        values = {0: x} if kept is None else dict(kept)
        for i in range(max(start, 1), stop):
            values[i] = self.steps[i](*(values[source] for source in self.steps[i].sources))
            self.forget(values, i)
        return values

    def forget(self, values, i):
        """Drop what step i was the last to use."""
        for source in {s for s in self.steps[i].sources if self.last_use[s] == i}:
            del values[source]

    def leaders(self, u):
        """The classes whose logit grows fastest along the rays α·u, α → ∞: boolean [n, K] for directions u [n, d].

        f(αu)/α → f0(u): every constant is 0, and a bend has the slopes of its two ends.
        """
        u = u / np.abs(u).max(axis=1, keepdims=True)
        found = []
        chunk = max(1, BATCH // (2 * self.widest))
        for i in range(0, len(u), chunk):
            x = self.tensor(u[i : i + chunk])
            values, sizes = {0: x}, {0: x.abs()}
            for j, step in enumerate(self.steps[1:], 1):
                xs, their = ([held[s] for s in step.sources] for held in (values, sizes))
                if isinstance(step, Affine):
                    y, size = step.linear(*xs), step.sized(*their)
                    y[y.abs() <= ROUNDING * size] = 0
                elif isinstance(step, Bend):
                    y = _far_bend(step, *xs)
                    size = y.abs()
                else:
                    y = step(*xs)
                    size = y.abs()
                values[j], sizes[j] = y, size
                self.forget(values, j), self.forget(sizes, j)
            h, size = (held[len(self.steps) - 1].reshape(len(x), -1).numpy() for held in (values, sizes))
            best = h.argmax(axis=1)[:, None]
            margin = np.take_along_axis(h, best, axis=1) - h
            found.append(margin <= ROUNDING * (np.take_along_axis(size, best, axis=1) + size))
        return np.concatenate(found) if found else np.zeros((0, self.n_classes), bool)

    def with_outputs(self, matrix):
        """The graph with the outputs matrix [m, K] @ logits, summed as one step with the last affine one."""
        matrix, last = torch.from_numpy(np.asarray(matrix, dtype=np.float64)), self.steps[-1]
        known = isinstance(last, Affine)

        def outputs(inner, matrix):
            return lambda *xs: (inner(*xs) if known else xs[0]).flatten(1)[:, None] @ matrix.T

        constant = last.constant.reshape(1, -1) @ matrix.T if known and last.constant is not None else None
        linear, sized = (outputs(getattr(last, part, None), m) for part, m in (("linear", matrix), ("sized", matrix.abs())))
        sources = last.sources if known else (len(self.steps) - 1,)
        reach = (last.reach if known else 0) + sum(matrix.shape)
        step = Affine("the logits", sources, (1, len(matrix)), linear, sized, constant, reach)
        return Graph([*self.steps[: -1 if known else None], step], self.shape)

    def matrices(self):
        """(weights, biases, leaks) of the network of matrices that computes the same, or None: no chain, or too large.

        In a chain all that a kink gives goes through affine steps into one other kink, or into the logits.
        """
        weights, biases, leaks = [], [], []
        at, pending = 0, None
        sizes = [self.in_dim, *(math.prod(self.steps[i].shape) for i in self.kinks), self.n_classes]
        if sum(m * n for m, n in itertools.pairwise(sizes)) > _CHAIN or self.chooses:
            return None
        for stop in [*self.kinks, len(self.steps)]:
            target = self.steps[stop].sources[0] if stop < len(self.steps) else len(self.steps) - 1
            between = range(at + 1, max(target, at) + 1)
            if any(source < at for i in between for source in self.steps[i].sources) or target < at:
                return None  # a value from before the last kink is used again: a skip
            weight, bias = self._affine(at, target)
            if pending is not None:
                weight, bias = weight @ pending[0], bias + weight @ pending[1]
            if stop < len(self.steps):
                ahead, leak, out = _as_relus(self.steps[stop], len(bias))
                weight, bias = ahead[0] @ weight, ahead[0] @ bias + ahead[1]
                pending = out
                leaks.append(leak)
            weights.append(weight)
            biases.append(bias)
            at = stop
        return weights, biases, leaks

    def _affine(self, at, target):
        """Weight and bias of the steps after `at`, up to `target`, which depend on nothing else."""
        shape = self.steps[at].shape if at else (1, *self.shape)
        n = math.prod(shape)
        if at == target:
            return np.eye(n), np.zeros(n)
        zero = {at: torch.zeros(1, *shape, dtype=torch.float64)}
        for i in range(at + 1, target + 1):
            zero[i] = self.steps[i](*(zero[source] for source in self.steps[i].sources))
        columns, chunk = [], max(1, BATCH // self.widest)
        basis = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
        for k in range(0, n, chunk):
            values = {at: basis[k : k + chunk]}
            for i in range(at + 1, target + 1):
                values[i] = self.steps[i].linear(*(values[source] for source in self.steps[i].sources))
            columns.append(values[target].flatten(1))
        return np.ascontiguousarray(torch.cat(columns).T.numpy()), zero[target].flatten().numpy()


def _far_bend(step, z):
    """What a bend is far out: its first slope below 0, its last one above, and 0 at 0."""
    return torch.where(z > 0, step.gains[-1] * z, torch.where(z < 0, step.gains[0] * z, torch.zeros_like(z)))


def _as_relus(step, n):
    """A bend of n numbers as ((W, b) ahead, leak of the kink, (W, b) behind): one LeakyReLU, or several ReLUs a number."""
    shape = step.shape

    def column(values):
        return torch.broadcast_to(torch.as_tensor(values, dtype=torch.float64), shape).flatten().numpy()

    at, gains, shifts = ([column(part) for part in parts] for parts in (step.at, step.gains, step.shifts))
    if len(at) == 1 and (gains[1] == 1).all() and (gains[0] == gains[0][0]).all() and not at[0].any():
        return (np.eye(n), np.zeros(n)), float(gains[0][0]), (np.eye(n), np.zeros(n))
    # f(z) = f(at_0) − gain_0 relu(at_0 − z) + gain_1 relu(z − at_0) + Σ (gain_i − gain_i−1) relu(z − at_i−1)
    terms = [(-1.0, at[0], -gains[0]), (1.0, at[0], gains[1])]
    terms += [(1.0, at[i], gains[i + 1] - gains[i]) for i in range(1, len(at))]
    ahead, shift, behind = [], [], []
    for sign, place, gain in terms:
        used = np.flatnonzero(gain)
        ahead.append(sign * np.eye(n)[used])
        shift.append(-sign * place[used])
        behind.append((np.eye(n) * gain)[:, used])
    constant = gains[0] * at[0] + shifts[0]
    return (np.concatenate(ahead), np.concatenate(shift)), 0.0, (np.concatenate(behind, axis=1), constant)


# Tracing ------------------------------------------------------------------------------------------------------------------


class Untraced(ValueError):
    """A forward that torch.fx cannot follow."""


class _Unread(Exception):
    """A step that is not understood, with its name."""


class _Tracer(fx.Tracer):
    """Layers of torch.nn stay whole; wrappers, compiled layers and Sequentials are looked into.

    within  what a module that runs the nodes of a file calls the one at hand
    """

    within = None

    def create_node(self, *args, **kwargs):
        node = super().create_node(*args, **kwargs)
        node.meta["within"] = self.within
        return node

    def is_leaf_module(self, module, name):
        return super().is_leaf_module(module, name) and not isinstance(module, SEE_THROUGH)

    def call_module(self, module, forward, args, kwargs):
        inner = getattr(module, "_orig_mod", None)
        if isinstance(inner, nn.Module):
            return inner(*args, **kwargs)
        if isinstance(module, SEE_THROUGH):
            return module.module(*args, **kwargs)
        if module not in self.submodule_paths:  # made in the forward itself
            return forward(*args, **kwargs)
        return super().call_module(module, forward, args, kwargs)


class _Reader(_Tracer):
    """Every call is understood as soon as it is made. What does not depend on the input's numbers, such as its shape, stays
    what it is: a forward may ask for it, count with it and decide by it.

    known  what each node of the trace gives: a value of `steps`, or constants
    stale  values that a step has changed in place since, and that step's own: {index: (index, name)}
    """

    def __init__(self, model, shape, in_training):
        super().__init__()
        self.model, self.in_training = model, in_training
        self.layers = dict(model.named_modules(remove_duplicate=False))
        self.steps, self.known, self.stale, self.busy = Steps(shape), {}, {}, False

    def proxy(self, node):
        return _Number(node, self)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        return attr_val

    def call_module(self, module, forward, args, kwargs):
        return forward(*args, **kwargs) if self.busy else super().call_module(module, forward, args, kwargs)

    def create_node(self, *args, **kwargs):
        node, outer = super().create_node(*args, **kwargs), self.busy
        self.busy = True
        try:
            self.known[node] = self._read(node)
        finally:
            self.busy = outer
        return node

    def create_proxy(self, *args, **kwargs):
        proxy = super().create_proxy(*args, **kwargs)
        value = self.known[proxy.node]
        if isinstance(value, list | tuple) and depends(value):
            parts = [proxy[i] for i in range(len(value))]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        return proxy if depends(value) else value

    def _read(self, node):
        args, kwargs = (fx.node.map_arg(part, lambda n: self.known[n]) for part in (node.args, node.kwargs))
        self.steps.name = shown = _shown_name(node, self.layers)
        try:
            self._check_fresh(node, args, kwargs)
            value = _value(self.steps, self.model, node, self.layers, args, kwargs, self.in_training, first=not self.known)
        except Refused as refused:
            raise _Unread(f"{shown}: {refused.args[0] or _what_is_known(node, self.layers)}") from refused
        except ValueError as error:
            raise _Unread(f"{shown}: {error}") from error
        except (TypeError, LookupError, AttributeError, RuntimeError) as error:
            raise _Unread(f"{shown}: is called with what it does not take; {type(error).__name__}: {error}") from error
        if args and is_value(args[0]) and is_value(value) and value != args[0] and _in_place(node, self.layers, kwargs):
            self._replaced(args[0], value, shown)
        return value

    def _replaced(self, old, new, shown):
        """After a change in place: every node that gave the old value gives the new one; views of it are not followed."""
        self.known |= {node: new for node, value in self.known.items() if is_value(value) and value == old}
        self.stale |= {index: (new.index, shown) for index in self.steps.relatives(old.index) if index != old.index}
        self.steps.views[new.index] = self.steps.views.get(old.index, old.index)

    def _check_fresh(self, node, args, kwargs):
        for value in values_in([args, kwargs]):
            changed, shown = self.stale.get(value.index, (None, None))
            if changed is None:
                continue
            if _name(node) == "setitem" and value is args[0] and is_value(args[2]) and args[2].index == changed:
                del self.stale[value.index]  # x[i] += 1: the part of x is changed, and put back
                continue
            raise Refused(
                f"sees numbers of which {shown} has changed a part, or the whole, in place; write y = y.relu() or the like there"
            )


class _Number(fx.Proxy):
    """What stands for a value while the forward runs."""

    def __getattr__(self, name):
        if name in _FACTS:
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return super().__getattr__(name)

    def __len__(self):
        return self.shape[0]

    def __iter__(self):
        return iter([self[i] for i in range(len(self))])

    def __setitem__(self, index, value):
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


def _changing(function):
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in (operator.iadd, operator.isub, operator.imul, operator.itruediv):
    setattr(_Number, f"__{_function.__name__}__", _changing(_function))


def traced(model, shape, in_training=()):
    """The `Graph` of a module in eval mode, for inputs of this shape. The module is not run.

    in_training  names of the modules that were in train mode when the reader gave the model
    Raises ValueError that names the step which is not understood, and `Untraced` where torch.fx cannot follow.
    """
    reader = _Reader(model, shape, in_training)
    try:
        graph = reader.trace(model)
    except _Unread as error:
        raise ValueError(str(error)) from error.__cause__
    except Exception as error:
        raise Untraced(
            "model must do the same for every input, so that its forward can be traced by torch.fx. Choices that depend on the "
            f"data are not understood ({type(error).__name__}: {str(error).split('. ')[0]})"
        ) from error
    return _finished(reader.steps, next(reader.known[node] for node in graph.nodes if node.op == "output"))


def cut_softmax(model):
    """The model as a traced module that ends before its softmax; ValueError where it does not end in one."""
    try:
        root = fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:
        raise ValueError(
            "model must have a forward that torch.fx can trace for any shape of input, to be cut before its softmax; "
            f"write one that ends before it ({type(error).__name__}: {str(error).split('. ')[0]})"
        ) from error
    layers = dict(root.named_modules())
    for node in root.graph.nodes:
        if node.op == "output":
            last = node.args[0]

    def name(node):
        return type(layers[node.target]).__name__ if node.op == "call_module" else _name(node)

    while isinstance(last, fx.Node) and name(last) in _RESHAPES and len(last.args[0].users) == 1:
        last = last.args[0]
    if not isinstance(last, fx.Node) or name(last) not in _SOFTMAX:
        raise ValueError("model must end in a Softmax or LogSoftmax; its last step is another one")
    last.replace_all_uses_with(last.args[0])
    root.graph.erase_node(last)
    root.recompile()
    if hasattr(model, "input_shape"):
        root.input_shape = model.input_shape
    return root


def only(output):
    """What a list, tuple or dict of one holds; anything else as it is."""
    if isinstance(output, list | tuple | dict) and len(output) == 1:
        return only(next(iter(output.values() if isinstance(output, dict) else output)))
    return output


def _finished(steps, output):
    output = only(output)
    if not is_value(output):
        raise ValueError(
            "model must return one tensor, its logits, that depends on its input; where it returns several, write a small module "
            "around it that returns that one"
        )
    if math.prod(output.shape) != max(output.shape, default=1):
        raise ValueError(f"model must give one row of logits for one input, not an output of shape {list(output.shape)}")
    needed = {output.index}
    for i in range(output.index, 0, -1):
        if i in needed:
            needed.update(steps.found[i].sources)
    if 0 not in needed:
        raise ValueError("model must return logits that depend on its input")
    if output.index == 0:
        output = steps.affine([output], lambda x: x.clone(), reach=1)
        needed.add(output.index)
    order = {old: new for new, old in enumerate(sorted(needed))}
    kept = [None]
    for old in sorted(needed)[1:]:
        step = steps.found[old]
        fields = {name: getattr(step, name) for name in step.__dataclass_fields__}
        kept.append(type(step)(**fields | {"sources": tuple(order[source] for source in step.sources)}))
    return Graph(kept, steps.input.shape[1:])


def _shown_name(node, layers):
    """A step as a reader finds it: by its node in the file, the layer's place in the model, or the function that is called."""
    if node.meta.get("within"):
        return node.meta["within"]
    if node.op == "call_module":
        return f"layer {node.target} ({type(layers[node.target]).__name__})"
    if node.op in ("call_function", "call_method"):
        return f"step {node.name} ({_name(node)})"
    return f"{node.op} {node.name}"


def _name(node):
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _what_is_known(node, layers):
    name = type(layers[node.target]).__name__ if node.op == "call_module" else _name(node)
    if name in _SOFTMAX:
        return "gives probabilities, which are not piecewise affine; polytopes.without_softmax(model) is the model without it"
    return (
        "expected a ReLU or LeakyReLU, or another layer that is affine or piecewise affine (docs/your_network.md lists them); "
        "this one is not understood"
    )


def _value(steps, model, node, layers, args, kwargs, in_training, first):
    match node.op:
        case "placeholder":
            if first:
                return (steps.input,) if node.target.startswith("*") else steps.input
            if node.target.startswith("*"):
                return {} if node.target.startswith("**") else ()
            if not args:
                raise ValueError("model must have one input; fix the others, for example by a module that calls it with them")
            return args[0]
        case "get_attr":
            return _constant(_attribute(model, node.target))
        case "output":
            return args[0]
        case "call_module":
            layer = layers[node.target]
            if node.target in in_training and isinstance(layer, _TRAINED) and getattr(layer, "p", 1):
                raise ValueError("is in train mode, in which it computes something else; call model.eval() first")
            return of_layer(steps, layer, args, kwargs) if depends([args, kwargs]) else _constant(layer(*args, **kwargs))
    name = _name(node).split(".")[0]
    if not depends([args, kwargs]):
        target = node.target if node.op == "call_function" else getattr(args[0], node.target)
        return target(*(args if node.op == "call_function" else args[1:]), **kwargs)
    if _name(node) == "batch_norm.default":  # of an exported module: its arguments are in another order
        args = (args[0], *args[3:5], *args[1:3], *args[5:8])
    if name == "getattr":
        name, args = args[1], args[:1]
    if args and is_value(args[0]):
        x, *rest = args
        if name in _FACTS or name in _ASKED:
            return _fact(x.shape, name, *rest, **kwargs)
        if name in _CONSTANTS and not depends([rest, kwargs]):
            return getattr(torch if name.endswith("_like") else torch.zeros(x.shape, dtype=torch.float64), name)(
                *([torch.zeros(x.shape, dtype=torch.float64)] if name.endswith("_like") else []), *rest, **kwargs
            )
    if name in ("T", "mT", "H", "t"):
        name, args = "transpose", (args[0], -2, -1)
    if name == "getitem" and not is_value(args[0]):
        return args[0][args[1]]
    if name in ("view_as", "reshape_as", "expand_as"):
        name, args = name.split("_")[0].replace("view", "reshape"), (args[0], args[1].shape)
    if _name(node).rstrip("_") in ("dropout", "batch_norm") and "" in in_training:
        raise ValueError("the model is in train mode, in which this computes something else; call model.eval() first")
    return of_function(steps, name, args, kwargs)


def _in_place(node, layers, kwargs):
    """Whether a step writes its result over its first argument."""
    if node.op == "call_module":
        return bool(getattr(layers[node.target], "inplace", False))
    name = _name(node)
    changes = (name.endswith("_") and not name.endswith("__")) or name in ("setitem", "iadd", "isub", "imul", "itruediv")
    return changes or bool(kwargs.get("inplace"))


_FACTS = ("shape", "ndim", "dtype", "device", "is_cuda", "requires_grad", "layout", "is_sparse", "is_quantized")  # attributes
_ASKED = "size dim ndimension numel nelement is_floating_point is_complex get_device is_contiguous element_size __len__".split()
_CONSTANTS = "zeros_like ones_like full_like new_zeros new_ones new_full new_tensor".split()  # they take no more than the shape


def _fact(shape, name, *args, **kwargs):
    """What a program may ask of a value without depending on its numbers."""
    match name:
        case "shape" | "size":
            return torch.zeros(shape, device="meta").size(*args, **kwargs)
        case "numel" | "nelement":
            return math.prod(shape)
        case "dtype":
            return torch.float64
        case "device":
            return torch.device("cpu")
        case "is_floating_point" | "is_contiguous":
            return True
        case "dim" | "ndim" | "ndimension":
            return len(shape)
    return (
        getattr(torch.zeros(shape, dtype=torch.float64, device="meta"), name, False)
        if name in _FACTS
        else getattr(torch.zeros(shape, dtype=torch.float64), name)()
    )


def _attribute(model, path):
    for part in path.split("."):
        model = getattr(model, part)
    return model


def _constant(value):
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return numbers(value)
    return value
