"""The paper's claims as conditions that a trained network meets or fails, and the experiments that decide about them.

`paper.SETTINGS` holds the experiments by name, `CLAIMS` what the paper says of them. `table` judges every claim by one rule,
fixed before the results were seen: the condition is checked for each seed, and the claim "holds" in a setting if at least
95 % of the seeds meet it, "does not hold" if at most 5 % do, and "holds in part" in between. A new experiment is one more
entry in `paper.SETTINGS`, a new claim one more in `CLAIMS`.

The paper gives no thresholds. These stand for its words, for all claims alike:

- a detector is *effective* from an AUROC of 0.95 on, *ineffective* up to 0.7 (below, discrimination is commonly called poor);
- *highly confident* is the paper's own colour band, above 0.9; *many* OOD points are at least a tenth of them;
- *regions* of high confidence are, together, at least as large as both classes' discs at standard deviation 1, 0.6 % of the box;
- *almost all* directions are 95 % of them, an entropy *approaches 0* when it is at most 5 % of its maximum;
- OOD points are *classified as OOD* when at least 95 % of them are; *no clear winner* means AUROCs at most 0.01 apart;
- a GAN's samples are *close* when half of them lie 2.5 to 5 deviations from the nearest mean, they *follow* or *cover* the
  boundary from half of its sectors on, and have *little diversity* at half of that of true boundary samples (67) or less.
"""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, norm
from scipy.stats import t as student

from ood_helpers.arrays import float64
from ood_helpers.files import write_whole

from .experiment import METHODS
from .paper import WIDTHS


@dataclass(frozen=True)
class Condition:
    """A condition on a number, in words and as a function of it."""

    words: str
    met: Callable


def at_least(bound):
    return Condition(f"at least {bound:g}", lambda value: value >= bound)


def at_most(bound):
    return Condition(f"at most {bound:g}", lambda value: value <= bound)


def above(bound):
    return Condition(f"above {bound:g}", lambda value: value > bound)


def below(bound):
    return Condition(f"below {bound:g}", lambda value: value < bound)


def within(bound):
    return Condition(f"at most {bound:g} away from 0", lambda value: abs(value) <= bound)


@dataclass(frozen=True)
class Claim:
    """What the paper says, and what decides about it in one setting or, seed by seed, in the difference of two.

    text       the claim, in our words · section of the paper
    measure    one of the columns of its settings
    condition  what a seed must meet: on the measure, or, with `minus`, on its difference between the settings
    setting    a name in `SETTINGS` · minus: the name of the setting whose measure is subtracted, or None
    """

    text: str
    section: str
    measure: str
    condition: Condition
    setting: str
    minus: str | None = None

    @property
    def settings(self):
        return [self.setting] if self.minus is None else [self.setting, self.minus]

    @property
    def of(self):
        """The name of the setting, or of the pair."""
        return " minus ".join(self.settings)


def _claims(text, section, measure, condition, names):
    """The same claim about several settings."""
    return [Claim(text, section, measure, condition, name) for name in names]


_MAIN = ("boundary", "authors_boundary")
_GENERAL = ("general", "authors_general")
_NEURONS = tuple(f"width_{width}" for width in WIDTHS)
_DIMENSIONS = tuple(f"dim_{dim}" for dim in (5, 10, 50, 100))
_OTHERS = ("depth_1", "depth_3", "depth_4", "glorot", "std_2")
_VARIANTS = {
    "hidden neurons": _NEURONS,
    "input dimension": _DIMENSIONS,
    "activation": ("sigmoid", "tanh"),
    "depth, initial weights, standard deviation": _OTHERS,
}
_BETAS = ("beta_0.1", "beta_10", "beta_30")
_GANS = ("gan_main", "gan_published")
_PRETRAINED = ("gan_pretrained_1", "gan_pretrained_10", "gan_pretrained_100")


def _named(method, variants):
    return [f"{method}_{variant}" for variant in variants]


