"""What stable-baselines3 sees of the simulator: chunks of actions as steps, and diffusion noise as actions.

```
SAC --w (n, H*A)--> NoiseSpaceVecEnv --decode, one batch--> ChunkVecEnv --one message per env--> EnvPool workers
```
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from common.errors import UserError
from envs.messages import Reply

RewardKind = Literal["sparse", "per_chunk", "per_step"]
Decode = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class NoiseScale:
    """The one place where noise w is scaled to what SB3's actors and buffers hold, u = w / magnitude, and back.

    All methods take and give numbers, arrays or tensors.

    Args:
        magnitude: bound of every component of w, so that u lies in [-1, 1].
    """

    magnitude: float

    @classmethod
    def of(cls, action_space: spaces.Space) -> "NoiseScale":
        """The scale of a noise space, ``Box(-magnitude, magnitude, ...)``."""
        assert isinstance(action_space, spaces.Box)
        return cls(float(action_space.high.flat[0]))

    def noise(self, scaled: Any) -> Any:
        """w of u."""
        return self.magnitude * scaled

    def scaled(self, noise: Any) -> Any:
        """u of w."""
        return noise / self.magnitude

    def cut(self, noise: Any) -> Any:
        """Noise (array or tensor) within the bound."""
        return noise.clip(-self.magnitude, self.magnitude)


class Pool(Protocol):
    """The part of ``envs.pool.EnvPool`` that training uses; a toy with these members serves as well."""

    n_envs: int
    obs_dim: int
    action_dim: int

    def reset(self, i: int, seed: int) -> None: ...

    def step(self, i: int, actions: np.ndarray) -> None: ...

    def wait(self) -> Iterable[tuple[int, Reply]]: ...


def chunk_reward(is_success: bool, env_steps: int, kind: RewardKind) -> float:
    """Reward of one executed chunk of ``env_steps`` control steps.

    ``sparse``: 1 at success, else 0. ``per_chunk``: -1, and 0 at success. ``per_step``: -1 per control step and 0 for
    the step that succeeds, summed over the chunk (the convention of DSRL's authors).
    """
    if kind == "sparse":
        return float(is_success)
    if kind == "per_chunk":
        return float(is_success) - 1.0
    return float(is_success) - env_steps


def value_range(kind: RewardKind, gamma: float, pred_horizon: int) -> tuple[float, float]:
    """Bounds of a discounted return of such rewards: per chunk, -1 for ever is -1 / (1 - gamma)."""
    if kind == "sparse":
        return 0.0, 1.0
    worst = -1.0 if kind == "per_chunk" else -float(pred_horizon)
    return worst / max(1.0 - gamma, 1e-6), 0.0


class ChunkVecEnv(VecEnv):
    """An ``EnvPool`` as SB3's ``VecEnv``: one step executes one chunk (H, A) in every environment.

    Finished environments are reset at once, each to the next seed of ``episode_seeds(k)``, k = 0, 1, ..., so that the
    k-th training episode is the same whichever worker plays it. ``infos`` carry ``terminal_observation``,
    ``TimeLimit.truncated``, ``is_success``, ``env_steps`` of the chunk, and at an episode's end ``episode`` with
    ``r`` (sum of rewards), ``l`` (control steps).

    Args:
        pool: the workers; this class does not close them.
        pred_horizon: actions per chunk, H.
        episode_seeds: seed of the k-th episode.
        reward: see ``chunk_reward``.
        time_limit_terminal: store time limits as terminal states, as DSRL's authors do, instead of bootstrapping.
    """

    def __init__(
        self,
        pool: Pool,
        pred_horizon: int,
        episode_seeds: Callable[[int], int],
        reward: RewardKind = "per_chunk",
        time_limit_terminal: bool = False,
    ) -> None:
        self.pool = pool
        self.episode_seeds = episode_seeds
        self.reward = reward
        self.time_limit_terminal = time_limit_terminal
        self.episodes_begun = 0
        self._returns = np.zeros(pool.n_envs)
        self._lengths = np.zeros(pool.n_envs, dtype=np.int64)
        self._obs = np.zeros((pool.n_envs, pool.obs_dim), dtype=np.float32)
        observation_space = spaces.Box(-np.inf, np.inf, (pool.obs_dim,), np.float32)
        action_space = spaces.Box(-1.0, 1.0, (pred_horizon, pool.action_dim), np.float32)
        super().__init__(pool.n_envs, observation_space, action_space)

    def _reset_envs(self, indices: Sequence[int]) -> None:
        for i in indices:
            self.pool.reset(i, self.episode_seeds(self.episodes_begun))
            self.episodes_begun += 1
        self._returns[list(indices)] = 0.0
        self._lengths[list(indices)] = 0
        for i, reply in self._collect(len(indices)):
            self._obs[i] = reply.obs

    def _collect(self, n: int) -> list[tuple[int, Reply]]:
        replies: list[tuple[int, Reply]] = []
        while len(replies) < n:
            replies.extend(self.pool.wait())
        return sorted(replies, key=lambda reply: reply[0])

    def reset(self) -> np.ndarray:
        """Begin a fresh episode everywhere; observations (n, D)."""
        self._reset_envs(range(self.num_envs))
        return self._obs.copy()

    def step_async(self, actions: np.ndarray) -> None:
        for i in range(self.num_envs):
            self.pool.step(i, actions[i])

    def step_wait(self) -> VecEnvStepReturn:
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        dones = np.zeros(self.num_envs, dtype=bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i, reply in self._collect(self.num_envs):
            self._obs[i] = reply.obs
            rewards[i] = chunk_reward(reply.is_success, reply.env_steps, self.reward)
            self._returns[i] += rewards[i]
            self._lengths[i] += reply.env_steps
            dones[i] = reply.terminated or reply.truncated
            timed_out = reply.truncated and not reply.terminated
            infos[i] = {
                "is_success": reply.is_success,
                "env_steps": reply.env_steps,
                "TimeLimit.truncated": timed_out and not self.time_limit_terminal,
            }
            if dones[i]:
                infos[i]["terminal_observation"] = self._obs[i].copy()
                infos[i]["episode"] = {"r": float(self._returns[i]), "l": int(self._lengths[i])}
        finished = np.flatnonzero(dones).tolist()
        if finished:
            self._reset_envs(finished)
        return self._obs.copy(), rewards, dones, infos

    def close(self) -> None:
        """Nothing: whoever made the pool closes it."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        if attr_name == "render_mode":
            return [None for _ in self._get_indices(indices)]
        raise AttributeError(f"workers do not expose {attr_name}")

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise NotImplementedError("workers take no attributes")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        raise NotImplementedError("call the pool instead")

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


class NoiseSpaceVecEnv(VecEnvWrapper):
    """SAC's environment: the action is the noise w, in [-action_magnitude, action_magnitude]^(H*A).

    Every step denoises the noise of all environments in one batch, exactly once, and executes the chunks.

    Args:
        venv: takes chunks (n, H, A), returns raw observations.
        decode: (raw obs (n, D), noise (n, H, A)) -> action chunks (n, H, A).
        normalize_obs: (n, D) raw -> (n, F) as SAC sees them.
        action_magnitude: bound of the noise, > 0.

    Raises:
        UserError: ``action_magnitude`` is not positive.
    """

    def __init__(
        self, venv: VecEnv, decode: Decode, normalize_obs: Callable[[np.ndarray], np.ndarray], action_magnitude: float
    ) -> None:
        if not action_magnitude > 0:
            raise UserError(f"--action_magnitude is {action_magnitude}; the bound of the noise must be > 0, e.g. 1.5.")
        assert venv.action_space.shape is not None
        self.chunk_shape = venv.action_space.shape
        dim = int(np.prod(self.chunk_shape))
        magnitude = float(action_magnitude)
        assert venv.observation_space.shape is not None
        seen = normalize_obs(np.zeros((1, *venv.observation_space.shape), dtype=np.float32))
        super().__init__(
            venv,
            observation_space=spaces.Box(-np.inf, np.inf, seen.shape[1:], np.float32),
            action_space=spaces.Box(-magnitude, magnitude, (dim,), np.float32),
        )
        self.scale = NoiseScale(magnitude)
        self.decode = decode
        self.normalize_obs = normalize_obs
        self.raw_obs = np.zeros((self.num_envs, 0), dtype=np.float32)
        self.chunks = np.zeros((self.num_envs, *self.chunk_shape), dtype=np.float32)

    def reset(self) -> np.ndarray:
        obs = self.venv.reset()
        assert isinstance(obs, np.ndarray)
        self.raw_obs = obs
        return self.normalize_obs(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Decode ``actions`` (n, H*A), noise, and send the chunks; ``self.chunks`` (n, H, A) keeps what was sent."""
        self.chunks = self.decode(self.raw_obs, actions.reshape(self.num_envs, *self.chunk_shape))
        self.venv.step_async(self.chunks)

    def step_scaled_async(self, scaled: np.ndarray) -> None:
        """``step_async`` for noise scaled to [-1, 1] (n, H*A), as the replay buffer holds it."""
        self.step_async(self.scale.noise(scaled))

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(obs, np.ndarray)
        self.raw_obs = obs
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = self.normalize_obs(info["terminal_observation"][None])[0]
        return self.normalize_obs(obs), rewards, dones, infos
