"""What a detector thresholds, and how well the threshold can separate.

Scores take logits [..., K], a tensor of any kind (gradients flow) or what numpy takes, and give a float64 tensor: a float32
softmax rounds to exactly 1 beyond a logit difference of about 17, and points that tie at 1 can no longer be ranked. The log-odds
never saturate, so rankings use them. ValueError for logits that are no real numbers, or without an axis of classes.
"""

import importlib
import math

import numpy as np
import torch
from torch import Tensor

from ood_helpers.arrays import Numbers, dense, float64, whole


def max_softmax(logits: Numbers) -> Tensor:
    """The confidence: the largest softmax probability, in [1/K, 1]. Shape [...]."""
    return _logits(logits).softmax(-1).amax(-1)


def max_softmax_log_odds(logits: Numbers, classes: int | None = None) -> Tensor:
    """log(p / (1 − p)) of the largest softmax probability p: ranks points like `max_softmax`, but without rounding to 1.

    classes  how many of the first outputs may be the largest, 1 to K (of a reject network all but the last); None: all of them
    """
    z = _logits(logits)
    if classes is not None and whole("classes", classes, 1) > z.shape[-1]:
        raise ValueError(f"classes must be at most the number of logits, {z.shape[-1]}; got {classes}")
    top, winner = z[..., :classes].max(-1, keepdim=True)
    return top.squeeze(-1) - z.scatter(-1, winner, -torch.inf).logsumexp(-1)


def entropy(logits: Numbers) -> Tensor:
    """Entropy −Σ_k p_k log p_k of the softmax in nats, in [0, log K]. Shape [...]; high means out-of-distribution."""
    log_p = _logits(logits).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def reject_probability(logits: Numbers) -> Tensor:
    """The softmax probability of the last class, reject, in [0, 1]. Shape [...]; high means out-of-distribution."""
    return _logits(logits, least=2).softmax(-1)[..., -1]


def class_log_odds(logits: Numbers) -> Tensor:
    """log((1 − p) / p) of the reject probability p: high means in-distribution, ranks like 1 − p, never rounds."""
    z = _logits(logits, least=2)
    return z[..., :-1].logsumexp(-1) - z[..., -1]


def s2_log_odds(logits: Numbers) -> Tensor:
    """log(s2 / (1 − s2)) of s2 = max_k p_k, the largest probability of an in-distribution class of a reject network. Shape [...].

    High means in-distribution: in, and of one class. With s1 = 1 − p_reject (`class_log_odds`) and s3 these are the three
    scores of Bitterwolf et al. (ICML 2022).
    """
    z = _logits(logits, least=2)
    return max_softmax_log_odds(z, classes=z.shape[-1] - 1)


def s3_log_odds(logits: Numbers) -> Tensor:
    """log(s3 / (1 − s3)) of s3 = max_k p_k + p_reject / K: the confidence if reject's probability is shared among the K classes.

    logits [..., K+1] of a reject network. s3 is in [1/K, 1], high means in-distribution. Adding p_reject / K to every class is
    adding exp(z_reject) / K to every exp(z_k): no rounding to 1. Shape [...].
    """
    z = _logits(logits, least=2)
    shared = z[..., -1:] - math.log(z.shape[-1] - 1)
    return max_softmax_log_odds(torch.logaddexp(z[..., :-1], shared))


def energy(logits: Numbers) -> Tensor:
    """The free energy F = −log Σ_k exp z_k (Liu et al., NeurIPS 2020): any number, LOW means in-distribution. Shape [...].

    For detection use −F, which is what `class_log_odds` gives for a reject class whose logit is 0 everywhere. It is not changed
    by the softmax, so it is not bounded: it never rounds to 1.
    """
    return -_logits(logits).logsumexp(-1)


def auroc(score_in: Numbers, score_out: Numbers) -> float:
    """Area under the ROC curve, in [0, 1]; in-distribution is the positive class and should score high. 0.5 is chance.

    Equal to the probability that a random in-distribution point scores above a random OOD point, ties counting one half.
    """
    return float(_metric("roc_auc_score", score_in, score_out))


def fpr_at_95_tpr(score_in: Numbers, score_out: Numbers) -> float:
    """The share of OOD points accepted at the highest threshold that accepts at least 95 % of the in-distribution points.

    In [0, 1], lower is better. In-distribution is the positive class; some papers turn the roles round.
    """
    fpr, tpr, _ = _metric("roc_curve", score_in, score_out, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


def aupr(score_in: Numbers, score_out: Numbers) -> float:
    """Average precision (area under the precision-recall curve), in-distribution positive, in [0, 1]."""
    return float(_metric("average_precision_score", score_in, score_out))


def _logits(logits, least=1):
    """Logits [..., K] as a float64 tensor on their own device; ValueError unless real numbers, `least` or more a point."""
    z = dense(logits, "logits") if isinstance(logits, torch.Tensor) else torch.from_numpy(float64(logits, "logits"))
    if z.dim() == 0 or z.shape[-1] < least:
        raise ValueError(f"logits must have shape [..., K] with K at least {least}; got {list(z.shape)}")
    return z


def _metric(name, score_in, score_out, **settings):
    metrics = importlib.import_module("sklearn.metrics")  # not before: a picture that ranks nothing need not wait for it
    pair = [float64(score, side).ravel() for score, side in ((score_in, "score_in"), (score_out, "score_out"))]
    for side, score in zip(("score_in", "score_out"), pair, strict=True):
        if len(score) == 0 or np.isnan(score).any():
            raise ValueError(f"{side} must hold at least one score and no NaN; got {len(score)}, {np.isnan(score).sum()} NaN")
    # only the order counts: ranks hold infinite scores, too, which scikit-learn refuses
    _, ranks = np.unique(np.concatenate(pair), return_inverse=True)
    return getattr(metrics, name)(np.repeat([1, 0], [len(s) for s in pair]), ranks, **settings)
