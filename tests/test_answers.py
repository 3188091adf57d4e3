"""The engine behind the exercises' checks: never an exception, and a message that says what is wrong."""

import copy
import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ood_helpers import checks
from ood_helpers.checks.answers import OPEN, RIGHT, WRONG, Range, Verdict, function, value

ANYTHING = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(),
    st.booleans(),
    st.lists(st.integers()),
    st.binary(),
    st.just(...),
    st.just(len),
)


def test_a_verdict_is_true_only_if_right_and_shows_its_mark():
    assert Verdict(RIGHT, "yes") and not Verdict(WRONG, "no") and not Verdict(OPEN, "not yet")
    assert repr(Verdict(WRONG, "no")) == "✗ no" and Verdict(RIGHT, "yes")._repr_markdown_() == "**✓** yes"


@pytest.mark.parametrize(
    "right, good, bad",
    [
        (0.5, [0.5, 0.5004, np.float32(0.5), torch.tensor(0.5), "0.5"], [0.51, -0.5, float("nan"), 50]),
        (Range(1, 2), [1, 1.5, 2, torch.tensor(1.2)], [0.99, 2.01, float("nan")]),
        (True, [True, np.True_, torch.tensor(True)], [False, "yes", 0]),
        ("reject", ["reject"], ["Reject all", 1]),
        ({0, 2}, [{0, 2}, [2, 0], (0, 2, 2)], [{0}, {0, 1, 2}]),
        ((1, 0.25), [(1, 0.25), [1, 0.2504], np.array([1, 0.25])], [(0.25, 1), (1,), (1, 0.25, 0)]),
    ],
)
def test_a_value_is_judged_by_its_kind(right, good, bad):
    for answer in good:
        assert value(answer, right, "why", tolerance=1e-3).mark == RIGHT, answer
    for answer in bad:
        assert value(answer, right, "why", tolerance=1e-3).mark == WRONG, answer


@pytest.mark.parametrize(
    "right, wanted",
    [(1.0, "a number"), (True, "is not it"), ({1}, "a set such as"), ((1, 2), "2 values"), (Range(0, 1), "a number")],
)
def test_an_answer_of_another_kind_is_told_what_kind_is_asked(right, wanted):
    assert wanted in value(len, right, "why").message


@pytest.mark.parametrize("stub", [..., None])
def test_a_stub_is_open_whatever_is_asked(stub):
    assert value(stub, 1.0, "why", [(lambda answer: True, "wrong")]).mark == OPEN


def test_known_wrong_values_get_their_diagnosis_and_the_passage():
    wrong = [(50, "That is in percent."), (lambda x: x < 0, "It is negative.")]
    said = [value(x, 0.5, "why", wrong, back="section 2").message for x in (50, -1, 3)]
    assert said == ["That is in percent. See section 2.", "It is negative. See section 2.", "3 is not it. See section 2."]


@given(answer=ANYTHING, right=st.sampled_from([1.5, True, "x", {1}, (1, 2), Range(0, 1)]))
def test_no_value_makes_a_check_raise(answer, right):
    assert isinstance(value(answer, right, "why", [(7, "seven")]), Verdict)


def double(x):
    return 2 * x


def unwritten(x):
    raise NotImplementedError


CASES = [(torch.arange(3.0),), (torch.eye(2),)]
WRONG_FUNCTIONS = [(lambda x: x + 2, "That adds 2"), (lambda x: x.missing, "never")]


@pytest.mark.parametrize(
    "answer, mark, message",
    [
        (unwritten, OPEN, "returns nothing"),
        (..., OPEN, "Not answered yet"),
        (lambda x: None, OPEN, "returns nothing"),
        (lambda x: ..., OPEN, "returns nothing"),
        (lambda x: x * 2, RIGHT, "why"),
        (lambda x: x.mul_(2), WRONG, "changes what it was given"),
        (3, WRONG, "A function is asked for; this is int"),
        (lambda: 3, WRONG, "stopped with TypeError"),
        (lambda x: 1 / 0, WRONG, "stopped with ZeroDivisionError: division by zero (called with Tensor [3])"),
        (lambda x: x + 2, WRONG, "That adds 2"),
        (lambda x: x.sum(), WRONG, "should have the shape [3]; it has []"),
        (lambda x: 2 * x + (x == 2), WRONG, "the value at [2] is 5, it should be 4 (called with Tensor [3])"),
        (lambda x: "four", WRONG, "shape"),
    ],
)
def test_a_function_is_judged_by_what_it_returns(answer, mark, message):
    verdict = function(answer, double, CASES, "why", WRONG_FUNCTIONS)
    assert (verdict.mark, message in verdict.message) == (mark, True), verdict


@given(result=ANYTHING)
def test_no_result_makes_a_check_raise(result):
    assert not function(lambda x: result, double, CASES, "why", WRONG_FUNCTIONS)


