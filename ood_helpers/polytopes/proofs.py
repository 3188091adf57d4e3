"""What proofs need and floats do not give: sums without rounding, cones decided exactly, a bound that no rounding breaks."""

import math

import numpy as np

EPS = np.finfo(np.float64).eps
_LARGEST = 50_000  # rows · columns² of the programmes that are solved in whole numbers: about a second


def whole_numbers(values):
    """The floats `values`, all times one power of two, as an array of Python's whole numbers: they add and multiply exactly."""
    mantissa, exponent = np.frexp(values)
    exponent = np.where(mantissa == 0, exponent.max(initial=0), exponent)
    shift = (exponent - exponent.min(initial=0)).astype(object)
    return (mantissa * 2.0**53).astype(np.int64).astype(object) << shift


def _lengths(rows):
    """Of each row [n, d], also where its squares leave what floats can hold."""
    most = np.abs(rows).max(axis=1, initial=0)
    return most * np.linalg.norm(rows / np.where(most == 0, 1, most)[:, None], axis=1)


def least_pull(rows, weights):
    """A certain lower bound, at least 0, of Σ_k w_k |v_k·u| over all u of length 1; rows v [n, d], weights w [n] at least 0.

    |t| >= t² / T up to t = T, so the sum is at least uᵀMu with M = Σ_k w_k v_k v_kᵀ / |v_k|. If the Cholesky decomposition of
    M − c runs to its end, no eigenvalue of M is below c minus its rounding, which is at most about EPS · d · trace (Rump 2006).
    """
    length = _lengths(rows)
    unit, price = rows / np.maximum(length, 1e-300)[:, None], weights * length
    matrix = unit.T @ (unit * price[:, None])
    noise = 2 * (len(rows) + 2 * len(matrix) + 10) * EPS * price.sum() + 1e-290
    if not noise < np.inf:
        return 0.0
    try:
        least = np.linalg.eigvalsh(matrix)[0] - noise
        np.linalg.cholesky(matrix - max(least, 0) * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return 0.0
    return max(least - noise, 0.0)


def in_cone(rows, d):
    """A vector v [d] ≠ 0 with rows @ v >= 0, n rows [d] in whole numbers: v of whole numbers, too. None: there is none, proved.

    v lies in the relative interior: a product that can be positive in the cone is. Where no v makes all of them positive, some
    y >= 0 has y @ rows = 0; then rows with y_j > 0 are 0 in all of the cone, and the search goes on where they are.
    Raises ArithmeticError where that would take too long.
    """
    rows = np.array(rows, dtype=object).reshape(-1, d)
    basis = whole_numbers(np.eye(d))
    while basis.shape[1]:
        here = rows @ basis
        here = np.array([row // math.gcd(*row) for row in here if row.any()], dtype=object)
        if not len(here):
            return basis[:, 0]
        v, y = inside(here)
        if v is not None:
            return basis @ v
        basis = basis @ _null_space(here[y > 0])
    return None


def inside(rows):
    """(v, None) with rows @ v > 0, or (None, y) with y >= 0, y ≠ 0, y @ rows = 0, in whole numbers; rows [n, d] not 0.

    The programme "largest t <= 1 with rows @ v >= t" by the simplex method without divisions: Bland's rule ends it, and one
    denominator for the whole tableau keeps the numbers whole (Edmonds 1967). v is written p − q, p [d] and q >= 0.
    """
    n, d = rows.shape
    if n * d * d > _LARGEST:
        raise ArithmeticError(f"undecided: {n} conditions in {d} dimensions are too many to be solved exactly")
    table = np.zeros((n + 2, d + 3), dtype=object)  # columns p, q, t, right side; rows: one for each condition, t <= 1, the aim
    table[:n, :d], table[:n, d], table[: n + 1, d + 1] = -rows, rows.sum(axis=1), 1
    table[n, d + 2], table[n + 1, d + 1] = 1, -1
    across, down, unit = list(range(d + 2)), list(range(d + 2, d + n + 3)), 1  # the variables of the columns, of the rows
    while rising := [(name, c) for c, name in enumerate(across) if table[-1, c] < 0]:
        column = min(rising)[1]
        r = None
        for i in range(n + 1):  # the row that allows the smallest step; of equals the variable named first
            if table[i, column] > 0:
                if r is not None:
                    compare = table[i, -1] * table[r, column] - table[r, -1] * table[i, column]
                if r is None or compare < 0 or (compare == 0 and down[i] < down[r]):
                    r = i
        pivot, left, top = table[r, column], table[:, column].copy(), table[r].copy()
        table = (table * pivot - np.outer(left, top)) // unit
        table[:, column], table[r] = -left, top
        table[r, column], unit = unit, pivot
        across[column], down[r] = down[r], across[column]
    value = dict.fromkeys(range(d + 2), 0) | dict(zip(down, table[:-1, -1], strict=True))
    if value[d + 1] > 0:
        return np.array([value[i] - value[d] for i in range(d)], dtype=object), None
    price = dict(zip(across, table[-1, :-1], strict=True))
    return None, np.array([price.get(d + 2 + j, 0) for j in range(n)], dtype=object)


def _null_space(rows):
    """Columns of whole numbers that span the vectors v with rows @ v = 0 [d, k]; rows [n, d] in whole numbers."""
    rows, pivots = list(rows), []
    for column in range(len(rows[0])):
        r = next((i for i in range(len(pivots), len(rows)) if rows[i][column]), None)
        if r is None:
            continue
        top = rows.pop(r)
        rows = [row * top[column] - top * row[column] if row[column] else row for row in rows]
        rows = [row // (math.gcd(*row) or 1) for row in rows]
        rows.insert(len(pivots), top)
        pivots.append(column)
    free = [c for c in range(len(rows[0])) if c not in pivots]
    basis = np.zeros((len(rows[0]), len(free)), dtype=object)
    for place, column in enumerate(free):
        common = math.lcm(*(int(row[p]) for row, p in zip(rows, pivots, strict=False)))
        basis[column, place] = common
        for row, p in zip(rows, pivots, strict=False):
            basis[p, place] = -row[column] * common // row[p]
    return basis
