"""Checks of the exercises of notebook 00."""

import torch

from ood_helpers import scores
from ood_helpers.checks.answers import Verdict, function, near, never_raises, value
from ood_helpers.checks.polytopes import networks, without_ties

_NEAR = torch.tensor([3.0, 1.0, 0.0, -1.0])


@never_raises
def twice_as_far(answer: object) -> Verdict:
    here, there = (float(scores.max_softmax(logits)) for logits in (_NEAR, 2 * _NEAR))
    wrong = [
        (near(here, 2e-3), "That is the confidence at the first point. The softmax sees differences, and they have doubled."),
        (near(1.0, 2e-3), "It goes there, but it is not there yet: 1 − 0.979 is still something."),
        (near(here**2, 2e-3), "The logits double, not the logarithm of the probability."),
        (near(1 - there, 2e-3), "That is what is left for the other three classes."),
        (near(6.0, 2e-3), "That is the greatest logit; the confidence is its softmax probability."),
    ]
    why = "All differences have doubled, so exp has squared the odds: 0.83 has become 0.98, and so on without end."
    return value(answer, there, why, wrong, tolerance=2e-3, back="section 2")


@never_raises
def confidence(answer: object) -> Verdict:
    wrong = [
        (
            lambda z: z.softmax(0).amax(1),
            "The softmax runs over the points (axis 0). Each point has a distribution of its own: axis 1.",
        ),
        (
            lambda z: z.softmax(1).amax(0),
            "The maximum runs over the points. Each point has a confidence of its own: n numbers, not K.",
        ),
        (lambda z: z.softmax(1).argmax(1), "That is *which* class wins; the confidence is how probable it is."),
        (lambda z: z.amax(1), "A logit is no probability: first the softmax, then the maximum."),
        (lambda z: z.amax(1).sigmoid(), "The sigmoid of one logit knows nothing of the others. The softmax compares them."),
        (lambda z: z.amax(1) / z.sum(1), "Logits are not shares: they can be negative. The softmax takes exp first."),
        (
            lambda z: z.exp().amax(1) / z.exp().sum(1),
            "exp(1000) is more than a float holds, and inf / inf is nan. Subtract the largest logit first.",
        ),
        (lambda z: z.softmax(1), "These are all K probabilities; the confidence is the largest."),
    ]
    why = "A number between 1/K and 1 for each point: how sure the network is of whatever it says."
    return function(answer, scores.max_softmax, _logits(), why, wrong, back="section 1")


def _logits():
    """Logits [n, K] near and far: some in the thousands."""
    generator = torch.Generator().manual_seed(0)
    return [(size * torch.randn(n, k, generator=generator),) for n, k, size in [(7, 4, 1.0), (5, 2, 3.0), (6, 5, 1000.0)]]


@never_raises
def closed_at_most(answer: object) -> Verdict:
    wrong = [
        (4, "Somebody must have the far field, and the far field has no end: whoever wins there has an open region."),
        (0, "The trained ones were all open, but nothing forces it: a class may be an island inside another."),
        (1, "One can be closed, and so can more: three of the four may be islands in the region of the fourth."),
        (2, "Not two only: three of the four may be islands in the region of the fourth."),
        (5, "There are only four regions."),
    ]
    why = (
        "At least one region is open as long as every point goes to a class. Only a class that is *meant* to win far away helps."
    )
    return value(answer, 3, why, wrong, back="section 3")


@never_raises
def open_share(answer: object) -> Verdict:
    def right(model, u):
        z = model(1e6 * u)
        return (z.argmax(1) < z.shape[1] - 1).double().mean()

    wrong = [
        (
            lambda model, u: (model(u).argmax(1) < model(u).shape[1] - 1).double().mean(),
            "That asks at a distance of 1. Open means: far away.",
        ),
        (lambda model, u: 1 - right(model, u), "That is the share which reject wins: the closed directions."),
        (lambda model, u: 100 * right(model, u), "That is in percent; a share lies between 0 and 1."),
        (
            lambda model, u: (model(1e6 * u).argmax(0) < model(u).shape[1] - 1).double().mean(),
            "argmax over the wrong axis: each direction, a row, has a winner.",
        ),
        (lambda model, u: torch.tensor(1.0), "Every direction counts as open here: the last output is reject, not a class."),
        (lambda model, u: right(model, u) * len(u), "That is the number of directions; the share is asked for."),
    ]
    why = "A share of 0 in 3600 directions is strong evidence, not yet a proof. Notebook 01 finds all directions exactly."
    return function(answer, right, without_ties(networks()), why, wrong, tolerance=1e-4, back="section 4")
