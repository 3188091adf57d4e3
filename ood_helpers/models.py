"""Networks as ordinary torch modules, and `Stack`: many networks of one shape computed as one."""

import copy
import itertools
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Generator, Tensor, nn

from ood_helpers import closed
from ood_helpers.arrays import Numbers, whole

_ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")  # where a module keeps them
_RANDOM = (nn.RReLU, nn.modules.dropout._DropoutNd)


def mlp(
    in_dim: int = 2, width: int = 500, n_classes: int = 2, depth: int = 2, activation: str = "relu", *,
    slope: float = 0.01, init: str = "torch", generator: Generator | None = None,
) -> nn.Sequential:  # fmt: skip
    """A multilayer perceptron: `depth` hidden layers of `width` neurons. The defaults are the paper's classifier (§5).

    Returns an nn.Sequential (Linear, activation, …, Linear) that maps points [n, in_dim] to logits [n, n_classes].
    activation  "relu", "leaky_relu", "sigmoid" or "tanh"
    slope       of "leaky_relu" below zero, at least 0; the others have none
    init        "torch": weights and biases uniform in ±1/√inputs (torch's own rule); "glorot": weights uniform in
                ±√(6/(inputs + outputs)), biases 0 (what the paper's code uses)
    generator   where the random numbers come from; None: torch's global generator
    """
    in_dim, width, n_classes = whole("in_dim", in_dim, 1), whole("width", width, 1), whole("n_classes", n_classes, 1)
    depth = whole("depth", depth, 0)
    if not 0 <= slope < float("inf"):
        raise ValueError(f"slope must be a number of at least 0; got {slope}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}; got {activation!r}")
    if init not in ("torch", "glorot"):
        raise ValueError(f'init must be "torch" or "glorot"; got {init!r}')

    sizes = [in_dim] + [width] * depth + [n_classes]
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        bend = nn.LeakyReLU(slope) if activation == "leaky_relu" else _ACTIVATIONS[activation]()
        layers += [_linear(inputs, outputs, init, generator), bend]
    return nn.Sequential(*layers[:-1])


def closed_mlp(
    in_dim: int,
    width: int,
    n_classes: int,
    depth: int = 2,
    *,
    points: Numbers,
    spread: bool = False,
    centred: bool = False,
    steepness: float = 0.5,
    far: float | None = None,
    generator: Generator | None = None,
) -> closed.Closed:
    """A `closed.Closed` network: a ReLU network that gives one constant answer outside a ball, whatever it is trained on.

    width    of every hidden layer's free neurons; written as plain layers, the first has 2 · in_dim more
    depth    hidden layers, at least 2: one alone is silent in no direction, because a neuron with weights w is active at u = w.
             The second falls silent. Layers after it have no biases (they stay 0): silence goes in, and silence comes out
    points   [n, in_dim], such as the training points: where the ball is at the start, see `closed.Closed`
    spread   True where a class may lie further out than the others, as a ring around another: else it starts mostly silent
    centred  True for hundreds of inputs: else training now and then silences the layer for good, see `closed.Closed`
    steepness  positive, per unit of the inputs: how fast the second hidden layer falls away from the centre of the points at the
             start. The steeper, the smaller the ball
    far      None: equal last biases, so that the answer far away is exactly 1/K · a number between 0 and 1: the probability of
             the last output, reject, far away, at least. Either way the last biases are not trained · generator: as in `mlp`
    """
    layers = mlp(in_dim, width, n_classes, whole("depth", depth, 2), generator=generator)
    if far is not None and not (0 < far < 1 and n_classes > 1):
        raise ValueError(f"far must be None or, with two outputs or more, a number between 0 and 1; got {far!r}")
    model = closed.Closed(layers, points, steepness, spread, centred)
    for layer in layers[4::2]:
        layer.bias.requires_grad_(False).zero_()
    bias = layers[-1].bias
    if far is not None:
        bias[-1] = math.log((n_classes - 1) * far / (1 - far))
        bias[-1] += 1e-6 * (1 + bias[-1].abs())  # rounding of float32 must not take it below
    return model


def mlps(
    seeds: Iterable[int], in_dim: int = 2, width: int = 500, n_classes: int = 2, depth: int = 2, activation: str = "relu", *,
    slope: float = 0.01, init: str = "torch",
) -> list[nn.Sequential]:  # fmt: skip
    """One `mlp` of these settings for each seed, from a random start of its own: a list, to be trained as one."""
    starts = [torch.Generator().manual_seed(seed) for seed in seeds]
    return [mlp(in_dim, width, n_classes, depth, activation, slope=slope, init=init, generator=start) for start in starts]


def shaken(model: nn.Module, size: float, generator: Generator | None = None) -> nn.Module:
    """A copy of the network in float64, with normal noise of standard deviation `size` on every weight and bias."""
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        for p in model.parameters():
            p += size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


