"""One experiment of the paper, from its description to its numbers: one network per seed, all measured in the same way.

A `Setting` says everything that matters. `run` trains and measures; `stored` keeps the numbers on disk.
"""

import ctypes
import functools
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from ood_helpers import horizon, polytopes, scores, worlds
from ood_helpers.arrays import keep_whole, whole
from ood_helpers.data import FourGaussians, Sampler, TwoGaussians
from ood_helpers.losses import confidence_loss, reject_loss
from ood_helpers.models import mlp
from ood_helpers.training import History, train

METHODS = ("confident", "reject")
_METHOD_OF_PENALTY = {"far_field": "reject", "silent": "confident"}  # losses at infinity, and the method that each is for
POINTS = 4000  # in-distribution points, and points of each test box
START = 1000  # points that a closed network's centre and biases start from
_DIRECTIONS = 20_000  # random directions, where they cannot all be known
NEAR, FAR = 50.0, 1000.0  # half widths of the test boxes; the first is the paper's
SURE, _UNSURE = 0.9, 0.6  # the paper's colour bands: unsure in [0.5, 0.6], sure in (0.9, 1]
_FAR_OUT = 1e4  # distance at which the entropy is looked at
DATA_SEEDS, TEST_SEED = 10_000, 123_456  # points come from other random numbers than the initial weights, and tests from others
_LARGE, _LARGE_GROUP = 200, 4  # from this width on, so many networks are trained together
_POOLS = {"in": 1_000_000, "ood": 2_000_000}

WORLDS = {
    "two": TwoGaussians,
    "overlap": functools.partial(TwoGaussians, separation=3.0),
    "four": FourGaussians,
    "moons": worlds.TwoMoons,
    "rings": worlds.Rings,
}

_MEASURES = (
    "accuracy", "class_accuracy", "confidence_in",
    "auroc", "fpr95", "auroc_max", "sure", "unsure", "rejected",
    "auroc_far", "sure_far",
    "directions_class", "directions_tied", "limit_above", "entropy_far",
    "area_sure", "area_reject", "peak",
)  # fmt: skip
COLUMNS = ("seed", "diverged", "loss", *_MEASURES)


