"""CCU, certified certain uncertainty (Meinke & Hein, ICLR 2020): doubt far away from a density model beside the network.

With densities of the points inside and outside, and R(x) = p(x|in) / p(x|out), Bayes' rule for equally likely in and out gives

    P(k|x) = (R(x) · P_net(k|x) + 1/K) / (R(x) + 1) .

Where R goes to 0, P goes to 1/K whatever the network says. The densities are mixtures of round Gaussians, so R can be bounded
over a whole ball, and so can the confidence: a guarantee, and it asks nothing of the network.
"""

import math
from dataclasses import dataclass

import torch
from sklearn.mixture import GaussianMixture
from torch import Generator, Tensor

from ood_helpers.arrays import whole
from ood_helpers.data import check_draw, check_points


@dataclass(frozen=True, eq=False)
class Mixture:
    """m round Gaussians: logarithms of their weights [m], means [m, d], standard deviations [m], all in float64."""

    log_weights: Tensor
    means: Tensor
    stds: Tensor

    def log_density(self, x: Tensor, shift: float = 0.0) -> Tensor:
        """log p(x) [n] at points x [n, d]. A shift adds to the distances from all means (not below 0); see `Densities.bound`."""
        x = check_points(x, self.means.shape[1]).double()
        distance = torch.cdist(x, self.means, compute_mode="donot_use_mm_for_euclid_dist") + shift
        scale = self.means.shape[1] * (self.stds.log() + 0.5 * math.log(2 * math.pi))
        return (self.log_weights - scale - 0.5 * (distance.clamp(min=0) / self.stds).square()).logsumexp(-1)


@dataclass(frozen=True, eq=False)
class Densities:
    """The densities of in-distribution and of OOD points, each a `Mixture`."""

    inside: Mixture
    outside: Mixture

    def log_ratio(self, x: Tensor) -> Tensor:
        """log R(x) = log p(x|in) − log p(x|out), [n] at points x [n, d]; far away it goes to −∞."""
        return self.inside.log_density(x) - self.outside.log_density(x)

    def log_probabilities(self, x: Tensor, logits: Tensor) -> Tensor:
        """log P(k|x) [n, K] in float64, of points x [n, d] and a network's logits [n, K] there. They can be used as logits."""
        ratio, n_classes = self.log_ratio(x)[:, None], logits.shape[-1]
        uniform = torch.full_like(ratio, -math.log(n_classes))
        return torch.logaddexp(ratio + logits.double().log_softmax(-1), uniform) - torch.nn.functional.softplus(ratio)

    def bound(self, x: Tensor, radius: float, n_classes: int) -> Tensor:
        """Numbers [n] that the confidence exceeds nowhere within `radius` of points x [n, d], whatever the network.

        Theorem 3.1 of the paper: no component of p(·|in) is nearer than its distance − radius, none of p(·|out) farther than its
        distance + radius, so R is at most b, the quotient of both, and the confidence at most (b + 1/K) / (b + 1), K = n_classes.
        """
        if not 0 <= radius < math.inf:
            raise ValueError(f"radius must be a number of at least 0; got {radius}")
        n_classes = whole("n_classes", n_classes, 2)
        b = self.inside.log_density(x, -radius) - self.outside.log_density(x, radius)
        return 1 / n_classes + (1 - 1 / n_classes) * b.sigmoid()


def fit(x_in: Tensor, x_out: Tensor, components: int = 2, *, generator: Generator) -> Densities:
    """`Densities` of points x_in [n, d] and x_out [m, d], mixtures of `components` round Gaussians each, by scikit-learn's EM.

    ValueError if the widest Gaussian outside is not wider than the widest inside: then R grows far away, and nothing is
    guaranteed. Fewer components are wider.
    """
    components = whole("components", components, 1)
    check_draw(0, generator)
    inside, outside = (_mixture(x, components, generator) for x in (x_in, x_out))
    if not outside.stds.max() > inside.stds.max():
        raise ValueError(
            f"components must be so few that the widest Gaussian outside (standard deviation {outside.stds.max():.3g}) "
            f"is wider than the widest inside ({inside.stds.max():.3g}); got {components}"
        )
    return Densities(inside, outside)


def _mixture(x, components, generator):
    seed = int(torch.randint(2**31, (), generator=generator))
    found = GaussianMixture(components, covariance_type="spherical", random_state=seed).fit(x.double().numpy())
    weights, means, variances = map(torch.from_numpy, (found.weights_, found.means_, found.covariances_))
    return Mixture(weights.log(), means, variances.sqrt())
