"""The experiments of section 5.2, from their description to their numbers: what a GAN makes, and the detectors trained on it.

As in `experiment`, a setting says everything that matters, and `run` trains and measures one triple of networks per seed.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ood_helpers import gan
from ood_helpers.arrays import keep_whole
from ood_helpers.data import Gaussians, TwoGaussians
from ood_helpers.lab import experiment
from ood_helpers.losses import confidence_loss
from ood_helpers.models import mlp
from ood_helpers.training import train

STD = 0.1  # the scale of the paper's Figure 5
MARKS = (100, 300, 500, 700, 1000)  # iterations at which the samples are looked at
_SAMPLES = 500
_NEAR_SHELL = (2.5, 5.0)  # in standard deviations: what counts as near the boundary
_MEASURES = tuple(f"{name}_{mark}" for mark in MARKS for name in ("coverage", "near", "inside", "diversity", "distance"))
_COLUMNS = (*experiment.COLUMNS, *_MEASURES)


@dataclass(frozen=True)
class GanSetting:
    """One joint training of Eq. (1), and perhaps a detector that is trained on its samples afterwards.

    separation  between the class means, in standard deviations
    width, classifier_width  hidden neurons: of generator and discriminator (three layers) · of the classifier (two layers)
    steps       iterations, up to the last of `MARKS` that counts
    pretrained  the joint training begins with a classifier that was trained on the true shell: "no", "frozen" (and it stays as it
                is) or "trained on"
    detector    "": none; "confident" or "reject": train one of width 100 on samples of the final generator
    slip        the published code's slip: the generator's step also moves the classifier
    The other fields are arguments of `gan.train_gan_steps`. ValueError that names a field with a bad value.
    """

    separation: float = 7.0
    width: int = 128
    classifier_width: int = 128
    init: str = "glorot"
    steps: int = 1000
    beta_generator: float = 50.0
    beta_classifier: float = 1.0
    lr: float = 1e-4
    kind: str = "gan"
    discriminator_steps: int = 1
    slip: bool = False
    pretrained: str = "no"
    detector: str = ""

    def __post_init__(self):
        keep_whole(self, width=1, classifier_width=1, steps=1, discriminator_steps=1)
        experiment.check_among(self, pretrained=("no", "frozen", "trained on"), detector=("", *experiment.METHODS))

    columns = _COLUMNS

    @property
    def work(self):
        """About how many multiplications a triple takes; only the order among settings counts."""
        size = 2 * (100 * self.width + 2 * self.width**2) + self.classifier_width**2
        return self.steps * 100 * (size + 9000) + (1500 * 64 * 13_000 if self.detector else 0)

    @property
    def world(self):
        return TwoGaussians(std=STD, separation=STD * self.separation)

    def triple(self, seed):
        """Untrained generator, discriminator and classifier; the seed decides their weights."""
        random = [torch.Generator().manual_seed(1000 * k + seed) for k in (1, 2, 3)]
        return (
            gan.generator(width=self.width, init=self.init, generator=random[0]),
            gan.discriminator(width=self.width, init=self.init, generator=random[1]),
            mlp(width=self.classifier_width, init=self.init, generator=random[2]),
        )


def train_seeds(setting, seeds):
    """One triple per seed, trained in one batched run: (generators, discriminators, classifiers, `gan.GanHistory`)."""
    G, D, C = map(list, zip(*(setting.triple(seed) for seed in experiment.check_seeds(seeds)), strict=True))
    if setting.pretrained != "no":
        loss = functools.partial(confidence_loss, beta=1.0)
        train(C, setting.world, loss, steps=1000, seed=[experiment.DATA_SEEDS + seed for seed in seeds])
    history = gan.train_gan(
        G,
        D,
        C,
        setting.world,
        steps=setting.steps,
        seed=list(seeds),
        snapshots=[mark for mark in MARKS if mark <= setting.steps],
        samples=_SAMPLES,
        beta_generator=setting.beta_generator,
        beta_classifier=setting.beta_classifier,
        lr=setting.lr,
        kind=setting.kind,
        discriminator_steps=setting.discriminator_steps,
        generator_trains_classifier=setting.slip,
        freeze_classifier=setting.pretrained == "frozen",
    )
    return G, D, C, history


def run(setting, seeds):
    """Train and measure one triple per seed: a list of dicts with the keys `setting.columns`, in the order of the seeds.

    coverage_m, near_m, inside_m, diversity_m and distance_m, for every mark m, are of the samples after m iterations:
    `gan.coverage`; the shares within `_NEAR_SHELL` and within 3 deviations of the nearest mean; `gan.diversity`; the median of
    |distance| from the boundary. The columns of `experiment.run` are the detector's: it is measured in units of standard
    deviations, in the same boxes.
    NaN is what a setting does not have. A triple that collapsed is named in a warning, with diverged=True and NaN.
    """
    seeds = list(experiment.check_seeds(seeds))
    G, _, _, history = train_seeds(setting, seeds)
    rows = []
    for place, seed in enumerate(seeds):
        if place in history.collapsed:
            row = experiment.lost(setting, seed, "collapsed")
        else:
            row = dict.fromkeys(_COLUMNS, math.nan) | {"seed": seed, "diverged": False}
            for mark, points in history.snapshots.items():
                row |= {f"{name}_{mark}": value for name, value in measure(points[place], setting.world).items()}
        rows.append(row)
    alive = [place for place, row in enumerate(rows) if not row["diverged"]]
    if setting.detector:
        found = _detect(setting, [seeds[place] for place in alive], [G[place] for place in alive])
        for place, row in zip(alive, found, strict=True):
            rows[place] |= row
    return rows


def measure(points: Tensor, world: Gaussians) -> dict[str, float]:
    """The numbers of one set of samples [n, 2]; see `run`."""
    radius = world.mahalanobis(points)
    return {
        "coverage": gan.coverage(points, world, inner=_NEAR_SHELL[0], outer=_NEAR_SHELL[1]),
        "near": ((radius >= _NEAR_SHELL[0]) & (radius <= _NEAR_SHELL[1])).double().mean().item(),
        "inside": gan.share_inside(points, world),
        "diversity": gan.diversity(points, world),
        "distance": gan.boundary_distance(points, world).abs().median().item(),
    }


def _detect(setting, seeds, generators):
    """Train a detector on fresh samples of each seed's generator and measure it: the rows of `experiment.run`, one per seed.

    Points are taken in units of standard deviations, so that world and boxes are those of `experiment`.
    """
    made_by = {experiment.DATA_SEEDS + seed: model for seed, model in zip(seeds, generators, strict=True)}

    def ood(n, *, generator):
        return gan.sample(made_by[generator.initial_seed()], n, generator=generator) / STD

    return experiment.run(_detector_setting(setting), seeds, ood)


def _detector_setting(setting):
    """The `experiment.Setting` of a GAN setting's detector, but for its OOD points."""
    return experiment.Setting(setting.detector, width=100, separation=setting.separation)
