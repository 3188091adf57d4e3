"""Checks of the exercises of notebook 07."""

import math

import torch

from ood_helpers.checks.answers import Verdict, function, near, never_raises, value


@never_raises
def half_circle(answer: object) -> Verdict:
    wrong = [
        (0.0, "Not in *every* direction, says the proof. In some it can: where each neuron points away."),
        (1.0, "A neuron with weights w is active at u = w, and around it."),
        (0.25, "One neuron is active on half of the circle. More of them can share the same half."),
        (lambda x: 49 < float(x) <= 51, "That is in percent; a share lies between 0 and 1."),
        (lambda x: any(abs(float(x) - turn) < 0.01 for turn in (180, math.pi)), "That is an angle; what share of a turn is it?"),
    ]
    why = "w·u > 0 is half a turn. Neurons with equal directions share it; any other one silences less."
    return value(answer, 0.5, why, wrong, tolerance=1e-6, back="section 1")


@never_raises
def pull(answer: object) -> Verdict:
    def right(a, w, s):
        return s + w.relu() @ a.abs()

    wrong = [
        (
            lambda a, w, s: w.relu() @ a.abs(),
            "The steepness s is missing: the pull only equals the push, and the layer may stay at 0.",
        ),
        (
            lambda a, w, s: s + w @ a.abs(),
            "Negative weights count here as if they always pulled. Where their neuron is off they do not: leave them out.",
        ),
        (
            lambda a, w, s: s + w.abs() @ a.abs(),
            "Silent, but pulled harder than needed: a negative weight pushes nothing up.",
        ),
        (
            lambda a, w, s: s + (w.relu() @ a).abs(),
            "The absolute value is taken of the sum. Pushes in opposite directions cancel in the sum, not in the network.",
        ),
        (
            lambda a, w, s: s + w.relu() @ a,
            "A neuron with a negative a rises in the other direction: the push along an axis is |a|, whichever way one goes.",
        ),
        (
            lambda a, w, s: s + w.relu() @ a.relu(),
            "A neuron with a negative a rises in the other direction: it pushes there as much as relu(a) would here.",
        ),
        (
            lambda a, w, s: s + (w.relu() @ a.abs()).amax(1, keepdim=True),
            "Silent, but the largest push is taken for every axis; each axis needs its own only.",
        ),
        (
            lambda a, w, s: (s + w.relu() @ a.abs()).T,
            "These are the right numbers with axes exchanged: one row for each neuron j.",
        ),
    ]
    why = "No training can break it: whatever a, w and s > 0 become, the pull is computed from them."
    return function(answer, right, _layers(steepness=True), why, wrong, back="section 4")


@never_raises
def break_it(answer: object) -> Verdict:
    wrong = [
        (near(7 / 3, 5e-3), "That breaks the first axis. The second one, 7.5 against w·4, breaks earlier."),
        (
            near(2.04, 5e-3),
            "That breaks the direction (3, −4), where the free neuron pushes most. There both pulls act; where does only one?",
        ),
        (near(14.5 / 7, 5e-3), "That compares all of the pull with all of the push: one axis can fail while the sum is kept."),
        (near(2.5, 5e-3), "7.5 belongs to the second axis, where the push is w·4, not w·3."),
        (near(1.75, 5e-3), "7 belongs to the first axis, where the push is w·3, not w·4."),
        (near(1.45, 5e-3), "Pulls divided by the length of a, 5: axes do not share like that. Compare axis by axis."),
    ]
    why = "From there on z₀(0, −1) = 4w − 7.5 > 0: the neuron wakes along that axis and grows for ever. One entry of q is enough."
    return value(answer, 1.875, why, wrong, tolerance=1e-3, back="section 4")


