"""The final word on a run: the steered policy beside every baseline, on the same fresh episodes."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from common.files import atomic_path
from dsrl.agent import load_steered_agent
from dsrl.archive import BEST, LAST, read_steering
from dsrl.baselines import TICKET, Baseline, fixed_baselines, golden_ticket, judge
from dsrl.config import DSRLConfig
from dsrl.golden_ticket import ConstantNoise
from dsrl.played import PlayedResults
from dsrl.trainer import stream_seed
from envs.pool import EnvPool
from rollouts.decoder import FrozenDecoder
from rollouts.evaluation import evaluate_agent
from rollouts.placement import object_locator

REPORT = "report.json"  # in the run's folder


def write_report(
    policy: Any, pool: EnvPool, config: DSRLConfig, folder: Path, kept: Path | None = None
) -> dict[str, Any]:
    """Judge ``sac_best.zip`` and the baselines, print a table, write ``report.json``.

    Args:
        policy: the frozen policy.
        pool: plays.
        config: the run's.
        folder: the run's.
        kept: folder of baselines that were played before, see ``dsrl.played``; None: all are played.

    Returns:
        By name of the agent: success rate, its 95 % Wilson interval, mean length in environment steps, its episodes.
    """
    begun = time.monotonic()
    decoder = FrozenDecoder(policy, config.ddim_steps)
    played = PlayedResults(kept, decoder, pool)
    seed, n_episodes = stream_seed(config.seed, 2), config.evaluation.report_episodes
    baselines = fixed_baselines(config, decoder)
    searched = None
    if config.evaluation.constant_candidates > 0:
        spent = read_steering(folder / LAST).env_steps
        budget = spent if config.evaluation.constant_steps is None else config.evaluation.constant_steps
        searched = golden_ticket(config, decoder, pool, stream_seed(config.seed, 1), budget, played)
        candidates, steps = searched["candidates"], searched["env_steps"]
        print(f"best constant w: of {candidates} candidates, in {steps:,} env steps of search")
        noise = np.array(searched["noise"], dtype=np.float32)
        baselines[TICKET] = Baseline(ConstantNoise(decoder, noise), {"constant": searched["noise"]})
    locate = object_locator(policy.spec.task, policy.spec.obs_dims)
    report: dict[str, Any] = {}
    for name, baseline in baselines.items():
        report[name], before = judge(baseline, name, pool, seed, n_episodes, played, locate)
        print(f"{name:<36} {_line(report[name])}{', as played before' if before else ''}", flush=True)
    best = folder / BEST
    for kind in ("mean", "draw"):
        name = f"steered, actor's {kind}"
        agent = load_steered_agent(best, policy, config.ddim_steps, deterministic=kind == "mean")
        report[name] = evaluate_agent(agent, pool, seed, n_episodes, name).outcome(locate)
        print(f"{name:<36} {_line(report[name])}", flush=True)
    selected = "mean" if read_steering(best).deterministic_is_better else "draw"
    print(f"selection episodes chose the actor's {selected}")
    written = {
        "seed": seed,
        "selected": selected,
        "constant_search": searched,
        "wall_clock_seconds": time.monotonic() - begun,
        "agents": report,
    }
    with atomic_path(folder / REPORT) as partial:
        partial.write_text(json.dumps(written, indent=1) + "\n")
    return report


def _line(summary: dict[str, Any]) -> str:
    low, high = summary["ci95"]
    return (
        f"success {summary['success_rate']:.1%} (95 % interval {low:.1%} to {high:.1%}), mean length "
        f"{summary['mean_length']:.1f} steps"
    )
