"""Demonstrations as transitions of the noise space, for the replay buffer.

A demonstration holds actions; SAC's actions are noise. DSRL-NA's critics take the actions as they are. For the others
the noise of every chunk is found by DDIM's inverse, then by descent through the frozen decoder: the w that comes
closest to the demonstrated chunk and is still likely under the prior.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from common.errors import UserError
from common.kept import kept
from datamodules.conventions import check_alike, check_sparse
from datamodules.demonstrations import Demonstration
from datamodules.hdf5 import DatasetFile, load_arrays
from dsrl.noise_space import NoiseScale, RewardKind, chunk_reward
from dsrl.replay import ChunkReplayBuffer
from policies.storage import fingerprint
from rollouts.decoder import FrozenDecoder

Decode = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Raised by hand where the search, or this project's decoding, comes to another noise: what was kept is found again.
SEARCHES_AS = 1


@dataclass(frozen=True)
class ChunkTransitions:
    """What executing demonstrations chunk by chunk would have stored.

    Args:
        obs, next_obs: (N, D) float32, raw units.
        chunks: (N, H, A) float32; the last chunk of a demonstration repeats its last action.
        rewards: (N,) float32.
        dones: (N,) bool, success.
    """

    obs: np.ndarray
    next_obs: np.ndarray
    chunks: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray

    def __len__(self) -> int:
        return len(self.obs)


def read_transitions(
    paths: Sequence[Path],
    obs_dims: Mapping[str, int],
    chunk_shape: tuple[int, int],
    reward: RewardKind,
    n: int | None = None,
    every_offset: bool = False,
    env_args: dict[str, Any] | None = None,
) -> ChunkTransitions:
    """Cut the first ``n`` demonstrations of each file into chunks that follow one another, up to the first success.

    Args:
        paths: Robomimic files.
        obs_dims: observation key -> size, in the order of concatenation.
        chunk_shape: (H, A).
        reward: see ``dsrl.noise_space.chunk_reward``.
        n: how many; None: all.
        every_offset: cut each demonstration H times, from its step 0, 1, ..., H - 1 on; one cut after the other.
        env_args: of the policy; None, where its data had none, is not compared with the files'.

    Raises:
        UserError: a file cannot be read, is of another environment or of other dimensions, its rewards do not mark
            success, or none of its demonstrations succeeds.
    """
    parts = [
        part for path in paths for part in _of_file(path, obs_dims, chunk_shape, reward, n, every_offset, env_args)
    ]
    return ChunkTransitions(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _of_file(
    path: Path,
    obs_dims: Mapping[str, int],
    chunk_shape: tuple[int, int],
    reward: RewardKind,
    n: int | None,
    every_offset: bool,
    policys: dict[str, Any] | None,
) -> list[tuple[np.ndarray, ...]]:
    with DatasetFile(path) as file:
        env_args = file.env_args
    demos = list(load_arrays(path, list(obs_dims), fields=("rewards",), n=n).values())
    # All of a file's demonstrations have the same dimensions.
    found = {key: demos[0].obs[key].shape[1] for key in obs_dims} | {"actions": demos[0].actions.shape[1]}
    expected = {**obs_dims, "actions": chunk_shape[1]}
    if found != expected:
        raise UserError(
            f"data set {path}: its dimensions are {found}, the policy has {expected}. Give --demonstrations.path a "
            "file of the policy's own task."
        )
    if policys is not None:
        check_alike(path, env_args, "the policy", policys)
    check_sparse(path, env_args, (demo.rewards for demo in demos))
    offsets = range(chunk_shape[0] if every_offset else 1)
    succeeded = [demo for demo in demos if (demo.rewards > 0).any()]
    if 0 < len(succeeded) < len(demos):
        print(f"{path}: {len(succeeded)} of {len(demos)} demonstrations succeed, the others are left out")
    parts = [_cut(demo, list(obs_dims), chunk_shape[0], reward, offset) for demo in succeeded for offset in offsets]
    if not parts:
        raise UserError(
            f"data set {path}: none of the {len(demos)} demonstrations taken of it has a reward above 0, "
            "which marks the success. Leave out --dataset, or give one that succeeds"
        )
    return parts


def _cut(
    demo: Demonstration, obs_keys: Sequence[str], pred_horizon: int, reward: RewardKind, offset: int
) -> tuple[np.ndarray, ...]:
    length = int(np.flatnonzero(demo.rewards > 0)[0]) + 1
    starts = np.arange(offset, length, pred_horizon)
    ends = np.minimum(starts + pred_horizon, length)
    obs = np.concatenate([demo.obs[key] for key in obs_keys], axis=1).astype(np.float32)
    steps = np.minimum(starts[:, None] + np.arange(pred_horizon), length - 1)
    success = ends == length
    rewards = [chunk_reward(bool(s), int(k), reward) for s, k in zip(success, ends - starts, strict=True)]
    chunks = demo.actions[steps].astype(np.float32)
    # What follows the last chunk is terminal: its observation is never looked at.
    next_obs = obs[np.minimum(ends, len(demo) - 1)]
    return obs[starts], next_obs, chunks, np.array(rewards, dtype=np.float32), success


def find_noise(
    decode: Decode, start: torch.Tensor, obs: torch.Tensor, chunks: torch.Tensor, scale: NoiseScale
) -> tuple[torch.Tensor, torch.Tensor]:
    """The noise whose decoding comes closest to given chunks.

    Descent (15 steps of Adam) on |decode(s, w) - a|^2 + .001 |w|^2, w within the bound of ``scale``; the best w on its
    way. A chunk that the policy cannot produce has no such noise: look at the returned distance.

    Args:
        decode: (obs (B, D), noise (B, H, A)) -> (B, H, A), differentiable in the noise.
        start: (B, H, A), noise to begin with.
        obs: (B, D); chunks: (B, H, A), in units in which all components count alike.
        scale: holds the bound of every component.

    Returns:
        Noise (B, H, A) and the root mean square distance of each decoded chunk from the given one (B,).
    """
    noise = scale.cut(start).requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=0.1)
    best, least = noise.detach().clone(), torch.full((len(noise),), torch.inf, device=noise.device)
    error = torch.full_like(least, torch.inf)
    for step in range(16):
        distance = (decode(obs, noise) - chunks).pow(2).flatten(1)
        loss = distance.sum(dim=1) + 1e-3 * noise.pow(2).flatten(1).sum(dim=1)
        with torch.no_grad():
            better = loss < least
            best[better], least[better], error[better] = noise[better], loss[better], distance.mean(1).sqrt()[better]
        if step == 15:  # it only judges
            break
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        with torch.no_grad():
            noise.copy_(scale.cut(noise))
    return best, error


def noise_of(
    demonstrated: ChunkTransitions, decoder: FrozenDecoder, scale: NoiseScale, folder: Path | None = None
) -> np.ndarray:
    """The noise (N, H, A) of demonstrated chunks; prints how well they are met.

    Args:
        demonstrated: the chunks and where they begin.
        decoder: the frozen policy.
        scale: holds the bound of every component.
        folder: keeps what is found, by policy, chunks and bound; None: nothing is kept.
    """

    def search() -> tuple[np.ndarray, np.ndarray]:
        return _search(demonstrated, decoder, scale)

    if folder is None:
        found, before = search(), False
    else:
        path = folder / f"{_digest(demonstrated, decoder, scale)[:20]}.npz"
        found, before = kept(path, "the noise of demonstrations", search, _read, _write)
    noise, error = found
    said = ", as found before" if before else ""
    median, most, worst = np.quantile(error, (0.5, 0.9, 1.0))
    print(
        f"demonstrations: noise found for {len(noise)} chunks{said}; they decode to within {median:.3f} (median), "
        f"{most:.3f} (90 %), {worst:.3f} (all) of the demonstrated, where the data's range is 2",
        flush=True,
    )
    return noise


def _search(demonstrated: ChunkTransitions, decoder: FrozenDecoder, scale: NoiseScale) -> tuple[np.ndarray, np.ndarray]:
    """``find_noise`` for arrays, batch by batch."""
    print(f"demonstrations: looking for the noise of {len(demonstrated)} chunks", flush=True)
    normalize = decoder.policy.action_normalizer.normalize

    def decode(obs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return normalize(decoder.decode_tensors(obs, noise))

    arrays = (demonstrated.obs, demonstrated.chunks)
    batches = zip(*(torch.as_tensor(array, device=decoder.device).split(1024) for array in arrays), strict=True)
    found = [
        find_noise(decode, decoder.invert_tensors(obs, chunks), obs, normalize(chunks), scale)
        for obs, chunks in track(list(batches), "demonstrations", transient=True)
    ]
    noise, error = (torch.cat(results).cpu().numpy() for results in zip(*found, strict=True))
    return noise, error


def _digest(demonstrated: ChunkTransitions, decoder: FrozenDecoder, scale: NoiseScale) -> str:
    """Of all that decides the noise."""
    policy = decoder.policy
    decides = [SEARCHES_AS, fingerprint(policy), asdict(policy.spec), decoder.ddim_steps, scale.magnitude]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    for array in (demonstrated.obs, demonstrated.chunks):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:  # pickles are refused, and the zip's checksums are compared
        return arrays["noise"], arrays["error"]


def _write(path: Path, found: tuple[np.ndarray, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, noise=found[0], error=found[1])


def demonstration_buffer(
    transitions: ChunkTransitions, actions: np.ndarray, decoder: FrozenDecoder, buffer: ChunkReplayBuffer
) -> ChunkReplayBuffer:
    """A buffer of one column like ``buffer`` that holds ``transitions`` with ``actions`` (N, H*A)."""
    filled = ChunkReplayBuffer(
        len(transitions),
        buffer.observation_space,
        buffer.action_space,
        device=buffer.device,
        n_steps=buffer.n_steps,
        gamma=buffer.gamma,
    )
    obs, next_obs = (decoder.normalize_obs(part) for part in (transitions.obs, transitions.next_obs))
    for i in range(len(transitions)):
        rows = slice(i, i + 1)
        filled.add(
            obs[rows], next_obs[rows], actions[rows], transitions.rewards[rows], transitions.dones[rows], infos=[{}]
        )
    return filled
