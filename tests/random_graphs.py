"""Random networks with convolutions, pools, skips and concatenations for the tests, with Gaussian weights or coarse ones."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class RandomGraph(nn.Module):
    """steps steps from a picture [channels, height, width] (or a vector) on; each takes earlier values by chance."""

    def __init__(self, seed, shape=(2, 5, 5), steps=6, outputs=3, coarse=False, kinds=None):
        super().__init__()
        self.rng, self.coarse, self.plan, self.layers = np.random.default_rng(seed), coarse, [], nn.ModuleList()
        self.shape, shapes = shape, [tuple(shape)]
        for _ in range(steps):
            kind = self.rng.choice(kinds or KINDS)
            shapes.append(getattr(self, f"add_{kind}")(shapes))
        size = int(np.prod(shapes[-1]))
        self.layers.append(self.filled(nn.Linear(size, outputs)))
        self.eval().double()

    def filled(self, layer):
        with torch.no_grad():
            for name, numbers in [*layer.named_parameters(), *layer.named_buffers()]:
                if numbers.is_floating_point():
                    new = self.rng.integers(-2, 3, numbers.shape) if self.coarse else self.rng.normal(size=numbers.shape)
                    scale = 1 if self.coarse else max(1, numbers[0].numel()) ** 0.5
                    numbers.copy_(torch.from_numpy(np.abs(new) + 0.5 if "var" in name else new / scale))
        return layer

    def pick(self, shapes, fits=lambda shape: True):
        """A recent value that fits, as its place from the end."""
        places = [i for i, shape in enumerate(shapes) if fits(shape)]
        return places[-1 - min(int(self.rng.geometric(0.6)) - 1, len(places) - 1)] if places else None

    def module(self, layer, at, shapes):
        self.layers.append(self.filled(layer))
        number = len(self.layers) - 1
        self.plan.append(lambda values: self.layers[number](values[at]))
        with torch.no_grad():
            return tuple(layer.eval()(torch.zeros(1, *shapes[at])).shape[1:])

    def add_affine(self, shapes):
        at = self.pick(shapes)
        shape = shapes[at]
        if len(shape) == 1:
            return self.module(nn.Linear(shape[0], int(self.rng.integers(1, 6))), at, shapes)
        channels, kernel = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 4))
        kernel = min(kernel, *shape[1:])
        pad = int(self.rng.integers(0, kernel))
        groups = int(self.rng.choice([1, shape[0]]))
        layer = nn.Conv2d(shape[0], channels * groups, kernel, int(self.rng.integers(1, 3)), pad, groups=groups)
        if self.rng.random() < 0.2:
            layer = nn.ConvTranspose2d(shape[0], channels, kernel)
        return self.module(layer, at, shapes)

    def add_norm(self, shapes):
        at = self.pick(shapes)
        return self.module((nn.BatchNorm1d if len(shapes[at]) == 1 else nn.BatchNorm2d)(shapes[at][0]), at, shapes)

    def add_kink(self, shapes):
        at = self.pick(shapes)
        layer = self.rng.choice([nn.ReLU(), nn.LeakyReLU(0.25), nn.Hardtanh(-0.5, 1.0), nn.PReLU(shapes[at][0]), nn.ReLU6()])
        return self.module(layer, at, shapes)

    def add_pool(self, shapes):
        at = self.pick(shapes, lambda shape: len(shape) == 3)
        if at is None:
            return self.add_kink(shapes)
        kernel = min(int(self.rng.integers(1, 4)), *shapes[at][1:])
        layer = nn.AvgPool2d if self.rng.random() < 0.3 else nn.MaxPool2d
        return self.module(layer(kernel, int(self.rng.integers(1, 3)), kernel // 2), at, shapes)

    def add_skip(self, shapes):
        at = self.pick(shapes)
        other = self.pick(shapes, lambda shape: shape == shapes[at])
        self.plan.append(lambda values: values[at] + torch.relu(values[other]) if other != at else F.relu(values[at]))
        return shapes[at]

    def add_join(self, shapes):
        at = self.pick(shapes)
        other = self.pick(shapes, lambda shape: shape[1:] == shapes[at][1:])
        if shapes[at][0] + shapes[other][0] > 8:
            return self.add_kink(shapes)
        self.plan.append(lambda values: torch.cat([values[at], values[other].abs()], dim=1))
        return (shapes[at][0] + shapes[other][0], *shapes[at][1:])

    def add_greater(self, shapes):
        at = self.pick(shapes)
        other = self.pick(shapes, lambda shape: shape == shapes[at])
        self.plan.append(lambda values: torch.maximum(values[at], 0.5 - values[other]))
        return shapes[at]

    def forward(self, x):
        values = [x]
        for step in self.plan:
            values.append(step(values))
        return self.layers[-1](values[-1].flatten(1))


KINDS = ["affine", "affine", "kink", "norm", "pool", "skip", "join", "greater"]


def answers(model, x):
    """The model's answers [n, K] at points x [n, d], by itself."""
    with torch.no_grad():
        return model(torch.from_numpy(np.asarray(x)).reshape(-1, *model.shape)).numpy()
