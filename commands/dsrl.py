"""`dsrl`: steer a frozen diffusion policy by SAC in its noise space."""

import argparse
import contextlib
import dataclasses
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from commands.first_words import played, say_next
from common.errors import LineError, UserError
from common.files import atomic_path
from common.lock import run_lock
from common.provenance import changed_settings, write_provenance
from dsrl.config import DSRLConfig, EnvConfig, LogFormat, add_settings, parsed_settings
from dsrl.learners import DEFAULT, LEARNERS, learner_named


def dsrl(line: Sequence[str]) -> None:
    """Run the command on its line: ``["dsrl", "--config", ...]``.

    Raises:
        UserError: a mistake in it.
    """
    from commands.first_words import program
    from commands.front_door import spell_out_switches
    from commands.parsing import CommandParser

    command, *words = line
    parser = CommandParser(
        prog=f"{program()} {command}", description="Train SAC whose actions are the noise of a frozen policy."
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these; may be given several times.")
    parser.add_function_arguments(steer, as_group=False, skip={"config"})
    learner = named_learner(words)
    add_settings(parser, learner)
    try:
        parsed = parser.parse_args(spell_out_switches(["resume"], words))
    except LineError as error:
        raise LineError(_other_learners_option(str(error), learner) or str(error), error.flags) from None
    parsed.pop("config")
    # A cluster's request ends the run as Ctrl-C does: what is open closes.
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    config, rest = parsed_settings(parser, parsed)
    steer(config, **rest)


def named_learner(words: Sequence[str]) -> str:
    """The learner that a command line names, itself or in a config file; its options are the command's.

    A file that cannot be read names none: the command's own parser says what is wrong with it.
    """
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--learner.algorithm", dest="named", action="append", nargs="?", default=[])
    reader.add_argument("--config", dest="named", action="append", nargs="?", type=_learner_in)
    reader.add_argument("--learner", dest="named", action="append", nargs="?", type=_algorithm_in)
    return next((name for name in reversed(reader.parse_known_args(words)[0].named) if name is not None), DEFAULT)


def _other_learners_option(message: str, named: str) -> str | None:
    """What to say of a message about an option that other learners than the one ``named`` have."""
    unknown = re.search(r"unrecognized arguments: --learner\.(\w+)|--learner\.(\w+) is no option", message)
    option = unknown and (unknown[1] or unknown[2])
    owners = [name for name in LEARNERS if option in {field.name for field in fields(learner_named(name).config_type)}]
    if not owners:
        return None
    return (
        f"--learner.{option} is an option of the learner {' or '.join(owners)}, and this run's is {named}: "
        f"leave it out, or name its learner on the line: --learner.algorithm {owners[0]}"
    )


def _learner_in(config: str) -> str | None:
    from commands.parsing import values_in

    learner = values_in(config).get("learner")
    return learner.get("algorithm") if isinstance(learner, dict) else None


def _algorithm_in(learner: str) -> str | None:
    """Of ``--learner``'s value: a file's name, or the section itself."""
    import yaml

    from commands.parsing import values_in

    try:
        section = yaml.safe_load(learner)
    except Exception:  # the command's own parser says what is wrong with it
        return None
    return (section if isinstance(section, dict) else values_in(learner)).get("algorithm")


def steer(
    config: DSRLConfig,
    bc_checkpoint: Path,
    output: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    network_module: str | None = None,
    log_formats: list[LogFormat] | None = None,
) -> None:
    """Train SAC whose actions are the noise of a frozen diffusion policy.

    Args:
        config: the settings of the run.
        bc_checkpoint: exported policy (.safetensors) or Lightning checkpoint (.ckpt, its EMA weights).
        output: folder of the run; checkpoints/dsrl/TASK by default.
        resume: go on from the last saved state in the folder; begin where there is none yet.
        device: cpu, cuda, or auto.
        network_module: module of the checkpoint's network, where that is not one of this project's.
        log_formats: formats of stable-baselines3's logger beside metrics.csv and the terminal: tensorboard, which is
            the default, json (progress.json), log (log.txt), stdout (its table); [] for none.
    """
    import torch

    from commands.report import say_written
    from commands.simulation import check_seed, load_checkpoint
    from dsrl.archive import BEST, LAST, read_steering
    from dsrl.report import REPORT, write_report
    from dsrl.trainer import Trainer
    from envs.pool import EnvPool, available_cpus
    from policies.storage import BEST_FILES, POLICY_FILE
    from reports.page import write_run_page
    from rollouts.simulation import check_fits, simulation_of

    check_seed(config.seed)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not (device.split(":")[0] == "cuda" and torch.cuda.is_available()):
        raise UserError(
            f"--device is {device}: expected auto, cpu or cuda, and PyTorch finds "
            f"{torch.cuda.device_count() or 'no'} GPU here"
        )
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # these updates are small, and the workers want the other CPUs
    policy = load_checkpoint(bc_checkpoint, config.ddim_steps, network_module).to(device)
    name, env_spec = simulation_of(policy.spec, config.task, config.env.horizon)
    folder = output or Path("checkpoints") / "dsrl" / (name or "custom")
    with run_lock(folder):
        for stale in folder.glob(".sac_*.zip.*.partial"):  # half written by a run that was killed
            stale.unlink()
        state = folder / LAST
        left = [folder / "last.ckpt", folder / POLICY_FILE, *sorted(folder.glob(BEST_FILES))]
        cloned = [path.name for path in left if path.exists()]
        if cloned and not state.exists():
            raise UserError(f"{folder} holds {' and '.join(cloned)}, of a run of `fit`: name another --output")
        if not resume and state.exists():
            raise UserError(f"{folder} holds a run already: go on with it by --resume, or name another --output.")
        results = [name for name in (BEST, REPORT) if (folder / name).exists()]
        if results and not state.exists():
            raise UserError(
                f"{folder} holds {' and '.join(results)}, and no {state.name} to go on from: name another --output, "
                "or clear the folder"
            )
        if resume and not state.exists():
            print(f"--resume: there is no {state} yet, so the run begins")
            resume = False
        # What is not given is as it was when the run began, wherever it is resumed.
        begun = read_steering(state).config.env if state.exists() else EnvConfig(available_cpus(), env_spec.horizon)
        env = dataclasses.replace(
            config.env,
            n_envs=config.env.n_envs or begun.n_envs,
            horizon=config.env.horizon or begun.horizon,
        )
        steps = config.ddim_steps or policy.spec.diffusion.ddim_steps
        config = dataclasses.replace(config, task=name, env=env, ddim_steps=steps)
        env_spec = dataclasses.replace(env_spec, horizon=env.horizon or env_spec.horizon)
        judged = config.evaluation
        at_once = max(judged.episodes, judged.report_episodes, judged.constant_candidates)
        if not config.demonstrations.paths and config.demonstrations.fraction is not None:
            print("no --dataset: --demonstrations.fraction has nothing to draw from, and the run learns without")
        with contextlib.ExitStack() as opened:
            pool = judges = opened.enter_context(EnvPool(env_spec, env.n_envs))
            check_fits(policy.spec, pool)
            # Judging fills its own, larger pool: its episodes do not wait for one another, as a learner's steps do.
            if at_once > pool.n_envs:
                judges = opened.enter_context(EnvPool(env_spec, episodes=at_once))
            formats: list[LogFormat] = ["tensorboard"] if log_formats is None else log_formats
            beside = bc_checkpoint.parent
            trainer = Trainer(policy, pool, config, folder, resume, device, judges, formats, beside / "noise")
            # A --resume with other settings has been refused by now.
            write_config(config, bc_checkpoint, folder, network_module)
            default = DSRLConfig(learner=type(config.learner)(algorithm=config.learner.algorithm)).to_dict()
            write_provenance(folder, changed_settings(config.to_dict(), default), goes_on=resume)
            trainer.run()
            if config.evaluation.report_episodes > 0:
                write_report(policy, judges, config, folder, beside / "baselines")
    print(f"wrote {folder / BEST}")
    write_run_page([folder], folder / "report.html")
    say_written(folder / "report.html")
    steered = played(bc_checkpoint, folder / BEST, policy.spec, name)
    say_next("judge it", "evaluate", *steered)


def write_config(config: DSRLConfig, bc_checkpoint: Path, folder: Path, network_module: str | None = None) -> None:
    """Write the resolved settings, as a file that ``--config`` takes."""
    import yaml

    network = {} if network_module is None else {"network_module": network_module}
    values = {"bc_checkpoint": str(bc_checkpoint), **network, **config.to_dict(), "output": str(folder)}
    with atomic_path(folder / "config.yaml") as partial:
        partial.write_text(yaml.safe_dump(values, sort_keys=False))
