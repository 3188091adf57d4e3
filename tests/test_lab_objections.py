"""Why not just …? Each method against its definition, and the rows."""

import math

import numpy as np
import pytest
import torch
from small_networks import build, random_network
from torch import nn

from ood_helpers import polytopes
from ood_helpers.lab import objections
from ood_helpers.lab.objections import SETTINGS, ObjectionSetting, _dropped, _known_patterns, certain, detector, run, train_seeds
from ood_helpers.lab.stored import load, save

SHORT = {"width": 8, "steps": 6}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0, sizes=(2, 6, 5, 2)):
    return random_network(np.random.default_rng(seed), sizes)


@pytest.mark.parametrize(
    "method",
    ["plain", "spectral_norm", "ensemble", "dropout", "laplace", "compact", "patterns", "closed_quadratic_reject", "silent_knn"],
)
def test_rows_have_their_columns_can_be_stored_and_a_seed_gets_what_it_gets_alone(method, tmp_path):
    setting = ObjectionSetting(method, "overlap", **SHORT)
    rows, (alone,) = run(setting, [3, 5]), run(setting, [5])
    assert [row["seed"] for row in rows] == [3, 5] and all(tuple(row) == setting.columns for row in rows)
    for name in setting.columns[2:]:
        assert rows[1][name] == pytest.approx(alone[name], abs=5e-3, nan_ok=True), name
    save(tmp_path / "rows.csv", setting, rows)
    stored = load(tmp_path / "rows.csv", setting)
    assert [list(map(str, row.values())) for row in stored] == [list(map(str, row.values())) for row in rows]


def test_names_say_what_the_settings_are():
    for name, setting in SETTINGS.items():
        assert name == f"why_{setting.shape}_{setting.method}" and setting.work > 0


