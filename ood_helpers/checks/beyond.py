"""Checks of the exercises of notebooks 08, 09 and 11."""

import math

import torch
from scipy.stats import chi2, norm
from sklearn import metrics

from ood_helpers import ccu, losses, other_losses, scores
from ood_helpers.checks.answers import Range, Verdict, function, never_raises, value

_LEAST_LIKELY = 0.01  # the share that the sampler `gaussian` keeps


@never_raises
def nearest(answer: object) -> Verdict:
    """A Gaussian fitted to a circle of radius 20: from which radius on do the samples of its least likely hundredth lie?"""
    circle = 20.0
    std, deviations = circle / math.sqrt(2), math.sqrt(chi2.isf(_LEAST_LIKELY, 2))
    wrong = [
        (circle * deviations, "R² is shared by the two axes: x² + y² = 400 on the circle, so the variance of each is 200."),
        (3 * circle, "The standard deviation is not R: x² + y² = 400 on the circle, so the variance of each axis is 200."),
        (3 * std, "Beyond 3 standard deviations lie 1.1 % in the plane. It is 1 % from a little farther out."),
        (
            std * norm.isf(_LEAST_LIKELY / 2),
            "That is the least likely hundredth on a line. In the plane the squared distance is chi-squared with two degrees.",
        ),
        (
            std * norm.isf(_LEAST_LIKELY),
            "That is one tail of a Gaussian on a line. In the plane the squared distance is chi-squared with two degrees.",
        ),
        (std * deviations**2, "chi-squared is about the squared distance: take the root."),
        (deviations, "That is the distance in standard deviations. One of them is √200 here."),
        (circle, "That is the class. Its points are likely under the Gaussian, if not the likeliest: that is the empty middle."),
        (0.0, "The middle is empty, and yet the likeliest place of all for a Gaussian with its mean there."),
    ]
    why = "14.1 · 3.03: more than twice the radius of the class, and never in the hole."
    return value(answer, std * deviations, why, wrong, tolerance=0.15, back="section 1, “Class Gaussians”")


@never_raises
def step_off(answer: object) -> Verdict:
    wrong = [
        (
            lambda feet, line, r: _steps(feet, line, r, keep=lambda away: away.isfinite().all(1)),
            "Nothing has been left out: where the curve bends sharply or comes back, a step ends near another part of it.",
        ),
        *((lambda feet, line, r, side=side: _steps(feet, line, r, sides=[side]), _ONE_SIDE) for side in (1, -1)),
        (lambda feet, line, r: _steps(feet, line * _MIRROR, r), _MIRRORED),
        (lambda feet, line, r: _steps(feet, line * _MIRROR, r, keep=lambda away: away.isfinite().all(1)), _MIRRORED),
        (lambda feet, line, r: _steps(feet, _turned(line), r), _ALONG),
        (lambda feet, line, r: _steps(feet, _turned(line), r, keep=lambda away: away.isfinite().all(1)), _ALONG),
        (
            lambda feet, line, r: _steps(feet, line, r, keep=lambda away: (away < _NEARLY).any(1)),
            "These are the points to leave out: they have a point of the curve closer than r. Keep the others.",
        ),
        (
            lambda feet, line, r: _steps(feet, line, r, keep=lambda away: (away > 1.001).all(1)),
            "Nothing is left: every point is exactly r from its own foot. Keep what is not closer.",
        ),
    ]
    why = "Both sides of the curve, and nothing where it bends back on itself: no density, no network, only neighbours."
    return function(answer, _steps, _curves(), why, wrong, back="section 1, “Normals”", any_order=True)


_NEARLY = 0.999  # of a step: rounding must not throw out a point for being closer to its own foot than r
_ONE_SIDE = "This is one side of the curve. The other one is OOD as well: −1 times the normal is a normal, too."
_MIRROR = torch.tensor([1.0, -1.0])  # turned by a right angle, (u, −v) is (v, u)
_MIRRORED = "(v, u) is (u, v) mirrored. Turned by a right angle it is (−v, u)."
_ALONG = "These steps are along the line, not across it: such points stay on the curve."


def _turned(line):
    """Vectors [n, 2] turned by a right angle."""
    return torch.stack([-line[:, 1], line[:, 0]], 1)


