"""Reading a torch network: the same function in float64, or an error that names the layer."""

import copy
import itertools

import numpy as np
import pytest
import torch
from small_networks import build, random_network, without_biases
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from ood_helpers.polytopes import confidence_bound, directions, infinity, line, plane, ray, read


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


@pytest.mark.parametrize("model", [nn.Sequential(), nn.ReLU, "a string", 3, [], None])
def test_anything_but_a_network_is_refused(model):
    with pytest.raises(ValueError, match=r"model must be a non-empty nn\.Sequential"):
        read(model)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_empty_layer_is_refused():
    with pytest.raises(ValueError, match=r"layer 0 \(Linear\): has 2 inputs and 0 outputs"):
        read(nn.Sequential(nn.Linear(2, 0), nn.ReLU(), nn.Linear(0, 2)))


# A network is read as it runs ---------------------------------------------------------------------------------------------


def network(*sizes, seed=0, dtype=torch.float64):
    """An untrained network (2-20-20-3), in train mode like every new module."""
    torch.manual_seed(seed)
    pairs = itertools.pairwise(sizes or (2, 20, 20, 3))
    layers = [layer for pair in pairs for layer in (nn.Linear(*pair, dtype=dtype), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def assert_read_as_it_runs(model, rtol=1e-12):
    x = 3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    got = read(model)(x)
    dtype = next(p.dtype for p in model.parameters())
    with torch.no_grad():
        want = copy_of(model).eval()(x.to(dtype)).double()
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


def copy_of(model):
    """A deep copy, also where `weight` is computed from other tensors (torch refuses those)."""
    with torch.no_grad():
        memo = {id(t): t for module in model.modules() for t in vars(module).values() if isinstance(t, torch.Tensor)}
        return copy.deepcopy(model, memo)


def pruned(model):
    for layer in model[::2]:
        prune.random_unstructured(layer, "weight", 0.5)
    return model


def weight_normed(model):
    return nn.Sequential(*(nn.utils.weight_norm(layer) if isinstance(layer, nn.Linear) else layer for layer in model))


def move(model):
    """Change all parameters, like a step of training: what old-style layers keep as `weight` is now stale."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


def each(change):
    def changed(model):
        for layer in model[::2]:
            change(layer)
        return model

    return changed


PARAMETRISED = {
    "pruned": pruned,
    "pruned twice": lambda model: pruned(pruned(model)),
    "weight_norm, old": weight_normed,
    "spectral_norm, old": each(nn.utils.spectral_norm),
    "weight_norm": each(parametrizations.weight_norm),
    "spectral_norm": each(parametrizations.spectral_norm),
    "orthogonal": each(parametrizations.orthogonal),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("kind", PARAMETRISED)
def test_parametrised_layers_are_read_with_the_weights_that_run(kind, stale):
    model = PARAMETRISED[kind](network())
    assert_read_as_it_runs(move(model) if stale else model)


def test_the_shares_of_a_pruned_network_do_not_change_by_calling_it():
    model = move(pruned(network()))
    before = infinity(model).shares()
    model(torch.zeros(1, 2, dtype=torch.float64))
    assert (infinity(model).shares() == before).all()


def test_the_bound_of_a_fine_tuned_pruned_network_holds():
    model = move(pruned(network()))
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = confidence_bound(model, [[0.0, 0.0]], [[1.0, 1.0]])
    assert model(x).softmax(-1).max() <= bound[0]


def state(model):
    """Everything that a module holds, tensors as copies with their identity."""

    def kept(value):
        return [id(value), value.detach().clone()] if isinstance(value, torch.Tensor) else value

    return [
        {key: kept(value) for held in (vars(module), module._parameters, module._buffers) for key, value in held.items()}
        for module in model.modules()
    ]  # fmt: skip


def same(a, b):
    if isinstance(a, list):
        return a[0] == b[0] and torch.equal(a[1], b[1])
    return a is b or a == b


class Counting(nn.Linear):
    """Counts its calls: in a number, in a buffer in place, and in a buffer that is replaced."""

    def __init__(self, inputs, outputs, **options):
        super().__init__(inputs, outputs, **options)
        self.calls = 0
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("other", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.count += 1
        self.other = self.other + 1
        self.last = x
        return super().forward(x)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("kind", [*PARAMETRISED, "counting"])
def test_the_model_is_left_as_it_was_found(kind):
    model = Counting(2, 3, dtype=torch.float64) if kind == "counting" else None
    model = nn.Sequential(model, nn.ReLU(), nn.Linear(3, 3).double()) if model else PARAMETRISED[kind](network())
    model[0].eval()
    model(torch.ones(4, 2, dtype=torch.float64))
    before, training = state(model), [module.training for module in model.modules()]
    generator = torch.random.get_rng_state()
    read(model)
    after = state(model)
    assert [module.training for module in model.modules()] == training and training[:2] == [True, False]
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(same(old[key], new[key]) for key in old)
    assert torch.equal(torch.random.get_rng_state(), generator)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("kind", ["pruned", "weight_norm, old", "spectral_norm, old"])
def test_gradients_still_flow_through_a_weight_that_was_read(kind):
    model = PARAMETRISED[kind](network())
    loss = model(torch.ones(4, 2, dtype=torch.float64)).sum()
    read(model)
    assert model[0].weight.requires_grad
    (loss + (model[0].weight ** 2).sum()).backward()


def test_nothing_is_left_on_a_model_that_never_ran():
    model = nn.Sequential(Counting(2, 3), nn.ReLU(), nn.Linear(3, 3))
    read(model)
    assert not hasattr(model[0], "last") and model[0].calls == model[0].count == model[0].other == 0


def test_a_model_runs_in_eval_mode_without_gradients():
    seen = []
    read(hooked(lambda module, x, y: seen.append((module.training, y.requires_grad))))
    assert seen == [(False, False)]


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Summed(nn.Linear):
    """The same function, added up in another order."""

    def forward(self, x):
        return (x[..., None, :] * self.weight).flip(-1).sum(-1) + self.bias


class Clipped(nn.ReLU):
    def forward(self, x):
        return x.clamp(0, 6)


class Normalised(nn.Sequential):
    def forward(self, x):
        return super().forward((x - 0.1) / 0.9)


class Wrapper(nn.Module):
    def __init__(self, module, temperature):
        super().__init__()
        self.module, self.temperature = module, temperature

    def forward(self, x):
        return self.module(x) / self.temperature


class Noisy(nn.ReLU):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


def replaced(i, layer):
    model = network()
    if isinstance(layer, nn.Linear):
        layer.load_state_dict(model[i].state_dict())
    model[i] = layer
    return model


def hooked(hook, where=None, pre=False):
    model = network()
    module = model if where is None else model[where]
    (module.register_forward_pre_hook if pre else module.register_forward_hook)(hook)
    return model


def own_forward():
    model = network()
    model.forward = lambda x: nn.Sequential.forward(model, x) + 1
    return model


OTHER_THAN_READ = {
    "hook on the model": lambda: hooked(lambda module, x, y: 2 * y),
    "hook on a layer": lambda: hooked(lambda module, x, y: y + 0.3, 2),
    "hook on a ReLU": lambda: hooked(lambda module, x, y: y.clamp(max=50), 1),
    "hook in place": lambda: hooked(lambda module, x, y: y.mul_(1.1), 0),
    "pre-hook on the model": lambda: hooked(lambda module, x: (x[0] / 255,), pre=True),
    "pre-hook on a layer": lambda: hooked(lambda module, x: (x[0] + 0.3,), 4, pre=True),
    "pre-hook in place": lambda: hooked(lambda module, x: (x[0].mul_(2),), pre=True),
    "far clamp": lambda: hooked(lambda module, x: (x[0].clamp(-1000, 1000),), pre=True),
    "softmax": lambda: hooked(lambda module, x, y: y.softmax(-1)),
    "forward of the instance": own_forward,
    "hooked DataParallel": lambda: hook_on(nn.DataParallel(network())),
    "dropout that stays on": lambda: replaced(1, Noisy()),
}


def hook_on(model):
    model.register_forward_hook(lambda module, x, y: 2 * y)
    return model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", OTHER_THAN_READ)
def test_a_model_that_computes_something_else_is_refused(kind, dtype):
    model = OTHER_THAN_READ[kind]().to(dtype)
    before = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="model must compute what its layers say"):
        read(model)
    assert torch.equal(torch.random.get_rng_state(), before) and model.training


FORWARDS = {
    "Linear with a forward": lambda: replaced(2, Scaled(20, 20).double()),
    "ReLU with a forward": lambda: replaced(1, Clipped()),
    "Sequential with a forward": lambda: Normalised(*network()),
    "wrapper with a temperature": lambda: Wrapper(network(), 2.0),
}


@pytest.mark.parametrize("kind", FORWARDS)
def test_a_forward_that_can_be_traced_is_read_as_it_runs(kind):
    assert_read_as_it_runs(FORWARDS[kind]())
    assert_read_as_it_runs(FORWARDS[kind]().float(), rtol=1e-5)
    with pytest.raises(ValueError, match="model must compute what its layers say"):
        read(FORWARDS[kind]().to(torch.bfloat16))


def test_a_global_hook_is_seen():
    handle = nn.modules.module.register_module_forward_hook(lambda module, x, y: y + 1)
    try:
        with pytest.raises(ValueError, match="model must compute what its layers say"):
            read(network())
    finally:
        handle.remove()
    assert_read_as_it_runs(network())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "make",
    [
        lambda: replaced(2, Summed(20, 20).double()),
        lambda: hooked(lambda module, x, y: None),
        lambda: hooked(lambda module, x, y: y.clone()),
        lambda: hooked(lambda module, x, y: 2 * y if module.training else y),
        lambda: nn.DataParallel(network()),
        lambda: Wrapper(network(), 1.0),
        lambda: AveragedModel(network()),
        lambda: nn.DataParallel(Wrapper(network(), 1.0)),
        lambda: torch.compile(network()),
        lambda: nn.DataParallel(torch.compile(network())),
        lambda: nn.Sequential(torch.compile(nn.Linear(2, 5)), nn.ReLU(), nn.Linear(5, 3)),
    ],
)  # fmt: skip
def test_wrappers_and_other_ways_to_compute_the_same_are_read(make, dtype):
    model = make().to(dtype)
    with torch.no_grad():
        inner = model
        while not isinstance(inner, nn.Sequential):
            inner = getattr(inner, "_orig_mod", None) or inner.module
        weights = [layer.weight.double().numpy() for layer in inner[::2]]
    got = read(model).weights
    assert all((a == b).all() for a, b in zip(got, weights, strict=True))


def test_a_compiled_model_is_run_without_its_compiler():
    torch.compiler.reset()  # after many compilations torch gives up and runs models as they are

    def backend(graph, inputs):
        raise RuntimeError("compiled")

    model = network()
    model.compile(backend=backend)
    read(model)
    read(torch.compile(network(), backend=backend))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e4, 1e30, 1e37])
@pytest.mark.parametrize("sizes", [(2, 3), (2, 30, 3), (3, 50, 50, 50, 4)])
def test_plain_networks_of_any_precision_and_size_are_read(dtype, size, sizes):
    model = network(*sizes)
    for parameter in model.parameters():
        parameter.data *= size
    model = model.to(dtype)
    if all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        with torch.no_grad():
            assert all(
                (w == layer.weight.double().numpy()).all() for w, layer in zip(read(model).weights, model[::2], strict=True)
            )
    else:
        with pytest.raises(ValueError, match=r"layer \d \(Linear\): weights must be finite"):
            read(model)


@pytest.mark.parametrize("depth", [2, 10, 40])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_depth_and_huge_biases_are_only_rounding(depth, dtype):
    model = network(2, *[20] * depth, 3)
    for i, layer in enumerate(model[::2]):
        layer.weight.data *= 4
        layer.bias.data[i % 3] = -1e15
    read(model.to(dtype))
    swapped = model.to(dtype)
    for i in range(2, len(model) - 1, 2):
        old, swapped[i] = model[i], Summed(20, 20, dtype=dtype)
        swapped[i].load_state_dict(old.state_dict())
    read(swapped)


def test_where_a_precision_overflows_nothing_can_be_compared():
    model = network(2, 20, 20, 20, 3)
    for parameter in model.parameters():
        parameter.data *= 1e9
    for i in (0, 2, 4):
        old, model[i] = model[i], Summed(*model[i].weight.shape[::-1], dtype=torch.float64)
        model[i].load_state_dict(old.state_dict())
    read(model.float())
    plain = network(dtype=torch.float32)
    for parameter in plain.parameters():
        parameter.data *= 1e30
    assert not plain(torch.ones(1, 2)).isfinite().any()
    read(plain)
    plain[2].register_forward_hook(lambda module, x, y: 2 * y)
    with pytest.raises(ValueError, match=r"model must give finite logits somewhere.*call model\.double\(\)"):
        read(plain)


def test_autocast_and_grad_modes_around_it_change_nothing():
    model = network(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.is_autocast_enabled("cpu")
        read(model)
    with torch.inference_mode():
        read(model)
    with torch.device("meta"):
        read(model)
    torch.set_default_dtype(torch.float64)
    try:
        read(model)
    finally:
        torch.set_default_dtype(torch.float32)


def with_weight(weight):
    model = network(2, 2, 2, dtype=torch.float32)
    model[0].weight = nn.Parameter(weight, requires_grad=False)
    return model


W = torch.tensor([[1.0, -2.0], [0.0, 0.5]])


@pytest.mark.filterwarnings("ignore:.*CSR")
@pytest.mark.parametrize("weight", [W.to_sparse_csr(), torch._neg_view(-W), (1j * W).imag, W.T.contiguous().T])
def test_weights_in_another_layout_are_read_where_they_run(weight):
    assert (read(with_weight(weight)).weights[0] == W.numpy()).all()


@pytest.mark.filterwarnings("ignore:.*(quantize|CSR)")
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: network().to(torch.complex64), r"layer 0 \(Linear\): weight must hold real numbers"),
        (lambda: network().to("meta"), "its 0.weight holds none yet"),
        (lambda: pruned(network()).to("meta"), "its 0.bias holds none yet"),
        (lambda: with_weight(torch.quantize_per_tensor(W, 0.5, 0, torch.qint8)), "model must run on points"),
        (lambda: with_weight(W.int()), "model must run on points"),
        (lambda: with_weight(W.double()), "model must run on points"),
        (lambda: with_weight(W.to(torch.float8_e5m2)), "model must run on points"),
        (lambda: nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.Linear(3, 2)), "its 0.weight holds none yet"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.LazyLinear(2)), "its 2.weight holds none yet"),
        (lambda: nn.Sequential(nn.Linear(0, 3), nn.ReLU(), nn.Linear(3, 2)), r"layer 0 \(Linear\): has 0 inputs"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.ELU(), nn.Linear(3, 2)), r"layer 1 \(ELU\): expected a ReLU"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 2)), r"layer 1 \(GELU\): expected a ReLU"),
        (lambda: nn.DataParallel(nn.Sequential()), "model must be a non-empty nn.Sequential"),
        (lambda: hooked(lambda module, x, y: (y, y)), "must hold numbers|must map points"),
        (lambda: hooked(lambda module, x, y: y[:, 0]), r"model must map points \[8, 2\] to logits \[8, 3\], not \[8\]"),
        (lambda: hooked(lambda module, x, y: {"logits": y}), r"the logits model\(x\) must hold numbers"),
        (lambda: hooked(lambda module, x, y: 1 / 0), "it raised ZeroDivisionError"),
    ],
)
@pytest.mark.filterwarnings("ignore:(Initializing zero-element|Lazy modules)")
def test_what_does_not_run_or_holds_no_numbers_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        read(make())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_geometry_takes_models_of_any_precision_in_train_mode(dtype):
    model = network().to(dtype)
    exact = copy.deepcopy(model).double()
    assert (infinity(model).shares() == infinity(exact).shares()).all()
    assert (ray(model, [0, 0], [1, 2]).slopes == ray(exact, [0, 0], [1, 2]).slopes).all()
    assert (line(model, [0, 0], [1, 2]).offsets == line(exact, [0, 0], [1, 2]).offsets).all()
    assert len(plane(model, -1, 1)) == len(plane(exact, -1, 1))


# Numbers near the ends of float64 -----------------------------------------------------------------------------------------

EYE = [[1.0, 0.0], [0.0, 1.0]]


def diagonal(*scales):
    return build([[[a, 0], [0, b]] for a, b in scales], [[0, 0]] * len(scales))


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_leaders_know_no_overflow_and_no_underflow(scale):
    model = diagonal((scale, 2 * scale), (scale, scale), (scale, scale))
    winner, tie = directions(model, [[1, 1], [3, 1], [2, 1], [1e-320, 1e-320], [1e308, 1e308]])
    assert winner.tolist() == [1, 0, 0, 1, 1] and tie.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ray(diagonal((1e200, 1), (1e200, 1)), [0, 0], [1, 1]),
        lambda: ray(diagonal((1e-200, 1e-200), (1e-200, 1e-200)), [0, 0], [1, 1]),
        lambda: ray(diagonal((1, 1), (1, 1)), [1e308, 0], [1, 1]),
        lambda: ray(build([EYE], [[1e308, 0]]), [0, 0], [1, 1]),
        lambda: line(diagonal((1, 1), (1, 1)), [-1e308, 0], [1e308, 0]),
        lambda: infinity(diagonal((1e200, 1), (1e200, 1))),
        lambda: infinity(diagonal((1e-200, 1e-200), (1e-200, 1e-200))),
        lambda: infinity(build([EYE, [[1e-300, 0], [0, 2e-300]]], [[0, 0], [0, 0]])),
        lambda: infinity(diagonal((1, 1), (1, 1)), [[1e308, 1e308], [1e308, -1e308]]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_exceeds_float64_is_refused(ask):
    with pytest.raises(ValueError, match="exceed the range of float64"):
        ask()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_points_of_any_kind_are_taken(dtype):
    model = network()
    start, end = torch.tensor([1.0, -2.0], dtype=dtype, requires_grad=True), torch.tensor([0.5, 3.0], dtype=dtype).to_sparse()
    want = line(model, [1.0, -2.0], [0.5, 3.0])
    got = line(model, start, end)
    assert (got.slopes == want.slopes).all() and (got.t == want.t).all()
    t = torch.tensor([0.0, 0.25], dtype=dtype, requires_grad=True)
    assert (got.logits(t) == want.logits([0.0, 0.25])).all()
    assert (ray(model, start, end).slopes == ray(model, [1.0, -2.0], [0.5, 3.0]).slopes).all()
    u = torch.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=dtype, requires_grad=True)
    for a, b in zip(directions(model, u), directions(model, [[1, 2], [-3, 0.5]]), strict=True):
        assert (a == b).all()
    assert (infinity(model, u).shares() == infinity(model, [[1, 2], [-3, 0.5]]).shares()).all()
    assert (read(model)(u) == read(model)([[1, 2], [-3, 0.5]])).all()
    for ask, name in [
        (lambda bad: ray(model, bad, [1, 1]), "start"),
        (lambda bad: ray(model, [1, 1], bad), "direction"),
        (lambda bad: line(model, [1, 1], bad), "end"),
        (lambda bad: got.logits(bad), "t"),
        (lambda bad: directions(model, bad), "u"),
        (lambda bad: infinity(model, bad), "axes"),
    ]:
        for bad in (u.to("meta"), u.to(torch.complex64), None if name != "axes" else "axes", [1, None]):
            with pytest.raises(ValueError, match=f"{name} must hold"):
                ask(bad)
