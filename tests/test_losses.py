"""The losses against values computed by hand and against torch's own."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.nn import functional as F

from ood_helpers.losses import confidence_loss, cross_entropy, kl_to_uniform, reject_loss

sizes = st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(2, 6), st.integers(0, 2**31))


def logits(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_confidence_loss_by_hand():
    # softmax of (log 3, 0) is (3/4, 1/4): cross-entropy with class 0 is log(4/3);
    # KL(U || (3/4, 1/4)) = ½ log((1/2)/(3/4)) + ½ log((1/2)/(1/4)) = ½ log(4/3)
    z = torch.tensor([[math.log(3.0), 0.0]])
    assert confidence_loss(z, torch.tensor([0]), z, beta=2.0).item() == pytest.approx(2 * math.log(4 / 3))
    assert confidence_loss(z, torch.tensor([1]), z, beta=0.0).item() == pytest.approx(math.log(4))


def test_reject_loss_by_hand():
    # equal logits over two classes and reject: every point costs log 3, whatever the class
    z = torch.zeros(4, 3)
    assert reject_loss(z, torch.tensor([0, 1, 1, 0]), z).item() == pytest.approx(math.log(3))
    sure = torch.tensor([[0.0, 0.0, 50.0]])
    assert reject_loss(sure[:, [2, 0, 1]], torch.tensor([0]), sure).item() == pytest.approx(0, abs=1e-12)


@given(sizes)
def test_terms_agree_with_torchs_own(size):
    _, n, k, seed = size
    z, y = logits(n, k, seed=seed), torch.arange(n) % k
    torch.testing.assert_close(cross_entropy(z, y), F.cross_entropy(z, y))
    uniform = torch.full((n, k), 1 / k, dtype=z.dtype)
    torch.testing.assert_close(kl_to_uniform(z), F.kl_div(z.log_softmax(-1), uniform, reduction="batchmean"))


@given(sizes)
def test_reject_loss_is_cross_entropy_over_all_points(size):
    _, n, k, seed = size
    z_in, z_out, y = logits(n, k, seed=seed), logits(2 * n, k, seed=seed + 1), torch.arange(n) % (k - 1)
    everything = torch.cat([y, torch.full((2 * n,), k - 1)])
    torch.testing.assert_close(reject_loss(z_in, y, z_out), F.cross_entropy(torch.cat([z_in, z_out]), everything))


@given(sizes)
def test_leading_axes_pass_through(size):
    e, n, k, seed = size
    z_in, z_out = logits(e, n, k, seed=seed), logits(e, n + 1, k, seed=seed + 1)
    y, beta = torch.arange(n) % (k - 1), torch.arange(e, dtype=torch.float64)
    own = torch.stack([(y + i) % (k - 1) for i in range(e)])
    for labels in (y, own):
        rows = labels.expand(e, n)
        expected = torch.stack([confidence_loss(z_in[i], rows[i], z_out[i], beta[i]) for i in range(e)])
        torch.testing.assert_close(confidence_loss(z_in, labels, z_out, beta), expected)
        expected = torch.stack([reject_loss(z_in[i], rows[i], z_out[i]) for i in range(e)])
        torch.testing.assert_close(reject_loss(z_in, labels, z_out), expected)


@given(sizes)
def test_kl_is_never_negative_and_zero_only_at_equal_logits(size):
    e, n, k, seed = size
    assert (kl_to_uniform(logits(e, n, k, seed=seed)) > 0).all()
    torch.testing.assert_close(kl_to_uniform(torch.full((n, k), 7.0)), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_the_published_codes_target_doubles_beta():
    # cross-entropy against the target (1, 1), as in the paper's code, is 2 (KL + log 2)
    z = logits(50, 2)
    published = -(z.log_softmax(-1) * torch.ones(2)).sum(-1).mean()
    torch.testing.assert_close(published, 2 * (kl_to_uniform(z) + math.log(2)))


Z, Y = torch.zeros(3, 2), torch.tensor([0, 1, 0])


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: confidence_loss(Z, Y, Z, beta=-0.5), "beta must be at least 0; got -0.5"),
        (lambda: confidence_loss(Z, Y, Z, beta=torch.tensor([1.0, -1.0])), "beta must be at least 0"),
        (lambda: confidence_loss(Z, Y, Z, beta=float("nan")), "beta must be at least 0"),
        (lambda: cross_entropy(Z, Y + 1), r"y must lie in 0…1 for 2 logits; got 1…2"),
        (lambda: cross_entropy(Z, Y - 1), "y must lie in"),
        (lambda: cross_entropy(Z, Y.float()), "y must be int64"),
        (lambda: cross_entropy(Z, Y[:2]), r"y must be int64 with one label per point, \[3\]"),
        (lambda: reject_loss(Z, Y, Z), "the last of the 2 logits is the reject class; got 1"),
        (lambda: kl_to_uniform(torch.zeros(3)), r"shape \[..., n, K\]; got torch.float32 \[3\]"),
        (lambda: kl_to_uniform([[0.0, 1.0]]), "got list"),
    ],
)
def test_bad_input_says_what_is_wrong(call, says):
    with pytest.raises(ValueError, match=says):
        call()
