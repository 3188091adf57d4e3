"""The polytope around one point, in any dimension: does it ever end?"""

import numpy as np
from scipy.linalg import null_space
from scipy.optimize import linprog

from .network import read, vector

UNBOUNDED = 1e-5  # an optimum above this, of unit vectors' products, is no rounding of the solver's, which keeps to 1e-7


def escape(model, x):
    """A direction in which the polytope around x never ends, a unit vector [d]; None if the polytope is bounded.

    On the polytope of x every neuron keeps its sign s_j, and z_j(x + v) = z_j(x) + a_j·v. So it never ends along v exactly
    where s_j a_j·v >= 0 for all neurons j: a linear programme looks for the v that leads away from the kinks fastest.
    For a point on a kink one of the polytopes around it is taken. Cost: 0.01 s for 200 neurons and 64 inputs, 0.1 s for 256.
    Raises ValueError as `read` does, or unless x is [d].
    """
    network = read(model)
    h, slopes, rows = vector(x, "x", network.in_dim), np.eye(network.in_dim), []
    for weight, bias, leak in zip(network.weights, network.biases, network.leaks, strict=False):  # the logits have no kinks
        z, slopes = weight @ h + bias, weight @ slopes
        scale = np.where(z > 0, 1, leak)
        rows.append(np.where(z > 0, 1, -1)[:, None] * slopes)
        h, slopes = scale * z, scale[:, None] * slopes
    rows = np.concatenate([np.zeros((0, network.in_dim)), *rows])
    rows = rows[rows.any(1)]  # a neuron that sees only inactive ones does not change with v: it asks for nothing
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = linprog(-rows.sum(0), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1), method="highs")
    if -found.fun > UNBOUNDED:
        return found.x / np.linalg.norm(found.x)
    along = null_space(rows)  # directions in which no neuron changes at all
    return along[:, 0] if along.shape[1] else None
