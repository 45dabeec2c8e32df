"""The steps of ``gpu.sh``: each in processes of its own, every figure in ``results.json`` as soon as it is there.

A step ends as "passed" or with the reason why it proves nothing: it failed, ran out of time, was skipped, was cut short
or did not use the GPU. Any of these makes the exit status 1. ``--toy`` runs all steps in small, on a CPU where no GPU
is there.
"""

import argparse
import contextlib
import csv
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
import xml.etree.ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from common.files import atomic_path

ROOT = Path(__file__).resolve().parent.parent
YARDSTICK = 117_000  # updates: Lift's 3000 epochs with the mission's recipe
SQUARE_UPDATES = 315_000  # and Square's
GOAL_SECONDS, GOAL_OF_GRAPH, GOAL_OF_STOCK = 60.0, 0.9, 6.0
FIT_VARIANTS = {  # of training_speed.py, and the flags that make `fit` run so
    "fit": [],
    "fit, bf16-mixed": ["--trainer.precision", "bf16-mixed"],
    "fit, compiled": ["--model.compile_network", "kernels"],
    "fit, compiled, CUDA graphs": ["--model.compile_network", "cuda_graphs"],
}
BARE, GRAPH = "bare loop", "bare loop, one graph"


class UnprovenError(Exception):
    """A step that ended without proving what it should."""


@dataclass
class Proof:
    """One run of the script: where it writes, how long it may take, how large it is.

    Args:
        pack: folder of ``gpu_pack.sh``.
        results: gets results.json, log.txt and the files worth bringing back.
        device: "cuda" or "cpu".
        toy: small sizes.
        ends: ``time.monotonic()`` at which all must be over.
    """

    pack: Path
    results: Path
    device: str
    toy: bool
    ends: float
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        """What need not come back."""
        return self.results / "scratch"

    @property
    def seconds_left(self) -> float:
        return self.ends - time.monotonic()

    def write(self) -> None:
        """The figures so far."""
        with atomic_path(self.results / "results.json") as partial:
            partial.write_text(json.dumps(self.document, indent=1) + "\n")

    def call(self, line: Sequence[object], seconds: float, stops_it: bool = False) -> bool:
        """Run Python with the words of ``line``, its output to log.txt; whether it ended before its time.

        Raises:
            UnprovenError: it failed; or it ran out of time, unless ``stops_it`` (SIGINT) is how it is meant to end.
        """
        words = [sys.executable, *map(str, line)]
        # A toy run shows that every line works, on a machine as slow and busy as it may be.
        limit = max(1.0, min(seconds * (20 if self.toy else 1), self.seconds_left))
        with (self.results / "log.txt").open("a") as log:
            log.write(f"\n$ {' '.join(words[1:])}\n")
            log.flush()
            process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                _end(process)
                if stops_it:
                    return False
                raise UnprovenError(f"{line[1]} took longer than {limit:.0f} s") from None
        if status:
            raise UnprovenError(f"{line[1]} ended with status {status}; see log.txt")
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """First as Ctrl-C would, then the whole process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def device_tests(proof: Proof) -> dict[str, Any]:
    """1. The tests marked gpu: fit, resume, rollouts, dsrl, evaluate, export, checkpoints across devices."""
    report = proof.scratch / "tests.xml"
    # By name: others import what only the tests' own environment has.
    line = ["-m", "pytest", "tests/test_gpu_commands.py", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    proof.call(line, 120)
    figures = count_tests(report)
    if figures["skipped"] or not figures["tests"]:
        raise UnprovenError(f"tests: {figures}")
    return figures


def count_tests(report: Path) -> dict[str, int]:
    """How many of pytest's tests ran, failed and were skipped."""
    suite = xml.etree.ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    return {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}


