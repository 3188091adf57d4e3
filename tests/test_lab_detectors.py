"""Other losses and scores: what a row holds, where its numbers come from, and that they are those of `experiment`."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ood_helpers import polytopes, scores
from ood_helpers.lab import detectors, experiment, paper, stored
from ood_helpers.lab.detectors import _COLUMNS, RECIPES, SETTINGS, LossSetting, _measure, _outputs, _rising, _train_seeds, run
from ood_helpers.models import mlp

TINY = {"width": 8, "steps": 20}
RUNS = Path(__file__).parents[1] / "results" / "runs"


@pytest.mark.parametrize("loss", RECIPES)
def test_a_row_has_the_measures_that_apply(loss):
    (row,) = run(LossSetting(loss, **TINY), [3])
    assert tuple(row) == _COLUMNS and row["seed"] == 3 and row["diverged"] is False
    own = ("s1", "s2", "s3") if RECIPES[loss].reject else ("max_softmax", "entropy", "energy")[: 2 if loss == "ccu" else 3]
    known = {name for name in _COLUMNS[2:] if not math.isnan(row[name])}
    of_scores = {f"{what}_{score}{box}" for what in ("auroc", "fpr95") for score in own for box in ("", "_far")}
    assert known == of_scores | {name for name in _COLUMNS[2:] if name.split("_")[0] not in ("auroc", "fpr95")}
    assert all(0 <= row[name] <= 1 + 1e-12 for name in known - {"loss"})
    if not RECIPES[loss].reject:
        assert row["auroc_entropy"] == pytest.approx(row["auroc_max_softmax"]), "with two classes they rank alike"


@pytest.mark.parametrize("loss", ["acet", "ccu", "far_field"])
def test_a_seed_gets_what_it_gets_alone(loss):
    alone, together = (run(LossSetting(loss, "general", **TINY), seeds) for seeds in ([5], [3, 5]))
    assert alone[0] == pytest.approx(together[1], abs=1e-3, nan_ok=True)


def test_every_loss_trains_its_own_way():
    weights = {loss: _train_seeds(LossSetting(loss, **TINY), [0])[0][0][0].weight for loss in RECIPES}
    twins = [{a, b} for a in weights for b in weights if a < b and torch.equal(weights[a], weights[b])]
    assert twins == [{"cross_entropy", "ccu"}], "only these two train the same network"


@pytest.mark.parametrize("loss", ["confident", "reject"])
def test_the_paper_s_methods_have_the_numbers_of_experiments(loss):
    """The same seeds, points and tests as in `experiment`, whose rows are stored: at full length, width 100."""
    kept = stored.load(RUNS / f"{loss}_width_100.csv", paper.SETTINGS[f"{loss}_width_100"])
    (row,) = run(SETTINGS[f"loss_{loss}_boundary"], [0])
    score = "s1" if loss == "reject" else "max_softmax"
    assert row[f"auroc_{score}"] == pytest.approx(kept[0]["auroc"], abs=0.02)
    assert row["accuracy"] == pytest.approx(kept[0]["accuracy"], abs=0.01)
    assert row["directions_class"] == pytest.approx(kept[0]["directions_class"], abs=0.02)


def test_the_scores_are_measured_on_the_points_that_the_docstring_names():
    setting = LossSetting("reject", **TINY)
    network = setting.network(4)
    random = torch.Generator().manual_seed(experiment.TEST_SEED)
    x, _ = setting.world.sample(4000, generator=random)
    near, far = (setting.world.box(4000, generator=random, half_width=h) for h in (50.0, 1000.0))
    with torch.no_grad():
        inside, near, far = (scores.s3_log_odds(network(points)) for points in (x, near, far))
    found = _measure(setting, network, 4)
    assert found["auroc_s3"] == scores.auroc(inside, near)
    assert found["fpr95_s3_far"] == scores.fpr_at_95_tpr(inside, far)


def test_ccu_detects_and_is_in_doubt_far_away_whatever_the_network():
    setting = LossSetting("ccu", **TINY)
    network = setting.network(4)
    network[-1].weight.data *= 1000
    found = _measure(setting, network, 4)
    assert found["confidence_far"] == pytest.approx(0.5, abs=1e-12)
    bare = _measure(LossSetting("cross_entropy", **TINY), network, 4)
    assert bare["confidence_far"] == pytest.approx(1)
    assert found["auroc_max_softmax_far"] > 0.99 > bare["auroc_max_softmax_far"]
    means = setting.world.means
    probability = _outputs(setting, network, 4)(means).exp().sum(1)
    torch.testing.assert_close(probability, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(6))
def test_rising_counts_the_directions_in_which_the_largest_logit_grows(seed):
    network = mlp(width=6, n_classes=3, generator=torch.Generator().manual_seed(seed))
    if seed % 2:  # sinking logits, so that some directions fall
        network[-1].weight.data -= 0.3
    angle = torch.arange(40_000, dtype=torch.float64) * 2 * math.pi / 40_000
    far = 1e9 * torch.stack([angle.cos(), angle.sin()], 1)
    grows = (copy.deepcopy(network).double()(far).amax(1) > 1e3).double().mean().item()
    assert _rising(polytopes.infinity(network)) == pytest.approx(grows, abs=2e-4)


def test_a_silent_network_rises_nowhere():
    network = mlp(width=6, generator=torch.Generator().manual_seed(0))
    network[2].weight.data.clamp_(max=-0.1)
    circle = polytopes.infinity(network)
    assert np.all(circle.slopes == 0) and _rising(circle) == 0


def test_a_diverged_network_is_named(monkeypatch):
    original = LossSetting.network

    def poisoned(setting, seed):
        network = original(setting, seed)
        if seed == 5:
            network[0].weight.data.fill_(math.nan)
        return network

    monkeypatch.setattr(LossSetting, "network", poisoned)
    with pytest.warns(UserWarning) as caught:
        rows = run(LossSetting("ceda", **TINY), [3, 5])
    assert any("seed 5 diverged" in str(warning.message) for warning in caught)
    assert not rows[0]["diverged"] and rows[1]["diverged"] and math.isnan(rows[1]["accuracy"])


def test_names_are_those_of_no_other_experiment():
    assert len(SETTINGS) == 2 * len(RECIPES) and not SETTINGS.keys() & paper.SETTINGS.keys()
    assert len(set(SETTINGS.values())) == len(SETTINGS)
    assert all(setting.work > 0 for setting in SETTINGS.values())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"loss": "mse"}, "loss must be one of cross_entropy, .*; got 'mse'"),
        ({"loss": "ceda", "ood": "gan"}, "ood must be one of boundary, general; got 'gan'"),
        ({"loss": "ceda", "steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"loss": "ceda", "width": 0}, "width must be a whole number of at least 1; got 0"),
    ],
)
def test_bad_fields_are_named(change, says):
    with pytest.raises(ValueError, match=says):
        LossSetting(**change)


def test_bad_seeds_are_named():
    with pytest.raises(ValueError, match="seeds must be one or more distinct whole numbers"):
        run(LossSetting("ceda", **TINY), [1, 1])


def test_rows_come_back_from_disk(tmp_path):
    setting = LossSetting("ccu", **TINY)
    rows = run(setting, [3])
    stored.save(tmp_path / "one.csv", setting, rows)
    (back,) = stored.load(tmp_path / "one.csv", setting)
    assert back == pytest.approx(rows[0], nan_ok=True)
    assert detectors._COLUMNS == tuple(back)
