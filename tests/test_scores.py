"""Scores and detection measures against scikit-learn, brute force and known answers."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from sklearn import metrics

from ood_helpers import scores

some_scores = st.lists(st.integers(-4, 4).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(some_scores, some_scores)
def test_auroc_and_fpr_agree_with_scikit_learn_and_with_counting(score_in, score_out):
    y, s = np.repeat([1, 0], [len(score_in), len(score_out)]), np.array(score_in + score_out)
    assert scores.auroc(score_in, score_out) == pytest.approx(metrics.roc_auc_score(y, s))
    pairs = np.subtract.outer(score_in, score_out)
    assert scores.auroc(score_in, score_out) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    # the highest threshold that accepts 95 %: try every observed score
    accepted = [t for t in sorted(set(s), reverse=True) if np.mean(np.array(score_in) >= t) >= 0.95]
    assert scores.fpr_at_95_tpr(score_in, score_out) == pytest.approx(np.mean(np.array(score_out) >= accepted[0]))
    assert scores.aupr(score_in, score_out) == pytest.approx(metrics.average_precision_score(y, s))


def test_in_distribution_is_the_positive_class():
    assert scores.auroc([2, 3], [0, 1]) == 1 and scores.auroc([0, 1], [2, 3]) == 0
    assert scores.fpr_at_95_tpr([2, 3], [0, 1]) == 0 and scores.fpr_at_95_tpr([0, 1], [2, 3]) == 1


def test_infinite_scores_are_ranks_like_others():
    assert scores.auroc([np.inf, 2.0], [1.0, -np.inf]) == 1
    assert scores.auroc([np.inf], [np.finfo(float).max]) == 1 and scores.auroc([np.inf], [np.inf]) == 0.5
    assert scores.fpr_at_95_tpr([np.inf], [np.finfo(float).max]) == 0 and scores.aupr([1e-320], [0.0]) == 1


@pytest.mark.parametrize("n", [20, 40, 60, 100, 1000])
def test_a_threshold_that_accepts_exactly_95_percent_is_enough(n):
    """19 of 20 in-distribution points score 2, one scores 0, OOD points 1: a threshold of 2 accepts 95 % and none of these."""
    score_in = [2.0] * (n * 19 // 20) + [0.0] * (n // 20)
    assert scores.fpr_at_95_tpr(score_in, [1.0, 1.0]) == 0
    assert scores.fpr_at_95_tpr([*score_in[1:], 0.0], [1.0, 1.0]) == 1


KINDS = {
    "bfloat16": lambda x: x.bfloat16(),
    "half that requires grad": lambda x: x.half().requires_grad_(),
    "a result": lambda x: x.double().requires_grad_() * 1,
    "sparse": lambda x: x.to_sparse(),
    "negative view": lambda x: torch._neg_view(-x),
    "quantised": lambda x: torch.quantize_per_tensor(x, 0.5, 0, torch.qint8),
    "numpy": lambda x: x.numpy(),
    "numpy float16": lambda x: x.numpy().astype(np.float16),
    "list": lambda x: x.tolist(),
    "list of tensors": list,
}


@pytest.mark.filterwarnings("ignore:.*quantize")
@pytest.mark.parametrize("kind", KINDS)
def test_scores_take_numbers_of_any_kind(kind):
    z = torch.tensor([[1.0, 0.5, -2.0], [0.0, 3.0, 0.5]])
    functions = [
        scores.max_softmax, scores.max_softmax_log_odds, scores.entropy, scores.reject_probability, scores.class_log_odds,
        scores.s2_log_odds, scores.s3_log_odds, scores.energy,
    ]  # fmt: skip
    for function in functions:
        got = function(KINDS[kind](z))
        assert got.dtype == torch.float64 and torch.equal(got.detach(), function(z.double()))
    score_in, score_out = torch.tensor([2.0, 0.5, 1.0]), torch.tensor([0.5, -1.0])
    for measure in (scores.auroc, scores.fpr_at_95_tpr, scores.aupr):
        assert measure(KINDS[kind](score_in), KINDS[kind](score_out)) == measure(score_in.tolist(), score_out.tolist())


def test_gradients_flow_through_scores():
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    scores.energy(z).sum().backward()
    torch.testing.assert_close(z.grad, -z.detach().double().softmax(-1).bfloat16())


@pytest.mark.parametrize(
    "ask, says",
    [
        (lambda: scores.max_softmax(torch.ones(2, 3, dtype=torch.complex64)), "logits must hold real numbers"),
        (lambda: scores.energy(np.ones((2, 3)) * 1j), "logits must hold real numbers"),
        (lambda: scores.entropy(torch.ones(2, 3, device="meta")), "logits must hold numbers; it is a tensor on the meta device"),
        (lambda: scores.entropy([[1.0, None]]), "logits must hold numbers"),
        (lambda: scores.max_softmax(torch.tensor(1.0)), r"logits must have shape \[..., K\] with K at least 1; got \[\]"),
        (lambda: scores.max_softmax(torch.ones(2, 0)), r"with K at least 1; got \[2, 0\]"),
        (lambda: scores.s3_log_odds(torch.ones(2, 1)), r"with K at least 2; got \[2, 1\]"),
        (lambda: scores.class_log_odds(torch.ones(2, 1)), r"with K at least 2; got \[2, 1\]"),
        (
            lambda: scores.max_softmax_log_odds(torch.ones(2, 3), classes=5),
            "classes must be at most the number of logits, 3; got 5",
        ),
        (
            lambda: scores.max_softmax_log_odds(torch.ones(2, 3), classes=-1),
            "classes must be a whole number of at least 1; got -1",
        ),
        (lambda: scores.max_softmax_log_odds(torch.ones(2, 3), classes=True), "classes must be a whole number"),
        (lambda: scores.auroc([1.0], torch.ones(2, device="meta")), "score_out must hold numbers"),
        (lambda: scores.fpr_at_95_tpr(torch.ones(2) * 1j, [1.0]), "score_in must hold real numbers"),
        (lambda: scores.aupr(["a"], [1.0]), "score_in must hold real numbers"),
        (lambda: scores.auroc([None], [1.0]), "score_in must hold numbers"),
    ],
)
def test_what_cannot_be_scored_is_named(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()


@pytest.mark.parametrize(
    "bad, says", [(([], [1.0]), "score_in must hold at least one"), (([1.0], [np.nan]), "score_out .* 1 NaN")]
)
def test_bad_scores_say_what_is_wrong(bad, says):
    with pytest.raises(ValueError, match=says):
        scores.auroc(*bad)


@given(st.integers(2, 6), st.integers(0, 2**31))
def test_scores_have_their_range_and_rank_alike(k, seed):
    z = 2 * torch.randn(60, k, generator=torch.Generator().manual_seed(seed))
    p = scores.max_softmax(z)
    assert p.dtype == torch.float64 and ((p >= 1 / k) & (p <= 1)).all()
    torch.testing.assert_close(scores.max_softmax_log_odds(z), (p / (1 - p)).log(), rtol=1e-6, atol=1e-6)
    e = scores.entropy(z)
    assert ((e >= 0) & (e <= np.log(k) + 1e-12)).all()
    q = scores.reject_probability(z)
    torch.testing.assert_close(scores.class_log_odds(z), ((1 - q) / q).log(), rtol=1e-6, atol=1e-6)


def test_log_odds_still_rank_where_the_softmax_is_one():
    z = torch.tensor([[100.0, 0.0, 0.0], [200.0, 0.0, 0.0]])
    assert scores.max_softmax(z).unique().numel() == 1
    odds = scores.max_softmax_log_odds(z)
    assert odds[1] - odds[0] == pytest.approx(100)
    assert scores.class_log_odds(z)[1] - scores.class_log_odds(z)[0] == pytest.approx(100)


def test_known_values():
    z = torch.log(torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64))
    assert scores.max_softmax(z).item() == pytest.approx(0.7)
    assert scores.reject_probability(z).item() == pytest.approx(0.1)
    assert scores.entropy(z).item() == pytest.approx(-(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1)))


@given(st.integers(2, 6), st.integers(0, 2**31))
def test_the_three_scores_of_a_reject_network(k, seed):
    """Against their definitions from probabilities (Bitterwolf et al.), and for two classes against notebook 03's own formula."""
    z = 3 * torch.randn(40, k + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = z.softmax(-1)
    s1, s2 = 1 - p[:, -1], p[:, :-1].amax(-1)
    s3 = s2 + (1 - s1) / k
    for s, odds in ((s1, scores.class_log_odds(z)), (s2, scores.s2_log_odds(z)), (s3, scores.s3_log_odds(z))):
        torch.testing.assert_close(odds.sigmoid(), s)
    if k == 2:
        low, high = z[:, :2].sort(1).values.T
        half = z[:, 2] - np.log(2)
        torch.testing.assert_close(scores.s3_log_odds(z), torch.logaddexp(high, half) - torch.logaddexp(low, half))


def test_the_three_scores_do_not_saturate():
    z = torch.tensor([[100.0, 0.0, 0.0], [200.0, 0.0, 0.0], [0.0, 0.0, 2000.0]])
    for score in (scores.class_log_odds, scores.s2_log_odds, scores.s3_log_odds):
        odds = score(z)
        assert odds[1] - odds[0] == pytest.approx(100) and odds[2] <= 0 and torch.isfinite(odds).all()


@given(st.integers(2, 6), st.integers(0, 2**31))
def test_energy_is_low_inside_and_is_a_reject_class_with_logit_0(k, seed):
    z = 3 * torch.randn(40, k, generator=torch.Generator().manual_seed(seed))
    assert scores.energy(z).dtype == torch.float64
    torch.testing.assert_close(scores.energy(z), -z.double().exp().sum(-1).log())
    assert (scores.energy(z + 1) < scores.energy(z)).all()
    with_reject = torch.cat([z, torch.zeros(40, 1)], -1)
    torch.testing.assert_close(-scores.energy(z), scores.class_log_odds(with_reject))
    assert torch.isfinite(scores.energy(1e30 * z)).all()
