"""`sweep`: what a file means, and that runs survive kills and interruptions on a real local Ray."""

import _thread
import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import COMMANDS
from commands.front_door import run
from commands.sweep import sweep
from common.errors import UserError
from common.lock import run_lock
from envs.pool import available_cpus
from rollouts.statistics import seeds_interval, wilson_interval
from sweeps.attempt import (
    LOG,
    STOP,
    Record,
    RunRefusedError,
    attempt,
    begin_again,
    config_hashes,
    free_cpus,
    is_finished,
    read_record,
)
from sweeps.plan import PlannedRun, Step, Value, grid_points, plan
from sweeps.table import rows_of_runs, table_of
from tests.run_folders import judged, write_dsrl_run
from tests.training_toy import ROOT, ForkServer, fit_line, write_toy_dataset

KEYS = {"robot0_eef_pos": 3, "object": 10}
STEPS = {
    "data": Step("collect --task {task} --n_demos 4"),
    "bc": Step("fit --dataset {data} --seed_everything {seed} --model.lr {lr}", cpus=2),
    "result": Step("evaluate --checkpoint {bc} --network_module '{{odd}} name'"),
}


def test_a_step_runs_once_for_each_combination_of_what_it_mentions() -> None:
    points = grid_points({"task": ["lift", "can"], "seed": [0, 1], "lr": [0.1]}, [], {})
    runs = plan(STEPS, points, Path("out"), {"data": "--n_envs 1"})
    names = [f"data/task={task}" for task in ("lift", "can")]
    for step in ("bc", "result"):
        names += [f"{step}/task={task},seed={seed},lr=0.1" for task in ("lift", "can") for seed in (0, 1)]
    assert list(runs) == names
    assert runs["data/task=can"].line == (
        "python cli.py collect --task can --n_demos 4 --n_envs 1 --output out/data/task=can/demonstrations.hdf5"
    )
    bc = runs["bc/task=can,seed=1,lr=0.1"]
    assert (bc.after, bc.cpus, bc.folder) == (("data/task=can",), 2, Path("out") / bc.name)
    assert bc.words[:7] == (
        *("fit", "--dataset", "out/data/task=can/demonstrations.hdf5", "--seed_everything", "1", "--model.lr", "0.1"),
    )
    assert bc.words[7:] == ("--output", str(bc.folder), "--trainer.logger.init_args.save_dir", str(bc.folder))
    result = runs["result/task=can,seed=1,lr=0.1"]
    assert result.after == (bc.name,)
    assert result.words[2:5] == (f"out/{bc.name}/policy.safetensors", "--network_module", "{odd} name")


@pytest.mark.parametrize(
    ("trainer", "told"),
    [
        ({"logger": False}, False),
        ({"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "runs"}}}, False),
        ({"logger": {"init_args": {"name": "mine"}}}, True),
        ({}, True),
    ],
)
def test_a_config_that_chooses_a_logger_says_where_it_writes(tmp_path: Path, trainer: Any, told: bool) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump({"trainer": trainer}))
    [run] = plan({"bc": Step(f"fit --config {config}")}, [{}], tmp_path).values()
    assert ("--trainer.logger.init_args.save_dir" in run.words) == told


def test_points_hold_values_that_belong_together() -> None:
    points: list[dict[str, Any]] = [{"task": "lift", "data": "a/lift.hdf5"}, {"task": "can", "data": "b/can.hdf5"}]
    every = grid_points({"seed": [0, 1]}, points, {"task": ["can"]})
    assert every == [{"task": "can", "data": "b/can.hdf5", "seed": seed} for seed in (0, 1)]
    runs = plan({"bc": Step("fit --dataset {data} --data.task {task}")}, every, Path("out"))
    assert list(runs) == ["bc/task=can,data=can.hdf5"]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({}, "steps is empty"),
        ({"a": Step("collect --task {tsak}")}, r"steps\.a: \{tsak\} is neither an earlier step \(none\) nor"),
        ({"a": Step("evaluate --checkpoint {b}"), "b": Step("fit")}, r"\{b\} is neither an earlier step"),
        ({"a": Step("rm -r x")}, "begins with 'rm': expected one of fit, dsrl"),
        ({"a": Step("")}, "begins with nothing"),
        ({"a": Step("fit --output x")}, "gives --output: leave it out"),
        ({"a": Step("fit --best.dirpath=x")}, "gives --best.dirpath: leave it out"),
        ({"a": Step("fit --seed '{seed}")}, "is no command line: No closing quotation"),
        ({"a": Step("fit --x {seed:3}")}, "a brace itself is"),
        ({"a": Step("fit --x '{\"json\": 1}'")}, "a brace itself is"),
        ({"task": Step("fit")}, "'task' is the name of a step and of a value"),
        ({"a-b": Step("fit")}, "'a-b' cannot be the name"),
        ({"a": Step("fit --dataset {file}")}, "would share the folder a/file=y"),
    ],
)
def test_a_mistake_in_a_sweep_file_is_one_message(steps: dict[str, Step], said: str) -> None:
    points = grid_points({"task": ["lift"], "seed": [0], "file": ["x/y", "z/y"]}, [], {})
    with pytest.raises(UserError, match=said):
        plan(steps, points, Path("out"))


