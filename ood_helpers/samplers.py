"""Where training OOD points can come from when the density is not known, and how near such points are to what they should be.

Each sampler looks at a training set x float32 [n, d] with classes y int64 [n], in any dimension d, and returns a function
ood(n, generator=g) -> float32 [n, d], as `training.train` takes it. `off_boundary` knows the true world instead: the reference.
"""

import functools
import math

import numpy as np
import torch
from scipy.stats import chi2
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize

from ood_helpers.arrays import whole
from ood_helpers.data import DistanceWorld, Sampler, check_draw, check_points

_NEAR_SHELL = (2.5, 5.0)  # in standard deviations: what counts as near the boundary
_TARGETS = 2000  # points of the true boundary that samples may cover


def off_boundary(world: DistanceWorld, inner: float = 3.0, outer: float = 3.5) -> Sampler:
    """Points just outside the true classes, from the known density: `world.boundary` with these radii in standard deviations."""
    return functools.partial(world.boundary, inner=inner, outer=outer)


def knn_noise(
    x: Tensor, y: Tensor, *, neighbours: int = 10, boundary_share: float = 0.1, noise: float = 1.0, candidates: int = 10
) -> Sampler:
    """Boundary points with noise, after NPOS (Tao et al. 2023), here in input space.

    The boundary points are the share of the training points that are farthest from their `neighbours`-th neighbour: with few
    points around them they should lie at the edge. A sample is a random one of them with Gaussian noise, the farthest in the
    same sense of so many `candidates`. The classes y are not used.
    noise  standard deviation of the noise, in units of x
    """
    neighbours = whole("neighbours", neighbours, 1)
    points = _training_set(x, y, neighbours + 1)
    _check_share("boundary_share", boundary_share)
    candidates = whole("candidates", candidates, 1)
    if not 0 < noise < math.inf:
        raise ValueError(f"noise must be a positive number; got {noise}")
    index = NearestNeighbors(n_neighbors=neighbours).fit(points)
    own = index.kneighbors()[0][:, -1]  # called without points it does not count a point as its own neighbour
    edge = torch.from_numpy(points[own >= np.quantile(own, 1 - boundary_share)])

    def ood(n, *, generator):
        n = check_draw(n, generator)
        anchors = edge[torch.randint(len(edge), (n,), generator=generator)]
        tries = anchors[:, None] + noise * torch.randn(n, candidates, edge.shape[1], generator=generator)
        if n == 0:
            return anchors
        distance = index.kneighbors(tries.flatten(0, 1).numpy())[0][:, -1].reshape(n, candidates)
        return tries[torch.arange(n), torch.from_numpy(distance.argmax(1))]

    return ood


def class_gaussians(x: Tensor, y: Tensor, *, share: float = 0.01) -> Sampler:
    """The least likely points of one Gaussian for each class, with a covariance that all share, after VOS (Du et al. 2022).

    VOS, in feature space, draws many points and keeps the least likely. Here it is input space, and the least likely `share` of
    the draws is drawn at once: the squared Mahalanobis distance is chi-squared with d degrees of freedom, so it comes from that
    distribution's tail, and the direction apart. In the plane a share of 0.01 begins at 3 standard deviations.
    ValueError if x does not vary within the classes.
    """
    points = _training_set(x, y, 2)
    _check_share("share", share)
    labels, classes = np.unique(y, return_inverse=True)
    means = np.stack([points[classes == k].mean(0) for k in range(len(labels))])
    covariance = EmpiricalCovariance(assume_centered=True).fit(points - means[classes]).covariance_
    values, axes = np.linalg.eigh(covariance)
    if not values.max() > 0:
        raise ValueError("x must vary within the classes; the points of each class are all the same")
    varies = values > 1e-6 * values.max()  # where nothing varies, as in a pixel that is always 0, nothing is unlikely either
    root, rank = torch.from_numpy(axes[:, varies] * np.sqrt(values[varies])).float(), int(varies.sum())
    means = torch.from_numpy(means)

    def ood(n, *, generator):
        n = check_draw(n, generator)
        centre = means[torch.randint(len(means), (n,), generator=generator)]
        tail = share * (1 - torch.rand(n, 1, generator=generator, dtype=torch.float64))  # in (0, share]
        radius = torch.from_numpy(np.sqrt(chi2.isf(tail.numpy(), rank))).float()
        direction = normalize(torch.randn(n, rank, generator=generator), dim=1)
        return centre + radius * direction @ root.T

    return ood


