"""`evaluate`: success rate with its confidence interval."""

import json
from pathlib import Path
from typing import Any

from commands.first_words import played, say_next
from commands.report import say_written
from commands.simulation import check_seed, players
from common.errors import UserError
from common.files import atomic_path, check_writable, sha256_of
from common.provenance import provenance
from envs.pool import EnvPool
from rollouts.evaluation import evaluate_agent
from rollouts.placement import object_locator
from rollouts.simulation import check_fits


def evaluate(
    checkpoint: Path,
    sac: Path | None = None,
    n_episodes: int = 200,
    ddim_steps: int | None = None,
    seed: int = 0,
    noise_scale: float | None = None,
    n_envs: int | None = None,
    horizon: int | None = None,
    task: str | None = None,
    output: Path | None = None,
    network_module: str | None = None,
) -> None:
    """Judge a policy by its success rate, with Wilson's 95 % interval. Needs no data file.

    Args:
        checkpoint: exported policy (.safetensors) or Lightning checkpoint (.ckpt, its EMA weights).
        sac: archive of a trained SAC; judges the steered policy beside the base, on the same initial states;
            its actor's mean or draws, whichever evaluated better in training.
        n_episodes: episodes; episode i starts from the state drawn by (seed, i).
        ddim_steps: denoising steps; the policy's own by default, with --sac those it was trained with.
        seed: of the initial states and the noise.
        noise_scale: the base policy samples w ~ s N(0, I); the policy's own s by default, which is 1 unless it was
            trained with another --model.diffusion.noise_scale.
        n_envs: parallel environments; chosen from the CPUs by default.
        horizon: env steps before an episode counts as failed; the task's own by default, with --sac the one that it was
            trained with.
        task: lift, can, square, tool_hang or transport; only for a checkpoint whose data carried no env_args.
        output: results file (.json) to write, and beside it a page about it (.html).
        network_module: module of the checkpoint's network, where that is not one of this project's.
    """
    if n_episodes < 1:
        raise UserError(f"--n_episodes is {n_episodes}: expected at least 1")
    if noise_scale is not None and noise_scale < 0:
        raise UserError(f"--noise_scale is {noise_scale}: expected 0 or more")
    check_seed(seed)
    policy, agents, steps, name, env_spec = players(
        checkpoint, sac, ddim_steps, noise_scale, horizon, task, network_module
    )
    if output is not None:
        if output.suffix != ".json":
            raise UserError(f"--output is {output}: expected a name that ends in .json")
        check_writable(output)  # a path that cannot be written should not cost an evaluation
    documents: dict[str, dict[str, Any]] = {}
    with EnvPool(env_spec, n_envs, episodes=n_episodes) as pool:
        check_fits(policy.spec, pool)
        for label, agent in agents.items():
            evaluation = evaluate_agent(agent, pool, seed, n_episodes, label)
            print(f"{label:<8} {evaluation}")
            documents[label] = evaluation.to_dict(object_locator(name, pool.obs_dims))
    if output is not None:
        from reports.page import write_run_page

        judged = documents["steered" if sac else "base"]
        header = {
            "task": name,
            "checkpoint": {"path": str(checkpoint), "sha256": sha256_of(checkpoint), "weights": policy.spec.weights},
            "sac": {"path": str(sac), "sha256": sha256_of(sac)} if sac else None,
            "actor": getattr(agents.get("steered"), "kind", None),  # of the steered policy: its mean, or draws
            "ddim_steps": steps,
            "noise_scale": policy.spec.diffusion.noise_scale if noise_scale is None else noise_scale,
            "horizon": env_spec.horizon,
            **provenance(),
        }
        base = {"base": documents["base"]} if sac else {}
        with atomic_path(output) as partial:
            partial.write_text(json.dumps({**header, **judged, **base}, indent=1) + "\n")
        print(f"wrote {output}")
        page = output.with_suffix(".html")
        write_run_page([output], page)
        say_written(page)
    beside = ["--compare"] if sac else []
    say_next("watch it", "record", *played(checkpoint, sac, policy.spec, name), *beside, "--output", "videos")
