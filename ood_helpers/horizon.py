"""Training at infinity: losses on f0, what a network is infinitely far away.

Far out in direction u a ReLU network grows like f(αu)/α → f0(u), the same network with every bias set to 0: scale the input by
α and every bias by 1/α, and f scales by α (LeakyReLU too). So k* of direction u is argmax f0(u), and a loss on f0 at random
directions trains infinity itself. `polytopes.infinity` then says what has become of all directions in the plane, not only the
sampled ones; `polytopes.silent_certificate` says in any dimension whether all of them are silent.

A network here is an nn.Sequential (Linear, ReLU, …, Linear), or a `models.Stack` of E of them; affine layers of other kinds may
stand beside the Linear ones (normalisation and dropout in eval mode, convolutions, Flatten), also in Sequentials inside it.
Directions are u [n, d], or [n, channels, …] for pictures, the same for every network of a stack; losses are means over the
directions: a number, or [E] for a stack.
"""

import functools
import math

import torch
from torch import Generator, Tensor, nn

from ood_helpers import closed
from ood_helpers.arrays import whole
from ood_helpers.losses import cross_entropy
from ood_helpers.models import Stack, check_forward


def unit_directions(n: int, dim: int, *, generator: Generator) -> Tensor:
    """n random directions [n, dim] of length 1, uniform on the sphere."""
    n, dim = whole("n", n, 1), whole("dim", dim, 1)
    return nn.functional.normalize(torch.randn(n, dim, generator=generator), dim=1)


def f0(network: nn.Module | Stack, u: Tensor) -> Tensor:
    """The logits at infinity, those of the network without its biases: [n, K] at directions u [n, d]; [E, n, K] for a stack.

    f0(αu) = α f0(u) for α > 0: only its direction matters for who wins. Gradients reach the weights, never the biases.
    Raises ValueError for layers between the ReLUs or LeakyReLUs that are not affine, and for u that is not a float tensor [n, d].
    """
    return _pre_activations(network, u)[0][-1]


def far_field_loss(network: nn.Module | Stack, u: Tensor, radius: float = 10.0) -> Tensor:
    """Cross-entropy of f0(radius · u) towards the last class, reject: 0 where reject wins far beyond rounding in every u.

    "Reject wins in every direction" is a strict inequality on the whole sphere, so it survives small changes of the weights.
    u       unit directions [n, d], any d
    radius  positive: how soon a direction counts as won, at a lead of the reject slope of a few times 1/radius
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be a positive number; got {radius}")
    logits = radius * f0(network, u)
    if logits.shape[-1] < 2:
        raise ValueError("network must have at least 2 outputs, the last of them reject; got 1")
    return cross_entropy(logits, torch.full(logits.shape[-2:-1], logits.shape[-1] - 1))


def slope_spread_loss(network: nn.Module | Stack, u: Tensor) -> Tensor:
    """Mean squared spread of the slopes: the mean of (1/K) Σ_k (f0_k(u) − mean over the classes)² over directions u [n, d].

    0 only where all classes tie in each u, so that the confidence stays at the softmax of what is left of the biases. Descent
    makes slopes small, not 0: slopes that cancel are a coincidence, and the gradient fades with the spread. The confidence then
    still goes to 1, only further out. For exact ties see `silent_horizon_loss`.
    """
    return f0(network, u).var(-1, correction=0).mean(-1)


def silent_horizon_loss(network: nn.Module | Stack, u: Tensor, margin: float = 0.1) -> Tensor:
    """The mean of Σ_j relu(z0_j(u) + margin) over directions u [n, d], z0 the pre-activations of f0's last hidden layer.

    It is 0 exactly where that whole layer is inactive with `margin` to spare, and then every slope is exactly 0: a tie that
    survives small changes of the weights. Its gradient does not fade on the way. With two hidden layers it can be 0 in all
    directions only if the first layer's weights positively span the input space, which takes more than d neurons: where the
    first layer is off, z0 is 0, not below. With one hidden layer it cannot: a neuron with weights w ≠ 0 is active at u = w.
    (Its neurons can still cancel, as in relu(x + 1) − relu(x − 1), and all classes tie; but not after small changes.)

    margin  positive, in units of z0 at length 1
    Raises ValueError unless the activation of the last hidden layer is ReLU: a LeakyReLU is never silent.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be a positive number; got {margin}")
    z, activations = _pre_activations(network, u)
    if not (activations and isinstance(activations[-1], nn.ReLU)):
        got = activations[-1] if activations else "no hidden layer"
        raise ValueError(f"network must have a last hidden layer of ReLU, which can be silent; got {got}")
    last = z[-2] if isinstance(network, Stack) else z[-2].flatten(1)
    return (last + margin).relu().sum(-1).mean(-1)