def normals(x: Tensor, y: Tensor, *, manifold_dim: int = 1, neighbours: int = 60, share: float = 0.003) -> Sampler:
    """Points off the learned manifold, along its normals, after the follow-up of the paper's authors (Vernekar et al. 2019b).

    They learn the manifold with a conditional variational autoencoder; here local principal components are enough
    (`local_planes`). A sample stands off a random point of the manifold, by r to 7/6 r (as 3 to 3.5 deviations), in a direction
    that leans from a random normal towards a random tangent by up to a right angle. It is kept if no point of the manifold is
    closer than r. So along a curve there are samples on both sides, and all around its ends.

    manifold_dim  dimension of the manifold, less than d · neighbours  that span a local plane
    share         r is the distance beyond which Gaussian noise, as strong as the training points' own, has this share
    """
    neighbours = whole("neighbours", neighbours, 1)
    points = _training_set(x, y, neighbours + 1)
    dim = points.shape[1]
    _check_share("share", share)
    manifold_dim = whole("manifold_dim", manifold_dim, 0)
    if manifold_dim >= dim:
        raise ValueError(f"manifold_dim must be less than the dimension of x, {dim}; got {manifold_dim}")
    feet, frames = np.empty_like(points), np.empty((len(points), manifold_dim, dim), points.dtype)
    for k in np.unique(y):
        feet[y == k], frames[y == k] = local_planes(points[y == k], manifold_dim, neighbours)
    across = dim - manifold_dim
    noise = np.sqrt(((points - feet) ** 2).sum(1).mean() / across)
    r = float(noise * np.sqrt(chi2.isf(share, across)))
    if r == 0:
        raise ValueError("x must have noise across the manifold; every point lies exactly on its local plane")
    index = NearestNeighbors(n_neighbors=1).fit(feet)
    feet, frames = torch.from_numpy(feet), torch.from_numpy(frames)

    def draw(n, generator):
        i = torch.randint(len(feet), (n,), generator=generator)
        random = torch.randn(n, dim, generator=generator)
        tangent = torch.einsum("nmd,nme,ne->nd", frames[i], frames[i], random)
        lean = torch.pi / 2 * torch.rand(n, 1, generator=generator)
        direction = lean.cos() * normalize(random - tangent, dim=1) + lean.sin() * normalize(tangent, dim=1)
        found = feet[i] + r * (1 + torch.rand(n, 1, generator=generator) / 6) * normalize(direction, dim=1)
        return found[torch.from_numpy(index.kneighbors(found.numpy())[0][:, 0] >= r)]

    def ood(n, *, generator):
        n = check_draw(n, generator)
        kept = [torch.empty(0, dim)]
        for _ in range(1000):
            if sum(map(len, kept)) >= n:
                return torch.cat(kept)[:n]
            kept.append(draw(10 * n, generator))
        raise ValueError("no room beside the manifold: take a smaller manifold_dim or fewer neighbours")

    return ood


def local_planes(points: np.ndarray, manifold_dim: int, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """The learned manifold of points [n, d]: each moved onto its local plane, [n, d], and the plane's axes, [n, manifold_dim, d].

    The plane passes through the mean of the point's `neighbours` nearest other points along their first principal components.
    The point itself has no say in it, so that its distance from the plane is not too small.
    """
    near = points[NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors()[1]]
    centre = near.mean(1)
    frames = np.linalg.svd(near - centre[:, None], full_matrices=False)[2][:, :manifold_dim]
    along = np.einsum("nmd,nd->nm", frames, points - centre)
    return centre + np.einsum("nm,nmd->nd", along, frames), frames


# ---- how near a sample is to the true boundary ----


def share_covered(x: Tensor, world: DistanceWorld, *, reach: float = 1.0, inner: float = _NEAR_SHELL[0]) -> float:
    """The share, in [0, 1], of the true boundary that points x [n, d] cover.

    The boundary is 2,000 points, always the same, 3 standard deviations from the classes. One is covered if a point of x is
    within `reach` standard deviations of it; points of x within `inner` standard deviations of a class do not count. Unlike
    `gan.coverage`, which counts sectors around means, this serves curves, and any dimension.
    """
    targets = world.boundary(_TARGETS, generator=torch.Generator().manual_seed(0), inner=3.0, outer=3.0 + 1e-3)
    outside = x[world.mahalanobis(x) >= inner]
    if len(outside) == 0:
        return 0.0
    distance = NearestNeighbors(n_neighbors=1).fit(outside.numpy()).kneighbors(targets.numpy())[0]
    return float((distance <= reach * world.std).mean())


def share_near(x: Tensor, world: DistanceWorld) -> float:
    """The share, in [0, 1], of points x [n, d] that lie 2.5 to 5 standard deviations from the nearest class."""
    distance = world.mahalanobis(_check_some(x))
    return ((distance >= _NEAR_SHELL[0]) & (distance <= _NEAR_SHELL[1])).double().mean().item()


def share_inside(x: Tensor, world: DistanceWorld) -> float:
    """The share, in [0, 1], of points x [n, d] within 3 standard deviations of a class: as OOD points they cost accuracy."""
    return (world.mahalanobis(_check_some(x)) < 3).double().mean().item()


def _training_set(x, y, least):
    """x as numpy, if x and y are a training set with at least `least` points of each class; ValueError otherwise."""
    if not (isinstance(x, torch.Tensor) and x.dim() == 2):
        raise ValueError(f"x must be a float tensor [n, d]; got {list(getattr(x, 'shape', [type(x).__name__]))}")
    check_points(x, x.shape[1])
    if not (isinstance(y, torch.Tensor) and y.dtype == torch.int64 and y.shape == x.shape[:1]):
        raise ValueError(f"y must be int64 with one class per point, [{len(x)}]; got {y if y is None else list(y.shape)}")
    smallest = int(y.unique(return_counts=True)[1].min()) if len(y) else 0
    if smallest < max(least, 1):
        raise ValueError(f"x must hold at least {max(least, 1)} points of each class; the smallest has {smallest}")
    return x.float().numpy()


def _check_share(name, value):
    if not 0 < value < 1:
        raise ValueError(f"{name} must be a number between 0 and 1; got {value}")


def _check_some(x):
    if len(x) == 0:
        raise ValueError("x must hold at least one point; got none")
    return x
