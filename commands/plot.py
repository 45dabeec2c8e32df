"""`plot`: a training run's curves as one picture."""

from pathlib import Path

from common.errors import UserError
from common.files import atomic_path


def plot(logdir: Path, output: Path, tags: list[str] | None = None) -> None:
    """Draw the scalars of a TensorBoard run, one panel each.

    Args:
        logdir: folder with TensorBoard event files; the newest run below it is drawn.
        output: picture to write (.png, .svg or .pdf).
        tags: scalars to draw; losses and success rate by default.
    """
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = sorted(logdir.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime)
    if not events:
        raise UserError(f"--logdir {logdir} holds no TensorBoard event files: expected a run of `fit` or `dsrl`")
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--output is {output}: expected a name that ends in .png, .svg or .pdf")
    reader = EventAccumulator(str(events[-1].parent))
    reader.Reload()
    there = reader.Tags()["scalars"]
    wanted = tags or [tag for tag in there if tag.endswith(("loss", "success_rate", "success"))]
    missing = [tag for tag in wanted if tag not in there]
    if missing or not wanted:
        raise UserError(f"no scalars {', '.join(missing) or 'to draw'} in {logdir}. Those there: {', '.join(there)}")
    figure = Figure(figsize=(5 * len(wanted), 3.5), layout="constrained")
    for axes, tag in zip(figure.subplots(1, len(wanted), squeeze=False)[0], wanted, strict=True):
        points = reader.Scalars(tag)
        axes.plot([p.step for p in points], [p.value for p in points], marker=".")
        axes.set(title=tag, xlabel="step")
        axes.grid(alpha=0.3)
        if "loss" in tag:
            axes.set_yscale("log")
        elif "success" in tag:
            axes.set_ylim(-0.02, 1.02)
    with atomic_path(output) as partial:
        figure.savefig(partial, format=output.suffix[1:], dpi=120)
    print(f"wrote {output}")