def training_speed(proof: Proof) -> dict[str, Any]:
    """2. Updates per second of `fit` in its variants, against the bare loop, its graph, and the kernels' own time."""
    output = proof.scratch / "training_speed.json"
    network = "toy" if proof.toy else "seed 3x1024"
    variants = list(FIT_VARIANTS)[: 2 if proof.toy else None]  # compiling takes a CPU a minute
    line = ["-m", "benchmarks.training_speed", "--data", proof.pack / "square_ph.hdf5", "--device", proof.device]
    line += ["--networks", network, "--floor", "--output", output, "--variants", BARE, GRAPH, *variants]
    line += ["--rounds", 1 if proof.toy else 3, "--steps", 3 if proof.toy else 1000]
    try:
        proof.call(line, 130)
    finally:
        if output.exists():
            rows = json.loads(output.read_text())["networks"][network]
            proof.document["training_speed"] = speed_figures({name: row["median"] for name, row in rows.items()})
            proof.document["training_speed"]["rows"] = rows
    return proof.document["training_speed"]


def speed_figures(medians: dict[str, float]) -> dict[str, Any]:
    """What the rates say: the yardstick's seconds per variant, the share of the graph, launch-bound or not."""
    rates = {name.removesuffix(", steps/s"): value for name, value in medians.items() if name.endswith(", steps/s")}
    fits = {name: rate for name, rate in rates.items() if name in FIT_VARIANTS}
    if not fits:
        return {}
    fastest = max(fits, key=fits.__getitem__)
    figures: dict[str, Any] = {
        "updates_per_s": rates,
        "seconds_for_117000_updates": {name: YARDSTICK / rate for name, rate in rates.items()},
        "fastest_fit": fastest,
        "goal_under_60_s": YARDSTICK / fits[fastest] < GOAL_SECONDS,
    }
    if GRAPH in rates:
        figures["fastest_fit_over_graph"] = fits[fastest] / rates[GRAPH]
        figures["goal_90_percent_of_graph"] = fits[fastest] >= GOAL_OF_GRAPH * rates[GRAPH]
    kernels = medians["kernel seconds per step"]
    figures["kernels_share_of_bare_step"] = kernels * rates[BARE]
    figures["bare_loop_is_launch_bound"] = kernels * rates[BARE] < 0.8
    return figures


def square_policy(proof: Proof) -> dict[str, Any]:
    """3. The full recipe's policy on human Square data, brought back to be judged elsewhere."""
    speed = proof.document.get("training_speed", {})
    variant = speed.get("fastest_fit", "fit")
    seconds = min(200.0, proof.seconds_left - 60)
    # A cosine schedule must know its end: as many updates as the measured rate allows, 30 s for start and end.
    rate = speed.get("updates_per_s", {}).get(variant, SQUARE_UPDATES / seconds)
    steps = 3 if proof.toy else min(SQUARE_UPDATES, int(rate * max(10.0, seconds - 30)))
    folder = proof.scratch / "square"
    line = ["cli.py", "fit", "--config", "configs/bc_square.yaml", "--data.path", proof.pack / "square_ph.hdf5"]
    line += ["--trainer.accelerator", "gpu" if proof.device == "cuda" else "cpu", "--trainer.max_steps", steps]
    line += ["--trainer.logger", "false", "--rollout.every_n_epochs", 0, "--best.dirpath", folder]
    if proof.toy:
        line += ["--model.network.init_args.hidden_dims", "[16]"]
    begin = time.monotonic()
    proof.call([*line, *FIT_VARIANTS[variant]], seconds)
    took = time.monotonic() - begin
    shutil.copyfile(folder / "policy.safetensors", proof.results / "square.safetensors")
    figures = {"variant": variant, "updates": steps, "wall_s": took, "updates_per_s_with_start": steps / took}
    if steps < SQUARE_UPDATES and not proof.toy:
        proof.document["square_policy"] = figures
        raise UnprovenError(f"cut short: {steps} of {SQUARE_UPDATES} updates fit into {seconds:.0f} s")
    return figures


