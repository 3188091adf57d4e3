"""Networks as ordinary torch modules, and `Stack`: many networks of one shape computed as one."""

import itertools

import torch
from torch import nn

from ood_helpers.arrays import whole

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def mlp(in_dim=2, width=500, n_classes=2, depth=2, activation="relu", *, slope=0.01, init="torch", generator=None):
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
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
    if init not in ("torch", "glorot"):
        raise ValueError(f'init must be "torch" or "glorot"; got {init!r}')

    sizes = [in_dim] + [width] * depth + [n_classes]
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        bend = nn.LeakyReLU(slope) if activation == "leaky_relu" else ACTIVATIONS[activation]()
        layers += [_linear(inputs, outputs, init, generator), bend]
    return nn.Sequential(*layers[:-1])


def generator(noise_dim=100, width=256, depth=3, out_dim=2, *, init="torch", generator=None):
    """G of Eq. (1): maps noise [n, noise_dim] to points [n, out_dim]. As in the published code: LeakyReLU(0.2), no batch norm.

    init, generator (of random numbers) as in `mlp`
    """
    noise_dim, out_dim = whole("noise_dim", noise_dim, 1), whole("out_dim", out_dim, 1)
    return mlp(noise_dim, width, out_dim, depth, "leaky_relu", slope=0.2, init=init, generator=generator)


def discriminator(in_dim=2, width=256, depth=3, *, init="torch", generator=None):
    """D of Eq. (1): maps points [n, in_dim] to one logit [n, 1], whose sigmoid is the probability that a point is real.

    init, generator (of random numbers) as in `mlp`
    """
    return mlp(in_dim, width, 1, depth, "leaky_relu", slope=0.2, init=init, generator=generator)


def _linear(inputs, outputs, init, generator):
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
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
    weights  one tensor [E, inputs, outputs] per Linear · biases  one [E, 1, outputs] per Linear
    Raises ValueError that names the network and layer unless all are nn.Sequential of Linear and one activation, same shape.
    """

    def __init__(self, models):
        shapes = [_shape(model, e) for e, model in enumerate(models)]
        for e, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise ValueError(f"models must all have the same shape; network 0 is {shapes[0]} but network {e} is {shape}")
        self.models = list(models)
        layers = list(zip(*models, strict=True))
        self.activations = [group[0] for group in layers if not isinstance(group[0], nn.Linear)]
        linears = [group for group in layers if isinstance(group[0], nn.Linear)]
        with torch.no_grad():
            self.weights = [torch.stack([layer.weight.T for layer in group]).contiguous() for group in linears]
            self.biases = [torch.stack([layer.bias[None] for layer in group]) for group in linears]
        for group, weight, bias in zip(linears, self.weights, self.biases, strict=True):
            for e, layer in enumerate(group):
                layer.weight.data, layer.bias.data = weight[e].T, bias[e, 0]
        for parameter in self.parameters():
            parameter.requires_grad_()

    def parameters(self):
        return self.weights + self.biases

    def __call__(self, x):
        """Logits [E, n, K] of points x: [n, d] for the same points in every network, [E, n, d] for each its own."""
        h = x.expand(len(self.models), *x.shape[-2:])
        for weight, bias, activation in zip(self.weights, self.biases, [*self.activations, nn.Identity()], strict=True):
            h = activation(torch.baddbmm(bias, h, weight))
        return h

    def release(self):
        """Give each network its own copy of its parameters again."""
        for model in self.models:
            for parameter in model.parameters():
                parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def _shape(model, e):
    """A network's shape in words, e.g. '2-500-500-2 ReLU'."""
    if not isinstance(model, nn.Sequential) or len(model) % 2 == 0:
        raise ValueError(f"network {e} must be an nn.Sequential (Linear, activation, …, Linear); got {type(model).__name__}")
    for i, layer in enumerate(model):
        if (i % 2 == 0) != isinstance(layer, nn.Linear) or (i % 2 == 1 and any(True for _ in layer.parameters())):
            raise ValueError(f"network {e}, layer {i} ({type(layer).__name__}): expected Linear, activation, …, Linear")
        if i % 2 == 0 and layer.bias is None:
            raise ValueError(f"network {e}, layer {i} (Linear): must have a bias")
    sizes = "-".join(str(n) for n in [model[0].in_features] + [layer.out_features for layer in model[::2]])
    return " ".join([sizes, *(str(layer) for layer in model[1::2])])


check_whole = whole  # until gan.py imports it from arrays
