"""How an answer is judged: against the right one, then against the wrong ones that are known, each with its diagnosis.

A check never raises for what a reader wrote: an exercise that is not solved yet must not stop Run All. It returns a `Verdict`,
which a cell shows.
"""

import copy
import functools
from typing import NamedTuple

import numpy as np
import torch

from ood_helpers.arrays import float64

OPEN, WRONG, RIGHT = "✎", "✗", "✓"


class Verdict:
    """What a check found: a mark (OPEN, WRONG or RIGHT) and a message that says why. True if right."""

    def __init__(self, mark, message):
        self.mark, self.message = mark, message

    def __bool__(self):
        return self.mark == RIGHT

    def __repr__(self):
        return f"{self.mark} {self.message}"

    def _repr_markdown_(self):
        return f"**{self.mark}** {self.message}"


class Range(NamedTuple):
    """Every number from low to high, both included, is right."""

    low: float
    high: float


def unanswered(answer):
    """Whether `answer` is still what a stub holds: None or `...`."""
    return answer is None or answer is Ellipsis


def near(number, width):
    """A test for wrong answers of one kind: those at most `width` away from `number`."""
    return lambda answer: abs(as_number(answer) - number) <= width


def as_number(answer):
    """An answer as a float: a number of any kind, or the only entry of an array, tensor or list."""
    return float(answer) if isinstance(answer, str) else float64(answer, "the answer").item()


def _never_raising(judge):
    """Whatever an answer does when it is looked at, it is a wrong answer, not an end of Run All."""

    @functools.wraps(judge)
    def judged(answer, *rest, back="", **named):
        try:
            return judge(answer, *rest, back=back, **named)
        except Exception as error:
            problem = f"This cannot be judged: looking at it raises {type(error).__name__}. Give plain numbers or tensors."
            return Verdict(WRONG, _see(problem, back))

    return judged


@_never_raising
def value(answer, right, why, wrong=(), tolerance=0.0, back=""):
    """Judge a single answer: a number, a name, a set or a tuple.

    right      the right one; a `Range` if any number in it will do
    why        said when the answer is right
    wrong      pairs (test, diagnosis): `test` is a wrong answer, or a function that is true for wrong answers of one kind
    tolerance  how far from `right` a number may lie
    back       the passage that helps, such as "section 3"
    """
    if unanswered(answer):
        return Verdict(OPEN, "Not answered yet: put your answer in place of `...` and run the cell again.")
    try:
        if _agrees(answer, right, tolerance):
            return Verdict(RIGHT, why)
        for test, diagnosis in wrong:
            if test(answer) if callable(test) else _agrees(answer, test, tolerance):
                return Verdict(WRONG, _see(diagnosis, back))
    except (TypeError, ValueError, OverflowError):
        return Verdict(WRONG, _see(f"The answer should be {_kind(right)}; this is {answer!r}.", back))
    return Verdict(WRONG, _see(f"{answer!r} is not it.", back))


def _kind(right):
    """What kind of answer is asked for, in words."""
    if isinstance(right, bool):
        return "True or False"
    if isinstance(right, tuple) and not isinstance(right, Range):
        return f"{len(right)} values in brackets"
    return {str: "a text in quotes", set: "a set such as {0, 1}"}.get(type(right), "a number")


def _agrees(answer, right, tolerance):
    if isinstance(right, bool | str):
        return answer == right
    if isinstance(right, set):
        return {as_number(part) if isinstance(part, torch.Tensor) else part for part in answer} == right
    if isinstance(right, Range):
        return right.low <= as_number(answer) <= right.high
    if isinstance(right, tuple):
        return len(answer) == len(right) and all(_agrees(a, r, tolerance) for a, r in zip(answer, right, strict=True))
    return abs(as_number(answer) - right) <= tolerance + _coarseness(answer) * abs(right)