@never_raises
def radius(answer: object) -> Verdict:
    def parts(a, b, w, beta, q, c):
        return beta + w.relu() @ (a @ c + b).relu(), q - w.relu() @ a.abs()

    def right(*numbers):
        high, slope = parts(*numbers)
        return (high / slope.amin(1)).amax()

    def other(high=None, slope=None):
        def wrong(*numbers):
            own = parts(*numbers)
            top = own[0] if high is None else high(*numbers)
            return (top / (own[1] if slope is None else slope(*numbers)).amin(1)).amax()

        return wrong

    wrong = [
        (
            other(slope=lambda a, b, w, beta, q, c: q),
            "The free neurons push back: what is left of the pull is q − Σ relu(w)|a|, the steepness s.",
        ),
        (
            other(high=lambda a, b, w, beta, q, c: beta + w.relu() @ b.relu()),
            "B is what the free neurons give at the centre c, and c is not 0 here: relu(a·c + b).",
        ),
        (
            other(high=lambda a, b, w, beta, q, c: w.relu() @ (a @ c + b).relu()),
            "The neuron's own bias β is missing.",
        ),
        (
            other(high=lambda a, b, w, beta, q, c: beta + w @ (a @ c + b).relu()),
            "A neuron with negative weight pulls at the centre, but it may be off further out: do not count on it.",
        ),
        (
            other(high=lambda a, b, w, beta, q, c: beta + w.relu() @ (a @ c + b)),
            "The ReLU of the free neurons is missing: below 0 they give 0.",
        ),
        (
            lambda *numbers: (parts(*numbers)[0] / parts(*numbers)[1].amax(1)).amax(),
            "The point may go along the axis with the *least* steepness; that one decides.",
        ),
        (
            lambda *numbers: (parts(*numbers)[0] / parts(*numbers)[1].mean(1)).amax(),
            "The point may go along the axis with the *least* steepness; the mean hides it.",
        ),
        (
            lambda *numbers: (parts(*numbers)[0] / parts(*numbers)[1].amin(1)).amin(),
            "That is where the *first* neuron is off for good. All of them have to be.",
        ),
        (
            lambda *numbers: parts(*numbers)[0] / parts(*numbers)[1].amin(1),
            "One radius for each neuron; the ball needs the largest of them.",
        ),
        (
            lambda *numbers: parts(*numbers)[0].amax() / parts(*numbers)[1].amin(),
            "True, but larger than needed: the highest and the flattest neuron may be two. Divide neuron by neuron.",
        ),
    ]
    why = "Beyond it every neuron is off: only the last biases are left. `polytopes.horizon_radius` does this, rounded outwards."
    return function(answer, right, _layers(), why, wrong, back="section 4")


@never_raises
def rule_of_three(answer: object) -> Verdict:
    right = -math.log(0.05) / 20_000
    wrong = [
        (0.0, "That would be all directions, and a sample never says that."),
        (near(1 / 20_000, 2e-6), "At a share of 1 / 20,000 one sees none with probability 1/e, more than a third."),
        (near(0.05, 2e-3), "5 % is the risk of being wrong, not the share."),
        (near(0.05 / 20_000, 1e-7), "With so small a share one nearly always sees none: that excludes nothing."),
        (near(100 * right, 1e-3), "That is in percent."),
    ]
    why = "(1 − s)²⁰⁰⁰⁰ = 0.05 gives s ≈ 3 / 20,000. In ten dimensions there is much room for that; a proof leaves none."
    return value(answer, right, why, wrong, tolerance=2e-6, back="section 3")


def _layers(steepness=False):
    """Cases (a [m, d], b [m], w [n, m], beta [n], q [n, d], c [d]) that keep the inequality, or (a, w, s) of such."""
    cases = []
    for seed, (d, m, n) in enumerate([(2, 4, 3), (3, 6, 5)]):
        random = torch.Generator().manual_seed(seed)
        a, b, w, c = (torch.randn(*size, generator=random, dtype=torch.float64) for size in ((m, d), (m,), (n, m), (d,)))
        s = 0.2 + torch.rand(n, d, generator=random, dtype=torch.float64)
        beta = 1 + torch.rand(n, generator=random, dtype=torch.float64)
        cases.append((a, w, s) if steepness else (a, b, w, beta, s + w.relu() @ a.abs(), c))
    return cases
