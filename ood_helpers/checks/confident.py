"""Checks of the exercises of notebook 02."""

import math
from itertools import pairwise

import numpy as np
import torch

from ood_helpers import losses, models, polytopes
from ood_helpers.checks.answers import Range, Verdict, function, near, never_raises, value

_SURE = math.log(0.9 / 0.1)  # the gap of two logits at confidence 0.9


@never_raises
def price(answer: object) -> Verdict:
    a, p_out, beta = -math.log(0.8), torch.tensor([0.9, 0.05, 0.05], dtype=torch.float64), 2.0
    b = losses.kl_to_uniform(p_out.log()[None]).item()
    wrong = [
        (a + b, "β is missing: with β = 2, term (b) counts twice."),
        (beta * (a + b), "β weighs term (b) only; this doubles (a) as well."),
        (a - beta * b, "The sign of the KL: a sure answer on an OOD point is a cost, and a KL divergence is never negative."),
        (a + beta * _reverse(p_out.log()[None]).item(), _REVERSE),
        (a + beta * (b + math.log(3)), "−log K is missing: this is the cross-entropy, at which perfect doubt would cost log 3."),
        (a + beta * (-p_out.log().sum().item() - math.log(3)), "The 1/K is missing: U gives each of the three logarithms 1/3."),
        (near(0.22 + beta * 0.93, 6e-3), "Rounded too early: β doubles the error of a rounded (b). Round the sum."),
        (beta * b, "This is β · (b); the in-distribution point pays for its 0.8, too."),
        ((a + beta * b) / math.log(2), "Logarithms to the base 2? Everything here is in nats: log is the natural logarithm."),
        ((a + beta * b) / math.log(10), "Logarithms to the base 10? Everything here is in nats: log is the natural logarithm."),
    ]
    why = f"(a) = {a:.2f} and (b) = {b:.2f}: sure in the wrong place costs more than unsure in the right one."
    return value(answer, a + beta * b, why, wrong, tolerance=6e-3, back="section 2, Equation (1)")


@never_raises
def reach(answer: object) -> Verdict:
    kink, slope = 3.5, 0.05
    wrong = [
        (_SURE / slope, "That is the way from the last kink on. The ray itself starts at the class, 3.5 before."),
        (
            kink + math.log(10) / slope,
            "log 10 is log(1/0.1). The gap of two logits at confidence p is log(p / (1 − p)), here log 9.",
        ),
        (kink + 0.9 / slope, "0.9 is the confidence, not the gap of the logits: a gap of 0.9 makes a confidence of 0.71."),
        (0.9 / slope, "0.9 is the confidence, not the gap of the logits: a gap of 0.9 makes a confidence of 0.71."),
        (kink + 0.4 / slope, "The logits are linear, not the confidence: its way from 0.5 to 0.9 is not 0.4 / 0.05."),
        (0.4 / slope, "The logits are linear, not the confidence: its way from 0.5 to 0.9 is not 0.4 / 0.05."),
        (
            kink - math.log(0.9) / slope,
            "−log 0.9 is the cross-entropy at confidence 0.9. The gap of the logits is log(0.9 / 0.1).",
        ),
        (kink, "There both logits are still equal, and the confidence is 0.5."),
    ]
    never = "Never? The ring says nothing about what follows, and a straight line passes every height."
    wrong = [(near(number, 0.5), diagnosis) for number, diagnosis in wrong] + [(math.isinf, never)]
    right = kink + _SURE / slope  # 47.44: 47 to the nearest whole number, 48 is the first at which the confidence is above 0.9
    why = "3.5 + log 9 / 0.05: the ring is unsure to perfection, and the doubt ends 44 further out all the same."
    return value(answer, Range(math.floor(right), math.ceil(right)), why, wrong, back="section 5, “Why”")


_REVERSE = "The KL divergence is the wrong way round, KL(P‖U). It never costs more than log K; KL(U‖P) has no bound."


def _reverse(logits):
    """The mean over n points of KL(P ‖ U), of logits [..., n, K]."""
    log_p = logits.log_softmax(-1)
    return ((log_p.exp() * log_p).sum(-1) + math.log(logits.shape[-1])).mean(-1)


