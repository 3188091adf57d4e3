"""How an answer is judged: against the right one, then against the wrong ones that are known, each with its diagnosis.

A check never raises for what a reader wrote: an exercise that is not solved yet must not stop Run All. It returns a `Verdict`,
which a cell shows; `never_raises` sees to it. An answer may come in any container (Python, numpy, torch) and in any precision
that can hold it.
"""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ood_helpers.arrays import float64

OPEN, WRONG, RIGHT = "✎", "✗", "✓"
_MOST = 100_000  # values that are taken from a generator, which may have no end


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
    """Every number from low to high, both included, is right; of arrays, every entry from its low to its high."""

    low: float
    high: float


def never_raises(check: Callable[..., Verdict]) -> Callable[..., Verdict]:
    """`check` as it is for readers: whatever they hand in, it returns a Verdict. Only an interrupt passes.

    What a notebook may have set (another device, no gradients, numpy's errors raised) counts for nothing while it judges.
    """

    @functools.wraps(check)
    def judged(answer, *rest, **named):
        try:
            with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad(), np.errstate(all="ignore"):
                return check(answer, *rest, **named)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, GeneratorExit: a reader's code may raise anything
            return Verdict(WRONG, f"This answer cannot be judged; to look at it stopped with {_told(error)}.")

    return judged


def _unanswered(answer: object) -> bool:
    """Whether `answer` is still what a stub holds, None or `...`, or has it among its parts."""
    if isinstance(answer, list | tuple | set):
        return any(_unanswered(part) for part in answer)
    return answer is None or answer is Ellipsis


def near(number, width):
    """A test for wrong answers of one kind: those at most `width` away from `number`."""
    return lambda answer: abs(answer - number) <= width


@never_raises
def value(answer, right, why, wrong=(), tolerance=0.0, back=""):
    """Judge a single answer: a number, a name, a set or a tuple.

    right      the right one; a `Range` if any number in it will do
    why        said when the answer is right
    wrong      pairs (test, diagnosis): `test` is a wrong answer, or a function of the answer, as a plain Python value, that is
               true for wrong answers of one kind
    tolerance  how far from `right` a number may lie
    back       the passage that helps, such as "section 3"
    """
    if _unanswered(answer):
        return Verdict(OPEN, "Not answered yet: put your answer in place of `...` and run the cell again.")
    try:
        plain = _plain(answer, right)
    except Exception:
        return Verdict(WRONG, _see(f"The answer should be {_kind(right)}; this is {_told(answer)}.", back))
    if _agrees(plain, right, tolerance):
        return Verdict(RIGHT, why)
    for test, diagnosis in wrong:
        if test(plain) if callable(test) else _agrees(plain, test, tolerance):
            return Verdict(WRONG, _see(diagnosis, back))
    if isinstance(plain, float):
        rounding = _precision(answer) * abs(plain)  # of a right number that was stored in this type it is at most half of that
        if _agrees(plain, right, tolerance + rounding / 2):
            return Verdict(RIGHT, why)
        if _agrees(plain, right, tolerance + 8 * rounding):
            return Verdict(WRONG, _see(_TOO_COARSE, back))
    return Verdict(WRONG, _see(f"{_told(plain)} is not it.", back))


_TOO_COARSE = "Right, as far as numbers of so few digits can tell; more of them are needed. Compute in float64."


def _kind(right):
    """What kind of answer is asked for, in words."""
    if isinstance(right, bool):
        return "True or False"
    if isinstance(right, tuple) and not isinstance(right, Range):
        return f"{len(right)} values in brackets"
    return {str: "a text in quotes", set: "a set such as {0, 1}"}.get(type(right), "a number")


def _plain(answer, right):
    """The answer as a plain Python value of the kind of `right`; an error if it is of another kind."""
    if isinstance(right, set | tuple) and not isinstance(right, Range):
        parts = answer.tolist() if hasattr(answer, "tolist") else answer
        parts = [parts] if isinstance(parts, str) else list(itertools.islice(parts, _MOST))
        if isinstance(right, set):
            return {part.item() if hasattr(part, "item") else part for part in parts}
        return tuple(_plain(part, kind) for part, kind in zip(parts, right, strict=True))
    if isinstance(right, bool | str):
        answer = answer.item() if hasattr(answer, "item") else answer
        return answer if isinstance(right, bool) else " ".join(answer.split()).lower()
    if str(getattr(answer, "dtype", type(answer).__name__)) in ("bool", "torch.bool"):
        raise TypeError("True and False are no numbers")
    return float(answer) if isinstance(answer, str) else _array(answer).item()


