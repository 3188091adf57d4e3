"""Experiments beyond the paper: losses at infinity, trained and measured like the paper's own experiments.

`SETTINGS` holds them by name. Most are an `experiment.Setting` with a penalty. Three kinds have a class here: networks whose
silence is certified in more than two dimensions, detectors trained on a GAN's samples, and digits. `run` runs those.

All networks up to width 100, with a penalty or without, get one recipe: learning rate 2e-3, 1,200 steps. It and the weight 0.3
of the silent horizon were chosen by a small search over seeds from 1000 on: weights 0.1 and 0.3, with this recipe or the paper's
(1e-3, 1,500 steps). The margin 1 for more than two dimensions was chosen in the same way from 0.1, 0.3 and 1. At width 500 that
recipe kills many networks ("silent_500x2_fast"): the penalty is a sum over the neurons. Theirs was chosen afterwards, again on
seeds 1000 and 1001: learning rate 1e-3, weight 0.1.
"""

import math
from dataclasses import asdict, dataclass

import torch

from ood_helpers import gan, horizon, images, polytopes, scores
from ood_helpers.arrays import keep_whole
from ood_helpers.lab import experiment, gans
from ood_helpers.lab.experiment import Setting
from ood_helpers.lab.gans import GanSetting
from ood_helpers.lab.paper import shell
from ood_helpers.models import mlp

_DIGIT_DIRECTIONS = 2000
_DIGIT_TESTS = 2000  # images of each kind
_CERTIFICATE = ("certified", "refuted", "largest_load")


@dataclass(frozen=True)
class CertifiedSetting(Setting):
    """A `Setting` with two hidden layers of ReLU whose networks are also given to `polytopes.silent_certificate`."""

    columns = (*experiment.COLUMNS, *_CERTIFICATE)

    def __post_init__(self):
        super().__post_init__()
        if not (self.depth == 2 and self.activation == "relu"):
            raise ValueError(f"a certificate needs depth 2 and relu; got depth {self.depth}, activation {self.activation!r}")


@dataclass(frozen=True)
class DetectorSetting:
    """A detector that does not learn from the worlds of `experiment.Setting`, but is trained like one: its fields as there."""

    method: str
    penalty: str = ""
    penalty_weight: float = 0.0
    penalty_margin: float = 0.1
    width: int = 100
    lr: float = 2e-3
    steps: int = 1200

    def __post_init__(self):
        keep_whole(self, width=1, steps=1)
        self.like()

    def like(self, **changes):
        """The `experiment.Setting` with these fields, whose own world does not count unless the changes name one."""
        return Setting(**asdict(self), **changes)

    @property
    def work(self):
        return self.like().work


class GanDetectorSetting(DetectorSetting):
    """Trained on samples of a GAN after 500 iterations, classes 7 deviations apart, as in `gans`."""

    columns = experiment.COLUMNS
    gan = GanSetting(steps=500)

    @property
    def work(self):
        return self.gan.work + super().work


class DigitsSetting(DetectorSetting):
    """64-100-100-10, or 11 with reject, trained on digits and the OOD images around them (`images.Digits`)."""

    columns = (
        "seed", "diverged", "loss", "accuracy", "class_accuracy", *(f"auroc_{kind}" for kind in images.KINDS),
        "directions_class", "directions_tied", *_CERTIFICATE,
    )  # fmt: skip
    world = images.Digits()
    depth, batch, cosine, n_train, n_ood = 2, 64, True, None, None
    loss = property(lambda self: self.like().loss)
    penalty_loss = property(lambda self: self.like().penalty_loss)

    def ood_points(self, n, *, generator):
        """n OOD images, random ones of 20,000 that are the same for all seeds."""
        return self.world.kept_boundary(n, generator=generator)

    def network(self, seed):
        """An untrained network; the seed decides its weights."""
        outputs = self.world.n_classes + (self.method == "reject")
        return mlp(images.DIM, self.width, outputs, self.depth, generator=torch.Generator().manual_seed(seed))


def run(setting, seeds):
    """Train and measure one network per seed: a list of dicts with the keys `setting.columns`, in the order of the seeds.

    Beside the columns of `experiment.run`:
    certified, refuted   1 where `polytopes.silent_certificate` says "silent" · "active", else 0; NaN without that penalty
    largest_load         of its neurons
    For digits: accuracy and class_accuracy on the test digits, auroc_… against 2,000 images of each kind, and the shares of 2,000
    random directions.
    A GAN that collapsed is named in a warning, with diverged=True and NaN.
    """
    if isinstance(setting, GanDetectorSetting):
        return _run_on_gan_samples(setting, experiment.check_seeds(seeds))
    measured = _measure_digits if isinstance(setting, DigitsSetting) else _measure_certified
    return experiment.run(setting, seeds, measured=measured)


def _measure_certified(setting, network):
    """The numbers of `experiment.measure` and those of the certificate."""
    return experiment.measure(setting, network) | _certificate(network)


def _certificate(network):
    """`polytopes.silent_certificate` as numbers, see `run`."""
    found = polytopes.silent_certificate(network)
    numbers = (found.verdict == "silent", found.verdict == "active", found.ratio.max())
    return dict(zip(_CERTIFICATE, map(float, numbers), strict=True))


