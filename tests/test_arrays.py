"""Numbers from anywhere: every container and dtype gives the same float64 array, everything else a message with its name."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from ood_helpers.arrays import float64, whole

ROWS = [[1.0, -2.0], [0.0, 0.5]]
T = torch.tensor(ROWS)


@pytest.mark.filterwarnings("ignore:.*(CSR|quantize)")
@pytest.mark.parametrize(
    "make",
    [
        lambda: ROWS,
        lambda: tuple(map(tuple, ROWS)),
        lambda: [[Fraction(1), -2], [0, Fraction(1, 2)]],
        lambda: [[Decimal(1), -2], [0, Decimal("0.5")]],
        lambda: [torch.tensor(row) for row in ROWS],
        lambda: [[torch.tensor(v) for v in row] for row in ROWS],
        lambda: np.array(ROWS, np.float16),
        lambda: np.array(ROWS, np.longdouble),
        lambda: np.asfortranarray(ROWS),
        lambda: T.double().requires_grad_(),
        lambda: T.bfloat16(),
        lambda: T.half().requires_grad_() * 1,
        lambda: T.to(torch.float8_e5m2),
        lambda: T.to_sparse(),
        lambda: T.to_sparse_csr(),
        lambda: T.to_sparse().requires_grad_(),
        lambda: torch._neg_view(-T),
        lambda: (1j * T).imag,
        lambda: (-1j * T).conj().imag,
        lambda: torch.quantize_per_tensor(T, 0.5, 0, torch.qint8),
        lambda: torch.nn.Parameter(T),
        lambda: T.t().contiguous().t(),
    ],
)
def test_numbers_of_any_kind_become_float64(make):
    got = float64(make(), "x")
    assert type(got) is np.ndarray and got.dtype == np.float64
    assert (got == np.array(ROWS)).all()


@pytest.mark.parametrize("values", [3, True, np.int8(3), [True, 2], [], [[], []], 2**70])
def test_whole_numbers_and_empty_lists_are_numbers_too(values):
    assert np.array_equal(float64(values, "x"), np.array(values, dtype=np.float64))


@pytest.mark.parametrize("values", [np.ones((2, 2)), torch.ones(2, 2, dtype=torch.float64), torch.ones(2, 2)])
def test_it_is_a_copy(values):
    copy = float64(values, "x")
    copy[0] = 7
    assert float(values[0, 0]) == 1


@pytest.mark.parametrize(
    "values, says",
    [
        (T.to("meta"), "x must hold numbers; it is a tensor on the meta device"),
        (T + 0j, "x must hold real numbers; it holds complex"),
        (np.array(ROWS) + 0j, "x must hold real numbers; got complex128"),
        ([1, 2j], "x must hold real numbers; got complex128"),
        ([[1, 2], [3]], "x must hold numbers, in rows of equal length"),
        ([torch.ones(2), torch.ones(3)], "x must hold numbers, in rows of equal length"),
        (["1", "2"], "x must hold real numbers; got <U1"),
        ("1", "x must hold real numbers"),
        (None, "x must hold numbers"),
        ([1.0, None], "x must hold numbers"),
        ({1.0}, "x must hold numbers"),
        ((v for v in [1.0]), "x must hold numbers"),
        (10**400, "x must hold numbers"),
        (np.array(["2020-01-01"], "datetime64[D]"), "x must hold real numbers"),
    ],
)
def test_what_holds_no_real_numbers_is_refused(values, says):
    with pytest.raises(ValueError, match=says):
        float64(values, "x")


@pytest.mark.parametrize(
    "value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor([3], dtype=torch.int8)]
)
def test_whole_numbers_of_any_kind_become_an_int(value):
    assert type(whole("n", value, 3)) is int and whole("n", value, 3) == 3


@pytest.mark.parametrize(
    "value",
    [True, False, np.True_, np.array(True), torch.tensor(True), 3.0, np.float64(3), torch.tensor(3.0), "3", None, [3], 2, -3,
     np.int64(2), np.array([3, 4]), torch.tensor([3, 4]), torch.tensor(3, device="meta"), 3 + 0j, Fraction(3)],
)  # fmt: skip
def test_everything_else_is_no_whole_number(value):
    with pytest.raises(ValueError, match="n must be a whole number of at least 3; got "):
        whole("n", value, 3)
