"""Adam for the small networks of an update loop, where torch's own spends more time in Python than in its kernel."""

from collections.abc import Iterable
from typing import Any

import torch


class FusedAdam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)`` for one group of parameters that all have a gradient at every step.

    It computes the same with the same kernel, and its ``state_dict`` is the same. What torch collects anew at every
    step (parameters with gradients, their moments, groups by device) is collected once.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, fused=True)
        self._moments: tuple[list[torch.Tensor], ...] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._moments = None  # a loaded state has tensors of its own

    def zero_grad(self) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        parameters = group["params"]
        if self._moments is None:
            super().step()
            states = [self.state[parameter] for parameter in parameters]
            self._moments = tuple([s[name] for s in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            return
        exp_avgs, exp_avg_sqs, steps = self._moments
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            parameters,
            [parameter.grad for parameter in parameters],
            exp_avgs,
            exp_avg_sqs,
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