@pytest.mark.parametrize("arguments", [{"method": "wishes"}, {"shape": "square"}, {"width": 0}, {"steps": 0}])
def test_bad_fields_are_named(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        ObjectionSetting(**{"method": "plain"} | arguments)


def test_losses_are_torch_s_own():
    logits, y = torch.randn(3, 20, 4, generator=seeded()), torch.randint(4, (3, 20), generator=seeded(1))
    for loss, expected in [
        (objections._smoothed, lambda z, y: nn.functional.cross_entropy(z, y, label_smoothing=0.1)),
        (
            objections._one_against_rest,
            lambda z, y: 4 * nn.functional.binary_cross_entropy_with_logits(z, nn.functional.one_hot(y, 4).float()),
        ),
    ]:
        alone = torch.stack([expected(z, labels) for z, labels in zip(logits, y, strict=True)])
        torch.testing.assert_close(loss(logits, y, logits), alone)
        torch.testing.assert_close(loss(logits[0], y[0], logits[0]), alone[0])


def test_spectral_norms_are_kept():
    networks, _ = train_seeds(ObjectionSetting("spectral_norm", width=30, steps=200, lr=1e-2), [0, 1])
    norms = torch.stack([torch.linalg.matrix_norm(network[i].weight, 2) for network in networks for i in (0, 2, 4)])
    assert norms.max() < 1 + 1e-4 and norms.max() > 0.99


def test_weight_decay_and_pinned_biases_do_what_they_say():
    sizes = []
    for method in ("plain", "weight_decay"):
        networks, _ = train_seeds(ObjectionSetting(method, width=30, steps=400, lr=1e-2), [0])
        sizes.append(sum(network[i].weight.square().sum().item() for network in networks for i in (0, 2, 4)))
    assert sizes[1] < sizes[0]
    (network,), _ = train_seeds(ObjectionSetting("silent_pinned", **SHORT), [0])
    assert (network[-1].bias == 0).all()


def test_dropout_drops_and_keeps_the_mean():
    network = build([[[1.0]] * 4000, [[1.0] * 4000]], [[0.0] * 4000, [0.0]])
    x = torch.ones(3, 1, dtype=torch.float64)
    own, same = _dropped(network, x, seeded()), _dropped(network, x[None], seeded())[0]
    assert len(own.unique()) == 3 and len(same.unique()) == 1
    torch.testing.assert_close(own, 4000 * torch.ones(3, 1, dtype=torch.float64), rtol=0.05, atol=0)
    assert not torch.equal(own[0], network(x[:1])[0])


def test_laplace_is_its_formula_and_stays_below_one():
    network, x = small(), 3 * torch.randn(200, 2, generator=seeded(), dtype=torch.float64)
    phi = torch.cat([network[:-1](x), torch.ones(200, 1)], 1).detach()
    w = torch.cat([network[-1].weight[1] - network[-1].weight[0], (network[-1].bias[1] - network[-1].bias[0])[None]]).detach()
    y = (phi @ w > 0).double()
    loss = lambda w: nn.functional.binary_cross_entropy_with_logits(phi @ w, y, reduction="sum") + 0.5 * w @ w  # noqa: E731
    covariance = torch.linalg.inv(torch.autograd.functional.hessian(loss, w))
    with torch.no_grad():
        logits = objections.laplace(network, x)
        v = ((phi @ covariance) * phi).sum(1)
        torch.testing.assert_close(logits(x)[:, 1] - logits(x)[:, 0], phi @ w / (1 + math.pi / 8 * v).sqrt())
        u = nn.functional.normalize(x, dim=1)
        far = [logits(scale * u).softmax(1).amax(1) for scale in (1e6, 1e10)]
        assert far[1].max() < 1 - 1e-6
        torch.testing.assert_close(*far, rtol=0, atol=1e-3)


def test_distances_in_features_are_their_definitions():
    x, y = torch.randn(300, 2, generator=seeded(), dtype=torch.float64), torch.arange(300) % 2
    x[y == 1] *= torch.tensor([3.0, 0.5])
    far = torch.tensor([[9.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    same = nn.Identity()
    means = torch.stack([x[y == k].mean(0) for k in (0, 1)])
    inverse = torch.linalg.inv((x - means[y]).T @ (x - means[y]) / 300)
    expected = [min(float((p - mean) @ inverse @ (p - mean)) for mean in means) for p in far]
    torch.testing.assert_close(
        objections._mahalanobis(same, x, y)(far), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0
    )
    expected = [sorted((p - q).norm().item() for q in x)[9] for p in far]
    torch.testing.assert_close(objections._neighbour(same, x, y)(far), torch.tensor(expected, dtype=torch.float64))


def test_a_quadratic_reject_logit_wins_where_features_grow_and_only_there():
    """Features |x| far away; and constant ones, where the same logit stays what it is."""
    x = torch.linspace(-2, 2, 100, dtype=torch.float64)[:, None]
    out = torch.cat([x + 5, x - 5])
    y = (x[:, 0] > 0).long()
    grows = build([[[1], [-1]], [[-1, 1], [1, -1]]], [[0, 0], [0, 0]])
    logits = objections._quadratic_reject(grows, x, y, out)
    assert (logits(100 * out).softmax(1)[:, 2] > 0.999).all() and (logits(x).argmax(1) < 2).double().mean() > 0.9
    silent = build([[[-1], [1]], [[-1, -1]], [[1], [0]]], [[0, 0], [3], [0, 1]])  # constant beyond |x| = 3
    far = objections._quadratic_reject(silent, x, y, out)(1e6 * out)
    assert (far == far[0]).all()


def test_the_quadratic_logit_grows_even_where_the_data_would_have_it_fall():
    """OOD points in the middle, the classes outside: far away reject wins all the same."""
    out = torch.linspace(-1, 1, 100, dtype=torch.float64)[:, None]
    x = torch.cat([out - 4, out + 4])
    grows = build([[[1], [-1]], [[-1, 1], [1, -1]]], [[0, 0], [0, 0]])
    logits = objections._quadratic_reject(grows, x, (x[:, 0] > 0).long(), out)
    assert (logits(1e9 * x).argmax(1) == 2).all()


def test_small_norms_are_left_alone():
    network = build([[[0.5]], [[0.5]], [[3.0]]], [[0.0]] * 3)
    objections._keep_norms([network], 4, None)
    assert [network[i].weight.item() for i in (0, 2, 4)] == [0.5, 0.5, 1.0]


def test_temperature_leaves_the_order_and_an_ensemble_is_the_mean_of_probabilities():
    setting, x = ObjectionSetting("plain"), torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        plain, warm = detector(setting, [small()], 0)(x), detector(ObjectionSetting("temperature"), [small()], 0)(x)
        assert torch.equal(plain[0].argsort(), warm[0].argsort()) and torch.equal(plain[1], warm[1])
        networks = [small(s) for s in range(5)]
        mean = torch.stack([network(x).softmax(1) for network in networks]).mean(0)
        score, label, confidence = detector(ObjectionSetting("ensemble"), networks, 0)(x)
        torch.testing.assert_close(confidence, mean.amax(1))
        assert torch.equal(label, mean.argmax(1)) and torch.equal(score.argsort(), confidence.argsort())


def test_the_share_of_directions_that_become_certain_is_exact():
    """Three half planes x > 0, y > 0, x > 0 for class 0: all agree in half of the directions."""

    def half_plane(a, b):
        return build([[[a, b], [-a, -b]], [[1, 0], [0, 1]], [[1, 0], [0, 1]]], [[0, 0], [0, 0], [0, 0]])

    networks = [half_plane(1, 0), half_plane(0, 1), half_plane(1, 0)]
    assert certain(ObjectionSetting("ensemble"), networks) == pytest.approx(0.5, abs=1e-12)
    assert certain(ObjectionSetting("plain"), networks[:1]) == pytest.approx(1, abs=1e-12)
    assert math.isnan(certain(ObjectionSetting("laplace"), networks[:1]))
    tied = build([[[1.0, 0.0]], [[0.0], [0.0]]], [[0.0], [0.0, 1.0]])
    assert certain(ObjectionSetting("closed"), [tied]) == 0
    random = [small(s, (2, 12, 9, 3)) for s in range(3)]
    angle = np.linspace(0, 2 * np.pi, 20001)[:-1]
    winners = [polytopes.directions(network, np.stack([np.cos(angle), np.sin(angle)], 1)) for network in random]
    agreed = np.all([(w == winners[0][0]) & ~tie for w, tie in winners], axis=0)
    assert certain(ObjectionSetting("ensemble"), random) == pytest.approx(agreed.mean(), abs=1e-3)


def test_patterns_are_compared_neuron_by_neuron():
    network = build([[[1, 0], [0, 1]], [[1, 0], [0, 1]], [[1, 1]]], [[0, 0], [-1, -1], [0]])
    x = torch.tensor([[2.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    far = torch.tensor([[1e8, 1e8], [1e8, -1e8], [-1e8, -1e8], [0.5, -1e8]], dtype=torch.float64)
    assert _known_patterns(network, x, far) == 0.5


def test_a_compact_neuron_is_linear_at_first_and_then_active_in_a_ball_only():
    layer = objections._Compact(nn.Linear(3, 4, dtype=torch.float64), 5.0)
    h = torch.randn(200, 3, generator=seeded(), dtype=torch.float64)
    assert torch.equal(layer(h), layer.linear(h))
    layer.shape = 0.4
    with torch.no_grad():
        centre = layer.linear.weight / 0.4
        top = layer.linear.bias + 0.2 * 5 + 0.2 * centre.square().sum(1)
        torch.testing.assert_close(layer(h), top - 0.2 * torch.cdist(h, centre).square())
        assert (layer(1e3 * nn.functional.normalize(h, dim=1)) < 0).all()


def test_only_known_patterns_keep_their_confidence():
    setting, network = ObjectionSetting("patterns", "overlap"), small()
    x = setting.world.sample(2000, generator=seeded(9))[0].double()
    with torch.no_grad():
        score, _, confidence = detector(setting, [network], 0)(x)
        plain = detector(ObjectionSetting("plain", "overlap"), [network], 0)(x)
    new = confidence == 0.5
    assert 0 < new.double().mean() < 1 and torch.equal(score[~new], plain[0][~new]) and (score[new] == 0).all()