@dataclass(frozen=True)
class Setting:
    """What is trained, on what, and how. The defaults are the paper's text; ValueError says which value is not allowed.

    method       "confident": Eq. (1), terms (a) + β (b) · "reject": one more class for the OOD points (§4)
    ood          training OOD points: "boundary", a shell around each class · "general", the box [-50, 50]^d
    width, depth, activation, init   as in `models.mlp`
    std, dim, separation   of the world `data.TwoGaussians`
    beta         weight of the KL term, confident only
    inner, outer radii of the shell in standard deviations, boundary only
    n_train      None: fresh in-distribution points in every step; a number: a pool of so many, drawn once per seed, from
                 which every step takes random rows
    n_ood        the same for the OOD points
    steps, batch, lr, cosine         as in `training.train`: `batch` in-distribution and as many OOD rows in every step
    classes      2: `data.TwoGaussians` · 4: `data.FourGaussians`, in the plane
    penalty      also train what the network is infinitely far away: "far_field", reject only, `horizon.far_field_loss` ·
                 "silent", confident with hidden layers of ReLU only, `horizon.silent_horizon_loss`
    penalty_weight   positive with a penalty, 0 without
    penalty_margin   of "silent": positive
    exact        also measure areas and the largest confidence on the polytopes of the box (ReLU, two dimensions; seconds)
    """

    method: str
    ood: str = "boundary"
    width: int = 500
    depth: int = 2
    activation: str = "relu"
    init: str = "torch"
    std: float = 1.0
    dim: int = 2
    separation: float = 20.0
    beta: float = 1.0
    inner: float = 3.0
    outer: float = 3.5
    n_train: int | None = None
    n_ood: int | None = None
    steps: int = 1500
    batch: int = 64
    lr: float = 1e-3
    cosine: bool = True
    exact: bool = False
    classes: int = 2
    penalty: str = ""
    penalty_weight: float = 0.0
    penalty_margin: float = 0.1

    def __post_init__(self):
        check_among(self, method=METHODS, ood=("boundary", "general"))
        keep_whole(self, width=1, depth=0, dim=1, n_train=1, n_ood=1, steps=1, batch=1, classes=1)
        for name, good, what in [
            ("beta", isinstance(self.beta, Real) and 0 <= self.beta < math.inf, "a number of at least 0"),
            ("lr", isinstance(self.lr, Real) and 0 < self.lr < math.inf, "a positive number"),
            ("cosine", isinstance(self.cosine, bool), "True or False"),
            ("exact", isinstance(self.exact, bool), "True or False"),
        ]:
            if not good:
                raise ValueError(f"{name} must be {what}; got {getattr(self, name)!r}")
        if self.exact and not (self.dim == 2 and self.is_relu and self.depth):
            raise ValueError(
                "exact must be False unless a ReLU network looks at the plane: "
                f"got dim {self.dim}, activation {self.activation!r}, depth {self.depth}"
            )
        if self.classes not in (2, 4) or (self.classes == 4 and self.dim != 2):
            raise ValueError(f"classes must be 2, or 4 where dim is 2; got {self.classes} with dim {self.dim}")
        self._check_penalty()
        self.network(0)
        self.ood_points(1, generator=torch.Generator())

    def _check_penalty(self):
        if self.penalty not in ("", *_METHOD_OF_PENALTY):
            raise ValueError(f"penalty must be one of '', {', '.join(map(repr, _METHOD_OF_PENALTY))}; got {self.penalty!r}")
        weight = self.penalty_weight
        if not (isinstance(weight, Real) and 0 <= weight < math.inf and (weight > 0) == bool(self.penalty)):
            raise ValueError(f"penalty_weight must be a positive number with a penalty, 0 without; got {weight!r}")
        margin = self.penalty_margin
        if not (isinstance(margin, Real) and 0 < margin < math.inf and (self.penalty == "silent" or margin == 0.1)):
            raise ValueError(f"penalty_margin must be a positive number with the penalty 'silent', else 0.1; got {margin!r}")
        if self.penalty and self.method != _METHOD_OF_PENALTY[self.penalty]:
            raise ValueError(
                f"penalty {self.penalty!r} needs the method {_METHOD_OF_PENALTY[self.penalty]!r}; got {self.method!r}"
            )
        if (self.penalty and not self.is_relu) or (self.penalty == "silent" and not (self.activation == "relu" and self.depth)):
            raise ValueError(
                f"penalty {self.penalty!r} needs a ReLU network, and 'silent' a hidden layer that can be off; "
                f"got activation {self.activation!r}, depth {self.depth}"
            )

    columns = COLUMNS

    @property
    def work(self):
        """About how many multiplications of numbers a network of this setting takes; only the order among settings counts."""
        size = self.dim * self.width + (self.depth - 1) * self.width**2
        return self.steps * self.batch * (size + 3000)  # the 3,000 stand for what a step costs whatever the size

    @property
    def world(self):
        if self.classes == 4:
            return FourGaussians(std=self.std, separation=self.separation)
        return TwoGaussians(std=self.std, dim=self.dim, separation=self.separation)

    @property
    def is_relu(self):
        return self.activation in ("relu", "leaky_relu")

    @property
    def ood_points(self):
        """The sampler of training OOD points, called with (n, generator=g)."""
        if self.ood == "general":
            return functools.partial(self.world.box, half_width=NEAR)
        return functools.partial(self.world.boundary, inner=self.inner, outer=self.outer)

    @property
    def loss(self):
        return reject_loss if self.method == "reject" else functools.partial(confidence_loss, beta=self.beta)

    @property
    def penalty_loss(self):
        """The loss at infinity, a function of network and directions; None without a penalty."""
        silent = functools.partial(horizon.silent_horizon_loss, margin=self.penalty_margin)
        return {"": None, "far_field": horizon.far_field_loss, "silent": silent}[self.penalty]

    def network(self, seed):
        """An untrained network; the seed decides its weights."""
        outputs = self.classes + (self.method == "reject")
        generator = torch.Generator().manual_seed(seed)
        return mlp(self.dim, self.width, outputs, self.depth, self.activation, init=self.init, generator=generator)


def train_seeds(setting: Setting, seeds: Sequence[int], ood: Sampler | None = None) -> tuple[list[nn.Sequential], History]:
    """One network per seed, trained in one batched run: (networks, history). A seed decides the weights and the points.

    ood  sampler of training OOD points in place of the setting's own
    A network that diverges is listed in `history.diverged` (by its place among the seeds) and keeps its last good weights.
    ValueError for seeds that are not distinct whole numbers from 0 to 9999, or if every network diverges.
    """
    seeds = check_seeds(seeds)
    networks = [setting.network(seed) for seed in seeds]
    world, ood = setting.world, ood or setting.ood_points
    if setting.n_train:
        world = SimpleNamespace(sample=_pool(world.sample, setting.n_train, _POOLS["in"]))
    if setting.n_ood:
        ood = _pool(ood, setting.n_ood, _POOLS["ood"])
    history = train(
        networks, world, setting.loss, ood, steps=setting.steps, batch=setting.batch, lr=setting.lr, cosine=setting.cosine,
        seed=[DATA_SEEDS + seed for seed in seeds], penalty=setting.penalty_loss if setting.penalty else None,
        penalty_weight=setting.penalty_weight, callback=_give_back,
    )  # fmt: skip
    return networks, history