CLAIMS: list[Claim] = [
    # section 3: the limit far away, for any ReLU network
    *_claims(
        "Far from the data the confident classifier's confidence goes to 1 in almost all directions",
        "3", "limit_above", at_least(0.95), _named("confident", _MAIN + _GENERAL + _NEURONS + _DIMENSIONS + _OTHERS),
    ),
    *_claims(
        "Several classes that share the greatest slope in every infinity polytope are highly unlikely",
        "3", "directions_tied", below(1.0), _named("confident", _MAIN + _GENERAL),
    ),
    *_claims(
        "Corollary: far from the data the entropy of the output approaches 0 in almost all directions",
        "3", "entropy_far", at_most(0.05), _named("confident", _MAIN + _GENERAL),
    ),
    *_claims(
        "Corollary: far from the data confidence and entropy cannot tell OOD points from in-distribution points",
        "3", "auroc_far", at_most(0.7), _named("confident", _MAIN + _GENERAL),
    ),
    *_claims(
        "With boundary OOD samples there are regions of high confidence without stretching to infinity, inside the box",
        "3", "area_sure", at_least(0.006), _named("confident", _MAIN),
    ),
    *_claims(
        "The confident classifier almost always has OOD points of high confidence, here inside the box",
        "6", "peak", above(0.9), _named("confident", _MAIN),
    ),
    # section 4: the reject class
    *_claims(
        "With OOD samples along the boundary, reject has the greatest slope in every infinity polytope",
        "4", "directions_class", at_most(0.0), _named("reject", _MAIN + _NEURONS + _DIMENSIONS + _OTHERS),
    ),
    *_claims(
        "Far from the data only the reject class becomes highly confident",
        "4", "sure_far", at_most(0.01), _named("reject", _MAIN),
    ),
    Claim(
        "The reject classifier needs OOD samples close to the boundary: farther away it detects worse",
        "4, 6", "auroc", below(0.0), "reject_ring_6_6.5", "reject_width_100",
    ),
    Claim(
        "The reject classifier needs OOD samples that follow the boundary: inside the classes it detects worse",
        "4, 6", "auroc", below(0.0), "reject_ring_2_2.5", "reject_width_100",
    ),
    Claim(
        "The reject classifier needs OOD samples that follow the whole boundary: with few of them it detects worse",
        "4, 6", "auroc", below(0.0), "reject_points_50", "reject_points_500",
    ),
    # section 5.1: boundary OOD samples, Figure 3
    *_claims(
        "Figure 3b: the confident classifier is highly confident on many OOD points of the box",
        "5.1", "sure", at_least(0.1), _named("confident", _MAIN),
    ),
    *_claims(
        "Figure 3b, exact: the confident classifier is highly confident on much of the box's OOD area",
        "5.1", "area_sure", at_least(0.1), _named("confident", _MAIN),
    ),
    *_claims(
        "Confidence (or entropy, which ranks two classes alike) is ineffective at detecting OOD points of the box",
        "5.1", "auroc", at_most(0.7), _named("confident", _MAIN),
    ),
    *_claims(
        "Figure 3c: the reject classifier classifies the box's OOD points as OOD",
        "5.1", "rejected", at_least(0.95), _named("reject", _MAIN),
    ),
    *_claims(
        "Figure 3c, exact: reject wins the box's OOD area",
        "5.1", "area_reject", at_least(0.95), _named("reject", _MAIN),
    ),
    *_claims(
        "The probability of reject is effective at detecting OOD points of the box",
        "5.1", "auroc", at_least(0.95), _named("reject", _MAIN),
    ),
    *(
        Claim(
            "With boundary OOD samples the reject classifier detects better than the confident classifier",
            "5.1, 6", "auroc", above(0.0), f"reject_{variant}", f"confident_{variant}",
        )
        for variant in _MAIN
    ),
    # section 5.1: not specific to an architecture
    *(
        claim
        for what, variants in _VARIANTS.items()
        for claim in [
            *_claims(
                f"Not specific to an architecture ({what}): many highly confident OOD points",
                "5.1", "sure", at_least(0.1), _named("confident", variants),
            ),
            *_claims(
                f"Not specific to an architecture ({what}): confidence is ineffective",
                "5.1", "auroc", at_most(0.7), _named("confident", variants),
            ),
            *_claims(
                f"Not specific to an architecture ({what}): OOD points are classified as OOD",
                "5.1", "rejected", at_least(0.95), _named("reject", variants),
            ),
            *_claims(
                f"Not specific to an architecture ({what}): the probability of reject is effective",
                "5.1", "auroc", at_least(0.95), _named("reject", variants),
            ),
        ]
    ),
    *_claims(
        "Not specific to an architecture (weight of the KL term): many highly confident OOD points",
        "5.1", "sure", at_least(0.1), _named("confident", _BETAS),
    ),
    *_claims(
        "Not specific to an architecture (weight of the KL term): confidence is ineffective",
        "5.1", "auroc", at_most(0.7), _named("confident", _BETAS),
    ),
    *(
        Claim(
            "Sigmoid networks are less extreme: fewer OOD points of high confidence than with ReLU",
            "5.1", "sure", below(0.0), sigmoid, relu,
        )
        for sigmoid, relu in [
            ("confident_sigmoid", "confident_boundary"),
            ("confident_sigmoid_long", "confident_width_100_long"),
        ]
    ),
    # section 5.1: general OOD samples, Figure 4
    *_claims(
        "Figure 4b: with general OOD samples the confident classifier detects OOD points of the box effectively",
        "5.1", "auroc", at_least(0.95), _named("confident", _GENERAL),
    ),
    *_claims(
        "Figure 4c: with general OOD samples the reject classifier detects OOD points of the box effectively",
        "5.1", "auroc", at_least(0.95), _named("reject", _GENERAL),
    ),
    *_claims(
        "Figure 4c: with general OOD samples the reject classifier classifies the box's OOD points as OOD",
        "5.1", "rejected", at_least(0.95), _named("reject", _GENERAL),
    ),
    *(
        Claim(
            "With general OOD samples there is no clear winner between the two",
            "4, 5.1", "auroc", within(0.01), f"confident_{variant}", f"reject_{variant}",
        )
        for variant in _GENERAL
    ),
    # section 5.2: the joint training of Eq. (1), Figure 5
    *_claims(
        "Figure 5b: the GAN's samples end up close to the in-distribution",
        "5.2", "near_500", at_least(0.5), _GANS,
    ),
    *_claims(
        "Figure 5b: the GAN's samples do not cover the entire boundary",
        "5.2", "coverage_500", below(0.5), _GANS,
    ),
    *_claims(
        "Figure 5c: the GAN's samples do not cover the entire boundary",
        "5.2", "coverage_1000", below(0.5), _GANS,
    ),
    *_claims(
        "There is little diversity in the GAN's samples",
        "5.2", "diversity_500", at_most(33.5), _GANS,
    ),
    *_claims(
        "With a pre-trained classifier the GAN's samples end up close to the in-distribution",
        "5.2", "near_500", at_least(0.5), _PRETRAINED,
    ),
    *_claims(
        "With a pre-trained classifier the GAN's samples follow the boundary",
        "5.2", "coverage_500", at_least(0.5), _PRETRAINED,
    ),
    *_claims(
        "Trained on the GAN's samples, a classifier is ineffective at detecting OOD points of the box",
        "5.2", "auroc", at_most(0.7), ("confident_gan", "reject_gan"),
    ),
    *(
        Claim(
            "Trained on the GAN's samples, a classifier detects worse than trained on true boundary samples",
            "5.2, 6", "auroc", below(0.0), f"{method}_gan", f"{method}_separation_7",
        )
        for method in METHODS
    ),
    Claim(
        "Lee et al.: with the GAN's samples the reject class detects worse than the confidence loss",
        "4", "auroc", below(0.0), "reject_gan", "confident_gan",
    ),
]  # fmt: skip

