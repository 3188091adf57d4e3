"""The polytopes of a small network in a square, and who wins them, by rational arithmetic."""

from fractions import Fraction


def exact_cells(weights, biases, leak, half):
    """The polygons of Fractions into which the kinks of a network cut the square, and the logits on each: rows [a, b, c]."""
    half, eye = Fraction(half), [[Fraction(1), Fraction(0), Fraction(0)], [Fraction(0), Fraction(1), Fraction(0)]]
    cells = [([(-half, -half), (half, -half), (half, half), (-half, half)], eye)]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        after = []
        for polygon, rows in cells:
            z = [[sum(w * row[i] for w, row in zip(ws, rows, strict=True)) + (b if i == 2 else 0) for i in range(3)]
                 for ws, b in zip(weight, bias, strict=True)]  # fmt: skip
            parts = [polygon]
            if layer < len(weights) - 1:
                for a, b, c in z:
                    parts = [piece for part in parts for piece in halves(part, a, b, c)]
            for part in parts:
                x, y = (sum(corner[i] for corner in part) / len(part) for i in (0, 1))
                gains = [1 if layer == len(weights) - 1 or a * x + b * y + c > 0 else leak for a, b, c in z]
                after.append((part, [[gain * v for v in row] for gain, row in zip(gains, z, strict=True)]))
        cells = after
    return cells


def halves(polygon, a, b, c):
    """The parts of a convex polygon on the two sides of a x + b y + c = 0, or the whole where one of them has no area."""
    values = [a * x + b * y + c for x, y in polygon]
    if max(values) <= 0 or min(values) >= 0:
        return [polygon]
    found = []
    for sign in (1, -1):
        kept = []
        for p, q, v, w in zip(polygon, polygon[1:] + polygon[:1], values, values[1:] + values[:1], strict=True):
            if sign * v >= 0:
                kept.append(p)
            if v * w < 0:
                kept.append(tuple(s + v / (v - w) * (t - s) for s, t in zip(p, q, strict=True)))
        found.append(kept)
    return found


def area(polygon):
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return sum(x * v - u * y for (x, y), (u, v) in pairs) / 2


def exact_class_areas(cells):
    """The area that each class wins, the lowest index where several tie."""
    won = [Fraction(0)] * len(cells[0][1])
    for polygon, rows in cells:
        parts = [polygon]
        for i, one in enumerate(rows):
            for other in rows[:i]:
                parts = [piece for part in parts for piece in halves(part, *(p - q for p, q in zip(one, other, strict=True)))]
        for part in parts:
            x, y = (sum(corner[i] for corner in part) / len(part) for i in (0, 1))
            logits = [a * x + b * y + c for a, b, c in rows]
            won[logits.index(max(logits))] += area(part)
    return won