def run(setting: Setting, seeds: Sequence[int], ood: Sampler | None = None, measured: Callable | None = None) -> list[dict]:
    """Train and measure one network per seed: a list of dicts with the keys `setting.columns`, in the order of the seeds.

    ood as in `train_seeds` · measured  measured(setting, network) in place of `measure`: a dict of the columns from the fourth on

    loss is the mean training loss of the last 20 steps. A network that diverged is named in a warning, has diverged=True and
    NaN for every number; the others are not touched by it. ValueError as in `train_seeds`, but not if every network diverges.
    Large networks are trained a few at a time: more of them would not fit in the processor's cache, and take up to 1.5 times as
    long.
    """
    seeds = check_seeds(seeds)
    group = _LARGE_GROUP if setting.width >= _LARGE else len(seeds)
    return [row for i in range(0, len(seeds), group) for row in _run_together(setting, seeds[i : i + group], ood, measured)]


def _run_together(setting, seeds, ood, measured):
    try:
        networks, history = train_seeds(setting, seeds, ood)
        diverged, losses = history.diverged, history.loss[-20:].double().mean(0).tolist()
    except ValueError as error:  # seeds and setting are in order, so `train` found no network left to train
        warnings.warn(str(error), stacklevel=3)
        diverged = range(len(seeds))
    rows = []
    for place, seed in enumerate(seeds):
        if place in diverged:
            rows.append(lost(setting, seed))
        else:
            numbers = (measured or measure)(setting, networks[place])
            rows.append({"seed": seed, "diverged": False, "loss": losses[place], **numbers})
    return rows


def lost(setting, seed, how="diverged"):
    """The row of a seed whose network diverged, or whose triple collapsed: it is named in a warning, and every number is NaN."""
    warnings.warn(f"seed {seed} {how}, its measures are NaN: {setting}", stacklevel=4)
    return dict.fromkeys(setting.columns, math.nan) | {"seed": seed, "diverged": True}


def measure(setting: Setting, network: nn.Module) -> dict:
    """The numbers of one trained network, a dict with the measures among `Setting.columns`; always from the same test points.

    "Confidence" is the largest probability among the in-distribution classes, for both methods. Shares are in [0, 1].
    accuracy, class_accuracy   share of in-distribution points given their class, among all outputs · among the classes
    confidence_in              mean confidence on in-distribution points
    auroc, fpr95               box against in-distribution points (`scores`); score: confident: the confidence, reject:
                               1 − probability of reject; both as log-odds in float64
    auroc_max                  reject only: the same with the confidence as score
    sure, unsure               share of the box's OOD points with confidence above 0.9 · in [0.5, 0.6]
    rejected                   reject only: share of the box's OOD points whose largest output is reject
    auroc_far, sure_far        as auroc and sure, in a box 20 times as wide
    directions_class           share of directions whose k* is an in-distribution class, alone or in a tie; exact in two
                               dimensions, from random directions (each exact) in others; NaN unless ReLU
    directions_tied            share of directions with several k* (the same remarks); those of a silent horizon are among them
    limit_above                share of directions in which the confidence goes to 1: a unique k*, not reject
    entropy_far                mean entropy of all outputs at distance 1e4 in random directions, as a share of its maximum
    area_sure, area_reject     with `exact`: share of the box's OOD area with confidence above 0.9 · won by reject
    peak                       with `exact`: the largest confidence anywhere in the box's OOD area
    What a setting does not have is NaN.
    """
    world, classes, generator = setting.world, setting.classes, torch.Generator().manual_seed(TEST_SEED)
    x, y = world.sample(POINTS, generator=generator)
    boxes = [world.box(POINTS, generator=generator, half_width=half_width) for half_width in (NEAR, FAR)]
    unit = torch.nn.functional.normalize(torch.randn(_DIRECTIONS, setting.dim, generator=generator), dim=1)
    with torch.no_grad():
        inside, near, far, out = (network(points) for points in (x, *boxes, _FAR_OUT * unit[:POINTS]))
    score = scores.class_log_odds if setting.method == "reject" else scores.max_softmax_log_odds
    odds_in, odds_near, odds_far = (scores.max_softmax_log_odds(logits, classes) for logits in (inside, near, far))
    reject = setting.method == "reject"
    return {
        "accuracy": _share(inside.argmax(1) == y),
        "class_accuracy": _share(inside[:, :classes].argmax(1) == y),
        "confidence_in": odds_in.sigmoid().mean().item(),
        "auroc": scores.auroc(score(inside), score(near)),
        "fpr95": scores.fpr_at_95_tpr(score(inside), score(near)),
        "auroc_max": scores.auroc(odds_in, odds_near) if reject else math.nan,
        "sure": _share(odds_near > _log_odds(SURE)),
        "unsure": _share((odds_near >= 0) & (odds_near <= _log_odds(_UNSURE))),
        "rejected": _share(near.argmax(1) == classes) if reject else math.nan,
        "auroc_far": scores.auroc(score(inside), score(far)),
        "sure_far": _share(odds_far > _log_odds(SURE)),
        **_far_field(setting, network, unit),
        "entropy_far": scores.entropy(out).mean().item() / math.log(out.shape[1]),
        **_exact(setting, network),
    }


