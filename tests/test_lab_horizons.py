"""Experiments at infinity: what a row holds, where its numbers come from, and that a seed gets what it gets alone."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from small_networks import build

from ood_helpers import gan, images
from ood_helpers.lab import experiment, gans
from ood_helpers.lab.gans import STD, GanSetting
from ood_helpers.lab.horizons import (
    SETTINGS,
    CertifiedSetting,
    DigitsSetting,
    GanDetectorSetting,
    _measure_certified,
    _measure_digits,
    run,
)
from ood_helpers.lab.stored import load, save

SHORT = {"width": 8, "steps": 5}
SILENT = {"penalty": "silent", "penalty_weight": 0.3}


def test_names_say_what_the_settings_are():
    for name, setting in SETTINGS.items():
        assert setting.penalty == {"silent": "silent", "far": "far_field"}.get(name.split("_")[0], "")
        assert setting.work > 0 and tuple(setting.columns[:3]) == ("seed", "diverged", "loss")
    assert {f"silent_{width}x{depth}" for width in (16, 32, 100, 500) for depth in (1, 2, 3, 4)} < set(SETTINGS)


@pytest.mark.parametrize(
    "setting",
    [
        CertifiedSetting("confident", dim=3, **SILENT, **SHORT),
        DigitsSetting("confident", **SILENT, **SHORT),
        DigitsSetting("reject", "far_field", 0.5, **SHORT),
    ],
)
def test_rows_have_their_columns_can_be_stored_and_a_seed_gets_what_it_gets_alone(setting, tmp_path):
    rows, (alone,) = run(setting, [3, 5]), run(setting, [5])
    assert [row["seed"] for row in rows] == [3, 5] and all(tuple(row) == setting.columns for row in rows)
    for name in setting.columns[2:]:
        assert rows[1][name] == pytest.approx(alone[name], abs=5e-3, nan_ok=True), name
    save(tmp_path / "rows.csv", setting, rows)
    stored = load(tmp_path / "rows.csv", setting)
    assert [list(map(str, row.values())) for row in stored] == [list(map(str, row.values())) for row in rows]


@pytest.mark.parametrize("push, certified", [(0.5, 1), (2.0, 0)])
def test_a_certificate_becomes_numbers(push, certified):
    """z0 = push · relu(x) − |x| − |y|, silent up to a push of 1."""
    axes = [[1, 0], [-1, 0], [0, 1], [0, -1], [1, 0]]
    network = build([axes, [[-1, -1, -1, -1, push]], [[1], [0]]], [[0] * 5, [1], [0, 0]]).float()
    found = _measure_certified(CertifiedSetting("confident"), network)
    assert (found["certified"], found["refuted"]) == (certified, 1 - certified)
    assert (found["largest_load"] <= 1) == certified == (found["directions_tied"] == 1)


@pytest.mark.parametrize("changes", [{"depth": 3}, {"activation": "leaky_relu"}])
def test_a_certified_setting_has_two_layers_of_relu(changes):
    with pytest.raises(ValueError, match="a certificate needs depth 2 and relu; got"):
        CertifiedSetting("confident", **changes)


@pytest.mark.parametrize("kind", [DigitsSetting, GanDetectorSetting])
def test_detectors_refuse_what_settings_refuse(kind):
    for changes, message in [({"method": "reject"}, "needs the method"), ({"lr": 0.0}, "lr must be"), ({"width": 0}, "width")]:
        with pytest.raises(ValueError, match=message):
            kind(**{"method": "confident"} | SILENT | changes)


# ---- digits ----


def test_a_network_without_opinion_on_digits():
    network = build([[[0.0] * 64], [[0.0]], [[0.0]] * 10], [[0.0], [0.0], [0.0] * 10]).float()
    found = _measure_digits(DigitsSetting("confident", **SILENT), network)
    assert {found[f"auroc_{kind}"] for kind in images.KINDS} == {0.5}
    assert (found["directions_tied"], found["directions_class"], found["certified"], found["largest_load"]) == (1, 1, 1, 0)
    assert found["accuracy"] == pytest.approx(0.1, abs=0.05)


def test_ink_means_reject():
    """Logits (0, …, 0, ink − 40): only dark images are rejected, and only directions with more ink than paper."""
    network = build([[[1.0] * 64], [[0.0]] * 10 + [[1.0]]], [[0.0], [0.0] * 10 + [-40.0]]).float()
    found = _measure_digits(DigitsSetting("reject"), network)
    assert found["auroc_inverted"] > 0.95 > 0.6 > found["auroc_permuted"]
    assert found["class_accuracy"] == found["accuracy"] == pytest.approx(0.1, abs=0.05)
    assert found["directions_class"] == found["directions_tied"] == pytest.approx(0.5, abs=0.05)
    assert math.isnan(found["certified"])


def test_digits_learn_from_images_around_the_digits(monkeypatch):
    monkeypatch.setattr(images, "_KEPT", 200)
    images._kept_boundary.cache_clear()
    x = DigitsSetting("reject").ood_points(1000, generator=torch.Generator().manual_seed(0))
    images._kept_boundary.cache_clear()
    distance = images.Digits().distance(x) / images.Digits().d99
    assert x.shape == (1000, 64) and distance.min() >= 0.99 and distance.max() <= 1.26 and len(x.unique(dim=0)) <= 200


# ---- samples of a GAN ----


@pytest.fixture
def small_gan(monkeypatch):
    monkeypatch.setattr(GanDetectorSetting, "gan", GanSetting(width=8, classifier_width=8, steps=3))


def test_a_detector_learns_from_the_seed_s_own_generator(small_gan, monkeypatch):
    seen = []

    def look(setting, seeds, ood):
        seen.append((setting, seeds, ood(4, generator=torch.Generator().manual_seed(experiment.DATA_SEEDS + 5))))
        return [dict.fromkeys(setting.columns, 0.5) | {"seed": seed, "diverged": False} for seed in seeds]

    monkeypatch.setattr(experiment, "run", look)
    setting = GanDetectorSetting("confident", **SILENT)
    assert [row["seed"] for row in run(setting, [3, 5])] == [3, 5]
    ((detector, seeds, points),) = seen
    generators, *_ = gans.train_seeds(setting.gan, [3, 5])
    g = torch.Generator().manual_seed(experiment.DATA_SEEDS + 5)
    torch.testing.assert_close(points, gan.sample(generators[1], 4, generator=g) / STD)
    assert seeds == [3, 5] and (detector.separation, detector.penalty, detector.width) == (7.0, "silent", 100)


def test_a_row_of_a_detector_on_samples(small_gan):
    setting = GanDetectorSetting("reject", "far_field", 0.5, **SHORT)
    (row,) = run(setting, [2])
    assert tuple(row) == setting.columns and 0 <= row["auroc"] <= 1 and row["rejected"] >= 0
    assert dataclasses.asdict(setting)["penalty"] == "far_field"


def test_a_collapsed_gan_is_named_and_leaves_the_others_alone(small_gan, monkeypatch):
    train = gans.train_seeds
    monkeypatch.setattr(gans, "train_seeds", lambda setting, seeds: (*train(setting, seeds)[:3], SimpleNamespace(collapsed=[0])))
    with pytest.warns(UserWarning, match="seed 4 collapsed"):
        rows = run(GanDetectorSetting("confident", **SHORT), [4, 2])
    assert [row["diverged"] for row in rows] == [True, False] and math.isnan(rows[0]["auroc"]) and rows[1]["auroc"] >= 0
