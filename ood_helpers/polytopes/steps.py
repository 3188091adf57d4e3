"""What a traced network may consist of: affine steps, bends of single numbers, and the greatest of several numbers.

Every operation of torch that is known here becomes one or two of these, in float64. Any other is refused by its name. Values
have the shape that they have for a batch of one input, [1, …]; steps work on many such values at once, [N, 1, …].
"""

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ood_helpers.arrays import dense


@dataclass(frozen=True, eq=False)
class Affine:
    """linear(*x) + constant. `sized` is `linear` with every factor replaced by its size: how large the terms of its sums are.

    reach is at least the number of terms in any sum of it, or of its transpose.
    """

    name: str
    sources: tuple
    shape: tuple
    linear: Callable
    sized: Callable
    constant: torch.Tensor | None
    reach: int

    def __call__(self, *xs):
        y = self.linear(*xs)
        return y if self.constant is None else y + self.constant


@dataclass(frozen=True, eq=False)
class Bend:
    """A continuous function of each number: gains[i] z + shifts[i] for z between at[i - 1] and at[i]; floats or tensors."""

    name: str
    sources: tuple
    shape: tuple
    at: list
    gains: list
    shifts: list

    @property
    def is_relu(self):
        parts = [*self.at, *self.gains, *self.shifts]
        return not any(map(torch.is_tensor, parts)) and parts == [0, 0, 1, 0, 0]

    def __call__(self, z):
        if self.is_relu:
            return z.clamp(min=0)
        y = self.gains[0] * z + self.shifts[0]
        for at, gain, shift in zip(self.at, self.gains[1:], self.shifts[1:], strict=True):
            y = torch.where(z > at, gain * z + shift, y)
        return y


@dataclass(frozen=True, eq=False)
class Most:
    """The greatest of several numbers of one value (sign 1), or the least of them (sign −1).

    index [n, J] says which numbers of the flat value each result chooses from; −1 is none.
    """

    name: str
    sources: tuple
    shape: tuple
    index: torch.Tensor
    sign: int

    def __call__(self, x):
        return self.sign * self.candidates(self.sign * x).amax(-1).reshape(len(x), *self.shape)

    def candidates(self, x):
        """[N, n, J] of values [N, …]; −∞ where there is none."""
        x = x.flatten(1)
        if self.index.min() < 0:
            x = torch.cat([x, x.new_full((len(x), 1), -math.inf)], dim=1)
        return x.index_select(1, self.index.flatten() % x.shape[1]).unflatten(1, self.index.shape)


@dataclass(frozen=True)
class _Value:
    """A number or numbers that depend on the network's input: what step `index` gives, of this shape."""

    index: int
    shape: tuple


@dataclass(frozen=True, eq=False)
class _Mask:
    """Where a value is above another one or a constant, or below: the result of a comparison."""

    above: bool
    value: _Value
    other: object


@dataclass(frozen=True)
class _Withheld:
    """What a step gives beside its values, and nothing here can be done with; `why` is said where it is used."""

    why: str


class _Found(NamedTuple):
    """What torch gives for the greatest of several numbers."""

    values: _Value
    indices: _Withheld


class Refused(ValueError):
    """A step that is not understood. Raised with what is wrong, without the name of the step, which its caller adds."""


class Steps:
    """The steps found so far. The first entry stands for the input."""

    def __init__(self, shape):
        self.found = [None]
        self.input = _Value(0, (1, *shape))
        self.name = ""
        self.views = {}  # {index: index} of values that share their numbers with an earlier one
        self.scaled = {}  # {index: (index of the value, gain, shift)} of those that are gain * value + shift, number by number

    def relatives(self, index):
        """The values that share numbers with this one, itself among them."""
        root = self.views.get(index, index)
        return [i for i in range(len(self.found)) if self.views.get(i, i) == root]

    def _add(self, kind, sources, shape, *rest):
        """A single number, of shape (), is kept as one of shape (1,)."""
        self.found.append(kind(self.name, tuple(value.index for value in sources), tuple(shape) or (1,), *rest))
        return _Value(len(self.found) - 1, tuple(shape))

    def affine(self, sources, linear, sized=None, constant=None, reach=None):
        """A value linear(*sources) + constant; the functions take values with N in front. sized None: it is linear itself."""
        zeros = [torch.zeros(1, *value.shape, dtype=torch.float64) for value in sources]
        shape = linear(*zeros).shape[1:]
        if constant is not None:
            constant = torch.broadcast_to(constant, shape).clone().reshape(shape or (1,))
            if not torch.isfinite(constant).all():
                raise Refused("holds NaN or infinity; its numbers must be finite")
        if reach is None:
            reach = sum(math.prod(value.shape) for value in sources) + math.prod(shape)
        linear, sized = (_of_shapes(f, [value.shape for value in sources], shape) for f in (linear, sized or linear))
        _check_linear(linear, sized, [value.shape or (1,) for value in sources])
        return self._add(Affine, sources, shape, linear, sized, constant, reach)

    def bend(self, z, at, gains, shifts):
        for values in (*at, *gains, *shifts):
            if not torch.isfinite(torch.as_tensor(values)).all():
                raise Refused("its slopes and bounds must be finite numbers")
        return self._add(Bend, [z], z.shape, at, gains, shifts)

    def most(self, x, index, shape, sign=1):
        return self._add(Most, [x], shape, index, sign)


