"""Convolutional networks for the digits: two convolutions, each with BatchNorm, ReLU and MaxPool, and a small head.

`polytopes` reads them as they are, in eval mode. The plain, confident and reject network end in Linear, ReLU, Linear. The closed
one ends in a closed network (`models.closed_mlp`) that sees the features φ(x) *and* the pixels x: it is constant outside a ball
|(φ(x), x) − c|₁ ≤ R, and |x − c'|₁ > R is enough for being outside, c' the pixels' part of c, whatever φ is and whatever it was
trained on. On the features alone ("closed on features") the same holds only where they leave the ball. They need not: along a
direction in which all of them stand still the answer stands still, too, but at a value that nobody has chosen.
"""

import functools
from collections.abc import Sequence

import torch
from torch import nn

from ood_helpers import cache, images, losses, models
from ood_helpers.progress import progress
from ood_helpers.training import History

CHANNELS, FEATURES, WIDTH = (8, 16), 64, 32
STEEPNESS = 0.05  # of the closed ones; with 0.5 three of four networks lost a fifth of the digits or more
LOSSES = {
    "plain": functools.partial(losses.confidence_loss, beta=0.0),
    "confident": functools.partial(losses.confidence_loss, beta=1.0),
    "reject": losses.reject_loss,
    "closed": functools.partial(losses.confidence_loss, beta=1.0),
    "closed on features": functools.partial(losses.confidence_loss, beta=1.0),
}


class Beside(nn.Module):
    """A head that sees the features of images x [n, 64] and, beside them, the images: head([features(x), x])."""

    def __init__(self, features, head):
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x):
        return self.head(torch.cat([self.features(x), x], 1))


def network(kind, seed):
    """An untrained network, images [n, 64] -> logits [n, 10], or 11 with reject; kind: a name in `LOSSES`."""
    if kind not in LOSSES:
        raise ValueError(f"kind must be one of {', '.join(LOSSES)}; got {kind!r}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # the layers of torch start from the global generator
        torch.manual_seed(seed)
        layers = [nn.Unflatten(1, (1, 8, 8))]
        for inputs, outputs in zip((1, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    features = nn.Sequential(*layers, nn.Flatten())
    if "closed" not in kind:
        return nn.Sequential(features, models.mlp(FEATURES, WIDTH, 10 + (kind == "reject"), 1, generator=generator))
    x = images.Digits().x_train
    with torch.no_grad():
        points = features(x)  # in train mode, as in the first step
    if kind == "closed on features":
        return nn.Sequential(
            features, models.closed_mlp(FEATURES, WIDTH, 10, points=points, steepness=STEEPNESS, generator=generator)
        )
    points = torch.cat([points, x], 1)
    return Beside(features, models.closed_mlp(len(points[0]), WIDTH, 10, points=points, steepness=STEEPNESS, generator=generator))


def train(networks, loss, seed, steps=600, batch=64, lr=5e-3):
    """Train the networks of a list one after the other, in place, with Adam and a cosine, on digits and boundary OOD images.

    seed  a list of one whole number for each. A step sees the in-distribution and the OOD images together, so that BatchNorm
          measures both. The networks are left in eval mode. Returns a `History`
    """
    record = torch.empty(steps, len(networks))
    for e in range(len(networks)):
        model, random, digits = networks[e].train(), torch.Generator().manual_seed(seed[e]), images.Digits()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in progress(range(steps), steps, "training"):
            x, y = digits.sample(batch, generator=random)
            logits = model(torch.cat([x, digits.kept_boundary(batch, generator=random)]))
            value = loss(logits[:batch], y, logits[batch:])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            scheduler.step()
            record[step, e] = value.item()
        model.eval()
    return History(record, [])


def trained(kind: str, seeds: Sequence[int] = (0,), steps: int = 600) -> list[nn.Module]:
    """One trained network for each seed, in eval mode, from the cache if it was made before."""
    made = [network(kind, seed) for seed in seeds]
    cache.cached_by(train, made, loss=LOSSES[kind], seed=list(seeds), steps=steps)
    return [model.eval() for model in made]
