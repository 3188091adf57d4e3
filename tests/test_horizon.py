"""Losses at infinity: f0 is the network far away, hand-made networks have the known losses, and training ends certified."""

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import build, random_network, without_biases
from torch import nn
from torch.nn.utils import prune

from ood_helpers.data import TwoGaussians
from ood_helpers.horizon import (
    f0,
    far_field_loss,
    silent_horizon_loss,
    slope_spread_loss,
    unit_directions,
)
from ood_helpers.losses import confidence_loss, reject_loss
from ood_helpers.models import Stack, mlp
from ood_helpers.polytopes import infinity, silent_certificate

LOSSES = (far_field_loss, slope_spread_loss, silent_horizon_loss)
DIAMOND = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
UNTILTED = [[1, 0], [-1, 0], [0, 1], [0, -1]]  # four neurons: their sum is |x1| + |x2|, and one is active in each direction


def directions(n=64, dim=2, seed=0):
    return unit_directions(n, dim, generator=torch.Generator().manual_seed(seed))


def silent_network(offset=0.5):
    """Two hidden layers; the second is 1 − 0.25 (|x1| + |x2|): open near 0, shut far out. Logits (hidden, offset)."""
    return build([UNTILTED, [[-0.25] * 4], [[1], [0]]], [[0] * 4, [1], [0, offset]])


def reject_wins(weight=1.0):
    """Reject, the last of three logits, is weight (|x1| + |x2|); the classes have slope 0 in every direction."""
    return build([UNTILTED, [[0] * 4, [0] * 4, [weight] * 4]], [[0] * 4, [3, 3, -5]])


def clipped_ramp():
    """One hidden layer: relu(x1 + 1) − relu(x1 − 1) is bounded, and 0 at infinity since the two neurons cancel there."""
    return build([[[1, 0], [1, 0]], [[1, -1], [0, 0]]], [[1, -1], [0, 1]])


# f0 -----------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.lists(st.integers(1, 6), min_size=2, max_size=5), st.sampled_from([0.0, 0.1]))
def test_f0_is_the_network_without_its_biases_and_what_it_is_far_away(seed, sizes, leak):
    model = random_network(np.random.default_rng(seed), sizes, leak)
    u = directions(20, sizes[0], seed).double()
    torch.testing.assert_close(f0(model, u), without_biases(model)(u))
    torch.testing.assert_close(model(1e9 * u) / 1e9, f0(model, u), rtol=0, atol=1e-6)


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_f0_is_positively_homogeneous(seed, alpha):
    model = random_network(np.random.default_rng(seed), (3, 5, 4, 2))
    u = directions(10, 3, seed).double()
    torch.testing.assert_close(f0(model, alpha * u), alpha * f0(model, u))


def test_f0_has_the_slopes_that_infinity_finds():
    model = random_network(np.random.default_rng(0), (2, 20, 20, 3))
    result = infinity(model)
    angle = torch.as_tensor(result.start + result.width / 2)
    u = torch.stack([angle.cos(), angle.sin()], 1)
    torch.testing.assert_close(f0(model, u), (torch.as_tensor(result.slopes) @ u[:, :, None]).squeeze(2))
    assert (f0(model, u).argmax(1).numpy() == result.winner).all()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_stack_gives_every_network_its_own_f0_and_losses(depth):
    models = [mlp(3, 8, 4, depth, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    u = directions(16, 3)
    stack = Stack(models)
    torch.testing.assert_close(f0(stack, u), torch.stack([f0(model, u) for model in models]))
    for loss in LOSSES if depth else LOSSES[:2]:
        assert loss(models[0], u).shape == () and loss(stack, u).shape == (3,)
        torch.testing.assert_close(loss(stack, u), torch.stack([loss(model, u) for model in models]))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_reach_the_weights_and_never_the_biases(loss):
    stack = Stack([mlp(2, 8, 3, 2, generator=torch.Generator().manual_seed(s)) for s in range(2)])
    loss(stack, directions()).sum().backward()
    assert all(bias.grad is None for bias in stack.biases)
    assert all(weight.grad.abs().sum((1, 2)).gt(0).all() for weight in stack.weights[:-1])


@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 2**31))
def test_unit_directions_have_length_one_and_follow_the_generator(n, dim, seed):
    u = directions(n, dim, seed)
    assert u.shape == (n, dim)
    torch.testing.assert_close(u.norm(dim=1), torch.ones(n))
    assert torch.equal(u, directions(n, dim, seed))