def _of_shapes(function, sources, shape):
    """The function with values of shape [N, 1] in place of those of shape [N]."""
    if shape and all(sources):
        return function

    def reshaped(*xs):
        y = function(*(x.reshape(len(x), *of) for x, of in zip(xs, sources, strict=True)))
        return y.reshape(len(y), *(shape or (1,)))

    return reshaped


def _check_linear(linear, sized, shapes):
    """Refused unless the functions are linear, and the second one bounds the first, at random numbers: options may round."""
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    one, other = linear(*xs)
    size = sized(*(x.abs().sum(0, keepdim=True) for x in xs))[0]
    both, back = linear(*(x[:1] + x[1:] for x in xs))[0], linear(*(-x[:1] for x in xs))[0]
    room = 1e-9 * size + 1e-300
    if not (((both - one - other).abs() <= room).all() and ((back + one).abs() <= room).all()):
        raise Refused("is not affine, as it is called here")
    if not (torch.maximum(one.abs(), other.abs()) <= size + room).all():
        raise Refused("is called in a way that is not understood")


# Pieces of operations -----------------------------------------------------------------------------------------------------


def is_value(argument):
    return isinstance(argument, _Value)


def depends(argument):
    """Whether something in nested lists, tuples and dicts depends on the network's input."""
    if isinstance(argument, dict):
        argument = list(argument.values())
    if isinstance(argument, list | tuple):
        return any(depends(part) for part in argument)
    return isinstance(argument, _Value | _Mask | _Withheld)


def _special(arguments, kind):
    """The first mask, or what else of its kind, in nested lists, tuples and dicts; None without one."""
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, list | tuple):
        return next((found for part in arguments if (found := _special(part, kind))), None)
    return arguments if isinstance(arguments, kind) else None


def values_in(arguments):
    """All values in nested lists, tuples and dicts."""
    if is_value(arguments):
        return [arguments]
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    return [value for part in arguments for value in values_in(part)] if isinstance(arguments, list | tuple) else []


def _filled(arguments, xs, constant):
    """The arguments with the next of xs for each value, and constant(c) for each tensor."""
    if is_value(arguments):
        return next(xs)
    if isinstance(arguments, torch.Tensor):
        return constant(arguments)
    if isinstance(arguments, dict):
        return {key: _filled(part, xs, constant) for key, part in arguments.items()}
    if isinstance(arguments, list | tuple):
        filled = [_filled(part, xs, constant) for part in arguments]
        return filled if isinstance(arguments, list) else tuple(filled)
    return arguments


def _caller(function, args, kwargs, constant):
    """function(*args, **kwargs) as a function of the values in them, for many at once."""

    def call(*xs):
        xs = iter(xs)
        return function(*_filled(args, xs, constant), **_filled(kwargs, xs, constant))

    return lambda *xs: torch.vmap(call)(*xs)


def _number(argument):
    """A number as a tensor, so that it counts as a constant of the function and not as one of its options."""
    return torch.tensor(float(argument), dtype=torch.float64) if isinstance(argument, int | float) else argument


def _unchanged(constant):
    return constant