def _steps(feet, line, r, sides=(1, -1), keep=lambda away: (away >= _NEARLY).all(1)):
    """Steps of length r off feet [n, 2] across line [n, 2]; keep(distances from all feet in steps [m, n]) -> [m] says which."""
    points = torch.cat([feet + side * r * _turned(line) for side in sides])
    return points[keep(torch.cdist(points, feet, compute_mode="donot_use_mm_for_euclid_dist") / r)]


def _curves():
    """Feet on a curve [n, 2], unit vectors along it [n, 2] and a step: two lines, a circle with an arc in it, a wave."""
    cases = []
    for seed, r in enumerate([3.0, 2.0, 2.5]):
        random = torch.Generator().manual_seed(seed)
        s = torch.rand(60, generator=random, dtype=torch.float64)
        if seed == 0:  # two parallel lines, closer than a step, and a third beside them
            y = torch.tensor([0.0, 2.0, 9.0], dtype=torch.float64)[torch.arange(60) % 3]
            feet, angle = torch.stack([30 * s, y], 1), torch.zeros(60, dtype=torch.float64)
        elif seed == 1:  # a circle so small that a step inwards comes out near its other side
            angle = 2 * math.pi * s
            feet = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
            feet, angle = torch.where(torch.arange(60)[:, None] % 2 == 0, feet, 6 * feet), angle + math.pi / 2
        else:  # a wave, too tight for the step at its turns
            x = 30 * s
            feet, angle = torch.stack([x, 4 * (x / 2).sin()], 1), torch.atan(2 * (x / 2).cos())
        cases.append((feet, torch.stack([angle.cos(), angle.sin()], 1), r))
    return cases


@never_raises
def edge(answer: object) -> Verdict:
    """Which points have the farthest k-th neighbours?"""

    def most(x, share, distance):
        return distance >= distance.sort().values[-round(share * len(x))]

    def right(x, k, share):
        return most(x, share, _to_neighbour(x, k))

    wrong = [
        (
            lambda x, k, share: most(x, share, _to_neighbour(x, k - 1)),
            "That is one neighbour too few: the nearest point to each is itself, at distance 0.",
        ),
        (lambda x, k, share: most(x, share, _to_neighbour(x, k + 1)), "That is one neighbour too many."),
        (
            lambda x, k, share: most(x, share, -_to_neighbour(x, k)),
            "These stand in the middle of the crowd: their neighbours are nearest. Take the farthest.",
        ),
        (lambda x, k, share: ~right(x, k, share), "These are the others: turn the comparison round."),
        (
            lambda x, k, share: most(x, share, (x - x.mean(0)).norm(dim=1)),
            "That is the distance from the mean, which is no measure where the data are curved. Ask for the k-th neighbour.",
        ),
        (
            lambda x, k, share: most(x, share, torch.cdist(x, x).sort(1).values[:, 1 : k + 1].mean(1)),
            "That is the mean distance of k neighbours. Take that of the k-th alone.",
        ),
        (lambda x, k, share: _to_neighbour(x, k), "These are the distances. Which of the points have the largest?"),
    ]
    why = "Sparse places, found without a density. On a Gaussian that is its edge; on a long thin class it need not be."
    return function(answer, right, _crowds(), why, wrong, back="section 1, “k-NN boundary points”")


def _to_neighbour(x, k):
    """The distance [n] from each of x [n, d] to its k-th nearest other point."""
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sort(1).values[:, k]


