"""Which OOD samples make a good detector? Samplers by worlds by methods, all measured in the same way.

As in `experiment`, a setting says everything that matters, and `run` trains and measures one network per seed. Every seed has
its own 1,000 training points, from which its sampler makes 1,000 OOD points; training sees nothing else of the world.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import nn

from ood_helpers import data, horizon, polytopes, samplers, scores, worlds
from ood_helpers.arrays import keep_whole
from ood_helpers.lab import experiment
from ood_helpers.lab.experiment import DATA_SEEDS, FAR, NEAR, POINTS, TEST_SEED, check_among, check_seeds
from ood_helpers.losses import confidence_loss, reject_loss
from ood_helpers.models import mlp
from ood_helpers.training import train

WORLDS = {"gaussians": data.TwoGaussians(), "moons": worlds.TwoMoons(), "rings": worlds.Rings()}
_CLASSES = 2  # of each of these worlds; a reject network has one more output
# by name, sampler(world, x, y): the first two know the true world, the others see the training points x, y alone
SAMPLERS = {
    "boundary": lambda world, x, y: samplers.off_boundary(world),
    "wide": lambda world, x, y: samplers.off_boundary(world, outer=8.0),
    "knn": lambda world, x, y: samplers.knn_noise(x, y),
    "gaussian": lambda world, x, y: samplers.class_gaussians(x, y),
    "normals": lambda world, x, y: samplers.normals(x, y),
}
METHODS = ("confident", "reject", "silent")
_POOL = 1000  # training points, and OOD points
_POOL_SEEDS = 3_000_000
_MEASURES = (
    "accuracy", "auroc", "fpr95", "auroc_far", "fpr95_far", "directions_class", "directions_tied",
    "coverage", "near", "inside",
)  # fmt: skip
_COLUMNS = ("seed", "diverged", "loss", *_MEASURES)


@dataclass(frozen=True)
class SampleSetting:
    """A world, where its OOD samples come from, and what is trained on them. ValueError names a field with a bad value.

    shape    of the world: a name in `WORLDS` · sampler: a name in `SAMPLERS`
    method   "confident": Eq. (1), terms (a) + (b), beta 1 · "silent": the same, plus 0.1 times `horizon.silent_horizon_loss` ·
             "reject": one more class for the OOD points
    width, depth, steps, lr   of the network and its training. With the learning rate of `experiment`, 0.001, the reject class
             does not learn the rings in 1,500 steps (accuracy 0.53 … 0.56), but does in 6,000
    """

    shape: str
    sampler: str
    method: str
    width: int = 100
    depth: int = 2
    steps: int = 1500
    lr: float = 5e-3

    def __post_init__(self):
        check_among(self, shape=WORLDS, sampler=SAMPLERS, method=METHODS)
        keep_whole(self, width=1, depth=1, steps=1)
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be a positive number; got {self.lr!r}")
        self.network(0)

    columns = _COLUMNS

    @property
    def work(self):
        """About how many multiplications of numbers a network takes, on the scale of `experiment.Setting.work`."""
        size = 2 * self.width + (self.depth - 1) * self.width**2
        return self.steps * 64 * (size * (1.5 if self.method == "silent" else 1) + 3000)

    @property
    def world(self):
        return WORLDS[self.shape]

    @property
    def loss(self):
        return reject_loss if self.method == "reject" else functools.partial(confidence_loss, beta=1.0)

    @property
    def penalty(self):
        """What `train` is told about the far field."""
        return {"penalty": horizon.silent_horizon_loss, "penalty_weight": 0.1} if self.method == "silent" else {}

    def network(self, seed):
        """An untrained network; the seed decides its weights."""
        generator = torch.Generator().manual_seed(seed)
        return mlp(2, self.width, _CLASSES + (self.method == "reject"), self.depth, generator=generator)

    def points(self, seed):
        """What training sees of the world: (x [1000, 2], y [1000], OOD points [1000, 2]); the same for all methods."""
        generator = torch.Generator().manual_seed(_POOL_SEEDS + seed)
        x, y = self.world.sample(_POOL, generator=generator)
        return x, y, SAMPLERS[self.sampler](self.world, x, y)(_POOL, generator=generator)


@dataclass(frozen=True)
class Pools:
    """Points to train on, in place of a world: each seed takes random rows, with replacement, of its own pool.

    by_seed  (x [n, d], y [n], OOD points [m, d]) by the seed that `train` is given for the network
    """

    by_seed: dict

    def sample(self, n, *, generator):
        """n in-distribution points [n, d] and their classes [n]."""
        x, y, _ = self.by_seed[generator.initial_seed()]
        rows = torch.randint(len(x), (n,), generator=generator)
        return x[rows], y[rows]

    def ood(self, n, *, generator):
        """n OOD points [n, d]."""
        _, _, out = self.by_seed[generator.initial_seed()]
        return out[torch.randint(len(out), (n,), generator=generator)]


def _train_seeds(setting, seeds):
    """One network per seed, trained in one batched run: (networks, `Pools` that they were trained on, history).

    ValueError for seeds that are not distinct whole numbers from 0 to 9999, or if every network diverges.
    """
    seeds = check_seeds(seeds)
    networks = [setting.network(seed) for seed in seeds]
    pools = Pools({DATA_SEEDS + seed: setting.points(seed) for seed in seeds})
    how = {"steps": setting.steps, "lr": setting.lr, "cosine": True, "seed": list(pools.by_seed), **setting.penalty}
    return networks, pools, train(networks, pools, setting.loss, pools.ood, **how)


def run(setting, seeds):
    """Train and measure one network per seed: a list of dicts with the keys `setting.columns`, in the order of the seeds.

    loss is the mean training loss of the last 20 steps. A network that diverged is named in a warning, with diverged=True and
    NaN for the detector's measures.
    """
    seeds = check_seeds(seeds)
    networks, pools, history = _train_seeds(setting, seeds)
    losses = history.loss[-20:].double().mean(0).tolist()
    rows = []
    for place, (seed, network, (_, _, out)) in enumerate(zip(seeds, networks, pools.by_seed.values(), strict=True)):
        if place in history.diverged:
            row = experiment.lost(setting, seed)
        else:
            row = {"seed": seed, "diverged": False, "loss": losses[place], **measure_detector(setting, network)}
        rows.append(row | {name: measure(out, setting.world) for name, measure in SAMPLE_MEASURES.items()})
    return rows


# of a seed's 1,000 OOD points: the share of the true boundary that they cover, and their shares near it and inside the classes
SAMPLE_MEASURES = {"coverage": samplers.share_covered, "near": samplers.share_near, "inside": samplers.share_inside}


def measure_detector(setting: SampleSetting, network: nn.Module) -> dict:
    """The numbers of one trained network, a dict; always from the same test points.

    accuracy           share of in-distribution points given their class, among all outputs
    auroc, fpr95       box of half width 50 against in-distribution points (`scores`); score: the confidence or, of a reject
                       network, 1 − probability of reject; both as log-odds in float64
    auroc_far, fpr95_far   the same in a box of half width 1,000
    directions_class   share of all directions whose k* is a class, alone or in a tie: exact
    directions_tied    share of all directions with several k*: exact; silence is a tie
    """
    world, generator = setting.world, torch.Generator().manual_seed(TEST_SEED)
    x, y = world.sample(POINTS, generator=generator)
    boxes = [world.box(POINTS, generator=generator, half_width=half_width) for half_width in (NEAR, FAR)]
    score = scores.class_log_odds if setting.method == "reject" else scores.max_softmax_log_odds
    with torch.no_grad():
        logits = network(x)
        inside, near, far = score(logits), *(score(network(points)) for points in boxes)
    circle = polytopes.infinity(network)
    share = circle.width / circle.width.sum()
    return {
        "accuracy": (logits.argmax(1) == y).double().mean().item(),
        "auroc": scores.auroc(inside, near),
        "fpr95": scores.fpr_at_95_tpr(inside, near),
        "auroc_far": scores.auroc(inside, far),
        "fpr95_far": scores.fpr_at_95_tpr(inside, far),
        "directions_class": float(share[circle.winner < _CLASSES].sum()),
        "directions_tied": float(share[circle.tie].sum()),
    }


SETTINGS = {
    f"samples_{shape}_{sampler}_{method}": SampleSetting(shape, sampler, method)
    for shape in WORLDS
    for sampler in SAMPLERS
    for method in METHODS
}
