"""Checks of the exercises of notebook 01."""

import copy
import functools
import math

import torch
from torch import nn

from ood_helpers import horizon, models
from ood_helpers.checks.answers import Verdict, function, near, never_raises, value


@never_raises
def regions(answer: object) -> Verdict:
    wrong = [
        (1024, "2¹⁰ counts every pattern of on and off; ten lines in a plane meet too seldom to make them all"),
        (11, "11 pieces are right on a line, where kinks are points. In the plane lines also cross each other"),
        (55, "One short: without any line there is already one region"),
        (46, "1 + n(n−1)/2 counts the crossings only. Every line also adds one region of its own"),
    ]
    why = "1 + 10 + 45: every line adds one region, and one more for each earlier line that it crosses."
    return value(answer, 56, why, wrong, back="section 2, below the map")


@never_raises
def limit(answer: object) -> Verdict:
    wrong = [
        (1.0, "Equation (2) needs a unique k*. Which classes share the greatest slope here?", 1e-6),
        (0.5, "Equal slopes do not make equal logits: the offsets stay, and 2.0 − 0.5 never goes away", 1e-3),
        (
            0.9990,
            "That is the softmax of all three offsets. Class 2 has the smaller slope: far out it falls behind without end",
            1e-3,
        ),
        (0.1824, "That is the smaller of the two that remain; the confidence is the larger", 1e-3),
    ]
    wrong = [(near(number, width), message) for number, message, width in wrong]
    why = "Classes 0 and 1 keep their distance of 1.5 for ever, class 2 falls behind: 1 / (1 + exp(−1.5))."
    return value(answer, 1 / (1 + math.exp(-1.5)), why, wrong, tolerance=2e-3, back="section 1, “Why”")


def bias_free(model, stop=None):
    """A copy of `model` with the biases of its first `stop` Linear layers set to 0 (None: all)."""
    model = copy.deepcopy(model)
    for layer in [layer for layer in model if isinstance(layer, nn.Linear)][:stop]:
        nn.init.zeros_(layer.bias)
    return model


@never_raises
def k_star(answer: object) -> Verdict:
    wrong = [
        (
            lambda model, u: model(u).argmax(1),
            "The biases are still in the network: at |u| = 1 they decide, infinitely far away they count for nothing",
        ),
        (lambda model, u: bias_free(model, -1)(u).argmax(1), "One layer has kept its bias: the last one. All of them go"),
        (lambda model, u: bias_free(model, 1)(u).argmax(1), "Only the first layer has lost its bias. All of them go"),
        (
            lambda model, u: bias_free(model)(u).argmax(0),
            "This is argmax over the wrong axis: logits are [n, K], and each of the n directions has its own winner",
        ),
        (lambda model, u: bias_free(model)(u).argmin(1), "That is the class that loses: k* has the greatest slope"),
        (lambda model, u: bias_free(model)(u), "These are the slopes of the logits; k* is the class with the greatest"),
    ]
    why = "The same network without its biases, then argmax over the classes: infinity in two lines."
    cases = without_ties(networks(seeds=4))
    return function(answer, lambda model, u: horizon.f0(model, u).argmax(1), cases, why, wrong, back="section 3")


@never_raises
def rate(answer: object) -> Verdict:
    def right(model, u):
        first, second = bias_free(model)(u).topk(2, dim=1).values.T
        return first - second

    wrong = [
        (lambda model, u: -right(model, u), "The sign is turned round: the log-odds of the winner grow, so the rate is positive"),
        (
            lambda model, u: bias_free(model)(u).max(1).values,
            "A slope by itself says nothing: the softmax knows only differences between logits",
        ),
        (
            lambda model, u: bias_free(model)(u).max(1).values - bias_free(model)(u).min(1).values,
            "With two classes this would do. With more, the winner is held up by its closest rival, not by the last one",
        ),
        (
            lambda model, u: model(u).topk(2, dim=1).values.T[0] - model(u).topk(2, dim=1).values.T[1],
            "The biases are still in the network",
        ),
    ]
    why = "Each exponent of Equation (2) falls at its own rate; the closest rival's is the slowest, and it is the one that lasts."
    return function(answer, right, networks(), why, wrong, back="section 3, Equation (2)")


@never_raises
def silent(answer: object) -> Verdict:
    def hidden(model, u):
        return model[:-2](u)  # pre-activations of the last hidden layer

    wrong = [
        (
            lambda model, u: (hidden(model, u) <= 0).all(1),
            "The biases are still in the network: near the data a neuron may rest that is active far away",
        ),
        (
            lambda model, u: (hidden(bias_free(model), u) <= 0).any(1),
            "`any` asks for one resting neuron; silence needs all of them to rest",
        ),
        (
            lambda model, u: (model[0](u) - model[0].bias <= 0).all(1),
            "This is the first hidden layer. What counts is the last one: if it rests, the logits stand still",
        ),
        (
            lambda model, u: (hidden(bias_free(model), u) > 0).all(1),
            "This is True where every neuron is active: the opposite of silence",
        ),
        (
            lambda model, u: (hidden(bias_free(model), u) <= 0).all(0),
            "This is `all` over the directions (axis 0); ask it of the neurons of each direction",
        ),
        (
            lambda model, u: (hidden(bias_free(model), u) < 0).all(1),
            "Where the layer before is silent these neurons get 0, and 0 is not active either: `<=`, not `<`",
        ),
    ]
    why = "All last hidden neurons at 0 in the bias-free network: f₀(u) = 0, every class ties, and the confidence stays below 1."
    cases = []
    for model, u in networks(widths=(2, 3), seeds=4):
        top = hidden(bias_free(model), u).amax(1)
        if len(model) > 3:
            cases.append((model, u[(top == 0) | (top.abs() > 1e-4)]))  # none where rounding decides who is active
    return function(answer, lambda model, u: (hidden(bias_free(model), u) <= 0).all(1), cases, why, wrong, back="section 6")


def without_ties(cases):
    """The cases (network, directions) without directions in which no class leads clearly: where some tie, any of them will do.

    In silent directions the bias-free network ties all classes, and the biases decide who wins.
    """
    kept = []
    for model, u in cases:
        slopes = horizon.f0(model, u)
        first, second = slopes.topk(2, dim=1).values.T
        kept.append((model, u[first - second > 0.01 * slopes.abs().max()]))
    return kept


@functools.cache
def networks(widths=(5,), seeds=2):
    """Pairs (network, directions [n, 2]): one to three hidden layers, two to four classes, biases that matter.

    They are made once: an answer gets copies.
    """
    cases = []
    for seed in range(seeds):
        for width in widths:
            for depth, n_classes in [(1, 4), (2, 3), (3, 2)]:
                angle = torch.linspace(0, 2 * math.pi, 41 + 10 * depth)[:-1]
                u = torch.stack([angle.cos(), angle.sin()], 1)
                generator = torch.Generator().manual_seed(seed)
                model = models.mlp(width=width, depth=depth, n_classes=n_classes, generator=generator)
                for layer in model[::2]:
                    nn.init.normal_(layer.bias, generator=generator)
                cases.append((model.requires_grad_(False), u))
    return cases
