"""The comparison of OOD samplers: what a row holds, where its numbers come from, and that a seed stands for itself."""

import math

import pytest
import torch

from ood_helpers import horizon, samplers
from ood_helpers.lab import experiment, samples, stored
from ood_helpers.lab.samples import (
    _COLUMNS,
    _POOL,
    METHODS,
    SAMPLERS,
    SETTINGS,
    WORLDS,
    Pools,
    SampleSetting,
    _train_seeds,
    measure_detector,
    run,
)
from ood_helpers.losses import cross_entropy

TINY = {"width": 8, "steps": 40}


@pytest.mark.parametrize("method", METHODS)
def test_a_row_holds_all_numbers_in_their_ranges(method):
    rows = run(SampleSetting("moons", "normals", method, **TINY), [3, 5])
    assert [row["seed"] for row in rows] == [3, 5]
    for row in rows:
        assert tuple(row) == _COLUMNS and row["diverged"] is False and math.isfinite(row["loss"])
        assert all(-1e-12 <= row[name] <= 1 + 1e-12 for name in _COLUMNS[3:])
    assert rows[0]["auroc"] != rows[1]["auroc"] and rows[0]["coverage"] != rows[1]["coverage"]


def test_a_seed_gets_what_it_gets_alone():
    setting = SampleSetting("rings", "knn", "silent", **TINY)
    alone, together = run(setting, [5]), run(setting, [3, 5])
    assert alone[0] == pytest.approx(together[1], abs=1e-3)


def test_the_sample_s_numbers_are_those_of_the_points_that_were_trained_on():
    setting = SampleSetting("rings", "knn", "reject", **TINY)
    (row,) = run(setting, [4])
    x, y, out = setting.points(4)
    assert x.shape == out.shape == (_POOL, 2) and y.shape == (_POOL,)
    assert row["coverage"] == samplers.share_covered(out, setting.world)
    assert row["inside"] == samplers.share_inside(out, setting.world)
    _, pools, _ = _train_seeds(setting, [4])
    assert all(map(torch.equal, pools.by_seed[experiment.DATA_SEEDS + 4], (x, y, out)))


def test_all_methods_and_samplers_see_the_same_training_points():
    settings = [SampleSetting("moons", sampler, method, **TINY) for sampler in SAMPLERS for method in METHODS]
    first = settings[0].points(7)[0]
    assert all(torch.equal(setting.points(7)[0], first) for setting in settings)
    assert not torch.equal(settings[0].points(8)[0], first)


