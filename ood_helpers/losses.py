"""Every loss of the course by its equation number or its paper: pure functions of logits.

Logits are [..., n, K]: n points, K classes. Leading axes pass through, so logits [E, n, K] of E networks give E losses [E].
Labels y are int64 [n], or [..., n] if each network has its own. Losses are means over the points, in nats. Only `acet_penalty`
looks at a network: it has to search for its points.
"""

import math

import torch

from ood_helpers.arrays import whole
from ood_helpers.scores import max_softmax_log_odds

# Margins of the energy loss, in nats: the best of six pairs in the paper's world with boundary OOD points, chosen by the AUROC of
# the energy on two networks of seeds 1000 and 1001, which are measured nowhere else. The energy paper's (-23, -5) are for ten
# classes of images; here they were the worst of the six.
M_IN, M_OUT = -5.0, -1.0


def cross_entropy(logits, y):
    """Eq. (1), term (a): the mean of −log P(y|x) over n points. Shape [...]."""
    _check_logits("logits", logits)
    if y.dtype != torch.int64 or y.shape[-1:] != logits.shape[-2:-1]:
        raise ValueError(f"y must be int64 with one label per point, [{logits.shape[-2]}]; got {y.dtype} {list(y.shape)}")
    if y.numel() and (y.min() < 0 or y.max() >= logits.shape[-1]):
        raise ValueError(f"y must lie in 0…{logits.shape[-1] - 1} for {logits.shape[-1]} logits; got {y.min()}…{y.max()}")
    log_p = logits.log_softmax(-1)
    return -log_p.gather(-1, y.expand(logits.shape[:-1])[..., None]).squeeze(-1).mean(-1)


def kl_to_uniform(logits):
    """Eq. (1), term (b): the mean of KL(U ‖ P(·|x)) = −log K − (1/K) Σ_k log P(k|x) over n points. Shape [...], at least 0."""
    _check_logits("logits", logits)
    return (-math.log(logits.shape[-1]) - logits.log_softmax(-1).mean(-1)).mean(-1)


def confidence_loss(logits_in, y, logits_out, beta):
    """The confident classifier's loss, Eq. (1), terms (a) + β (b): be right on the classes, be uniform on the OOD points.

    logits_in [..., n, K] with labels y · logits_out [..., m, K] · beta at least 0: a number, or a tensor [E], one per network

    Outlier Exposure (Hendrycks et al., ICLR 2019) adds λ · cross-entropy from the uniform distribution, which is KL + log K.
    With λ = 0.5 it is this loss with beta 0.5, but for a constant that training does not see.
    """
    if not (torch.as_tensor(beta) >= 0).all():
        raise ValueError(f"beta must be at least 0; got {beta}")
    return cross_entropy(logits_in, y) + beta * kl_to_uniform(logits_out)


def reject_loss(logits_in, y, logits_out):
    """The reject classifier's loss (§4): cross-entropy over K + 1 classes, the OOD points being class K, the last logit.

    logits_in [..., n, K+1] with labels y in 0…K−1 · logits_out [..., m, K+1]. Every point, in or out, counts the same.
    """
    _check_logits("logits_out", logits_out)
    reject = logits_out.shape[-1] - 1
    if y.numel() and y.max() >= reject:
        raise ValueError(f"y must lie in 0…{reject - 1}: the last of the {reject + 1} logits is the reject class; got {y.max()}")
    y_out = torch.full(logits_out.shape[-2:-1], reject)
    y_all = torch.cat([y, y_out.expand(*y.shape[:-1], -1)], -1)
    return cross_entropy(torch.cat([logits_in, logits_out], -2), y_all)


def energy_loss(logits_in, y, logits_out, m_in=M_IN, m_out=M_OUT, weight=0.1):
    """Cross-entropy + weight · (mean of relu(F(x_in) − m_in)² + mean of relu(m_out − F(x_out))²) (Liu et al., NeurIPS 2020).

    F = −log Σ_k exp z_k is the free energy of a point: low for in-distribution, see `scores.energy`. Shape [...].
    m_in, m_out  in-distribution points should lie below the first, OOD points above the second: m_in < m_out
    weight       at least 0; the paper has 0.1
    """
    _check_logits("logits_out", logits_out)
    if not m_in < m_out:
        raise ValueError(f"m_in must be less than m_out; got {m_in} and {m_out}")
    _check_weight("weight", weight)
    too_high = (-logits_in.logsumexp(-1) - m_in).relu()
    too_low = (m_out + logits_out.logsumexp(-1)).relu()
    return cross_entropy(logits_in, y) + weight * (too_high.square().mean(-1) + too_low.square().mean(-1))