_COLUMNS = (
    "claim", "section", "setting", "measure", "seeds", "diverged", "mean", "low", "high", "smallest", "largest",
    "condition", "share_of_seeds", "verdict",
)  # fmt: skip


def table(runs, claims=CLAIMS):
    """One row for each claim, a list of dicts with the keys `_COLUMNS`. runs: by setting's name, the rows of `experiment.run`.

    seeds, diverged    how many seeds count, and how many do not because a network diverged
    mean, low, high    of the measure (or difference) over the seeds, and its 95 % interval, see `interval`
    smallest, largest  over the seeds
    share_of_seeds     that meet the condition; verdict by the rule at the top, or "not measured" if no seed counts
    Numbers are rounded to 4 significant digits. ValueError for a setting that is missing in `runs`, one that lacks the measure,
    or pairs with different seeds.
    """
    return [_judge(claim, runs) for claim in claims]


def _judge(claim, runs):
    """One row of `table`."""
    values, diverged = _values(claim, runs)
    share = np.mean([claim.condition.met(value) for value in values]) if len(values) else math.nan
    low, high = interval(values)
    numbers = {"mean": _mean(values), "low": low, "high": high, "smallest": min(values, default=math.nan)}
    numbers |= {"largest": max(values, default=math.nan), "share_of_seeds": share}
    return {
        "claim": claim.text,
        "section": claim.section,
        "setting": claim.of,
        "measure": claim.measure,
        "seeds": len(values),
        "diverged": diverged,
        "condition": claim.condition.words,
        "verdict": verdict(share),
        **{name: float(f"{value:.4g}") for name, value in numbers.items()},
    }


