"""Checks of the exercises of notebook 10."""

import itertools
import math

import torch

from ood_helpers.checks.answers import Verdict, function, near, never_raises, value


@never_raises
def inside(answer: object) -> Verdict:
    right = 1 - math.exp(-4.5)
    wrong = [
        (near(0.9973, 5e-4), "That is the three-sigma rule of one dimension. In the plane a cloud has more room outside."),
        (near(math.exp(-4.5), 5e-4), "That is the share outside."),
        (near(1 - math.exp(-1.5), 5e-3), "Square the 3: the squared distance is what decays exponentially."),
        (near(100 * right, 0.1), "That is in percent; a share lies between 0 and 1."),
        (near(0.9973**2, 5e-4), "That is two independent coordinates within ±3 each, a square. A shell is round."),
    ]
    why = "1 − exp(−9/2) = 0.989. The same share of mass is meant where notebook 05 chooses shells in more dimensions."
    return value(answer, right, why, wrong, tolerance=5e-4, back="section 1")


@never_raises
def distance(answer: object) -> Verdict:
    def all_of(points, x):
        return torch.cdist(x, points[points[:, 2] >= 0, :2])

    def right(points, x, std):
        return all_of(points, x).amin(1) / std

    wrong = [
        (lambda points, x, std: torch.cdist(x, points[:, :2]).amin(1) / std, "OOD points are no class: leave them out."),
        (lambda points, x, std: all_of(points, x).amin(1), "The distance is asked for in standard deviations: divide by std."),
        (lambda points, x, std: all_of(points, x).amin(1) / std**2, "std² is the variance; distances go with std."),
        (
            lambda points, x, std: all_of(points, x).mean(1) / std,
            "That is the mean over the points; the nearest one is asked for.",
        ),
        (lambda points, x, std: all_of(points, x).amax(1) / std, "That is the farthest point; the nearest one is asked for."),
        (lambda points, x, std: all_of(points, x).argmin(1), "That is the number of the nearest point, not how far it is."),
        (lambda points, x, std: all_of(points, x).amin(1).square() / std, "That is squared; take the distance itself."),
        (
            lambda points, x, std: torch.cdist(x, points[points[:, 2] > 0, :2]).amin(1) / std,
            "Class 0 is a class: `>= 0`, not `> 0`.",
        ),
    ]
    why = "`worlds.Painted(…).mahalanobis(x)` says the same."
    return function(answer, right, _worlds(), why, wrong, back="section 1")


@never_raises
def k_star(answer: object) -> Verdict:
    def run(w1, b1, w2, b2, w3, b3, u, biases=(0, 0, 0), bend=torch.relu, last=lambda z: z):
        first, second, third = biases
        h = bend(u @ w1.T + first * b1)
        return last(bend(h @ w2.T + second * b2) @ w3.T + third * b3).argmax(1)

    def other(**how):
        return lambda *parts: run(*parts, **how)

    wrong = [
        (other(biases=(1, 1, 1)), "The biases are still there: that is who wins at distance 1."),
        (other(bend=lambda z: z), "The ReLU is missing between the layers."),
        (other(biases=(0, 0, 1)), "The last biases are still there. Far away they do not count."),
        (other(last=torch.abs), "That takes the largest weight whatever its sign: drop the abs."),
        (other(last=torch.neg), "That is the class with the smallest slope."),
    ]
    why = "`polytopes.infinity` finds the exact angles at which this changes."
    return function(answer, run, _files(), why, wrong, back="section 3")


def _worlds():
    """Cases (points [m, 3], x [n, 2], std) in which every known wrong answer differs."""
    cases = []
    for seed, std in enumerate([2.0, 0.5]):
        random = torch.Generator().manual_seed(seed)
        places = 10 * torch.randn(9, 2, generator=random, dtype=torch.float64)
        classes = torch.tensor([0, 1, -1, 0, 2, -1, 1, -1, 0], dtype=torch.float64)
        x = 10 * torch.randn(12, 2, generator=random, dtype=torch.float64)
        cases.append((torch.cat([places, classes[:, None]], 1), x, std))
    return cases


def _files():
    """Cases (w1, b1, w2, b2, w3, b3, u [n, 2]) in which every known wrong answer differs.

    Without directions in which the bias-free network ties two classes: there the biases decide who wins.
    """
    cases = []
    for seed, sizes in enumerate([(2, 6, 5, 3), (2, 9, 7, 4)]):
        random, parts = torch.Generator().manual_seed(seed), []
        for n, m in itertools.pairwise(sizes):
            parts.append(torch.randn(m, n, generator=random, dtype=torch.float64))
            parts.append(3 * torch.randn(m, generator=random, dtype=torch.float64))
        angle = 2 * math.pi * torch.rand(30, generator=random, dtype=torch.float64)
        u = torch.stack([angle.cos(), angle.sin()], 1)
        w1, w2, w3 = parts[::2]
        first, second = (((u @ w1.T).relu() @ w2.T).relu() @ w3.T).topk(2, dim=1).values.T
        cases.append((*parts, u[first - second > 1e-3]))
    return cases
