"""`fit`, `validate`, `test` and `predict`: LightningCLI over the project's module and data."""

import errno
import logging
import math
import platform
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from callbacks.checkpoint_io import SafeCheckpointIO
from callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from callbacks.early_stopping import check_early_stopping
from callbacks.ema import EMA
from callbacks.hyperparameters import log_outcome, log_settings
from callbacks.non_finite import StopOnNonFinite
from callbacks.policy_export import PolicyExport
from callbacks.predictions import PredictionFile
from callbacks.progress import RunProgress
from callbacks.rollout_success import RolloutSuccess
from callbacks.run_metrics import RunMetrics
from callbacks.save_on_signal import SaveOnSignal
from callbacks.step_metrics import StepMetrics
from commands.first_words import played, program, say_next
from commands.parsing import ProjectParser
from common.errors import LineError, UserError
from common.files import OUT_OF_SPACE, atomic_path
from common.metrics_file import FILE as METRICS
from common.provenance import changed_settings, flat, write_provenance
from datamodules.robomimic_datamodule import RobomimicDataModule
from lightning_modules import DiffusionBC
from policies.storage import BEST_FILES, POLICY_FILE

# What the model takes from the data's header, at construction.
LINKED = ("obs_dims", "action_dim", "pred_horizon", "env_args", "task", "data_sha256", "quaternions")

# Sections of the configuration, each with its own flags (--ema.decay). The average is updated before a rollout uses it,
# and a checkpoint is ranked after the rollout.
CALLBACKS: dict[str, type[Callback]] = {
    "ema": EMA,
    "rollout": RolloutSuccess,
    "best": BestCheckpoint,
    "last": LastCheckpoint,
    "export": PolicyExport,
    "predictions": PredictionFile,
}

# Weights stay whole on each rank; processes are started anew, as `spawn`, `fork` and `notebook` do not.
SUPPORTED_STRATEGIES = (SingleDeviceStrategy, DDPStrategy)
IN_PROCESS = ("spawn", "fork", "notebook")

PAGE = "report.html"

# Sections that loggers get as hyperparameters, to compare runs by.
SETTINGS = ("seed_everything", "data", "model", "ema", "rollout", "trainer")

# Modules whose ValueErrors and RuntimeErrors are about settings: while a run is made, and while it runs.
CHECKS_AT_START = ("lightning.", "jsonargparse.", "policies.schedule")
CHECKS_LATER = ("lightning.pytorch.callbacks.early_stopping",)

# Where the recipe differs from Lightning's own defaults; configs/all_keys.yaml says what each means.
TRAINER_DEFAULTS: dict[str, Any] = {
    "devices": 1,
    "precision": "32-true",
    "gradient_clip_val": 1.0,
    "check_val_every_n_epoch": 50,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 50,
    "enable_model_summary": False,
    "logger": {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "runs", "name": "bc", "default_hp_metric": False},
    },
}

