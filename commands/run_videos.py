"""The videos of a run: base and steered from the same initial states, successes and failures."""

import json
from pathlib import Path
from typing import Any

import yaml

from commands.record import play, summary
from commands.simulation import players
from common.errors import UserError
from envs.pool import EnvPool
from envs.tasks import TASKS
from policies.storage import POLICY_FILE
from reports.run_files import Run, read_run, video_folder
from rollouts.recording import write_video
from rollouts.simulation import check_fits

SIZE = 384  # pixels of a picture: two of them side by side, several in a page


def record_run(path: Path, n: int, network_module: str | None = None) -> list[Path]:
    """Record ``n`` episodes of a run into its folder of videos, base and steered side by side where it has both.

    Of a run that was judged they are episodes of that evaluation, of each way in which they may end in turn.

    Args:
        path: of the run, or of its results.
        n: how many.
        network_module: module of its network, where that is not one of this project's.

    Raises:
        UserError: the run's policy is not where its files say, or nothing here can render.
    """
    run = read_run(path)
    seed, played = _source(run)
    if not played["checkpoint"].is_file():
        raise UserError(f"--videos: {path} names the policy {played['checkpoint']}, which is not there")
    named = run.task if run.task in TASKS else None  # of an environment of one's own, the policy's env_args say all
    policy, agents, _, task, env_spec = players(
        **played, task=named, network_module=network_module, render_size=(SIZE, SIZE)
    )
    written = []
    with EnvPool(env_spec, n_envs=1) as pool:
        check_fits(policy.spec, pool)
        for index, takes in play(agents, pool, seed, choose(run, n), task):
            ends = [f"{take.title.split(', ')[-1]}_{take.outcome.lower()}" for take in takes]
            target = video_folder(path) / f"episode_{index:03d}_{'_'.join(ends)}.mp4"
            write_video(target, takes)
            print(f"wrote {target}: {summary(takes)}")
            written.append(target)
    return written


def choose(run: Run, n: int) -> list[int]:
    """Numbers of ``n`` episodes: those where only the steered policy succeeded, both, only the base, none, in turn."""
    steered, base = run.judged, run.base
    if steered is None or not steered.episodes:
        return list(range(n))
    orders = ((False, True), (True, True), (True, False), (False, False))  # base, steered
    ways: dict[tuple[bool, bool], list[int]] = {way: [] for way in orders}
    for index, episode in enumerate(steered.episodes):
        before = episode if base is None else base.episodes[index]
        ways[before.success, episode.success].append(index)
    chosen: list[int] = []
    while len(chosen) < min(n, len(steered.episodes)):
        chosen += [left.pop(0) for left in ways.values() if left]
    return chosen[:n]


def _source(run: Run) -> tuple[int, dict[str, Any]]:
    """The seed of a run's initial states, and what it played, as ``players`` takes it."""
    if run.kind == "evaluate":
        results: dict[str, Any] = json.loads(run.path.read_text())
        settings = {name: results[name] for name in ("ddim_steps", "noise_scale", "horizon")}
        sac = Path(results["sac"]["path"]) if results["sac"] else None
        return results["seed"], {"checkpoint": Path(results["checkpoint"]["path"]), "sac": sac, **settings}
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    if run.kind == "dsrl":
        judged = run.path / "report.json"
        seed = json.loads(judged.read_text())["seed"] if judged.is_file() else config["seed"]
        return seed, {"checkpoint": Path(config["bc_checkpoint"]), "sac": run.path / "sac_best.zip"}
    return 0, {"checkpoint": run.path / POLICY_FILE, "horizon": config["rollout"]["horizon"]}