def test_unit_directions_look_everywhere_alike():
    angle = torch.atan2(*directions(20_000).T)
    assert np.allclose(np.histogram(angle, 8, (-np.pi, np.pi))[0], 2500, atol=250)


# Known answers ------------------------------------------------------------------------------------------------------------


def test_far_field_loss_by_hand():
    # in the four directions of the diamond the slopes are (0, 0, 1), times the radius 10: log(1 + 2 exp(−10))
    assert far_field_loss(reject_wins(), DIAMOND).item() == pytest.approx(np.log1p(2 * np.exp(-10)))
    assert far_field_loss(reject_wins(), DIAMOND, radius=2.0).item() == pytest.approx(np.log1p(2 * np.exp(-2)))
    # the other way round the classes win, and the loss is the lead plus log(2 + exp(−10))
    assert far_field_loss(reject_wins(-1.0), DIAMOND).item() == pytest.approx(10 + np.log(2 + np.exp(-10)))
    assert infinity(reject_wins()).shares().tolist() == pytest.approx([0, 0, 1])


def test_slope_spread_loss_by_hand():
    # slopes (0, 0, 1): their mean is 1/3, and (1/9 + 1/9 + 4/9) / 3 = 2/9
    assert slope_spread_loss(reject_wins(), DIAMOND).item() == pytest.approx(2 / 9)
    assert slope_spread_loss(reject_wins(), 3 * DIAMOND).item() == pytest.approx(2)
    assert slope_spread_loss(reject_wins(0.0), DIAMOND).item() == 0


def test_a_network_can_be_silent_in_all_directions():
    u = directions(1000).double()
    model, result = silent_network(), infinity(silent_network())
    # |u1| + |u2| is at least 1, so z0 is at most −0.25 everywhere on the circle
    assert slope_spread_loss(model, u).item() == 0 and silent_horizon_loss(model, u, margin=0.25).item() == 0
    assert silent_horizon_loss(model, DIAMOND, margin=0.35).item() == pytest.approx(0.1)
    assert result.tie_share == 1 and (result.slopes == 0).all()
    assert result.limit_confidence() == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert model(torch.zeros(1, 2).double())[0, 0] == 1  # and yet it is not constant


def test_silent_horizon_loss_by_hand():
    """The sum over two neurons of relu(z0 + margin), and its mean over directions that all differ."""
    model = build([UNTILTED, [[1, 0, 0, 0], [0, 0, 0.5, -1]], [[1, 0], [0, 1]]], [[9] * 4, [9] * 2, [9] * 2])
    # z0 = (1, 0), (0, 0.5), (0, 0), (0, −1), which is relu(x1), 0.5 relu(x2) − relu(−x2); plus 0.5: 2, 1.5, 1, 0.5 are the sums
    assert silent_horizon_loss(model, DIAMOND, margin=0.5).item() == pytest.approx((2 + 1.5 + 1 + 0.5) / 4)
    assert silent_horizon_loss(model, DIAMOND[:2], margin=0.5).item() == pytest.approx(1.75)


@pytest.mark.parametrize("leak", [0.0, 0.2])
@pytest.mark.parametrize("stacked", [False, True])
def test_activations_that_work_in_place_change_no_loss(leak, stacked):
    plain = random_network(np.random.default_rng(0), (2, 6, 6, 3), leak)
    in_place = copy.deepcopy(plain)
    for activation in in_place[1::2]:
        activation.inplace = True
    u = directions().double()
    kept = u.clone()
    for loss in (f0, *LOSSES[: 3 if leak == 0 else 2]):
        networks = [Stack([copy.deepcopy(m)]) if stacked else m for m in (plain, in_place)]
        torch.testing.assert_close(loss(networks[1], u), loss(networks[0], u))
        slopes = [torch.autograd.grad(loss(n, u).sum(), n.weights[0] if stacked else n[0].weight)[0] for n in networks]
        torch.testing.assert_close(slopes[1], slopes[0])
    assert torch.equal(u, kept)


def test_silence_survives_small_changes_of_the_weights():
    model, g = silent_network(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * (2 * torch.rand(parameter.shape, generator=g, dtype=torch.float64) - 1)
    assert infinity(model).tie_share == 1
    # neurons that cancel do not: with one hidden layer the same change leaves a winner almost everywhere
    model = clipped_ramp()
    assert infinity(model).tie_share == 1
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-6
    assert infinity(model).tie_share == pytest.approx(0.5)  # only where both neurons are off, x1 < 0


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 5))
def test_one_hidden_layer_is_never_silent(seed, width, dim):
    model = random_network(np.random.default_rng(seed), (dim, width, 2))
    own = nn.functional.normalize(model[0].weight.detach(), dim=1)  # each neuron is active in its own direction
    norms = model[0].weight.detach().norm(dim=1)
    assert silent_horizon_loss(model, own, margin=1e-3).item() >= norms.sum().item() / width


