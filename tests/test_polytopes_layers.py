"""The networks that people have: which layers are read, row by row, and what is refused by which sentence."""

import copy
import math
import operator

import numpy as np
import pytest
import torch
from small_networks import random_network
from torch import nn
from torch.nn import functional as F

from ood_helpers import polytopes
from ood_helpers.polytopes import confidence_bound, directions, escape, infinity, line, plane, ray, read, without_softmax
from ood_helpers.polytopes.graph import Graph
from ood_helpers.polytopes.network import Network


def shaken(model, seed=0):
    """Random numbers for all parameters and running statistics: nothing stays at the values that hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for name, numbers in [*model.named_parameters(), *model.named_buffers()]:
        if numbers.is_floating_point() and numbers.dim():
            numbers.data = torch.randn(numbers.shape, generator=generator).to(numbers.dtype) / max(1, numbers[0].numel()) ** 0.5
            if name.endswith("running_var"):
                numbers.data = numbers.data.abs() + 0.5
    return model.eval()


def points(shape, n=200, seed=0):
    return 2 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wanted(model, x):
    """The model's own answers in float64, one by one as a forward may count on a batch of one."""
    with torch.no_grad():
        exact = copy.deepcopy(model).double().eval()
        found = [exact(one[None].clone()) for one in x]
        return np.concatenate([(y["logits"] if isinstance(y, dict) else y).reshape(1, -1).numpy() for y in found])


