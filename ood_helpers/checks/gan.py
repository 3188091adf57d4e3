"""Checks of the exercises of notebook 04."""

import math

import torch
from torch.nn.functional import logsigmoid

from ood_helpers import data, gan, losses, models
from ood_helpers.checks.answers import Verdict, function, never_raises, value


@never_raises
def guessing(answer: object) -> Verdict:
    wrong = [
        (-math.log(2), "This is one of the two expectations. Term (c) adds them: one over real, one over generated points."),
        (2 * math.log(2), "The sign: the logarithm of a probability is negative, and no minus stands in front of (c)."),
        (0.0, "0 is what a discriminator gets that is always right, log 1 + log 1. This one knows nothing."),
        (-2.0, "The logarithm to the base 2? Everything here is in nats: log is the natural logarithm."),
        (1.0, "This adds the two probabilities; term (c) adds their logarithms."),
        (0.25, "This is the product of the probabilities, exp of what is asked for."),
    ]
    why = "log ½ + log ½ = −2 log 2. At −1.10, after 200 steps, the discriminator of section 1 still saw a difference."
    return value(answer, -2 * math.log(2), why, wrong, tolerance=1.4e-2, back="section 1, term (c)")


@never_raises
def three_losses(answer: object) -> Verdict:
    """The losses of discriminator, generator and classifier are judged one after the other, each with its own mistakes."""
    why = "G and C pull at (b) together, D and G at (c) against each other; in between, nobody counts places."
    for player, wrong in enumerate((_WRONG_D, _WRONG_G, _WRONG_C)):
        part = _loss_of(player)
        verdict = function(
            answer, lambda *case, part=part: part(_losses(*case)), _logits(), why, wrong, back="section 1", part=part
        )
        if not verdict:
            return verdict
    return verdict


def _loss_of(player):
    """A function that takes the loss of one player out of three, in a tuple, a list, an array or a tensor."""

    def one(three):
        try:
            first, second, third = three
        except (TypeError, ValueError):
            raise ValueError("Three losses are asked for: of the discriminator, the generator and the classifier") from None
        return (first, second, third)[player]

    return one


def _losses(D_real, D_fake, C_real, y, C_fake, beta):
    fool = -logsigmoid(D_fake).mean()
    return (
        -gan.term_c(D_real, D_fake),
        beta * losses.kl_to_uniform(C_fake) + fool,
        losses.confidence_loss(C_real, y, C_fake, beta),
    )


def _kl_from_uniform(logits):
    """The mean of KL(P ‖ U): the KL divergence the other way round."""
    log_p = logits.log_softmax(1)
    return (log_p.exp() * log_p).sum(1).mean() + math.log(logits.shape[1])


_ROUNDED = (
    "A logit of 120 gives an infinite loss: σ(120) is rounded to 1, and log(1 − 1) is −∞. `logsigmoid(d)` is log σ(d) without "
    "rounding, and 1 − σ(d) = σ(−d)."
)
_CLAMPED = "`binary_cross_entropy` cuts logarithms off at −100. Stay with logits: `logsigmoid(d)` is log σ(d) without rounding."
_REVERSED = "The KL divergence is the wrong way round: term (b) is KL(U ‖ P), whose price for a sure classifier has no bound."

_WRONG_D = [
    (
        lambda D_real, D_fake, *_: gan.term_c(D_real, D_fake),
        "D, the sign: it makes (c) large, an optimizer makes its loss small, so the loss is −(c).",
    ),
    (
        lambda D_real, D_fake, *_: -gan.term_c(-D_real, -D_fake),
        "D: real and generated points have changed places; D should be high on the real ones.",
    ),
    (
        lambda D_real, D_fake, *_: -logsigmoid(D_real).mean(),
        "D: half of (c) is missing. So far it is paid for calling everything real.",
    ),
    (
        lambda D_real, D_fake, *_: -logsigmoid(-D_fake).mean(),
        "D: half of (c) is missing. So far it is paid for calling everything generated.",
    ),
    (
        lambda D_real, D_fake, *_: -torch.cat([logsigmoid(D_real), logsigmoid(-D_fake)]).mean(),
        "D: this is one mean over all points together. Term (c) is a sum of two expectations, each a mean of its own.",
    ),
    (lambda D_real, D_fake, *_: -D_real.sigmoid().log().mean() - (1 - D_fake.sigmoid()).log().mean(), "D: " + _ROUNDED),
    (
        lambda D_real, D_fake, *_: (
            -D_real.sigmoid().log().clamp(min=-100).mean() - (1 - D_fake.sigmoid()).log().clamp(min=-100).mean()
        ),
        "D: " + _CLAMPED,
    ),
]

