"""Synthetic worlds, the paper's and curved ones: in-distribution classes, and out-of-distribution (OOD) points around or far off.

Every sampler takes a `torch.Generator`, so the same seed gives the same points, and returns float32 points [n, d].
"""

import functools
import math
from dataclasses import dataclass

import torch

from ood_helpers.arrays import keep_whole, whole


class _World:
    """What all worlds share; a subclass says where its points are, and `mahalanobis` how far a point is from the classes."""

    def box(self, n, *, generator, half_width=50.0):
        """n OOD points [n, d] uniform in the box [-half_width, half_width]^d, outside 3 standard deviations of every class."""
        n = check_draw(n, generator)
        if not 0 < half_width < math.inf:
            raise ValueError(f"half_width must be a positive number; got {half_width}")

        def draw(count):
            x = half_width * (2 * torch.rand(count, self.dim, generator=generator) - 1)
            return x[self.mahalanobis(x) >= 3.0]

        return self._gather(draw, n, f"the box of half_width {half_width} lies inside the classes; take a larger one")

    def mahalanobis(self, x):
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


class _Gaussians(_World):
    """Round Gaussian classes, equally likely; a subclass says where the means are. Distances are Mahalanobis: in units of std."""

    @property
    def n_classes(self):
        return len(self.means)

    def sample(self, n, *, generator):
        """n in-distribution points: x float32 [n, d] and their classes y int64 [n]."""
        n = check_draw(n, generator)
        y = torch.randint(len(self.means), (n,), generator=generator)
        return self.means[y] + self.std * torch.randn(n, self.dim, generator=generator), y

    def boundary(self, n, *, generator, inner=3.0, outer=3.5):
        """n OOD points [n, d] close to the classes: uniform in volume at `inner` to `outer` deviations from the nearest mean.

        That is in shells around the means. A shell's points that are nearer to another mean are drawn again. The radius comes
        from its own distribution, r = outer · (q + u(1 − q))^(1/d) with q = (inner/outer)^d and u uniform in [0, 1], and the
        direction from a normalised Gaussian, so the cost does not grow with d as it would by rejection from a cube.
        """
        n = _check_shell(n, generator, inner, outer)

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
class TwoGaussians(_Gaussians):
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
        _check_world(self.std, self.separation)

    @property
    def means(self):
        return self.separation / 2 * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@dataclass(frozen=True)
class Arc:
    """A part of a circle in the plane, from the angle start anticlockwise to end, in radians; start + 2π is the whole circle."""

    centre: tuple
    radius: float
    start: float = 0.0
    end: float = 2 * math.pi

    @property
    def closed(self):
        return self.end - self.start >= 2 * math.pi

    def at(self, angle):
        """The points [n, 2] at angles [n]."""
        return torch.tensor(self.centre, dtype=angle.dtype) + self.radius * _unit(angle)

    def distance(self, x):
        """Distance [n] from points x [n, 2] to the nearest point of the arc."""
        away = x - torch.tensor(self.centre, dtype=x.dtype)
        to_circle = (away.norm(dim=1) - self.radius).abs()
        if self.closed:
            return to_circle
        turn = (torch.atan2(away[:, 1], away[:, 0]) - self.start) % (2 * math.pi)
        return torch.where(turn <= self.end - self.start, to_circle, self._to_ends(x).amin(1))

    def shell_parts(self, inner, outer):
        """What the points at distance inner to outer are made of: (area, draw(n, generator) -> x [n, 2], own [n]) for each part.

        A strip along either side, and half a ring around each end of an arc that is not closed. Each is uniform in area. `own`
        leaves out what is in another part, too: the ends of a small or nearly closed arc are near each other and its sides.
        """
        angle, parts = self.end - self.start, []
        for low, high in [(self.radius + inner, self.radius + outer), (max(self.radius - outer, 0), max(self.radius - inner, 0))]:
            strip = functools.partial(self._strip, low=low, high=high)
            parts.append((angle / 2 * (high**2 - low**2), strip))
        caps = 0 if self.closed else math.pi * (outer**2 - inner**2)
        return [*parts, (caps, functools.partial(self._caps, low=inner, high=outer))]

    def _strip(self, n, generator, low, high):
        angle = self.start + (self.end - self.start) * torch.rand(n, generator=generator)
        return torch.tensor(self.centre) + _radius(n, generator, low, high) * _unit(angle), torch.ones(n, dtype=torch.bool)

    def _caps(self, n, generator, low, high):
        """Half rings: beyond the start the half turn [start − π, start], beyond the end [end, end + π]."""
        first = torch.rand(n, generator=generator) < 0.5
        turn = math.pi * torch.rand(n, generator=generator)
        end = self.at(torch.where(first, self.start, self.end))
        x = end + _radius(n, generator, low, high) * _unit(torch.where(first, self.start - turn, self.end + turn))
        to_ends = self._to_ends(x)
        return x, ((to_ends.argmin(1) == 0) == first) & (self.distance(x) >= to_ends.amin(1) * (1 - 1e-5))

    def _to_ends(self, x):
        """Distances [n, 2] from points x [n, 2] to start and end."""
        ends = self.at(torch.tensor([self.start, self.end], dtype=x.dtype))
        return torch.cdist(x, ends, compute_mode="donot_use_mm_for_euclid_dist")


