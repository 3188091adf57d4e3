"""Reading a torch network: the same function in float64, or an error that names the layer."""

import numpy as np
import pytest
import torch
from small_networks import build, random_network, without_biases
from torch import nn

from ood_helpers.polytopes import read


def test_it_computes_what_the_module_computes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 7, bias=False), nn.LeakyReLU(0.3), nn.Linear(7, 4)).double()
    network = read(model)
    assert (network.in_dim, network.n_classes, network.leaks) == (3, 4, [0.0, 0.3])
    assert all(part.dtype == np.float64 for part in network.weights + network.biases)
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(network(x), model(x), rtol=1e-12, atol=1e-14)


def test_single_precision_weights_are_read_as_they_are():
    model = nn.Sequential(nn.Linear(2, 3))
    network = read(model)
    assert (network.weights[0] == model[0].weight.detach().numpy()).all() and network.leaks == []


def test_reading_does_not_touch_the_model():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    before = [p.clone() for p in model.parameters()]
    network = read(model)
    network(np.ones((4, 2)))
    network.leaders(np.ones((4, 2)))
    assert all((a == b).all() and b.requires_grad for a, b in zip(before, model.parameters(), strict=True))


def test_training_on_does_not_change_what_was_read():
    model = nn.Sequential(nn.Linear(2, 3)).double()
    network = read(model)
    before = network.weights[0].copy()
    model[0].weight.data += 1
    assert (network.weights[0] == before).all()


def test_restricted_is_the_network_on_a_flat():
    rng = np.random.default_rng(0)
    network, origin, axes = read(random_network(rng, (6, 10, 3))), rng.normal(size=6), rng.normal(size=(2, 6))
    s = rng.normal(size=(20, 2))
    np.testing.assert_allclose(network.restricted(origin, axes)(s), network(origin + s @ axes), atol=1e-12)


def test_leaders_are_the_argmax_of_the_network_without_biases():
    rng = np.random.default_rng(1)
    model = random_network(rng, (4, 20, 20, 5))
    u = rng.normal(size=(200, 4))
    leaders = read(model).leaders(u)
    assert (leaders.sum(axis=1) == 1).all()
    assert (leaders.argmax(axis=1) == read(without_biases(model))(u).argmax(axis=1)).all()
    assert (leaders == read(model).leaders(1e5 * u)).all()


def test_leaders_name_every_tied_class():
    """Classes 0 and 2 grow like relu(x), class 1 like relu(-x): x = 0 and the sums that only rounding separates are ties."""
    model = build([[[1, 0], [-1, 0]], [[1, 0], [0, 1], [1, 0]]], [[9, 9], [0, 5, 0]])
    leaders = read(model).leaders([[2, 1], [-2, 1], [0, 1]])
    assert leaders.tolist() == [[True, False, True], [False, True, False], [True, True, True]]
    tenths = build([[[0.1, 0.2, 0.0], [0.0, 0.0, 0.3]]], [[0, 0]])  # 0.1 + 0.2 is not 0.3 in floats
    assert read(tenths).leaders([[1, 1, 1]]).all()


@pytest.mark.parametrize(
    "layers, message",
    [
        ([nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2)], r"layer 1 \(Sigmoid\): expected a ReLU or LeakyReLU"),
        ([nn.Linear(2, 3), nn.Linear(3, 2)], r"layer 1 \(Linear\): expected a ReLU or LeakyReLU"),
        ([nn.Linear(2, 3), nn.ReLU(), nn.ReLU(), nn.Linear(3, 2)], r"layer 2 \(ReLU\): expected a Linear"),
        ([nn.Flatten(), nn.Linear(2, 3)], r"layer 0 \(Flatten\): expected a Linear"),
        ([nn.Linear(2, 3), nn.ReLU()], r"layer 1 \(ReLU\): the last layer must be a Linear"),
        ([nn.Linear(2, 3), nn.ReLU(), nn.Linear(4, 2)], r"layer 2 \(Linear\): takes 4 inputs but the layer before it gives 3"),
        ([nn.Linear(2, 3), nn.LeakyReLU(float("nan")), nn.Linear(3, 2)], r"layer 1 \(LeakyReLU\): negative_slope"),
        ([], "non-empty nn.Sequential"),
    ],
)
def test_other_networks_are_refused_by_layer(layers, message):
    with pytest.raises(ValueError, match=message):
        read(nn.Sequential(*layers))


@pytest.mark.parametrize("part", ["weight", "bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(part, value):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    getattr(model[2], part).data.view(-1)[0] = value
    with pytest.raises(ValueError, match=r"layer 2 \(Linear\).*NaN or infinity"):
        read(model)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), "a string", None])
def test_anything_but_a_sequential_is_refused(model):
    with pytest.raises(ValueError, match=r"model must be a non-empty nn\.Sequential"):
        read(model)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_empty_layer_is_refused():
    with pytest.raises(ValueError, match=r"layer 0 \(Linear\): has 2 inputs and 0 outputs"):
        read(nn.Sequential(nn.Linear(2, 0), nn.ReLU(), nn.Linear(0, 2)))