@given(st.integers(0, 2**31), st.sampled_from([(2, 5, 2), (2, 6, 6, 3), (3, 4, 4, 4, 2)]))
def test_losses_are_never_negative(seed, sizes):
    model, u = random_network(np.random.default_rng(seed), sizes), directions(30, sizes[0], seed).double()
    assert all(loss(model, u) >= 0 for loss in LOSSES)


@given(st.integers(0, 2**31), st.sampled_from([(2, 6, 6, 3), (3, 4, 4, 4, 2)]))
def test_a_silent_layer_leaves_no_slope(seed, sizes):
    model, u = random_network(np.random.default_rng(seed), sizes), directions(30, sizes[0], seed).double()
    model[-3].weight.data = -model[-3].weight.data.abs()  # the last hidden layer now only falls with the neurons before it
    assert silent_horizon_loss(model, u, margin=1e-12) < 1e-9
    assert slope_spread_loss(model, u) == 0


# Training -----------------------------------------------------------------------------------------------------------------


def train_at_infinity(models, loss, penalty, steps=600):
    """A plain loop: the loss at points plus the penalty at directions, for E networks at once."""
    world, g = TwoGaussians(), torch.Generator().manual_seed(0)
    stack = Stack(models)
    optimizer = torch.optim.Adam(stack.parameters(), lr=3e-3)
    for _ in range(steps):
        x, y = world.sample(64, generator=g)
        x_out, u = world.boundary(64, generator=g), unit_directions(64, 2, generator=g)
        losses = loss(stack(x), y, stack(x_out)) + penalty(stack, u)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    stack.release()
    return [infinity(model) for model in models]


def test_the_layer_loss_silences_the_confident_classifier_and_the_spread_only_flattens_it():
    models = [mlp(width=32, depth=3, generator=torch.Generator().manual_seed(0)) for _ in range(3)]
    layer, spread = torch.tensor([0.0, 0.0, 0.3]), torch.tensor([0.0, 10.0, 0.0])
    plain, flat, silent = train_at_infinity(
        models,
        functools.partial(confidence_loss, beta=1.0),
        lambda stack, u: layer * silent_horizon_loss(stack, u) + spread * slope_spread_loss(stack, u),
    )
    assert plain.tie_share == 0 and flat.tie_share == 0
    assert np.abs(flat.slopes).mean() < 0.5 * np.abs(plain.slopes).mean()
    assert silent.tie_share > 0.99 and silent.limit_confidence()[silent.tie].max() < 0.6
    x, y = TwoGaussians().sample(500, generator=torch.Generator().manual_seed(1))
    assert all((model(x).argmax(1) == y).float().mean() > 0.98 for model in models)


def test_the_far_field_loss_gives_reject_every_direction():
    models = [mlp(width=8, n_classes=3, generator=torch.Generator().manual_seed(s)) for s in (0, 1, 0, 1)]
    weight = torch.tensor([0.0, 0.0, 0.5, 0.5])
    results = train_at_infinity(models, reject_loss, lambda stack, u: weight * far_field_loss(stack, u))
    shares = [result.shares()[2] for result in results]
    assert min(shares[:2]) < 0.9 and min(shares[2:]) > 0.999


# The certificate ----------------------------------------------------------------------------------------------------------


def last_hidden(model, u):
    """z0 [n, width]: the last hidden layer's pre-activations of f0 at directions u."""
    return f0(model[:-2], torch.as_tensor(u)).detach().numpy()


