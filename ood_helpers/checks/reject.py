"""Checks of the exercises of notebook 03."""

import copy
import math
import re

import torch
from torch.nn.functional import cross_entropy

from ood_helpers import losses, scores
from ood_helpers.checks.answers import WRONG, Verdict, function, near, never_raises, value
from ood_helpers.checks.polytopes import bias_free, networks


@never_raises
def far_away(answer: object) -> Verdict:
    slopes = torch.tensor([0.3, -1.0, 0.2])
    wrong = [
        (0.99, "That is what the network says at the centre. Far away the slopes decide, and reject's is not the greatest."),
        (1.0, "Reject wins where its slope is the greatest. Compare 0.2 with 0.3."),
        (
            near(slopes.softmax(0)[2], 5e-3),
            "That is the softmax of the slopes, at distance 1. The gap grows with the distance: 0.1 α.",
        ),
        (near(0.5, 5e-3), "A tie needs equal slopes; 0.3 and 0.2 are close, but a gap of 0.1 α grows without end."),
    ]
    why = "Class 0 leads reject by 0.1 α, and P(reject) falls like exp(−0.1 α): a beam, however slowly it gets sure."
    return value(answer, 0.0, why, wrong, tolerance=1e-3, back="section 3")


@never_raises
def balanced(answer: object) -> Verdict:
    def right(logits_in, y, logits_out):
        return losses.cross_entropy(logits_in, y) + out(logits_out, -1)

    def out(logits, label):
        return -logits.log_softmax(1)[:, label].mean()

    wrong = [
        (
            lambda logits_in, y, logits_out: losses.cross_entropy(logits_in, y) + out(logits_out, -2),
            "The OOD label is off by one: K − 1 is the last of the classes, reject is K, the last logit.",
        ),
        (
            lambda logits_in, y, logits_out: losses.cross_entropy(logits_in, y) + out(logits_out, 0),
            "OOD points are labelled 0, which is a class. Reject is the last logit.",
        ),
        (
            losses.reject_loss,
            "This is one mean over all points: the more OOD points, the less the classes count. Take two means.",
        ),
        (
            lambda logits_in, y, logits_out: right(logits_in, y, logits_out) / 2,
            "Half of it: the *sum* of the two means is asked for.",
        ),
        (
            lambda logits_in, y, logits_out: losses.cross_entropy(logits_in, y),
            "The OOD points are missing: nothing asks for reject.",
        ),
        (
            lambda logits_in, y, logits_out: losses.cross_entropy(logits_in, y) + losses.kl_to_uniform(logits_out),
            "That is the confident classifier's loss. Here an OOD point has a class of its own.",
        ),
        (
            lambda logits_in, y, logits_out: right(logits_in.softmax(1), y, logits_out.softmax(1)),
            "The softmax is taken twice: `cross_entropy` wants logits.",
        ),
        (lambda *case: -right(*case), "The sign: a loss is −log P, and at least 0."),
        (
            lambda logits_in, y, logits_out: cross_entropy(logits_in, y) + out(logits_out, -1) * len(logits_out),
            "A sum over the OOD points where a mean is meant.",
        ),
    ]
    why = "With this loss a hundred OOD points weigh as much as ten: how many one draws is a matter of noise, not of the price."
    verdict = function(answer, right, _batches(), why, wrong, back="section 1")
    if re.search(r"Target \d+ is out of bounds", verdict.message):
        return Verdict(
            WRONG, "The OOD label is one too large: K + 1 logits have the labels 0 … K, so reject is K. See section 1."
        )
    return verdict


