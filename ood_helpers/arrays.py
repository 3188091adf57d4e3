"""Numbers from anywhere (lists, numpy, torch of any kind) as the plain arrays that exact geometry and scores compute with."""

import operator

import numpy as np
import torch
from numpy.typing import ArrayLike

Numbers = ArrayLike | torch.Tensor  # what `float64` takes: numbers, lists of them, arrays, tensors


def float64(values: Numbers, name: str) -> np.ndarray:
    """A copy of `values` as a numpy array of float64: numbers, lists of them, numpy arrays, tensors of any kind of real numbers.

    Tensors may require grad, be sparse, quantised, half precision or on another device. ValueError that names the argument for
    a tensor on the meta device, which holds no numbers, for complex ones, for masked entries, and for what holds no numbers at
    all.
    """
    if isinstance(values, torch.Tensor):
        return dense(values if values.is_meta else values.detach().cpu(), name).numpy().copy()
    if np.ma.is_masked(values):
        raise ValueError(f"{name} must hold numbers; some of its entries are masked. Leave them out")
    if isinstance(values, list | tuple) and any(isinstance(v, torch.Tensor | np.ma.MaskedArray | list | tuple) for v in values):
        values = [float64(v, name) for v in values]
    try:
        values = np.asarray(values)
        if values.dtype.kind == "O":  # fractions and the like; None would become NaN in silence
            values = np.array([float(v) for v in values.flat]).reshape(values.shape)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{name} must hold numbers, in rows of equal length; got {type(values).__name__}") from error
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers; got {values.dtype}")
    return values.astype(np.float64)


def dense(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """The tensor in float64 with every number written out, on its own device; gradients flow. Errors as in `float64`."""
    if tensor.is_meta:
        raise ValueError(f"{name} must hold numbers; it is a tensor on the meta device, which has none")
    if tensor.is_complex():
        raise ValueError(f"{name} must hold real numbers; it holds complex ones")
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return tensor.to(torch.float64).resolve_neg()


def whole(name: str, value, least: int) -> int:
    """`value` as an int; ValueError that names the argument unless it is a whole number of at least `least`.

    It may be Python's, numpy's, or an integer tensor of one element; True and False are no numbers.
    """
    is_bool = isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool
    try:
        number = least - 1 if is_bool else operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # the last two: tensors of several elements, and of the meta device
        number = least - 1
    if number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")
    return number


def keep_whole(frozen, **least):
    """Check the named fields of a frozen dataclass with `whole`, and keep ints: JSON knows no others. A default None may stay."""
    for name, at_least in least.items():
        value = getattr(frozen, name)
        if value is not None or getattr(type(frozen), name, 0) is not None:
            object.__setattr__(frozen, name, whole(name, value, at_least))
