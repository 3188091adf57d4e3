"""The paper's worlds: Gaussian in-distribution classes, and out-of-distribution (OOD) points around them or far off.

Every sampler takes a `torch.Generator`, so the same seed gives the same points, and returns float32 points [n, d].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from ood_helpers.arrays import keep_whole, whole

Sampler = Callable[..., Tensor]  # ood(n, generator=g) -> n OOD points [n, d]


class World(Protocol):
    """What a training asks of a world; where it gets no `Sampler` of its own, also a `boundary`."""

    def sample(self, n: int, *, generator: Generator) -> tuple[Tensor, Tensor]: ...


class DistanceWorld:
    """What worlds share that know the distances of a point from all classes; a subclass says where the classes are.

    dim, std  input dimension, and the unit of distance: the standard deviation of the noise · `_distances(x)` -> [K, n]
    """

    dim: int
    std: float

    def box(self, n: int, *, generator: Generator, half_width: float = 50.0) -> Tensor:
        """n OOD points [n, d] uniform in the box [-half_width, half_width]^d, outside 3 standard deviations of every class."""
        n = check_draw(n, generator)
        if not 0 < half_width < math.inf:
            raise ValueError(f"half_width must be a positive number; got {half_width}")

        def draw(count):
            x = half_width * (2 * torch.rand(count, self.dim, generator=generator) - 1)
            return x[self.mahalanobis(x) >= 3.0]

        return self._gather(draw, n, f"the box of half_width {half_width} lies inside the classes; take a larger one")

    def mahalanobis(self, x: Tensor) -> Tensor:
        """Distance [n] from points x [n, d] to the nearest mean, or arc, in standard deviations."""
        return self._distances(check_points(x, self.dim)).amin(0) / self.std

    def _of_shell(self, x, k, inner):
        """Which [n] of the points x [n, d], drawn from the shells of the classes k, count: those to which no class is nearer.

        So where shells overlap each point belongs to one, and the points of all of them are uniform on their union. A class
        nearer than `inner` would be the nearest, so no point lies inside one; the last digits are left to rounding.
        """
        distances = self._distances(x)
        return (distances.argmin(0) == k) & (distances.amin(0) / self.std >= inner * (1 - 1e-6))

    def _gather(self, draw, n, reason):
        """n points of `draw(count)`, which gives at most `count`."""
        kept = [torch.empty(0, self.dim)]
        for _ in range(1000):
            missing = n - sum(map(len, kept))
            if missing == 0:
                return torch.cat(kept)
            kept.append(draw(missing))
        raise ValueError(f"no room for OOD points: {reason}")


class Gaussians(DistanceWorld):
    """Round Gaussian classes, equally likely; a subclass says where the means are. Distances are Mahalanobis: in units of std."""

    @property
    def n_classes(self) -> int:
        return len(self.means)

    def sample(self, n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """n in-distribution points: x float32 [n, d] and their classes y int64 [n]."""
        n = check_draw(n, generator)
        y = torch.randint(len(self.means), (n,), generator=generator)
        return self.means[y] + self.std * torch.randn(n, self.dim, generator=generator), y

    def boundary(self, n: int, *, generator: Generator, inner: float = 3.0, outer: float = 3.5) -> Tensor:
        """n OOD points [n, d] close to the classes: uniform in volume at `inner` to `outer` deviations from the nearest mean.

        That is in shells around the means. A shell's points that are nearer to another mean are drawn again. The radius comes
        from its own distribution, r = outer · (q + u(1 − q))^(1/d) with q = (inner/outer)^d and u uniform in [0, 1], and the
        direction from a normalised Gaussian, so the cost does not grow with d as it would by rejection from a cube.
        """
        n = check_shell(n, generator, inner, outer)

        def draw(count):
            which = torch.randint(len(self.means), (count,), generator=generator)
            centre = self.means[which]
            direction = torch.nn.functional.normalize(torch.randn(count, self.dim, generator=generator), dim=1)
            q = (inner / outer) ** self.dim
            u = torch.rand(count, 1, generator=generator, dtype=torch.float64)
            radius = outer * (q + u * (1 - q)) ** (1 / self.dim)
            x = centre + (self.std * radius).float() * direction
            return x[self._of_shell(x, which, inner)]

        return self._gather(draw, n, "the shells lie inside the classes; take a larger outer or separation")

    def _distances(self, x):
        """[K, n], from each mean to points x [n, d]."""
        return torch.cdist(self.means.to(x.dtype), x, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class TwoGaussians(Gaussians):
    """The paper's world (§5): two Gaussian classes with means at -/+ separation/2 on the first axis.

    std  standard deviation (the paper's text says 1, its code uses 2) · dim  input dimension d · separation  between the means
    """

    std: float = 1.0
    dim: int = 2
    separation: float = 20.0

    def __post_init__(self):
        keep_whole(self, dim=1)
        _check_world(self.std, self.separation)

    @property
    def means(self) -> Tensor:
        means = torch.zeros(2, self.dim)
        means[:, 0] = torch.tensor([-self.separation / 2, self.separation / 2])
        return means


@dataclass(frozen=True)
class FourGaussians(Gaussians):
    """Four Gaussian classes at the corners of a square of side `separation` in the plane: the world of Figure 1."""

    std: float = 1.0
    separation: float = 20.0
    dim = 2

    def __post_init__(self):
        _check_world(self.std, self.separation)

    @property
    def means(self) -> Tensor:
        return self.separation / 2 * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def check_points(x: Tensor, dim: int) -> Tensor:
    """x itself if it is a float tensor [n, dim] of finite numbers; ValueError that says what is wrong otherwise."""
    if not (isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() == 2 and x.shape[1] == dim):
        got = f"{x.dtype} {list(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"x must be a float tensor of shape [n, {dim}]; got {got}")
    if not torch.isfinite(x).all():
        raise ValueError(f"x must hold finite numbers; {int((~torch.isfinite(x)).any(1).sum())} of its rows hold NaN or infinity")
    return x


def _check_world(std, separation):
    check_positive("std", std)
    if not 0 <= separation < math.inf:
        raise ValueError(f"separation must be a number of at least 0; got {separation}")


def check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number; got {value}")


def check_shell(n: int, generator: Generator, inner: float, outer: float) -> int:
    n = check_draw(n, generator)
    if not 0 <= inner < outer < math.inf:
        raise ValueError(f"inner and outer must satisfy 0 <= inner < outer, in standard deviations; got {inner} and {outer}")
    return n


def check_draw(n: int, generator: Generator) -> int:
    """n as an int; ValueError unless it is a whole number of at least 0 and generator a torch.Generator."""
    n = whole("n", n, 0)
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be a torch.Generator, e.g. torch.Generator().manual_seed(0); got {type(generator).__name__}"
        )
    return n
