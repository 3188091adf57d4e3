"""Checks of the exercises of notebook 07."""

import math

from ood_helpers import horizon
from ood_helpers.checks.answers import function, value
from ood_helpers.checks.polytopes import bias_free, networks


def half_circle(answer):
    wrong = [
        (0.0, "Not in *every* direction, says the proof. In some it can: where each neuron points away."),
        (1.0, "A neuron with weights w is active at u = w, and around it."),
        (0.25, "One neuron is active on half of the circle. More of them can share the same half."),
        (lambda x: 49 < float(x) <= 51, "That is in percent; a share lies between 0 and 1."),
    ]
    why = "w·u > 0 is half a turn. Neurons with equal directions share it; any other one silences less."
    return value(answer, 0.5, why, wrong, tolerance=1e-6, back="section 3")


def far_field(answer):
    def at(model, u, radius, label=-1):
        return -(radius * bias_free(model)(u)).log_softmax(1)[:, label].mean()

    wrong = [
        (
            lambda model, u, radius: -model(radius * u).log_softmax(1)[:, -1].mean(),
            "The biases are still in the network: this is a loss at a distance of `radius`, not at infinity.",
        ),
        (lambda model, u, radius: at(model, u, 1), "The radius is missing: f₀(radius · u)."),
        (lambda model, u, radius: at(model, u, radius, -2), "The label is off by one: reject is the last output."),
        (lambda model, u, radius: at(model, u, radius, 0), "That asks class 0 to win far away. Reject is the last output."),
        (lambda model, u, radius: -at(model, u, radius), "The sign: the loss is −log P(reject)."),
        (lambda model, u, radius: at(model, u, radius) * len(u), "A sum over the directions where a mean is meant."),
        (
            lambda model, u, radius: 1 - (radius * bias_free(model)(u)).softmax(1)[:, -1].mean(),
            "1 − P(reject) has hardly a slope where a class is sure: there −log P pulls hardest.",
        ),
        (
            lambda model, u, radius: -(radius * bias_free(model)(u)).log_softmax(0)[:, -1].mean(),
            "The softmax runs over the directions (axis 0); it should run over the outputs.",
        ),
    ]
    why = "A cross-entropy at infinity: no point is drawn, only directions. Its gradient reaches every weight, and no bias."
    cases = [(model, u, radius) for model, u in networks() for radius in (2.0, 10.0)]
    return function(answer, horizon.far_field_loss, cases, why, wrong, tolerance=1e-4, back="section 2")


def spread(answer):
    def zero(model, u):
        return bias_free(model)(u)

    wrong = [
        (lambda model, u: model(u).var(1, correction=0).mean(), "The biases are still in the network."),
        (lambda model, u: zero(model, u).var(1).mean(), "Divide by K, not by K − 1: all classes are there, they are no sample."),
        (
            lambda model, u: zero(model, u).var(0, correction=0).mean(),
            "This is the variance over the directions (axis 0), not over the classes.",
        ),
        (lambda model, u: zero(model, u).std(1, correction=0).mean(), "The standard deviation; the variance is asked for."),
        (lambda model, u: zero(model, u).var(1, correction=0).sum(), "A sum over the directions where a mean is meant."),
        (
            lambda model, u: zero(model, u).square().mean(),
            "The mean of the classes is not taken off: equal slopes are a tie, they need not be 0.",
        ),
    ]
    why = "0 only where all classes tie. Section 3 shows what descent makes of it: small slopes, never equal ones."
    return function(answer, horizon.slope_spread_loss, networks(), why, wrong, tolerance=1e-4, back="section 3")


def reserve(answer):
    def hidden(model, u):
        return bias_free(model)[:-2](u)

    wrong = [
        (lambda model, u: -model[:-2](u).max(), "The biases are still in the network."),
        (
            lambda model, u: -bias_free(model)[:-1](u).max(),
            "This is after the ReLU, where a resting neuron is 0 and its reserve is gone. Stop before it.",
        ),
        (
            lambda model, u: -hidden(model, u).min(),
            "That is the neuron that rests most deeply; the reserve is that of the one nearest to waking.",
        ),
        (lambda model, u: hidden(model, u).max(), "The sign: a reserve is positive where all neurons rest."),
        (lambda model, u: -hidden(model, u).mean(), "A mean hides the one neuron that is awake in one direction."),
        (lambda model, u: -hidden(model, u).max(1).values, "One number for each direction; the reserve is the least of them."),
        (lambda model, u: -bias_free(model)(u).max(), "These are the logits. Silence is decided one layer earlier."),
    ]
    why = "Positive: silent in all these directions, and so it stays under changes that move no z₀ by more. Section 5 shakes it."
    cases = networks() + networks()
    for model, _ in cases[: len(cases) // 2]:
        model[-3].weight.copy_(-model[-3].weight.abs())  # nothing pushes up: silent, if the layer before is awake
    return function(answer, lambda model, u: -hidden(model, u).max(), cases, why, wrong, tolerance=1e-4, back="section 3")


def rule_of_three(answer):
    right = -math.log(0.05) / 20_000
    wrong = [
        (0.0, "That would be all directions, and a sample never says that."),
        (_close(1 / 20_000), "At a share of 1 / 20,000 one sees none with probability 1/e, more than a third."),
        (_close(0.05), "5 % is the risk of being wrong, not the share."),
        (_close(0.05 / 20_000), "With so small a share one nearly always sees none: that excludes nothing."),
        (lambda x: abs(float(x) - 100 * right) < 1e-3, "That is in percent."),
    ]
    why = "(1 − s)²⁰⁰⁰⁰ = 0.05 gives s ≈ 3 / 20,000. In ten dimensions there is much room for that; the certificate leaves none."
    return value(answer, right, why, wrong, tolerance=2e-6, back="section 6")


def _close(number):
    return lambda answer: abs(float(answer) - number) < 0.02 * number
