"""Networks and stacks of networks."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn.utils import prune

from ood_helpers import models
from ood_helpers.gan import discriminator, generator
from ood_helpers.models import _ACTIVATIONS, Stack, mlp


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
    st.sampled_from(sorted(_ACTIVATIONS)),
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


# ---- what a stack cannot hold ----


class Sine(nn.Module):
    """An activation that torch does not have, fixed and without state."""

    def __init__(self, pitch=1.0):
        super().__init__()
        self.pitch = pitch

    def forward(self, h):
        return (self.pitch * h).sin()


class Counting(nn.Module):
    """An activation with a state."""

    calls = 0

    def forward(self, h):
        self.calls += 1
        return h * self.calls


class Louder(nn.Linear):
    def forward(self, h):
        return 2 * super().forward(h)


class Plain(nn.Sequential):
    """A subclass that changes nothing."""


class Shifted(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + 1


class Moody(nn.Module):
    def forward(self, h):
        return h.relu() if self.training else h


class Noise(nn.Module):
    def forward(self, h):
        return h.relu() + 0.01 * torch.randn(h.shape)


def small(seed=0, activation=None, kind=nn.Sequential):
    torch.manual_seed(seed)
    return kind(nn.Linear(2, 6), activation or nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))


def changed(change):
    model = small()
    return change(model) or model


def rebuilt(model, **layers):
    return nn.Sequential(*(layers.get(f"at_{i}", layer) for i, layer in enumerate(model)))


def assign(owner, **values):
    for name, value in values.items():
        setattr(owner, name, value)


WEIGHT = "layer 2 .*weight and a bias and nothing else; it holds .*parametrizations"
UNFIT = {  # what is done to a network, and what is said of it
    "parametrised: weight norm": (lambda m: only(nn.utils.parametrizations.weight_norm(m[2])), WEIGHT),
    "parametrised: orthogonal": (lambda m: only(nn.utils.parametrizations.orthogonal(m[2])), WEIGHT),
    "parametrised: spectral norm": (lambda m: only(nn.utils.parametrizations.spectral_norm(m[2])), WEIGHT),
    "pruned": (lambda m: only(prune.l1_unstructured(m[2], "weight", 0.5)), "layer 2 .Linear.: has hooks.*prune.remove"),
    "pruned bias": (lambda m: only(prune.random_unstructured(m[4], "bias", 0.5)), "layer 4 .Linear.: has hooks"),
    "old spectral norm": (lambda m: only(nn.utils.spectral_norm(m[2])), "layer 2 .Linear.: has hooks"),
    "tied weights": (
        lambda m: nn.Sequential(*m[:4], tied(m[2]), m[3], m[4]),
        "layer 4 .Linear., weight shares its numbers with network 0, layer 2 .Linear., weight",
    ),
    "tied by .data": (lambda m: assign(m[4].bias, data=m[2].bias.data[:2]), "shares its numbers with network 0, layer"),
    "a layer used twice": (lambda m: nn.Sequential(m[0], m[1], m[2], m[3], m[2], m[1], m[4]), "shares its numbers with"),
    "a forward hook": (lambda m: only(m[0].register_forward_hook(lambda *_: None)), "layer 0 .Linear.: has hooks"),
    "a hook on an activation": (lambda m: only(m[1].register_forward_hook(lambda *_: None)), "layer 1 .ReLU.: has hooks"),
    "a hook on the network": (lambda m: only(m.register_forward_pre_hook(lambda *_: None)), "network 0: has hooks"),
    "a backward hook": (lambda m: only(m[2].register_full_backward_hook(lambda *_: None)), "layer 2 .Linear.: has hooks"),
    "a gradient hook": (lambda m: only(m[2].weight.register_hook(lambda g: g)), "its weight has a gradient hook"),
    "an accumulation hook": (
        lambda m: only(m[2].bias.register_post_accumulate_grad_hook(lambda p: None)),
        "its bias has a gradient hook",
    ),
    "a Linear with its own forward": (lambda m: rebuilt(m, at_2=Louder(6, 6)), "layer 2 .Louder.*a forward of its own"),
    "a forward put on a Linear": (lambda m: assign(m[2], forward=lambda h: h), "layer 2 .Linear.*a forward of its own"),
    "a Sequential with its own forward": (lambda m: Shifted(*m), "network 0: .*a forward of its own"),
    "no Sequential": (lambda m: nn.DataParallel(m), "must be an nn.Sequential .*; got DataParallel"),
    "an activation at the end": (lambda m: nn.Sequential(*m, nn.ReLU()), "got Sequential of 6 layers"),
    "a learned activation": (lambda m: rebuilt(m, at_1=nn.PReLU()), "layer 1 .PReLU.*without parameters"),
    "batch norm": (lambda m: rebuilt(m, at_1=nn.BatchNorm1d(6, affine=False)), "layer 1 .BatchNorm1d.*no buffers"),
    "batch norm without state": (
        lambda m: rebuilt(m, at_1=nn.BatchNorm1d(6, affine=False, track_running_stats=False)),
        "layer 1 .BatchNorm1d.*fixed function of each point",
    ),
    "softmax along the points": (lambda m: rebuilt(m, at_1=nn.Softmax(dim=1)), "layer 1 .Softmax.*looks at other points"),
    "an activation that halves": (lambda m: rebuilt(m, at_1=nn.GLU()), "layer 1 .GLU"),
    "an activation that fails": (lambda m: rebuilt(m, at_1=nn.CosineSimilarity()), "layer 1 .CosineSimilarity.: does not map"),
    "dropout": (lambda m: rebuilt(m, at_3=nn.Dropout(1e-6)), "layer 3 .Dropout.: must not be random"),
    "dropout in eval mode": (lambda m: rebuilt(m, at_3=nn.Dropout()).eval(), "layer 3 .Dropout.: must not be random"),
    "a random slope": (lambda m: rebuilt(m, at_3=nn.RReLU()), "layer 3 .RReLU.: must not be random"),
    "dropout within": (lambda m: rebuilt(m, at_3=Plain(nn.ReLU(), nn.Dropout())), "layer 3 .Plain.: must not be random"),
    "another in eval mode": (lambda m: rebuilt(m, at_3=Moody()), "layer 3 .Moody.*the same in training and in eval mode"),
    "noise": (lambda m: rebuilt(m, at_3=Noise()), "layer 3 .Noise.*it is random"),
    "a state": (lambda m: rebuilt(m, at_3=Counting()), "layer 3 .Counting.*has a state"),
    "a buffer": (lambda m: only(m[2].register_buffer("mask", torch.ones(1))), "layer 2 .Linear.*it holds .*mask"),
    "one more parameter": (lambda m: only(m[2].register_parameter("scale", nn.Parameter(torch.ones(1)))), "it holds .*scale"),
    "half precision": (lambda m: m.half(), r"layer 0 .*float16; .*Convert it with .float\(\)"),
    "bfloat16": (lambda m: m.bfloat16(), "layer 0 .*bfloat16"),
    "mixed types": (lambda m: only(m[2].double()), "layer 2 .*float64; all of a network must be float32 or all float64"),
    "no numbers": (lambda m: m.to("meta"), "layer 0 .*on meta"),
    "sparse": (lambda m: assign(m[2], weight=nn.Parameter(m[2].weight.detach().to_sparse())), "layer 2 .*ordinary .*sparse"),
    "lazy": (lambda m: rebuilt(m, at_2=nn.LazyLinear(6)), "layer 2 .LazyLinear.: holds no numbers yet"),
    "sizes that do not fit": (lambda m: rebuilt(m, at_4=nn.Linear(5, 2)), "layer 4 .*takes 5 inputs but .* gives 6"),
    "a bias for all": (lambda m: assign(m[2], bias=nn.Parameter(torch.zeros(1))), r"layer 2 .*got \[6, 6\] and \[1\]"),
}


def only(_):
    """The change is made in place."""


def tied(layer):
    other = nn.Linear(6, 6)
    other.weight = layer.weight
    return other


@pytest.mark.parametrize("name", UNFIT)
def test_what_a_stack_cannot_hold_is_refused_by_name_and_left_as_it_is(name):
    change, says = UNFIT[name]
    model = changed(change)
    flags = [p.requires_grad for p in model.parameters()]
    places = [p.data_ptr() for p in model.parameters() if p.layout == torch.strided and not nn.parameter.is_lazy(p)]
    modes = [module.training for module in model.modules()]
    for networks in ([model], [small(1), model]):
        with pytest.raises(ValueError, match=says.replace("network 0", f"network {len(networks) - 1}")):
            Stack(networks)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [p.data_ptr() for p in model.parameters() if p.layout == torch.strided and not nn.parameter.is_lazy(p)] == places
    assert [module.training for module in model.modules()] == modes


def test_networks_that_share_are_named():
    one, other = small(0), small(1)
    other[2].weight = one[2].weight
    with pytest.raises(ValueError, match=r"network 1, layer 2 .*weight shares its numbers with network 0, layer 2 .*deepcopy"):
        Stack([one, other])
    with pytest.raises(ValueError, match=r"network 1, layer 0 .* shares its numbers with network 0, layer 0"):
        Stack([one, nn.Sequential(one[0], *small(1)[1:])])


def test_parameters_in_one_memory_that_do_not_overlap_are_no_tie():
    """As after `vector_to_parameters`, or in a stack that is still open."""
    model = small()
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()), model.parameters())
    Stack([model, small(1)])
    Stack([model])


def test_the_stack_keeps_the_first_networks_activation_only_if_all_have_it():
    with pytest.raises(ValueError, match="network 1 must be a fixed function"):
        Stack([small(0, Sine(1.0)), small(1, Sine(2.0))])  # they print alike
    with pytest.raises(ValueError, match="same shape"):
        Stack([small(0), small(1).double()])


@pytest.mark.parametrize(
    "activation",
    [
        nn.GELU(), nn.SiLU(), nn.Softplus(), nn.ELU(0.5), nn.Hardtanh(), nn.Identity(), nn.Softmax(dim=-1), Sine(),
        Plain(nn.ReLU()), nn.LayerNorm(6, elementwise_affine=False),
        nn.ReLU(inplace=True), nn.SiLU(inplace=True), nn.LeakyReLU(0.2, inplace=True),
        nn.Hardtanh(inplace=True), nn.ELU(inplace=True), nn.ReLU6(inplace=True),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_fixed_activations_and_subclasses_that_change_nothing_are_held(activation, dtype):
    models = [small(s, activation, Plain).to(dtype) for s in range(2)]
    x = torch.randn(5, 2, generator=seeded())
    alone = torch.stack([model(x.to(dtype)) for model in models])
    expected = torch.autograd.grad(alone.square().sum(), [p for model in models for p in model.parameters()])
    stack = Stack(models)
    found = stack(x)
    torch.testing.assert_close(found, alone)
    found.square().sum().backward()
    for i, weight in enumerate(stack.weights):
        for e in range(2):
            torch.testing.assert_close(weight.grad[e].T, expected[6 * e + 2 * i], rtol=1e-3, atol=1e-5)


def test_frozen_parameters_get_no_gradient_network_by_network():
    models = [small(s) for s in range(3)]
    for model in models:
        model[0].requires_grad_(False)
    models[1][2].weight.requires_grad_(False)
    models[2].requires_grad_(False)
    stack = Stack(models)
    assert [p.requires_grad for p in stack.parameters()] == [False, True, True, False, True, True]
    assert len(stack.trained()) == 4
    (stack(torch.randn(5, 2, generator=seeded())).square().sum() * torch.tensor(1.0)).backward()
    moved = [[(p.grad[e] != 0).any().item() for e in range(3)] for p in stack.trained()]
    assert moved == [[True, False, False], [True, True, False], [True, True, False], [True, True, False]]
    stack.release()
    assert [sum(p.requires_grad for p in model.parameters()) for model in models] == [4, 3, 0]
    assert all(p.grad is None for model in models for p in model.parameters())


def test_an_infinite_gradient_of_a_frozen_network_is_none():
    models = [small(s) for s in range(2)]
    models[1].requires_grad_(False)
    stack = Stack(models)
    (stack(torch.ones(3, 2)).sum((1, 2)) * torch.tensor([1.0, torch.inf])).sum().backward()
    assert all(p.grad.isfinite().all() for p in stack.parameters())


def test_a_network_that_was_changed_meanwhile_is_named():
    models = [small(s) for s in range(2)]
    stack = Stack(models)
    models[1][2].weight.data = models[1][2].weight.data + 1e-3  # now it is no longer a view
    with pytest.raises(ValueError, match="network 1 was changed while it was trained"):
        stack.release()
    with torch.no_grad():
        stack.weights[0] += 1
    assert models[0][0].weight.abs().max() < 1  # the others have been released


def test_networks_of_several_seeds_are_those_of_each_seed():
    for seed, network in zip((3, 5), models.mlps((3, 5), width=4), strict=True):
        alone = models.mlp(width=4, generator=torch.Generator().manual_seed(seed))
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), alone.parameters(), strict=True))


def test_a_shaken_network_is_a_copy_with_noise_of_the_given_size():
    model = models.mlp(width=300)
    before = [p.clone() for p in model.parameters()]
    noisy = models.shaken(model, 0.1, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    noise = torch.cat([(a - b).flatten() for a, b in zip(noisy.parameters(), before, strict=True)]).detach()
    assert 0.098 < noise.std() < 0.102 and abs(noise.mean()) < 0.002
