"""The final word on a run: the steered policy beside every baseline, on the same fresh episodes."""

import json
from pathlib import Path
from typing import Any

from common.files import atomic_path
from dsrl.agent import load_steered_agent
from dsrl.archive import read_steering
from dsrl.baselines import baseline_agents
from dsrl.config import DSRLConfig
from dsrl.trainer import stream_seed
from envs.pool import EnvPool
from rollouts.decoder import FrozenDecoder
from rollouts.evaluation import evaluate_agent


def write_report(policy: Any, pool: EnvPool, config: DSRLConfig, folder: Path) -> dict[str, Any]:
    """Judge ``sac_best.zip`` and the baselines, print a table, write ``report.json``.

    Returns:
        By name of the agent: success rate, its 95 % Wilson interval, mean length in environment steps.
    """
    decoder = FrozenDecoder(policy, config.ddim_steps)
    agents = baseline_agents(config, decoder, pool, stream_seed(config.seed, 1))
    best = folder / "sac_best.zip"
    agents["steered, actor's mean"] = load_steered_agent(best, policy, config.ddim_steps, deterministic=True)
    agents["steered, actor's draw"] = load_steered_agent(best, policy, config.ddim_steps, deterministic=False)
    selected = "mean" if read_steering(best).deterministic_is_better else "draw"
    seed = stream_seed(config.seed, 2)
    report: dict[str, Any] = {}
    for name, agent in agents.items():
        result = evaluate_agent(agent, pool, seed, config.evaluation.report_episodes, name)
        report[name] = result.summary()
        print(f"{name:<36} {result}", flush=True)
    print(f"selection episodes chose the actor's {selected}")
    with atomic_path(folder / "report.json") as partial:
        partial.write_text(json.dumps({"seed": seed, "selected": selected, "agents": report}, indent=1) + "\n")
    return report