# What writing logs into a bad place or onto a full disk ends with.
UNWRITABLE = (*OUT_OF_SPACE, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


class TrainParser(ProjectParser, LightningArgumentParser):  # type: ignore[misc]
    """Lightning's parser with one message per mistake."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration of a `fit` beside its checkpoints, where the run can be made again from."""

    settings: dict[str, Any] | None = None  # what loggers get, once there was something to train

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet: a checkpoint to go on from may still be refused."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            if self.config.overwrite:  # not before: until here the new run may have been refused
                for path in (*files_of_run(self.config), Path(self.config.best.dirpath) / PAGE):
                    path.unlink(missing_ok=True)
            self.save_config(trainer, pl_module, "fit")
            _say_begins(trainer, Path(self.config.best.dirpath))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.settings is not None:
            log_outcome(trainer, self.settings)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        config = self.config.clone()
        for own in ("ckpt_path", "overwrite"):  # of one line, not of a run: they would override another line's flags
            config.pop(own)
        folder = Path(config.best.dirpath)
        written = self.parser.dump(config, skip_none=False)
        path = folder / self.config_filename
        if self.config.ckpt_path is not None and path.is_file():
            _say_changed(path, yaml.safe_load(written))
        with atomic_path(path) as partial:
            partial.write_text(written)
        default = self.parser.dump(self.parser.get_defaults(), skip_none=False, skip_validation=True)
        resolved = yaml.safe_load(written)
        changed = changed_settings(resolved, yaml.safe_load(default))
        write_provenance(folder, changed, goes_on=self.config.ckpt_path is not None)
        self.settings = {
            name: value
            for name, value in flat({section: resolved[section] for section in SETTINGS}).items()
            if value is not None and not name.startswith(("trainer.logger", "trainer.callbacks"))
        }
        log_settings(trainer, self.settings)


def _say_begins(trainer: Trainer, folder: Path) -> None:
    """On what, for how long and into which folder: hours may follow."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    files, total = ", ".join(str(path) for path in data.paths), trainer.estimated_stepping_batches
    until = "until it is stopped" if math.isinf(total) else f"at most to step {int(total):,}"
    rank_zero_info(
        f"fit: {files}, {len(data.train_chunks):,} windows of {data.pred_horizon} actions; {until}; in {folder}"
    )


def _say_changed(before: Path, now: dict[str, Any]) -> None:
    """What a run goes on with that its folder did not say so far; what may not be changed has been refused by now."""
    try:
        old = yaml.safe_load(before.read_text())
    except (UnicodeDecodeError, yaml.YAMLError):
        old = None
    if not isinstance(old, dict):
        rank_zero_warn(f"{before} cannot be read as a run's settings: it is written anew")
        return
    changed = [f"{name} {_brief(new)} (so far {_brief(given)})" for name, given, new in _differences(old, now)]
    if changed:
        rank_zero_info(f"--resume goes on with other settings: {', '.join(changed)}")


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value before and value now, each where the two part: at a value, or where one has a section."""
    for key, new in now.items():
        given = before.get(key)
        if isinstance(given, dict) and isinstance(new, dict):
            yield from _differences(given, new, f"{prefix}{key}.")
        elif key in before and given != new:  # a setting that is newer than the file has not changed
            yield f"{prefix}{key}", given, new


def _brief(value: Any) -> str:
    return value["class_path"].rpartition(".")[2] if isinstance(value, dict) and "class_path" in value else repr(value)


class TrainCLI(LightningCLI):
    """LightningCLI with the model's dimensions linked from the data and one seed for everything.

    Args:
        command: fit, validate, test or predict.
    """

    def __init__(self, command: str, *args: Any, **kwargs: Any) -> None:
        self.command = command
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that the line names: parsers of all four take twice the time."""
        return {self.command: super().subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.options = parser  # of the one subcommand
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")
        for target in ("data.seed", "model.seed"):
            parser.link_arguments("seed_everything", target, compute_fn=_seed)
        for section, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, section)
        for section in ("last", "export"):
            parser.link_arguments("best.dirpath", f"{section}.dirpath")
        parser.add_argument(
            "--overwrite",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="let `fit` delete the run that best.dirpath holds, and begin anew there",
        )
        parser.add_argument(
            "--report", type=bool, default=True, help=f"whether `fit` ends by writing {PAGE} into the run's folder"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        # Next, Lightning would let a checkpoint's hyperparameters override flags and config, classes to import
        # included. Here flags and config hold, and a checkpoint that does not fit them is refused
        # (DiffusionBC.on_load_checkpoint): Lightning does not get to see it before the classes are made.
        config = self.config[self.command]
        self.checkpoint, config.ckpt_path = config.ckpt_path, None

    def before_instantiate_classes(self) -> None:
        config = self.config[self.command]
        config.ckpt_path = _checkpoint_to_load(self.command, self.checkpoint, Path(config.best.dirpath))
        if self.command == "fit" and not config.trainer.fast_dev_run:
            _check_folder(config)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError, RuntimeError) as error:
            if not _is_refusal(error, CHECKS_AT_START):
                raise
            raise UserError(f"these settings cannot be used: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = self.config_init[self.config.subcommand].trainer
        if given.enable_progress_bar is not False:
            self.trainer_defaults["callbacks"] = [*self.trainer_defaults["callbacks"], RunProgress()]
        asked = given.accelerator
        meant = {"auto": "cuda" if torch.cuda.is_available() else "cpu", "gpu": "cuda"}
        kwargs["accelerator"] = meant.get(asked, asked)
        if kwargs["accelerator"] not in ("cpu", "cuda"):
            raise UserError(
                f"trainer.accelerator is {asked}: expected auto, cpu or cuda. Apple's GPU computes nothing in double "
                "precision, and others are untried"
            )
        trainer = super().instantiate_trainer(**kwargs)
        trainer.strategy.checkpoint_io = SafeCheckpointIO()
        in_process = any(word in str(given.strategy) for word in IN_PROCESS)
        if in_process or not isinstance(trainer.strategy, SUPPORTED_STRATEGIES):
            raise UserError(
                f"trainer.strategy is {given.strategy}: expected auto or ddp. The others share out the weights, or "
                "start processes that cannot take over the callbacks"
            )
        check_early_stopping(trainer)
        if trainer.precision == "bf16-mixed" and trainer.strategy.root_device.type == "cpu" and not _fast_bf16():
            warnings.warn(
                "bf16-mixed on a CPU without AVX-512: a product in bf16 takes up to 76 times as long as in fp32 "
                "(docs/training.md). Give --trainer.precision 32-true.",
                stacklevel=2,
            )
        return trainer


def _checkpoint_to_load(command: str, given: str | None, folder: Path) -> str | None:
    """The checkpoint that ``--ckpt_path`` means, or None where a `fit` begins."""
    fits, last = command == "fit", folder / "last.ckpt"
    if given == "last":
        latest = _latest_checkpoint(last)
        if latest is None and not fits:
            folder_flag = "--best.dirpath" if command == "predict" else "--output"
            raise UserError(
                f"--checkpoint last: {last} does not exist. Give --checkpoint FILE, or {folder_flag} FOLDER."
            )
        if latest is None:
            rank_zero_warn(f"--resume: there is no {last} yet, so the run begins")
        return latest
    if given is None and not fits:
        raise UserError(f"{command} needs a checkpoint: give --checkpoint FILE, or `last` for {last}")
    if given is not None and not Path(given).is_file():
        flag = "--ckpt_path" if fits else "--checkpoint"
        raise UserError(f"{flag} {given} is no file: expected a .ckpt of `fit`, or `last`")
    if given is not None and given.endswith(".safetensors"):
        raise UserError(
            f"{command} restores the run of a .ckpt, and {given} is a policy alone: give the last.ckpt beside it, or "
            "count the policy's successes with `evaluate`"
        )
    return given


def files_of_run(config: Namespace) -> list[Path]:
    """What a run has left in the folder that it would write to: checkpoints and the exported policy."""
    folder = Path(config.best.dirpath)
    there = (folder / name for name in ("last.ckpt", POLICY_FILE))
    return [path for path in (*there, *sorted(folder.glob(BEST_FILES))) if path.is_file()]


def _check_folder(config: Namespace) -> None:
    """Refuse to replace a run, or to mix another's checkpoints with its own."""
    folder, found = Path(config.best.dirpath), files_of_run(config)
    if steered := sorted(path.name for path in folder.glob("sac_*.zip")):
        raise UserError(f"{folder} holds {' and '.join(steered)}, of a run of `dsrl`: name another --output")
    goes_on = config.ckpt_path is not None and Path(config.ckpt_path).resolve().parent == folder.resolve()
    if goes_on and config.overwrite:
        raise UserError(
            f"--overwrite begins anew in {folder}, --resume goes on with the run there: give one of the two"
        )
    if found and not goes_on and not config.overwrite:
        raise UserError(
            f"{folder} holds a run already ({found[0].name}): go on with it by --resume, name another --output, or "
            "begin anew there by --overwrite"
        )


def _latest_checkpoint(last: Path) -> str | None:
    """``last``, or the latest of the best where a run was killed before it wrote one."""
    best = sorted(last.parent.glob(BEST_FILES), key=lambda path: path.stat().st_mtime_ns)
    return next((str(path) for path in (last, *reversed(best)) if path.is_file()), None)


def train(args: Sequence[str]) -> None:
    """Run one of Lightning's subcommands.

    Args:
        args: the command line after ``cli.py``, the subcommand first.
    """
    _quieten_lightning()
    _check_configured(args)
    try:
        cli = TrainCLI(
            args[0],
            DiffusionBC,
            RobomimicDataModule,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=TrainParser,
            parser_kwargs={"prog": program()},
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            # These have no section of the configuration, for they have no options.
            trainer_defaults=TRAINER_DEFAULTS
            | {"callbacks": [StopOnNonFinite(), StepMetrics(), RunMetrics(), SaveOnSignal()]},
            args=list(args),
        )
        _say_next(cli)
    except (MisconfigurationException, RuntimeError) as error:
        if not _is_refusal(error, CHECKS_LATER):
            raise
        raise UserError(str(error)) from error
    except SystemExit as end:
        # Ctrl-C outside SaveOnSignal's care: Lightning has put things away, and ends the process with status 1.
        if isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = error.filename or "the run's files"
        raise UserError(f"cannot write {where}: {error.strerror}. Choose another folder, or make room.") from error


def _check_configured(args: Sequence[str]) -> None:
    """Without a configuration the parser would name the first of many keys that then lack a value."""
    flags = {word.partition("=")[0] for word in args}
    asks = any(flag in ("-h", "--print_config") or flag.endswith("help") for flag in flags)
    if not asks and flags.isdisjoint({"-c", "--config"}) and not {"--data.path", "--best.dirpath"} <= flags:
        raise LineError(
            f"{args[0]} is given no configuration: expected --config configs/bc_lift.yaml, or bc_can.yaml or "
            "bc_square.yaml, or at the least --dataset FILE and --output FOLDER"
        )


def _say_next(cli: TrainCLI) -> None:
    """What the command's outcome is for; not after a trial of a few batches, nor from every process."""
    config = cli.config[cli.config.subcommand]
    if not cli.trainer.is_global_zero or config.trainer.fast_dev_run:
        return
    spec = cli.model.policy.spec
    if cli.config.subcommand == "fit":
        if config.report and (Path(config.best.dirpath) / METRICS).is_file():
            _write_page(Path(config.best.dirpath))
        if spec.env_args is not None or spec.task is not None:  # else there is nothing to roll it out in
            policy = Path(config.best.dirpath) / POLICY_FILE
            say_next("judge it", "evaluate", *played(policy, None, spec))
    elif cli.config.subcommand == "predict":
        print(f"next, read it in Python: numpy.load({config.predictions.output!r}): obs, demonstrated, predicted")
    else:
        say_next("count its successes", "evaluate", *played(config.ckpt_path, None, spec, config.data.task))


def _write_page(folder: Path) -> None:
    """The run as one page; matplotlib is imported here, and only where there is something to draw."""
    from commands.report import say_written
    from reports.page import write_run_page

    write_run_page([folder], folder / PAGE)
    say_written(folder / PAGE)


def _is_refusal(error: Exception, checks: tuple[str, ...]) -> bool:
    """Whether a setting was refused by one of these modules; anything else may be a fault of ours or of a user's."""
    frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
    return isinstance(error, MisconfigurationException) or frame.f_globals["__name__"].startswith(checks)


def _fast_bf16() -> bool:
    """Whether PyTorch has bf16 kernels for this CPU (AVX-512 without its bf16 instructions: not measured)."""
    return platform.machine() not in ("x86_64", "AMD64") or "AVX512" in torch.backends.cpu.get_cpu_capability()


def _seed(value: int | bool) -> int:
    if not 0 <= int(value) < 2**32:
        raise UserError(f"seed_everything is {value}: expected 0 to {2**32 - 1}")
    return int(value)


def _quieten_lightning() -> None:
    # The moving average is a second policy in eval mode, on purpose.
    warnings.filterwarnings("ignore", "Found .* module.* in eval mode")
    warnings.filterwarnings("ignore", ".*does not have many workers")
    warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\)")
    # The run's config.yaml is there already, and its last.ckpt where a run goes on.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # A small data set has fewer batches per epoch than lie between two entries of the log, which counts over epochs.
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
    # Nothing is held out where train_filter_key and val_filter_key are null.
    warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")
    # An overfit run draws from all chunks by itself: no sampler of Lightning's to replace.
    warnings.filterwarnings("ignore", "You requested to overfit but enabled .* dataloader shuffling")
    # Rollouts reduce over the ranks themselves.
    warnings.filterwarnings("ignore", "It is recommended to use `self.log\\('rollout/")
    # The front door has the words of the line already.
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")
    # Reports are output; stderr is for warnings and mistakes.
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                handler.setStream(sys.stdout)
    reports = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    unasked = ("💡", "TPU available", "Loading `train_dataloader`", "`Trainer.fit` stopped: `max_")  # the bar says
    reports.addFilter(lambda record: not record.getMessage().startswith(unasked))
