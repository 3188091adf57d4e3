"""Losses of other papers, beside those of `losses`, by the same conventions. ACET's looks at a network: it seeks its points."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from ood_helpers.arrays import whole
from ood_helpers.data import Sampler
from ood_helpers.losses import check_logits, cross_entropy
from ood_helpers.models import Stack
from ood_helpers.scores import max_softmax_log_odds

# Margins of the energy loss, in nats: the best of six pairs in the paper's world with boundary OOD points, chosen by the AUROC of
# the energy on two networks of seeds 1000 and 1001, which are measured nowhere else. The energy paper's (-23, -5) are for ten
# classes of images; here they were the worst of the six.
_M_IN, _M_OUT = -5.0, -1.0


def energy_loss(
    logits_in: Tensor, y: Tensor, logits_out: Tensor, m_in: float = _M_IN, m_out: float = _M_OUT, weight: float = 0.1
) -> Tensor:
    """Cross-entropy + weight · (mean of relu(F(x_in) − m_in)² + mean of relu(m_out − F(x_out))²) (Liu et al., NeurIPS 2020).

    F = −log Σ_k exp z_k is the free energy of a point: low for in-distribution, see `scores.energy`. Shape [...].
    m_in, m_out  in-distribution points should lie below the first, OOD points above the second: m_in < m_out
    weight       at least 0; the paper has 0.1
    """
    check_logits("logits_out", logits_out)
    if not m_in < m_out:
        raise ValueError(f"m_in must be less than m_out; got {m_in} and {m_out}")
    _check_weight("weight", weight)
    too_high = (-logits_in.logsumexp(-1) - m_in).relu()
    too_low = (m_out + logits_out.logsumexp(-1)).relu()
    return cross_entropy(logits_in, y) + weight * (too_high.square().mean(-1) + too_low.square().mean(-1))


def _max_log_probability(logits: Tensor) -> Tensor:
    """The mean over n points of max_k log P(k|x), from −log K (uniform) to 0 (sure). Shape [...]."""
    check_logits("logits", logits)
    return logits.log_softmax(-1).amax(-1).mean(-1)


def ceda_loss(logits_in: Tensor, y: Tensor, logits_out: Tensor, weight: float = 1.0) -> Tensor:
    """Cross-entropy + weight · the mean of max_k log P(k|x_out): CEDA (Hein et al., CVPR 2019, eq. 2). Shape [...].

    Like the KL term it is least where the OOD points' distribution is uniform, but it counts only the most probable class, and
    a point that is sure costs at most log K more than one that is not. weight at least 0; the paper has 1.
    """
    _check_weight("weight", weight)
    return cross_entropy(logits_in, y) + weight * _max_log_probability(logits_out)


def acet_penalty(ood: Sampler, radius: float, steps: int = 5, *, generator: Generator) -> Callable:
    """CEDA's term at the worst points: ACET (Hein et al., CVPR 2019, eq. 3). A function for `training.train(penalty=…)`.

    The function takes a network (or `models.Stack`) and directions u [n, d], of which only the number n counts, and gives a
    number (or [E]): `_max_log_probability` at `worst_in_ball` of n fresh points of `ood(n, generator=generator)`.
    radius, steps  of the search, see `worst_in_ball`
    Train it with a loss that leaves the OOD points alone, such as `confidence_loss` with beta=0.
    """

    def penalty(network, u):
        x = ood(len(u), generator=generator)
        return _max_log_probability(network(worst_in_ball(network, x, radius, steps)))

    return penalty


def worst_in_ball(network: nn.Module | Stack, x: Tensor, radius: float, steps: int = 5) -> Tensor:
    """The most confident point that gradient ascent finds within `radius` of each x [n, d]: [n, d], or [E, n, d] for a stack.

    radius  Euclidean, positive · steps: whole number, at least 1; each moves 2 · radius / steps uphill, then back into the ball
    What climbs is log(p / (1 − p)) of the largest probability p. It has its maximum where p has, but its gradient does not
    vanish where the network is sure already. The result is the best point seen, x included.
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be a positive number; got {radius}")
    steps = whole("steps", steps, 1)
    with torch.no_grad():
        # a copy: a first layer that works in place would overwrite the points
        best_odds = max_softmax_log_odds(network(x.clone()))
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


def _check_weight(name, weight):
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name} must be a number of at least 0; got {weight}")
