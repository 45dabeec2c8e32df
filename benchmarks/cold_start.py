"""Seconds from the command line to its help text, for every command, in a fresh process each.

    python benchmarks/cold_start.py

Commands alternate within each round. Beside the wall-clock, the CPU time, which other work on the machine does not
lengthen, and the heavy packages that the command imports before it starts working. Writes docs/results/cold_start.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cli import COMMANDS
from common.files import atomic_path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "docs/results/cold_start.json"
HEAVY = ("torch", "lightning", "stable_baselines3", "robosuite", "numba", "h5py", "robomimic", "matplotlib")
PROBE = """
import sys, cli
from commands.front_door import run
try:
    run(cli.COMMANDS, {words})
except SystemExit:
    pass
print("HEAVY", *(name for name in {heavy} if name in sys.modules))
"""


def seconds(words: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU time of one process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "cli.py", *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def heavy_imports(words: list[str]) -> list[str]:
    """Heavy packages that ``words`` loads."""
    code = PROBE.format(words=words, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split("HEAVY")[-1].split()


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    lines = {"(overview)": ["--help"], **{name: [name, "--help"] for name in COMMANDS}}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    for _ in range(args.rounds):
        for name, words in lines.items():
            times[name].append(seconds(words))
    rows = {}
    for name, measured in times.items():
        wall, cpu = ([round(value, 2) for value in column] for column in zip(*measured, strict=True))
        imports = " ".join(heavy_imports(lines[name]))
        rows[name] = {"wall_s": statistics.median(wall), "cpu_s": statistics.median(cpu), "imports": imports}
        spread = f"wall {min(wall)} to {max(wall)}, CPU {min(cpu)} to {max(cpu)}"
        print(f"{name:<12} {statistics.median(cpu):6.2f} s of CPU  ({spread})  {imports}", flush=True)
    with atomic_path(RESULT) as partial:
        partial.write_text(
            json.dumps({"cpus": os.cpu_count(), "load": os.getloadavg(), "commands": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