@never_raises
def many_losses(answer: object) -> Verdict:
    def variant(term_b, term_a=losses.cross_entropy):
        return lambda z_in, y, z_out, beta: term_a(z_in, y) + beta * term_b(z_out)

    def logs_of_probabilities(tiny):
        return variant(lambda z: (-math.log(z.shape[-1]) - (z.softmax(-1) + tiny).log().mean(-1)).mean(-1))

    kl = losses.kl_to_uniform
    wrong = [
        (variant(lambda z: -kl(z)), "The sign of the KL term: this network is paid for being sure on OOD points."),
        (variant(_reverse), _REVERSE),
        (lambda z_in, y, z_out, beta: losses.confidence_loss(z_in, y, z_out, 1.0), "β is missing: each network has its own."),
        (
            lambda z_in, y, z_out, beta: beta * losses.confidence_loss(z_in, y, z_out, 1.0),
            "β weighs term (b) only; here it weighs (a) as well.",
        ),
        (
            variant(lambda z: kl(z) * z.shape[-2]),
            "Term (b) is the sum over the OOD points. The expectation is their mean: a larger batch must not weigh more.",
        ),
        (
            variant(lambda z: kl(z) * z.shape[-2], lambda z, y: losses.cross_entropy(z, y) * z.shape[-2]),
            "Both terms are sums over the points. The expectations are means: a larger batch must not weigh more.",
        ),
        (
            variant(lambda z: (-math.log(z.shape[-1]) - z.log_softmax(-1).sum(-1)).mean(-1)),
            "The 1/K is missing: this is the sum of log P over the classes, and U takes their mean.",
        ),
        (
            variant(lambda z: kl(z) + math.log(z.shape[-1])),
            "−log K is missing. The gradient is the same, but perfect doubt should cost 0.",
        ),
        (
            variant(lambda z: (-math.log(z.shape[-1]) - z.log_softmax(-2).mean(-1)).mean(-1)),
            "Term (b) has its softmax over the wrong axis: over the points, not over the classes, which come last.",
        ),
        (
            lambda z_in, y, z_out, beta: losses.cross_entropy(z_in, y).mean() + beta * kl(z_out),
            "Term (a) is one number for all networks. Each has its own: take the mean over the points only.",
        ),
        (
            lambda z_in, y, z_out, beta: losses.cross_entropy(z_in, y) + beta * kl(z_out).mean(),
            "Term (b) is one number for all networks. Each has its own: take the mean over the points only.",
        ),
        (
            lambda z_in, y, z_out, beta: losses.confidence_loss(z_in, y, z_out, beta).mean(),
            "This is one number, the mean over the networks. Each has its own loss, [E].",
        ),
        (
            lambda z_in, y, z_out, beta: losses.confidence_loss(z_in, y, z_out, beta).sum(),
            "This is one number, the sum over the networks. Each has its own loss, [E].",
        ),
        (lambda z_in, y, z_out, beta: losses.cross_entropy(z_in, y), "Term (b) is missing."),
        (lambda z_in, y, z_out, beta: beta * kl(z_out), "Term (a) is missing."),
        (variant(kl, lambda z, y: -losses.cross_entropy(z, y)), "The sign of term (a): log P(y|x) wants a minus."),
        (
            logs_of_probabilities(0.0),
            "Infinite: a probability of exp(−200) is rounded to 0, and log 0 is −∞. `log_softmax` takes the logarithm first.",
        ),
        *(
            (
                logs_of_probabilities(tiny),
                f"{tiny:g} inside the logarithm puts a bound on the cost, and the most confident point has no gradient. "
                "`log_softmax` needs no such help.",
            )
            for tiny in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-16, 1e-20)
        ),
    ]
    why = "One function for one network or many: every axis is counted from the end. The package's own does the same."
    return function(answer, losses.confidence_loss, _logits(), why, wrong, back="section 2")


def _logits():
    """Arguments of a loss of E networks: logits in, labels, logits out, β. The last of each network's OOD points is very sure."""
    cases = []
    for seed, (networks, n, m, n_classes) in enumerate([(3, 5, 7, 2), (2, 6, 4, 3), (4, 3, 6, 5)]):
        random = torch.Generator().manual_seed(seed)
        z_in = 2 * torch.randn(networks, n, n_classes, generator=random)
        z_out = 2 * torch.randn(networks, m, n_classes, generator=random)
        z_out[:, -1, 0] += 200
        y = torch.randint(n_classes, (n,), generator=random)
        cases.append((z_in, y, z_out, 0.2 + 2 * torch.rand(networks, generator=random)))
    return cases


@never_raises
def pull(answer: object) -> Verdict:
    def gradient(loss):
        def of(logits):
            logits = logits.detach().requires_grad_()
            return torch.autograd.grad(loss(logits[:, None]).sum(), logits)[0]  # each point is a batch of its own

        return of

    right = gradient(losses.kl_to_uniform)

    def one_hot(logits):
        return torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])

    wrong = [
        (lambda z: -right(z), "The sign: this is the way downhill, against the gradient."),
        (lambda z: z.softmax(1), "The uniform distribution is missing: at perfect doubt the gradient is 0."),
        (
            lambda z: z.softmax(1) - one_hot(z),
            "This is the gradient of the cross-entropy, which pulls towards one class. Here the target is 1/K for each.",
        ),
        (gradient(_reverse), "This is the gradient of KL(P‖U). It goes to 0 where P is sure: it would let such points go."),
        (
            lambda z: right(z) / len(z),
            "Divided by the number of points: that is the gradient of their mean. Each row is one point's.",
        ),
        (lambda z: right(z) * z.shape[1], "K times too much: in KL(U‖P) each log P(k|x) has the weight 1/K."),
        (
            lambda z: right(z) / z.shape[1],
            "K times too little: the sum over k has K terms, and each of them depends on every logit.",
        ),
        (
            lambda z: -1 / (z.shape[1] * z.softmax(1)),
            "This is the gradient with respect to the probabilities. The network moves the logits; go on with the chain rule.",
        ),
        (lambda z: z.softmax(0) - 1 / z.shape[1], "This softmax is over the wrong axis: over the points."),
        (
            lambda z: (z.softmax(1) - 1 / z.shape[1]).norm(dim=1),
            "This is the length of the gradient. Its K components are asked for.",
        ),
        (_losses_of_points, "This is the KL divergence itself. Its gradient is asked for."),
    ]
    why = "P − U: what is too likely is pushed down, what is too unlikely up, and never by more than 1."
    cases = [(scale * torch.randn(n, k, generator=torch.Generator().manual_seed(n)),) for n, k, scale in _SIZES]
    return function(answer, right, cases, why, wrong, back="section 2, Equation (1)")


