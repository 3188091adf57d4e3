"""The losses against values computed by hand and against torch's own."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.nn import functional as F

from ood_helpers import scores
from ood_helpers.losses import confidence_loss, cross_entropy, kl_to_uniform, one_each, reject_loss
from ood_helpers.models import Stack, mlp
from ood_helpers.other_losses import _max_log_probability, acet_penalty, ceda_loss, energy_loss, worst_in_ball

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


@given(sizes)
def test_outlier_exposure_is_the_confidence_loss_but_for_a_constant(size):
    _, n, k, seed = size
    z_in, z_out, y = logits(n, k, seed=seed), logits(2 * n, k, seed=seed + 1), torch.arange(n) % k
    uniform = torch.full((2 * n, k), 1 / k, dtype=z_in.dtype)
    published = F.cross_entropy(z_in, y) + 0.5 * F.cross_entropy(z_out, uniform)
    torch.testing.assert_close(confidence_loss(z_in, y, z_out, beta=0.5) + 0.5 * math.log(k), published)


def test_energy_loss_by_hand():
    # two equal logits 0 have the free energy -log 2, a pair (3, 3) has -3 - log 2
    z_in, z_out, y = torch.zeros(4, 2), torch.full((3, 2), 3.0), torch.tensor([0, 1, 1, 0])
    hinges = (2 - math.log(2)) ** 2 + (1 + 3 + math.log(2)) ** 2
    found = energy_loss(z_in, y, z_out, m_in=-2.0, m_out=1.0, weight=0.25)
    assert found.item() == pytest.approx(math.log(2) + 0.25 * hinges)
    calm = energy_loss(z_in, y, torch.full((3, 2), -3.0), m_in=0.0, m_out=1.0, weight=9.0)
    assert calm.item() == pytest.approx(math.log(2)), "points on the right side of both margins cost nothing"


@given(sizes)
def test_energy_loss_sees_the_free_energy_that_the_score_gives(size):
    _, n, k, seed = size
    z_in, z_out, y = logits(n, k, seed=seed), logits(n + 1, k, seed=seed + 1), torch.arange(n) % k
    hinges = F.relu(scores.energy(z_in) + 2).square().mean() + F.relu(1 - scores.energy(z_out)).square().mean()
    torch.testing.assert_close(energy_loss(z_in, y, z_out, -2.0, 1.0), F.cross_entropy(z_in, y) + 0.1 * hinges)


@given(sizes)
def test_ceda_counts_the_surest_class(size):
    _, n, k, seed = size
    z_in, z_out, y = logits(n, k, seed=seed), logits(n + 1, k, seed=seed + 1), torch.arange(n) % k
    surest = torch.tensor([float(row.softmax(0).max()) for row in z_out], dtype=z_in.dtype).log().mean()
    torch.testing.assert_close(ceda_loss(z_in, y, z_out, weight=2.0), F.cross_entropy(z_in, y) + 2 * surest)
    assert -math.log(k) <= _max_log_probability(z_out) <= 0
    torch.testing.assert_close(_max_log_probability(torch.full((n, k), 7.0)), torch.tensor(-math.log(k)))


@given(sizes)
def test_leading_axes_pass_through_the_other_losses(size):
    e, n, k, seed = size
    z_in, z_out, y = logits(e, n, k, seed=seed), logits(e, n + 1, k, seed=seed + 1), torch.arange(n) % k
    for loss in (energy_loss, ceda_loss):
        expected = torch.stack([loss(z_in[i], y, z_out[i]) for i in range(e)])
        torch.testing.assert_close(loss(z_in, y, z_out), expected)


def test_one_each_gives_every_network_its_own_loss():
    z_in, z_out, y = logits(2, 5, 3), logits(2, 4, 3, seed=1), torch.arange(5) % 2
    found = one_each(z_in, y.expand(2, -1), z_out, losses=[ceda_loss, reject_loss])
    torch.testing.assert_close(found, torch.stack([ceda_loss(z_in[0], y, z_out[0]), reject_loss(z_in[1], y, z_out[1])]))


# ---- ACET: the search ----


def networks(count=3, n_classes=3):
    return [mlp(width=8, n_classes=n_classes, generator=torch.Generator().manual_seed(e)).double() for e in range(count)]


@given(st.integers(0, 2**31), st.floats(0.01, 20), st.integers(1, 6))
def test_the_worst_point_is_in_the_ball_and_no_less_sure(seed, radius, steps):
    x = logits(7, 2, seed=seed)
    for network in (networks()[0], Stack(networks())):
        worst = worst_in_ball(network, x, radius, steps)
        assert worst.shape == (*network(x).shape[:-1], 2) and not worst.requires_grad
        assert ((worst - x).norm(dim=-1) <= radius * (1 + 1e-9)).all()
        odds = scores.max_softmax_log_odds(network(worst) if isinstance(network, torch.nn.Module) else own(network, worst))
        assert (odds >= scores.max_softmax_log_odds(network(x)) - 1e-9).all()


def own(stack, x):
    """Logits of every network at its own points [E, n, d]."""
    return torch.stack([model(points) for model, points in zip(stack.models, x, strict=True)])


def test_a_linear_network_is_surest_at_the_edge_that_its_slope_points_to():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2)).double()
    network[0].weight.data = torch.tensor([[30.0, 40.0], [0.0, 0.0]], dtype=torch.float64)
    network[0].bias.data.zero_()
    x = torch.tensor([[1.0, 1.0], [-1.0, -2.0], [100.0, 100.0]], dtype=torch.float64)  # the last is sure beyond rounding
    step = torch.tensor([[0.6, 0.8], [-0.6, -0.8], [0.6, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(worst_in_ball(network, x, 0.5), x + 0.5 * step)


def test_a_stack_finds_what_each_network_finds_alone():
    x, alone = logits(6, 2), networks()
    expected = torch.stack([worst_in_ball(network, x, 2.0) for network in alone])
    torch.testing.assert_close(worst_in_ball(Stack(networks()), x, 2.0), expected)


def test_a_first_layer_that_works_in_place_leaves_the_points_alone():
    first, x = networks()[0], logits(6, 2)
    plain = torch.nn.Sequential(torch.nn.ReLU(), *first)
    in_place = torch.nn.Sequential(torch.nn.ReLU(inplace=True), *first)
    kept = x.clone()
    torch.testing.assert_close(worst_in_ball(in_place, x, 2.0), worst_in_ball(plain, x, 2.0))
    assert torch.equal(x, kept)


def test_acet_penalises_the_worst_points_of_fresh_noise():
    def ood(n, *, generator):
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    stack = Stack(networks())
    penalty = acet_penalty(ood, 0.7, steps=3, generator=torch.Generator().manual_seed(5))
    random = torch.Generator().manual_seed(5)
    for _ in range(2):
        found = penalty(stack, torch.zeros(9, 2))
        worst = worst_in_ball(stack, ood(9, generator=random), 0.7, 3)
        torch.testing.assert_close(found, _max_log_probability(own(stack, worst)))
        found.sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in stack.parameters())


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
        (lambda: energy_loss(Z, Y, Z, m_in=1.0, m_out=1.0), "m_in must be less than m_out; got 1.0 and 1.0"),
        (lambda: energy_loss(Z, Y, Z, weight=-1.0), "weight must be a number of at least 0; got -1.0"),
        (lambda: energy_loss(Z, Y, None), "logits_out must be a float tensor"),
        (lambda: ceda_loss(Z, Y, Z, weight=math.nan), "weight must be a number of at least 0; got nan"),
        (lambda: worst_in_ball(networks()[0], Z, 0.0), "radius must be a positive number; got 0.0"),
        (lambda: worst_in_ball(networks()[0], Z, 1.0, steps=0), "steps must be a whole number of at least 1; got 0"),
        (lambda: one_each(Z[None], Y, Z[None], losses=[]), "losses must be E for logits"),
    ],
)
def test_bad_input_says_what_is_wrong(call, says):
    with pytest.raises(ValueError, match=says):
        call()