def small_network(seed, dim, tilt):
    """Random weights of two hidden layers, the second moved by −tilt: the more, the likelier silent."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, (dim, int(rng.integers(2, 7)), int(rng.integers(1, 3)), 2))
    model[2].weight.data -= tilt
    return model


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 1.0]))
def test_in_the_plane_the_certificate_agrees_with_infinity(seed, tilt):
    model = small_network(seed, 2, tilt)
    verdict = silent_certificate(model).verdict
    assert verdict == "undecided" or (verdict == "silent") == bool((infinity(model).slopes == 0).all())


@given(st.integers(0, 2**31), st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.0]))
def test_what_the_certificate_says_is_true_of_directions(seed, dim, tilt):
    model = small_network(seed, dim, tilt)
    u = nn.functional.normalize(directions(3000, dim, seed).double(), dim=1)
    found, z = silent_certificate(model), last_hidden(model, u)
    assert (z <= found.bound + 1e-14).all()
    if found.verdict == "silent":
        assert z.max() <= 1e-14 and (dim <= 2 or found.ratio.max() <= 1) and found.direction is None
    if found.verdict == "active":
        assert last_hidden(model, found.direction[None]).max() > 0
        assert np.linalg.norm(found.direction) == pytest.approx(1)


@pytest.mark.parametrize("dim", [2, 3])
def test_both_answers_occur_and_few_cases_are_left_undecided(dim):
    verdicts = [silent_certificate(small_network(seed, dim, 0.5 * (seed % 3))).verdict for seed in range(90)]
    assert verdicts.count("silent") >= 30 and verdicts.count("active") >= 30 and verdicts.count("undecided") <= 3


@pytest.mark.parametrize("push, verdict", [(0.0, "silent"), (0.5, "silent"), (1.0, "silent"), (1.01, "active")])
@pytest.mark.parametrize("dim", [2, 5])
def test_a_load_worked_out_by_hand(push, verdict, dim):
    """z0 = push · relu(x1) − Σ |xi|: it takes push · |x1| / 2 twice, of the 2 · |x1| / 2 that neurons ±x1 pay."""
    axes = np.vstack([np.eye(dim), -np.eye(dim), np.eye(dim)[:1]])
    model = build([axes, [[-1.0] * (2 * dim) + [push]], [[1], [0]]], [None, None, None])
    found = silent_certificate(model)
    assert found.verdict == verdict and f"{verdict!r}" in repr(found)
    if verdict == "silent":
        assert found.ratio == pytest.approx([push], abs=1e-9)
        assert found.bound == pytest.approx([(push - 1)], abs=1e-9)  # reached at u = x1
    else:
        assert last_hidden(model, found.direction[None]) > 0


def test_the_linear_programme_decides_where_least_squares_do_not():
    """z0 = relu(x + y) − relu(x) − relu(y): each neuron pays a half of all that pushes up."""
    model = build([[[1, 1], [1, 0], [0, 1]], [[1, -1, -1]], [[1], [0]]], [None, None, None])
    assert silent_certificate(model).verdict == "silent" == silent_certificate(disguised(model)).verdict
    assert (infinity(model).slopes == 0).all()


def disguised(model):
    """The same after a turn of the inputs."""
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    return build([(model[0].weight @ turn).tolist(), model[2].weight.tolist(), model[4].weight.tolist()], [None, None, None])


def test_few_neurons_cannot_pay_in_many_dimensions():
    """Two neurons that push down are off in a direction where the third, which pushes up, is on."""
    model = build([np.eye(3), [[1, -9, -9]], [[1], [0]]], [None, None, None])
    found = silent_certificate(model)
    assert found.verdict == "active" and found.ratio == [np.inf] and found.bound >= last_hidden(model, found.direction[None])


def test_biases_and_the_output_layer_do_not_count():
    model, other = small_network(3, 3, 1.0), small_network(3, 3, 1.0)
    for layer in other[::2]:
        layer.bias.data += 100
    other[-1].weight.data *= -7
    assert (silent_certificate(model).ratio == silent_certificate(other).ratio).all()


@pytest.mark.parametrize("model", [mlp(width=4, depth=1), mlp(width=4, depth=3), mlp(width=4, activation="leaky_relu")])
def test_a_certificate_needs_two_layers_of_relu(model):
    with pytest.raises(ValueError, match="network must have two hidden layers of ReLU"):
        silent_certificate(model)


# Errors -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network, message",
    [
        (nn.Linear(2, 2), r"network must be a Stack or an nn.Sequential .*; got Linear"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "network must be a Stack or an nn.Sequential"),
        (nn.Sequential(nn.ReLU(), nn.Linear(2, 2), nn.ReLU()), r"layer 0 \(ReLU\): expected Linear"),
        (mlp(activation="sigmoid"), r"layer 1 \(Sigmoid\): must be ReLU or LeakyReLU"),
        (Stack([mlp(width=3, depth=3, activation="tanh")]), r"layer 1 \(Tanh\): must be ReLU or LeakyReLU"),
    ],
)
def test_a_network_whose_far_field_is_not_f0_is_refused(network, message):
    for loss in (f0, *LOSSES):
        with pytest.raises(ValueError, match=message):
            loss(network, directions())


class Doubled(nn.Linear):
    def forward(self, h):
        return 2 * super().forward(h)


class Shifted(nn.ReLU):
    def forward(self, h):
        return super().forward(h - 1)


def pruned(model):
    """Its weight is that of the last forward pass, and training moves another tensor."""
    prune.l1_unstructured(model[2], "weight", 0.5)
    return model


def hooked(model):
    model[1].register_forward_hook(lambda module, x, y: 2 * y)
    return model


@pytest.mark.parametrize(
    "network, message",
    [
        (pruned(mlp(width=4)), r"layer 2 \(Linear\): has hooks"),
        (hooked(mlp(width=4)), r"layer 1 \(ReLU\): has hooks"),
        (nn.Sequential(Doubled(2, 3), nn.ReLU(), nn.Linear(3, 2)), r"layer 0 \(Doubled\).* a forward of its own"),
        (nn.Sequential(nn.Linear(2, 3), Shifted(), nn.Linear(3, 2)), r"layer 1 \(Shifted\).* a forward of its own"),
    ],
)
def test_a_network_that_runs_otherwise_than_its_weights_say_is_refused(network, message):
    for loss in (f0, *LOSSES):
        with pytest.raises(ValueError, match=message):
            loss(network, directions())


def test_a_parametrised_network_is_seen_as_it_runs():
    model = random_network(np.random.default_rng(0), (2, 6, 6, 3), bias=False)
    nn.utils.parametrizations.weight_norm(model[2])
    with torch.no_grad():
        model[2].parametrizations.weight.original0 *= 2
    u = directions().double()
    torch.testing.assert_close(f0(model, u), model(u))


@pytest.mark.parametrize(
    "u", [torch.ones(2), torch.ones(4, 3), torch.ones(3, 4, 2), torch.ones(4, 2, dtype=torch.int64), [[1, 0]]]
)
def test_directions_of_the_wrong_shape_are_refused(u):
    with pytest.raises(ValueError, match=r"u must be a float tensor of shape \[n, 2\]"):
        f0(mlp(width=4), u)


def test_numbers_that_are_not_allowed_are_named():
    for wrong in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"radius must be a positive number; got {wrong}"):
            far_field_loss(mlp(width=4), directions(), radius=wrong)
        with pytest.raises(ValueError, match=f"margin must be a positive number; got {wrong}"):
            silent_horizon_loss(mlp(width=4), directions(), margin=wrong)
    for name, wrong in [("n", 0), ("dim", 2.0)]:
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            unit_directions(**({"n": 3, "dim": 2} | {name: wrong}), generator=torch.Generator())
    with pytest.raises(ValueError, match="at least 2 outputs"):
        far_field_loss(mlp(n_classes=1), directions())


@pytest.mark.parametrize("network, got", [(mlp(depth=0), "no hidden layer"), (mlp(activation="leaky_relu"), "LeakyReLU")])
def test_what_cannot_be_silent_is_refused(network, got):
    with pytest.raises(ValueError, match=f"last hidden layer of ReLU.*got {got}"):
        silent_horizon_loss(network, directions())


# Networks of other layers -------------------------------------------------------------------------------------------------


def layered():
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6)), nn.ReLU(), nn.Dropout(), nn.Linear(6, 5, bias=False),
        nn.Identity(), nn.Linear(5, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)).double()  # fmt: skip
    model[0][2].running_mean.normal_(), model[0][2].running_var.uniform_(0.5, 2), model[0][2].weight.data.normal_()
    return model.eval()


def pictures():
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1), nn.AvgPool2d(2), nn.Conv2d(3, 2, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(2, 3)).double().eval()  # fmt: skip


@pytest.mark.parametrize("model, shape", [(layered(), (2, 2)), (layered(), (4,)), (pictures(), (1, 4, 4))])
def test_f0_passes_affine_layers_of_all_kinds(model, shape):
    u = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(model(1e9 * u) / 1e9, f0(model, u), rtol=0, atol=1e-6)
    assert slope_spread_loss(model, u) > 0
    silent_horizon_loss(model, u).backward()
    assert next(model.parameters()).grad.any()


def test_layers_that_train_mode_changes_are_refused():
    with pytest.raises(ValueError, match=r"layer 0.2 \(BatchNorm1d\): is not affine in train mode; call model.eval\(\) first"):
        f0(layered().train(), directions(dim=4))


def test_a_certificate_sees_through_affine_layers():
    model = silent_network()
    longer = nn.Sequential(nn.Flatten(), *model[:2], nn.Dropout(), nn.Sequential(model[2], nn.Identity()), *model[3:]).eval()
    assert (silent_certificate(longer).bound == silent_certificate(model).bound).all()