class _Arcs(_World):
    """Classes along arcs in the plane, equally likely: uniform along the arc, with Gaussian noise. Distances are in units of std.

    A subclass says where the arcs are, one for each class.
    """

    dim = 2

    @property
    def n_classes(self):
        return len(self.arcs)

    def sample(self, n, *, generator):
        """n in-distribution points: x float32 [n, 2] and their classes y int64 [n]."""
        n = check_draw(n, generator)
        y = torch.randint(self.n_classes, (n,), generator=generator)
        share = torch.rand(n, generator=generator)
        on_arc = torch.stack([arc.at(arc.start + (arc.end - arc.start) * share) for arc in self.arcs])
        return on_arc[y, torch.arange(n)] + self.std * torch.randn(n, 2, generator=generator), y

    def boundary(self, n, *, generator, inner=3.0, outer=3.5):
        """n OOD points [n, 2] close to the classes: uniform in area at `inner` to `outer` deviations from the nearest arc.

        A shell's points that are nearer to another arc are drawn again.
        """
        n = _check_shell(n, generator, inner, outer)
        parts = [(k, *part) for k, arc in enumerate(self.arcs) for part in arc.shell_parts(self.std * inner, self.std * outer)]
        areas = torch.tensor([area for _, area, _ in parts])

        def draw(count):
            which = torch.multinomial(areas, count, replacement=True, generator=generator)
            x, kept = torch.empty(count, 2), torch.zeros(count, dtype=torch.bool)
            for i, (k, _, part) in enumerate(parts):
                here = which == i
                x[here], own = part(int(here.sum()), generator)
                kept[here] = own & self._of_shell(x[here], k, inner)
            return x[kept]

        return self._gather(draw, n, "the shells lie inside the classes; take a larger outer or radius")

    def _distances(self, x):
        """[K, n], from each arc to points x [n, 2]."""
        return torch.stack([arc.distance(x) for arc in self.arcs])


@dataclass(frozen=True)
class TwoMoons(_Arcs):
    """Two half circles that reach into each other, as in scikit-learn's `make_moons`, `radius` times as large and centred.

    std  standard deviation of the noise · radius  of the half circles; between the moons there are at least radius/2
    """

    std: float = 1.0
    radius: float = 16.0

    def __post_init__(self):
        _check_positive("std", self.std)
        _check_positive("radius", self.radius)

    @property
    def arcs(self):
        half, quarter = self.radius / 2, self.radius / 4
        return Arc((-half, -quarter), self.radius, 0.0, math.pi), Arc((half, quarter), self.radius, math.pi, 2 * math.pi)


@dataclass(frozen=True)
class Rings(_Arcs):
    """Two circles around the origin, one class each; in the middle and between them is OOD space that the classes enclose.

    std  standard deviation of the noise · inner, outer  radii of the circles, 0 < inner < outer
    """

    std: float = 1.0
    inner: float = 8.0
    outer: float = 20.0

    def __post_init__(self):
        _check_positive("std", self.std)
        if not 0 < self.inner < self.outer < math.inf:
            raise ValueError(f"inner and outer must satisfy 0 < inner < outer; got {self.inner} and {self.outer}")

    @property
    def arcs(self):
        return Arc((0.0, 0.0), self.inner), Arc((0.0, 0.0), self.outer)