@_never_raising
def function(answer, right, cases, why, wrong=(), tolerance=1e-5, back=""):
    """Judge a function by what it returns.

    right      a function that does what was asked
    cases      a list of tuples of arguments
    why        said when the answer is right
    wrong      pairs (function, diagnosis): what a common mistake computes, and what to say about it
    tolerance  allowed difference, absolute and relative to the size of the values
    back       the passage that helps
    """
    if unanswered(answer):
        return Verdict(OPEN, "Not answered yet: write the function and run the cell again.")
    if not callable(answer):
        return Verdict(WRONG, _see(f"A function is asked for; this is {type(answer).__name__}.", back))
    got = []
    for case in cases:
        arguments = copy.deepcopy(case)
        try:
            result = answer(*arguments)
        except NotImplementedError:
            result = None
        except Exception as error:
            problem = f"The function stopped with {type(error).__name__}: {error} (called with {_described(case)})."
            return Verdict(WRONG, _see(problem, back))
        if unanswered(result):
            return Verdict(
                OPEN, "Not answered yet: the function returns nothing. Write its body, with a `return`, and run again."
            )
        if not _unchanged(arguments, case):
            return Verdict(
                WRONG, _see("The function changes what it was given: whoever calls it still needs that. Work on a copy.", back)
            )
        got.append(result)
    expected = [right(*copy.deepcopy(case)) for case in cases]
    if _all_close(got, expected, tolerance):
        return Verdict(RIGHT, why)
    for variant, diagnosis in wrong:
        results = _results(variant, cases)
        if results and _all_close(got, results, tolerance):
            return Verdict(WRONG, _see(diagnosis, back))
    return Verdict(WRONG, _see(_difference(got, expected, cases, tolerance), back))


def _results(variant, cases):
    """What a wrong variant returns; nothing if it cannot be computed."""
    try:
        return [variant(*copy.deepcopy(case)) for case in cases]
    except Exception:
        return []


def _array(x):
    """Anything with numbers in it as one float array; a network as its weights and biases, an object as nan."""
    if isinstance(x, torch.nn.Module):
        x = torch.cat([p.detach().flatten().double() for p in x.state_dict().values()])
    try:
        return float64(x, "x")
    except Exception:  # an object of the reader's may do anything
        return np.array(np.nan)


def _coarseness(x):
    """The relative rounding of a tensor in half precision, 0 for everything finer: what it cannot hold is not asked of it."""
    coarse = isinstance(x, torch.Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return 4 * torch.finfo(x.dtype).eps if coarse else 0.0


def _all_close(got, expected, tolerance):
    for g, e in zip(got, expected, strict=True):
        a, b, rtol = _array(g), _array(e), tolerance + _coarseness(g)
        if a.shape != b.shape or not np.allclose(a, b, rtol=rtol, atol=rtol, equal_nan=True):
            return False
    return True


def _unchanged(arguments, case):
    return all(np.array_equal(_array(a), _array(b), equal_nan=True) for a, b in zip(arguments, case, strict=True))


def _difference(got, expected, cases, tolerance):
    """The first difference in words."""
    for g, e, case in zip(got, expected, cases, strict=True):
        if _all_close([g], [e], tolerance):
            continue
        a, b = _array(g), _array(e)
        if a.shape != b.shape:
            return f"The result should have the shape {list(b.shape)}; it has {list(a.shape)} (called with {_described(case)})."
        place = np.unravel_index(np.argmax(~np.isclose(a, b, rtol=tolerance, atol=tolerance)), b.shape)
        where = f" at {list(map(int, place))}" if b.ndim else ""
        return f"Not yet: the value{where} is {a[place]:.6g}, it should be {b[place]:.6g} (called with {_described(case)})."


def _described(case):
    """Arguments in words: small ones themselves, tensors by their shape."""

    def one(x):
        if isinstance(x, torch.nn.Module):
            return "a network"
        if isinstance(x, torch.Tensor | np.ndarray) and x.ndim:
            return f"{type(x).__name__} {list(x.shape)}"
        return f"{x:.6g}" if isinstance(x, float) else str(x)[:60]

    return ", ".join(map(one, case))


def _see(message, back):
    if not back:
        return message
    return f"{message if message.endswith(('.', '?')) else message + '.'} See {back}."
