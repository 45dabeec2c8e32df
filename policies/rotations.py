"""Rotations that a network can follow: a unit quaternion and its negative are one rotation, and data hold both."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5  # of the norm: stored in single precision or better


class Rotations6D(nn.Module):
    """Replaces unit quaternions by the first two rows of their rotation matrices (Zhou et al. 2019, section 4.2).

    These are continuous in the rotation and the same for q and -q, which a quaternion is not: the relative rotation of
    a nut to a hand that both turn slowly changes its sign again and again.

    Args:
        dim: size of an observation.
        quaternions: positions where a quaternion (x, y, z, w) begins in it; none: observations stay as they are.
    """

    def __init__(self, dim: int, quaternions: Sequence[int]) -> None:
        super().__init__()
        entries = [start + i for start in quaternions for i in range(4)]
        if len(set(entries)) != len(entries) or any(not 0 <= entry < dim for entry in entries):
            raise ValueError(f"quaternions begin at {list(quaternions)}: expected 4 entries each within {dim}, apart")
        others = [i for i in range(dim) if i not in set(entries)]
        self.register_buffer("_entries", torch.tensor(entries, dtype=torch.long), persistent=False)
        self.register_buffer("_others", torch.tensor(others, dtype=torch.long), persistent=False)
        self.dim = len(others) + 6 * len(quaternions)

    def forward(self, obs: Tensor) -> Tensor:
        """(B, obs_dim) to (B, dim): all other entries in their order, then six for each quaternion."""
        entries = self.get_buffer("_entries")
        if not len(entries):
            return obs
        x, y, z, w = obs[:, entries].unflatten(1, (-1, 4)).unbind(-1)
        rows = [
            1 - 2 * (y * y + z * z),
            2 * (x * y - z * w),
            2 * (x * z + y * w),
            2 * (x * y + z * w),
            1 - 2 * (x * x + z * z),
            2 * (y * z - x * w),
        ]
        return torch.cat([obs[:, self.get_buffer("_others")], torch.stack(rows, dim=-1).flatten(1)], dim=1)


def find_quaternions(obs: Tensor) -> list[int]:
    """Where unit quaternions begin in the observations (N, obs_dim) of an episode: four entries of norm 1 in each row.

    A quaternion that the simulator has not computed yet is zero in the first row (robosuite's relative poses).
    """
    rows = obs[1:] if len(obs) > 1 else obs
    windows = rows.double().unfold(1, 4, 1) if obs.shape[1] >= 4 else rows.new_zeros(len(rows), 0, 4)
    errors = (windows.norm(dim=2) - 1).abs().amax(0)  # (obs_dim - 3,)
    found: list[int] = []
    for start in errors.argsort().tolist():  # the exact ones first: where a hand stands still, others come close
        if errors[start] < TOLERANCE and all(abs(start - other) >= 4 for other in found):
            found.append(start)
    return sorted(found)
