"""Checks of the exercises of notebook 07."""

import math

from ood_helpers import horizon
from ood_helpers.checks.answers import function, near, never_raises, value
from ood_helpers.checks.polytopes import bias_free, networks


@never_raises
def half_circle(answer):
    wrong = [
        (0.0, "Not in *every* direction, says the proof. In some it can: where each neuron points away."),
        (1.0, "A neuron with weights w is active at u = w, and around it."),
        (0.25, "One neuron is active on half of the circle. More of them can share the same half."),
        (lambda x: 49 < float(x) <= 51, "That is in percent; a share lies between 0 and 1."),
        (lambda x: any(abs(float(x) - turn) < 0.01 for turn in (180, math.pi)), "That is an angle; what share of a turn is it?"),
    ]
    why = "w·u > 0 is half a turn. Neurons with equal directions share it; any other one silences less."
    return value(answer, 0.5, why, wrong, tolerance=1e-6, back="section 3")


@never_raises
def reject_hinge(answer):
    def others(logits):
        return logits[:, :-1].amax(1)

    def hinge(rivals=others, network=horizon.f0):
        """The loss, measured against what `rivals` makes of the logits."""

        def loss(model, u, margin):
            logits = network(model, u)
            return (margin - (logits[:, -1] - rivals(logits))).relu().mean()

        return loss

    def lead(model, u):
        return horizon.f0(model, u)[:, -1] - others(horizon.f0(model, u))

    wrong = [
        (
            hinge(network=lambda model, u: model(u)),
            "The biases are still in the network: this is the lead at a distance of 1, not at infinity.",
        ),
        (lambda model, u, margin: (-lead(model, u)).relu().mean(), "The margin is missing: a lead of a hair costs nothing here."),
        (
            lambda model, u, margin: (margin + lead(model, u)).relu().mean(),
            "The sign: a lead makes this greater, so that descent would make reject lose.",
        ),
        (
            lambda model, u, margin: (lead(model, u) - margin).relu().mean(),
            "The sign: this costs where the lead is large enough.",
        ),
        (
            lambda model, u, margin: (margin - lead(model, u).mean()).relu(),
            "The mean is taken too early: directions that are won by far pay for those that are lost.",
        ),
        (
            lambda model, u, margin: (margin - lead(model, u)).mean(),
            "Without relu directions that are won by far pay for those that are lost.",
        ),
        (hinge(lambda logits: logits.amax(1)), "Reject is among its own rivals here: its lead never gets above 0."),
        (hinge(lambda logits: logits[:, :-1].mean(1)), "Reject has to beat the best class, not the average class."),
        (hinge(lambda logits: logits[:, :-1].amin(1)), "Reject has to beat the best class; this is the worst one."),
        (
            lambda model, u, margin: (lead(model, u) < margin).float().mean(),
            "This counts directions. A count has the gradient 0: nothing can be learnt from it.",
        ),
        (lambda model, u, margin: (margin - lead(model, u)).relu().sum(), "A sum over the directions where a mean is meant."),
        (lambda model, u, margin: (margin - lead(model, u)).relu(), "One cost for each direction; the loss is their mean."),
        (
            lambda model, u, margin: horizon.far_field_loss(model, u),
            "That is the cross-entropy of section 2, which never lets go.",
        ),
    ]
    why = "0 exactly where reject leads by the margin in all these directions: the strict inequality itself, as a loss."
    cases = [(model, u, margin) for model, u in networks() for margin in (0.1, 0.5)]
    for model, _, _ in cases[::2]:
        model[-1].weight.mul_(10)  # leads on both sides of either margin
    return function(answer, hinge(), cases, why, wrong, back="section 2")


@never_raises
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
    cases = networks()
    for model, _ in cases:
        model[-1].weight.mul_(30)  # slopes of the size that the tolerance is made for
    return function(answer, horizon.slope_spread_loss, cases, why, wrong, back="section 3")


@never_raises
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
    for model, _ in cases:
        model[0].weight.mul_(30)  # slopes of the size that the tolerance is made for
    return function(answer, lambda model, u: -hidden(model, u).max(), cases, why, wrong, back="section 3")


@never_raises
def rule_of_three(answer):
    right = -math.log(0.05) / 20_000
    wrong = [
        (0.0, "That would be all directions, and a sample never says that."),
        (near(1 / 20_000, 2e-6), "At a share of 1 / 20,000 one sees none with probability 1/e, more than a third."),
        (near(0.05, 2e-3), "5 % is the risk of being wrong, not the share."),
        (near(0.05 / 20_000, 1e-7), "With so small a share one nearly always sees none: that excludes nothing."),
        (near(100 * right, 1e-3), "That is in percent."),
    ]
    why = "(1 − s)²⁰⁰⁰⁰ = 0.05 gives s ≈ 3 / 20,000. In ten dimensions there is much room for that; the certificate leaves none."
    return value(answer, right, why, wrong, tolerance=2e-6, back="section 6")
