"""Checks of the exercises of notebook 06."""

import torch

from ood_helpers import images, scores
from ood_helpers.checks.answers import Verdict, function, never_raises, value


@never_raises
def to_face(answer: object) -> Verdict:
    def ways(x, u):
        return torch.where(u > 0, (1 - x) / u, -x / u)

    wrong = [
        (
            lambda x, u: ways(x, u).max(),
            "The maximum is where the last pixel arrives. The first one to arrive ends the way: the minimum.",
        ),
        (
            lambda x, u: ways(x, u).min(),
            "A pixel with u = 0 never arrives; divided by 0 it gives −inf here. Its way should be +inf.",
        ),
        (lambda x, u: ((1 - x) / u).abs().min(), "A pixel that falls arrives at 0, not at 1."),
        (
            lambda x, u: torch.where(u > 0, (1 - x) / u, torch.inf).min(),
            "Only rising pixels are looked at; falling ones arrive at 0.",
        ),
        (lambda x, u: torch.where(u < 0, -x / u, torch.inf).min(), "Only falling pixels are looked at; rising ones arrive at 1."),
        (lambda x, u: ways(x, u).abs().min() * u.norm(), "The length of u is counted twice: t is measured in steps of u."),
        (lambda x, u: ways(x, u), "One way for each pixel; the face is reached with the first of them."),
        (
            lambda x, u: torch.minimum((1 - x) / u, -x / u).min(),
            "Of the two faces of a pixel one lies behind it: choose by the sign of u.",
        ),
    ]
    why = "Some pixel arrives first, and with 64 of them soon. That is why infinity is so far away from a box."
    generator = torch.Generator().manual_seed(0)
    cases = [(torch.rand(d, generator=generator).double(), torch.randn(d, generator=generator).double()) for d in (2, 5, 64, 64)]
    cases.append((torch.tensor([0.5, 0.2, 0.9]).double(), torch.tensor([0.0, 0.1, -0.3]).double()))
    return function(answer, images.ray_to_face, cases, why, wrong, back="section 3")


@never_raises
def shared_direction(answer: object) -> Verdict:
    wrong = [
        (0.5, "One half is reached at n = 2d, here at four half-planes."),
        (0.25, "That is the probability that they share *none*."),
        (0.125, "That is the probability that all three hold one given direction; any direction will do."),
        (1.0, "Two half-planes always share one, three may shut each other out."),
        (0.0, "Two half-planes nearly always share a direction; a third can agree with them."),
        (lambda x: 70 < float(x) < 80, "That is in percent; a probability lies between 0 and 1."),
    ]
    why = "Three random arrows lie within half a turn in three of four cases. More dimensions, more room: hence the curves."
    return value(answer, 0.75, why, wrong, tolerance=5e-3, back="section 4, “Why”")


_SIZES = [(1.0, 11, 10), (3.0, 4, 3), (60.0, 11, 10), (2.0, 5, 5), (2.0, 7, 4)]  # of the logits, outputs, those that count


@never_raises
def log_odds(answer: object) -> Verdict:
    def rest(z, n, others):
        top, k = z.double()[:, :n].max(1, keepdim=True)
        return top[:, 0] - z.double().scatter(1, k, -torch.inf)[:, :others].logsumexp(1)

    wrong = [
        (
            lambda z, n: z.softmax(1)[:, :n].amax(1).log() - (1 - z.softmax(1)[:, :n].amax(1)).log(),
            "Infinite where p is rounded to 1. Stay with logits: the largest minus the `logsumexp` of all others.",
        ),
        (
            lambda z, n: z.double().softmax(1)[:, :n].amax(1).log() - (1 - z.double().softmax(1)[:, :n].amax(1)).log(),
            "In float64 p is rounded to 1 later, and then this is infinite all the same. Stay with logits.",
        ),
        (
            lambda z, n: scores.max_softmax_log_odds(z),
            "The largest of *all* outputs: where reject wins, that is no digit. Look at the first n.",
        ),
        (
            lambda z, n: rest(z, z.shape[1] - 1, z.shape[1]),
            "The largest of all but the *last* output: there may be no output behind the first n, or several. Take `[:, :n]`.",
        ),
        (lambda z, n: rest(z, n, n), "Reject is missing among the others: 1 − p holds its probability, too."),
        (
            lambda z, n: z.double()[:, :n].topk(2, 1).values @ torch.tensor([1.0, -1.0]).double(),
            "Only the second best is taken off; 1 − p is the sum of all the others.",
        ),
        (lambda z, n: z.softmax(1)[:, :n].amax(1), "This is p itself; it saturates, and its gradient vanishes."),
        (lambda z, n: z.log_softmax(1)[:, :n].amax(1), "This is log p, which goes to 0 where the log-odds go on growing."),
        (lambda z, n: -scores.max_softmax_log_odds(z, n), "The sign: p in the numerator, 1 − p in the denominator."),
    ]
    why = "Same highest point, no plateau: a search that follows it finds what a search on p walks past."
    generator = torch.Generator().manual_seed(1)
    cases = [(size * torch.randn(8, k, generator=generator), n) for size, k, n in _SIZES]
    return function(answer, scores.max_softmax_log_odds, cases, why, wrong, back="section 6")


@never_raises
def interval(answer: object) -> Verdict:
    def right(weight, bias, low, high):
        middle, half = (low + high) / 2, (high - low) / 2
        centre, spread = weight @ middle + bias, weight.abs() @ half
        return centre - spread, centre + spread

    def over(weight, bias, low, high):
        return weight @ low + bias, weight @ high + bias

    wrong = [
        (over, "A negative weight turns the interval round: its greatest value comes from the *lower* end."),
        (
            lambda w, b, low, high: tuple(
                torch.minimum(*over(w, b, low, high)) if k == 0 else torch.maximum(*over(w, b, low, high)) for k in (0, 1)
            ),
            "Two corners of the box are not all of them: every input chooses its own end, by the sign of its weight.",
        ),
        (lambda w, b, low, high: tuple(bound - b for bound in right(w, b, low, high)), "The bias is missing."),
        (
            lambda w, b, low, high: (
                w @ (low + high) / 2 + b - w.abs() @ (high - low),
                w @ (low + high) / 2 + b + w.abs() @ (high - low),
            ),
            "Twice too wide: half the width of each input reaches to either side of the middle.",
        ),
        (
            lambda w, b, low, high: right(w, b, low, high)[::-1],
            "The two are in the wrong order: first the lower bounds, then the upper ones.",
        ),
    ]
    why = "Exact for one layer. Through ReLUs and more layers intervals get loose; section 7's lines keep more."
    generator = torch.Generator().manual_seed(2)
    cases = []
    for d, n in [(2, 3), (5, 4), (64, 10)]:
        w, b, x = (torch.randn(*shape, generator=generator) for shape in [(n, d), (n,), (d,)])
        cases.append((w, b, x - torch.rand(d, generator=generator), x + 2 * torch.rand(d, generator=generator)))
    return function(answer, right, cases, why, wrong, back="section 7")
