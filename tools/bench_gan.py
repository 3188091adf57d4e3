"""How long the joint training of Eq. (1) takes at the published sizes, and what a batched run of 8 seeds saves.

"One by one" is a plain torch loop, as a reader would write it for one triple of networks, and `train_gan` with one triple. Rounds
of the three alternate, and the medians are compared, so that a busy machine slows all alike.
"""

import statistics
import time

import torch
from bench_training import matrix_rate
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ood_helpers.data import TwoGaussians
from ood_helpers.gan import discriminator, generator, train_gan
from ood_helpers.models import mlp

SEEDS, ROUNDS, BATCH = 8, 5, 100
STEPS = {"published (256, 256, 500)": (256, 500, 64), "small (64, 64, 64)": (64, 64, 128)}  # multiples of the draws' 64 steps
WORLD = TwoGaussians(std=0.1, separation=0.7)


def triple(seed, width=256, classifier_width=500):
    g = torch.Generator().manual_seed(seed)
    networks = generator(width=width, generator=g), discriminator(width=width, generator=g)
    return *networks, mlp(width=classifier_width, generator=g)


def plain_loop(G, D, C, steps, seed):
    """Eq. (1) for one triple: fresh points and noise, and three optimizers, in every step."""
    random = torch.Generator().manual_seed(seed)
    adam_G, adam_D, adam_C = (torch.optim.Adam(model.parameters(), lr=2e-4, betas=(0.5, 0.999)) for model in (G, D, C))
    ones, zeros = torch.ones(BATCH, 1), torch.zeros(BATCH, 1)
    uniform = torch.full((BATCH, 2), 0.5)  # the cross-entropy against it is term (b) and a constant

    def move(optimizer, loss):
        for model in (G, D, C):
            model.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(steps):
        x, y = WORLD.sample(BATCH, generator=random)
        fake = G(torch.randn(BATCH, 100, generator=random))
        kept = fake.detach()
        move(adam_D, binary_cross_entropy_with_logits(D(x), ones) + binary_cross_entropy_with_logits(D(kept), zeros))
        move(adam_G, binary_cross_entropy_with_logits(D(fake), ones) + cross_entropy(C(fake), uniform))
        move(adam_C, cross_entropy(C(x), y) + cross_entropy(C(kept), uniform))


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(width, classifier_width, steps):
    """Median milliseconds a step and triple: a plain loop, `train_gan` with one triple, and one batched run of all seeds."""
    plain, alone, together = [], [], []
    for i in range(ROUNDS):
        networks = [triple(s, width, classifier_width) for s in range(SEEDS)]
        plain.append(seconds(lambda one=networks[0], i=i: plain_loop(*one, steps, i)) / steps)
        alone.append(seconds(lambda one=networks[1], i=i: train_gan(*one, WORLD, steps=steps, batch=BATCH, seed=i)) / steps)
        lists = list(zip(*networks, strict=True))
        batched = seconds(lambda lists=lists: train_gan(*lists, WORLD, steps=steps, batch=BATCH, seed=list(range(SEEDS))))
        together.append(batched / steps / SEEDS)
    return [1e3 * statistics.median(times) for times in (plain, alone, together)]


def main():
    print(f"The joint training of Eq. (1), {torch.get_num_threads()} threads, {BATCH} real and {BATCH} generated points a step")
    networks = triple(0)
    taken = seconds(lambda: train_gan(*networks, WORLD, steps=1000, batch=BATCH))
    print(f"1,000 iterations at the published sizes, one triple: {taken:.1f} s (reach 20 s)")
    print(f"The machine's own rate of matrix products just after: {matrix_rate() / 1e9:.0f} GFLOP/s")
    print(f"\n{SEEDS} seeds: milliseconds a step and triple, median of {ROUNDS} alternating rounds")
    print("widths of G, D, C          plain loop   train_gan alone   in one run   ratio to plain (reach 1.5)   to alone")
    for name, (width, classifier_width, steps) in STEPS.items():
        plain, alone, together = compare(width, classifier_width, steps)
        print(
            f"{name:25}   {plain:10.2f}   {alone:15.2f}   {together:10.2f}   {plain / together:26.1f}   {alone / together:8.1f}"
        )


if __name__ == "__main__":
    main()