def radius_loss(network: nn.Module | Stack, u: Tensor | None = None) -> Tensor:
    """The price of a closed network's ball: the mean of log(1 + relu(B_j) / min_k slope_jk) over its second hidden layer.

    Neuron j is silent beyond that l1 distance from the centre, see `closed`; the largest is the radius of the ball. The
    logarithm makes the price of a ball that is twice as large the same whatever the units. u, as for other losses of the weights,
    is not looked at. ValueError unless network is a `closed.Closed` or a `models.Stack` of them.
    """
    stacked = isinstance(network, Stack)
    if not (network.closed if stacked else isinstance(network, closed.Closed)):
        raise ValueError(f"network must be closed (`models.closed_mlp`), or a Stack of such; got {type(network).__name__}")
    if stacked:
        weights, biases, ball = network.weights, network.biases, network.closed
    else:
        linears, ball = network.layers[::2], [network.raw, network.centre[None], network.usual[None]]
        weights, biases = [layer.weight.T for layer in linears], [layer.bias[None] for layer in linears]
    high = closed.height(weights, biases, *ball)[..., 0, :].relu()
    return (high / closed.slopes(ball[0]).amin(-2)).log1p().mean(-1)


def _without_biases(network):
    """What stands between the activations without its biases, as functions of [..., n, inputs]; and the activations."""
    if isinstance(network, Stack) and network.closed:
        raise ValueError(
            "network is closed: it is silent in every direction already, whatever is trained, and needs no such loss"
        )
    if isinstance(network, Stack):
        linears = [functools.partial(_times, weight) for weight in network.weights]
        for i, activation in enumerate(network.activations):
            _check_activation(f"network, layer {2 * i + 1} ({type(activation).__name__})", activation)
        return linears, network.activations
    linears, activations = [[]], []
    for name, layer in _leaves(network):
        where = f"network, layer {name} ({type(layer).__name__})"
        linear = _linear(where, layer)
        if linear is not None:
            linears[-1].append(linear)
        elif not linears[-1]:
            raise ValueError(f"{where}: expected Linear, ReLU, …, Linear")
        else:
            _check_activation(where, layer)
            activations.append(layer)
            linears.append([])
    if not linears[-1]:
        raise ValueError(f"network must be a Stack or an nn.Sequential (Linear, ReLU, …, Linear); got {type(network).__name__}")
    return [functools.partial(functools.reduce, lambda h, linear: linear(h), group) for group in linears], activations


def _times(weight, h):
    return h @ weight


def _leaves(network, name=""):
    """The layers of a Sequential in the order in which they run, those of Sequentials inside it, too: (name, layer)."""
    if not isinstance(network, nn.Sequential):
        return
    check_forward(f"network{name and ', layer ' + name}", network, nn.Sequential)
    for i, layer in enumerate(network):
        inner = f"{name}.{i}" if name else str(i)
        if isinstance(layer, nn.Sequential):
            yield from _leaves(layer, inner)
        else:
            yield inner, layer


def _linear(where, layer):
    """An affine layer without its constants, as a function; None for any other. ValueError in train mode where that matters."""
    if isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
        if (layer.training and getattr(layer, "p", 1)) or getattr(layer, "running_var", 1) is None:
            raise ValueError(f"{where}: is not affine in train mode; call model.eval() first")
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            return lambda h: h * _norm_scale(layer).reshape(-1, *[1] * (h.dim() - 2))
        return lambda h: h
    for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d):
        if isinstance(layer, kind):
            check_forward(where, layer, kind)
            return (lambda h: h @ layer.weight.T) if kind is nn.Linear else lambda h: layer._conv_forward(h, layer.weight, None)
    for kind in (nn.Identity, nn.Flatten, nn.Unflatten, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d):
        if isinstance(layer, kind):
            check_forward(where, layer, kind)
            return layer
    return None


def _norm_scale(layer):
    scale = 1 / torch.sqrt(layer.running_var + layer.eps)
    return scale if layer.weight is None else layer.weight * scale


def _check_activation(where, activation):
    if not isinstance(activation, (nn.ReLU, nn.LeakyReLU)):
        raise ValueError(
            f"{where}: must be ReLU or LeakyReLU; "
            "with another activation the network far away is not the network without its biases"
        )
    check_forward(where, activation, nn.ReLU, nn.LeakyReLU)


def _pre_activations(network, u):
    """The pre-activations [..., n, outputs] of every layer without its biases, at u [n, d]; the last are the logits."""
    linears, activations = _without_biases(network)
    weight = network.weights[0] if isinstance(network, Stack) else next(network.parameters())
    dim = weight.shape[-2] if isinstance(network, Stack) else _in_dim(network)
    fits = isinstance(u, torch.Tensor) and u.is_floating_point() and u.dim() > 1
    if not fits or (dim and (u.dim() > 2 or u.shape[1] != dim)):
        got = f"{u.dtype} {list(u.shape)}" if isinstance(u, torch.Tensor) else type(u).__name__
        raise ValueError(f"u must be a float tensor of shape [n, {dim or '…'}], one direction per row; got {got}")
    z = [linears[0](u.to(weight.dtype))]
    for linear, activation in zip(linears[1:], activations, strict=True):
        kept = z[-1].clone() if activation.inplace else z[-1]  # one that works in place would overwrite what is returned
        z.append(linear(activation(kept)))
    return z, activations


def _in_dim(network):
    """The number of inputs where the first layer says it; None where inputs may be pictures."""
    first = next(layer for _, layer in _leaves(network))
    return first.in_features if isinstance(first, nn.Linear) else None
