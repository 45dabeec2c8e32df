"""Windows of consecutive actions: what a chunk-predicting policy is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChunkDataset:
    """Every window of every episode, as tensors.

    ::

        step of the episode      t    t+1  t+2  t+3
        observation used         o
        actions to predict       a    a    a    a        (pred_horizon = 4)

    Args:
        obs: (N, obs_dim) float32, the observation at the first step of each window.
        actions: (N, pred_horizon, action_dim) float32.
        skipped: episodes shorter than ``pred_horizon`` that gave no window.
    """

    obs: Tensor
    actions: Tensor
    skipped: int = 0

    def __len__(self) -> int:
        return self.obs.shape[0]


def window_chunks(
    episodes: Sequence[tuple[Tensor, Tensor]], pred_horizon: int, held: Sequence[bool] | None = None
) -> ChunkDataset:
    """Cut episodes into overlapping windows.

    Args:
        episodes: (obs (T, obs_dim), actions (T, action_dim)) of each episode.
        pred_horizon: actions per window.
        held: where given, windows run over the episode's end, so that every step starts one. Beyond the end the held
            components of the last action (action_dim,) keep their values, a gripper's say, and the others, motions, are
            0: repeated, they would go on moving the hand after the end.

    Returns:
        The windows in order of episode and step. Empty where every episode is too short.
    """
    obs_parts: list[Tensor] = []
    action_parts: list[Tensor] = []
    skipped = 0
    for obs, actions in episodes:
        starts = len(actions) - pred_horizon + 1 if held is None else len(actions)
        if starts < 1:
            skipped += 1
            continue
        steps = torch.arange(starts)[:, None] + torch.arange(pred_horizon)[None, :]  # (starts, pred_horizon)
        if held is not None:
            rest = torch.where(torch.tensor(held), actions[-1], 0)
            actions = torch.cat([actions, rest.expand(pred_horizon - 1, -1)])
        obs_parts.append(obs[:starts])
        action_parts.append(actions[steps])
    if not obs_parts:
        return ChunkDataset(torch.empty(0, 0), torch.empty(0, pred_horizon, 0), skipped)
    return ChunkDataset(torch.cat(obs_parts), torch.cat(action_parts), skipped)
