"""Checks of the exercises of notebook 05."""

import copy
import math

import numpy as np
import torch
from scipy.stats import chi2
from torch import nn

from ood_helpers import models, scores
from ood_helpers.checks.answers import Verdict, function, never_raises, value
from ood_helpers.lab import claims, paper

# AUROCs of twenty seeds of three detectors that do not exist
_SEEDS = {"A": [0.96] * 19 + [0.30], "B": [1.0] * 16 + [0.85] * 4, "C": [0.99] + [0.94] * 19}
_EFFECTIVE = claims.at_least(0.95)


@never_raises
def verdicts(answer: object) -> Verdict:
    yes, part, no = "holds", "holds in part", "does not hold"
    right = tuple(claims.verdict(np.mean([_EFFECTIVE.met(auroc) for auroc in aurocs])) for aurocs in _SEEDS.values())
    wrong = [
        (
            (no, yes, no),
            "These are verdicts on the means, 0.93, 0.97 and 0.94. The rule counts seeds: how many of the twenty reach 0.95?",
        ),
        ((part, part, part), "Both bounds count: 19 of 20 seeds are 95 %, which holds, and 1 of 20 is 5 %, which does not."),
        ((part, part, no), "A: 19 of 20 seeds are 95 %, and at least 95 % is enough."),
        ((yes, part, part), "C: 1 of 20 seeds is 5 %, and at most 5 % does not hold."),
        ((yes, yes, no), "B: 16 of 20 seeds are 80 %. A majority is not enough."),
        ((no, no, no), "A single bad seed is not enough: the rule lets one in twenty fail."),
        (
            (part, yes, no),
            "This looks at B's mean, 0.97, but four of its twenty seeds are below 0.95; and 19 of 20 seeds are 95 %.",
        ),
    ]
    why = "19, 16 and 1 of 20 seeds reach 0.95: 95 %, 80 % and 5 %. By their means B would be the only effective one."
    return value(answer, right, why, wrong, back="section 6")


@never_raises
def sigmoid_limit(answer: object) -> Verdict:
    def confidence(*gap):
        return 1 / (1 + math.exp(-sum(gap)))

    wrong = [
        (1.0, "That is the theorem of ReLU networks. Here no neuron gives more than 1, so the gap of the logits stops growing."),
        (0.5, "Far away does not mean unsure: neurons that are at 0 or 1 give the gap some value, and it stays."),
        (
            confidence(3.0, -1.0),
            "The third neuron is off here. It starts at −40, but 0.5 α grows without end: from α = 80 on it is positive.",
        ),
        (confidence(3.0, 1.5), "The −1 is missing: behind the neurons nothing grows, so an offset counts as much as ever."),
        (
            confidence(0.5),
            "All three neurons are on here. The second one's input goes to −∞, and σ(−∞) = 0.",
        ),
        (confidence(-3.5), "This is the probability of class 0, the loser; the confidence is the larger one."),
        (confidence(3.0, -4.0, 1.5, -1.0), "The second neuron's input goes to −∞: it gives 0, and its −4 does not count."),
        (3.5, "This is the gap of the logits. The confidence is 1 / (1 + exp(−gap))."),
    ]
    why = "The neurons go to 1, 0 and 1, the gap to 3 + 1.5 − 1 = 3.5: sure, not certain, and it stays so."
    return value(answer, confidence(3.5), why, wrong, tolerance=2e-3, back="section 3")


@never_raises
def radius(answer: object) -> Verdict:
    def radius_of(share, dim):
        return math.sqrt(chi2.ppf(share, dim))

    plane = chi2.cdf(9.0, 2)
    wrong = [
        (
            lambda dim: chi2.ppf(plane, dim),
            "This is the square of the radius: `chi2` is about |x|², so `ppf` gives a squared distance.",
        ),
        (
            lambda dim: radius_of(chi2.cdf(9.0, 1), dim),
            "99.7 % is the share within 3 standard deviations on a line. In the plane it is 98.9 %.",
        ),
        *(
            (
                always,
                "Always 3: the share was taken in `dim` dimensions. Take it in the plane, and look for it in `dim`.",
            )
            for always in (lambda dim: 3.0, lambda dim: radius_of(chi2.cdf(9.0, dim), dim))
        ),
        (
            lambda dim: radius_of(chi2.cdf(3.0, 2), dim),
            "`chi2` is about |x|²: within radius 3 is `cdf(9, 2)`, not `cdf(3, 2)`.",
        ),
        (
            lambda dim: radius_of(1 - plane, dim),
            "This radius leaves 98.9 % outside. They should be inside: 1.1 % is what lies beyond.",
        ),
        (lambda dim: math.sqrt(dim), "√d is where the class lies: about half of it is beyond. Its edge is farther out."),
        (
            lambda dim: 3 * math.sqrt(dim / 2),
            "The radius does not grow like √d: the class is a shell whose thickness stays about the same. Count the share.",
        ),
        (
            lambda dim: 3 * math.sqrt(dim),
            "The radius does not grow like 3 √d: the class is a shell at √d whose thickness stays about the same.",
        ),
        (
            lambda dim: chi2.cdf(9.0, dim),
            "This is a share, the one within radius 3. The radius is asked for; the inverse of `cdf` is `ppf`.",
        ),
    ]
    why = "The same share outside, whatever the dimension: this is where a shell is around the class."
    cases = [(dim,) for dim in (2, 3, 10, 50, 784)]
    return function(answer, lambda dim: paper.shell(dim)["inner"], cases, why, wrong, tolerance=1e-3, back="section 2")