def _far_field(setting, network, unit):
    """Who wins infinitely far away: on the whole circle in two dimensions, else along the given directions [n, d]."""
    if not setting.is_relu:
        return dict.fromkeys(("directions_class", "directions_tied", "limit_above"), math.nan)
    if setting.dim == 2:
        sectors = polytopes.infinity(network)
        winner, tie, weight = sectors.winner, sectors.tie, sectors.width / sectors.width.sum()
    else:
        winner, tie = polytopes.directions(network, unit.double().numpy())
        weight = np.full(len(unit), 1 / len(unit))
    return {
        "directions_class": float(weight[winner < setting.classes].sum()),
        "directions_tied": float(weight[tie].sum()),
        "limit_above": float(weight[(winner < setting.classes) & ~tie].sum()),
    }


def _exact(setting, network):
    """Areas and the largest confidence, from the polytopes of the paper's box without the classes' discs."""
    found = dict.fromkeys(("area_sure", "area_reject", "peak"), math.nan)
    if not setting.exact:
        return found
    cells, classes = polytopes.plane(network, -NEAR, NEAR), list(range(setting.classes))
    discs = {"means": setting.world.means.numpy(), "radius": 3 * setting.std}
    area = polytopes.measures.ood_area(cells, **discs)
    bounds = polytopes.measures.confident_area(cells, SURE, classes=classes, **discs)
    found["area_sure"] = (bounds.low + bounds.high) / 2 / area
    if setting.method == "reject":
        found["area_reject"] = float(polytopes.measures.class_areas(cells, **discs)[setting.classes] / area)
    found["peak"] = polytopes.measures.most_confident(cells, classes=classes, **discs).confidence
    return found


def _pool(draw, size, offset):
    """A sampler like `draw` that takes random rows, with replacement, of a pool of `size` points; each seed has its own pool.

    The pool is drawn anew in every call, from the seed of the generator that is passed in: nothing needs to be remembered.
    """

    def take(n, *, generator):
        pool = draw(size, generator=torch.Generator().manual_seed(offset + generator.initial_seed()))
        rows = torch.randint(size, (n,), generator=generator)
        return pool[rows] if isinstance(pool, torch.Tensor) else tuple(part[rows] for part in pool)

    return take


def check_among(setting, **allowed):
    """ValueError that names a field of the setting whose value is not among those that are allowed."""
    for name, values in allowed.items():
        if getattr(setting, name) not in values:
            shown = ", ".join(value or "''" for value in values)
            raise ValueError(f"{name} must be one of {shown}; got {getattr(setting, name)!r}")


def check_seeds(seeds):
    """The seeds as a list; ValueError unless they are one or more distinct whole numbers from 0 to 9999."""
    try:
        good = [whole("seeds", seed, 0) for seed in seeds]
    except (TypeError, ValueError):
        good = []
    if not (good and max(good) < DATA_SEEDS and len(set(good)) == len(good)):
        raise ValueError(f"seeds must be one or more distinct whole numbers from 0 to {DATA_SEEDS - 1}; got {seeds}")
    return good


def _give_back(step, losses):
    """Training callback: now and then give freed memory back, where Linux's allocator would keep gigabytes of it in pieces."""
    if sys.platform == "linux" and step % 500 == 499:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)


def _share(which):
    return which.double().mean().item()


def _log_odds(p):
    return math.log(p / (1 - p))
