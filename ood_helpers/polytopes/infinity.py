"""A two-dimensional ReLU network infinitely far away, in all directions at once, exactly.

Far out in direction u the logits are f(αu) = α·(v·u) + c, with v and c constant in an angular sector (an *infinity polytope*).
v·u is f0(u), the network with every bias set to 0: scale the input by α and every bias by 1/α, and f scales by α. The class
with the greatest v_k·u is k*, its confidence goes to 1; where several share it the softmax of their offsets c remains (section 3
of the paper). The sectors come from `fan`, which turns u once round the circle.
"""

from dataclasses import dataclass

import numpy as np

from ood_helpers.arrays import Numbers, float64

from .along import swept
from .fan import cut
from .graph import Graph
from .network import Model, Network, flat_rows, plane_of, read, shape_of

_DIAMOND = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]])


@dataclass(frozen=True, eq=False, repr=False)
class Infinity:
    """Sectors of the circle of directions, S of them, counter-clockwise. Neurons and k* are constant inside each.

    start    [S]        angle in [0, 2π) at which a sector starts, ascending
    width    [S]        its opening angle; they sum to 2π, and the last sector may reach beyond angle 2π
    slopes   [S, K, 2]  v: logit k grows like v_k·u along direction u
    offsets  [S, K]     c: what is left of logit k beside that
    leaders  [S, K]     True at the classes with the greatest slope everywhere in the sector: k*, or several that tie
    """

    start: np.ndarray
    width: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray
    leaders: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def __repr__(self):
        shares = ", ".join(f"{share:.3f}" for share in self.shares())
        return f"Infinity({len(self)} sectors; shares of directions won: {shares}; tied: {self.tie_share:.3f})"

    @property
    def winner(self) -> np.ndarray:
        """k* of every sector [S]; the lowest index where several classes tie."""
        return self.leaders.argmax(axis=1)

    @property
    def tie(self) -> np.ndarray:
        """Where several classes share the greatest slope: boolean [S]."""
        return self.leaders.sum(axis=1) > 1

    def shares(self) -> np.ndarray:
        """Share of all directions [K] that each class wins alone. Ties count for no class: the sum is 1 - tie_share."""
        alone = self.leaders.T & ~self.tie
        return np.array([self.width[won].sum() for won in alone]) / self.width.sum()

    @property
    def tie_share(self) -> float:
        """Share of all directions in which several classes tie: there the confidence stays below 1 for ever."""
        return float(self.width[self.tie].sum() / self.width.sum())

    def limit_confidence(self) -> np.ndarray:
        """Largest softmax probability for α → ∞ in each sector [S]: 1 for a unique k*, else the softmax of the tied offsets."""
        tied = np.where(self.leaders, self.offsets, -np.inf)
        return 1 / np.exp(tied - tied.max(axis=1, keepdims=True)).sum(axis=1)


def infinity(model: Model, axes: Numbers | None = None) -> Infinity:
    """All infinity polytopes of a network with two inputs, and who wins in them: an `Infinity`.

    model  nn.Sequential of Linear and ReLU or LeakyReLU
    axes   [2, d], needed where the input dimension d is not 2: the directions are cos(angle) * axes[0] + sin(angle) * axes[1]

    Exact to rounding: a slope below 1e-13 of the terms it is summed from counts as 0, edges closer than about 1e-13 as one.
    Raises ValueError for a model that `read` refuses and for axes that are missing or do not span a plane.
    """
    network = read(model, shape_of(axes, 1))
    inputs = np.vstack([plane_of(axes, network), np.zeros(network.in_dim)])
    edges, maps, real = swept(_with_differences(network), _DIAMOND, inputs, slack=1)
    k = network.n_classes
    duels = cut(edges, maps[:, :, k:], slack=1)  # the winner may change inside a sector: cut it where two classes draw
    leaders = _leaders(duels.signs(np.arange(len(duels.old))), k)
    keep = (real[duels.old] & duels.starts()) | (leaders != np.roll(leaders, 1, axis=0)).any(axis=1)
    keep[0] |= not keep.any()
    maps = maps[duels.old[keep], :, :k]
    start, width = _angles(duels.edges, keep)
    return Infinity(start, width, maps[:, :2].swapaxes(1, 2), maps[:, 2], leaders[keep])


def directions(model: Model, u: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Who wins far out along given directions u [n, d], any d: winner [n] (k*, the lowest index where several tie) and tie [n].

    Exact for each of these rays, whatever point they start from; it says nothing about the directions between them.
    Raises ValueError for a model that `read` refuses, for a wrong shape, NaN, infinity or a zero row.
    """
    network = read(model, shape_of(u, 1))
    u = flat_rows(float64(u, "u"), network)
    if u.ndim != 2 or u.shape[1] != network.in_dim:
        raise ValueError(f"u must have shape (n, {network.in_dim}), one direction per row, not {u.shape}")
    if not (np.isfinite(u).all() and u.any(axis=1).all()):
        raise ValueError("u must hold finite numbers and no zero rows; a zero vector is no direction")
    leaders = network.leaders(u)
    return leaders.argmax(axis=1), leaders.sum(axis=1) > 1


def _with_differences(network):
    """The network with one more output for each pair k < l: logit k - logit l. Its sign is a duel, its exact 0 a tie."""
    k, l = np.triu_indices(network.n_classes, 1)  # noqa: E741
    if isinstance(network, Graph):
        one = np.eye(network.n_classes)
        return network.with_outputs(np.concatenate([one, one[k] - one[l]]))
    weight, bias = network.weights[-1], network.biases[-1]
    weights = [*network.weights[:-1], np.concatenate([weight, weight[k] - weight[l]])]
    return Network(weights, [*network.biases[:-1], np.append(bias, bias[k] - bias[l])], network.leaks)


def _leaders(duels, n_classes):
    """The classes that lose no duel: boolean [R, K] from the signs [R, pairs] of logit k - logit l, k < l."""
    losses = np.zeros((len(duels), n_classes), dtype=int)
    for i, (k, other) in enumerate(zip(*np.triu_indices(n_classes, 1), strict=True)):
        losses[:, k] += duels[:, i] < 0
        losses[:, other] += duels[:, i] > 0
    return losses == losses.min(axis=1, keepdims=True)


def _angles(edges, keep):
    """Start and width of the sectors that remain when only the kept rows start one."""
    before, after = edges[:-1], edges[1:]
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    width = np.arctan2(cross, (before * after).sum(axis=1))
    start = np.arctan2(before[keep, 1], before[keep, 0]) % (2 * np.pi)
    kept = np.flatnonzero(keep)
    width = np.add.reduceat(np.roll(width, -kept[0]), kept - kept[0])
    return start, width