def _moves(function, alike=True, joins=False):
    """Numbers are moved, copied or averaged: all factors are at least 0. Tensors beside them say where (indices, masks). Where
    the function joins, they are constants among the numbers.
    """

    def handle(steps, *args, **kwargs):
        zeros = list(_zeros(values_in([args, kwargs])))
        xs = iter(zeros)
        outputs = function(*_filled(args, xs, _unchanged), **_filled(kwargs, xs, _unchanged))
        if isinstance(outputs, tuple | list):
            parts = [lambda *a, i=i, **k: function(*a, **k)[i] for i in range(len(outputs))]
            return tuple(one(steps, part, args, kwargs, zeros, y) for part, y in zip(parts, outputs, strict=True))
        return one(steps, function, args, kwargs, zeros, outputs)

    def one(steps, function, args, kwargs, zeros, output):
        values = values_in([args, kwargs])
        constant = _caller(function, args, kwargs, _unchanged)(*_zeros(values, 1))[0]
        linear = _caller(function, args, kwargs, torch.zeros_like if joins else _unchanged)
        copies = None
        if alike and len(values) == 1:  # so many results hold the same number
            sizes, back = torch.func.vjp(linear, next(_zeros(values, 1)))
            copies = int(back(torch.ones_like(sizes))[0].max()) + 1
        value = steps.affine(values, linear, constant=constant if constant.any() else None, reach=copies)
        for x, zero in zip(values, zeros, strict=True):
            if output.untyped_storage().data_ptr() == zero.untyped_storage().data_ptr():
                steps.views[value.index] = steps.views.get(x.index, x.index)
        return value

    return handle


def _zeros(values, *lead):
    return iter([torch.zeros(*lead, *value.shape, dtype=torch.float64) for value in values])


def _sums(function, sized):
    """Values and constants are added up, or subtracted."""

    def handle(steps, *args, **kwargs):
        args = [_number(argument) for argument in args]
        values = values_in(args)
        constant = _caller(function, args, kwargs, _unchanged)(*_zeros(values, 1))[0]
        linear, sizes = (_caller(f, args, kwargs, torch.zeros_like) for f in (function, sized))
        value = steps.affine(values, linear, sizes, constant if constant.any() else None, reach=4)
        return _number_by_number(steps, value, values, linear, constant)

    return handle


def _number_by_number(steps, value, sources, linear, shift):
    """The value, of which is kept that it is gain * source + shift."""
    if len(sources) == 1 and sources[0].shape == value.shape:
        gain = linear(torch.ones(1, *value.shape, dtype=torch.float64))[0]
        steps.scaled[value.index] = sources[0].index, gain, shift
    return value


def _factors(function, value_first=False):
    """One value times constants."""

    def handle(steps, *args, **kwargs):
        args = [_number(argument) if function is not torch.einsum else argument for argument in args]
        args = [part.double() if isinstance(part, torch.Tensor) and part.dtype == torch.bool else part for part in args]
        values = values_in([args, kwargs])
        if value_first and len(values) > is_value(args[0]):
            raise Refused("divides by a value that depends on the input, which is not piecewise affine")
        if len(values) > 1:
            raise Refused("multiplies two values that both depend on the input, which is not piecewise affine")
        for constant in (*args, *kwargs.values()):
            if isinstance(constant, torch.Tensor) and not torch.isfinite(constant).all():
                raise Refused("holds NaN or infinity; its numbers must be finite")
        if value_first and not torch.as_tensor(args[1]).all():
            raise Refused("divides by 0")
        linear, sizes = (_caller(function, args, kwargs, change) for change in (_unchanged, torch.abs))
        value = steps.affine(values, linear, sizes)
        return _number_by_number(steps, value, values, linear, 0.0) if function in (torch.mul, torch.div) else value

    return handle


def _weighted(steps, x, weight, bias, apply, trailing):
    """apply(x, weight) + bias, where `apply` works on any number of values whose last `trailing` axes belong together."""
    if not (torch.isfinite(weight).all() and (bias is None or torch.isfinite(bias).all())):
        raise Refused("weights must be finite numbers; it holds NaN or infinity")

    def run(x, weight):
        lead = x.shape[: x.dim() - trailing]
        y = apply(x.reshape(-1, *x.shape[x.dim() - trailing :]), weight)
        return y.reshape(*lead, *y.shape[1:])

    reach = weight.numel() // weight.shape[0] + weight.numel() // weight.shape[1]
    return steps.affine([x], lambda x: run(x, weight), lambda x: run(x, weight.abs()), bias, reach)


def _scaled(steps, x, scale, shift):
    """scale * x + shift, both [channels], channels on axis 1."""
    ones = [1] * (len(x.shape) - 2)
    scale, shift = scale.reshape(1, -1, *ones), shift.reshape(1, -1, *ones)
    if not torch.isfinite(scale).all():
        raise Refused("weights must be finite numbers; it holds NaN or infinity")
    return steps.affine([x], lambda x: scale * x, lambda x: scale.abs() * x, torch.broadcast_to(shift, x.shape), reach=1)