def dsrl_speed(proof: Proof) -> dict[str, Any]:
    """4a. Updates per second of the learner against stock SB3's SAC, plain and with CUDA graphs."""
    figures: dict[str, Any] = {}
    sizes = [[16]] if proof.toy else [[128] * 3, [2048] * 3]
    for hidden in sizes:
        for compilation in ["off"] if proof.toy else ["off", "cuda_graphs"]:
            output = proof.scratch / "dsrl_updates.json"
            line = ["-m", "benchmarks.dsrl_updates", "--device", proof.device, "--output", output, "--hidden", *hidden]
            line += ["--compile_losses", compilation, "--updates", 2 if proof.toy else 200, "--rounds", 3]
            proof.call(line, 40)
            figures[f"{len(hidden)} x {hidden[0]}, {compilation}"] = json.loads(output.read_text())[0]
            proof.document["dsrl_speed"] = figures
            proof.write()
    if not proof.toy:
        figures["goal_6_x_at_3x128"] = figures["3 x 128, cuda_graphs"]["ratio_median"] >= GOAL_OF_STOCK
    return figures


def dsrl_can(proof: Proof) -> dict[str, Any]:
    """4b. DSRL-NA at the paper's size on Can, 16 workers, decodes and all, for the time that is left."""
    folder = proof.scratch / "can"
    line = [
        "cli.py",
        "dsrl",
        "--config",
        "configs/dsrl_can_paper.yaml",
        "--bc_checkpoint",
        proof.pack / "can.safetensors",
    ]
    line += ["--device", proof.device, "--output", folder, "--evaluation.report_episodes", 0]
    if proof.toy:
        line += ["--learner.hidden_sizes", "[16]", "--learner.batch_size", 8, "--env.n_envs", 2, "--env.horizon", 20]
        line += ["--initial_steps", 80, "--train_steps", 80, "--utd", 1, "--ddim_steps", 2]
        line += ["--evaluation.every", 80, "--evaluation.episodes", 2]
    else:
        line += ["--env.n_envs", 16, "--initial_steps", 8000, "--evaluation.every", 4000, "--evaluation.episodes", 32]
    proof.call(line, proof.seconds_left - 10, stops_it=not proof.toy)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("metrics.csv", "config.yaml"):
        shutil.copyfile(folder / name, proof.results / f"can_{name}")
    last = {name: float(value) for name, value in rows[-1].items() if value}
    if not last["updates"]:
        raise UnprovenError(f"no update was made in the time that was left: {last}")
    return last


STEPS: dict[str, Callable[[Proof], dict[str, Any]]] = {
    step.__name__: step for step in (device_tests, training_speed, square_policy, dsrl_speed, dsrl_can)
}


def run(proof: Proof, names: Sequence[str]) -> bool:
    """All steps in order; whether every one passed."""
    proof.document |= {"steps": {}, "machine": machine(proof.device), "toy": proof.toy}
    for name in names:
        begin = time.monotonic()
        try:
            if proof.seconds_left < 5:
                raise UnprovenError("skipped: no time was left")
            proof.document[name] = STEPS[name](proof)
            verdict = "passed"
        except UnprovenError as reason:
            verdict = str(reason)
        except Exception as error:  # a fault of this script must not cost the steps that follow
            traceback.print_exc()
            verdict = f"failed: {error!r}"
        proof.document["steps"][name] = {"verdict": verdict, "wall_s": time.monotonic() - begin}
        proof.write()
        print(f"{name:<16}{time.monotonic() - begin:6.0f} s  {verdict}", flush=True)
    shutil.rmtree(proof.scratch)
    return all(step["verdict"] == "passed" for step in proof.document["steps"].values())


def machine(device: str) -> dict[str, Any]:
    """What it was measured on."""
    card = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "card": card,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def main() -> int:
    """Run what is asked for; 1 where anything remains unproven."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.toy:
        print("PyTorch finds no GPU here: nothing can be proven (--toy runs the steps in small on the CPU)")
        return 1
    proof = Proof(args.pack, args.results, device, args.toy, time.monotonic() + 60 * args.minutes)
    proof.scratch.mkdir(parents=True)
    return 0 if run(proof, args.steps) else 1


if __name__ == "__main__":
    sys.exit(main())