def test_not_a_number_is_known_where_a_mistake_makes_it():
    cases = [(torch.tensor([1000.0, 0.0]),)]
    wrong = [(lambda z: z.exp() / z.exp().sum(), "inf / inf"), (lambda z: z.missing, "never")]
    verdict = function(lambda z: z.exp() / z.exp().sum(), lambda z: z.softmax(0), cases, "why", wrong)
    assert verdict.message == "inf / inf"
    assert "the value at [0] is nan" in function(lambda z: z / 0 * 0, lambda z: z.softmax(0), cases, "why", wrong[1:]).message


def test_networks_are_compared_by_their_weights():
    def zeroed(model):
        model = copy.deepcopy(model)
        nn.init.zeros_(model.bias)
        return model

    def in_place(model):
        nn.init.zeros_(model.bias)
        return model

    cases = [(nn.Linear(2, 3),)]
    assert function(zeroed, zeroed, cases, "why")
    assert "changes what it was given" in function(in_place, zeroed, cases, "why").message
    assert function(copy.deepcopy, zeroed, cases, "why").mark == WRONG


# --- nothing that a reader hands in makes a check raise -------------------------------------------------------------------------


class Hostile:
    """Every question about it, also what it is and how it looks, is answered by an exception of this type."""

    def __init__(self, error):
        object.__setattr__(self, "error", error)

    def __getattribute__(self, name):
        raise object.__getattribute__(self, "error")("no " + name)

    def raises(self, *args):
        raise object.__getattribute__(self, "error")("no")

    __eq__ = __lt__ = __len__ = __iter__ = __getitem__ = __float__ = __index__ = __bool__ = __abs__ = __hash__ = raises
    __array__ = __repr__ = __str__ = __format__ = __sub__ = __rsub__ = raises


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def stops(error):
    def stopped(*case):
        raise error

    return stopped


ENDLESS = []
ENDLESS.append(ENDLESS)
HOSTILE = [
    *(Hostile(error) for error in (TypeError, KeyError, RuntimeError, ZeroDivisionError, SystemExit)),
    *(math.nan, math.inf, -math.inf, 10**400, -(10**5000), 1j, True, "", "seven", b"seven", {}, {"a": 1}, set(), [], (), ENDLESS),
    *(
        [[1], [1, 2]],
        ["a", None, 3],
        {None},
        range(3),
        object(),
        int,
        len,
        nn.Linear(2, 2),
        slice(2),
        np.array("x"),
    ),
    *(np.array([]), np.zeros((0, 3)), np.array([None, 1]), np.datetime64("2020"), np.array([1, 2j]), np.full((3, 3), np.nan)),
    *(torch.empty(0), torch.zeros(2, 3), torch.tensor(1j), torch.empty(3, device="meta"), torch.tensor(math.nan)),
    *(torch.zeros(2, 2).to_sparse(), torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), torch.tensor([True])),
    *(torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), torch.ones(2, 1).max(0), iter([]), (x for x in [None])),
    *(stops(error) for error in (KeyError(3), Mute(), SystemExit(2), RecursionError(), MemoryError("full"), StopIteration())),
    *(stops(error) for error in (AssertionError(), Warning("w"), GeneratorExit(), NotImplementedError("Could not run"))[:2]),
]
PUBLIC = [
    pytest.param(check, id=f"{module.__name__.rpartition('.')[2]}.{name}")
    for module in (getattr(checks, name) for name in checks.__all__)
    if inspect.ismodule(module)
    for name, check in inspect.getmembers(module, inspect.isfunction)
    if check.__module__ == module.__name__ and list(inspect.signature(check).parameters) == ["answer"]
]


def test_all_public_checks_are_tried():
    sources = (Path(__file__).parents[1] / "tools" / "exercises").glob("*.md")
    used = [name for path in sources for name in re.findall(r"^checks\.(\w+\.\w+)\(", path.read_text(encoding="utf-8"), re.M)]
    assert sorted(used) == sorted(case.id for case in PUBLIC)


@pytest.mark.parametrize("check", PUBLIC)
def test_no_answer_makes_a_public_check_raise(check):
    for answer in HOSTILE:
        for handed_in in (answer, lambda *case, answer=answer: answer, [answer], (answer, answer, answer)):
            verdict = check(handed_in)
            assert type(verdict) is Verdict and type(repr(verdict)) is str and not verdict
    assert check(None).mark == check(...).mark == OPEN
    assert check(lambda *case: None).mark == (OPEN if "function" in check(3).message else WRONG)


@pytest.mark.parametrize("check", PUBLIC)
def test_an_interrupt_passes(check):
    if "function" not in check(3).message:  # a single answer is asked for
        return
    with pytest.raises(KeyboardInterrupt):
        check(stops(KeyboardInterrupt()))
