"""Closed networks: ReLU networks whose second hidden layer is silent far away, in every direction, because of how they are made.

Beside its free neurons h the first hidden layer holds the pairs ±(x_k − c_k), which add up to |x_k − c_k|. Every neuron j of the
second subtracts q_jk |x_k − c_k| from what it gets from the free ones, h_i(x) = relu(a_i · x + b_i): its pre-activation is

    z_j(x) = β_j + Σ_i w_ji h_i(x) − Σ_k q_jk |x_k − c_k|,    q_jk = softplus(s_jk) + Σ_i relu(w_ji) |a_ik|.

What is trained may be β_j − Σ_k q_jk m_k in place of β_j, with fixed numbers m_k ("centred"): the same functions.

Because |relu(t) − relu(t')| ≤ |t − t'|, h_i(x) ≤ h_i(c) + Σ_k |a_ik| |x_k − c_k|, so that

    z_j(x) ≤ B_j − Σ_k softplus(s_jk) |x_k − c_k|,    B_j = β_j + Σ_i relu(w_ji) h_i(c):

outside the ball |x − c|₁ ≤ max_j B_j / min_k softplus(s_jk) the layer is silent, and whatever layers follow get the same numbers
everywhere: the answer is constant. Where their biases are 0 up to the last ones, as `models.closed_mlp` makes them, these are the
answer. Nothing of this has to be trained, and no training can undo it: w, a, β, s and all later weights are free.

Why the second layer, and not the last? A layer further back would have to outweigh the products of all |W| before it, which grow
about √width / 2 times a layer: such networks mostly die in training.
"""

import functools
import math

import torch
from torch import nn

from ood_helpers.arrays import float64

# Added to softplus(s) and to the sum, they keep the inequality strict when it is computed in float32: 2⁻¹⁰ is more than the
# rounding of sums over thousands of neurons.
_FLOOR, _SPARE = 1e-3, 2**-10


class Closed(nn.Module):
    """A ReLU network that is constant outside a ball around `centre`; `plain` writes it as ordinary layers.

    It is made by `models.closed_mlp`, which pins the last biases.

    layers     the free part: nn.Sequential (Linear, ReLU, …, Linear) with at least two hidden layers
    points     [n, d], n at least 1: `centre` is their mean, and the second hidden layer's biases start higher by the mean of
               what it subtracts there. Without that the subtraction would silence the data, too, and nothing could be learnt
    steepness  positive: softplus(s) at the start
    spread     True: each of these biases starts higher by another quantile of what its neuron subtracts on the points, evenly
               from the least to the largest, in place of the mean. The mean leaves a class that lies further out than the others
               mostly silent, and what is silent is hardly ever learnt
    centred    True: m_k is the mean of |x_k − c_k| on the points, so that a weight that grows takes nothing from the average
               point; False: 0. In hundreds of dimensions a training step moves Σ_k q_jk |x_k − c_k| further than β_j can follow
    Parameters: those of `layers` and `raw`, s [d, width]. Points x [n, d] -> logits [n, K].
    """

    centre: torch.Tensor
    usual: torch.Tensor  # m

    def __init__(self, layers, points, steepness, spread=False, centred=False):
        super().__init__()
        self.layers = layers
        first, second = layers[0].weight, layers[2]
        points = torch.from_numpy(float64(points, "points")).to(first.dtype)
        if points.dim() != 2 or not len(points) or points.shape[1] != first.shape[1] or not points.isfinite().all():
            raise ValueError(
                f"points must hold finite numbers [n, {first.shape[1]}], at least one point, such as the training points; got "
                f"{list(points.shape)}, of which {int((~points.isfinite()).sum())} are NaN or infinite"
            )
        if not 0 < steepness < math.inf:
            raise ValueError(f"steepness must be a positive number; got {steepness}")
        s = steepness + math.log(-math.expm1(-steepness))  # softplus(s) = steepness
        self.raw = nn.Parameter(torch.full((first.shape[1], len(second.weight)), s, dtype=first.dtype))
        self.register_buffer("centre", points.mean(0))
        distance = (points - self.centre).abs()
        self.register_buffer("usual", distance.mean(0) if centred else torch.zeros_like(self.centre))
        with torch.no_grad():
            q = self.pull()
            if spread:
                neuron = torch.arange(len(second.bias))
                place = (2 * neuron + 1) * len(points) // (2 * len(neuron))
                second.bias += (distance @ q).sort(0).values[place, neuron]
            else:
                second.bias += distance.mean(0) @ q
            second.bias -= self.usual @ q

    def pull(self) -> torch.Tensor:
        """q [d, width]."""
        return pull(self.layers[0].weight.T, self.layers[2].weight.T, self.raw)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, relu, second, *behind = self.layers  # no slices, which torch.fx could not trace
        z = second(relu(first(x))) - ((x - self.centre).abs() - self.usual) @ self.pull()
        return functools.reduce(lambda h, layer: layer(h), behind, z)

    @torch.no_grad()
    def plain(self) -> nn.Sequential:
        """The same network, up to rounding, as a new nn.Sequential (Linear, ReLU, …, Linear) with as many layers.

        Its first hidden layer has 2d neurons more, the pairs ±(x_k − c_k). ArithmeticError if the weights overflow.
        """
        first, second, *others = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        eye, q = torch.eye(len(self.centre), dtype=self.centre.dtype), self.pull().T
        weights, biases = [torch.cat([first.weight, eye, -eye])], [torch.cat([first.bias, -self.centre, self.centre])]
        weights += [torch.cat([second.weight, -q, -q], 1), *(layer.weight for layer in others)]
        biases += [second.bias + q @ self.usual, *(layer.bias for layer in others)]
        if not all(numbers.isfinite().all() for numbers in weights + biases):
            raise ArithmeticError("the weights of the plain network overflow: train with a smaller lr, or call double()")
        layers = []
        for weight, bias in zip(weights, biases, strict=True):
            linear = nn.utils.skip_init(nn.Linear, *weight.T.shape, dtype=weight.dtype)
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def slopes(raw):
    """softplus(s) and the floor: how fast the second hidden layer falls away from the centre, at least."""
    return nn.functional.softplus(raw) + _FLOOR


def pull(first, second, raw):
    """q [..., d, width] of the weights [..., inputs, outputs] of the first two layers; raw [..., d, width]."""
    return slopes(raw) + (1 + _SPARE) * (first.abs() @ second.relu())


def height(weights, biases, raw, centre, usual):
    """B [..., 1, width]: what the second hidden layer gets at the centre [..., 1, d] from neurons that push it up, and β.

    weights [..., inputs, outputs] and biases [..., 1, outputs] of the first two layers, those of later ones may follow.
    """
    h = (centre @ weights[0] + biases[0]).relu()
    return biases[1] + usual @ pull(*weights[:2], raw) + h @ weights[1].relu()
