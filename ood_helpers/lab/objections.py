"""Why not just …? What a student proposes first, on the same ground and with the same measures as everything else.

Only `silent…`, `closed…` and `…quadratic_reject` see OOD points in training, those of the shell around the classes. As in
`experiment`, a setting says everything that matters, and `run` trains and measures one network per seed (`ensemble`: five).
"""

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ood_helpers import horizon, models, polytopes, scores
from ood_helpers.arrays import keep_whole
from ood_helpers.lab import experiment
from ood_helpers.lab.experiment import DATA_SEEDS, FAR, NEAR, POINTS, START, TEST_SEED, WORLDS
from ood_helpers.losses import confidence_loss, reject_loss
from ood_helpers.training import train

_MEMBERS = 5  # of an ensemble
_DROPOUT, _MASKS = 0.2, 50
_SMOOTHING, _DECAY, _NORM = 0.1, 1e-3, 1.0
_PRECISION = 1.0  # of the Gaussian prior on the last layer's weights
_NEIGHBOURS = 10
_SHAPE = 0.02  # of the compact neurons at the end of training
_FAR_AWAY, _DIRECTIONS = 1e8, 3600  # where the confidence far away is looked at, in float64
_MEASURES = ("accuracy", "auroc", "auroc_ring", "auroc_far", "sure", "far_mean", "far_max", "one", "known_patterns")

_PLAIN = functools.partial(confidence_loss, beta=0.0)
_CONFIDENT = functools.partial(confidence_loss, beta=1.0)


def _smoothed(logits_in, y, logits_out):
    """Cross-entropy towards (1 − _SMOOTHING) · one-hot + _SMOOTHING / K."""
    log_p = logits_in.log_softmax(-1)
    return (1 - _SMOOTHING) * _PLAIN(logits_in, y, logits_out) - _SMOOTHING * log_p.mean((-2, -1))


def _one_against_rest(logits_in, y, logits_out):
    """The sum of K binary cross-entropies, one a class: probabilities are sigmoids of the logits."""
    target = nn.functional.one_hot(y, logits_in.shape[-1]).to(logits_in.dtype).expand(logits_in.shape)
    each = nn.functional.binary_cross_entropy_with_logits(logits_in, target, reduction="none")
    return each.sum(-1).mean(-1)


def _squares(stack, u):
    """Half the sum of all squared weights: weight decay as a loss."""
    return sum(weight.square().sum((1, 2)) for weight in stack.weights) / 2


# how networks are trained, by the first words of the method; others are cross-entropy's and differ in what is done with them
_TRAINED = {
    "label_smoothing": {"loss": _smoothed},
    "one_vs_rest": {"loss": _one_against_rest},
    "weight_decay": {"penalty": _squares, "penalty_weight": _DECAY},
    "silent": {"loss": _CONFIDENT, "penalty": horizon.silent_horizon_loss, "penalty_weight": 1.0},
    "closed": {"loss": _CONFIDENT, "penalty": horizon.radius_loss, "penalty_weight": 0.1},
}
# what is measured in the features of the last hidden layer
_IN_FEATURES = ("mahalanobis", "knn", "quadratic_reject")
METHODS = (
    "plain", "temperature", "label_smoothing", "weight_decay", "spectral_norm", "one_vs_rest", "ensemble", "dropout", "laplace",
    "patterns", "compact", *_IN_FEATURES, "silent", "silent_pinned", *(f"silent_{name}" for name in _IN_FEATURES),
    "closed", *(f"closed_{name}" for name in _IN_FEATURES),
)  # fmt: skip


