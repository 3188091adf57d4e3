"""The table of claims: its numbers against numbers worked out by hand, its rule at its edges, and the stored table."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ood_helpers.lab import claims, paper
from ood_helpers.lab.claims import (
    CLAIMS,
    Claim,
    _judge,
    above,
    at_least,
    at_most,
    below,
    read_table,
    table,
    within,
    write_table,
)
from ood_helpers.lab.gans import GanSetting
from ood_helpers.lab.paper import SETTINGS
from ood_helpers.lab.stored import load


def rows(**columns):
    """Runs of seeds 0, 1, … with the given measures; a seed diverged where a value is None."""
    columns = dict(columns)
    count = len(next(iter(columns.values())))
    return [
        {
            "seed": seed,
            "diverged": any(values[seed] is None for values in columns.values()),
            **{name: math.nan if values[seed] is None else values[seed] for name, values in columns.items()},
        }
        for seed in range(count)
    ]


CLAIM = Claim("it detects", "5.1", "auroc", at_least(0.5), "one")


def test_numbers_worked_out_by_hand():
    (row,) = table({"one": rows(auroc=[0.25, 0.5, 0.75, 1.0])}, [CLAIM])
    assert tuple(sorted(row)) == tuple(sorted(claims._COLUMNS))
    assert (row["claim"], row["section"], row["setting"], row["measure"]) == ("it detects", "5.1", "one", "auroc")
    assert (row["seeds"], row["diverged"], row["mean"], row["smallest"], row["largest"]) == (4, 0, 0.625, 0.25, 1.0)
    assert (row["condition"], row["share_of_seeds"], row["verdict"]) == ("at least 0.5", 0.75, "holds in part")
    assert 0.25 <= row["low"] < 0.45 and 0.8 < row["high"] <= 1.0


def test_the_interval_is_the_usual_one_where_that_is_known():
    """Of many values spread like a normal distribution: mean ± 1.96 standard errors."""
    values = [0.5 + 0.01 * z for z in range(-100, 101)]
    low, high = claims.interval(values)
    error = (sum((v - 0.5) ** 2 for v in values) / 200) ** 0.5 / 201**0.5
    assert low == pytest.approx(0.5 - 1.97 * error, abs=0.1 * error) and high == pytest.approx(
        0.5 + 1.97 * error, abs=0.1 * error
    )
    assert claims.interval(values) == (low, high)


SAMPLES = {
    "normal": (lambda random: random.normal(size=20), 0.0, 0.93),
    "exponential": (lambda random: random.exponential(size=20), 1.0, 0.915),
    "lognormal": (lambda random: random.lognormal(size=20), math.exp(0.5), 0.875),
    "AUROCs near 1": (lambda random: random.beta(50, 0.5, size=20), 50 / 50.5, 0.905),
    "two heaps": (lambda random: random.choice([0.3, 0.95], 20, p=[0.3, 0.7]) + random.normal(0, 0.02, 20), 0.755, 0.955),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_interval_holds_the_true_mean_as_often_as_its_docstring_says(name):
    """The bounds are above what the percentiles of the resampled means reach: 92.6, 89.8, 84.8, 88.8 and 92.5 %."""
    draw, mean, least = SAMPLES[name]
    random = np.random.default_rng(1)
    found = [claims.interval(draw(random)) for _ in range(1500)]
    assert np.mean([low <= mean <= high for low, high in found]) >= least


def test_the_interval_of_two_sides_of_one():
    """Skew values: longer on the side of the tail, shorter than Student's on the other, and never beyond what is possible."""
    shares = [1.0] * 19 + [0.0]
    low, high = claims.interval(shares)
    assert 0.6 < low < 0.75 and 0.99 < high <= 1.0
    assert claims.interval([1 - share for share in shares]) == pytest.approx((1 - high, 1 - low), abs=0.06)


def test_intervals_of_values_that_say_little():
    assert claims.interval([0.3, 0.3, 0.3]) == (0.3, 0.3) and claims.interval(20 * [1]) == (1.0, 1.0)
    for values in ([], [0.3], [0.3, math.nan], [0.3, 0.4, math.inf], [math.inf, math.inf]):
        assert all(map(math.isnan, claims.interval(values)))
    assert claims.interval([0.25, 0.75]) == (0.25, 0.75)
    with pytest.raises(ValueError, match="values must hold"):
        claims.interval(["a", "b"])


@settings(max_examples=200)
@given(
    values=st.one_of(
        st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=25),
        st.lists(st.sampled_from([0.0, 1.0, math.nextafter(1, 0)]), min_size=2, max_size=25),
        st.lists(st.sampled_from([0.3, math.nextafter(0.3, 1)]), min_size=2, max_size=25),
    )
)
@pytest.mark.filterwarnings("error")
def test_every_interval_is_a_pair_of_numbers_within_the_values(values):
    low, high = claims.interval(values)
    assert min(values) <= low <= high <= max(values)
    assert claims.interval(np.array(values)) == claims.interval(torch.tensor(values, dtype=torch.float64)) == (low, high)


def test_a_pair_is_compared_seed_by_seed():
    """Each seed of the first lies 0.1 below the same seed of the second, though the two overlap."""
    claim = Claim("less extreme", "5.1", "sure", below(0.0), "one", minus="two")
    row = _judge(claim, {"one": rows(sure=[0.1, 0.5, 0.8]), "two": rows(sure=[0.2, 0.6, 0.9])})
    assert row["setting"] == "one minus two" and row["verdict"] == "holds" and row["share_of_seeds"] == 1
    assert (row["mean"], row["smallest"], row["largest"]) == (-0.1, -0.1, -0.1)


