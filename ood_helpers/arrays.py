"""Numbers from anywhere (lists, numpy, torch of any kind) as the plain arrays that exact geometry and scores compute with."""

import operator
from numbers import Integral

import numpy as np
import torch


def float64(values, name):
    """A copy of `values` as a numpy array of float64: numbers, lists of them, numpy arrays, tensors of any kind of real numbers.

    Tensors may require grad, be sparse, quantised, half precision or on another device. ValueError that names the argument for
    a tensor on the meta device, which holds no numbers, for complex ones, and for what holds no numbers at all.
    """
    if isinstance(values, torch.Tensor):
        if values.is_meta:
            raise ValueError(f"{name} must hold numbers; it is a tensor on the meta device, which has none")
        values = values.detach()
        values = values.dequantize() if values.is_quantized else values
        values = values.to_dense() if values.layout != torch.strided else values
        values = values.cpu() if values.is_complex() else values.cpu().to(torch.float64)
        values = values.resolve_conj().resolve_neg().numpy()
    elif isinstance(values, list | tuple) and any(isinstance(v, torch.Tensor | list | tuple) for v in values):
        values = [float64(v, name) for v in values]
    try:
        values = np.asarray(values)
        if np.iscomplexobj(values):
            raise ValueError(f"{name} must hold real numbers; it holds complex ones")
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        if str(error).startswith(f"{name} must"):
            raise
        raise ValueError(f"{name} must hold numbers, in rows of equal length; got {type(values).__name__}") from error


def whole(name, value, least):
    """`value` as an int; ValueError that names the argument unless it is a whole number of at least `least` (True is none)."""
    if isinstance(value, Integral) and not isinstance(value, bool) and value >= least:
        return operator.index(value)
    raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")
