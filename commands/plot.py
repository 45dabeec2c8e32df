"""`plot`: a training run's curves as one picture."""

import shlex
from pathlib import Path

from common.errors import UserError
from common.files import atomic_path


def plot(logdir: Path, output: Path, tags: list[str] | None = None) -> None:
    """Draw the scalars of TensorBoard runs: a panel for each scalar, a line for each run.

    Args:
        logdir: folder with TensorBoard event files; every run below it is drawn, as TensorBoard does. A resumed `fit`
            logs to a run of its own.
        output: picture to write (.png, .svg or .pdf).
        tags: scalars to draw; losses and success rate by default.
    """
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if output.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--output is {output}: expected a name that ends in .png, .svg or .pdf")
    folders = sorted({path.parent for path in logdir.rglob("events.out.tfevents.*")})
    if not folders:
        raise UserError(f"--logdir {logdir} holds no TensorBoard event files: expected a run of `fit` or `dsrl`")
    runs = {str(folder.relative_to(logdir)): EventAccumulator(str(folder)).Reload() for folder in folders}
    there = list(dict.fromkeys(tag for run in runs.values() for tag in run.Tags()["scalars"]))
    wanted = tags or [tag for tag in there if tag.endswith(("loss", "success_rate", "success"))]
    missing = [tag for tag in wanted if tag not in there]
    if missing or not wanted:
        raise UserError(f"no scalars {', '.join(missing) or 'to draw'} in {logdir}. Those there: {', '.join(there)}")
    figure = Figure(figsize=(5 * len(wanted), 3.5), layout="constrained")
    for axes, tag in zip(figure.subplots(1, len(wanted), squeeze=False)[0], wanted, strict=True):
        for i, (name, run) in enumerate(runs.items()):
            if tag in run.Tags()["scalars"]:
                points = run.Scalars(tag)
                axes.plot([p.step for p in points], [p.value for p in points], f"C{i}", marker=".", label=name)
        axes.set(title=tag, xlabel="step")
        axes.grid(alpha=0.3)
        if len(runs) > 1:
            axes.legend()
        if "loss" in tag:
            axes.set_yscale("log")
        elif "success" in tag:
            axes.set_ylim(-0.02, 1.02)
    with atomic_path(output) as partial:
        figure.savefig(partial, format=output.suffix[1:], dpi=120)
    print(f"wrote {output}")
    print(f"next, look at every curve: tensorboard --logdir {shlex.quote(str(logdir))}")
