"""Adam as torch has it, by the function behind its class: before a first step the class reads torch's compiler, for a second."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """torch.optim.Adam(parameters, lr, betas, fused=True), bit for bit; the learning rate may be changed between two steps."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self._state = [(p, torch.zeros_like(p), torch.zeros_like(p), torch.zeros(())) for p in parameters]
        self.lr, self._betas = lr, betas

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p, *_ in self._state:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient, in place."""
        p, first, second, steps = map(list, zip(*(row for row in self._state if row[0].grad is not None), strict=True))
        how = {"beta1": self._betas[0], "beta2": self._betas[1], "lr": self.lr, "weight_decay": 0.0, "eps": 1e-8}
        adam(p, [q.grad for q in p], first, second, [], steps, fused=True, amsgrad=False, maximize=False, **how)