_WRONG_G = [
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: beta * losses.kl_to_uniform(C_fake) + logsigmoid(-D_fake).mean(),
        "G: this has log(1 − D), as Equation (1) says to the letter. Its gradient vanishes where D sees through a point: at a "
        "logit of −5 that of −log D is e⁵, 148 times, as large.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: -beta * losses.kl_to_uniform(C_fake) - logsigmoid(D_fake).mean(),
        "G, the sign of the KL term: this generator is paid for making the classifier sure.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: losses.kl_to_uniform(C_fake) - logsigmoid(D_fake).mean(),
        "G: β is missing; it weighs the doubt against looking real.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: beta * (losses.kl_to_uniform(C_fake) - logsigmoid(D_fake).mean()),
        "G: β weighs term (b) only, not the part of D.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: -logsigmoid(D_fake).mean(),
        "G: this is the plain GAN, which knows of no classifier. Term (b) is missing.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: beta * losses.kl_to_uniform(C_fake) - logsigmoid(-D_fake).mean(),
        "G: −log(1 − D) is small where D calls the points generated: this generator wants to be found out.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: beta * losses.kl_to_uniform(C_fake) + logsigmoid(D_fake).mean(),
        "G, the sign of log D: as it stands a point that looks real costs the most.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: beta * _kl_from_uniform(C_fake) - logsigmoid(D_fake).mean(),
        "G: " + _REVERSED,
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: beta * losses.kl_to_uniform(C_fake) - D_fake.sigmoid().log().mean(),
        "G: a logit of −120 gives an infinite loss, since σ(−120) is rounded to 0. `logsigmoid(d)` is log σ(d) without rounding.",
    ),
]

_WRONG_C = [
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: losses.cross_entropy(C_real, y),
        "C: this is term (a) alone, an ordinary classifier: nobody tells it to doubt where the generator is.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: losses.confidence_loss(C_real, y, C_fake, 1.0),
        "C: β is missing.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: (
            2 * losses.cross_entropy(C_real, y) - losses.confidence_loss(C_real, y, C_fake, beta)
        ),
        "C, the sign of the KL term: this classifier is paid for being sure of the generator's points.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: losses.confidence_loss(C_real, y, C_real, beta),
        "C: the KL term belongs to the generator's points. Here it asks for doubt on the classes themselves.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: (
            len(y) * losses.cross_entropy(C_real, y) + beta * len(C_fake) * losses.kl_to_uniform(C_fake)
        ),
        "C: these are sums over the points; an expectation is a mean.",
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: losses.cross_entropy(C_real, y) + beta * _kl_from_uniform(C_fake),
        "C: " + _REVERSED,
    ),
    (
        lambda D_real, D_fake, C_real, y, C_fake, beta: (
            losses.cross_entropy(C_real, y) - beta * C_fake.log_softmax(1).sum(1).mean()
        ),
        "C: this is the cross-entropy against [1, 1, …], as in the public code: K times the KL divergence, and a constant.",
    ),
]


def _logits():
    """Cases of `three_losses`: two and three classes, more real points than generated ones; in the last, a D that is certain."""
    cases = []
    for seed, (n, m, n_classes, beta) in enumerate([(7, 5, 2, 0.5), (9, 4, 3, 3.0), (6, 5, 2, 20.0), (8, 6, 3, 1.5)]):
        g = torch.Generator().manual_seed(seed)
        D_real, D_fake = (2 * torch.randn(rows, 1, generator=g) for rows in (n, m))
        C_real, C_fake = (2 * torch.randn(rows, n_classes, generator=g) for rows in (n, m))
        cases.append((D_real, D_fake, C_real, torch.randint(n_classes, (n,), generator=g), C_fake, beta))
    D_real, D_fake = cases[-1][:2]
    D_real[0], D_fake[0], D_fake[1] = -120.0, 120.0, -120.0
    return cases


_SECTORS = 36
_WORLD = data.TwoGaussians()  # std 1, so that around one of its means the unit is the standard deviation


