"""Worlds of other shapes than the paper's: classes along arcs in the plane, and points that somebody has painted.

Samplers as in `data`: the same seed gives the same points, float32 [n, 2].
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ood_helpers.data import DistanceWorld, check_draw, check_points, check_positive, check_shell


@dataclass(frozen=True)
class Arc:
    """A part of a circle in the plane, from the angle start anticlockwise to end, in radians; start + 2π is the whole circle."""

    centre: tuple[float, float]
    radius: float
    start: float = 0.0
    end: float = 2 * math.pi

    @property
    def closed(self) -> bool:
        return self.end - self.start >= 2 * math.pi

    def at(self, angle: Tensor) -> Tensor:
        """The points [n, 2] at angles [n]."""
        return torch.tensor(self.centre, dtype=angle.dtype) + self.radius * _unit(angle)

    def distance(self, x: Tensor) -> Tensor:
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


class Arcs(DistanceWorld):
    """Classes along arcs in the plane, equally likely: uniform along the arc, with Gaussian noise. Distances are in units of std.

    A subclass says where the arcs are, one for each class.
    """

    dim = 2

    @property
    def n_classes(self) -> int:
        return len(self.arcs)

    def sample(self, n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """n in-distribution points: x float32 [n, 2] and their classes y int64 [n]."""
        n = check_draw(n, generator)
        y = torch.randint(self.n_classes, (n,), generator=generator)
        share = torch.rand(n, generator=generator)
        on_arc = torch.stack([arc.at(arc.start + (arc.end - arc.start) * share) for arc in self.arcs])
        return on_arc[y, torch.arange(n)] + self.std * torch.randn(n, 2, generator=generator), y

    def boundary(self, n: int, *, generator: Generator, inner: float = 3.0, outer: float = 3.5) -> Tensor:
        """n OOD points [n, 2] close to the classes: uniform in area at `inner` to `outer` deviations from the nearest arc.

        A shell's points that are nearer to another arc are drawn again.
        """
        n = check_shell(n, generator, inner, outer)
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
class TwoMoons(Arcs):
    """Two half circles that reach into each other, as in scikit-learn's `make_moons`, `radius` times as large and centred.

    std  standard deviation of the noise · radius  of the half circles; between the moons there are at least radius/2
    """

    std: float = 1.0
    radius: float = 16.0

    def __post_init__(self):
        check_positive("std", self.std)
        check_positive("radius", self.radius)

    @property
    def arcs(self) -> Sequence[Arc]:
        half, quarter = self.radius / 2, self.radius / 4
        return Arc((-half, -quarter), self.radius, 0.0, math.pi), Arc((half, quarter), self.radius, math.pi, 2 * math.pi)


@dataclass(frozen=True)
class Rings(Arcs):
    """Two circles around the origin, one class each; in the middle and between them is OOD space that the classes enclose.

    std  standard deviation of the noise · inner, outer  radii of the circles, 0 < inner < outer
    """

    std: float = 1.0
    inner: float = 8.0
    outer: float = 20.0

    def __post_init__(self):
        check_positive("std", self.std)
        if not 0 < self.inner < self.outer < math.inf:
            raise ValueError(f"inner and outer must satisfy 0 < inner < outer; got {self.inner} and {self.outer}")

    @property
    def arcs(self) -> Sequence[Arc]:
        return Arc((0.0, 0.0), self.inner), Arc((0.0, 0.0), self.outer)


@dataclass(frozen=True, eq=False)
class Painted(DistanceWorld):
    """A world of single points that somebody has placed in the plane. Distances are those to the nearest point, in units of std.

    x    points [n, 2] · y  their classes [n], each of 0 … K − 1 at least once
    out  OOD points [m, 2], perhaps none
    std  standard deviation of the Gaussian cloud that every point stands for
    """

    x: Tensor
    y: Tensor
    out: Tensor
    std: float = 1.0
    dim = 2

    def __post_init__(self):
        check_positive("std", self.std)
        check_points(self.x, 2), check_points(self.out, 2)
        if len(self.y) != len(self.x) or self.y.unique().tolist() != list(range(self.n_classes)):
            raise ValueError(f"y must hold each class from 0 on, one for each of the {len(self.x)} points; got {self.y.tolist()}")

    @property
    def n_classes(self) -> int:
        return int(self.y.max()) + 1 if len(self.y) else 1

    def sample(self, n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """n in-distribution points, the classes equally likely: x float32 [n, 2] and their classes y int64 [n]."""
        y = torch.randint(self.n_classes, (check_draw(n, generator),), generator=generator)
        weight = (self.y == torch.arange(self.n_classes)[:, None]).double()
        return self._around(self.x[torch.multinomial(weight[y], 1, generator=generator)[:, 0]] if n else self.x[:0], generator), y

    def boundary(self, n: int, *, generator: Generator, inner: float = 3.0, outer: float = 3.5) -> Tensor:
        """n OOD points [n, 2]: of the clouds of the OOD points or, if there are none, `inner` to `outer` deviations away."""
        n = check_shell(n, generator, inner, outer)
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
