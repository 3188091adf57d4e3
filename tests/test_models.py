"""Networks and stacks of networks."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ood_helpers.models import ACTIVATIONS, Stack, discriminator, generator, mlp


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_default_is_the_papers_classifier():
    model = mlp()
    sizes = [(layer.in_features, layer.out_features) for layer in model if isinstance(layer, nn.Linear)]
    assert sizes == [(2, 500), (500, 500), (500, 2)]
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


def test_torch_initialisation_is_torchs_own():
    model = mlp(3, 7, 4, generator=seeded(5))
    torch.manual_seed(5)
    plain = nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 7), nn.ReLU(), nn.Linear(7, 4))
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_glorot_initialisation_has_its_bound_and_no_biases():
    model = mlp(2, 300, 3, init="glorot", generator=seeded())
    bound = (6 / 600) ** 0.5
    assert 0.99 * bound < model[2].weight.abs().max() <= bound
    assert all((layer.bias == 0).all() for layer in model[::2])


@settings(max_examples=30)
@given(
    st.integers(1, 6),
    st.integers(1, 20),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.integers(1, 4),
)
def test_a_stack_computes_what_its_networks_compute(d, width, n_classes, depth, activation, count):
    models = [mlp(d, width, n_classes, depth, activation, generator=seeded(s)) for s in range(count)]
    shared, own = torch.randn(9, d, generator=seeded()), torch.randn(count, 9, d, generator=seeded())
    separate = torch.stack([m(shared) for m in models]), torch.stack([m(x) for m, x in zip(models, own, strict=True)])
    stack = Stack(models)
    for x, expected in zip((shared, own), separate, strict=True):
        assert stack(x).shape == (count, 9, n_classes)
        torch.testing.assert_close(stack(x), expected)


def test_networks_are_views_into_the_stack_until_released():
    models = [mlp(2, 4, generator=seeded(s)) for s in range(2)]
    stack = Stack(models)
    with torch.no_grad():
        stack.weights[0][1] += 1
    torch.testing.assert_close(models[1][0].weight.T, stack.weights[0][1])
    stack.release()
    with torch.no_grad():
        stack.weights[0][1] += 1
    torch.testing.assert_close(models[1][0].weight.T + 1, stack.weights[0][1])
    assert models[1][0].weight.is_contiguous()


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"width": 0}, "width must be a whole number of at least 1; got 0"),
        ({"in_dim": 0}, "in_dim must be"),
        ({"n_classes": 1.5}, "n_classes must be"),
        ({"depth": -1}, "depth must be a whole number of at least 0; got -1"),
        ({"activation": "swish"}, "activation must be one of relu"),
        ({"init": "zeros"}, "init must be"),
    ],
)
def test_bad_architectures_say_what_is_wrong(arguments, says):
    with pytest.raises(ValueError, match=says):
        mlp(**arguments)


@pytest.mark.parametrize(
    "models, says",
    [
        ([mlp(width=4), mlp(width=5)], "same shape; network 0 is 2-4-4-2 .* but network 1 is 2-5-5-2"),
        ([mlp(width=4), mlp(width=4, activation="tanh")], r"ReLU\(\) but network 1 is .*Tanh"),
        ([nn.Linear(2, 2)], "network 0 must be an nn.Sequential"),
        ([nn.Sequential(nn.Linear(2, 3), nn.PReLU(), nn.Linear(3, 2))], "layer 1 .PReLU"),
        ([nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))], "must have a bias"),
    ],
)
def test_bad_stacks_name_the_network(models, says):
    with pytest.raises(ValueError, match=says):
        Stack(models)


def test_the_slope_of_leaky_relu():
    assert mlp(activation="leaky_relu")[1].negative_slope == 0.01
    assert mlp(activation="leaky_relu", slope=0.3)[1](torch.tensor(-2.0)) == pytest.approx(-0.6)
    with pytest.raises(ValueError, match="slope must be a number of at least 0; got -1"):
        mlp(activation="leaky_relu", slope=-1.0)


def test_generator_and_discriminator_are_the_published_ones():
    for model, inputs, outputs in [(generator(), 100, 2), (discriminator(), 2, 1)]:
        sizes = [(layer.in_features, layer.out_features) for layer in model[::2]]
        assert sizes == [(inputs, 256), (256, 256), (256, 256), (256, outputs)]
        assert [layer.negative_slope for layer in model[1::2]] == [0.2] * 3
    own = [generator(3, 5, 1, 4, init="glorot", generator=seeded(1)), discriminator(4, 5, 1, init="glorot", generator=seeded(1))]
    again = generator(3, 5, 1, 4, init="glorot", generator=seeded(1))
    assert [own[0](torch.ones(7, 3)).shape, own[1](torch.ones(7, 4)).shape] == [(7, 4), (7, 1)]
    assert torch.equal(own[0][0].weight, again[0].weight) and (own[1][0].bias == 0).all()


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: generator(noise_dim=0), "noise_dim must be a whole number of at least 1; got 0"),
        (lambda: generator(out_dim=0), "out_dim must be"),
        (lambda: generator(width=0), "width must be"),
        (lambda: discriminator(in_dim=0), "in_dim must be"),
        (lambda: discriminator(depth=-1), "depth must be"),
    ],
)
def test_bad_generators_and_discriminators_say_what_is_wrong(make, says):
    with pytest.raises(ValueError, match=says):
        make()