@never_raises
def covered(answer: object) -> Verdict:
    def sectors(away, inner=2.5, outer=5.0, angle=torch.atan2):
        radius = away.norm(dim=1)
        x, y = away[(radius >= inner) & (radius <= outer)].T
        turn = angle(y, x) / (2 * math.pi)
        return (turn % 1 * _SECTORS).long(), turn

    def share(away, **how):
        return len(sectors(away, **how)[0].unique()) / _SECTORS

    wrong = [
        (
            lambda away: share(away, inner=0, outer=math.inf),
            "Points at any distance count here; only 2.5 to 5 deviations should.",
        ),
        (lambda away: share(away, outer=math.inf), "Points too far out count as well: 5 deviations are the limit."),
        (lambda away: share(away, inner=0), "Points inside the class count as well: the shell begins at 2.5 deviations."),
        (
            lambda away: len((sectors(away)[1] * _SECTORS).long().unique()) / _SECTORS,
            "`atan2` gives −π to π, and `.long()` cuts towards 0: the two sectors on either side of the angle 0 become one. "
            "Bring the angle to 0…2π first, with %.",
        ),
        (
            lambda away: share(away, angle=lambda y, x: torch.atan(y / x)),
            "Opposite directions fall into the same sector: `atan(y / x)`, or an angle % π, cannot tell them apart. "
            "`atan2(y, x)` % 2π can.",
        ),
        (
            lambda away: len(sectors(away)[0]) / len(away),
            "This is the share of the *points* that are near the boundary. Coverage is the share of the *sectors*.",
        ),
        (
            lambda away: len(sectors(away)[0]) / _SECTORS,
            "A sector with three points counts three times here; it is covered once. Which sectors occur? `unique()`.",
        ),
        (lambda away: share(away) * _SECTORS, "This is the number of covered sectors; the share is asked for."),
        (lambda away: 100 * share(away), "This is in percent; a share lies between 0 and 1."),
        (lambda away: share(away) / 2, "72 sectors are those of both classes; here is one class with 36."),
        (lambda away: 1 - share(away), "This is the share of the sectors that are empty."),
    ]

    def right(away):
        return 2 * gan.coverage(away + _WORLD.means[0], _WORLD, n_directions=_SECTORS)

    why = "Near is a matter of the radius, around of the angle: the radius decides who counts, the angle what is counted."
    return function(answer, right, _shells(), why, wrong, back="section 3")


def _shells():
    """Cases of `covered`: points away [n, 2] from a mean at 0 to 9 deviations, none of them close to an edge of a sector."""
    cases = []
    for seed, n in enumerate([12, 40, 90]):
        g = torch.Generator().manual_seed(seed)
        sector = torch.randint(_SECTORS, (n,), generator=g)
        sector[:2] = torch.tensor([0, _SECTORS - 1])  # on either side of the angle 0
        angle = 2 * math.pi / _SECTORS * (sector + 0.1 + 0.8 * torch.rand(n, generator=g))
        radius = 9 * torch.rand(n, generator=g)
        radius[:2] = 3.0
        cases.append((radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1),))
    return cases


@never_raises
def effective(answer: object) -> Verdict:
    def p(counts):
        return counts[counts > 0].double() / counts.sum()

    def entropy(counts):
        return -(p(counts) * p(counts).log()).sum()

    wrong = [
        (
            lambda counts: torch.nan,
            "The result is nan: an empty sector gives 0 · log 0. Leave the empty ones out, they add nothing.",
        ),
        (
            lambda counts: (counts > 0).sum(),
            "This is how many sectors are used at all. One stray point counts as much as a crowd: weigh them by their shares.",
        ),
        (entropy, "This is the entropy; its exp is the number of sectors, evenly used, that would have it."),
        (
            lambda counts: (-entropy(counts)).exp(),
            "The sign: an entropy is −Σ p log p. Without the minus, exp gives one divided by the answer.",
        ),
        (lambda counts: 2 ** entropy(counts), "The bases do not fit: natural logarithm inside, power of 2 outside."),
        (
            lambda counts: (entropy(counts) / math.log(2)).exp(),
            "The bases do not fit: logarithm to the base 2 inside, power of e outside.",
        ),
        (
            lambda counts: 1 / p(counts).square().sum(),
            "1 / Σ p² is an effective number, too (Hill's of order 2); the course takes that of order 1, from the entropy.",
        ),
        (
            lambda counts: (entropy(counts) / len(p(counts))).exp(),
            "This is a mean over the sectors; an entropy is a sum over them, the p are the weights.",
        ),
        (
            lambda counts: (-(counts[counts > 0].double() * counts[counts > 0].double().log()).sum()).exp(),
            "These are counts, not shares: divide by their sum first.",
        ),
    ]

    def right(counts):
        turn = 2 * math.pi * (torch.arange(_SECTORS).repeat(2) + 0.5) / _SECTORS
        places = 3 * torch.stack([turn.cos(), turn.sin()], 1) + _WORLD.means.repeat_interleave(_SECTORS, 0)
        return gan.diversity(places.repeat_interleave(counts, 0), _WORLD)

    why = "exp of the entropy: m sectors used evenly give m, and a stray point adds little."
    return function(answer, right, _counts(), why, wrong, back="section 3")


