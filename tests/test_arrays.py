"""Numbers from anywhere: every container and dtype gives the same float64 array, everything else a message with its name."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from ood_helpers import cache, ccu, data, gan, horizon, images, losses, models, other_losses, samplers, scores, worlds
from ood_helpers.arrays import float64, whole
from ood_helpers.lab import detectors, experiment, gans, horizons, samples, stored

ROWS = [[1.0, -2.0], [0.0, 0.5]]
T = torch.tensor(ROWS)


@pytest.mark.filterwarnings("ignore:.*(CSR|quantize)")
@pytest.mark.parametrize(
    "make",
    [
        lambda: ROWS,
        lambda: tuple(map(tuple, ROWS)),
        lambda: [[Fraction(1), -2], [0, Fraction(1, 2)]],
        lambda: [[Decimal(1), -2], [0, Decimal("0.5")]],
        lambda: [torch.tensor(row) for row in ROWS],
        lambda: [[torch.tensor(v) for v in row] for row in ROWS],
        lambda: np.array(ROWS, np.float16),
        lambda: np.array(ROWS, np.longdouble),
        lambda: np.asfortranarray(ROWS),
        lambda: T.double().requires_grad_(),
        lambda: T.bfloat16(),
        lambda: T.half().requires_grad_() * 1,
        lambda: T.to(torch.float8_e5m2),
        lambda: T.to_sparse(),
        lambda: T.to_sparse_csr(),
        lambda: T.to_sparse().requires_grad_(),
        lambda: torch._neg_view(-T),
        lambda: (1j * T).imag,
        lambda: (-1j * T).conj().imag,
        lambda: torch.quantize_per_tensor(T, 0.5, 0, torch.qint8),
        lambda: torch.nn.Parameter(T),
        lambda: T.t().contiguous().t(),
    ],
)
def test_numbers_of_any_kind_become_float64(make):
    got = float64(make(), "x")
    assert type(got) is np.ndarray and got.dtype == np.float64
    assert (got == np.array(ROWS)).all()


@pytest.mark.parametrize("values", [3, True, np.int8(3), [True, 2], [], [[], []], 2**70])
def test_whole_numbers_and_empty_lists_are_numbers_too(values):
    assert np.array_equal(float64(values, "x"), np.array(values, dtype=np.float64))


@pytest.mark.parametrize("values", [np.ones((2, 2)), torch.ones(2, 2, dtype=torch.float64), torch.ones(2, 2)])
def test_it_is_a_copy(values):
    copy = float64(values, "x")
    copy[0] = 7
    assert float(values[0, 0]) == 1


@pytest.mark.parametrize(
    "values, says",
    [
        (T.to("meta"), "x must hold numbers; it is a tensor on the meta device"),
        (T + 0j, "x must hold real numbers; it holds complex"),
        (np.array(ROWS) + 0j, "x must hold real numbers; got complex128"),
        ([1, 2j], "x must hold real numbers; got complex128"),
        ([[1, 2], [3]], "x must hold numbers, in rows of equal length"),
        ([torch.ones(2), torch.ones(3)], "x must hold numbers, in rows of equal length"),
        (["1", "2"], "x must hold real numbers; got <U1"),
        ("1", "x must hold real numbers"),
        (None, "x must hold numbers"),
        ([1.0, None], "x must hold numbers"),
        ({1.0}, "x must hold numbers"),
        (np.ma.masked, "x must hold numbers; some of its entries are masked"),
        (np.ma.array([1.0, 2.0], mask=[False, True]), "some of its entries are masked"),
        ([[1.0, np.ma.masked]], "some of its entries are masked"),
        ((v for v in [1.0]), "x must hold numbers"),
        (10**400, "x must hold numbers"),
        (np.array(["2020-01-01"], "datetime64[D]"), "x must hold real numbers"),
    ],
)
def test_what_holds_no_real_numbers_is_refused(values, says):
    with pytest.raises(ValueError, match=says):
        float64(values, "x")


@pytest.mark.parametrize(
    "value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor([3], dtype=torch.int8)]
)
def test_whole_numbers_of_any_kind_become_an_int(value):
    assert type(whole("n", value, 3)) is int and whole("n", value, 3) == 3


@pytest.mark.parametrize(
    "value",
    [True, False, np.True_, np.array(True), torch.tensor(True), 3.0, np.float64(3), torch.tensor(3.0), "3", None, [3], 2, -3,
     np.int64(2), np.array([3, 4]), torch.tensor([3, 4]), torch.tensor(3, device="meta"), 3 + 0j, Fraction(3)],
)  # fmt: skip
def test_everything_else_is_no_whole_number(value):
    with pytest.raises(ValueError, match="n must be a whole number of at least 3; got "):
        whole("n", value, 3)


# Whole numbers in the package ---------------------------------------------------------------------------------------------

KINDS_OF_FIVE = [np.int64(5), np.uint8(5), torch.tensor(5)]
G = torch.Generator


def shape(model):
    return [tuple(parameter.shape) for parameter in model.parameters()]


X = torch.randn(40, 2, generator=G().manual_seed(0))
Y = torch.arange(40) % 2
DIGITS = images.Digits()
NETWORK = models.mlp(width=4, generator=G().manual_seed(0))
TAKERS = {
    "mlp, width": lambda n: shape(models.mlp(width=n)),
    "mlp, depth": lambda n: shape(models.mlp(width=3, depth=n)),
    "mlp, in_dim": lambda n: shape(models.mlp(n, 3)),
    "mlp, n_classes": lambda n: shape(models.mlp(width=3, n_classes=n)),
    "generator, noise_dim": lambda n: shape(gan.generator(n, 3)),
    "generator, out_dim": lambda n: shape(gan.generator(2, 3, out_dim=n)),
    "TwoGaussians, dim": lambda n: data.TwoGaussians(dim=n),
    "sample": lambda n: data.TwoGaussians().sample(n, generator=G().manual_seed(0)),
    "boundary": lambda n: data.TwoGaussians().boundary(n, generator=G().manual_seed(0)),
    "box": lambda n: data.TwoGaussians().box(n, generator=G().manual_seed(0)),
    "moons, sample": lambda n: worlds.TwoMoons().sample(n, generator=G().manual_seed(0)),
    "moons, boundary": lambda n: worlds.TwoMoons().boundary(n, generator=G().manual_seed(0)),
    "digits, sample": lambda n: DIGITS.sample(n, generator=G().manual_seed(0)),
    "digits, boundary": lambda n: DIGITS.boundary(n, generator=G().manual_seed(0)),
    "digits, box": lambda n: DIGITS.box(n, generator=G().manual_seed(0)),
    **{f"images, {kind}": lambda n, draw=draw: draw(n, generator=G().manual_seed(0)) for kind, draw in images.KINDS.items()},
    "knn_noise, neighbours": lambda n: samplers.knn_noise(X, Y, neighbours=n)(3, generator=G().manual_seed(0)),
    "knn_noise, candidates": lambda n: samplers.knn_noise(X, Y, candidates=n)(3, generator=G().manual_seed(0)),
    "knn_noise, n": lambda n: samplers.knn_noise(X, Y)(n, generator=G().manual_seed(0)),
    "unit_directions, n": lambda n: horizon.unit_directions(n, 3, generator=G().manual_seed(0)),
    "unit_directions, dim": lambda n: horizon.unit_directions(3, n, generator=G().manual_seed(0)),
    "worst_in_ball, steps": lambda n: other_losses.worst_in_ball(NETWORK, X, 1.0, steps=n),
    "ccu, components": lambda n: ccu.fit(X, 20 * X, n, generator=G().manual_seed(0)).inside.means,
    "ccu, n_classes": lambda n: ccu.fit(X, 20 * X, 1, generator=G().manual_seed(0)).bound(X, 1.0, n),
    "max_softmax_log_odds, classes": lambda n: scores.max_softmax_log_odds(torch.arange(6.0), n),
    "check_seeds": lambda n: experiment.check_seeds([n, 7]),
    **{
        f"Setting, {name}": lambda n, name=name: experiment.Setting("confident", **{name: n})
        for name in ("width", "depth", "dim", "n_train", "n_ood", "steps", "batch")
    },
    **{
        f"SampleSetting, {name}": lambda n, name=name: samples.SampleSetting("moons", "boundary", "confident", **{name: n})
        for name in ("width", "depth", "steps")
    },
    **{
        f"GanSetting, {name}": lambda n, name=name: gans.GanSetting(**{name: n})
        for name in ("width", "classifier_width", "steps", "discriminator_steps")
    },
    **{
        f"LossSetting, {name}": lambda n, name=name: detectors.LossSetting("ceda", **{name: n})
        for name in ("width", "depth", "steps")
    },
    **{
        f"DigitsSetting, {name}": lambda n, name=name: horizons.DigitsSetting("confident", **{name: n})
        for name in ("width", "steps")
    },
    "cache": lambda n: cache._key(NETWORK, data.TwoGaussians(), losses.reject_loss, None, {"steps": n, "seed": [n]}),
}


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple):
        return all(map(equal, a, b))
    return a == b and repr(a) == repr(b)


@pytest.mark.parametrize("five", KINDS_OF_FIVE, ids=lambda five: type(five).__name__)
@pytest.mark.parametrize("taker", TAKERS)
def test_whole_numbers_of_any_kind_are_taken_everywhere(taker, five):
    assert equal(TAKERS[taker](five), TAKERS[taker](5))


@pytest.mark.parametrize("bad", [True, 5.0, np.float64(5), np.True_, "5"], ids=repr)
@pytest.mark.parametrize("taker", [name for name in TAKERS if name != "cache"])
def test_what_is_no_whole_number_is_refused_everywhere(taker, bad):
    with pytest.raises(ValueError, match=r"must be (a whole number|one or more distinct whole numbers)"):
        TAKERS[taker](bad)


@pytest.mark.parametrize("bad", [[], [1, 1], [np.int64(1), 1], [-1], [10_000], [True], [0.0], 3, None])
def test_seeds_that_are_not_distinct_whole_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="seeds must be one or more distinct whole numbers"):
        experiment.check_seeds(bad)


@pytest.mark.parametrize("number", [int, np.int64, np.int32, torch.tensor])
def test_a_setting_with_numbers_of_numpy_is_stored_as_ever(tmp_path, number):
    rows = [dict.fromkeys(experiment.COLUMNS, 0.5) | {"seed": 3, "diverged": False}]
    plain = experiment.Setting("confident", width=5, steps=7, n_train=9, lr=0.5)
    setting = experiment.Setting("confident", width=number(5), steps=number(7), n_train=number(9), lr=np.float32(0.5))
    stored.save(tmp_path / "plain.csv", plain, rows)
    stored.save(tmp_path / "other.csv", setting, rows)
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()
    assert stored.load(tmp_path / "plain.csv", setting) == stored.load(tmp_path / "other.csv", plain)