def max_log_probability(logits):
    """The mean over n points of max_k log P(k|x), from −log K (uniform) to 0 (sure). Shape [...]."""
    _check_logits("logits", logits)
    return logits.log_softmax(-1).amax(-1).mean(-1)


def ceda_loss(logits_in, y, logits_out, weight=1.0):
    """Cross-entropy + weight · the mean of max_k log P(k|x_out): CEDA (Hein et al., CVPR 2019, eq. 2). Shape [...].

    Like the KL term it is least where the OOD points' distribution is uniform, but it counts only the surest class, and a point
    that is sure costs at most log K more than one that is not. weight at least 0; the paper has 1.
    """
    _check_weight("weight", weight)
    return cross_entropy(logits_in, y) + weight * max_log_probability(logits_out)


def acet_penalty(ood, radius, steps=5, *, generator):
    """CEDA's term at the worst points: ACET (Hein et al., CVPR 2019, eq. 3). A function for `training.train(penalty=…)`.

    The function takes a network (or `models.Stack`) and directions u [n, d], of which only the number n counts, and gives a
    number (or [E]): `max_log_probability` at `worst_in_ball` of n fresh points of `ood(n, generator=generator)`.
    radius, steps  of the search, see `worst_in_ball`
    Train it with a loss that leaves the OOD points alone, such as `confidence_loss` with beta=0.
    """

    def penalty(network, u):
        x = ood(len(u), generator=generator)
        return max_log_probability(network(worst_in_ball(network, x, radius, steps)))

    return penalty


def worst_in_ball(network, x, radius, steps=5):
    """The surest point that gradient ascent finds within `radius` of every point x [n, d]: [n, d], or [E, n, d] for a stack.

    radius  Euclidean, positive · steps: whole number, at least 1; each moves 2 · radius / steps uphill, then back into the ball
    What climbs is log(p / (1 − p)) of the largest probability p. It has its maximum where p has, but its gradient does not
    vanish where the network is sure already. The result is the best point seen, x included.
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be a positive number; got {radius}")
    steps = whole("steps", steps, 1)
    with torch.no_grad():
        best_odds = max_softmax_log_odds(
            network(x.clone())
        )  # a copy: a first layer that works in place would overwrite the points
    best = here = x.expand(*best_odds.shape, -1)
    for _ in range(steps):
        here = here.detach().requires_grad_()
        (uphill,) = torch.autograd.grad(max_softmax_log_odds(network(here.clone())).sum(), here)
        away = here.detach() + 2 * radius / steps * torch.nn.functional.normalize(uphill, dim=-1) - x
        here = x + away * (radius / away.norm(dim=-1, keepdim=True)).clamp(max=1)
        with torch.no_grad():
            odds = max_softmax_log_odds(network(here.clone()))
        best = torch.where((odds > best_odds)[..., None], here, best)
        best_odds = torch.maximum(odds, best_odds)
    return best.detach()


def one_each(logits_in, y, logits_out, losses):
    """Its own loss for every network of a batched run: losses is a list of E losses, logits are [E, n, K]. Shape [E]."""
    if not (logits_in.dim() == 3 and len(losses) == len(logits_in)):
        raise ValueError(f"losses must be E for logits [E, n, K] of E networks; got {len(losses)} for {list(logits_in.shape)}")
    return torch.stack([loss(*part) for loss, *part in zip(losses, logits_in, y, logits_out, strict=True)])


def _check_weight(name, weight):
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name} must be a number of at least 0; got {weight}")


def _check_logits(name, logits):
    if not (isinstance(logits, torch.Tensor) and logits.is_floating_point() and logits.dim() >= 2):
        got = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"{name} must be a float tensor of shape [..., n, K]; got {got}")
