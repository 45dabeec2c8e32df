"""What a newcomer reads first: the welcome, the flags that matter, and at a command's end what to do next."""

import itertools
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the front door starts without PyTorch
    from policies import PolicySpec

WELCOME = """\
Diffusion policies on Robomimic data, steered by RL. Three things to begin with:

  See a policy at work (minutes), then all of it from nothing (ten more on two cores):
    make demo
    make quickstart

  Train a policy on demonstrations, and measure it:
    {program} collect --task lift --n_demos 200 --output data/lift.hdf5
    {program} fit --config configs/bc_lift.yaml --config configs/fast.yaml --dataset data/lift.hdf5
    {program} evaluate --checkpoint checkpoints/bc/lift/policy.safetensors

  Improve a policy by RL without touching its weights; the one above has no failures left, pretrained/can has:
    {program} collect --task can --n_demos 200 --style mixed --output data/can_mixed.hdf5
    {program} dsrl --config configs/dsrl_can.yaml --bc_checkpoint pretrained/can/policy.safetensors \\
        --dataset data/can_mixed.hdf5 --demonstrations.n 100

All commands: {program} --help"""

MACHINES = "machines"  # the origin of Robomimic's mg files

FIRST_FLAGS: dict[str, dict[str, str]] = {
    "fit": {
        "--config FILE": "configs/bc_TASK.yaml; a second one, such as configs/fast.yaml, is laid over the first",
        "--dataset FILE": "demonstrations, hdf5 (also --data.path)",
        "--output FOLDER": "of checkpoints and policy.safetensors (also --best.dirpath)",
        "--resume": "go on with the run in that folder (also --ckpt_path last)",
        "--trainer.max_epochs N": "how long to train",
        "--data.batch_size N": "windows per gradient step and device",
        "--model.lr X": "learning rate at its highest",
        "--model.network.init_args.hidden_dims '[N,N,N]'": "the network's hidden layers",
        "--rollout.every_n_epochs N": "how often the success rate is measured; 0: never",
        "--seed_everything N": "of weights, order of the data and noise",
    },
    "dsrl": {
        "--config FILE": "configs/dsrl_TASK.yaml",
        "--bc_checkpoint FILE": "the policy to steer (also --checkpoint)",
        "--dataset FILE": "its demonstrations, into the replay buffer (also --demonstrations.path)",
        "--output FOLDER": "of the run; checkpoints/dsrl/TASK by default",
        "--resume": "go on with the run in that folder",
        "--initial_steps N": "env steps played by the frozen policy first",
        "--train_steps N": "env steps after them",
        "--utd N": "updates per chunk",
        "--action_magnitude X": "bound of every component of the noise",
        "--seed N": "of networks, episodes and draws",
    },
}


def program() -> str:
    """How this process was started: ``python cli.py``, or the installed name."""
    name = Path(sys.argv[0]).name
    return name if name == "diffusion-steering" else "python cli.py"


def welcome() -> str:
    """Three things to begin with, each with its commands."""
    return WELCOME.format(program=program())


def first_flags(command: str) -> str:
    """The flags of a command that matter most, for the head of its help; empty where the help is short anyway."""
    if command not in FIRST_FLAGS:
        return ""
    lines = [f"  {flag:<30} {meaning}" for flag, meaning in FIRST_FLAGS[command].items()]
    return "\n".join(["the flags that matter most; all of them are below:", *lines, "", ""])


def say_train(task: str | None, dataset: Path, source: str | None, copied: Path | None = None) -> None:
    """Print how to train on a data set, by the recipe that README has for its kind.

    Args:
        task: its short name, None where it has none.
        dataset: its file.
        source: what the file says of its origin; None as Robomimic's own: human demonstrations.
        copied: the file whose demonstrations it has played again, all of them.
    """
    config, folder = f"configs/bc_{task}.yaml", Path("checkpoints/bc")
    known = (Path(__file__).parents[1] / config).is_file()
    words: list[object] = ["--config", config] if known else ["--config", "configs/bc_lift.yaml", "--data.task", "null"]
    origin = (source or "human").rpartition("(")[2]  # of copies, what they were made of
    if known and not origin.startswith("scripted expert, mixed"):  # RL is to steer that: its policy predicts the noise
        words += ["--config", "configs/fast.yaml"]
    human = known and not origin.startswith(("scripted expert", MACHINES))
    if human:
        words += ["--config", "configs/human.yaml", "--data.train_filter_key", "null", "--data.val_filter_key", "null"]
    words += ["--dataset", dataset if copied is None else json.dumps([str(copied), str(dataset)])]
    if human and copied is not None:
        words += ["--trainer.max_epochs", "-1", "--trainer.max_steps", "12800"]
    own = [task] if task and known else []
    names = itertools.chain(own, [dataset.stem], (f"{dataset.stem}_{number}" for number in itertools.count(2)))
    taken = {path.parent.name for kind in ("ckpt", "safetensors") for path in folder.glob(f"*/*.{kind}")}
    free = next(name for name in names if name not in taken)
    if free != task or not known:
        words += ["--output", folder / free]
    say_next("train on it", "fit", *words)


def played(checkpoint: Path | str, sac: Path | None, spec: "PolicySpec", task: str | None = None) -> list[object]:
    """The flags that play a policy, and the archive that steers it, if any.

    Args:
        checkpoint: of the policy.
        sac: the archive.
        spec: the policy's.
        task: what it was played in, which must be said again where the policy does not know it.
    """
    from policies.class_paths import is_own

    network = spec.network.class_path
    module = [] if is_own(network) else ["--network_module", network.rpartition(".")[0]]
    told = spec.env_args is not None or spec.task is not None or task is None
    named = [] if told else ["--task", task]
    return ["--checkpoint", checkpoint, *(["--sac", sac] if sac else []), *module, *named]


def say_next(purpose: str, *words: object) -> None:
    """Print the command that a user may want after this one."""
    print(f"next, {purpose}: {program()} {shlex.join(str(word) for word in words)}")
