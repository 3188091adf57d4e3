"""How long the exact polytopes take on one core, and how much faster that is than cutting polygon after polygon.

Each row runs in a process of its own, with one thread, so that its peak memory is its own too. Seconds are of processor time:
with one thread the same as on the clock of an idle machine, but not disturbed by what else runs. Networks are trained for 500
steps on the course's two Gaussians. Both sides of a ratio run in the same process.

Other tools are compared where they can be imported; nothing is installed here. To keep their requirements out of the course's
environment, put them into a folder of their own:

    .venv/bin/python -m pip install --no-deps --target peers PACKAGES     (printed for each tool that is missing)
    PYTHONPATH=peers make bench
"""

import functools
import importlib.util
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from torch import nn

from ood_helpers.data import TwoGaussians
from ood_helpers.losses import confidence_loss
from ood_helpers.models import closed_mlp, mlp
from ood_helpers.polytopes.bound import confidence_bound
from ood_helpers.polytopes.infinity import infinity
from ood_helpers.polytopes.line import line, ray
from ood_helpers.polytopes.network import read
from ood_helpers.polytopes.plane import plane
from ood_helpers.polytopes.radius import horizon_radius
from ood_helpers.training import train

WIDTHS = (16, 32, 64, 100, 200, 500)
PLAIN_UP_TO = 64  # beyond this width the plain way takes minutes
SYRENN = {
    100: 0.12,
    200: 1.8,
    500: 19.0,
}  # seconds of SyReNN's C++ core for the polygons, in float32, measured on another machine
UNTRAINED = {16: 563, 32: 2_227, 100: 19_300, 200: 79_667, 500: 499_090}  # polytopes that SyReNN and `plane` agree on
DEEP = {2: (0.27, 14_159), 4: (2.2, 73_304), 6: (6.0, 161_655)}  # hidden layers of 256 -> seconds, polytopes; trained on digits
PEERS = {
    "relucent": "relucent gurobipy plotly narwhals tqdm",
    "auto_LiRPA": "git+https://github.com/Verified-Intelligence/auto_LiRPA graphviz appdirs pyyaml",
}
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def one_by_one(model, lo=-50.0, hi=50.0):
    """The plain way: for every neuron, cut every polygon that it crosses in two. A list of (polygon [v, 2], slopes, offsets)."""
    network = read(model)
    pieces = [(np.array([[lo, lo], [hi, lo], [hi, hi], [lo, hi]]), np.eye(2), np.zeros(2))]
    for weight, bias, leak in zip(network.weights, network.biases, [*network.leaks, None], strict=True):
        pieces = [(polygon, weight @ slopes, weight @ offsets + bias) for polygon, slopes, offsets in pieces]
        if leak is None:
            return pieces
        for j in range(len(bias)):
            pieces = [
                (half, slopes, offsets) for polygon, slopes, offsets in pieces for half in halves(polygon, slopes[j], offsets[j])
            ]
        bent = []
        for polygon, slopes, offsets in pieces:
            gain = np.where(slopes @ polygon.mean(axis=0) + offsets > 0, 1.0, leak)
            bent.append((polygon, gain[:, None] * slopes, gain * offsets))
        pieces = bent


def halves(polygon, slope, offset):
    """A convex polygon, whole or cut in two along the line slope·x + offset = 0."""
    value = polygon @ slope + offset
    positive = value > 0
    if positive.all() or not positive.any():
        return [polygon]
    sides = ([], [])
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        sides[int(positive[i])].append(polygon[i])
        if positive[i] != positive[j]:
            crossing = polygon[i] + value[i] / (value[i] - value[j]) * (polygon[j] - polygon[i])
            sides[0].append(crossing)
            sides[1].append(crossing)
    return [np.array(side) for side in sides]


def trained(width, n_classes=2):
    model = mlp(width=width, n_classes=n_classes, generator=torch.Generator().manual_seed(0))
    train(model, TwoGaussians(), functools.partial(confidence_loss, beta=1.0), steps=500, seed=0)
    return model