def test_the_shipped_sweeps_are_plans(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((ROOT / "configs/sweeps").glob("*.yaml"))
    assert files
    for file in files:
        assert run(COMMANDS, ["sweep", f"--config={file}", "--dry_run"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert all(line.startswith("python cli.py ") for line in lines)
        assert len(set(lines)) == len(lines) > 1


@pytest.mark.parametrize("file", sorted((ROOT / "configs/sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_lines_of_the_shipped_sweeps_are_understood(cli_server: ForkServer, tmp_path: Path, file: Path) -> None:
    """By their commands' own parsers: every flag is known, every config is there."""
    content = yaml.safe_load(file.read_text())
    steps = {name: Step(**step) for name, step in content["steps"].items()}
    runs = plan(steps, grid_points(content["grid"], [], {}), tmp_path)
    for planned in {each.step: each for each in runs.values()}.values():
        asked = cli_server.start([*planned.words, "--print_config"])
        assert asked.wait() == 0, (planned.line, asked.stderr)
        assert str(planned.folder) in asked.output.read_text()


def test_make_results_on_a_file_of_ones_own(tmp_path: Path) -> None:
    """At toy size: what `make results` runs, from data to table."""
    data = write_toy_dataset(tmp_path / "mine.hdf5", obs_dims=KEYS)
    output = tmp_path / "out"
    toy = {
        "short": "--trainer.max_epochs 1 --model.network.init_args.hidden_dims [8] --model.rotations quaternion "
        f"""--data.obs_keys {shlex.quote(json.dumps(list(KEYS)))}""",
        "score": "--n_episodes 2 --horizon 8 --n_envs 1 --ddim_steps 2",
    }
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump({"extra": toy, "only": {"seed": [1]}}))
    made = subprocess.run(
        ["make", "-o", "setup", "results", f"DATA={data}", "TASKS=lift", f"SWEEP=--config {file} --output {output}"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    [row] = list(csv.DictReader((output / "table.csv").open()))
    assert (row["step"], row["task"], row["dataset"], row["seeds"], row["episodes"]) == (
        "score",
        "lift",
        str(data),
        "1",
        "2",
    )
    assert any((output / "short").rglob("events.out.tfevents.*")), "its curves are in the sweep's folder"


@pytest.mark.parametrize("file", ["mine.hdf5", "mine.h5"])
def test_make_results_on_a_file_asks_for_its_task(file: str) -> None:
    made = subprocess.run(["make", "-n", "results", f"DATA={file}"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 2
    assert f"DATA={file}: expected scripted, human, or a file and which task it is of" in made.stderr


def test_the_interval_over_seeds_holds_both_kinds_of_chance() -> None:
    # Student's t with two degrees of freedom: 4.303 standard errors, of .05 / sqrt(3).
    low, high = seeds_interval([0.45, 0.5, 0.55], [1000] * 3)
    assert (low, high) == pytest.approx((0.5 - 0.1242, 0.5 + 0.1242), abs=1e-4)
    assert seeds_interval([1.0, 1.0], [200, 200]) == wilson_interval(400, 400), "agreement is not certainty"
    assert seeds_interval([0.2, 1.0], [50, 50]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="two or more"):
        seeds_interval([0.5], [100])


def write_results_of(planned: PlannedRun, rate: float) -> None:
    """What `evaluate` leaves."""
    planned.folder.mkdir(parents=True)
    header = {"task": "lift", "checkpoint": {"path": "p", "sha256": "ab" * 32}, "commit": "c" * 40}
    header |= {"sac": {"path": "s", "sha256": "cd" * 32}, "command": "x"}
    planned.product.write_text(json.dumps({**header, **judged(rate), "base": judged(0.5)}))


def test_the_table_has_means_over_seeds(tmp_path: Path) -> None:
    steps = {"rl": Step("dsrl --seed {seed}"), "result": Step("evaluate --checkpoint x --sac {rl}")}
    runs = plan(steps, grid_points({"seed": [3, 4]}, [], {}), tmp_path)
    for planned in runs.values():
        if planned.step == "rl":
            write_dsrl_run(planned.folder)
            planned.product.write_bytes(b"sac")
        else:
            write_results_of(planned, 0.8 if planned.point["seed"] == 3 else 0.9)
        starts = [{"seconds": 10.0}, {"seconds": 5.4}] if planned.point["seed"] == 3 else [{"seconds": 20.0}]
        (planned.folder / "run.json").write_text(json.dumps(vars(Record(planned.line, starts, True))))
    rows = rows_of_runs(runs.values())
    assert len(rows) == 2 * (3 + 2)
    assert rows[-1] == {
        **{"run": "result/seed=4", "step": "result", "seed": 4, "agent": "steered", "selected": "true"},
        **{"episodes": 40, "success": 0.9, "low": 0.769, "high": 0.96, "mean_length": rows[-1]["mean_length"]},
        **{"seconds": 20, "attempts": 1, "sha256": "cd" * 8, "commit": "c" * 7},
    }
    assert (rows[-2]["agent"], rows[-2]["sha256"]) == ("base", "ab" * 8), "of the policy, not of what steered it"
    table = {(row["step"], row["agent"]): row for row in table_of(rows)}
    assert len(table) == 5
    steered = table["result", "steered"]
    low, high = wilson_interval(68, 80)
    assert (steered["seeds"], steered["episodes"], steered["success"]) == (2, 80, 0.85)
    assert (steered["low"], steered["high"]) == (round(low, 3), round(high, 3))
    assert (steered["seeds_low"], steered["seeds_high"]) == (0.215, 1.0)
    assert steered["seconds"] == round((15 + 20) / 2)
    assert "seed" not in steered


def test_a_part_of_a_sweep_leaves_the_rows_of_the_others_and_notices_an_edited_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    config = tmp_path / "judge.yaml"
    config.write_text("n_episodes: 40\n")
    steps = {"result": Step(f"evaluate --config {config} --checkpoint x --seed {{seed}}")}
    output = tmp_path / "out"
    for planned in plan(steps, grid_points({"seed": [3, 4]}, [], {}), output).values():
        write_results_of(planned, 0.8)
        record = Record(planned.line, [{"seconds": 1.0}], True, config_hashes(planned))
        (planned.folder / "run.json").write_text(json.dumps(vars(record)))
    parts: list[dict[str, list[Value]]] = [{}, {"seed": [3]}]
    for only in parts:
        sweep(steps, output, {"seed": [3, 4]}, only=only)
        rows = list(csv.DictReader((output / "runs.csv").open()))
        assert [(row["seed"], row["agent"]) for row in rows] == [(s, a) for s in "34" for a in ("base", "steered")]
        table, _, _ = capsys.readouterr().out.partition("wrote")
        shown = [line for line in table.splitlines() if not re.match(r"\d\d:", line)]
        assert "steered" in "".join(shown)
        assert max(map(len, shown)) <= 80
    config.write_text("n_episodes: 41\n")
    before = (output / "provenance.json").read_bytes()
    with pytest.raises(UserError, match=r"begun with another .*judge\.yaml"):
        sweep(steps, output, {"seed": [3, 4]})
    assert (output / "provenance.json").read_bytes() == before


def test_a_sweep_refuses_what_would_say_nothing_or_something_else(tmp_path: Path) -> None:
    steps = {"result": Step("evaluate --checkpoint x --n_episodes {episodes}")}
    with pytest.raises(UserError, match="'episodes' is a column of the sweep's tables"):
        sweep(steps, tmp_path, {"episodes": [50, 200]})
    with pytest.raises(UserError, match="has no run"):
        sweep({"result": Step("evaluate --checkpoint x --seed {seed}")}, tmp_path, {"seed": []})
    for damaged in ("{", "[1]", '{"starts": [3], "changed": {}}', '{"starts": [], "changed": null}'):
        (tmp_path / "provenance.json").write_text(damaged)
        with pytest.raises(UserError, match=r"provenance\.json cannot be read"):
            sweep({"result": Step("evaluate --checkpoint x --seed {seed}")}, tmp_path, {"seed": [1]})
    (tmp_path / "provenance.json").write_text(json.dumps({"starts": [], "changed": {"model.lr": 0.1}}))
    with pytest.raises(UserError, match="a run that is no sweep"):
        sweep({"result": Step("evaluate --checkpoint x")}, tmp_path)


def test_a_program_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Even where that one is killed, and blocked signals."""
    write = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    tied = [sys.executable, "-I", str(ROOT / "sweeps/tied.py")]
    starter = f"""
import os, signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
cpu = str(min(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ""
subprocess.run([*{tied!r}, str(os.getpid()), cpu, sys.executable, "-c", {write!r}])
"""
    for kill_starter in (True, False):
        parent = subprocess.Popen([sys.executable, "-c", starter])
        pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        os.kill(parent.pid if kill_starter else pid, signal.SIGKILL if kill_starter else signal.SIGTERM)
        parent.wait(20)
        wait_until(lambda pid=pid: not alive(pid))
        (tmp_path / "pid").unlink()


def test_runs_beside_one_another_get_cpus_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5, 7})
    with free_cpus(2) as first, free_cpus(1) as second:
        assert (len(first), len(second)) == (2, 1)
        assert {*first, *second} == {2, 5, 7}
        with free_cpus(1) as third:
            assert third == [], "none is left: it may run on any"
    with free_cpus(3) as all_of_them:
        assert sorted(all_of_them) == [2, 5, 7]


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(holds: Any, seconds: float = 400) -> Any:
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def toy_sweep(folder: Path, data: Path, output: Path) -> Path:
    """Two seeds of a policy of seconds, each judged; as a file."""
    command, _, config, *flags = fit_line(
        Path("unused"),
        data,
        data__obs_keys=json.dumps(list(KEYS)),
        trainer__max_epochs=200,
        trainer__check_val_every_n_epoch=200,
        trainer__default_root_dir=folder,
    )
    slow = ["--trainer.callbacks+=tests.slow_epochs.SlowEpochs", f"--trainer.callbacks.file={folder}/slow_SEED"]
    kept = [flag for flag in flags if not flag.startswith("--best.dirpath")] + slow
    line = shlex.join([command, "--config", config, *kept, "--seed_everything", "SEED"]).replace("SEED", "{seed}")
    steps = {
        "bc": {"run": line, "cpus": available_cpus()},  # one after the other
        "result": {"run": "evaluate --checkpoint {bc} --n_episodes 2 --horizon 8 --n_envs 1 --ddim_steps 2"},
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({"output": str(output), "grid": {"seed": [0, 1]}, "steps": steps}))
    return file


def start(file: Path) -> subprocess.Popen[str]:
    """The command, as from a shell; CPUs of its own are not needed."""
    line = [sys.executable, str(ROOT / "cli.py"), "sweep", "--config", str(file)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment | {"OMP_NUM_THREADS": "1"}
    )


def processes_about(text: str) -> list[str]:
    """Command lines of this machine's processes that hold ``text``, pytest's own left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in line and int(folder.name) != os.getpid() and alive(int(folder.name)):
            found.append(line)
    return found


def test_a_killed_worker_and_an_interruption_cost_nothing_but_time(cli_server: ForkServer, tmp_path: Path) -> None:
    """Two seeds on a local Ray, whose results equal those of the same lines typed one by one."""
    data = write_toy_dataset(tmp_path / "toy.hdf5", obs_dims=KEYS)
    output = tmp_path / "sweep"
    file = toy_sweep(tmp_path, data, output)
    content = yaml.safe_load(file.read_text())
    steps = {name: Step(**step) for name, step in content["steps"].items()}

    def planned(folder: Path) -> dict[str, PlannedRun]:
        return plan(steps, grid_points(content["grid"], [], {}), folder)

    runs = planned(output)
    (tmp_path / "slow_1").touch()  # so that seed 1 is still training when the interruption has reached it
    first, second = (runs[f"bc/seed={seed}"].folder for seed in (0, 1))
    sweep = start(file)
    wait_until(lambda: (first / "last.ckpt").exists() or sweep.poll() is not None)
    record = read_record(first)
    assert record is not None, sweep.communicate()
    os.kill(record.starts[0]["worker"], signal.SIGKILL)
    wait_until(lambda: (second / "last.ckpt").exists() or sweep.poll() is not None)
    sweep.send_signal(signal.SIGINT)
    said, _ = sweep.communicate(timeout=400)
    (tmp_path / "slow_1").unlink()
    assert sweep.returncode == 130, said
    assert "Traceback" not in said
    assert not processes_about(str(tmp_path)), "nothing is left behind"
    interrupted = read_record(second)
    assert interrupted is not None
    assert interrupted.starts[0]["status"] == 128 + signal.SIGTERM, "it was asked to save"
    assert "SIGTERM: saved step" in (second / LOG).read_text()

    sweep = start(file)
    more, _ = sweep.communicate(timeout=400)
    assert sweep.returncode == 0, more
    for seed, folder in enumerate((first, second)):
        assert f"running  bc/seed={seed} (attempt 2, from its own state)" in said + more
        record = read_record(folder)
        assert record is not None
        assert [each["resumed"] for each in record.starts] == [False, True]
    said = more
    assert f"tensorboard --logdir {output}" in said
    assert all(is_finished(each) for each in runs.values())

    typed = planned(tmp_path / "typed")
    for each in typed.values():
        status, errors = cli_server.run(each.words)
        assert status == 0, errors

    def measured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k not in ("seconds", "attempts")} for row in rows]

    rows = rows_of_runs(runs.values())
    assert measured(rows) == measured(rows_of_runs(typed.values()))
    assert len({row["sha256"] for row in rows}) == 2, "two seeds are two policies"
    with (output / "table.csv").open() as table:
        [row] = list(csv.DictReader(table))
    assert (row["step"], row["seeds"], row["episodes"], row["success"]) == ("result", "2", "4", "0.0")

    assert run(COMMANDS, ["sweep", "--config", str(file)]) == 0, "all is finished: not even Ray is started"
    assert read_record(second) == record
    assert run(COMMANDS, ["sweep", "--config", str(file), "--extra.bc", "--model.lr 0.1"]) == 2, "another line"


@pytest.mark.parametrize("first", ["file", "interruption"])
def test_a_run_asked_to_stop_saves_however_the_wish_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str
) -> None:
    """By the file, as Ray loses interruptions now and then, or by one; and what comes later does not cut it short."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/tied.py").write_text((ROOT / "sweeps/tied.py").read_text())
    (tmp_path / "cli.py").write_text(
        "import os, signal, sys, time\n"
        "def save(*_):\n"
        "    print('saving', flush=True)\n"
        "    while not os.path.exists('asked_again'): time.sleep(0.01)\n"
        "    open('bc/policy.safetensors', 'w').close()\n"
        "    print('saved', flush=True)\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('begun', flush=True)\n"
        "time.sleep(100)\n"
    )
    monkeypatch.setattr("sweeps.attempt.ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    planned = PlannedRun("bc", "bc", ("fit",), tmp_path / "bc", {}, (), 1, 0)
    log = planned.folder / LOG

    def ask() -> None:
        wait_until(lambda: log.exists() and "begun" in log.read_text(), 60)
        if first == "file":
            (planned.folder / STOP).touch()
        else:
            _thread.interrupt_main()  # as Ray does
        wait_until(lambda: "saving" in log.read_text(), 60)
        _thread.interrupt_main()
        (tmp_path / "asked_again").touch()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=ask, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            attempt(planned, str(tmp_path), None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert log.read_text().split()[-3:] == ["begun", "saving", "saved"]
    record = read_record(planned.folder)
    assert record is not None
    assert record.starts[0]["status"] == 143
    assert not record.finished
    assert record.made is not None, "its own, however it ended"


def test_data_are_made_anew_where_they_are_the_runs_own(tmp_path: Path) -> None:
    data = tmp_path / "data/demonstrations.hdf5"
    words = ("collect", "--task", "lift", "--n_demos", "1", "--n_envs", "1", "--output", str(data))
    planned = PlannedRun("data", "data", words, data.parent, {}, (), 1, 0)
    record = planned.folder / "run.json"

    def refused() -> None:
        data.write_text("somebody's")
        with pytest.raises(RunRefusedError):
            attempt(planned, str(tmp_path), None)
        assert data.read_text() == "somebody's"

    data.parent.mkdir()
    refused()
    # As a start leaves it that was killed before it looked.
    record.write_text(json.dumps({**json.loads(record.read_text()), "starts": [{"begun": "2026-01-01T00:00:00"}]}))
    refused()
    data.unlink()
    for _ in range(2):
        attempt(planned, str(tmp_path), None)
        assert is_finished(planned)
        begin_again(planned)
    refused()  # it took the place of the run's own


def test_a_run_that_cannot_go_on_says_why_and_what_to_do(cli_server: ForkServer, tmp_path: Path) -> None:
    """In the folder of the first another run is at work; the other's data were made anew since it was interrupted."""
    data = write_toy_dataset(tmp_path / "toy.hdf5")
    command, *words = [word for word in fit_line(tmp_path, data) if not word.startswith("--best.dirpath")]
    steps = {"bc": {"run": shlex.join([command, *words]) + " --seed_everything {seed}"}}
    output = tmp_path / "out"
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"output": str(output), "grid": {"seed": [0, 1]}, "steps": steps}))
    begun = ["fit", *words, "--seed_everything", "1", "--output", str(output / "bc/seed=1")]
    status, errors = cli_server.run(begun)
    assert status == 0, errors
    data.unlink()
    write_toy_dataset(data, seed=1)
    with run_lock(output / "bc/seed=0"):
        sweep = start(file)
        said, _ = sweep.communicate(timeout=400)
    assert sweep.returncode == 2, said
    assert "failed   bc/seed=0 (another run is in its folder)" in said
    assert "failed   bc/seed=1 (refused, its log says why)" in said
    assert "a run whose folder is deleted begins from nothing" in said
    for seed, reason in enumerate(("is in use by another run", "--resume goes on with")):
        folder = output / f"bc/seed={seed}"
        [last] = [line for line in said.splitlines() if line.startswith(f"  {folder / LOG}: ")]
        assert reason in last
        record = read_record(folder)
        assert record is not None
        assert len(record.starts) == 1, "a second attempt at once would go no better"


def test_a_mistaken_run_fails_at_once_and_those_after_it_are_skipped(tmp_path: Path) -> None:
    steps = {
        "bc": {"run": "evaluate --checkpoint nowhere.safetensors --seed {seed}"},
        "result": {"run": "evaluate --checkpoint {bc}"},
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"output": str(tmp_path / "out"), "grid": {"seed": [0]}, "steps": steps}))
    sweep = start(file)
    said, _ = sweep.communicate(timeout=400)
    assert sweep.returncode == 2, said
    assert "failed   bc/seed=0 (refused, its log says why)" in said
    assert "skipped  result/seed=0 (after bc/seed=0)" in said
    assert "1 of 2 runs failed and 1 were skipped" in said
    assert "nowhere.safetensors" in said.splitlines()[-1]
    record = read_record(tmp_path / "out/bc/seed=0")
    assert record is not None
    assert len(record.starts) == 1