def test_diverged_seeds_do_not_count():
    runs = {"one": rows(auroc=[0.9, None, 0.7, 0.8]), "two": rows(auroc=[0.1, 0.2, None, 0.3]), "none": rows(auroc=[None, None])}
    row = _judge(CLAIM, runs)
    assert (row["seeds"], row["diverged"], row["mean"], row["verdict"]) == (3, 1, 0.8, "holds")
    pair = _judge(Claim("", "", "auroc", above(0.6), "one", minus="two"), runs)
    assert (pair["seeds"], pair["diverged"], pair["mean"], pair["share_of_seeds"]) == (2, 2, 0.65, 0.5)
    nothing = _judge(Claim("", "", "auroc", above(0.6), "none"), runs)
    assert (nothing["seeds"], nothing["diverged"], nothing["verdict"]) == (0, 2, "not measured") and math.isnan(nothing["mean"])


@pytest.mark.parametrize(
    "met, verdict",
    [(20, "holds"), (19, "holds"), (18, "holds in part"), (10, "holds in part"), (2, "holds in part"), (1, "does not hold")],
)
def test_the_rule_at_its_edges(met, verdict):
    assert _judge(CLAIM, {"one": rows(auroc=[0.9] * met + [0.1] * (20 - met))})["verdict"] == verdict


@pytest.mark.parametrize(
    "condition, yes, no, words",
    [
        (at_least(0.5), [0.5, 0.6], [0.49], "at least 0.5"),
        (at_most(0.0), [0.0, -1.0], [1e-9], "at most 0"),
        (above(0.0), [1e-9], [0.0], "above 0"),
        (below(1.0), [0.99], [1.0], "below 1"),
        (within(0.01), [0.01, -0.01, 0.0], [0.011, -0.011], "at most 0.01 away from 0"),
    ],
)
def test_conditions_do_what_they_say(condition, yes, no, words):
    assert all(map(condition.met, yes)) and not any(map(condition.met, no)) and condition.words == words


@pytest.mark.parametrize(
    "runs, message",
    [
        ({}, "missing: one, two"),
        ({"one": rows(auroc=[0.5])}, "missing: two"),
        ({"one": rows(auroc=[0.5]), "two": rows(auroc=[0.5, 0.6])}, "same seeds"),
        ({"one": rows(auroc=[math.nan]), "two": rows(auroc=[0.5])}, "has the measure auroc"),
    ],
)
def test_runs_that_cannot_decide(runs, message):
    with pytest.raises(ValueError, match=message):
        _judge(Claim("", "", "auroc", above(0.0), "one", minus="two"), runs)


def test_every_claim_asks_for_something_its_settings_have():
    for claim in CLAIMS:
        for setting in (SETTINGS[name] for name in claim.settings):
            assert claim.measure in setting.columns
            if isinstance(setting, GanSetting):
                name, _, mark = claim.measure.partition("_")
                assert int(mark) <= setting.steps if mark else setting.detector, (claim, name)
                continue
            needs = {"limit_above": setting.is_relu, "directions_class": setting.is_relu, "directions_tied": setting.is_relu}
            needs |= {"area_sure": setting.exact, "peak": setting.exact, "area_reject": setting.exact}
            needs |= {name: setting.method == "reject" for name in ("rejected", "auroc_max")}
            assert needs.get(claim.measure, True), claim
    assert len({(claim.text, claim.of, claim.measure) for claim in CLAIMS}) == len(CLAIMS)


def test_the_papers_settings():
    assert SETTINGS["confident_boundary"].width == SETTINGS["reject_sigmoid"].width == 500
    for method in claims.METHODS:
        authors = SETTINGS[f"{method}_authors_boundary"]
        assert (authors.std, authors.init, authors.cosine, authors.n_train, authors.lr) == (2, "glorot", False, 1000, 1e-3)
        assert authors.steps * authors.batch == 200 * authors.n_train  # 200 epochs
    assert SETTINGS["confident_authors_general"].beta == 2


@pytest.mark.parametrize("dim, inner", [(2, 3.0), (10, 4.786), (100, 11.624)])
def test_the_shell_leaves_out_the_same_share_of_points_in_every_dimension(dim, inner):
    assert paper.shell(dim)["inner"] == pytest.approx(inner, abs=1e-3)


def test_a_table_comes_back_from_its_file(tmp_path):
    made = table({"one": rows(auroc=[0.123456, 0.5])}, [CLAIM])
    write_table(tmp_path / "claims.csv", made)
    assert read_table(tmp_path / "claims.csv") == made and made[0]["mean"] == 0.3117
    assert (made[0]["low"], made[0]["high"]) == (0.1235, 0.5), "two values say no more than that it may be either"
    assert read_table(tmp_path / "claims.csv")[0]["seeds"] == 2


def test_the_stored_table_is_what_the_stored_runs_say(request):
    results = request.config.rootpath / "results"
    runs = {name: load(results / "runs" / f"{name}.csv", setting) for name, setting in SETTINGS.items()}
    assert all(len(of_setting) >= 20 for of_setting in runs.values())
    for row, stored in zip(table(runs), read_table(results / "paper_claims.csv"), strict=True):
        for name, value in row.items():  # the last digits of an interval depend on scipy
            assert value == (stored[name] if isinstance(value, str) else pytest.approx(stored[name], rel=2e-3, nan_ok=True))