@dataclass(frozen=True)
class ObjectionSetting:
    """A method of `METHODS` in a world of `WORLDS`, with two hidden layers. ValueError names a field with a bad value."""

    method: str
    shape: str = "two"
    width: int = 100
    steps: int = 1500
    lr: float = 2e-3

    columns = ("seed", "diverged", "loss", *_MEASURES)

    def __post_init__(self):
        experiment.check_among(self, method=METHODS, shape=WORLDS)
        keep_whole(self, width=1, steps=1)

    @property
    def work(self):
        """About how many multiplications a network takes, as in `experiment.Setting`."""
        return (_MEMBERS if self.method == "ensemble" else 1) * self.steps * 64 * (self.width**2 + 3000)

    @property
    def world(self):
        return WORLDS[self.shape]()

    def network(self, seed):
        """An untrained network; the seed decides its weights."""
        random, world = torch.Generator().manual_seed(seed), self.world
        if self.method.startswith("closed"):
            points, _ = world.sample(START, generator=torch.Generator().manual_seed(seed))
            return models.closed_mlp(2, self.width, world.n_classes, points=points, generator=random)
        model = models.mlp(2, self.width, world.n_classes, generator=random)
        if self.method == "compact":
            points, _ = world.sample(START, generator=torch.Generator().manual_seed(seed))
            model[2] = _Compact(model[2], model[:2](points).detach().square().sum(1).mean())
        if self.method in ("silent_pinned", "compact"):
            model[-1].bias.requires_grad_(False).zero_()
        return model


class _Compact(nn.Module):
    """Linear neurons that turn radial: z_j = w_j·h + b_j − shape (|h|² − size) / 2, from a `nn.Linear` and shape 0 on.

    With a shape s > 0 that is a number − s |h − w_j / s|² / 2: active in a ball only. `size`, the mean of |h|² over the data at
    the start, keeps them alive. Own version of the neuron of the Compact Support Neural Network (Barbu and Mou 2021), which lies
    between a dot product and a radial one and has its shape raised in training, too.
    """

    def __init__(self, linear, size):
        super().__init__()
        self.linear, self.shape, self.size = linear, 0.0, float(size)

    def forward(self, h):
        return self.linear(h) - self.shape / 2 * (h.square().sum(-1, keepdim=True) - self.size)


def train_seeds(setting: ObjectionSetting, seeds: Sequence[int]) -> tuple[list, list]:
    """One network per seed, trained in one batched run: (networks, the mean loss of the last 20 steps of each)."""
    networks, world = [setting.network(seed) for seed in seeds], setting.world
    if setting.method in ("dropout", "compact"):
        return networks, [_train_alone(setting, network, seed) for network, seed in zip(networks, seeds, strict=True)]
    how: dict = {"loss": _PLAIN} | next((how for name, how in _TRAINED.items() if setting.method.startswith(name)), {})
    callback = functools.partial(_keep_norms, networks) if setting.method == "spectral_norm" else None
    history = train(
        networks, world, steps=setting.steps, lr=setting.lr, cosine=True, seed=[DATA_SEEDS + seed for seed in seeds],
        callback=callback, **how,
    )  # fmt: skip
    return networks, history.loss[-20:].double().mean(0).tolist()


@torch.no_grad()
def _keep_norms(networks, step, losses):
    """Training callback: scale every weight matrix whose largest singular value exceeds _NORM back to it, every fifth step."""
    for i in (0, 2, 4) if step % 5 == 4 else ():
        norms = torch.linalg.matrix_norm(torch.stack([network[i].weight for network in networks]), 2)
        for network, norm in zip(networks, norms, strict=True):
            network[i].weight *= (_NORM / norm).clamp(max=1)


def _train_alone(setting, network, seed):
    """Cross-entropy with dropout after every hidden layer, or with compact neurons whose shape rises from 0 to _SHAPE over the
    first half of the steps: in place, in a loop of its own. Returns the loss at the end."""
    random = torch.Generator().manual_seed(DATA_SEEDS + seed)
    optimizer = torch.optim.Adam([weight for weight in network.parameters() if weight.requires_grad], lr=setting.lr)
    schedule, record = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, setting.steps), []
    for step in range(setting.steps):
        x, y = setting.world.sample(64, generator=random)
        if setting.method == "compact":
            network[2].shape = _SHAPE * min(2 * (step + 1) / setting.steps, 1)
        logits = network(x) if setting.method == "compact" else _dropped(network, x, random)
        loss = nn.functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        record.append(loss.item())
    return float(np.mean(record[-20:]))