def _batches():
    """Triples (logits_in [n, K + 1], y [n], logits_out [m, K + 1])."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for n, m, classes in [(6, 9, 2), (5, 30, 3), (12, 4, 5)]:
        z = 3 * torch.randn(n + m, classes + 1, generator=generator)
        cases.append((z[:n], torch.randint(classes, (n,), generator=generator), z[n:]))
    return cases


@never_raises
def margin(answer: object) -> Verdict:
    def lead(model, u):
        z = model(u)
        return z[:, -1] - z[:, :-1].amax(1)

    wrong = [
        (lambda model, u: lead(model, u).min(), "The biases are still in the network: they count at |u| = 1, and not far away"),
        (
            lambda model, u: lead(bias_free(model), u).mean(),
            "A mean: one beam is enough to fail, so the worst direction counts, the minimum",
        ),
        (
            lambda model, u: lead(bias_free(model), u).max(),
            "The maximum is the best direction; one beam is enough to fail, so take the minimum",
        ),
        (
            lambda model, u: (-lead(bias_free(model), u)).min(),
            "The sign: reject minus the best class, so that a positive margin is a good one",
        ),
        (
            lambda model, u: (bias_free(model)(u)[:, -1] - bias_free(model)(u).amax(1)).min(),
            "Reject is compared with the best of all outputs, itself among them: that can never be positive",
        ),
        (
            lambda model, u: (bias_free(model)(u)[:, -1:] - bias_free(model)(u)[:, :-1]).max(1).values.min(),
            "That is the lead over the worst class. A beam belongs to the best one",
        ),
        (lambda model, u: lead(bias_free(model), u), "One lead for each direction; the margin is one number, their minimum"),
    ]
    why = "Positive: reject wins in all these directions. A sample of directions can miss a beam; section 6 misses none."
    right = lambda model, u: lead(bias_free(model), u).min()  # noqa: E731
    cases = copy.deepcopy(networks()) + networks()
    for model, _ in cases[: len(cases) // 2]:
        model[-1].weight[-1] += 3  # hidden neurons are at least 0: reject wins wherever one of them is active
    return function(answer, right, cases, why, wrong, back="section 6")


@never_raises
def lost(answer: object) -> Verdict:
    right = math.exp(-(2.5**2) / 2)
    wrong = [
        (near(1 - right, 6e-4), "That is the share that is kept. What is lost lies beyond 2.5."),
        (
            near(math.erfc(2.5 / math.sqrt(2)), 6e-4),
            "That is a Gaussian on a line. In the plane more of it lies far out: P(r > a) = exp(−a²/2).",
        ),
        (
            near(math.erfc(2.5 / math.sqrt(2)) / 2, 6e-4),
            "That is one tail of a Gaussian on a line. In the plane P(r > a) = exp(−a²/2).",
        ),
        (near(math.exp(-2.5), 6e-4), "The distance is squared: exp(−a²/2)."),
        (near(math.exp(-(2.5**2)), 6e-4), "The 2 is missing below a²: exp(−a²/2)."),
        (near(0.04, 2e-3), "Rounded too far: a share as small as this one needs three digits behind the point."),
        (near(100 * right, 0.2), "That is in percent; a share lies between 0 and 1."),
    ]
    why = "4.4 %: within what section 8 measured, 2 to 9 %. Half a standard deviation given up costs four times the ideal 1.1 %."
    return value(answer, right, why, wrong, tolerance=1e-3, back="section 8")


@never_raises
def accepted(answer: object) -> Verdict:
    def by(score=scores.class_log_odds, rule=_at_least):
        return lambda logits_in, logits, keep: rule(score(logits_in), score(logits), keep)

    argmax = (
        "This is the rule that loses the edge: the largest output wins. Choose the threshold by what it keeps of the classes."
    )
    wrong = [
        (lambda logits_in, logits, keep: logits.argmax(1) < logits.shape[1] - 1, argmax),
        (lambda logits_in, logits, keep: scores.class_log_odds(logits) > 0, argmax.replace("the largest output wins", "½")),
        (
            lambda logits_in, logits, keep: scores.reject_probability(logits) < keep,
            "`keep` is a share of points; this takes it for a probability of reject.",
        ),
        (
            lambda logits_in, logits, keep: scores.reject_probability(logits) <= 1 - keep,
            "1 − `keep` is a share of points; this takes it for a probability of reject.",
        ),
        (
            by(rule=lambda s_in, s, keep: _at_least(s_in, s, 1 - keep)),
            "The threshold is at the upper end of the scores: it keeps the share 1 − `keep` only.",
        ),
        (
            lambda logits_in, logits, keep: by()(logits, logits, keep),
            "This threshold comes from the points to be judged, and one does not know which of them are in. Take `logits_in`.",
        ),
        (
            by(lambda logits: 1 - scores.reject_probability(logits)),
            "1 − P(reject) rounds to 1 for one of the networks, and all scores tie: rank by log-odds instead.",
        ),
        (by(scores.s2_log_odds), "This is s₂, the largest probability of a class. Between two classes it is low, and s₁ is not."),
        (
            by(scores.max_softmax_log_odds),
            "The largest of all K + 1: where reject wins this score is high, and an OOD point counts as in.",
        ),
        (by(scores.reject_probability), "P(reject) is high for OOD points: the sign. Accept where it is low."),
        (by(rule=lambda *case: ~_at_least(*case)), "These are the rejected: turn the comparison round."),
    ]
    why = "The network ranks the edge rightly; only the rule on top of it cut it off. The price is paid close to the ring."
    return function(answer, by(), _edges(), why, wrong, back="section 8")


def _at_least(s_in, s, keep):
    """Which of the scores s [m] reach the highest threshold that at least the share `keep` of s_in [n] reaches."""
    return s >= s_in.sort().values[int((1 - keep) * len(s_in) + 1e-9)]


def _edges():
    """Logits of in-distribution points [n, K + 1] and of others [m, K + 1], and a share; 0.01 to 0.1 of n is whole or nearly.

    n is 1 more than a multiple of 20 or 100, so that the quantile between two points is one of them.
    """
    cases = []
    for seed, (n, classes, keep, lead, noise) in enumerate([(201, 2, 0.99, 2, 2), (101, 3, 0.95, 1, 2), (61, 4, 0.9, 60, 4)]):
        random = torch.Generator().manual_seed(seed)
        z = noise * torch.randn(n + 80, classes + 1, generator=random, dtype=torch.float64)
        z[:, -1] -= lead
        z[n:, -1] += torch.linspace(0, 12, 80, dtype=torch.float64)
        cases.append((z[:n], z[n:], keep))
    return cases