@dataclass(frozen=True, eq=False)
class Painted(_World):
    """A world of single points that somebody has placed in the plane. Distances are those to the nearest point, in units of std.

    x    points [n, 2] · y  their classes [n], each of 0 … K − 1 at least once
    out  OOD points [m, 2], perhaps none
    std  standard deviation of the Gaussian cloud that every point stands for
    """

    x: torch.Tensor
    y: torch.Tensor
    out: torch.Tensor
    std: float = 1.0
    dim = 2

    def __post_init__(self):
        _check_positive("std", self.std)
        check_points(self.x, 2), check_points(self.out, 2)
        if len(self.y) != len(self.x) or self.y.unique().tolist() != list(range(self.n_classes)):
            raise ValueError(f"y must hold each class from 0 on, one for each of the {len(self.x)} points; got {self.y.tolist()}")

    @property
    def n_classes(self):
        return int(self.y.max()) + 1 if len(self.y) else 1

    def sample(self, n, *, generator):
        """n in-distribution points, the classes equally likely: x float32 [n, 2] and their classes y int64 [n]."""
        y = torch.randint(self.n_classes, (check_draw(n, generator),), generator=generator)
        weight = (self.y == torch.arange(self.n_classes)[:, None]).double()
        return self._around(self.x[torch.multinomial(weight[y], 1, generator=generator)[:, 0]] if n else self.x[:0], generator), y

    def boundary(self, n, *, generator, inner=3.0, outer=3.5):
        """n OOD points [n, 2]: of the clouds of the OOD points or, if there are none, `inner` to `outer` deviations away."""
        n = _check_shell(n, generator, inner, outer)
        if len(self.out):
            return self._around(self.out[torch.randint(len(self.out), (n,), generator=generator)], generator)

        def draw(count):
            which = torch.randint(len(self.x), (count,), generator=generator)
            angle = 2 * math.pi * torch.rand(count, generator=generator)
            x = self.x[which] + _radius(count, generator, self.std * inner, self.std * outer) * _unit(angle)
            return x[self._of_shell(x, which, inner)]

        return self._gather(draw, n, "the shells lie inside the classes; take a larger outer, or fewer points")

    def _around(self, x, generator):
        return x + self.std * torch.randn(len(x), 2, generator=generator)

    def _distances(self, x):
        """[points, n], from each point to points x [n, 2]."""
        return torch.cdist(self.x.to(x.dtype), x, compute_mode="donot_use_mm_for_euclid_dist")


def _unit(angle):
    """Unit vectors [n, 2] at angles [n]."""
    return torch.stack([angle.cos(), angle.sin()], 1)


def _radius(n, generator, low, high):
    """n radii [n, 1] between low and high, uniform in area."""
    return (low**2 + torch.rand(n, 1, generator=generator) * (high**2 - low**2)).sqrt()


def check_points(x, dim):
    """x itself if it is a float tensor [n, dim] of finite numbers; ValueError that says what is wrong otherwise."""
    if not (isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() == 2 and x.shape[1] == dim):
        got = f"{x.dtype} {list(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"x must be a float tensor of shape [n, {dim}]; got {got}")
    if not torch.isfinite(x).all():
        raise ValueError(f"x must hold finite numbers; {int((~torch.isfinite(x)).any(1).sum())} of its rows hold NaN or infinity")
    return x


def _check_world(std, separation):
    _check_positive("std", std)
    if not 0 <= separation < math.inf:
        raise ValueError(f"separation must be a number of at least 0; got {separation}")


def _check_positive(name, value):
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number; got {value}")


def _check_shell(n, generator, inner, outer):
    n = check_draw(n, generator)
    if not 0 <= inner < outer < math.inf:
        raise ValueError(f"inner and outer must satisfy 0 <= inner < outer, in standard deviations; got {inner} and {outer}")
    return n


def check_draw(n, generator):
    """n as an int; ValueError unless it is a whole number of at least 0 and generator a torch.Generator."""
    n = whole("n", n, 0)
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be a torch.Generator, e.g. torch.Generator().manual_seed(0); got {type(generator).__name__}"
        )
    return n