_SIZES = [(4, 2, 1.0), (6, 3, 3.0), (5, 7, 10.0)]  # points, classes, size of the logits


def _losses_of_points(logits):
    """KL(U ‖ P) [n] of each point, of logits [n, K]."""
    return losses.kl_to_uniform(logits[:, None])


@never_raises
def sure_share(answer: object) -> Verdict:
    def weighted(sure):
        return lambda t, gap: ((sure(gap) * t.diff()).sum() / (t[-1] - t[0])).item()

    def both_ends(sure):
        return sure[:-1] & sure[1:]

    def middle(gap):
        return (gap[1:] + gap[:-1]) / 2

    wrong = [
        (lambda t, gap: 1 - _exact_share(t, gap), "This is the share below 0.9."),
        (lambda t, gap: _exact_share(t, gap) * (t[-1] - t[0]).item(), "This is a length. Divide it by that of the line."),
        (
            lambda t, gap: (gap.abs() > _SURE).double().mean().item(),
            "This counts kinks. Where they lie close together they count too much; a share of the *length* is asked for.",
        ),
        (
            weighted(lambda gap: both_ends(gap.abs() > _SURE)),
            "A segment is not all or nothing: it can be sure in part, and sure at both ends with doubt in between.",
        ),
        (
            weighted(lambda gap: (gap[:-1].abs() > _SURE) | (gap[1:].abs() > _SURE)),
            "A segment is not all or nothing: one end may be sure and the other not. Where is |gap| = log 9?",
        ),
        (weighted(lambda gap: middle(gap).abs() > _SURE), "A segment is not all or nothing, as its middle makes it."),
        (weighted(lambda gap: gap[:-1].abs() > _SURE), "A segment is not all or nothing, as its first end makes it."),
        (lambda t, gap: _exact_share(t, gap, least=-math.inf), "A gap below −log 9 is sure as well: of the other class."),
        (lambda t, gap: _exact_share(t, gap, 0.9, -0.9), "0.9 is the confidence; the gap of the logits is log(0.9 / 0.1) there."),
        (
            lambda t, gap: _exact_share(t, gap, math.log(10), -math.log(10)),
            "log 10 is log(1/0.1). The gap of two logits at confidence p is log(p / (1 − p)), here log 9.",
        ),
        (
            lambda t, gap: _exact_share(torch.arange(len(t), dtype=t.dtype), gap),
            "Every segment counts the same here, long or short. Weigh it by its length.",
        ),
    ]
    why = "Exact, from nothing but the kinks. In the plane polygons take the place of segments: `confident_area` adds them up."
    return function(answer, _exact_share, _lines(), why, wrong, back="section 5 and “Exact, not sampled”")


def _exact_share(t, gap, most=_SURE, least=-_SURE):
    """The share of [t[0], t[-1]] where gap, linear between its values at the kinks t [B], is above `most` or below `least`."""
    ends = list(zip(t.tolist(), gap.tolist(), strict=True))
    length = 0.0
    for (start, a), (end, b) in pairwise(ends):
        roots = [start + (level - a) / (b - a) * (end - start) for level in (least, most) if min(a, b) < level < max(a, b)]
        places = sorted([start, *roots, end])
        for left, right in pairwise(places):
            middle = a + (b - a) * ((left + right) / 2 - start) / (end - start)
            length += (right - left) * (middle > most or middle < least)
    return length / (ends[-1][0] - ends[0][0])


def _lines():
    """Kinks [B] and gaps of the logits there [B]: lines through random networks, and one by hand with flat pieces."""
    cases = [(torch.tensor([-3.0, 1, 2, 5, 6, 10]).double(), torch.tensor([3.0, 3, -6, -1, -1, 4]).double())]
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        network = models.mlp(width=12, n_classes=2, generator=random).double()
        start, end = 40 * torch.randn(2, 2, generator=random, dtype=torch.float64)
        found = polytopes.line(network, start, end)
        t = np.append(found.t, found.end) + seed  # a line need not begin at 0
        first, second = 2 * found.logits(t - seed).T
        cases.append((torch.from_numpy(t), torch.from_numpy(first - second)))
    return cases