def _linear(inputs, outputs, init, generator):
    layer = nn.Linear(inputs, outputs, device="meta")  # no numbers from the global generator
    layer.weight, layer.bias = nn.Parameter(torch.empty(outputs, inputs)), nn.Parameter(torch.empty(outputs))
    bound = inputs**-0.5 if init == "torch" else (6 / (inputs + outputs)) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if init == "torch":
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    else:
        nn.init.zeros_(layer.bias)
    return layer


class Stack:
    """E networks of one shape as one: every layer of all of them is one batched matrix product.

    From then on the networks' parameters are views into the stack, so training the stack trains them in place.
    weights  one tensor [E, inputs, outputs] per Linear · biases  one [E, 1, outputs] per Linear. A network's parameter with
             requires_grad=False stays as it is: where it has company that is trained, its part of the gradient is 0
    closed   of `closed.Closed` networks, whose free layers these are: `raw` [E, d, width], `centre`, `usual` [E, 1, d]; or empty
    Raises ValueError that names the network and layer unless all have the same shape and are what `check_plain` asks for.
    """

    def __init__(self, models: Iterable) -> None:
        self.models = list(models)
        if not self.models:
            raise ValueError("models must hold at least one network; got an empty list")
        check_plain({f"network {e}": model for e, model in enumerate(self.models)})
        shapes = [_shape(model) for model in self.models]
        for e, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise ValueError(f"models must all have the same shape; network 0 is {shapes[0]} but network {e} is {shape}")
        layers = list(zip(*map(free_layers, self.models), strict=True))
        self.activations = [group[0] for group in layers[1::2]]
        with torch.no_grad():
            self.weights = [torch.stack([layer.weight.T for layer in group]).contiguous() for group in layers[::2]]
            self.biases = [torch.stack([layer.bias[None] for layer in group]) for group in layers[::2]]
            self.closed = []
            if isinstance(self.models[0], closed.Closed):
                balls = [(m.raw, m.centre[None], m.usual[None]) for m in self.models]
                self.closed = [torch.stack(parts) for parts in zip(*balls, strict=True)]
        self._check_same("must be a fixed function of a point")
        self._views = []
        for group, weight, bias in zip(layers[::2], self.weights, self.biases, strict=True):
            _train_only(weight, [layer.weight.requires_grad for layer in group])
            _train_only(bias, [layer.bias.requires_grad for layer in group])
            for e, layer in enumerate(group):
                self._views += [(layer.weight, weight.detach()[e].T), (layer.bias, bias.detach()[e, 0])]
        if self.closed:
            _train_only(self.closed[0], [model.raw.requires_grad for model in self.models])
            self._views += [(model.raw, self.closed[0].detach()[e]) for e, model in enumerate(self.models)]
        for parameter, view in self._views:
            parameter.data = view

    @property
    def dtype(self) -> torch.dtype:
        return self.weights[0].dtype

    def parameters(self) -> list[Tensor]:
        return self.weights + self.biases + self.closed[:1]

    def trained(self) -> list[Tensor]:
        """The parameters that training moves: those that are not frozen in every network."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [E, n, K] of points x: [n, d] for the same points in every network, [E, n, d] for each its own.

        Points of another float type become numbers of the networks' own.
        """
        h = x.to(self.dtype).expand(len(self.models), *x.shape[-2:])
        return self._run(h, self.weights, self.biases, self.closed)

    def _run(self, x, weights, biases, ball):
        h = x
        for i, (weight, bias, activation) in enumerate(zip(weights, biases, [*self.activations, nn.Identity()], strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if ball and i == 1:
                raw, centre, usual = ball
                h = torch.baddbmm(h, (x - centre).abs() - usual, closed.pull(*weights[:2], raw), alpha=-1)
            h = activation(h)
        return h

    def release(self) -> None:
        """Give each network its own copy of its parameters again; ValueError if a network is not what the stack computes."""
        try:
            self._check_same("was changed while it was trained, so it is not what was trained")
        finally:
            for parameter, view in self._views:
                if parameter.data_ptr() == view.data_ptr():  # else something else has given it a place already
                    parameter.data = view.clone(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def _check_same(self, what):
        """ValueError unless each network, run as it is, computes what the stack does: at a few points, in float64."""
        random = torch.Generator().manual_seed(0)
        x = 10 * torch.randn(8, self.weights[0].shape[1], generator=random, dtype=torch.float64)
        for e, model in enumerate(self.models):
            parts = [[p[e : e + 1].double() for p in parameters] for parameters in (self.weights, self.biases, self.closed)]
            expected = self._run(x[None], *parts)[0]
            own = {name: parameter.double() for name, parameter in model.named_parameters()}
            found = torch.func.functional_call(model, own, x.clone())
            scale = expected[expected.isfinite()].abs().sum().item()
            if found.shape != expected.shape or not torch.allclose(found, expected, 0, 1e-6 * scale, equal_nan=True):
                raise ValueError(f"network {e} {what}: its logits differ from those of the stack that trains it")


def _train_only(parameter, trained):
    """Let a stack's parameter [E, …] have a gradient, but 0 for the networks that do not train it."""
    parameter.requires_grad_(any(trained))
    if any(trained) and not all(trained):
        frozen = ~torch.tensor(trained)[:, None, None]
        parameter.register_hook(lambda gradient: gradient.masked_fill(frozen, 0))


def free_layers(model: nn.Module) -> nn.Module:
    """The nn.Sequential of a network, or of a closed one its free layers."""
    return model.layers if isinstance(model, closed.Closed) else model


def _shape(model):
    """A network's shape in words, e.g. '2-500-500-2 ReLU() ReLU()'."""
    layers = free_layers(model)
    weights = [layer.weight for layer in layers[::2]]
    sizes = "-".join(str(n) for n in [weights[0].shape[1], *map(len, weights)])
    dtype = [] if weights[0].dtype == torch.float32 else [str(weights[0].dtype)]
    return " ".join(["closed"] * (layers is not model) + [sizes, *(str(layer) for layer in layers[1::2]), *dtype])


def check_plain(networks: Mapping[str, nn.Module]) -> None:
    """ValueError that says what is wrong, where and what to do unless the networks can be computed from their numbers alone.

    networks  by name. Each must be an nn.Sequential of Linear and one activation in turn, float32 or float64 on the processor,
              without hooks, forwards of their own, buffers or weights made of others (pruned, normed, parametrised); every
              parameter must have memory of its own (not tied, no layer used twice), and an activation must be a fixed function.
              Or a `closed.Closed` of such layers, all of ReLU
    """
    for name, model in networks.items():
        if isinstance(model, closed.Closed):
            _check_closed(name, model)
            model = model.layers
        if not (isinstance(model, nn.Sequential) and len(model) % 2 == 1):
            got = f"{type(model).__name__} of {len(model)} layers" if isinstance(model, nn.Sequential) else type(model).__name__
            raise ValueError(f"{name} must be an nn.Sequential (Linear, activation, …, Linear); got {got}")
        check_forward(name, model, nn.Sequential)
        for i, layer in enumerate(model):
            where, before = f"{name}, layer {i} ({type(layer).__name__})", model[i - 1] if i else None
            if i % 2 == 0:
                _check_linear(where, layer, model[i - 2] if i else layer, model[0])
            else:
                _check_activation(where, layer, before.weight)
    spans = [
        (*_span(parameter), f"{name}, layer {i} ({type(layer).__name__}), {part}")
        for name, model in networks.items()
        for i, layer in enumerate(free_layers(model))
        for part, parameter in layer.named_parameters()
    ]
    spans += [(*_span(model.raw), f"{name}, raw") for name, model in networks.items() if isinstance(model, closed.Closed)]
    spans.sort()
    for (_, end, one), (start, _, other) in itertools.pairwise(spans):
        if start < end:
            raise ValueError(
                f"{other} shares its numbers with {one}: trained together they would come apart. "
                "Give each a copy of its own (copy.deepcopy), or train with a loop of your own"
            )


def check_forward(where, module, *kinds):
    """ValueError unless calling the module runs the forward of one of torch's classes `kinds`, and no hook."""
    own = "forward" in vars(module) or type(module).__call__ is not nn.Module.__call__
    if own or all(type(module).forward is not kind.forward for kind in kinds):
        raise ValueError(
            f"{where}: expected {' or '.join(kind.__name__ for kind in kinds)}, as in torch.nn; it has a forward of its own. "
            "Train it with a loop of your own"
        )
    _check_no_hooks(where, module)


def _check_no_hooks(where, module):
    if any(getattr(module, hooks) for hooks in _HOOKS):
        raise ValueError(
            f"{where}: has hooks, which would not run. Remove them (of a pruned layer by torch.nn.utils.prune.remove, "
            "of a normed one by remove_weight_norm or remove_spectral_norm), or train it with a loop of your own"
        )


def _check_linear(where, layer, before, first):
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"{where}: expected Linear, activation, …, Linear")
    if any(map(nn.parameter.is_lazy, layer.parameters())):
        raise ValueError(f"{where}: holds no numbers yet; run the network once")
    check_forward(where, layer, nn.Linear)
    if layer.bias is None:
        raise ValueError(f"{where}: must have a bias")
    names = [name for name, _ in [*layer.named_parameters(), *layer.named_buffers()]]
    if sorted(names) != ["bias", "weight"]:
        raise ValueError(
            f"{where}: must hold a weight and a bias and nothing else; it holds {', '.join(names)}. "
            "Make it plain (torch.nn.utils.parametrize.remove_parametrizations), or train it with a loop of your own"
        )
    for name, parameter in layer.named_parameters():
        _check_parameter(where, name, parameter, first)
    if layer.weight.dim() != 2 or layer.bias.shape != layer.weight.shape[:1]:
        shapes = f"{list(layer.weight.shape)} and {list(layer.bias.shape)}"
        raise ValueError(f"{where}: weight and bias must have shapes [outputs, inputs] and [outputs]; got {shapes}")
    if before is not layer and layer.weight.shape[1] != len(before.weight):
        raise ValueError(f"{where}: takes {layer.weight.shape[1]} inputs but the Linear before it gives {len(before.weight)}")


def _check_parameter(where, name, parameter, first):
    if parameter.device.type != "cpu" or parameter.layout != torch.strided or type(parameter) is not nn.Parameter:
        got = f"{type(parameter).__name__}, {parameter.layout}, on {parameter.device}"
        raise ValueError(f"{where}: its {name} must be an ordinary (strided) Parameter on the cpu; got {got}")
    if parameter.dtype not in (torch.float32, torch.float64) or parameter.dtype != first.weight.dtype:
        raise ValueError(
            f"{where}: its {name} is {parameter.dtype}; all of a network must be float32 or all float64. "
            "Convert it with .float() or .double()"
        )
    if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
        raise ValueError(f"{where}: its {name} has a gradient hook, which would not run; remove it")


def _check_closed(name, model):
    """What is beside the free layers, which `check_plain` looks at: the proof of `closed` needs them to be ReLU."""
    check_forward(name, model, closed.Closed)
    names = [*dict(model.named_children()), *model._parameters, *model._buffers]
    kinds = list(map(type, model.layers[1::2])) if isinstance(model.layers, nn.Sequential) else []
    if names != ["layers", "raw", "centre", "usual"] or len(kinds) < 2 or set(kinds) != {nn.ReLU}:
        raise ValueError(
            f"{name} must be a closed network as `models.closed_mlp` makes it, with two hidden layers of ReLU or more; "
            f"it holds {', '.join(names)} and the activations {', '.join(kind.__name__ for kind in kinds)}"
        )
    _check_parameter(name, "raw", model.raw, model.layers[0])
    width, d = len(model.layers[2].weight), model.layers[0].weight.shape[1]
    shapes = [list(numbers.shape) for numbers in (model.raw, model.centre, model.usual)]
    if shapes != [[d, width], [d], [d]]:
        raise ValueError(f"{name}: raw, centre and usual must have the shapes [{d}, {width}], [{d}] and [{d}]; got {shapes}")


def _check_activation(where, activation, before):
    """An activation must be a fixed function of each point's numbers [..., width], without state, chance or other points."""
    if isinstance(activation, nn.Linear) or next(activation.parameters(), None) is not None:
        raise ValueError(f"{where}: expected Linear, activation, …, Linear, the activation without parameters")
    if next(activation.buffers(), None) is not None:
        raise ValueError(f"{where}: must have no buffers; a state of its own would be shared by all networks")
    for module in activation.modules():
        _check_no_hooks(where, module)
    if type(activation) in _ACTIVATIONS.values() and "forward" not in vars(activation):
        return
    if any(isinstance(module, _RANDOM) for module in activation.modules()):
        raise ValueError(f"{where}: must not be random; leave it out, or train with a loop of your own")
    random = torch.Generator().manual_seed(0)
    h = torch.randn(2, 8, len(before), generator=random, dtype=before.dtype)
    modes = {module: module.training for module in activation.modules()}
    try:
        with torch.no_grad():
            together = activation.train()(h.clone())
            activation.eval()
            apart = torch.stack([activation(part.clone()) for part in h])
        same = together.shape == apart.shape == h.shape and torch.allclose(together, apart, 1e-4, equal_nan=True)
    except Exception as error:  # whatever goes wrong: it is no such function
        raise ValueError(f"{where}: does not map numbers [E, n, width] to as many ({error})") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not same:
        raise ValueError(
            f"{where}: must be a fixed function of each point's numbers [..., width], the same in training and in eval mode; "
            "it is random, has a state, or looks at other points or axes. Train with a loop of your own"
        )


def _span(parameter):
    """The addresses in memory, first and beyond the last, of a parameter's numbers."""
    last = sum((n - 1) * step for n, step in zip(parameter.shape, parameter.stride(), strict=True))
    start = parameter.data_ptr()
    return start, start + (last + 1) * parameter.element_size() if parameter.numel() else start