@never_raises
def interval(answer: object) -> Verdict:
    def ends(x, cuts=(2.5, 97.5)):
        return np.percentile(x, cuts)

    def means(values, picks):
        return values[picks].mean(1)

    def around(values, half):
        return values.mean() - half, values.mean() + half

    wrong = [
        (
            lambda values, picks: ends(values),
            "This is where the seeds lie. The interval says how well their *mean* is known: take means of resamples.",
        ),
        (
            lambda values, picks: ends(values[picks]),
            "This is the range of the seeds. The interval is about their *mean*: take the mean of each resample first.",
        ),
        (
            lambda values, picks: ends(values[picks].mean(0)),
            "The mean is over the wrong axis: each of the rows is one resample of all seeds, and has one mean.",
        ),
        (
            lambda values, picks: ends(means(values, picks), (0.025, 0.975)),
            "`np.percentile` counts in per cent, from 0 to 100: 2.5, not 0.025. (`np.quantile` takes shares.)",
        ),
        (
            lambda values, picks: ends(means(values, picks), (5, 95)),
            "Between 5 and 95 lie 90 %. For 95 % leave out 2.5 % on either side.",
        ),
        (
            lambda values, picks: ends(means(values, picks), (0, 95)),
            "This leaves out 5 % on one side; leave out 2.5 % on either side.",
        ),
        (
            lambda values, picks: (means(values, picks).min(), means(values, picks).max()),
            "The extremes of the means depend on how often you resample; leave out 2.5 % on either side.",
        ),
        (
            lambda values, picks: ends(np.median(values[picks], 1)),
            "These are medians of the resamples; the mean is asked for.",
        ),
        *(
            (
                lambda values, picks, ddof=ddof: around(values, 1.96 * values.std(ddof=ddof) / math.sqrt(len(values))),
                "Mean ± 1.96 standard errors is close, but it lies evenly about the mean and may end above 1, where no AUROC is. "
                "Take the percentiles of the resampled means.",
            )
            for ddof in (0, 1)
        ),
        *(
            (
                lambda values, picks, ddof=ddof, k=k: around(values, k * values.std(ddof=ddof)),
                "The standard deviation says how far single seeds lie from the mean; the mean itself is known better.",
            )
            for ddof in (0, 1)
            for k in (1, 1.96, 2)
        ),
        (
            lambda values, picks: ends(means(values, picks))[::-1],
            "The ends have changed places: first the lower one.",
        ),
    ]
    why = "Resample the seeds, take means, cut off 2.5 % on either side. The tables here refine it a little (BCa)."
    return function(answer, lambda values, picks: ends(means(values, picks)), _seeds(), why, wrong, back="section 1")


def _seeds():
    """Cases of `interval`: measures of n seeds, crowded at one end, and resamples of them.

    1,020 resamples stand eleven or nine times each: both ends then lie amid equal means (2.5 % of 1,020 are 25.5), and all rules
    for a percentile between two numbers, of which there are a dozen, agree.
    """
    cases = []
    for n, a, b, times in [(20, 8, 1, 11), (12, 1, 5, 9)]:
        random = np.random.default_rng(n + a)
        values, picks = random.beta(a, b, n), random.integers(0, n, (1020, n))
        cases.append((values, random.permutation(np.repeat(picks, times, axis=0))))
    return cases