def _agrees(plain, right, tolerance):
    if isinstance(right, bool):
        return plain is right
    if isinstance(right, str | set):
        return plain == right
    if isinstance(right, Range):
        return right.low - tolerance <= plain <= right.high + tolerance
    if isinstance(right, tuple):
        return len(plain) == len(right) and all(_agrees(a, r, tolerance) for a, r in zip(plain, right, strict=True))
    return abs(plain - right) <= tolerance


@never_raises
def function(answer, right, cases, why, wrong=(), tolerance=1e-5, back="", part=None, any_order=False):
    """Judge a function by what it returns.

    right      a function that does what was asked; it may return a `Range` if every result in it will do
    cases      a list of tuples of arguments
    why        said when the answer is right
    wrong      pairs (function, diagnosis): what a common mistake computes, and what to say about it
    tolerance  allowed difference, absolute and relative to the size of the values
    back       the passage that helps
    part       a function that takes what is judged out of a result; its ValueError says what is missing
    any_order  whether the rows of a result may stand in any order
    """
    if _unanswered(answer):
        return Verdict(OPEN, "Not answered yet: write the function and run the cell again.")
    if not callable(answer):
        problem = f"A function is asked for; this is {type(answer).__name__}. Hand in its name, without brackets behind it."
        return Verdict(WRONG, _see(problem, back))
    got, expected, precision = [], [], 0.0
    for case in cases:
        arguments, stopped = copy.deepcopy(case), ""
        try:
            result = answer(*arguments)
            if isinstance(result, Iterator):
                result = list(itertools.islice(result, _MOST))
        except NotImplementedError as error:
            result, stopped = None, f" (it stopped with {_told(error)})" if error.args else ""
        except (Exception, SystemExit) as error:
            problem = f"The function stopped with {_told(error)} (called with {_described(case)})."
            return Verdict(WRONG, _see(problem, back))
        if part and result is not None and result is not Ellipsis:
            try:
                result = part(result)
            except ValueError as error:
                return Verdict(WRONG, _see(f"{error}; this is {_told(result)}.", back))
        if _unanswered(result):
            nothing = f"Not answered yet: the function returns nothing{stopped}. Write its body, with a `return`, and run again."
            return Verdict(OPEN, nothing)
        if not all(map(_same, arguments, case)):
            return Verdict(
                WRONG, _see("The function changes what it was given: whoever calls it still needs that. Work on a copy.", back)
            )
        wanted = _range(right(*copy.deepcopy(case)))
        expected.append(wanted)
        try:
            got.append(_array(result))  # a copy: the next call may write into the same tensor
        except Exception:
            asked = f"numbers of the shape {list(wanted.low.shape)}" if wanted.low.ndim else "a number"
            problem = f"The result should be {asked}; it is {_told(result)} (called with {_described(case)})."
            return Verdict(WRONG, _see(problem + _pair(result), back))
        precision = max(precision, _precision(result))

    def equal(results, absolute=tolerance, relative=tolerance):
        pairs = zip(got, results, strict=True)
        return all(_close(_fitted(g, r, any_order), r, absolute, relative).all() for g, r in pairs)

    def is_of(variant, relative):  # most differ in the first case, and one that cannot be computed is none
        try:
            return equal((_range(variant(*copy.deepcopy(case))) for case in cases), relative=relative)
        except Exception:
            return False

    if equal(expected):
        return Verdict(RIGHT, why)
    rounded = tolerance + precision / 2  # as far as a number can be away that was stored in this type
    right_one = equal(expected, relative=rounded)
    for relative in (tolerance, rounded):
        found = next((diagnosis for variant, diagnosis in wrong if is_of(variant, relative)), None)
        if found:
            return Verdict(WRONG, _see(_TOO_COARSE if right_one and relative == rounded else found, back))
    if right_one:
        return Verdict(RIGHT, why)
    size = max(1.0, *(np.abs(e.high).max(initial=0.0) for e in expected))
    if equal(expected, absolute=max(tolerance, 8 * precision * size)):  # computed in this type
        return Verdict(WRONG, _see(_TOO_COARSE, back))
    fitted = [_fitted(g, e, any_order) for g, e in zip(got, expected, strict=True)]
    return Verdict(WRONG, _see(_difference(fitted, expected, cases, tolerance) + _pair(result), back))


