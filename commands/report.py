"""`report`: a page about a run."""

from pathlib import Path

from common.errors import UserError


def report(run: list[Path], output: Path | None = None, videos: int = 0, network_module: str | None = None) -> None:
    """Write one self-contained page about runs of `dsrl` or `fit` or results files of `evaluate`, side by side.

    Args:
        run: folders of runs, or results files (.json).
        output: page to write (.html); by default report.html, in the folder where one run alone is shown.
        videos: episodes of each run to record first, base and steered side by side; 0: those that its folder holds.
        network_module: for videos, the module of the runs' network, where that is not one of this project's.
    """
    from reports.page import write_run_page

    if output is None:
        output = (run[0] if len(run) == 1 and run[0].is_dir() else Path()) / "report.html"
    if output.suffix not in (".html", ".htm"):
        raise UserError(f"--output is {output}: expected a name that ends in .html")
    if videos < 0:
        raise UserError(f"--videos is {videos}: expected 0 or more")
    if videos:
        from commands.run_videos import record_run

        for path in run:
            record_run(path, videos, network_module)
    write_run_page(run, output)
    say_written(output)


def say_written(page: Path) -> None:
    """Print where a page is, as a browser takes it."""
    print(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB); look at it: {page.resolve().as_uri()}")