def _measure_digits(setting, network):
    """The numbers of one network on digits, see `run`; always from the same test images and directions."""
    world, generator = setting.world, torch.Generator().manual_seed(experiment.TEST_SEED)
    score = scores.class_log_odds if setting.method == "reject" else scores.max_softmax_log_odds
    u = horizon.unit_directions(_DIGIT_DIRECTIONS, images.DIM, generator=generator)
    winner, tie = polytopes.directions(network, u.double().numpy())
    with torch.no_grad():
        inside = network(world.x_test)
        out = {kind: network(draw(_DIGIT_TESTS, generator=generator)) for kind, draw in images.KINDS.items()}
    silent = _certificate(network) if setting.penalty == "silent" else dict.fromkeys(_CERTIFICATE, math.nan)
    return {
        "accuracy": (inside.argmax(1) == world.y_test).double().mean().item(),
        "class_accuracy": (inside[:, : world.n_classes].argmax(1) == world.y_test).double().mean().item(),
        **{f"auroc_{kind}": scores.auroc(score(inside), score(logits)) for kind, logits in out.items()},
        "directions_class": float((winner < world.n_classes).mean()),
        "directions_tied": float(tie.mean()),
        **silent,
    }


def _run_on_gan_samples(setting, seeds):
    """The rows of `run` for a `GanDetectorSetting`: each seed's detector learns from samples of the seed's own generator."""
    generators, _, _, history = gans.train_seeds(setting.gan, seeds)
    alive = {
        seed: model for place, (seed, model) in enumerate(zip(seeds, generators, strict=True)) if place not in history.collapsed
    }

    def ood(n, *, generator):
        return gan.sample(alive[generator.initial_seed() - experiment.DATA_SEEDS], n, generator=generator) / gans.STD

    found = experiment.run(setting.like(separation=setting.gan.separation), list(alive), ood) if alive else []
    rows = {row["seed"]: row for row in found}
    for seed in seeds:
        if seed not in alive:
            rows[seed] = experiment.lost(setting, seed, "collapsed")
    return [rows[seed] for seed in seeds]


_RECIPE = {"lr": 2e-3, "steps": 1200}
_PENALTIES = {
    "confident": {},
    "silent": {"penalty": "silent", "penalty_weight": 0.3},
    "reject": {},
    "far_field": {"penalty": "far_field", "penalty_weight": 0.5},
}


def _each(name, kind=Setting, names=_PENALTIES, **changes):
    """A setting for each name of a method and its penalty, named after it: {"silent_general": …}."""
    methods = {"confident": "confident", "silent": "confident", "reject": "reject", "far_field": "reject"}
    return {f"{which}_{name}": kind(methods[which], **_RECIPE | _PENALTIES[which] | changes) for which in names}


def _certified(dim, margin, width=100):
    """Silence in `dim` dimensions with this margin, and its certificate."""
    penalty = {"penalty": "silent", "penalty_weight": 0.3, "penalty_margin": margin}
    return CertifiedSetting("confident", dim=dim, width=width, **penalty, **_RECIPE, **shell(dim))


_WIDE = {"lr": 1e-3, "penalty_weight": 0.1}
_SILENT = ("silent",)
_PLAIN = ("confident", "reject", "far_field")
_OVERLAP = {"separation": 3.0, "width": 100}
SETTINGS = {
    # how wide and how deep must a network be to fall silent? One hidden layer cannot
    **{
        name: setting
        for width in (16, 32, 100, 500)
        for depth in (1, 2, 3, 4)
        for name, setting in _each(
            f"{width}x{depth}", names=_SILENT, width=width, depth=depth, **(_WIDE if width == 500 else {})
        ).items()
    },
    **_each("500x2_fast", names=_SILENT, width=500, depth=2),
    # what the losses at infinity are compared with: the same recipe without them
    **{name: setting for width in (8, 32, 100) for name, setting in _each(f"{width}x2", names=_PLAIN, width=width).items()},
    # the same four on other OOD points, and on images
    **_each("general_100", ood="general", width=100),
    **_each("on_gan", kind=GanDetectorSetting),
    **_each("digits", kind=DigitsSetting, names=_PLAIN),
    **{
        f"silent_digits_{weight:g}": DigitsSetting("confident", "silent", weight, **_RECIPE)
        for weight in (0.01, 0.03, 0.3)  # 0.3, as elsewhere, costs half the accuracy
    },
    # four classes, and two that overlap
    **{
        f"silent_four_{weight:g}": Setting("confident", classes=4, width=100, penalty="silent", penalty_weight=weight, **_RECIPE)
        for weight in (0.1, 0.3, 1.0)
    },
    **_each("four_depth_3", names=("confident", "silent"), classes=4, width=100, depth=3),
    **_each("overlap", names=("confident", "silent"), **_OVERLAP),
    # more dimensions, certified; random directions alone cannot tell
    **{f"silent_dim_{dim}_margin_{margin:g}": _certified(dim, margin) for dim in (3, 5, 10, 100) for margin in (0.1, 1.0)},
    # at d = 100 a width of 100 is bound to be refuted, see `horizon.silent_horizon_loss`: the same with more neurons
    **{
        f"silent_dim_100_width_{width}_margin_{margin:g}": _certified(100, margin, width)
        for width in (200, 300)
        for margin in (0.1, 1.0)
    },
}
