"""Right answers in every container and number type that a student may use, and answers that nothing can be done with."""

import inspect
import statistics
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from ood_helpers import checks, horizon, polytopes
from ood_helpers.checks import beyond, gan
from ood_helpers.checks.answers import _TOO_COARSE, OPEN, RIGHT, WRONG, function, value

KINDS = {
    "float": float, "numpy scalar": np.float64, "float32 scalar": np.float32, "0-d array": np.array,
    "array [1]": lambda x: np.array([x]),
    "list [1]": lambda x: [x], "tuple of a tensor": lambda x: (torch.tensor(x),), "tensor": torch.tensor,
    "tensor [1]": lambda x: torch.tensor([x]), "grad": lambda x: torch.tensor(x, requires_grad=True),
    "float64": lambda x: torch.tensor(x, dtype=torch.float64), "bfloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "sparse": lambda x: torch.tensor([x]).to_sparse(), "fraction": Fraction, "decimal": Decimal,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_number_is_right_in_any_container(kind):
    assert value(KINDS[kind](0.83), 0.83, "so", tolerance=2e-3).mark == RIGHT
    assert value(KINDS[kind](0.97), 0.83, "so", tolerance=2e-3).mark == WRONG
    assert checks.start_here.twice_as_far(KINDS[kind](0.979)).mark == RIGHT
    assert checks.confident.reach(KINDS[kind](47.44)).mark == RIGHT


@pytest.mark.parametrize("kind", ["bfloat16", "float64", "list", "numpy", "sparse", "grad"])
def test_a_right_function_is_right_in_any_container(kind):
    turn = {
        "bfloat16": lambda x: x.bfloat16(), "float64": lambda x: x.double(), "list": lambda x: x.tolist(),
        "numpy": lambda x: x.numpy(),
        "sparse": lambda x: x.to_sparse(), "grad": lambda x: x.clone().requires_grad_(),
    }[kind]  # fmt: skip
    cases = [(torch.tensor([0.5, 1.5, 2.5]),)]
    assert function(lambda x: turn(2 * x), lambda x: 2 * x, cases, "so").mark == RIGHT
    assert function(lambda x: turn(3 * x), lambda x: 2 * x, cases, "so").mark == WRONG
    column = function(lambda x: turn((2 * x)[:, None]), lambda x: 2 * x, cases, "so")
    assert column.mark == WRONG and "shape [3]; it has [3, 1]" in column.message


HALF = {
    "bfloat16": torch.Tensor.bfloat16,
    "float16": torch.Tensor.half,
    "numpy": lambda x: x.numpy().astype(np.float16),
    "a tuple": lambda x: tuple(x.bfloat16()),
}


@pytest.mark.parametrize("half", HALF)
def test_half_precision_is_right_as_far_as_it_tells_right_from_wrong(half):
    turn = HALF[half]
    cases = [(torch.tensor([0.3, 1.7, 26.1]),)]
    wrong = [(lambda x: x + 0.5, "That adds a half.")]
    assert function(turn, lambda x: x, cases, "so", wrong).mark == RIGHT
    assert function(lambda x: turn(x + 0.5), lambda x: x, cases, "so", wrong).message == "That adds a half."
    near = [*wrong, (lambda x: x * 1.0001, "A little too much.")]
    assert _TOO_COARSE in function(turn, lambda x: x, cases, "so", near).message
    digits = torch.finfo(torch.float16 if half in ("float16", "numpy") else torch.bfloat16).eps
    assert _TOO_COARSE in function(lambda x: turn(x * (1 + 2 * digits)), lambda x: x, cases, "so").message
    assert function(lambda x: turn(x * 1.1), lambda x: x, cases, "so").message.startswith("Not yet: the value at")


def test_a_number_in_half_precision_is_right_as_far_as_it_goes():
    assert value(torch.tensor(0.83).bfloat16(), 0.83, "so").mark == RIGHT
    assert _TOO_COARSE in value(torch.tensor(0.84).bfloat16(), 0.83, "so").message
    assert _TOO_COARSE not in value(0.84, 0.83, "so").message
    assert "is not it" in value(torch.tensor(0.9).bfloat16(), 0.83, "so").message


class Hostile:
    """An object that objects to everything."""

    def _no(self, *_):
        raise RuntimeError("no")

    __eq__ = __len__ = __float__ = __array__ = __iter__ = __bool__ = __repr__ = __getitem__ = _no
    __hash__ = None


HOSTILE = [
    Hostile(), "text", float("nan"), float("inf"), 10**400, 1j, [], [[1], [1, 2]], {}, object(), True,
    np.ma.masked, np.ma.array([0.0], mask=True), [np.ma.masked],
    torch.ones(2, device="meta"), torch.ones((), device="meta"), torch.ones(2, dtype=torch.complex64), np.ones((3, 3)),
]  # fmt: skip


MODULES = ("start_here", "polytopes", "confident", "reject", "gan", "robustness", "images", "horizon", "beyond")


def checkers():
    """Every check of an exercise: the public functions of the modules that take one answer."""
    for module in (getattr(checks, name) for name in MODULES):
        for name, check in vars(module).items():
            if not name.startswith("_") and getattr(check, "__module__", "") == module.__name__ and inspect.isfunction(check):
                if check.__code__.co_varnames[: check.__code__.co_argcount] == ("answer",):
                    yield pytest.param(check, id=f"{module.__name__.split('.')[-1]}.{name}")


@pytest.mark.parametrize("check", list(checkers()))
def test_no_answer_stops_run_all(check):
    for answer in HOSTILE:
        for given in (answer, lambda *_, answer=answer: answer):
            assert check(given).mark in (WRONG, OPEN, RIGHT)


def test_what_is_masked_is_no_number():
    for masked in (np.ma.masked, [np.ma.masked], np.ma.array([0.0], mask=True)):
        assert checks.reject.far_away(masked).mark == WRONG and "a number" in checks.reject.far_away(masked).message
    assert checks.reject.far_away(np.ma.array([0.0])).mark == RIGHT


def test_any_leader_is_k_star():
    def last(model, u):
        leaders = polytopes.read(model).leaders(u.double().numpy())
        return leaders.shape[1] - 1 - leaders[:, ::-1].argmax(1)

    assert checks.polytopes.k_star(last).mark == RIGHT
    assert checks.polytopes.k_star(lambda model, u: horizon.f0(model, u).argmax(1).tolist()).mark == RIGHT
    assert checks.polytopes.k_star(lambda model, u: horizon.f0(model, u).argmin(1)).mark == WRONG


def test_steps_may_come_in_any_order_and_container():
    for turn in (lambda x: x.flip(0), lambda x: x.numpy()[::-1], lambda x: x.flip(0).tolist()):
        assert beyond.step_off(lambda *case, turn=turn: turn(beyond._steps(*case))).mark == RIGHT


def test_the_last_surely_unsure_place_may_be_rounded_up():
    assert checks.confident.reach(48).mark == RIGHT and checks.confident.reach(49.6).mark == WRONG


def test_three_losses_may_be_one_tensor():
    assert gan.three_losses(lambda *case: torch.stack([torch.as_tensor(part) for part in gan._losses(*case)])).mark == RIGHT


def test_quantiles_have_many_definitions():
    def interval(values, picks):
        cuts = statistics.quantiles(values[picks].mean(1).tolist(), n=40)
        return cuts[0], cuts[-1]

    assert checks.robustness.interval(interval).mark == RIGHT