@never_raises
def limits(answer: object) -> Verdict:
    def steps(model, u):
        return (u @ model[0].weight.T > 0).to(u.dtype)

    def right(model, u):
        return scores.max_softmax(model[2:](torch.heaviside(u @ model[0].weight.T, model[0].bias.sigmoid())))

    def all_steps(model, u, bias=1.0):
        h = steps(model, u)
        for layer in model[2:-1:2]:
            h = (h @ layer.weight.T + bias * layer.bias > 0).to(u.dtype)
        return model[-1](h)

    def bias_free(model, h):
        for layer in model[2:]:
            h = h @ layer.weight.T if isinstance(layer, nn.Linear) else layer(h)
        return h

    wrong = [
        (
            lambda model, u: scores.max_softmax(model[2:](steps(model, u))),
            "On the line w·u = 0 a neuron of the first layer gets its bias alone, however far one goes: it gives σ(b), not 0.",
        ),
        (
            lambda model, u: scores.max_softmax(model[2:]((u @ model[0].weight.T >= 0).to(u.dtype))),
            "On the line w·u = 0 a neuron of the first layer gets its bias alone, however far one goes: it gives σ(b), not 1.",
        ),
        (
            lambda model, u: scores.max_softmax(model[2:](torch.heaviside(u @ model[0].weight.T, torch.tensor(0.5)))),
            "On the line w·u = 0 a neuron of the first layer gets its bias alone: it gives σ(b), which is ½ only for b = 0.",
        ),
        (
            lambda model, u: scores.max_softmax(model(1e6 * u)),
            "Far away, but not infinitely far: one of the networks has weights so small that a million is near for it.",
        ),
        (
            lambda model, u: torch.ones(len(u)),
            "Certain everywhere? That is the theorem of ReLU networks; a sigmoid is at most 1, and the logits stop growing.",
        ),
        (
            lambda model, u: scores.max_softmax(model(u)),
            "This is the confidence at |u| = 1, in the middle of the picture.",
        ),
        (
            lambda model, u: scores.max_softmax(model[2:]((model[0](u) > 0).to(u.dtype))),
            "The first layer's biases are still there: infinitely far away α w·u outweighs every bias.",
        ),
        (
            lambda model, u: scores.max_softmax(bias_free(model, steps(model, u))),
            "All biases are gone, as in notebook 01. Behind the first layer nothing grows any more, so there they count.",
        ),
        (
            lambda model, u: scores.max_softmax(all_steps(model, u)),
            "Later hidden layers are steps here as well. Only the first layer's input grows; the others get 0 to 1.",
        ),
        (
            lambda model, u: scores.max_softmax(all_steps(model, u, bias=0.0)),
            "Later hidden layers are steps here as well, without biases. Only the first layer's input grows.",
        ),
        (
            lambda model, u: scores.max_softmax(model[2:]((u @ model[0].weight.T).sign())),
            "−1 and 1 are the ends of tanh; a sigmoid goes to 0 and 1.",
        ),
        (
            lambda model, u: scores.max_softmax(model[2:](1 - steps(model, u))),
            "0 and 1 have changed places: σ goes to 1 where w·u is positive.",
        ),
        (
            lambda model, u: scores.max_softmax(model[2:]((u @ model[0].weight.T).sigmoid())),
            "The first layer gets w·u here, as at |u| = 1. Infinitely far away each of its neurons is at 0 or 1.",
        ),
        (
            lambda model, u: scores.max_softmax(model[1:](steps(model, u))),
            "The sigmoid is applied to the steps once more: they are already what the first layer gives.",
        ),
        (
            lambda model, u: model[2:](steps(model, u)).softmax(0).amax(1),
            "The softmax is over the wrong axis: logits are [n, K], and each direction shares out 1 among its classes.",
        ),
        (lambda model, u: model[2:](steps(model, u)).argmax(1), "This is the class that wins; with which probability?"),
        (lambda model, u: model[2:](steps(model, u)).amax(1), "This is the largest logit; the softmax is missing."),
        (lambda model, u: model[2:](steps(model, u)).softmax(1), "These are all probabilities; the largest is asked for."),
        (lambda model, u: model[2:](steps(model, u)).softmax(1).amin(1), "This is the smallest probability."),
    ]
    why = "Infinity in one line: steps in the first layer, then the network as it is. The limit is below 1, and that is all."
    return function(answer, right, _networks(), why, wrong, back="section 3")


def _networks():
    """Pairs (sigmoid network, directions [60, 2]): one to three hidden layers, biases that count.

    The first weights of the fourth are so small, those of the fifth so large, that no distance is far enough for the one and
    within float32 for the other. The last has weights along the axes and all directions along the axes, so that w·u is exactly 0
    for half of its neurons.
    """
    cases = []
    angle = torch.linspace(0, 2 * math.pi, 61)[:-1] + 0.01
    u = torch.stack([angle.cos(), angle.sin()], 1)
    for seed, (depth, n_classes) in enumerate([(1, 2), (2, 3), (3, 2), (2, 2), (1, 3)]):
        generator = torch.Generator().manual_seed(seed)
        model = models.mlp(width=6, depth=depth, n_classes=n_classes, activation="sigmoid", generator=generator)
        for layer in model[::2]:
            nn.init.normal_(layer.weight, std=2.0, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)
        if seed >= 3:
            model[0].weight.data *= [1e-25, 1e25][seed - 3]
        cases.append((model.requires_grad_(False), u))
    along = copy.deepcopy(cases[1][0])
    along[0].weight.data = torch.tensor([[2.0, 0], [0, 1], [-1, 0], [0, -3], [1, 0], [0, 2]])
    return [*cases, (along, torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))]
