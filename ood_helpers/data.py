"""The paper's synthetic worlds: in-distribution classes, and out-of-distribution (OOD) points around or far from them.

Every sampler takes a `torch.Generator`, so the same seed gives the same points, and returns float32 points [n, d].
"""

import math
from dataclasses import dataclass

import torch


class _Gaussians:
    """Round Gaussian classes, equally likely; a subclass says where the means are. Distances are Mahalanobis: in units of std."""

    def sample(self, n, *, generator):
        """n in-distribution points: x float32 [n, d] and their classes y int64 [n]."""
        check_draw(n, generator)
        y = torch.randint(len(self.means), (n,), generator=generator)
        return self.means[y] + self.std * torch.randn(n, self.dim, generator=generator), y

    def boundary(self, n, *, generator, inner=3.0, outer=3.5):
        """n OOD points [n, d] close to the classes: uniform in volume in shells around the means, radii in standard deviations.

        A shell's points that fall within `inner` of another class are drawn again. The radius comes from its own
        distribution, r = outer · (q + u(1 − q))^(1/d) with q = (inner/outer)^d and u uniform in [0, 1], and the direction from
        a normalised Gaussian, so the cost does not grow with d as it would by rejection from a cube.
        """
        check_draw(n, generator)
        if not 0 <= inner < outer < math.inf:
            raise ValueError(f"inner and outer must satisfy 0 <= inner < outer, in standard deviations; got {inner} and {outer}")

        def draw(count):
            centre = self.means[torch.randint(len(self.means), (count,), generator=generator)]
            direction = torch.nn.functional.normalize(torch.randn(count, self.dim, generator=generator), dim=1)
            q = (inner / outer) ** self.dim
            u = torch.rand(count, 1, generator=generator, dtype=torch.float64)
            radius = outer * (q + u * (1 - q)) ** (1 / self.dim)
            return centre + (self.std * radius).float() * direction

        return self._outside(draw, n, inner * (1 - 1e-6), "the shells lie inside the classes; take a larger outer or separation")

    def box(self, n, *, generator, half_width=50.0):
        """n OOD points [n, d] uniform in the box [-half_width, half_width]^d, outside 3 standard deviations of every class."""
        check_draw(n, generator)
        if not 0 < half_width < math.inf:
            raise ValueError(f"half_width must be a positive number; got {half_width}")

        def draw(count):
            return half_width * (2 * torch.rand(count, self.dim, generator=generator) - 1)

        return self._outside(draw, n, 3.0, f"the box of half_width {half_width} lies inside the classes; take a larger one")

    def mahalanobis(self, x):
        """Distance [n] from points x [n, d] to the nearest class mean, in standard deviations."""
        x = check_points(x, self.dim)
        return torch.cdist(x, self.means.to(x.dtype), compute_mode="donot_use_mm_for_euclid_dist").amin(1) / self.std

    def _outside(self, draw, n, radius, reason):
        """n of the points that `draw(count)` gives, keeping those at least `radius` standard deviations from every mean."""
        kept = [torch.empty(0, self.dim)]
        for _ in range(1000):
            missing = n - sum(map(len, kept))
            if missing == 0:
                return torch.cat(kept)
            x = draw(missing)
            kept.append(x[self.mahalanobis(x) >= radius])
        raise ValueError(f"no room for OOD points: {reason}")


@dataclass(frozen=True)
class TwoGaussians(_Gaussians):
    """The paper's world (§5): two Gaussian classes with means at -/+ separation/2 on the first axis.

    std  standard deviation (the paper's text says 1, its code uses 2) · dim  input dimension d · separation  between the means
    """

    std: float = 1.0
    dim: int = 2
    separation: float = 20.0

    def __post_init__(self):
        _check_world(self.std, self.dim, self.separation)

    @property
    def means(self):
        means = torch.zeros(2, self.dim)
        means[:, 0] = torch.tensor([-self.separation / 2, self.separation / 2])
        return means


@dataclass(frozen=True)
class FourGaussians(_Gaussians):
    """Four Gaussian classes at the corners of a square of side `separation` in the plane: the world of Figure 1."""

    std: float = 1.0
    separation: float = 20.0
    dim = 2

    def __post_init__(self):
        _check_world(self.std, self.dim, self.separation)

    @property
    def means(self):
        return self.separation / 2 * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def check_points(x, dim):
    """x itself if it is a float tensor [n, dim] of finite numbers; ValueError that says what is wrong otherwise."""
    if not (isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() == 2 and x.shape[1] == dim):
        got = f"{x.dtype} {list(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"x must be a float tensor of shape [n, {dim}]; got {got}")
    if not torch.isfinite(x).all():
        raise ValueError(f"x must hold finite numbers; {int((~torch.isfinite(x)).any(1).sum())} of its rows hold NaN or infinity")
    return x


def _check_world(std, dim, separation):
    if not 0 < std < math.inf:
        raise ValueError(f"std must be a positive number; got {std}")
    if not (isinstance(dim, int) and dim >= 1):
        raise ValueError(f"dim must be a whole number of at least 1; got {dim}")
    if not 0 <= separation < math.inf:
        raise ValueError(f"separation must be a number of at least 0; got {separation}")


def check_draw(n, generator):
    """ValueError unless n is a whole number of at least 0 and generator a torch.Generator."""
    if not (isinstance(n, int) and n >= 0):
        raise ValueError(f"n must be a whole number of at least 0; got {n}")
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be a torch.Generator, e.g. torch.Generator().manual_seed(0); got {type(generator).__name__}"
        )