def _dropped(network, x, random):
    """The logits with every hidden neuron set to 0 with probability _DROPOUT, the others scaled up.

    For x [n, d] each point has its own chance, for x [1, n, d] all have the same.
    """
    for layer in network:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            kept = torch.rand(x.shape if x.dim() == 2 else (1, x.shape[-1]), generator=random) >= _DROPOUT
            x = x * kept / (1 - _DROPOUT)
    return x


def detector(setting: ObjectionSetting, networks: nn.Module | Sequence[nn.Module], seed: int) -> Callable:
    """What the method makes of a seed's trained network, or networks: a function of points x [n, 2], in float64.

    It gives (score [n], high in-distribution; predicted class [n]; confidence [n], NaN where the method has none).
    """
    random = torch.Generator().manual_seed(2 * DATA_SEEDS + seed)
    x_in, y_in = setting.world.sample(START, generator=random)
    x_in, network = x_in.double(), networks[0]
    of, method = _softmax_of(network), setting.method
    if method == "temperature":
        logits = network(x_in)
        temperatures = np.logspace(-2, 2, 401)
        best = min(temperatures, key=lambda t: nn.functional.cross_entropy(logits / t, y_in).item())
        of = _softmax_of(lambda x: network(x) / best)
    elif method == "one_vs_rest":
        of = lambda x: (network(x).amax(1), network(x).argmax(1), network(x).amax(1).sigmoid())  # noqa: E731
    elif method == "ensemble":
        of = _softmax_of(lambda x: torch.stack([member(x).log_softmax(1) for member in networks]).logsumexp(0))
    elif method == "dropout":
        masks = [torch.Generator().manual_seed(seed * _MASKS + i) for i in range(_MASKS)]
        states = [mask.get_state() for mask in masks]

        def mean(x):
            for mask, state in zip(masks, states, strict=True):
                mask.set_state(state)
            return torch.stack([_dropped(network, x[None], mask)[0].log_softmax(1) for mask in masks]).logsumexp(0)

        of = _softmax_of(mean)
    elif method == "laplace":
        of = _softmax_of(laplace(network, x_in))
    elif method == "patterns":
        known = set(_patterns(network, x_in))
        seen = lambda x: torch.tensor([pattern in known for pattern in _patterns(network, x)], dtype=x.dtype)  # noqa: E731
        of = _softmax_of(lambda x: network(x) * seen(x)[:, None])
    elif method.endswith("quadratic_reject"):
        out = setting.world.boundary(START, generator=random).double()
        logits = _quadratic_reject(network, x_in, y_in, out)
        of = lambda x: (  # noqa: E731
            scores.class_log_odds(logits(x)), logits(x)[:, :-1].argmax(1), scores.s2_log_odds(logits(x)).sigmoid(),
        )  # fmt: skip
    elif method.endswith(("mahalanobis", "knn")):
        distance = (_mahalanobis if method.endswith("mahalanobis") else _neighbour)(network[:-1], x_in, y_in)
        of = lambda x: (-distance(x), network(x).argmax(1), torch.full((len(x),), math.nan))  # noqa: E731
    return of


def _softmax_of(logits):
    """A detector by the largest softmax probability of logits(x)."""

    def of(x):
        odds = scores.max_softmax_log_odds(logits(x))
        return odds, logits(x).argmax(1), odds.sigmoid()

    return of