def test_pools_give_rows_of_the_seed_s_own_pool():
    pools = Pools({s: (torch.full((3, 2), float(s)), torch.full((3,), s), torch.full((4, 2), 10.0 * s)) for s in (1, 2)})
    for s in (1, 2):
        generator = torch.Generator().manual_seed(s)
        x, y = pools.sample(50, generator=generator)
        assert x.shape == (50, 2) and (x == s).all() and (y == s).all()
        assert (pools.ood(60, generator=generator) == 10 * s).all()
    several = Pools({0: (torch.arange(10.0)[:, None], torch.arange(10), torch.arange(10.0)[:, None])})
    x, y = several.sample(500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(x[:, 0].long(), y) and len(y.unique()) == 10


def test_a_known_detector_is_measured_exactly(monkeypatch):
    """Logits ±x2 decide by the upper half plane, and are surer the farther out: right on no class, ranked upside down."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False))
    network[0].weight.data, network[2].weight.data = torch.tensor([[0.0, 1.0], [0.0, -1.0]]), torch.eye(2)
    network[0].bias.data.zero_()
    found = measure_detector(SampleSetting("gaussians", "boundary", "confident", **TINY), network)
    assert found["accuracy"] == pytest.approx(0.5, abs=0.05)
    assert found["auroc"] < 0.1 and found["auroc_far"] < 0.01 and found["fpr95_far"] > 0.99
    assert found["directions_class"] == pytest.approx(1) and found["directions_tied"] == pytest.approx(0, abs=1e-9)


def test_a_network_that_rejects_all_but_the_data_is_measured_as_such():
    """Three logits: 0, 0 and |x2| − 4 for reject. It wins all directions but the horizontal axis."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 3))
    network[0].weight.data, network[2].weight.data = (
        torch.tensor([[0.0, 1.0], [0.0, -1.0]]),
        torch.tensor([[0.0, 0], [0, 0], [1, 1]]),
    )
    network[0].bias.data.zero_()
    network[2].bias.data = torch.tensor([0.0, 0.0, -4.0])
    found = measure_detector(SampleSetting("gaussians", "boundary", "reject", **TINY), network)
    assert found["directions_class"] == pytest.approx(0) and found["auroc"] > 0.95 and found["auroc_far"] > 0.99


def test_silent_adds_the_penalty_and_nothing_else(monkeypatch):
    seen = {}

    def look(networks, world, loss, ood, **settings):
        seen[len(seen)] = (loss, settings)
        raise InterruptedError

    monkeypatch.setattr(samples, "train", look)
    for method in METHODS:
        with pytest.raises(InterruptedError):
            _train_seeds(SampleSetting("moons", "boundary", method, **TINY), [0])
    plain, rejecting, silent = (seen[i][1] for i in range(3))
    assert plain == rejecting and silent == plain | {"penalty": horizon.silent_horizon_loss, "penalty_weight": 0.1}
    logits, y = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    sure = torch.tensor([[5.0, 0.0]] * 4)
    for loss in (seen[0][0], seen[2][0]):
        assert loss(logits, y, logits) == pytest.approx(cross_entropy(logits, y)) and loss(logits, y, sure) > 1


def test_a_network_that_diverged_is_named_and_keeps_its_sample_s_numbers(monkeypatch):
    original = SampleSetting.network

    def poisoned(setting, seed):
        network = original(setting, seed)
        if seed == 5:
            network[0].weight.data.fill_(math.nan)
        return network

    monkeypatch.setattr(SampleSetting, "network", poisoned)
    with pytest.warns(UserWarning) as caught:
        rows = run(SampleSetting("moons", "boundary", "confident", **TINY), [3, 5])
    assert any("seed 5 diverged" in str(warning.message) for warning in caught)
    assert not rows[0]["diverged"] and rows[1]["diverged"]
    assert math.isnan(rows[1]["auroc"]) and math.isnan(rows[1]["loss"]) and rows[1]["coverage"] > 0.9


def test_the_settings_are_all_worlds_with_all_samplers_and_methods():
    assert len(SETTINGS) == len(WORLDS) * len(SAMPLERS) * len(METHODS) == 45
    assert len(set(SETTINGS.values())) == 45 and all(name.startswith("samples_") for name in SETTINGS)
    assert SETTINGS["samples_moons_knn_reject"] == SampleSetting("moons", "knn", "reject")


def test_rows_come_back_from_disk(tmp_path):
    setting = SampleSetting("gaussians", "gaussian", "confident", **TINY)
    rows = run(setting, [3])
    stored.save(tmp_path / "one.csv", setting, rows)
    assert stored.load(tmp_path / "one.csv", setting) == rows


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": "spiral"}, "shape must be one of gaussians, moons, rings; got 'spiral'"),
        ({"sampler": "gan"}, "sampler must be one of boundary, wide, knn, gaussian, normals; got 'gan'"),
        ({"method": "both"}, "method must be one of confident, reject, silent; got 'both'"),
        ({"width": 0}, "width"),
        ({"depth": 0}, "depth must be a whole number of at least 1; got 0"),
        ({"lr": 0.0}, "lr must be a positive number; got 0.0"),
        ({"steps": 1.5}, "steps must be a whole number of at least 1; got 1.5"),
    ],
)
def test_bad_fields_are_named(change, says):
    with pytest.raises(ValueError, match=says):
        SampleSetting(**{"shape": "moons", "sampler": "knn", "method": "reject"} | change)


def test_bad_seeds_are_named():
    with pytest.raises(ValueError, match="seeds must be"):
        run(SampleSetting("moons", "knn", "reject", **TINY), [1, 1])