def numbers(tensor, name="weight"):
    """A parameter or buffer as a float64 tensor of its own, on the cpu; None stays None."""
    return None if tensor is None else dense(tensor.detach().cpu(), name).clone()


# Layers and functions -----------------------------------------------------------------------------------------------------


def _linear(steps, x, weight, bias=None):
    if x.shape[-1] != weight.shape[-1]:
        raise Refused(f"takes {weight.shape[-1]} inputs but the layer before it gives {x.shape[-1]}")
    return _weighted(steps, x, weight, bias, lambda x, w: x @ w.T, 1)


def _convolution(steps, x, weight, bias, apply):
    bias = None if bias is None else bias.reshape(-1, *[1] * (weight.dim() - 2))
    return _weighted(steps, x, weight, bias, apply, weight.dim() - 1)


def _conv_module(steps, layer, x):
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[layer.weight.dim() - 3]
        options = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        apply = lambda x, w: run(x, w, None, *options)  # noqa: E731
    else:
        apply = lambda x, w: layer._conv_forward(x, w, None)  # noqa: E731
    return _convolution(steps, x, numbers(layer.weight), numbers(layer.bias), apply)


def _conv_function(function):
    def handle(steps, x, weight, bias=None, *args, **kwargs):
        return _convolution(steps, x, weight, bias, lambda x, w: function(x, w, None, *args, **kwargs))

    return handle


def _norm_module(steps, layer, x):
    if layer.running_mean is None:
        raise Refused("normalises by the statistics of its own input, which is not piecewise affine; train it with running ones")
    return _batch_norm(steps, x, *map(numbers, (layer.running_mean, layer.running_var, layer.weight, layer.bias)), eps=layer.eps)


