"""Floats as whole numbers: sums and products of these do not round, so that signs are certain."""

import numpy as np


def whole_numbers(values):
    """Finite floats times one power of two that makes all of them whole: an array of Python's ints. Signs of products stay."""
    mantissas, exponents = np.frexp(values)
    shifts = np.where(mantissas == 0, 0, exponents - exponents[mantissas != 0].min(initial=2000))
    whole = [int(m) << int(s) for m, s in zip((mantissas * 2**53).flat, shifts.flat, strict=True)]
    return np.array(whole, dtype=object).reshape(values.shape)
