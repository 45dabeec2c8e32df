"""A policy's success rate as a document: the results file."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from envs.pool import EnvPool
from rollouts.loop import Agent, EpisodeResult, run_episodes
from rollouts.placement import Locate
from rollouts.statistics import wilson_interval


@dataclass(frozen=True)
class Evaluation:
    """Outcome of ``n_episodes`` episodes with consecutive indices under one seed."""

    seed: int
    results: list[EpisodeResult]
    seconds: float

    @property
    def successes(self) -> int:
        return sum(result.success for result in self.results)

    @property
    def success_rate(self) -> float:
        return self.successes / len(self.results)

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the success rate."""
        return wilson_interval(self.successes, len(self.results))

    @property
    def mean_length(self) -> float:
        """Env steps per episode, failures at the full horizon included."""
        return sum(result.length for result in self.results) / len(self.results)

    def outcome(self, locate: Locate | None = None) -> dict[str, Any]:
        """Success rate, interval, mean length, episodes: what a seed and an agent determine, as plain JSON values.

        Args:
            locate: reads the object's place off an episode's first observation, see ``object_locator``.
        """
        episodes = [
            {"seed": result.seed, "success": result.success, "length": result.length}
            | ({} if locate is None else {"object": locate(result.first_obs)})
            for result in self.results
        ]
        return {
            "success_rate": self.success_rate,
            "ci95": list(self.ci95),
            "mean_length": self.mean_length,
            "n_episodes": len(self.results),
            "episodes": episodes,
        }

    def to_dict(self, locate: Locate | None = None) -> dict[str, Any]:
        """The part of the results file that the episodes determine, as plain JSON values."""
        return {"seed": self.seed, **self.outcome(locate), "wall_clock_seconds": self.seconds}

    def __str__(self) -> str:
        low, high = self.ci95
        return (
            f"success {self.success_rate:.1%} ({self.successes}/{len(self.results)}, 95 % interval {low:.1%} to "
            f"{high:.1%}), mean length {self.mean_length:.1f} steps, {self.seconds:.0f} s"
        )


def evaluate_agent(
    agent: Agent, pool: EnvPool, seed: int, n_episodes: int, label: str = "episodes", show: bool = True
) -> Evaluation:
    """Run episodes 0 to ``n_episodes - 1`` of ``seed``, with a progress bar if ``show``."""
    start = time.monotonic()
    with _progress(show) as progress:
        task = progress.add_task(label, total=n_episodes, success="")
        results = run_episodes(agent, pool, seed, range(n_episodes), on_result=_counter(progress, task))
    return Evaluation(seed, results, time.monotonic() - start)


def _progress(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[success]}"),
        TimeRemainingColumn(),
        disable=not show,
    )


def _counter(progress: Progress, task: Any) -> Callable[[EpisodeResult], None]:
    done = successes = 0

    def count(result: EpisodeResult) -> None:
        nonlocal done, successes
        done += 1
        successes += result.success
        progress.update(task, advance=1, success=f"success {successes / done:.1%}")

    return count
