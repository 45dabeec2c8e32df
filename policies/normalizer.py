"""Min-max normalisation to [-1, 1], as buffers that travel with the policy."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Below this range (in the data's own units) a dimension counts as constant: dividing by it would only amplify noise.
MIN_RANGE = 1e-4


class MinMaxNormalizer(nn.Module):
    """Maps [low, high] of the data to [-1, 1] in each entry; a constant entry maps to 0.

    Until ``set_range`` has been called it is the identity on [-1, 1].

    Args:
        shape: shape of one sample.
    """

    low: Tensor
    high: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("low", -torch.ones(*shape))
        self.register_buffer("high", torch.ones(*shape))

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Take the data's range, (*shape) each; entries narrower than ``MIN_RANGE`` become 2 wide."""
        constant = high - low < MIN_RANGE
        middle = (low + high) / 2
        self.low.copy_(torch.where(constant, middle - 1, low))
        self.high.copy_(torch.where(constant, middle + 1, high))

    def normalize(self, value: Tensor) -> Tensor:
        """(..., *shape) in the data's units -> the same in [-1, 1] (beyond it where the value is beyond the data)."""
        return (value - self.low) * (2 / (self.high - self.low)) - 1

    def denormalize(self, value: Tensor) -> Tensor:
        """Inverse of ``normalize``."""
        return (value + 1) * ((self.high - self.low) / 2) + self.low