def _crowds():
    """Points [n, d], a number of neighbours and a share: a cloud, a ring, and two clouds of unlike width."""
    cases = []
    for seed, (n, k, share) in enumerate([(40, 3, 0.1), (60, 10, 0.25), (50, 5, 0.2)]):
        x = torch.randn(n, 2 + (seed == 2), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        if seed == 1:
            x = 10 * torch.nn.functional.normalize(x) + 0.3 * x
        if seed == 2:
            x[: n // 2] = 0.2 * x[: n // 2] + 6
        cases.append((x, k, share))
    return cases


_NAMES = {
    "cross-entropy": lambda z_in, y, z_out: losses.cross_entropy(z_in, y),
    "confident": lambda z_in, y, z_out: losses.confidence_loss(z_in, y, z_out, 1.0),
    "Outlier Exposure": lambda z_in, y, z_out: losses.confidence_loss(z_in, y, z_out, 0.5),
    "CEDA": other_losses.ceda_loss,
    "energy": other_losses.energy_loss,
    "reject": lambda z_in, y, z_out: losses.reject_loss(z_in, y % 2, z_out),
}


@never_raises
def changed(answer: object) -> Verdict:
    """Which losses change where 10 is added to every logit?"""
    random = torch.Generator().manual_seed(0)
    z_in, z_out = torch.randn(2, 30, 3, generator=random, dtype=torch.float64)
    y = torch.randint(3, (30,), generator=random)
    right = {name for name, loss in _NAMES.items() if not torch.isclose(loss(z_in, y, z_out), loss(z_in + 10, y, z_out + 10))}

    def has(name):
        return lambda answer: name in answer

    wrong = [
        (
            lambda answer: not answer,
            "One of them looks at the size of the logits, not at their differences. Which has no softmax?",
        ),
        (lambda answer: set(answer) - set(_NAMES), f"Take the names from this list: {', '.join(_NAMES)}."),
        (lambda answer: len(set(answer)) == len(_NAMES), "All of them? A softmax does not change where every logit grows by 10."),
        (
            has("reject"),
            "Reject: its own logit grows by 10 as well, and the softmax over all three stays. Only a reject logit *fixed* at 0 "
            "would notice; that is the energy loss.",
        ),
        (
            has("CEDA"),
            "CEDA: max log p is about the probabilities, after the softmax. It asks for equal logits, not for small ones.",
        ),
        (
            lambda answer: set(answer) & {"confident", "Outlier Exposure"},
            "KL(U‖P) and the cross-entropy from U see P only, after the softmax. They ask for equal logits, not for small ones.",
        ),
        (
            has("cross-entropy"),
            "Cross-entropy: −log P(y|x) = log Σ_k exp(z_k) − z_y. With 10 added to each logit both parts grow by 10.",
        ),
    ]
    why = "F sinks by 10. All others see the softmax, which knows only differences; so does the confidence."
    return value(answer, right, why, wrong, back="section 1, the table")


@never_raises
def worst(answer: object) -> Verdict:
    def at(gap):
        return lambda w, b, x, r: gap(w, x @ w + b, r).sigmoid()

    def right(w, b, x, r):
        """The package's search, in a network that is the linear one: its two logits are half the gap, and minus that."""
        network = torch.nn.Linear(len(w), 2).to(w).requires_grad_(False)
        network.weight.copy_(torch.stack([w, -w]) / 2)
        network.bias.copy_(torch.stack([b, -b]) / 2)
        return scores.max_softmax(network(other_losses.worst_in_ball(network, x, r)))

    wrong = [
        (at(lambda w, g, r: g.abs()), "That is the confidence at x itself. How much can |gap| grow within a distance of r?"),
        (
            at(lambda w, g, r: g + r * w.norm()),
            "That is the probability of class 0 at its best. Where class 1 leads, the other way is the worse one: take |gap|.",
        ),
        (
            at(lambda w, g, r: g.abs() + r * w.square().sum()),
            "A step of r · w is r‖w‖ long. Divide by ‖w‖ to have a step of r: the gap grows by r‖w‖, not by r‖w‖².",
        ),
        (at(lambda w, g, r: g.abs() + r), "The gap grows by r times its slope, and the steepest slope is ‖w‖, not 1."),
        (
            at(lambda w, g, r: g.abs() + r * w.abs().sum()),
            "That is the worst corner of a *cube*, every coordinate changed by r. A corner is farther away than r.",
        ),
        (
            at(lambda w, g, r: g.abs() + r * w.abs().max()),
            "One coordinate only? The steepest way is along w, and uses all of them.",
        ),
        (
            at(lambda w, g, r: (g.abs() - r * w.norm()).abs()),
            "This goes downhill in confidence. ACET looks for the most confident point.",
        ),
        (
            at(lambda w, g, r: g.abs() - r * w.norm()),
            "This goes downhill in confidence. ACET looks for the most confident point.",
        ),
        (
            at(lambda w, g, r: g.abs() + r * w.norm() / 2),
            "Half of the growth: if one logit rises the other one falls, and w is already the slope of their difference.",
        ),
        (lambda w, b, x, r: (x @ w + b).abs() + r * w.norm(), "That is the gap of the logits. The confidence is its σ."),
    ]
    why = "A linear network needs no search. Inside one polytope a ReLU network is linear; ACET searches because a ball has many."
    return function(answer, right, _linear(), why, wrong, back="section 1, “ACET”")


def _linear():
    """Slopes w [d] and offset b of a gap, points x [n, d] and a radius."""
    cases = []
    for seed, (dim, r) in enumerate([(2, 0.5), (3, 1.5), (10, 0.2)]):
        random = torch.Generator().manual_seed(seed)
        w, x = torch.randn(dim, generator=random).double(), torch.randn(20, dim, generator=random).double()
        cases.append((w / (1 + seed), torch.randn((), generator=random).double(), x, r))
    return cases


@never_raises
def bound(answer: object) -> Verdict:
    why = "A guarantee for the whole ball from two distances, and no word about the network: far away it is 1/K."
    cases = _balls() + _balls(far=1000.0)
    return function(answer, _bound, cases, why, _loose(), back="section 1, “CCU”")


def _bound(x, r, mean, std_in, std_out, n_classes):
    """All that holds in the whole ball and is no looser than the bound of CCU, which starts from two distances."""
    one = torch.zeros(1, dtype=torch.float64)
    inside = ccu.Mixture(one, mean[None], one + std_in)
    outside = ccu.Mixture(one, torch.zeros(1, len(mean), dtype=torch.float64), one + std_out)
    top = mean * std_out**2 / (std_out**2 - std_in**2)  # where p_in / p_out is greatest: it falls in circles around
    way = top - x
    worst = x + way * (r / way.norm(dim=1, keepdim=True)).clamp(max=1)
    tightest = _confidence(_ratio(inside.log_density(worst), outside.log_density(worst)), n_classes)
    return Range(tightest, ccu.Densities(inside, outside).bound(x, r, n_classes))


def _ratio(log_in, log_out):
    return (log_in - log_out).exp()


def _confidence(b, n_classes):
    return (b + 1 / n_classes) / (b + 1)


def _loose():
    """What is wrong about a bound, and what to say about it."""

    def variant(inside, outside, least=0.0, power=2, ratio=_ratio, last=_confidence):
        """Radii to add to the two distances, the least distance, the power of std in a density, and the last two lines."""

        def of(x, r, mean, std_in, std_out, n_classes):
            near = ((x - mean).norm(dim=1) + inside * r).clamp(min=least)
            log_in = -0.5 * (near / std_in).square() - power * math.log(std_in)
            log_out = -0.5 * ((x.norm(dim=1) + outside * r) / std_out).square() - power * math.log(std_out)
            return last(ratio(log_in, log_out), n_classes)

        return of

    return [
        (
            variant(-1, 1, ratio=lambda log_in, log_out: log_in.exp() / log_out.exp()),
            "Right near the classes. Far away both densities are rounded to 0, and 0 / 0 is no number: take the difference of "
            "their logarithms, then the exponential.",
        ),
        (variant(0, 0), "That holds at x only. In the ball a point can be nearer to the mean by r, and farther from 0 by r."),
        (
            variant(1, -1),
            "The signs are turned round: this is the best case. The worst is nearer to the inside and farther from the outside.",
        ),
        (variant(-1, 0), "The density outside can be smaller, too: a point of the ball may be farther from 0 by r."),
        (variant(0, 1), "The density inside can be greater, too: a point of the ball may be nearer to the mean by r."),
        (variant(-1, -1), "Outside, less density is the worse case: its distance *grows* by r."),
        (variant(1, 1), "Inside, more density is the worse case: its distance *shrinks* by r."),
        (
            variant(-1, 1, least=-math.inf),
            "Where the ball holds the mean, distance − r is negative, and its square grows again. No distance is below 0.",
        ),
        (
            variant(-1, 1, power=0),
            "The factor before the exponential is missing: 1 / (2π σ²). The σ are not the same, and do not cancel.",
        ),
        (
            variant(-1, 1, power=1),
            "1 / (√(2π) σ) belongs to a Gaussian on a line. In the plane it is the square of that, 1 / (2π σ²).",
        ),
        (variant(-1, 1, last=lambda b, k: b / (b + 1)), "The 1/K is missing: far away b is 0, and the confidence 1/K."),
        (variant(-1, 1, last=lambda b, k: b), "That is b, the bound of R. The confidence is at most (b + 1/K) / (b + 1)."),
        (variant(-1, 1, last=lambda b, k: (b + 1 / k) / (b + 1 / k + 1)), "The sum below is R + 1, without 1/K."),
        (
            variant(-1, 1, last=lambda b, k: (b / k + 1 / k) / (b + 1)),
            "The network may give one class everything: b counts whole, not b/K. As it stands the bound is 1/K everywhere.",
        ),
    ]


def _balls(far=1.0):
    """x [n, 2], radius, mean inside [2], σ inside, σ outside, K."""
    cases = []
    for seed, (r, n_classes) in enumerate([(0.5, 2), (1.5, 3), (3.0, 5)]):
        random = torch.Generator().manual_seed(seed)
        mean, x = torch.randn(2, generator=random).double(), 3 * torch.randn(12, 2, generator=random).double()
        cases.append((mean + far * x, r, mean, 0.8 + 0.3 * seed, 5.0 - seed, n_classes))
    return cases


@never_raises
def s3(answer: object) -> Verdict:
    def parts(logits):
        p = logits.double().softmax(1)
        return p[:, :-1].amax(1), p[:, -1], logits.shape[1] - 1

    def mixed(share):
        return lambda logits: share(*parts(logits))

    wrong = [
        (
            mixed(lambda top, reject, k: top),
            "This is s₂: whoever thinks that the point is out guesses nothing here, and would be right 1 time in K.",
        ),
        (mixed(lambda top, reject, k: 1 - reject), "This is s₁: is it in? It does not ask for one class."),
        (
            mixed(lambda top, reject, k: top + reject / (k + 1)),
            "Reject is shared among the K classes, not among K + 1: nobody guesses reject.",
        ),
        (
            mixed(lambda top, reject, k: top / (1 - reject)),
            "That believes in the classes everywhere, also where the point is out: the weight P(in) is missing.",
        ),
        (
            mixed(lambda top, reject, k: top + reject),
            "All of reject goes to the winning class; a guess among K is right with 1 / K.",
        ),
        (scores.max_softmax, "The largest of all K + 1: where reject wins this score is high, and an OOD point counts as in."),
        (
            lambda logits: logits.double().softmax(0)[:, :-1].amax(1) + logits.double().softmax(0)[:, -1] / (logits.shape[1] - 1),
            "The softmax runs over the points (axis 0); it should run over the outputs of each point.",
        ),
        (scores.s3_log_odds, "These are the log-odds of s₃: they rank alike, but the probability is asked for."),
    ]
    why = "P(in) · max P(k | in) + P(out) / K: never below 1/K, as for a confident classifier that has learnt its lesson."
    random = torch.Generator().manual_seed(0)
    cases = [(3 * torch.randn(n, outputs, generator=random),) for n, outputs in [(6, 3), (5, 4), (12, 6)]]
    right = lambda logits: scores.s3_log_odds(logits).sigmoid()  # noqa: E731
    return function(answer, right, cases, why, wrong, back="section 2")


@never_raises
def five(answer: object) -> Verdict:
    fpr, aupr = scores.fpr_at_95_tpr, _aupr

    def numbers(fprs, auprs, ten):
        """From functions of (score_in, score_out): FPR95s, AUPRs, and the AUPR with more OOD points."""

        def of(score_in, score_out):
            case = score_in, score_out
            parts = [*([f(*case)] * 2 for f in fprs), *(f(*case) for f in auprs), ten(*case)]
            low, high = zip(*parts, strict=True)
            return Range(torch.tensor(low), torch.tensor(high))

        return of

    def turned(measure, swap=True, sign=-1):
        return lambda a, b: measure(sign * b, sign * a) if swap else measure(sign * a, sign * b)

    def ten(a, b):
        return aupr(a, b.repeat(10))

    def rest(measure):
        return lambda a, b: 1 - measure(a, b)

    def less(a, b):
        return [1 - part for part in reversed(aupr(a, b))]

    def auroc(a, b):
        return [scores.auroc(a, b)] * 2

    fprs, auprs = (fpr, turned(fpr)), (aupr, turned(aupr))
    sign = "With OOD positive, high has to mean OOD; here the sign is not turned, and an OOD point scores low."
    still = "The sign is turned, but in-distribution is still positive: exchange the two, as well."
    complement = "The two conventions are no complements: they take different thresholds. Compute the second one anew."
    changed = "In the two {} the two conventions are exchanged: the first is the course's own, in-distribution positive."
    wrong = [
        (numbers((fpr, turned(fpr, sign=1)), (aupr, turned(aupr, sign=1)), ten), sign),
        (numbers((fpr, turned(fpr, sign=1)), auprs, ten), f"FPR95: {sign}"),
        (numbers(fprs, (aupr, turned(aupr, sign=1)), ten), f"AUPR: {sign}"),
        (numbers((fpr, turned(fpr, swap=False)), (aupr, turned(aupr, swap=False)), ten), still),
        (numbers((fpr, turned(fpr, swap=False)), auprs, ten), f"FPR95: {still}"),
        (numbers(fprs, (aupr, turned(aupr, swap=False)), ten), f"AUPR: {still}"),
        (numbers((fpr, rest(fpr)), (aupr, less), ten), complement),
        (numbers((fpr, rest(fpr)), auprs, ten), f"FPR95: {complement}"),
        (numbers(fprs, (aupr, less), ten), f"AUPR: {complement}"),
        (numbers(fprs[::-1], auprs[::-1], ten), changed.format("pairs")),
        (numbers(fprs[::-1], auprs, ten), changed.format("FPR95")),
        (numbers(fprs, auprs[::-1], ten), changed.format("AUPR")),
        (numbers((fpr, fpr), (aupr, aupr), ten), "The same numbers twice: with OOD positive both come out otherwise."),
        (
            numbers(fprs, auprs, aupr),
            "The last number is the third again, as if it were AUROC: with ten times the OOD points, precision falls.",
        ),
        (
            numbers(fprs, auprs, lambda a, b: aupr(a.repeat(10), b)),
            "The last number has ten *members* for each. It is the OOD points that stand there ten times.",
        ),
        (
            numbers(fprs, auprs, lambda a, b: aupr(-b.repeat(10), -a)),
            "The last number has OOD positive; asked is AUPR as here, in-distribution positive.",
        ),
        (
            numbers(fprs, auprs, lambda a, b: [part / 10 for part in aupr(a, b)]),
            "AUPR does not fall to a tenth: precision is TP / (TP + FP), and only FP grows tenfold.",
        ),
        (
            numbers(fprs, (auroc, auroc), auroc),
            "That is AUROC in place of AUPR. It is the same for both conventions and for any ratio.",
        ),
        (
            numbers((rest(fpr), rest(turned(fpr))), auprs, ten),
            "1 − FPR95 is the share that is rightly told apart. FPR95 counts the mistakes: lower is better.",
        ),
    ]
    why = "One detector, and each of the five gets published. Say which class is positive, and how many OOD points there were."
    return function(answer, numbers(fprs, auprs, ten), _two_scores(), why, wrong, back="section 2")


def _aupr(score_in, score_out):
    """Average precision, and the area by trapezoids that OpenOOD and pytorch-ood take: the least and the greatest of both."""
    labels = torch.cat([torch.ones(len(score_in)), torch.zeros(len(score_out))])
    precision, recall, _ = metrics.precision_recall_curve(labels, torch.cat([score_in, score_out]))
    return sorted([scores.aupr(score_in, score_out), metrics.auc(recall, precision)])


def _two_scores():
    """Scores inside [n] and outside [m]; 95 % of them fall between no two points, so that a quantile is one of them."""
    cases = []
    for seed, (n, m) in enumerate([(101, 61), (61, 201), (201, 121)]):
        random = torch.Generator().manual_seed(seed)
        score_in, score_out = torch.randn(n, generator=random).double() + 2, 1.5 * torch.randn(m, generator=random).double()
        cases.append((score_in, score_out))
    return cases


@never_raises
def later(answer: object) -> Verdict:
    """The gap grows by 2 a unit, divided by a temperature of 5: the distance at which the confidence is 0.99."""
    gap = math.log(99)
    wrong = [
        (gap / 2, "That is the distance without the temperature. Divided by 5, the gap needs five times as long."),
        (gap / 10, "That is sooner than without the temperature. Divided, not multiplied: the gap grows by 2/5 for each unit."),
        (5 * gap, "You left out the slope, 2 for each unit: the gap after a distance r is 2 r / 5."),
        (gap, "That is the gap that is needed. At which distance r is 2 r / 5 as large?"),
        (2.5 * math.log(100), "σ(g) = 0.99 where g is the logarithm of 0.99 / 0.01, which is 99."),
        (lambda x: math.isinf(float(x)), "There is such a distance: the gap is divided by 5, and it still grows without bound."),
    ]
    return value(answer, 2.5 * gap, "Five times as far as without it, and no farther.", wrong, tolerance=0.0125, back="section 1")


@never_raises
def votes(answer: object) -> Verdict:
    def shares(winners, n_classes):
        return torch.stack([(winners == k).double().mean(0) for k in range(n_classes)])

    wrong = [
        (
            lambda winners, n_classes: (winners == winners[0]).double().mean(0),
            "That is the vote of the first member: how many agree with it. It may be in the minority.",
        ),
        (lambda winners, n_classes: shares(winners, n_classes)[0], "That is the share of class 0 only. Which class has most?"),
        (lambda winners, n_classes: shares(winners, n_classes)[-1], "That is the share of the last class only. Which has most?"),
        (
            lambda winners, n_classes: torch.where((winners == winners[0]).all(0), 1.0, 1 / n_classes),
            "All or nothing? Three of five votes are 0.6, neither 1 nor 1/K.",
        ),
        (
            lambda winners, n_classes: shares(winners, n_classes).amax(0) * len(winners),
            "That is a number of votes; a mean of probabilities is a share of them.",
        ),
        (lambda winners, n_classes: shares(winners, n_classes).T, "These are the shares of all classes: take the largest."),
    ]
    random = torch.Generator().manual_seed(0)
    cases = [(torch.randint(k, (m, 40), generator=random), k) for m, k in [(5, 2), (5, 3), (7, 4), (2, 2)]]
    why = "A share of votes: the members' winners are all there is to know far away."
    return function(answer, lambda *case: shares(*case).amax(0), cases, why, wrong, back="section 2")


@never_raises
def stops(answer: object) -> Verdict:
    def right(slope, variance):
        return (slope.abs() / (math.pi / 8 * variance).sqrt()).sigmoid()

    wrong = [
        (
            lambda slope, variance: (slope.abs() / (1 + math.pi / 8 * variance).sqrt()).sigmoid(),
            "The 1 under the root does not grow: divided by the square of the distance it vanishes.",
        ),
        (
            lambda slope, variance: (slope / (math.pi / 8 * variance).sqrt()).sigmoid(),
            "Where the slope is negative the class that leads is the other one: the confidence is never below 1/2.",
        ),
        (
            lambda slope, variance: (slope.abs() / (math.pi / 8 * variance)).sigmoid(),
            "The root is missing: v grows like the distance squared, its root like the distance.",
        ),
        (lambda slope, variance: (slope.abs() / variance.sqrt()).sigmoid(), "The factor π/8 under the root is missing."),
        (lambda slope, variance: slope.abs() / (math.pi / 8 * variance).sqrt(), "The σ is missing: that is the log-odds."),
        (lambda slope, variance: torch.ones_like(slope), "It stays below 1: the denominator grows as fast as the numerator."),
        (lambda slope, variance: torch.full_like(slope, 0.5), "It stays above 1/2: the numerator grows as fast, too."),
    ]
    random = torch.Generator().manual_seed(0)
    cases = [(torch.randn(30, generator=random), 0.1 + 3 * torch.rand(30, generator=random)) for _ in range(3)]
    why = "A ratio of two slopes: above 1/2, below 1, different on every ray."
    return function(answer, right, cases, why, wrong, back="section 2")