def seconds(run):
    """Median over a second of runs, at least three."""
    times = []
    while len(times) < 3 or sum(times) < 1:
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def megabytes():
    """Peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (20 if sys.platform == "darwin" else 10)


def plane_row(width):
    model = trained(width)
    before = megabytes()
    polytopes = plane(model)
    polytopes.slopes  # noqa: B018  the maps are computed when they are first asked for
    row = {"polytopes": len(polytopes), "before": before, "peak": megabytes()}
    del polytopes
    row |= {"polygons": seconds(lambda: plane(model)), "all": seconds(lambda: plane(model).slopes)}
    if width <= PLAIN_UP_TO:
        start = time.process_time()
        row |= {"plain count": len(one_by_one(model)), "plain": time.process_time() - start}
    return row


def other_rows():
    """`infinity`, `ray` and `horizon_radius` at the sizes that the course draws, and a line through a network of convolutions."""
    generator = torch.Generator().manual_seed(0)
    digits = mlp(in_dim=784, n_classes=10, generator=generator)
    start, direction = torch.rand(784, generator=generator).numpy(), torch.randn(784, generator=generator).numpy()
    model = trained(500, n_classes=3)
    pictures = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 100), nn.ReLU(), nn.Linear(100, 10)),
    )
    one, other = torch.rand(2, 1, 28, 28, generator=generator).numpy()
    closed = closed_mlp(784, 500, 10, points=torch.rand(100, 784, generator=generator), generator=generator).plain()
    return {
        "infinity 2-500-500-3": (seconds(lambda: infinity(model)), len(infinity(model)), "sectors"),
        "ray 784-500-500-10": (seconds(lambda: ray(digits, start, direction)), len(ray(digits, start, direction).t), "pieces"),
        "horizon_radius 784-500-500-10 (reach 50)": (seconds(lambda: horizon_radius(closed)), 1, "ball"),
        "line, CNN of 28 × 28 pixels": (seconds(lambda: line(pictures, one, other)), len(line(pictures, one, other)), "pieces"),
    }


def untrained(*sizes):
    """Linear layers as torch starts them, with ReLU between."""
    torch.manual_seed(0)
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def syrenn_row(width):
    """`plane` on the network with which SyReNN was measured."""
    model, count = untrained(2, width, width, 2), UNTRAINED[width]
    return {"same": len(plane(model)) == count, "count": count, "taken": seconds(lambda: plane(model))}


def deep_row(depth):
    """`plane` through three random images of 784 pixels, as torch starts the weights."""
    model, (origin, one, other) = untrained(784, *[256] * depth, 10), np.random.default_rng(0).random((3, 784))
    slice_of = {"lo": -1, "hi": 2, "origin": origin, "axes": np.stack([one - origin, other - origin])}
    return {"count": len(plane(model, **slice_of)), "taken": seconds(lambda: plane(model, **slice_of))}


def relucent_row():
    """All polytopes of a network of the plane: every vertex lies within the square of side 20,000."""
    import relucent

    model, start = untrained(2, 8, 8, 2), spent()
    found = relucent.Complex(model)
    found.bfs(nworkers=1, verbose=0)
    theirs = spent() - start
    ours = seconds(lambda: plane(model, -1e4, 1e4).slopes)
    return f"{len(plane(model, -1e4, 1e4)):,} and {len(found):,} polytopes, {ours:.4f} and {theirs:.1f} s, {theirs / ours:,.0f}×"


def auto_lirpa_row(boxes=25):
    """CROWN's bound on the confidence in boxes around points of the data."""
    import auto_LiRPA

    model, x = trained(100).float(), TwoGaussians().sample(boxes, generator=torch.Generator().manual_seed(1))[0].float()
    low, high, pairs = x - 0.2, x + 0.2, torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]).expand(boxes, -1, -1)

    def theirs():
        bounded = auto_LiRPA.BoundedModule(model, x, device="cpu")
        box = auto_LiRPA.BoundedTensor(x, auto_LiRPA.PerturbationLpNorm(x_L=low, x_U=high))
        return bounded.compute_bounds(x=(box,), C=pairs, method="backward")[1].amax(1).sigmoid().detach().numpy()

    def ours():
        return confidence_bound(model, low, high)

    apart, times = ours() - theirs(), (seconds(ours), seconds(theirs))
    return (
        f"{boxes} boxes, ours less theirs from {apart.min():.1e} to {apart.max():.1e}, {1e3 * times[0]:.1f} and "
        f"{1e3 * times[1]:.1f} ms, {times[1] / times[0]:.1f}×"
    )


def spent():
    """Processor seconds of this process and of those that it has started."""
    return sum(os.times()[:4])


def alone(*arguments):
    """What a row function prints last in a process of its own with one thread."""
    done = subprocess.run([sys.executable, __file__, *arguments], env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def beside(peer, packages):
    """What the row of another tool prints; or that the tool is missing, or why it does not run."""
    if importlib.util.find_spec(peer) is None:
        return f"not installed: pip install --no-deps --target peers {packages}; then PYTHONPATH=peers make bench"
    try:
        return alone(peer)
    except SystemExit as stopped:
        return f"does not run here: {str(stopped).strip().splitlines()[-1]}"


def main():
    print("plane, trained 2-w-w-2 on [-50, 50]², one core; in brackets the memory before it, most of it torch")
    print(" width  polytopes  polygons s  with maps s       peak MB  one by one s  ratio")
    for width in WIDTHS:
        row = alone("plane", str(width))
        memory = f"{row['peak']:.0f} ({row['before']:.0f})"
        plain, ratio = (f"{row['plain']:.2f}", f"{row['plain'] / row['all']:.0f}×") if "plain" in row else ("", "")
        print(f"{width:6} {row['polytopes']:10,} {row['polygons']:11.4f} {row['all']:12.4f} {memory:>13} {plain:>13} {ratio:>6}")
    for name, (time_taken, count, what) in alone("others").items():
        print(f"{name}: {1e3 * time_taken:.1f} ms, {count:,} {what}")
    print("other tools: ours and theirs in one run; SyReNN's seconds are quoted")
    for width, theirs in SYRENN.items():
        row = alone("syrenn", str(width))
        counts = f"{row['count']:,} polytopes of both" if row["same"] else "OTHER COUNTS"
        print(f"SyReNN, 2-{width}-{width}-2: {counts}, {row['taken']:.3f} and {theirs} s, {theirs / row['taken']:.0f}×")
    for depth, (theirs, polytopes) in DEEP.items():
        row = alone("deep", str(depth))
        ours, quoted = 1e6 * row["taken"] / row["count"], 1e6 * theirs / polytopes
        counts = f"{row['count']:,} polytopes in {row['taken']:.2f} s"
        print(f"SyReNN, 784-256×{depth}-10, other weights: {counts}, {ours:.1f} and {quoted:.1f} µs each, {quoted / ours:.1f}×")
    for peer, packages in PEERS.items():
        print(f"{peer}: {beside(peer, packages)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case []:
            main()
        case ["plane", width]:
            print(json.dumps(plane_row(int(width))))
        case ["others"]:
            print(json.dumps(other_rows()))
        case ["syrenn", width]:
            print(json.dumps(syrenn_row(int(width))))
        case ["deep", depth]:
            print(json.dumps(deep_row(int(depth))))
        case ["relucent"]:
            print(json.dumps(relucent_row()))
        case ["auto_LiRPA"]:
            print(json.dumps(auto_lirpa_row()))