def _array(x):
    """A copy, in float64, of anything with numbers in it, and of the weights and biases of a network; an error if it has none."""
    if isinstance(x, torch.nn.Module):
        x = torch.cat([p.detach().flatten().double() for p in x.state_dict().values()])
    return float64(list(itertools.islice(x, _MOST)) if isinstance(x, Iterator) else x, "the answer")


def _range(result):
    """What right or wrong results lie between: two arrays, mostly the same."""
    low, high = result if isinstance(result, Range) else (result, result)
    return Range(_array(low), _array(high))


def _precision(x):
    """The distance from 1 to the next number of the type that holds x: 0 for Python's own."""
    if isinstance(x, list | tuple):
        return max(map(_precision, x), default=0.0)
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        return torch.finfo(x.dtype).eps
    return float(np.finfo(x.dtype).eps) if isinstance(x, np.ndarray | np.generic) and x.dtype.kind == "f" else 0.0


def _fitted(got, wanted, any_order):
    """`got` made comparable to what is wanted: a number without the brackets around it, rows in the order that is wanted."""
    shape = wanted.low.shape
    if got.size == wanted.low.size == 1:
        return got.reshape(shape)
    if any_order and got.shape == shape:
        distances = np.nan_to_num(cdist(wanted.low, got), nan=np.finfo(float).max)
        return got[linear_sum_assignment(distances)[1]]
    return got


def _close(got, wanted, absolute, relative):
    """Where `got` is in its range, or at most the tolerances outside; False if the shapes differ."""
    if got.shape != wanted.low.shape:
        return np.False_
    return np.isclose(got, _nearest(got, wanted), rtol=relative, atol=absolute, equal_nan=True)


def _nearest(got, wanted):
    """What would have been right, nearest to `got`."""
    return np.where(np.isnan(got), wanted.low, np.clip(got, *wanted))


def _same(a, b):
    """Whether an argument is still what it was."""
    if isinstance(b, torch.nn.Module):
        return repr(a) == repr(b) and all(map(_same, a.state_dict().values(), b.state_dict().values()))
    if isinstance(b, torch.Tensor):
        return (a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b)
    return np.array_equal(a, b)


def _difference(got, expected, cases, tolerance):
    """The first difference in words."""
    for g, e, case in zip(got, expected, cases, strict=True):
        close, right = _close(g, e, tolerance, tolerance), e.low
        if close.all():
            continue
        if g.shape != right.shape:
            words = (
                f"The result should have the shape {list(right.shape)}; it has {list(g.shape)} (called with {_described(case)})."
            )
            if _close(g.squeeze(), Range(*map(np.squeeze, e)), tolerance, tolerance).all():
                words += " The numbers are right: take the axis of length 1 away, with `squeeze`."
            return words
        place = np.unravel_index(np.argmax(~close), right.shape)
        where = f" at {list(map(int, place))}" if right.ndim else ""
        should = _nearest(g, e)[place]
        return f"Not yet: the value{where} is {g[place]:.6g}, it should be {should:.6g} (called with {_described(case)})."


def _pair(result):
    """What to say about the pair that torch's `max` along an axis returns."""
    pair = type(result).__module__ == "torch.return_types" and hasattr(result, "indices")
    return " This is the pair (values, indices) that `max` and its like return: take `.values` or `.indices`." if pair else ""


def _described(case):
    """Arguments in words: small ones themselves, tensors by their shape."""

    def one(x):
        if isinstance(x, torch.nn.Module):
            return "a network"
        if isinstance(x, torch.Tensor | np.ndarray) and x.ndim:
            return f"{type(x).__name__} {list(x.shape)}"
        return f"{x:.6g}" if isinstance(x, float) else str(x)[:60]

    return ", ".join(map(one, case))


def _told(x):
    """An answer or an error in one line that is not too long, whatever it says of itself."""
    try:
        text = f"{x:.6g}" if type(x) is float else repr(x)
        if isinstance(x, BaseException):
            text = f"{type(x).__name__}: {x}".removesuffix(": ")
    except Exception:
        return f"something of type {type(x).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:200] + "…"


def _see(message, back):
    if not back:
        return message
    return f"{message if message.endswith(('.', '?')) else message + '.'} See {back}."
