"""Demonstrations from operators that are programs, through the one rollout loop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pkgutil import resolve_name

import numpy as np

from common.errors import UserError
from datamodules.demonstrations import Demonstration, by_key
from envs.installed import header
from envs.messages import Capture
from envs.pool import EnvPool
from envs.tasks import find_task
from experts.expert import Expert
from experts.manner import Style, draw_manner
from rollouts.loop import Agent, Episode, EpisodeResult, run_episodes

# The low-dim observations of Robomimic's files for the installed simulator.
RECORDED_KEYS = header().RECORDED_KEYS

# Added to a collection's seed, so that no evaluation, whose seeds are below 2^32, starts from a state of a data set.
# Not 2^32 itself: numpy pads entropy with zeros, and (2^32 + s, 0) would be episode 1 of an evaluation with seed s.
COLLECTION_SEEDS = 2**64
# Added to that where demonstrations are adapted: they start elsewhere than scripted ones of the same seed.
ADAPTED_SEEDS = 2**65
SMALLEST_ROUND, LARGEST_ROUND = 8, 200  # episodes
GIVE_UP_AFTER = 100  # episodes without a success


def expert_class(task: str) -> type[Expert]:
    """The scripted operator of ``task``.

    Raises:
        UserError: there is no such task, or no operator for it.
    """
    name = find_task(task).expert
    if name is None:
        raise UserError(f"there is no scripted expert for task {task!r}: its demonstrations come from humans.")
    expert: type[Expert] = resolve_name(name)
    return expert


class ExpertAgent:
    """Scripted experts for ``run_episodes`` with chunks of one action: one state machine per episode."""

    def __init__(self, expert: type[Expert], style: Style, obs_dims: Mapping[str, int]) -> None:
        self._expert = expert
        self._style = style
        self._obs_dims = obs_dims
        self._experts: dict[int, Expert] = {}

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """Actions (B, 1, 7) float32 for ``obs`` (B, obs_dim)."""
        actions = [self._of(episode).act(row) for episode, row in zip(episodes, obs, strict=True)]
        return np.array(actions, dtype=np.float32)[:, None]

    def _of(self, episode: Episode) -> Expert:
        if episode.index not in self._experts:
            manner = draw_manner(self._style, episode.rng)
            self._experts[episode.index] = self._expert(self._obs_dims, manner, episode.rng)
        return self._experts[episode.index]


def collect_episodes(
    agent: Agent, pool: EnvPool, seed: int, n_demos: int, on_result: Callable[[EpisodeResult], None]
) -> Iterator[EpisodeResult]:
    """Episodes with their trajectories, in the order of their numbers, up to the ``n_demos``-th that succeeds.

    They are the same at any number of workers. They are played in rounds of as many as are still wanted; after the
    first, of eight at least, of which the last few may be played in vain.

    Args:
        agent: acts one action at a time.
        pool: environments of the task with ``RECORDED_KEYS`` and chunks of one action.
        seed: of initial states and of everything the agent draws.
        n_demos: how many to keep.
        on_result: called with each result as it comes, in no fixed order.

    Raises:
        UserError: all of the first hundred episodes or more failed.
    """
    kept = tried = 0
    while kept < n_demos:
        size = max(n_demos - kept, SMALLEST_ROUND if tried else 1)
        indices = range(tried, tried + min(size, LARGEST_ROUND))
        results = run_episodes(agent, pool, COLLECTION_SEEDS + seed, indices, Capture(trajectory=True), on_result)
        tried += len(indices)
        for result in results:
            kept += result.success
            yield result
            if kept == n_demos:
                return
        if kept == 0 and tried >= GIVE_UP_AFTER:
            raise UserError(f"all of {tried} episodes failed: there is nothing to keep.")


def demonstration_of(result: EpisodeResult, obs_dims: Mapping[str, int]) -> Demonstration:
    """A captured episode as Robomimic stores it: ``dones`` are 1 where the step led to success."""
    trajectory, model_file = result.trajectory, result.model_file
    assert trajectory is not None, "the episode was run without capturing its trajectory"
    assert model_file is not None
    following = np.concatenate([trajectory.observations[1:], trajectory.last_observation[None]])
    return Demonstration(
        actions=trajectory.actions,
        states=trajectory.states,
        rewards=trajectory.rewards,
        dones=(trajectory.rewards > 0).astype(np.int64),
        obs=by_key(trajectory.observations, obs_dims),
        next_obs=by_key(following, obs_dims),
        model_file=model_file,
    )