def laplace(network: nn.Module, x: torch.Tensor) -> Callable:
    """Logits of a last-layer Laplace approximation for two classes (Kristiadi et al. 2020): m / √(1 + π v / 8) and 0.

    m is the difference of the logits, v = φᵀ H⁻¹ φ with the features φ (and 1 for the bias) of the last hidden layer, and H the
    Hessian of the negative log-likelihood over points x plus _PRECISION. Along a ray both m and √v grow like the distance, so
    that the confidence stays below 1.
    """

    def features(x):
        return torch.cat([network[:-1](x), torch.ones(len(x), 1, dtype=x.dtype)], 1)

    def difference(x):
        logits = network(x)
        return logits[:, 1] - logits[:, 0]

    p, phi = difference(x).sigmoid(), features(x)
    hessian = (phi * (p * (1 - p))[:, None]).T @ phi + _PRECISION * torch.eye(phi.shape[1], dtype=phi.dtype)
    half = torch.linalg.cholesky(hessian)

    def logits(x):
        v = torch.linalg.solve_triangular(half, features(x).T, upper=False).square().sum(0)
        m = difference(x) / (1 + math.pi / 8 * v).sqrt()
        return torch.stack([torch.zeros_like(m), m], 1)

    return logits


def _mahalanobis(features, x, y):
    """The distance [n] of features to the nearest class mean, squared, by the classes' common covariance (Lee et al. 2018)."""
    phi = features(x)
    means = torch.stack([phi[y == k].mean(0) for k in range(int(y.max()) + 1)])
    centred = phi - means[y]
    covariance = centred.T @ centred / len(phi)
    inverse = torch.linalg.inv(covariance + (1e-6 * covariance.trace() / len(covariance) + 1e-12) * torch.eye(phi.shape[1]))

    def distance(x):
        off = features(x)[:, None] - means
        return ((off @ inverse) * off).sum(-1).amin(1)

    return distance


def _neighbour(features, x, y):
    """The distance [n] of features to the tenth nearest of those of the points x (Sun et al. 2022)."""
    phi = features(x)
    return lambda x: torch.cdist(features(x), phi, compute_mode="donot_use_mm_for_euclid_dist").kthvalue(_NEIGHBOURS, 1).values