class Forward(nn.Module):
    """Layers by name, and a forward that is given as a function of the module and x."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.given = forward
        for name, layer in layers.items():
            if isinstance(layer, torch.Tensor):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, x):
        return self.given(self, x)


def halves(m, x):
    """Shapes of all kinds on the way."""
    left, right = m.a(x).relu().chunk(2, dim=1)
    both = torch.stack([left, right.roll(1, dims=1)], 1).transpose(1, 2).flip(1)
    return m.b(both.reshape(x.size(0), -1)[:, 1:, None].squeeze(-1))


def mended(m, x):
    """Changes in place, also of numbers that have another name."""
    h = m.a(x)
    g = h
    F.relu_(h)
    h += 0.1
    h.mul_(2).clamp_(max=3.0)
    return m.b(g) + m.b(h)


def written(m, x):
    """Parts of a copy changed and written back."""
    x = x.clone()
    for i in range(x.shape[1]):
        x[:, i] = (x[:, i] - 0.3) / (i + 1)
    x[:, 1] *= 2
    h = m.a(x)
    h[h < 0] = 0
    h[..., 0] = 0.5
    return m.b(h)


def by_shape(m, x):
    """Python that asks for shapes, and nothing else."""
    if x.dim() == 2:
        x = x[None]
    assert x.shape[-1] == 2 and len(x) == 1
    n, *rest = x.shape
    both = torch.cat([x.view(n, math.prod(rest)), x.new_ones(n, 1), torch.zeros(len(x), 1)], 1)
    return sum(m.b(m.a(part.squeeze(1)[:, None].expand(-1, 4)).relu()) for part in both.split(1, dim=1))


def by_hand(m, x):
    """Bends as people write them."""
    h = m.a(x)
    leaky = torch.where(h > 0, h, 0.1 * h) + h.where(h >= 0, -0.3 * h)
    clipped = torch.where(1 > h, h, torch.ones_like(h)) + h.masked_fill(h <= 0, 0.0)
    rectified = h * (h > 0) + (h > 0).to(h.dtype) * h + h.mul(torch.lt(h, 0).float())
    return m.b(leaky + clipped + rectified + torch.where(m.mask, h, h.flip(1)))


class Options(Forward):
    """Arguments with defaults, and one output in a dict."""

    def forward(self, x, scale=2.0, mask=None, *more, features=False, **others):
        h = self.a(x).relu()
        if mask is not None or more or others:
            h = h * mask
        return h if features else {"logits": self.b(h) * scale}


def image(*middle, out, shape=(2, 6, 6)):
    return nn.Sequential(*middle, nn.Flatten(), nn.Linear(out, 3)), shape


def vector(*middle, out=5):
    return nn.Sequential(nn.Linear(4, 5), *middle, nn.Linear(out, 3)), (4,)


LAYERS = {  # each row of docs/your_network.md: a model with the layer, and the shape of its inputs
    "Linear": lambda: (nn.Linear(4, 3), (4,)),
    "Sequential, nested": lambda: vector(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(5, 5), nn.ReLU()))),
    "Linear after Linear": lambda: vector(nn.Linear(5, 5), nn.Linear(5, 5, bias=False), nn.ReLU()),
    "Identity": lambda: vector(nn.Identity(), nn.ReLU(), nn.Identity()),
    "Dropout": lambda: vector(nn.ReLU(), nn.Dropout(0.5), nn.AlphaDropout(0.5)),
    "Dropout2d": lambda: image(nn.Dropout2d(0.5), out=72),
    "Flatten": lambda: (nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)), (3, 4)),
    "Unflatten": lambda: (
        nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3)),
        (4,),
    ),
    "indices and masks": lambda: (
        Forward(
            lambda m, x: m.b(torch.cat([m.a(x)[:, m.order].relu().index_select(1, m.order), m.two], 1)[:, m.mask]),
            **{"a": nn.Linear(4, 5), "b": nn.Linear(4, 3), "two": torch.ones(1, 2)},
            **{"order": torch.tensor([2, 0, 2]), "mask": torch.tensor([True, True, False, True, True])},
        ),
        (4,),
    ),
    "ReLU": lambda: vector(nn.ReLU(inplace=True)),
    "ReLU after ReLU": lambda: vector(nn.ReLU(), nn.ReLU()),
    "ReLU last": lambda: (nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (4,)),
    "ReLU first": lambda: (nn.Sequential(nn.ReLU(), nn.Linear(4, 3)), (4,)),
    "LeakyReLU": lambda: vector(nn.LeakyReLU(0.2)),
    "PReLU": lambda: vector(nn.PReLU(5)),
    "RReLU": lambda: vector(nn.RReLU()),
    "ReLU6": lambda: vector(nn.ReLU6()),
    "Hardtanh": lambda: vector(nn.Hardtanh(-0.3, 0.7)),
    "Hardsigmoid": lambda: vector(nn.Hardsigmoid()),
    "Softshrink": lambda: vector(nn.Softshrink(0.3)),
    "Threshold": lambda: vector(nn.Threshold(0.2, 0.2)),
    "BatchNorm1d": lambda: vector(nn.BatchNorm1d(5), nn.ReLU(), nn.BatchNorm1d(5, affine=False)),
    "BatchNorm1d first": lambda: (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)), (4,)),
    "BatchNorm2d": lambda: image(nn.BatchNorm2d(2), nn.ReLU(), out=72),
    "InstanceNorm2d with running statistics": lambda: image(
        nn.InstanceNorm2d(2, track_running_stats=True, affine=True), nn.ReLU(), out=72
    ),
    "Conv1d": lambda: image(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), out=18, shape=(2, 6)),
    "Conv2d": lambda: image(nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, dilation=1), nn.ReLU(), out=36),
    "Conv2d, reflected": lambda: image(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect", bias=False), nn.ReLU(), out=108),
    "Conv2d, circular": lambda: image(nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular", dilation=2), out=108),
    "Conv3d": lambda: image(nn.Conv3d(1, 2, 2), nn.ReLU(), out=16, shape=(1, 3, 3, 3)),
    "ConvTranspose1d": lambda: image(nn.ConvTranspose1d(2, 3, 3), nn.ReLU(), out=24, shape=(2, 6)),
    "ConvTranspose2d": lambda: image(
        nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), nn.ReLU(), out=576
    ),
    "AvgPool2d": lambda: image(nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False), nn.ReLU(), out=32),
    "AdaptiveAvgPool2d": lambda: image(nn.ReLU(), nn.AdaptiveAvgPool2d((4, 1)), out=8),
    "MaxPool1d": lambda: image(nn.MaxPool1d(2), out=6, shape=(2, 6)),
    "MaxPool2d": lambda: image(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), out=12),
    "MaxPool2d, overlapping": lambda: image(nn.MaxPool2d(3, stride=2, padding=1, dilation=1, ceil_mode=True), nn.ReLU(), out=32),
    "AdaptiveMaxPool2d": lambda: image(nn.AdaptiveMaxPool2d((4, None)), out=48),
    "Upsample": lambda: image(nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU(), out=288),
    "padding": lambda: image(
        nn.ZeroPad2d(1), nn.ConstantPad2d(1, 0.7), nn.ReflectionPad2d(1), nn.ReplicationPad2d(1), nn.ReLU(), out=392
    ),
    "PixelShuffle": lambda: image(nn.PixelUnshuffle(2), nn.ReLU(), nn.PixelShuffle(2), out=72),
    "ChannelShuffle": lambda: image(nn.ChannelShuffle(2), nn.ReLU(), out=72),
    "shift and scale": lambda: (
        Forward(lambda m, x: m.net((x - m.mean) / m.std), mean=torch.rand(4), std=torch.rand(4) + 1, net=vector(nn.ReLU())[0]),
        (4,),
    ),
    "constants from both sides": lambda: (
        Forward(lambda m, x: m.net(1.5 - 2 * x + torch.tensor([1.0, 2, 3, 4])), net=vector(nn.ReLU())[0]),
        (4,),
    ),
    "functions": lambda: (
        Forward(
            lambda m, x: m.b(F.dropout(F.leaky_relu(input=m.a(x), negative_slope=0.3), training=m.training)),
            a=nn.Linear(4, 5),
            b=nn.Linear(5, 3),
        ),
        (4,),
    ),
    "clamp": lambda: (
        Forward(lambda m, x: m.b(m.a(x).clamp(min=-0.1).clamp(-1, 0.5).clip(max=0.4)), a=nn.Linear(4, 5), b=nn.Linear(5, 3)),
        (4,),
    ),
    "abs": lambda: (
        Forward(lambda m, x: m.b(m.a(x).abs() - abs(x @ m.w)), a=nn.Linear(4, 5), b=nn.Linear(5, 3), w=torch.rand(4, 5)),
        (4,),
    ),
    "maximum and minimum": lambda: (
        Forward(
            lambda m, x: torch.minimum(torch.maximum(m.a(x), m.b(x)), m.c.expand(1, 3)),
            a=nn.Linear(4, 3),
            b=nn.Linear(4, 3),
            c=torch.rand(3),
        ),
        (4,),
    ),
    "maxout": lambda: (
        Forward(
            lambda m, x: m.b(m.a(x).view(-1, 3, 2).max(dim=2)[0] + m.a(x).unflatten(1, (2, 3)).amin(1)),
            a=nn.Linear(4, 6),
            b=nn.Linear(3, 3),
        ),
        (4,),
    ),
    "residual": lambda: (
        Forward(
            lambda m, x: m.c(torch.relu(m.b(torch.relu(m.a(x)))) + m.a(x)),
            a=nn.Linear(4, 5),
            b=nn.Linear(5, 5),
            c=nn.Linear(5, 3),
        ),
        (4,),
    ),
    "residual block": lambda: (
        Forward(
            lambda m, x: m.c((m.b(m.a(x).relu()) + m.a(x)).relu().mean((2, 3))),
            a=nn.Conv2d(2, 4, 3, padding=1),
            b=nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)),
            c=nn.Linear(4, 3),
        ),
        (2, 6, 6),
    ),
    "concatenation": lambda: (
        Forward(
            lambda m, x: m.b(torch.cat([torch.relu(m.a(x)), x, m.c[None]], dim=1)),
            a=nn.Linear(4, 5),
            b=nn.Linear(11, 3),
            c=torch.rand(2),
        ),
        (4,),
    ),
    "slices and shapes": lambda: (Forward(halves, a=nn.Linear(4, 6), b=nn.Linear(5, 3)), (4,)),
    "a batch of one": lambda: (
        Forward(lambda m, x: m.b(m.a(x).relu().view(6).view(1, 6)), a=nn.Linear(4, 6), b=nn.Linear(6, 3)),
        (4,),
    ),
    "vectors without a batch": lambda: (
        Forward(lambda m, x: m.b(m.a(x.view(-1)).relu()), a=nn.Linear(4, 6), b=nn.Linear(6, 3)),
        (4,),
    ),
    "shared layers": lambda: (Forward(lambda m, x: m.b(m.a(m.a(x).relu()).relu()), a=nn.Linear(4, 4), b=nn.Linear(4, 3)), (4,)),
    "in place": lambda: (Forward(mended, a=nn.Linear(4, 5), b=nn.Linear(5, 3)), (4,)),
    "in place, the same layer": lambda: (
        Forward(
            lambda m, x: (lambda h: m.b(m.act(h) - 0.3 * h))(m.a(x)), a=nn.Linear(4, 5), b=nn.Linear(5, 3), act=nn.ReLU(True)
        ),
        (4,),
    ),
    "a copy, changed in place": lambda: (
        Forward(lambda m, x: (lambda h: m.b(h.clone().relu_() - 0.3 * h))(m.a(x)), a=nn.Linear(4, 5), b=nn.Linear(5, 3)),
        (4,),
    ),
    "written into": lambda: (Forward(written, a=nn.Linear(4, 5), b=nn.Linear(5, 3)), (4,)),
    "python of shapes": lambda: (Forward(by_shape, a=nn.Linear(4, 5), b=nn.Linear(5, 3)), (2, 2)),
    "bends by hand": lambda: (
        Forward(by_hand, a=nn.Linear(4, 5), b=nn.Linear(5, 3), mask=torch.tensor([True, False, True, True, False])),
        (4,),
    ),
    "maximum by hand": lambda: (
        Forward(
            lambda m, x: (lambda h, g: m.b(torch.where(h > g, h, g) + torch.where(g < h, g, h) * 2))(m.a(x), m.c(x)),
            **{"a": nn.Linear(4, 5), "b": nn.Linear(5, 3), "c": nn.Linear(4, 5)},
        ),
        (4,),
    ),
    "max, its values": lambda: (
        Forward(
            lambda m, x: m.b(
                (m.a(x) - m.a(x).max(1, keepdim=True).values).relu() + F.max_pool1d(m.a(x), 1, return_indices=True)[0]
            ),
            **{"a": nn.Linear(4, 5), "b": nn.Linear(5, 3)},
        ),
        (4,),
    ),
    "single numbers, max": lambda: (
        Forward(
            lambda m, x: (m.c(m.a(x).relu()).squeeze().abs() + m.a(x).max() - m.a(x).mean().relu()).relu(),
            **{"a": nn.Linear(4, 5), "c": nn.Linear(5, 1)},
        ),
        (4,),
    ),
    "one logit": lambda: (Forward(lambda m, x: m.c(m.a(x).relu()).squeeze(), a=nn.Linear(4, 5), c=nn.Linear(5, 1)), (4,)),
    "options": lambda: (Options(None, a=nn.Linear(4, 5), b=nn.Linear(5, 3)), (4,)),
    "layers made on the way": lambda: (Forward(lambda m, x: m.b(nn.ReLU()(m.a(x))), a=nn.Linear(4, 5), b=nn.Linear(5, 3)), (4,)),
    "a temperature": lambda: (
        Forward(
            lambda m, x: m.b(m.a(x).relu()) / float(m.t) * m.t.exp() / torch.sqrt(torch.tensor(x.shape[-1])),
            **{"a": nn.Linear(4, 5), "b": nn.Linear(5, 3), "t": torch.tensor(1.5)},
        ),
        (4,),
    ),
    "Unfold and Fold": lambda: image(nn.Unfold(2, stride=2), nn.ReLU(), nn.Fold((6, 6), 2, stride=2), out=72),
    "unfold and fold": lambda: (
        Forward(
            lambda m, x: m.b(F.fold(F.unfold(x, 3, padding=1).relu(), (6, 6), 3, padding=1).flatten(1).unfold(1, 8, 8).sum(2)),
            b=nn.Linear(9, 3),
        ),
        (2, 6, 6),
    ),
    "other products": lambda: (
        Forward(
            lambda m, x: torch.mv(m.b.weight, torch.tensordot(x, m.a.weight.T, 1)[0].relu()) + torch.outer(m.b.bias, x[0]).sum(1),
            **{"a": nn.Linear(4, 5), "b": nn.Linear(5, 3)},
        ),
        (4,),
    ),
    "DataParallel": lambda: (nn.DataParallel(vector(nn.Linear(5, 5), nn.ReLU())[0]), (4,)),
    "compiled": lambda: (torch.compile(vector(nn.Linear(5, 5), nn.ReLU())[0]), (4,)),
    "compiled layers": lambda: (
        nn.Sequential(torch.compile(nn.Linear(4, 5)), torch.compile(nn.Linear(5, 5)), nn.ReLU(), nn.Linear(5, 3)),
        (4,),
    ),
}


GRAPHS = ("Max", "max", "residual", "concat", "abs", "by hand", "of shapes", "products", "copy")  # the others are chains


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_read_as_it_runs(kind, dtype):
    model, shape = LAYERS[kind]()
    model = shaken(model).to(dtype)
    network, x = read(model, shape), points(shape)
    plain = getattr(model, "_orig_mod", getattr(model, "module", model))
    np.testing.assert_allclose(network(x.reshape(len(x), -1)), wanted(plain, x), atol=1e-11)
    assert isinstance(network, Network) != any(word in kind for word in GRAPHS)


def test_models_are_left_as_they_were_and_training_on_changes_nothing():
    model = shaken(LAYERS["residual block"]()[0])
    before = copy.deepcopy(model.state_dict())
    network, x = read(model, (2, 6, 6)), points((2, 6, 6), 5)
    first = network(x)
    assert all(
        torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(before.values(), model.state_dict().values(), strict=True)
    )
    for parameter in model.parameters():
        parameter.data += 1
    assert (network(x) == first).all() and model.a.weight.requires_grad


def chain(seed=0):
    """A network of many kinds of layers that is a chain, and the same as Linear, ReLU, …, Linear."""
    model = shaken(nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Sequential(nn.ReLU(), nn.Dropout()),
        nn.Linear(8, 6), nn.Identity(), nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Linear(8, 3)), seed).double()  # fmt: skip
    network = read(model)
    plain = []
    for weight, bias, leak in zip(network.weights, network.biases, [*network.leaks, None], strict=True):
        layer = nn.Linear(*weight.shape[::-1], dtype=torch.float64)
        layer.weight.data, layer.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
        plain += [layer, nn.LeakyReLU(leak) if leak else nn.ReLU()]
    return model, nn.Sequential(*plain[:-1])


def test_all_functions_take_what_read_takes():
    (model, plain), axes = chain(), np.array([[1.0, 0.2, 0], [0, 1, -0.3]])
    assert (ray(model, [0, 0, 1], [1, 2, 0]).slopes == ray(plain, [0, 0, 1], [1, 2, 0]).slopes).all()
    assert (line(model, [0, 0, 1], [1, 2, 0]).t == line(plain, [0, 0, 1], [1, 2, 0]).t).all()
    assert (infinity(model, axes).shares() == infinity(plain, axes).shares()).all()
    assert (plane(model, -3, 3, axes=axes).slopes == plane(plain, -3, 3, axes=axes).slopes).all()
    assert (directions(model, axes)[0] == directions(plain, axes)[0]).all()
    assert (confidence_bound(model, [-1] * 3, [1] * 3) == confidence_bound(plain, [-1] * 3, [1] * 3)).all()
    one, other = escape(model, [0, 0, 1]), escape(plain, [0, 0, 1])
    assert (one is None) == (other is None) and (one is None or (one == other).all())


def test_what_was_read_can_be_given_again():
    network = read(chain()[0])
    assert read(network) is network
    assert (ray(network, [0, 0, 1], [1, 2, 0]).t == ray(chain()[0], [0, 0, 1], [1, 2, 0]).t).all()


def test_pairs_and_state_dicts_are_networks_with_relu():
    model = random_network(np.random.default_rng(0), (3, 6, 5, 2))
    pairs = [(layer.weight, layer.bias) for layer in model[::2]]
    for given in (pairs, [(w.tolist(), b.tolist()) for w, b in pairs], model.state_dict(), nn.DataParallel(model).state_dict()):
        got = read(given)
        assert all(
            (a == b).all() for a, b in zip(got.weights + got.biases, read(model).weights + read(model).biases, strict=True)
        )
        assert got.leaks == [0.0, 0.0]
    assert (read([(np.eye(2), None)]).biases[0] == 0).all()


@pytest.mark.parametrize("given, message", [
    ([(np.eye(2), [1, 2, 3])], r"model, pair 0: b must be \[2\]"),
    ([(np.eye(2), None), (np.eye(3), None)], "pair 1: takes 3 inputs but the pair before it gives 2"),
    ([np.eye(2)], r"pair 0: must be \(W, b\)"),
    ([([[np.nan]], None)], "finite numbers"),
    ([(np.ones(3), None)], r"W must be \[outputs, inputs\]"),
    (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict(), r"its 1.weight is neither"),
    ({"0.bias": torch.ones(2)}, "0 has none"),
])  # fmt: skip
def test_pairs_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        read(given)


def test_a_softmax_at_the_end_is_named_and_left_out_on_request():
    model, x = vector(nn.ReLU())[0].double(), points((4,), 5)
    functional = Forward(lambda m, x: F.log_softmax(m.net(x), dim=-1), net=model)
    nested = nn.Sequential(model, nn.Sequential(nn.Identity(), nn.LogSoftmax(-1)))
    reshaped = Forward(lambda m, x: m.net(x)[:, None].softmax(-1).reshape(1, -1).squeeze(0), net=model)
    for whole in (nn.Sequential(*model, nn.Softmax(dim=-1)), functional, nested, reshaped):
        with pytest.raises(ValueError, match=r"oftmax\): gives probabilities.*polytopes.without_softmax\(model\)"):
            read(whole)
        np.testing.assert_allclose(read(without_softmax(whole))(x), wanted(model, x), atol=1e-12)
    with pytest.raises(ValueError, match="must end in a Softmax"):
        without_softmax(model)


@pytest.mark.parametrize("layer, message", [
    (nn.BatchNorm1d(5), r"layer 1 \(BatchNorm1d\): is in train mode.*call model.eval\(\)"),
    (nn.Dropout(), r"layer 1 \(Dropout\): is in train mode.*call model.eval\(\)"),
    (nn.Sequential(nn.RReLU()), r"layer 1.0 \(RReLU\): is in train mode"),
    (Forward(lambda m, x: F.dropout(x, training=m.training)), "train mode.*call model.eval"),
])  # fmt: skip
def test_train_mode_is_refused_where_it_matters(layer, message):
    model = vector(layer)[0]
    with pytest.raises(ValueError, match=message):
        read(model)
    read(model.eval())
    read(vector(nn.Dropout(0.0), nn.Identity(), nn.ReLU())[0])


def own(forward, **layers):
    return Forward(forward, a=nn.Linear(4, 4), **layers)


def part_changed(m, x):
    h = m.a(x)
    h[:, :2].relu_()
    return m.b(h)


def whole_changed(m, x):
    h = m.a(x)
    v = h.view(4, 1)
    h.relu_()
    return v


REFUSED = {
    "sigmoid": (vector(nn.Sigmoid())[0], r"layer 1 \(Sigmoid\): expected a ReLU or LeakyReLU"),
    "a function": (own(lambda m, x: torch.tanh(m.a(x))), r"step tanh \(tanh\): expected a ReLU"),
    "nested": (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.ELU())), r"layer 1.1 \(ELU\): expected"),
    "attention": (own(lambda m, x: m.a(x) * torch.softmax(m.a(x), -1)), r"step softmax \(softmax\): gives probabilities"),
    "products": (own(lambda m, x: m.a(x) * x), r"step mul \(mul\): multiplies two values"),
    "quotients": (own(lambda m, x: 1 / m.a(x)), r"step truediv \(truediv\): divides by a value"),
    "choices": (own(lambda m, x: m.a(x) if x.sum() > 0 else x), "Choices that depend on the data"),
    "two inputs": (type("Two", (Forward,), {"forward": lambda self, x, y: self.a(x + y)})(None, a=nn.Linear(4, 4)), "one input"),
    "two outputs": (own(lambda m, x: (m.a(x), x)), "must return one tensor"),
    "pictures out": (own(lambda m, x: m.a(x).view(-1, 2, 2)), r"one row of logits.*\[1, 2, 2\]"),
    "layer norm": (vector(nn.LayerNorm(5))[0], r"layer 1 \(LayerNorm\): expected"),
    "batch statistics": (vector(nn.BatchNorm1d(5, track_running_stats=False))[0], "statistics of its own input"),
    "jumps": (vector(nn.Threshold(0.2, 0.0))[0], r"layer 1 \(Threshold\): jumps"),
    "float16": (vector(nn.Linear(5, 5), nn.ReLU())[0].half(), r"its (weight|bias) is of float16.*call model.float\(\)"),
    "half on the way": (own(lambda m, x: m.a(x).to(torch.float16).to(torch.float64)), r"step to \(to\): rounds to half"),
    "half of them": (own(lambda m, x: m.a(x).half().double()), r"step half \(half\): rounds to half"),
    "rounding options": (own(lambda m, x: torch.div(m.a(x), 2, rounding_mode="floor")), r"step div \(div\): is not affine"),
    "a jump by hand": (own(lambda m, x: torch.where(m.a(x) > 0, m.a(x) * 0, m.a(x))), r"step where \(where\): compares numbers"),
    "a jump at 0": (own(lambda m, x: (lambda h: torch.where(h > 0, h, 1 - h))(m.a(x))), r"step where \(where\): jumps"),
    "a jump at 1": (own(lambda m, x: (lambda h: h * (h > 1))(m.a(x))), r"step mul \(mul\): jumps"),
    "another condition": (own(lambda m, x: torch.where(m.a(x) > 0, x, x * 2)), r"step where \(where\): compares numbers"),
    "comparisons": (own(lambda m, x: (m.a(x) > 0).sum(1, keepdim=True) * m.a(x)), r"step sum_1 \(sum\): compares numbers"),
    "places": (own(lambda m, x: m.a(x) + m.a(x).max(1)[1]), r"step add \(add\): uses which number was the greatest"),
    "unpooling": (
        own(lambda m, x: m.u(*m.p(m.a(x)[None]))[0], p=nn.MaxPool1d(2, return_indices=True), u=nn.MaxUnpool1d(2)),
        r"layer u \(MaxUnpool1d\): uses which number",
    ),
    "a view changed": (own(part_changed, b=nn.Linear(4, 3)), r"layer b \(Linear\): sees numbers of which step relu_"),
    "a view of what changed": (own(whole_changed), r"output output: sees numbers of which step relu_"),
    "a constant written into": (
        own(lambda m, x: (lambda zero: (operator.setitem(zero, 0, m.a(x)[0]), zero)[1] + x)(torch.zeros(1, 4))),
        "setitem",
    ),
    "dropout made on the way": (own(lambda m, x: nn.Dropout()(m.a(x))), r"step dropout \(dropout\): drops values at random"),
    "bilinear": (own(lambda m, x: m.c(x, m.a(x)), c=nn.Bilinear(4, 4, 3)), r"layer c \(Bilinear\): expected"),
    "a division by a value": (own(lambda m, x: m.a(x) / x.sum(1, keepdim=True)), "divides by a value"),
    "a division by 0": (own(lambda m, x: m.a(x) / torch.tensor([1.0, 0, 1, 1])), r"step truediv \(truediv\): divides by 0"),
    "rounding": (own(lambda m, x: torch.round(m.a(x))), r"step round_1 \(round\): expected"),
    "nan": (vector(nn.PReLU(init=float("nan")))[0], "finite"),
    "sizes": (nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 3)), r"layer 1 \(Linear\): takes 5 inputs but"),
    "hook": (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), "model must compute what its layers say"),
    "an input that does not count": (own(lambda m, x: m.a(torch.ones(1, 4))), "depends on its input"),
}  # fmt: skip
REFUSED["hook"][0][0].register_forward_hook(lambda module, x, y: 2 * y)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
def test_scripted_modules_are_refused():
    inner = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
    for model in (inner, nn.Sequential(inner, nn.ReLU()), torch.jit.trace(nn.Linear(4, 3), torch.zeros(1, 4))):
        with pytest.raises(ValueError, match=r"scripted or traced by torch\.jit"):
            read(model, (4,))


@pytest.mark.parametrize("shape", ["abc", (0,), (4.5,), (4, None), [[4]], (1, -4, 4)])
def test_shapes_must_be_whole_numbers(shape):
    with pytest.raises(ValueError, match="each number of shape must be a whole number of at least 1"):
        read(nn.Sequential(nn.Flatten(), nn.ReLU(), nn.ReLU()), shape)


def test_casts_to_float32_count_as_casts_to_the_numbers_precision():
    plain, x = vector(nn.ReLU())[0], points((4,), 20)
    for cast in (lambda x: x.float(), lambda x: x.to(torch.float32), lambda x: x.to(dtype=torch.float32), lambda x: x.double()):
        network = read(Forward(lambda m, x, cast=cast: m.net(cast(x)), net=plain))
        assert (network(x) == read(plain)(x)).all()


def test_exported_modules_are_read():
    model = shaken(image(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), out=27)[0])
    exported, x = torch.export.export(model, (torch.zeros(1, 2, 6, 6),)).module(), points((2, 6, 6), 20)
    np.testing.assert_allclose(read(exported, (2, 6, 6))(x), wanted(model, x), atol=1e-11)


def test_what_a_forward_raises_is_told():
    def choosy(m, x):
        if x.shape[-1] != 5:
            raise TypeError("five inputs expected")
        return m.a(x)

    with pytest.raises(ValueError, match=r"must run on points \[1, 4\].*TypeError: five inputs expected"):
        read(own(choosy))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_piecewise_affine_is_refused_by_name(kind):
    model, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        read(model.eval(), (4,))


def test_pictures_need_a_shape():
    model = shaken(LAYERS["Conv2d"]()[0])
    with pytest.raises(ValueError, match=r"layer 0 \(Conv2d\): works on any size of input; say which.*shape="):
        read(model)
    with pytest.raises(ValueError, match=r"shape must be given"):
        read(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match=r"Give points in the shape|layer 0 \(Conv2d\)"):
        ray(model, np.ones(72), np.ones(72))
    start, way = np.zeros((2, 6, 6)), np.ones((2, 6, 6))
    assert (ray(model, start, way).t == ray(read(model, (2, 6, 6)), start.ravel(), way).t).all()
    with pytest.raises(ValueError, match=r"direction must have shape \(2, 6, 6\) or \(72,\)"):
        ray(model, start, np.ones(5))


def test_large_networks_stay_graphs():
    model = shaken(nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 28 * 28, 10)))
    assert isinstance(read(model, (1, 28, 28)), Graph)
    assert polytopes.read is read
