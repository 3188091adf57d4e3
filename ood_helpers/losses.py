"""The paper's losses by their equation numbers: pure functions of logits. Those of other papers are in `other_losses`.

Logits are [..., n, K]: n points, K classes. Leading axes pass through, so logits [E, n, K] of E networks give E losses [E].
Labels y are int64 [n], or [..., n] if each network has its own. Losses are means over the points, in nats.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # loss(logits_in, y, logits_out), as `training.train` takes it


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Eq. (1), term (a): the mean of −log P(y|x) over n points. Shape [...]."""
    check_logits("logits", logits)
    if y.dtype != torch.int64 or y.shape[-1:] != logits.shape[-2:-1]:
        raise ValueError(f"y must be int64 with one label per point, [{logits.shape[-2]}]; got {y.dtype} {list(y.shape)}")
    if y.numel() and (y.min() < 0 or y.max() >= logits.shape[-1]):
        raise ValueError(f"y must lie in 0…{logits.shape[-1] - 1} for {logits.shape[-1]} logits; got {y.min()}…{y.max()}")
    log_p = logits.log_softmax(-1)
    return -log_p.gather(-1, y.expand(logits.shape[:-1])[..., None]).squeeze(-1).mean(-1)


def kl_to_uniform(logits: Tensor) -> Tensor:
    """Eq. (1), term (b): the mean of KL(U ‖ P(·|x)) = −log K − (1/K) Σ_k log P(k|x) over n points. Shape [...], at least 0."""
    check_logits("logits", logits)
    return (-math.log(logits.shape[-1]) - logits.log_softmax(-1).mean(-1)).mean(-1)


def confidence_loss(logits_in: Tensor, y: Tensor, logits_out: Tensor, beta: float | Tensor) -> Tensor:
    """The confident classifier's loss, Eq. (1), terms (a) + β (b): be right on the classes, be uniform on the OOD points.

    logits_in [..., n, K] with labels y · logits_out [..., m, K] · beta at least 0: a number, or a tensor [E], one per network

    Outlier Exposure (Hendrycks et al., ICLR 2019) adds λ · cross-entropy from the uniform distribution, which is KL + log K.
    With λ = 0.5 it is this loss with beta 0.5, but for a constant that training does not see.
    """
    if not (torch.as_tensor(beta) >= 0).all():
        raise ValueError(f"beta must be at least 0; got {beta}")
    return cross_entropy(logits_in, y) + beta * kl_to_uniform(logits_out)


def reject_loss(logits_in: Tensor, y: Tensor, logits_out: Tensor) -> Tensor:
    """The reject classifier's loss (§4): cross-entropy over K + 1 classes, the OOD points being class K, the last logit.

    logits_in [..., n, K+1] with labels y in 0…K−1 · logits_out [..., m, K+1]. Every point, in or out, counts the same.
    """
    check_logits("logits_out", logits_out)
    reject = logits_out.shape[-1] - 1
    if y.numel() and y.max() >= reject:
        raise ValueError(f"y must lie in 0…{reject - 1}: the last of the {reject + 1} logits is the reject class; got {y.max()}")
    y_out = torch.full(logits_out.shape[-2:-1], reject)
    y_all = torch.cat([y, y_out.expand(*y.shape[:-1], -1)], -1)
    return cross_entropy(torch.cat([logits_in, logits_out], -2), y_all)


def one_each(logits_in: Tensor, y: Tensor, logits_out: Tensor, losses: Sequence[Loss]) -> Tensor:
    """Its own loss for every network of a batched run: losses is a list of E losses, logits are [E, n, K]. Shape [E]."""
    if not (logits_in.dim() == 3 and len(losses) == len(logits_in)):
        raise ValueError(f"losses must be E for logits [E, n, K] of E networks; got {len(losses)} for {list(logits_in.shape)}")
    return torch.stack([loss(*part) for loss, *part in zip(losses, logits_in, y, logits_out, strict=True)])


def check_logits(name: str, logits: Tensor) -> None:
    """ValueError that names the argument unless the logits are a float tensor [..., n, K]."""
    if not (isinstance(logits, torch.Tensor) and logits.is_floating_point() and logits.dim() >= 2):
        got = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"{name} must be a float tensor of shape [..., n, K]; got {got}")