def _quadratic_reject(network, x_in, y_in, x_out):
    """The network's logits and one more, Σ_j a_j φ_j² + b with a > 0, fitted to tell x_in from x_out (the idea of PreLoad).

    Rashid et al. (2024) give an extra class a logit that is quadratic in the features, so that it must win where they grow.
    """
    raw = torch.full((network[-1].weight.shape[1],), -5.0, dtype=x_in.dtype, requires_grad=True)
    bias = torch.zeros((), dtype=x_in.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([raw, bias], max_iter=200, line_search_fn="strong_wolfe")

    def logits(x):
        quadratic = network[:-1](x).square() @ nn.functional.softplus(raw) + bias
        return torch.cat([network(x), quadratic[:, None]], 1)

    def loss():
        optimizer.zero_grad()
        value = reject_loss(logits(x_in), y_in, logits(x_out))
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return logits


def run(setting, seeds):
    """Train and measure one network per seed: a list of dicts with the keys `setting.columns`, in the order of the seeds.

    accuracy, auroc, auroc_far, sure   as in `experiment.measure`, with the method's own score · auroc_ring: against the shell
    far_mean, far_max   mean and largest confidence at distance 1e8 in 3,600 directions
    one      the exact share of all directions in which the confidence goes to 1, from `polytopes.infinity`; of an ensemble that
             in which its members have the same winner; NaN where it does not follow from that
    known_patterns   the share of these far points whose activation pattern some of 1,000 in-distribution points have, too: that
             are in one unbounded polytope with it. "Trust only patterns you have seen" accepts those
    What a method does not have is NaN.
    """
    seeds = experiment.check_seeds(seeds)
    members = _MEMBERS if setting.method == "ensemble" else 1
    networks, losses = train_seeds(setting, [seed * members + i for seed in seeds for i in range(members)])
    rows = []
    for place, seed in enumerate(seeds):
        own = [plain(network) for network in networks[place * members : (place + 1) * members]]
        loss = float(np.mean(losses[place * members : (place + 1) * members]))
        rows.append({"seed": seed, "diverged": False, "loss": loss, **_measure(setting, own, seed)})
    return rows


def plain(network: nn.Module) -> nn.Module:
    """A copy in float64, of ordinary layers."""
    return copy.deepcopy(network).double().plain() if hasattr(network, "plain") else copy.deepcopy(network).double()


@torch.no_grad()
def _measure(setting, networks, seed):
    """The numbers of a seed's plain float64 networks, see `run`; always from the same test points."""
    world, random = setting.world, torch.Generator().manual_seed(TEST_SEED)
    x, y = world.sample(POINTS, generator=random)
    ring = world.boundary(POINTS, generator=random)
    boxes = [world.box(POINTS, generator=random, half_width=half_width) for half_width in (NEAR, FAR)]
    angle = torch.arange(_DIRECTIONS, dtype=torch.float64) * 2 * math.pi / _DIRECTIONS
    far = _FAR_AWAY * torch.stack([angle.cos(), angle.sin()], 1)
    of = detector(setting, networks, seed)
    (inside, label, _), near, wide = of(x.double()), *(of(points.double()) for points in boxes)
    confidence = of(far)[2]
    return {
        "accuracy": (label == y).double().mean().item(),
        "auroc": scores.auroc(inside, near[0]),
        "auroc_ring": scores.auroc(inside, of(ring.double())[0]),
        "auroc_far": scores.auroc(inside, wide[0]),
        "sure": math.nan if near[2].isnan().any() else (near[2] > experiment.SURE).double().mean().item(),
        "far_mean": confidence.mean().item(),
        "far_max": confidence.max().item(),
        "one": certain(setting, networks),
        "known_patterns": _known_patterns(networks[0], x.double()[:1000], far),
    }


def certain(setting: ObjectionSetting, networks: nn.Module | Sequence[nn.Module]) -> float:
    """The exact share of directions in which the confidence goes to 1; NaN for methods where slopes alone do not decide."""
    if setting.method in ("one_vs_rest", "dropout", "laplace", "patterns", "compact") or setting.method.endswith(_IN_FEATURES):
        return math.nan
    circles = [polytopes.infinity(network) for network in networks]
    start = np.unique(np.concatenate([circle.start for circle in circles]))
    width = np.diff(start, append=start[0] + 2 * math.pi)
    winners = [np.where(circle.tie, -1, circle.winner)[_sector(circle, start + width / 2)] for circle in circles]
    agreed = (np.array(winners) == winners[0]).all(0) & (winners[0] >= 0)
    return float(width[agreed].sum() / (2 * math.pi))


def _sector(circle, angle):
    """The sectors [n] of `polytopes.infinity` in which angles [n] lie."""
    return np.searchsorted(circle.start, circle.start[0] + (angle - circle.start[0]) % (2 * math.pi), side="right") - 1


def _patterns(network, points):
    """The activation pattern of each point: which neurons of the hidden layers are active, as bytes."""
    found = []
    for layer in network[:-1]:
        points = layer(points)
        if isinstance(layer, nn.ReLU):
            found.append(points > 0)
    return [row.tobytes() for row in np.packbits(torch.cat(found, 1).numpy(), axis=1)]


def _known_patterns(network, x, far):
    """The share of points `far` whose activation pattern one of the points x has."""
    known = set(_patterns(network, x))
    return float(np.mean([pattern in known for pattern in _patterns(network, far)]))


_BEYOND_THE_PICTURE = ("silent", "silent_mahalanobis", "silent_knn", "silent_quadratic_reject", "closed_mahalanobis")
SETTINGS = {f"why_two_{method}": ObjectionSetting(method) for method in METHODS}
SETTINGS |= {f"why_moons_{method}": ObjectionSetting(method, "moons") for method in METHODS if method not in _BEYOND_THE_PICTURE}
