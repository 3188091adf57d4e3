"""How much faster many networks train in one batched run than one by one in a plain torch loop. Ratios from one run.

Both sides take 64 + 64 fresh rows a step, the confidence loss and Adam. Rounds of the two alternate, and the medians are
compared, so that a busy machine slows both alike.
"""

import functools
import math
import statistics
import time

import torch

from ood_helpers.data import TwoGaussians
from ood_helpers.losses import confidence_loss
from ood_helpers.models import closed_mlp, mlp
from ood_helpers.training import train

NETWORKS, ROUNDS = 12, 5
BETAS = [0.0, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0]
STEPS = {8: 384, 32: 384, 100: 192, 500: 64}  # multiples of the 64 steps that `train` draws points for at a time
WORLD = TwoGaussians()


def network(width, seed):
    return mlp(width=width, generator=torch.Generator().manual_seed(seed))


def plain_loop(model, steps, seed, beta=1.0):
    """What a reader would write for one network; returns the loss of each step."""
    record = []
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        x, y = WORLD.sample(64, generator=generator)
        x_out = WORLD.boundary(64, generator=generator)
        log_p_out = model(x_out).log_softmax(1)
        loss = torch.nn.functional.cross_entropy(model(x), y) - beta * (math.log(2) + log_p_out.mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record.append(loss.detach())
    return torch.stack(record)


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(width):
    """Median milliseconds a step and network: one by one, and in one batched run."""
    steps, alone, together = STEPS[width], [], []
    loss = functools.partial(confidence_loss, beta=1.0)
    for i in range(ROUNDS):
        model, models = network(width, i), [network(width, s) for s in range(NETWORKS)]
        alone.append(seconds(lambda model=model, i=i: plain_loop(model, steps, i)) / steps)
        batched = seconds(lambda models=models: train(models, WORLD, loss, steps=steps, seed=list(range(NETWORKS))))
        together.append(batched / steps / NETWORKS)
    return [1e3 * statistics.median(times) for times in (alone, together)]


def sweep(width, steps=1500, compared=(1, 6, 10)):
    """Seconds for a whole sweep over beta in one batched run; the same one by one, from the betas `compared`; and how far the two
    differ in the loss that they reach, as the largest difference of the means over the last 200 steps."""
    models, betas = [network(width, 0) for _ in BETAS], torch.tensor(BETAS)
    reached = []
    together = seconds(
        lambda: reached.append(train(models, WORLD, functools.partial(confidence_loss, beta=betas), steps=steps, seed=0))
    )
    start = time.perf_counter()
    alone = [plain_loop(network(width, 0), steps, 0, BETAS[i]) for i in compared]
    one_by_one = (time.perf_counter() - start) / len(compared) * len(BETAS)
    gaps = [abs(reached[0].loss[-200:, i].mean() - loss[-200:].mean()).item() for i, loss in zip(compared, alone, strict=True)]
    return together, one_by_one, max(gaps)


def closed_against_plain(dim, width, networks=NETWORKS, depth=2, steps=128):
    """Median seconds of training closed networks, and plain ones with the same number of neurons in every layer."""
    world, times = TwoGaussians(dim=dim), ([], [])
    x, _ = world.sample(200, generator=torch.Generator().manual_seed(0))
    loss, shell = (
        functools.partial(confidence_loss, beta=1.0),
        functools.partial(world.boundary, inner=dim**0.5, outer=2 * dim**0.5),
    )
    for _ in range(ROUNDS):
        random = [torch.Generator().manual_seed(s) for s in range(networks)]
        closed = [closed_mlp(dim, width, 2, depth, points=x, generator=one) for one in random]
        for record, models in zip(times, (closed, [model.plain() for model in closed]), strict=True):
            record.append(seconds(lambda models=models: train(models, world, loss, shell, steps=steps)))
    return [statistics.median(record) for record in times]


def matrix_rate():
    """The machine's own rate of float32 matrix products, in floating-point operations a second."""
    a, b = torch.randn(1500, 1500), torch.randn(1500, 1500)
    return 2 * 1500**3 / min(seconds(lambda: a @ b) for _ in range(20))


def main():
    print(
        f"\nTraining {NETWORKS} networks (2-w-w-2, 128 rows a step), {torch.get_num_threads()} threads; ms per step and network"
    )
    print("width   one by one   batched   ratio   reach   share of the matrix-product rate")
    for width, reach in [(8, "8"), (32, "8"), (100, "4"), (500, "-")]:
        alone, together = compare(width)
        operations = 3 * 2 * 128 * (2 * width + width**2 + width * 2)  # forward, and backward to inputs and to weights
        share = operations / (1e-3 * together) / matrix_rate()
        print(
            f"{width:5d}   {alone:10.2f}   {together:7.3f}   {alone / together:5.1f}   {reach:>5}   {share:.0%}"
            + " (reach 65%)" * (width == 500)
        )
    print("\nClosed networks (`models.closed_mlp`) against plain ones with as many neurons in each layer, reach: at most 2 times")
    for dim, width, networks, depth in [
        (2, 8, 12, 2),
        (2, 100, 12, 2),
        (2, 500, 4, 2),
        (2, 100, 12, 4),
        (100, 100, 12, 2),
        (784, 500, 1, 2),
    ]:
        closed, plain = closed_against_plain(dim, width, networks, depth)
        print(f"d = {dim:3d}, {depth} × {width:3d}, {networks:2d} networks: {closed / plain:.2f} times")
    print("\nA sweep over 12 values of beta, 1,500 steps each; losses are means over the last 200 steps")
    for width, reach in [(100, 20), (500, 90)]:
        together, alone, gap = sweep(width)
        print(
            f"width {width}: {together:.1f} s (reach {reach} s), one by one {alone:.0f} s, ratio {alone / together:.1f}; "
            f"losses differ by at most {gap:.3f}"
        )


if __name__ == "__main__":
    main()