def _counts():
    """Cases of `effective`: some hundred points in 72 sectors, crowded into few of them, or spread."""
    cases = []
    for seed, crowding in enumerate([1.0, 3.0, 6.0]):
        g = torch.Generator().manual_seed(seed)
        weights = (crowding * torch.randn(2 * _SECTORS, generator=g)).exp()
        sectors = torch.multinomial(weights, 500 - 100 * seed, replacement=True, generator=g)
        cases.append((sectors.bincount(minlength=2 * _SECTORS),))
    return cases


@never_raises
def cheapest(answer: object) -> Verdict:
    def kl(C, x):
        return losses.kl_to_uniform(C(x)[:, None])  # of each point by itself: [n, 1, K]

    def looks_real(D, x):
        return logsigmoid(D(x)).squeeze(1)

    def right(x, D, C, beta):
        return (beta * kl(C, x) - looks_real(D, x)).argmin()

    wrong = [
        (
            lambda x, D, C, beta: (-looks_real(D, x)).argmin(),
            "Only D decides here. If term (b) is in your function: `kl_to_uniform` is a mean over the points, the same number "
            "for every place. Take the KL of each point by itself.",
        ),
        (
            lambda x, D, C, beta: kl(C, x).argmin(),
            "Only the classifier's doubt decides here; the place should also look real to D.",
        ),
        (lambda x, D, C, beta: (kl(C, x) - looks_real(D, x)).argmin(), "β is missing."),
        (
            lambda x, D, C, beta: (beta * kl(C, x) - looks_real(D, x)).argmax(),
            "This is the dearest place; a loss is made small: `argmin`.",
        ),
        (
            lambda x, D, C, beta: (-beta * kl(C, x) - looks_real(D, x)).argmin(),
            "The sign of the KL term: a place where the classifier is sure should be dear, not cheap.",
        ),
        (
            lambda x, D, C, beta: (beta * kl(C, x) + looks_real(D, x)).argmin(),
            "The sign of log D: a place that looks real should be cheap, not dear.",
        ),
        (
            lambda x, D, C, beta: (beta * kl(C, x) + logsigmoid(-D(x)).squeeze(1)).argmin(),
            "This has log(1 − D); the generator of this notebook minimises −log D.",
        ),
        (
            lambda x, D, C, beta: x[right(x, D, C, beta)],
            "This is the place itself; its index is asked for.",
        ),
        (
            lambda x, D, C, beta: beta * kl(C, x) - looks_real(D, x),
            "These are the prices of all places; which of them is the lowest?",
        ),
        (
            lambda x, D, C, beta: beta * kl(C, x) - looks_real(D, x)[:, None],
            "D(x) is [n, 1], and the KL of every point is [n]: their sum is [n, n]. Make both [n].",
        ),
        (
            lambda x, D, C, beta: (beta * kl(C, x) - looks_real(D, x)[:, None]).argmin(),
            "D(x) is [n, 1], and the KL of every point is [n]: their sum is [n, n], and `argmin` looks through all of it.",
        ),
    ]
    why = "One place is the cheapest, and a mean of prices is least if all points stand there."
    return function(answer, right, _players(), why, wrong, back="section 5, “Why a streak?”")


def _players():
    """Cases of `cheapest`: 150 places in the plane, networks that disagree about them, β small enough for both to count."""
    cases = []
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        D = gan.discriminator(width=12, depth=2, init="glorot", generator=g)
        C = models.mlp(width=12, n_classes=2 + seed % 2, init="glorot", generator=g)
        for layer in (*D[::2], *C[::2]):
            torch.nn.init.normal_(layer.bias, generator=g)
        x = 2 * torch.randn(150, 2, generator=g)
        cases.append((x, D.requires_grad_(False), C.requires_grad_(False), [0.2, 2.0][seed % 2]))
    return cases