def verdict(share):
    """The rule, for the share of seeds that meet the condition."""
    if math.isnan(share):
        return "not measured"
    if share >= 0.95:
        return "holds"
    return "does not hold" if share <= 0.05 else "holds in part"


def interval(values: ArrayLike) -> tuple[float, float]:
    """A 95 % interval (low, high) of the mean of values [n], by resampling them 9,999 times, always with the same random numbers.

    The bootstrap's bias-corrected and accelerated interval (BCa, Efron 1987; SciPy's), its level raised as Student's t is wider
    than the normal distribution: the tails are Φ(−√(n/(n−1)) t) (Hesterberg 2015), which is 1.6 % and not 2.5 % for n = 20.
    It stays between the least and the greatest value, so within what a share or an AUROC can be. How often it, and what else
    could be taken, holds the true mean, in % of 3,000 samples of n = 20:

                                    this   BCa   percentile   basic   bootstrap-t   Student's t
        normal                        94    93           93      93            95            95
        uniform                       96    95           93      92            97            95
        exponential                   93    91           90      88            94            91
        lognormal                     89    87           85      82            92            86
        two heaps (.3, .95)           98    96           93      90            99            94
        near 1 (Beta(50, ½))          92    90           89      86            94            90
        1, or .9 to 1                 96    95           92      87            99            92
        0 or 1 (nine of ten are 1)    88    88           88      88            87            88

    Only the bootstrap-t covers better where values are skew; but it passes 1, and is infinite where resamples are all equal. In
    the last row one sample of eight is twenty times 1. Such values say nothing of rarer ones: where all are equal the interval
    is that value. With fewer than two values it is NaN, and so it is with a NaN or an infinite one.
    """
    values = float64(values, "values")
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    least, greatest = values.min(), values.max()
    if least == greatest:
        return float(least), float(least)
    n, unit = len(values), (values - least) / (greatest - least)  # in [0, 1], however near each other they are
    tail = max(norm.cdf(-math.sqrt(n / (n - 1)) * student.ppf(0.975, n - 1)), 1e-6)  # two values: 1e-72, the same in float64 as 0
    found = bootstrap((unit,), np.mean, confidence_level=1 - 2 * tail, method="BCa", random_state=np.random.default_rng(0))
    low, high = (np.clip(least + end * (greatest - least), least, greatest) for end in found.confidence_interval)
    return float(low), float(high)


def _mean(values):
    return float(np.mean(values)) if len(values) else math.nan


def _values(claim, runs):
    """The measure, or difference, of each seed that counts, and the number of seeds that do not."""
    missing = [name for name in claim.settings if name not in runs]
    if missing:
        raise ValueError(f"runs must hold the settings {', '.join(claim.settings)}; missing: {', '.join(missing)}")
    columns = [runs[name] for name in claim.settings]
    seeds = [[row["seed"] for row in rows] for rows in columns]
    if seeds[0] != seeds[-1]:
        raise ValueError(f"{claim.of}: both settings must have the same seeds; got {seeds[0]} and {seeds[-1]}")
    together = [rows for rows in zip(*columns, strict=True) if not any(row["diverged"] for row in rows)]
    values = [rows[0][claim.measure] - (rows[1][claim.measure] if claim.minus else 0.0) for rows in together]
    if any(map(math.isnan, values)):
        raise ValueError(f"{claim.of} must be a setting that has the measure {claim.measure}; it is NaN there")
    return values, len(seeds[0]) - len(values)


def write_table(path, rows):
    """Write the rows of `table` as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(Path(path), text.getvalue().encode())


def read_table(path):
    """The rows of a CSV file that `write_table` wrote, numbers as numbers. ValueError if it is damaged."""
    text = ("claim", "section", "setting", "measure", "condition", "verdict")
    whole = ("seeds", "diverged")
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, strict=True)
            if tuple(next(rows, ())) != _COLUMNS:
                raise ValueError("its first line does not name the columns")
            return [
                {
                    name: value if name in text else int(value) if name in whole else float(value)
                    for name, value in zip(_COLUMNS, row, strict=True)
                }
                for row in rows
            ]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged, or not a table of claims ({error})") from error