def _batch_norm(steps, x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training:
        raise Refused("normalises by the statistics of its batch; call model.eval() first")
    scale = (1 if weight is None else weight) / torch.sqrt(running_var + eps)
    return _scaled(steps, x, scale, (0 if bias is None else bias) - running_mean * scale)


def _dropout(steps, x, p=0.5, training=True, inplace=False):
    if training and p > 0:
        raise Refused("drops values at random; call model.eval() first")
    return x


def _leaky(steps, z, negative_slope=0.01, inplace=False):
    """max(z, 0) + negative_slope min(z, 0)."""
    return steps.bend(z, [0.0], [negative_slope, 1.0], [0.0, 0.0])


def _relu(steps, z, inplace=False):
    return _leaky(steps, z, 0.0)


def _prelu(steps, z, weight):
    return _leaky(steps, z, float(weight) if weight.numel() == 1 else weight.reshape(-1, *[1] * (len(z.shape) - 2)))


def _clamp(steps, z, min=None, max=None, inplace=False):
    """min, max: numbers or constant tensors."""
    if values_in([min, max]):
        raise Refused("is clamped by values that depend on the input; use torch.maximum and torch.minimum")
    low, high = (None if bound is None or _number(bound).isinf().all() else bound for bound in (min, max))
    if low is not None and high is not None and not (_number(low) < _number(high)).all():
        raise Refused("its lower bound must be below its upper one")
    at, gains, shifts = [], [1.0], [0.0]
    if low is not None:
        at, gains, shifts = [low], [0.0, 1.0], [low, 0.0]
    if high is not None:
        at, gains, shifts = [*at, high], [*gains, 0.0], [*shifts, high]
    return steps.bend(z, at, gains, shifts) if at else z


def _hardtanh(steps, z, min_val=-1.0, max_val=1.0, inplace=False):
    return _clamp(steps, z, min_val, max_val)


def _softshrink(steps, z, lambd=0.5):
    if not lambd > 0:
        raise Refused("lambd must be positive")
    return steps.bend(z, [-lambd, lambd], [1.0, 0.0, 1.0], [lambd, 0.0, -lambd])


def _threshold(steps, z, threshold, value, inplace=False):
    if threshold != value:
        raise Refused("jumps where value is not the threshold: such a function is not continuous")
    return steps.bend(z, [threshold], [0.0, 1.0], [value, 0.0])


def _maximum(sign):
    def handle(steps, x, other):
        pair = _sums(_side_by_side, _side_by_side)(steps, x, other)
        return steps.most(pair, torch.arange(math.prod(pair.shape)).reshape(-1, 2), pair.shape[:-1], sign)

    return handle


def _side_by_side(x, other):
    return torch.stack(torch.broadcast_tensors(x, other), dim=-1)


_WHERE = "uses which number was the greatest, or the least: that jumps, so it is not continuous"


def _extreme(sign, with_index):
    """amax, amin; and max, min along one axis (which give where, too), of two values, or of all numbers."""

    def handle(steps, x, dim=None, keepdim=False, **kwargs):
        if kwargs or is_value(dim) or isinstance(dim, torch.Tensor):
            return _maximum(sign)(steps, x, kwargs.get("other", dim))
        order = torch.arange(math.prod(x.shape)).reshape(x.shape)
        axes = range(order.dim()) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
        axes = sorted(axis % order.dim() for axis in axes)
        shape = [1 if i in axes else n for i, n in enumerate(order.shape)]
        index = order.movedim(axes, tuple(range(-len(axes), 0))).reshape(math.prod(shape), -1)
        if not keepdim:
            shape = [n for i, n in enumerate(order.shape) if i not in axes]
        found = steps.most(x, index, tuple(shape), sign)
        return _Found(found, _Withheld(_WHERE)) if with_index and dim is not None else found

    return handle


def _max_pool(steps, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False, *, dims):
    if return_indices:
        pooled = _max_pool(steps, x, kernel_size, stride, padding, dilation, ceil_mode, dims=dims)
        return pooled, _Withheld(_WHERE)
    kernel, step, pad, dilation = (
        (option,) * dims if isinstance(option, int) else tuple(option) * (dims if len(option) == 1 else 1)
        for option in (kernel_size, stride or kernel_size, padding, dilation)
    )
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    out = pool(torch.zeros(x.shape), kernel, step, pad, dilation, ceil_mode).shape
    windows = [
        [[o * s - p + k * d for k in range(size)] for o in range(n)]
        for n, size, s, p, d in zip(out[-dims:], kernel, step, pad, dilation, strict=True)
    ]
    return _pooled(steps, x, windows)


def _adaptive_max_pool(steps, x, output_size, return_indices=False, *, dims):
    if return_indices:
        return _adaptive_max_pool(steps, x, output_size, dims=dims), _Withheld(_WHERE)
    sizes = x.shape[-dims:]
    out = (output_size,) * dims if isinstance(output_size, int | None) else output_size
    windows = []
    for n, m in zip(sizes, out, strict=True):
        m = n if m is None else m
        windows.append([list(range(o * n // m, -(-(o + 1) * n // m))) for o in range(m)])
    return _pooled(steps, x, windows)


def _pooled(steps, x, windows):
    """windows: for each axis of the picture a list of the places that each result takes in; those outside count as −∞."""
    dims = len(windows)
    sizes, lead = x.shape[len(x.shape) - dims :], x.shape[: len(x.shape) - dims]
    picture = torch.arange(math.prod(sizes)).reshape(sizes)
    rows = []
    for places in itertools.product(*windows):
        kept = [torch.tensor([i for i in where if 0 <= i < n]) for where, n in zip(places, sizes, strict=True)]
        rows.append(picture[torch.meshgrid(*kept, indexing="ij")].flatten())
    index = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    channels = torch.arange(math.prod(lead))[:, None, None] * picture.numel()
    index = torch.where(index < 0, -1, index + channels).reshape(-1, index.shape[-1])
    return steps.most(x, index, (*lead, *map(len, windows)))


def _interpolate(steps, x, size=None, scale_factor=None, mode="nearest", *args, **kwargs):
    if mode == "bicubic":
        raise Refused("mode bicubic is not understood; nearest, linear, bilinear, trilinear and area are")
    return _moves(F.interpolate, alike=False)(steps, x, size, scale_factor, mode, *args, **kwargs)


def _pad(steps, x, pad, mode="constant", value=None):
    if mode != "constant":
        return _moves(F.pad)(steps, x, tuple(pad), mode)
    constant = F.pad(torch.zeros(x.shape, dtype=torch.float64), tuple(pad), value=float(value or 0))
    return steps.affine([x], lambda x: F.pad(x, tuple(pad)), constant=constant if value else None, reach=1)


def _same(steps, x, *args, **kwargs):
    """Copies, and casts: all is float64 here."""
    if torch.float16 in (*args, *kwargs.values()) or torch.bfloat16 in (*args, *kwargs.values()):
        raise Refused("rounds to half precision, which is not piecewise affine; leave the cast out")
    if any(isinstance(a, torch.dtype) and not (a.is_floating_point or a.is_complex) for a in (*args, *kwargs.values())):
        raise Refused("rounds to whole numbers, which is not piecewise affine")
    return x


def _copied(steps, x, *args, **kwargs):
    return steps.affine([x], torch.clone, reach=1)


def _halved(steps, x, *args, **kwargs):
    raise Refused("rounds to half precision, which is not piecewise affine; leave the cast out")


# Comparisons --------------------------------------------------------------------------------------------------------------


def _compared(above):
    def handle(steps, x, other):
        return _Mask(above, x, other) if is_value(x) else _Mask(not above, other, x)

    return handle


def _where(steps, mask, x, other):
    """torch.where: of constants where a constant says so; of a bend's two sides; or the greater of two values."""
    if not isinstance(mask, _Mask):
        return _moves(lambda x, other: torch.where(mask, x, other), joins=True)(steps, _number(x), _number(other))
    z, at = mask.value, mask.other
    if is_value(at):
        if {x, other} != {z, at}:
            raise Refused(_COMPARED)
        return _maximum(1 if mask.above == (x == z) else -1)(steps, z, at)
    sides = [_in_terms_of(steps, part, z) for part in ((other, x) if mask.above else (x, other))]
    at = torch.as_tensor(at, dtype=torch.float64)
    parts = [at, *(torch.as_tensor(part, dtype=torch.float64) for side in sides if side for part in side)]
    if None in sides or torch.broadcast_shapes(z.shape, *(part.shape for part in parts)) != z.shape:
        raise Refused(_COMPARED)
    at, low_gain, low_shift, high_gain, high_shift = (
        float(part.flatten()[0]) if (part == part.flatten()[0]).all() else part for part in parts
    )
    if not torch.as_tensor(low_gain * at + low_shift == high_gain * at + high_shift).all():
        raise Refused("jumps where the compared number changes sides: such a function is not continuous")
    return steps.bend(z, [at], [low_gain, high_gain], [low_shift, high_shift])


_COMPARED = (
    "compares numbers that depend on the input; of such steps torch.where(x > c, a, b) with multiples of x and constants for a "
    "and b, torch.where(x > y, x, y) and x * (x > 0) are understood"
)


def _in_terms_of(steps, part, x):
    """(gain, shift) of a part that is gain * x + shift, number by number; None where it is not."""
    if not is_value(part):
        return 0.0, part
    gain, shift, index = 1.0, 0.0, part.index
    while index != x.index:
        if index not in steps.scaled:
            return None
        index, factor, moved = steps.scaled[index]
        gain, shift = gain * factor, gain * moved + shift
    return gain, shift


def _set(steps, x, index, value):
    """x with x[index] = value."""
    if not is_value(x):
        raise Refused("writes numbers that depend on the input into a constant tensor; put them together by torch.cat or stack")
    if isinstance(index, _Mask):
        return _where(steps, index, value, x)

    def put(x, value):
        y = x.clone()
        y[index] = value
        return y

    return _moves(put, joins=True)(steps, x, _number(value))


def _product(function):
    def handle(steps, *args, **kwargs):
        mask = _special(args, _Mask)
        if mask and function is torch.mul:
            others = [part for part in args if part is not mask]
            return _where(steps, mask, *others, 0.0)
        return _factors(function)(steps, *args, **kwargs)

    return handle


def _addmm(steps, bias, x, weight, beta=1, alpha=1):
    return _sums(torch.add, torch.add)(steps, _product(torch.matmul)(steps, x, weight * alpha), bias * beta)


def _subtracted_from(steps, x, other, alpha=1):
    return _sums(torch.sub, _added)(steps, other, x, alpha=alpha)


def _added(x, y, alpha=1):
    return torch.add(x, y, alpha=abs(alpha))


def _reshaped(steps, x, *size, **kwargs):
    return _moves(torch.Tensor.reshape)(steps, x, *size, **kwargs)


# by the name of the function or method, without trailing underscores
_FUNCTIONS: dict[str, Callable] = {
    **{
        name: _moves(getattr(torch.Tensor, name))
        for name in (
            "flatten unflatten permute transpose squeeze unsqueeze expand repeat flip roll narrow select movedim swapaxes chunk "
            "split unbind index_select tile moveaxis broadcast_to repeat_interleave swapdims ravel positive diagonal tril triu "
            "gather take_along_dim tensor_split hsplit vsplit rot90"
        ).split()
    },
    **{name: _moves(getattr(torch.Tensor, name), alike=False) for name in "sum mean cumsum".split()},
    **{
        f"{kind}{dims}d": _moves(getattr(F, f"{kind}{dims}d"), alike=False)
        for kind in ("avg_pool", "adaptive_avg_pool")
        for dims in (1, 2, 3)
    },
    **{f"conv{dims}d": _conv_function(getattr(F, f"conv{dims}d")) for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _conv_function(getattr(F, f"conv_transpose{dims}d")) for dims in (1, 2, 3)},
    "view": _reshaped,
    "reshape": _reshaped,
    "getitem": _moves(operator.getitem),
    "cat": _moves(torch.cat, joins=True),
    **{name: _moves(getattr(torch, name), joins=True) for name in "stack hstack vstack dstack column_stack row_stack".split()},
    "unfold": lambda steps, x, *args, **kwargs: _moves(
        F.unfold if len(x.shape) == 4 and "dimension" not in kwargs and len(args) != 3 else torch.Tensor.unfold
    )(steps, x, *args, **kwargs),
    "fold": _moves(F.fold, alike=False),
    "where": lambda steps, *args: _where(steps, *(args if not is_value(args[0]) else (args[1], args[0], args[2]))),
    "masked_fill": lambda steps, x, mask, value: _where(steps, mask, value, x),
    "setitem": _set,
    **{name: _compared(True) for name in "gt ge greater greater_equal".split()},
    **{name: _compared(False) for name in "lt le less less_equal".split()},
    "pixel_shuffle": _moves(F.pixel_shuffle),
    "pixel_unshuffle": _moves(F.pixel_unshuffle),
    "interpolate": _interpolate,
    "pad": _pad,
    "add": _sums(torch.add, _added),
    "sub": _sums(torch.sub, _added),
    "rsub": _subtracted_from,
    "neg": _sums(torch.neg, torch.clone),
    "mul": _product(torch.mul),
    "div": _factors(torch.div, value_first=True),
    "matmul": _product(torch.matmul),
    "mm": _product(torch.matmul),
    "mv": _product(torch.matmul),
    "tensordot": _product(torch.tensordot),
    "outer": _product(torch.outer),
    "bmm": _product(torch.matmul),
    "einsum": _product(torch.einsum),
    "addmm": _addmm,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": _relu,
    "leaky_relu": _leaky,
    "prelu": _prelu,
    "relu6": lambda steps, z, inplace=False: _clamp(steps, z, 0.0, 6.0),
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": lambda steps, z, min: _clamp(steps, z, min),
    "clamp_max": lambda steps, z, max: _clamp(steps, z, None, max),
    "abs": lambda steps, z: _leaky(steps, z, -1.0),
    "hardsigmoid": lambda steps, z, inplace=False: steps.bend(z, [-3.0, 3.0], [0.0, 1 / 6, 0.0], [0.0, 0.5, 1.0]),
    "softshrink": _softshrink,
    "threshold": _threshold,
    "rrelu": lambda steps, z, lower=1 / 8, upper=1 / 3, training=False, inplace=False: _leaky(steps, z, (lower + upper) / 2),
    "maximum": _maximum(1),
    "minimum": _maximum(-1),
    "amax": _extreme(1, False),
    "amin": _extreme(-1, False),
    "max": _extreme(1, True),
    "min": _extreme(-1, True),
    **{
        name: _same
        for name in "contiguous detach float double to type type_as cpu alias identity requires_grad data real conj".split()
    },
    "clone": _copied,
    "half": _halved,
    "bfloat16": _halved,
    **{name: _dropout for name in "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout".split()},
}
for _dims in (1, 2, 3):
    _FUNCTIONS[f"max_pool{_dims}d"] = lambda *args, dims=_dims, **kwargs: _max_pool(*args, dims=dims, **kwargs)
    _FUNCTIONS[f"adaptive_max_pool{_dims}d"] = lambda *args, dims=_dims, **kwargs: _adaptive_max_pool(*args, dims=dims, **kwargs)
_ALIASES = {
    "truediv": "div", "divide": "div", "multiply": "mul", "subtract": "sub", "negative": "neg", "concat": "cat",
    "concatenate": "cat", "clip": "clamp", "absolute": "abs", "view_as": "reshape_as", "iadd": "add", "isub": "sub",
    "imul": "mul", "itruediv": "div", "fmax": "maximum", "fmin": "minimum", "_threshold": "threshold", "_to_copy": "clone",
    **{f"max_pool{dims}d_with_indices": f"max_pool{dims}d" for dims in (1, 2, 3)},
    **{f"adaptive_max_pool{dims}d_with_indices": f"adaptive_max_pool{dims}d" for dims in (1, 2, 3)},
    "imatmul": "matmul", "true_divide": "div", "hard_tanh": "hardtanh",
}  # fmt: skip


_LAYERS = [  # (classes of torch.nn, function of (steps, layer, x))
    ((nn.Identity, *(getattr(nn, f"Dropout{i}") for i in ("", "1d", "2d", "3d")), nn.AlphaDropout, nn.FeatureAlphaDropout),
     lambda steps, layer, x: x),
    (nn.Linear, lambda steps, layer, x: _linear(steps, x, numbers(layer.weight), numbers(layer.bias))),
    (nn.modules.conv._ConvNd, _conv_module),
    (nn.modules.batchnorm._NormBase, _norm_module),
    (nn.ReLU6, lambda steps, layer, x: _clamp(steps, x, 0.0, 6.0)),
    (nn.Hardtanh, lambda steps, layer, x: _hardtanh(steps, x, layer.min_val, layer.max_val)),
    (nn.ReLU, lambda steps, layer, x: _relu(steps, x)),
    (nn.LeakyReLU, lambda steps, layer, x: _leaky(steps, x, layer.negative_slope)),
    (nn.RReLU, lambda steps, layer, x: _leaky(steps, x, (layer.lower + layer.upper) / 2)),
    (nn.PReLU, lambda steps, layer, x: _prelu(steps, x, numbers(layer.weight))),
    (nn.Hardsigmoid, lambda steps, layer, x: _FUNCTIONS["hardsigmoid"](steps, x)),
    (nn.Softshrink, lambda steps, layer, x: _softshrink(steps, x, layer.lambd)),
    (nn.Threshold, lambda steps, layer, x: _threshold(steps, x, layer.threshold, layer.value)),
    *(
        (getattr(nn, f"MaxPool{dims}d"), lambda steps, layer, x, dims=dims: _max_pool(
            steps, x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, layer.return_indices,
            dims=dims))
        for dims in (1, 2, 3)
    ),
    *(
        (getattr(nn, f"AdaptiveMaxPool{dims}d"), lambda steps, layer, x, dims=dims: _adaptive_max_pool(
            steps, x, layer.output_size, layer.return_indices, dims=dims))
        for dims in (1, 2, 3)
    ),
    (nn.modules.padding._ConstantPadNd, lambda steps, layer, x: _pad(steps, x, layer.padding, value=layer.value)),
    (nn.Upsample, lambda steps, layer, x: _interpolate(
        steps, x, layer.size, layer.scale_factor, layer.mode, layer.align_corners)),
    (
        (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
         nn.Unfold, nn.modules.padding._ReflectionPadNd, nn.modules.padding._ReplicationPadNd, nn.modules.padding._CircularPadNd),
        lambda steps, layer, x: _moves(layer.forward)(steps, x),
    ),
    (
        (nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd, nn.Fold),
        lambda steps, layer, x: _moves(layer.forward, alike=False)(steps, x),
    ),
]  # fmt: skip


def of_layer(steps, layer, args, kwargs):
    """The value of a torch.nn layer at arguments with values in them; Refused where it is not understood."""
    _refuse_special(type(layer).__name__, [args, kwargs])
    for kinds, handle in _LAYERS:
        if isinstance(layer, kinds):
            given = [*args, *kwargs.values()]
            if len(given) != 1 or not is_value(given[0]):
                raise Refused("must be called with one value")
            return _handled(handle, steps, layer, given[0])
    raise Refused(None)


def of_function(steps, name, args, kwargs):
    """The value of a function or method of torch, by its name, at arguments with values in them; Refused as above."""
    name, kwargs = name.rstrip("_"), dict(kwargs)
    name = _ALIASES.get(name, name)
    _refuse_special(name, [args, kwargs])
    handle = _FUNCTIONS.get(name)
    if handle is None:
        raise Refused(None)
    first = [kwargs.pop(word) for word in ("input", "tensors") if word in kwargs]
    return _handled(handle, steps, *first, *args, **kwargs)


def _refuse_special(name, arguments):
    """Refused where a place or a comparison is used by something that does not know of them."""
    if withheld := _special(arguments, _Withheld):
        raise Refused(withheld.why)
    if _special(arguments, _Mask) and name not in _TAKE_MASKS:
        raise Refused(_COMPARED)


_TAKE_MASKS = "where masked_fill setitem mul float double to type type_as clone detach".split()


def _handled(handle, steps, *args, **kwargs):
    try:
        return handle(steps, *args, **kwargs)
    except Refused:
        raise
    except Exception as error:
        shapes = ", ".join(str(list(value.shape)) for value in values_in([args, kwargs]))
        raise Refused(f"does not take what comes before it, of shape {shapes}; {type(error).__name__}: {error}") from error
