"""How much faster many networks train in one batched run than one by one in a plain torch loop. Ratios from one run.

Both sides take 64 + 64 fresh rows a step, the confidence loss and Adam. Rounds of the two alternate, and the medians are
compared, so that a busy machine slows both alike.
"""

import functools
import statistics
import time

import torch

from ood_helpers.data import TwoGaussians
from ood_helpers.losses import confidence_loss
from ood_helpers.models import mlp
from ood_helpers.training import train

NETWORKS, ROUNDS = 12, 5
STEPS = {8: 384, 32: 384, 100: 192, 500: 64}  # multiples of the 64 steps that `train` draws points for at a time
WORLD = TwoGaussians()


def network(width, seed):
    return mlp(width=width, generator=torch.Generator().manual_seed(seed))


def plain_loop(model, steps, seed):
    """What a reader would write for one network."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        x, y = WORLD.sample(64, generator=generator)
        x_out = WORLD.boundary(64, generator=generator)
        log_p_out = model(x_out).log_softmax(1)
        loss = torch.nn.functional.cross_entropy(model(x), y) - log_p_out.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


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


if __name__ == "__main__":
    main()
