"""The figures in the pages, rendered from the files that hold them.

python docs/tables.py writes them anew. Under a line `<!-- table NAME -->` of a page stands a table: an entry of
tables.yaml, a function here, or an entry of results/small_tables.yaml, a table as it stands. In a sentence,
`<!-- figure NAME -->.885<!-- / -->` is an entry of figures.yaml or a row of results/once.csv. A test fails where a page
differs from its files, so that none of these figures is typed.
"""

import csv
import itertools
import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rollouts.statistics import seeds_interval, wilson_interval

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "pretrained/README.md"]
PAGES += [f"docs/{page}.md" for page in ("data", "deployment", "results", "simulation", "speed", "training", "tried")]
MARKED = re.compile(r"^<!-- table (\w+) -->\n(?:\|.*\n)*", re.MULTILINE)
INLINE = re.compile(r"<!-- figure (\w+) -->.*?<!-- / -->")

Row = dict[str, str]


def rows(name: str) -> list[Row]:
    """A file of figures: in docs/results, or by its path in the repository."""
    with (ROOT / (name if "/" in name else f"docs/results/{name}")).open(newline="") as file:
        return list(csv.DictReader(file))


def figures(name: str) -> Any:
    """The content of a json in docs/results."""
    return json.loads((ROOT / "docs/results" / name).read_text())


def table(*lines: Sequence[str]) -> str:
    """Markdown: the names of the columns, then the rows."""
    head, *body = ("|" + "".join(f" {cell} |" if cell else " |" for cell in line) + "\n" for line in lines)
    return head + "|" + "---|" * len(lines[0]) + "\n" + "".join(body)


def percent(value: str) -> str:
    """88.5 %"""
    return f"{100 * float(value):.1f} %".replace("100.0", "100")


def percents(row: Row) -> str:
    """83.3 to 92.2"""
    return f"{100 * float(row['low']):.1f} to {100 * float(row['high']):.1f}".replace("100.0", "100")


def rate(value: str, digits: int = 3) -> str:
    """.885"""
    return f"{float(value):.{digits}f}".removeprefix("0")


def interval(row: Row, digits: int = 3) -> str:
    """.833 to .922"""
    high = rate(row["high"], digits)
    return f"{rate(row['low'], digits)} to {'1' if float(high) == 1 else high}"


def count(value: str) -> str:
    """16,800"""
    return f"{int(value):,}"


FORMATS: dict[str, Callable[[str], str]] = {
    "rate": rate,
    "rate2": lambda value: rate(value, 2),
    "percent": percent,
    "count": count,
    "round": lambda value: f"{float(value):.0f}",
    "two": lambda value: f"{float(value):.2f}",
}
OF_TWO_FIELDS = {"interval": interval, "interval2": lambda row: interval(row, 2), "percents": percents}


def _cell(row: Row, said: str, say: dict[str, dict[Any, str]]) -> str:
    """What ``said``, a field with its format as tables.yaml has them, is in ``row``."""
    field, *formats = said.split()
    if field in OF_TWO_FIELDS:
        return OF_TWO_FIELDS[field](row)
    words = {_plain(value): word for value, word in say.get(field, {}).items()}
    text = words.get(_plain(row[field]), row[field])
    if text and formats:
        text = FORMATS[formats[0]](text)
    return f"**{text}**" if "bold" in formats else text


def _plain(value: Any) -> Any:
    """Numbers are compared as such: 1 is 1.0."""
    try:
        return float(value)
    except ValueError:
        return str(value)


def listed(spec: dict[str, Any]) -> str:
    """The table of an entry of tables.yaml."""
    found = rows(spec["file"])
    for field, wanted in reversed(spec.get("where", {}).items()):
        order = [_plain(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
        found = sorted(
            (row for row in found if _plain(row[field]) in order), key=lambda row: order.index(_plain(row[field]))
        )
    say, columns = spec.get("say", {}), spec["columns"]
    if "by" not in spec:
        return table(list(columns), *([_cell(row, said, say) for said in columns.values()] for row in found))
    field, cells = spec["across"]["field"], spec["across"]["cells"]
    lines = []
    for value in dict.fromkeys(row[spec["by"]] for row in found):
        own = [row for row in found if row[spec["by"]] == value]
        line = [_cell(own[0], said, say) for said in columns.values()]
        for at, heads in cells.items():
            here = next((row for row in own if _plain(row[field]) == _plain(at)), None)
            line += [_cell(here, said, say) if here else "" for said in heads.values()]
        lines.append(line)
    return table([*columns, *(head for heads in cells.values() for head in heads)], *lines)


def matches(row: Row, where: dict[str, Any]) -> bool:
    """Whether each field has its value."""
    return all(_plain(row[field]) == _plain(value) for field, value in where.items())


def figure(name: str) -> str:
    """What stands in a sentence under that name."""
    file, where, said = FIGURES.get(name, ("once.csv", {"figure": name}, "{value}"))
    [row] = (row for row in rows(file) if matches(row, where))
    return re.sub(r"\{(.*?)\}", lambda part: _cell(row, part[1], {}), said)


BASELINES = ("N(0, I)", "0.5 N(0, I)", "w = 0")


def steered() -> str:
    """A line per base of curves.yaml, the default learner: means over training seeds, the interval of all episodes.

    Not of runs of one seed.
    """
    lines = []
    for base, group in groups().items():
        defaults = (runs for learner, runs in group["learners"].items() if learner.startswith("default"))
        for runs in (runs for runs in defaults if len(runs) > 1):
            played = [[row for row in rows("dsrl.csv") if row["run"] == run] for run in runs]
            others = [[row for row in own if not row["policy"].startswith("steered")] for own in played]
            own_noise = group.get("plays", "N(0, I)")
            plain = _pooled([next(row for row in own if row["policy"] == own_noise) for own in others])
            best = _pooled([max(own, key=lambda row: float(row["success"])) for own in others])
            chosen = _pooled([_selected(own)[-1] for own in played])
            taken = [max(int(row["env_steps"]) for row in rows("dsrl_curves.csv") if row["run"] == run) for run in runs]
            steps = round(statistics.mean(taken) + group.get("copies", 0), -3)
            cells = [percent(plain["success"]), percent(best["success"]), f"**{percent(chosen['success'])}**"]
            over_seeds = _over_seeds([_selected(own)[-1] for own in played])
            lines.append([base, f"{steps:,.0f}", *cells, percents(chosen), over_seeds])
    heads = ["policy cloned from", "env steps", "as it is", "best noise without RL", "**steered**"]
    return table([*heads, "95 % of the episodes", "95 % over the seeds"], *lines)


def groups() -> dict[str, dict[str, Any]]:
    """The runs that stand together, by base and learner."""
    return yaml.safe_load((ROOT / "docs/curves.yaml").read_text())


class Goal(NamedTuple):
    """Set before the runs: what a recipe's mean over its seeds, or the lower bound of all its episodes, is to reach.

    ``runs`` are seeds of a DSRL recipe, or one cloning recipe with all of its seeds; ``copies``: env steps that copies
    of demonstrations took, which count.
    """

    policy: str
    wanted: float
    runs: list[str]
    within: int | None = None
    copies: int = 0
    lower_bound: bool = False


def goals() -> str:
    """A line per goal: what it was, and what the runs that were to reach it came to."""
    lines = []
    for goal in GOALS:
        own = [row for run in goal.runs for row in _reported(run)]
        if goal.within is not None:
            assert all(int(row["env_steps"]) + goal.copies <= goal.within for row in own), goal
        pooled = _pooled(own)
        reached = float(pooled["low" if goal.lower_bound else "success"])
        met = "yes" if round(reached, 6) >= goal.wanted else "**no**"
        wanted = "lower bound " * goal.lower_bound + rate(str(goal.wanted), digits=2)
        within = "" if goal.within is None else f"{goal.within:,}"
        came_to = [rate(pooled["success"]), interval(pooled), str(len(own))]
        lines.append([goal.policy, wanted, within, *came_to, met])
    return table(["policy", "goal", "within env steps", "came to", "95 % of the episodes", "seeds", "met"], *lines)


def _reported(run: str) -> list[Row]:
    """A cloning recipe's reports, as "name: task", or what selection episodes chose of a DSRL run."""
    name, _, task = run.partition(": ")
    if task:
        found = [row for row in rows("bc_human.csv") if row["run"] == name and row["task"] == task]
    else:
        found = _selected([row for row in rows("dsrl.csv") if row["run"] == run])[-1:]
    assert found, run
    return found


def _seeds(runs: str, *seeds: int) -> list[str]:
    return [f"{runs}_s{seed}" for seed in seeds]


GOALS = (
    Goal("Square ph, cloned", 0.95, ["ensemble, adapted, REPORT: square"]),
    Goal("Lift's pieces, cloned", 0.99, ["residual, pieces, REPORT: lift"]),
    Goal("Can's pieces, cloned", 0.90, ["residual, pieces, REPORT: can"]),
    Goal("Square ph, steered", 0.97, _seeds("square-human-ensemble_prior", 41, 42, 43), 100_000),
    Goal(
        "Square ph, with demonstrations in the buffer, steered",
        0.97,
        _seeds("square-human-ensemble-70k_prior", 47, 48, 49),
        100_000,
    ),
    Goal("Square, 50 of ph, steered", 0.97, _seeds("square-human-ensemble-50_prior", 81, 82, 83), 100_000),
    Goal(
        "Square ph, a base that predicts the noise, steered",
        0.97,
        _seeds("square-human-ensemble-noise_prior", 88, 89, 90),
        100_000,
    ),
    Goal(
        "Square ph, a base that predicts the velocity, steered",
        0.97,
        _seeds("square-human-ensemble-velocity_prior", 91, 92, 93),
        100_000,
    ),
    Goal(
        "Square ph, the velocity, 800 epochs in place of 1,280, steered",
        0.97,
        _seeds("square-human-ensemble-velocity-800_prior", 94, 95, 96),
        100_000,
    ),
    Goal(
        "Square ph, the velocity, 1,000 epochs, steered",
        0.97,
        _seeds("square-human-ensemble-velocity-1000_prior", 97, 98, 99),
        100_000,
    ),
    Goal("Lift's pieces, steered", 0.99, _seeds("lift-human-ensemble_prior", 53, 54, 55), 100_000),
    Goal("Can's pieces, steered", 0.97, _seeds("can-human-ensemble_prior", 61, 62, 63), 100_000),
    Goal(
        "Can's pieces, the third form with copies, steered",
        0.97,
        _seeds("can-human-ensemble-adapted60_prior", 70, 71, 72),
        100_000,
        copies=12_158,
    ),
    Goal("Lift, 4 scripted, steered", 0.98, _seeds("lift15_prior", 21, 22, 23, 63, 64, 65), 15_000, lower_bound=True),
    Goal("Can, scripted, steered", 0.98, _seeds("can-fit_prior", 31, 35, 36, 38), 50_000),
    Goal("Square, scripted, steered", 0.97, _seeds("square70-scripted_prior", 80, 121, 122), 70_000),
)


def steered_square() -> str:
    return _steered_ensembles("square")


def steered_lift_pieces() -> str:
    return _steered_ensembles("lift")


def steered_can_pieces() -> str:
    return _steered_ensembles("can")


def _steered_ensembles(task: str) -> str:
    found = []
    runs = {row["run"] for row in rows("dsrl.csv") if row["run"].startswith(f"{task}-human-ensemble")}
    kinds = ("-50", "-noise", "-velocity", "-1000", "-800")
    for run in sorted(runs, key=lambda run: (*(kind in run for kind in kinds), run)):
        own = [row for row in rows("dsrl.csv") if row["run"] == run]
        base = next(row for row in own if row["policy"] == "N(0, I)")
        best = max((r for r in own if not r["policy"].startswith("steered")), key=lambda row: float(row["success"]))
        [chosen] = _selected(own)
        said = {
            "-50-kl16": "of 50, KL 16",
            "-50": "of 50",
            "-noise": "predicts the noise",
            "-velocity-800": "the same, 800 epochs",
            "-velocity-1000": "the same, 1,000 epochs",
            "-velocity": "predicts the velocity",
            "-few": "`human_few.yaml`",
            "-adapted60": "60 copies",
            "-adapted": "with copies",
        }
        recipe = next((f" ({words})" for part, words in said.items() if part in run), "")
        name = f"{base['training_seed']}{recipe}"
        lengths = [f"{float(row['mean_length']):.0f}" for row in (best, chosen)]
        cells = [rate(base["success"]), f"{rate(best['success'])} ({best['policy']})", _kind(chosen, bold=True)]
        found.append([name, *cells, interval(chosen), count(chosen["env_steps"]), *lengths])
    head = ["training seed", "N(0, I)", "best baseline", "steered", "interval", "env steps"]
    return table([*head, "mean length, best baseline", "mean length, steered"], *found)


HUMAN_REPORTS = {
    "ensemble, REPORT": "`fast.yaml` and `human.yaml`: eight networks of 3 x 256, averaged",
    "ensemble, adapted, REPORT": "the same, and 500 demonstrations adapted of the 200 (`collect --dataset`)",
    "fast6d, REPORT": "one network of 3 x 512 in place of the eight",
    "full recipe, REPORT, last weights": "the full recipe: the noise, one network of 3 x 1024, 3,000 epochs",
}


def _human_reports(*more: Callable[[Row], str]) -> list[list[str]]:
    figures = rows("bc_human.csv")
    return [
        [
            name if row["training_seed"] == "0" else "",
            row["training_seed"],
            count(row["updates"]),
            f"**{percent(row['success'])}**" if run.startswith("ensemble") else percent(row["success"]),
            percents(row),
            *(cell(row) for cell in more),
        ]
        for run, name in HUMAN_REPORTS.items()
        for row in sorted((row for row in figures if row["run"] == run), key=lambda row: row["training_seed"])
    ]


def human() -> str:
    """A line per recipe: the mean over training seeds, the interval of all episodes."""
    lines = []
    for run, name in HUMAN_REPORTS.items():
        own = [row for row in rows("bc_human.csv") if row["run"] == run]
        pooled = _pooled([{**row, "mean_length": row["mean_length"] or "nan"} for row in own])
        success = percent(pooled["success"])
        bold = f"**{success}**" if run.startswith("ensemble") else success
        lines.append([name, count(own[0]["updates"]), str(len(own)), bold, percents(pooled), _over_seeds(own)])
    return table(HUMAN_HEAD, *lines)


def human_pieces_over_seeds() -> str:
    lines = []
    trained_on = {
        ("residual, pieces, REPORT", "lift"): "ph five times, mh",
        ("residual, pieces, REPORT", "can"): "ph",
        ("ensemble, pieces, REPORT", "lift"): "ph, mh",
        ("ensemble, pieces, REPORT", "can"): "ph, mh",
    }
    for run, recipe in (("residual, pieces, REPORT", "`human_few.yaml`"), ("ensemble, pieces, REPORT", "`human.yaml`")):
        reports = [row for row in rows("bc_human.csv") if row["run"] == run]
        for task, own in itertools.groupby(reports, key=lambda row: row["task"]):
            seeds = list(own)
            pooled = _pooled(seeds)
            cells = [count(seeds[0]["updates"]), str(len(seeds)), f"**{percent(pooled['success'])}**", percents(pooled)]
            lines.append([task.capitalize(), trained_on[run, task], recipe, *cells, _over_seeds(seeds)])
    return table(["task", "pieces", *HUMAN_HEAD], *lines)


HUMAN_HEAD = ["recipe", "gradient steps", "training seeds", "success", "95 % of the episodes", "95 % over the seeds"]


def _over_seeds(own: list[Row]) -> str:
    if len(own) < 2:
        return ""
    low, high = seeds_interval([float(row["success"]) for row in own], [int(row["episodes"]) for row in own])
    return percents({"low": str(low), "high": str(high)})


def human_in_full() -> str:
    found = _human_reports(
        lambda row: "200" if "all 200" in row["data"] else "180",
        lambda row: f"{float(row['mean_length_of_successes']):.0f}",
    )
    head = ["recipe", "training seed", "updates", "success", "95 % interval", "demonstrations", "length of a success"]
    return table(head, *found)


def files_and_commands() -> str:
    """A line per kind of file; a cell that depends on the version says so, a refusal has its name."""
    found = yaml.safe_load((ROOT / "docs/results/files_and_commands.yaml").read_text())
    lines = []
    for name, row in found["files"].items():
        versions = {"": row["both"]} if "both" in row else {release: row[release] for release in ("1.4.1", "1.5.2")}
        cells = []
        for command in found["commands"]:
            said = {
                on: what if isinstance(what, str) else what.get(command, what["rest"]) for on, what in versions.items()
            }
            same = len(set(said.values())) == 1
            cells.append(next(iter(said.values())) if same else "; ".join(f"{on}: {what}" for on, what in said.items()))
        lines.append([name, *cells])
    return table(["file", *(re.sub(r"^\w+", r"`\g<0>`", command) for command in found["commands"])], *lines)


def by_updates() -> str:
    found = rows("bc_success_by_steps.csv")
    steps = sorted({int(row["gradient_steps"]) for row in found})
    cells = {(row["task"], int(row["gradient_steps"])): rate(row["success"], 2) for row in found}
    lines = [[task.capitalize(), *(cells.get((task, step), "") for step in steps)] for task in ("can", "square")]
    return table(["updates", *(f"{step:,}" for step in steps)], *lines)


def dsrl_lift() -> str:
    return _dsrl({f"lift_prior_s{seed}": str(seed) for seed in (7, 8, 9)})


def dsrl_can_by_fit() -> str:
    return _dsrl({f"can-fit_prior_s{seed}": str(seed) for seed in (32, 33, 34)})


def dsrl_can_50k_seeds() -> str:
    default = {f"can-fit_prior_s{seed}": str(seed) for seed in (31, 35, 36, 38)}
    return _dsrl({**default, **{f"can-fit-lpds_shift_s{seed}": f"{seed}, LP-DS" for seed in (73, 74)}})


def dsrl_square() -> str:
    runs = {"square_prior_s7": "7", "square_prior_s0": "0, older data"}
    shorter = {f"square70-scripted_prior_s{seed}": f"{seed}, 70,000 env steps" for seed in (80, 121, 122)}
    return _dsrl({**runs, **shorter})


def dsrl_can() -> str:
    lines = []
    for seed in (7, 8, 9):
        own = [row for row in rows("dsrl.csv") if row["run"] == f"can_prior_s{seed}"]
        early, late = _selected(own)
        length = f"{float(late['mean_length']):.0f}"
        lines.append([str(seed), *_played(own), _kind(early), _kind(late, bold=True), interval(late), length])
    head = ["training seed", "N(0, I)", ".5 N(0, I)", "w = 0"]
    return table([*head, "steered after 90,000", "steered after 150,000", "interval", "mean length"], *lines)


def _dsrl(runs: dict[str, str]) -> str:
    lines = []
    for run, seed in runs.items():
        own = [row for row in rows("dsrl.csv") if row["run"] == run]
        [chosen] = _selected(own)
        other = next(row for row in own if row["policy"].startswith("steered") and row["selected"] == "false")
        length = f"{float(chosen['mean_length']):.0f}"
        lines.append([seed, *_played(own), _kind(chosen, bold=True), interval(chosen), length, rate(other["success"])])
    head = ["training seed", "N(0, I)", ".5 N(0, I)", "w = 0"]
    return table([*head, "steered", "interval", "mean length", "the other"], *lines)


# Settings of Lift's 15,000 env steps: name in the runs of dsrl_ablations.csv, of dsrl.csv, and the fresh seeds.
LIFT_15K = {
    "`dsrl_lift_15k.yaml` as it is": ("as-is", "lift15_prior", (21, 22, 23, 63, 64, 65)),
    "no demonstrations in the buffer": ("no-demos", "", ()),
    "one-chunk returns in place of three": ("n1", "", ()),
    "4 updates per chunk in place of 12": ("utd4", "", ()),
    "no updates of the critics alone before the actor's first": ("no-critics-alone", "", ()),
    "one draw in place of the best of 8": ("one-draw", "", ()),
    "critics' mean, no pessimism": ("no-pessimism", "", ()),
    "no layer norm in the critics": ("no-layer-norm", "lift15-no-layer-norm_prior", (24,)),
    "neither pessimism nor layer norm": ("no-both", "", ()),
    "actor and critics see observations on a logarithmic scale": ("log-obs", "", ()),
    "a discount of .97 per chunk in place of .99": ("gamma97", "", ()),
    "a discount of .995": ("gamma995", "", ()),
    "a tenth of each minibatch from demonstrations in place of a quarter": ("fraction.1", "", ()),
    "without the quarter of demonstrated chunks whose noise decodes worst": ("drop", "", ()),
    "100 copies of the demonstrations": ("copies", "lift15-copies_prior", (27, 28, 29)),
    "the same, and a bounded residual beside the noise": ("copies-residual", "", ()),
    "half of the episodes begin where an earlier one failed": ("repeat-failures", "lift15-repeat_prior", (25, 26, 30)),
    "training episodes are cut off after 100 env steps": ("short-episodes", "", ()),
    "the actor starts as N(0, I), whatever the warm start says": ("", "lift15-wide_prior", (56, 57, 58)),
    "LP-DS: spread of N(0, I), KL target 1.4": ("", "lift15-lpds_shift", (60, 61, 62, 66, 67, 68)),
}


def lift_15k_tuning() -> str:
    """A line per setting: the mean after the last env step of both tuning seeds, then all fresh episodes."""
    ablations = rows("dsrl_ablations.csv")
    lines = []
    for setting, (name, runs, seeds) in LIFT_15K.items():
        cells = []
        for seed in (100, 101):
            own = [row for row in ablations if row["run"] == f"lift15_{name}_s{seed}"]
            last = own[-1] if own else None
            cells += [rate(last["mean_success"], 2), f"{float(last['mean_length']):.0f}"] if last else ["", ""]
        fresh = _pooled([_lift_15k_chosen(runs, seed) for seed in seeds]) if seeds else None
        cells += [str(len(seeds)), rate(fresh["success"]), interval(fresh)] if fresh else ["", "", ""]
        lines.append([setting, *cells])
    tuning = [f"seed {seed}{what}" for seed in (100, 101) for what in (": mean", ", its length")]
    return table(["setting", *tuning, "fresh seeds", "success", "interval"], *lines)


def dsrl_lift_15k() -> str:
    """A line per fresh seed."""
    kinds = ["N(0, I)", "0.5 N(0, I)", "w = 0", "best constant w"]
    lines = []
    for setting, (_, runs, seeds) in LIFT_15K.items():
        for seed in seeds:
            chosen = _lift_15k_chosen(runs, seed)
            played = {row["policy"]: row for row in rows("dsrl.csv") if row["run"] == chosen["run"]}
            both = (played.get("best constant w"), chosen)  # of the last setting no constant was searched
            cells = [rate(played[kind]["success"]) if kind in played else "" for kind in kinds]
            lengths = [f"{float(row['mean_length']):.0f}" if row else "" for row in both]
            steps = [count(row["env_steps"]) if row else "" for row in both]
            lines.append([str(seed), setting, *cells, _kind(chosen, bold=True), interval(chosen), *steps, *lengths])
    heads = ["training seed", "setting", "N(0, I)", ".5 N(0, I)", "w = 0", "best constant", "steered", "interval"]
    spent = [f"{what}, {of}" for what in ("env steps", "mean length") for of in ("constant", "steered")]
    return table([*heads, *spent], *lines)


def _lift_15k_chosen(runs: str, seed: int) -> Row:
    [chosen] = _selected([row for row in rows("dsrl.csv") if row["run"] == f"{runs}_s{seed}"])
    return chosen


def env_steps_to() -> str:
    """When the mean over a learner's seeds first reached a success rate on selection episodes, and what it came to."""
    curves = {run: list(own) for run, own in itertools.groupby(rows("dsrl_curves.csv"), key=lambda row: row["run"])}
    lines = []
    for base, group in groups().items():
        for learner, runs in group["learners"].items():
            own = [curves[run] for run in runs]
            means = [
                (
                    statistics.mean(int(row["env_steps"]) for row in evaluation) + group.get("copies", 0),
                    statistics.mean(float(row["mean_success"]) for row in evaluation),
                )
                for evaluation in zip(*own, strict=True)
            ]
            reached = [
                next((steps for steps, mean in means if round(mean, 4) >= goal), None) for goal in (0.9, 0.95, 0.98)
            ]
            chosen = [_selected([row for row in rows("dsrl.csv") if row["run"] == run])[-1] for run in runs]
            minutes = statistics.mean(float(curve[-1]["wall_seconds"]) for curve in own) / 60
            pooled = _pooled(chosen)
            lines.append(
                [
                    base,
                    learner,
                    str(len(runs)),
                    *("" if steps is None else f"{steps:,.0f}" for steps in reached),
                    f"{means[-1][0]:,.0f}",
                    f"**{rate(pooled['success'])}**",
                    interval(pooled),
                    f"{minutes:.0f}",
                ]
            )
    goals = [f"to {goal}" for goal in (".90", ".95", ".98")]
    return table(["base", "learner", "seeds", *goals, "at the end", "success", "interval", "minutes"], *lines)


def dips() -> str:
    """The prior learner's runs whose mean fell most: after the warm start, and at its lowest from then on."""
    lines = []
    for run, own in itertools.groupby(rows("dsrl_curves.csv"), key=lambda row: row["run"]):
        curve = [float(row["mean_success"]) for row in own if row["mean_success"]]
        if "_prior_" in run and "strong" not in run and len(curve) > 1:
            lines.append((curve[0] - min(curve[1:]), run, curve))
    lines.sort(reverse=True)
    shown = [
        [f"`{run}`", *(f"{value:.2f}" for value in (curve[0], min(curve[1:]), curve[-1], fall))]
        for fall, run, curve in lines
        if fall > 0
    ]
    rest = [[f"{len(lines) - len(shown)} others", "", "", "", "none"]]
    return table(["run", "after the warm start", "lowest later", "at the end", "fall"], *shown, *rest)


def _selected(own: list[Row]) -> list[Row]:
    """The steered policies that selection episodes chose, by env steps."""
    return sorted((row for row in own if row["selected"] == "true"), key=lambda row: int(row["env_steps"]))


def _played(own: list[Row]) -> list[str]:
    return [rate(next(row for row in own if row["policy"] == policy)["success"]) for policy in BASELINES]


def _kind(row: Row, bold: bool = False) -> str:
    success = rate(row["success"])
    return f"{row['policy'].removeprefix('steered, ')} {f'**{success}**' if bold else success}"


def _pooled(own: Sequence[Row]) -> Row:
    """Several rows as one: means, with Wilson's interval of all their episodes."""
    rates, episodes = [float(row["success"]) for row in own], [int(row["episodes"]) for row in own]
    low, high = wilson_interval(sum(round(r * n) for r, n in zip(rates, episodes, strict=True)), sum(episodes))
    length = statistics.mean(float(row["mean_length"]) for row in own)
    pooled = {"success": statistics.mean(rates), "low": low, "high": high, "mean_length": length, "env_steps": ""}
    return {name: str(value) for name, value in pooled.items()}


def ddim_settings() -> str:
    lines = []
    for name, found in figures("ddim_settings_square.json")["variants"].items():
        spacing, clipped, steps = name.split(", ")
        low, high = found["ci95"]
        ends = interval({"low": str(low), "high": str(high)}, 2)
        lines.append(
            [
                spacing,
                "yes" if clipped == "clipped" else "no",
                steps.split()[0],
                rate(str(found["success_rate"]), 2),
                ends,
            ]
        )
    return table(["spacing", "x0 clipped", "DDIM steps", "success", "interval"], *lines)


def dsrl_updates() -> str:
    lines = []
    for found in figures("dsrl_updates.json"):
        sizes = f"{len(found['hidden'])} x {found['hidden'][0]}, {found['n_critics']} critics, {found['batch_size']}"
        ratios = [f"{found[f'ratio_{which}']:.2f}" for which in ("median", "min", "max")]
        lines.append([sizes, str(found["threads"]), *ratios])
    return table(["networks, batch", "threads", "ratio", "least", "greatest"], *lines)


def deciding() -> str:
    lines = []
    for pool in figures("deciding.json")["pools"]:
        once, batches = pool["at once"], pool["in batches"]
        simulating = [each["simulating_ms_per_env_step"] for each in (once, batches)]
        times = [each["deciding_ms_per_env_step"] for each in (once, batches)] + [statistics.mean(simulating)]
        lines.append([f"{pool['environments']}, {pool['workers']}", *(f"{time:.1f} ms" for time in times)])
    return table(["environments, workers", "deciding at once", "in batches", "simulating"], *lines)


def onnx_latency() -> str:
    lines = [
        [steps, *(f"{found[who][which]:.1f} ms" for which in (0, 1) for who in ("onnxruntime", "torch"))]
        for steps, found in figures("onnx_latency.json")["milliseconds_median_p99"].items()
    ]
    heads = [f"{who}, {which}" for which in ("median", "99 %") for who in ("onnxruntime", "PyTorch")]
    return table(["denoising steps", *heads], *lines)


def cold_start() -> str:
    commands = figures("cold_start.json")["commands"]
    named = {"(overview)": "the overview"}
    lines = [
        [named.get(name, f"`{name}`"), f"{found['cpu_s']:.1f}", found["imports"]] for name, found in commands.items()
    ]
    return table(["command", "seconds", "heavy packages that it imports"], *lines)


def training_speed() -> str:
    """Of each clock's file the ratios that it is the better measure of."""
    wall = "fit / usual recipe"
    sources = {
        "bare loop (forward, backward, optimiser, EMA), CPU time": ("cpu", "fit / bare loop"),
        "bare loop, wall-clock": ("wall", "fit / bare loop"),
        "per-item `Dataset`, `DataLoader` with 4 workers": ("wall", f"{wall}, new workers each epoch"),
        "the same with `persistent_workers=True`": ("wall", wall),
        "itself in bf16-mixed, CPU time": ("cpu", "fit / fit, bf16-mixed"),
    }
    lines = []
    for said, (clock, ratio) in sources.items():
        line = [said]
        for network in ("seed 3x1024", "quickstart 3x512"):
            # Of the two wall-clock files the one whose load was even while that network ran.
            file = f"{clock}_20_steps" if clock == "wall" and network.startswith("seed") else clock
            found = figures(f"training_speed_{file}.json")["networks"][network][ratio]
            line += [f"{found['median']:.2f}", f"{found['min']:.2f} to {found['max']:.2f}"]
        lines.append(line)
    return table(["`fit` against", "3 x 1024", "range", "3 x 512", "range"], *lines)


def training_threads() -> str:
    found = figures("training_threads.json")
    idle, busy = found["idle machine"], found["beside two DSRL runs with their workers (load 6 to 7)"]
    named = {
        "2 threads, spinning": "2 threads, spinning (torch's default)",
        "2 threads, passive": "2 threads, passive (ours)",
    }
    lines = [
        [named.get(threads, threads), *(f"{statistics.mean(where[threads]):.0f}" for where in (idle, busy))]
        for threads in idle
    ]
    return table(["", "idle machine", "beside two other runs"], *lines)


def _speeds() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each measured task with its version of robosuite, its steps and its resets."""
    found = []
    for version, file in (("1.4.1", "simulation_speed.json"), ("1.5.2", "simulation_speed15.json")):
        measured = figures(file)
        found += [(version, steps, resets) for steps, resets in zip(measured["steps"], measured["resets"], strict=True)]
    return found


def simulation_steps() -> str:
    lines = []
    for version, steps, resets in _speeds():
        speeds = [
            f"{steps['steps_per_second'][which]['median']:.0f}" for which in ("robosuite", "fused", "chunks", "floor")
        ]
        times = [f"{resets[which]['median']:.1f}" for which in ("seeded", "reset_to", "robosuite_hard_reset")]
        lines.append([version, steps["task"], *speeds, *times])
    heads = [
        "robosuite, steps/s",
        "fused",
        "fused, chunks of 4",
        "floor",
        "reset(seed), ms",
        "reset_to, ms",
        "robosuite's hard reset, ms",
    ]
    return table(["robosuite", "task", *heads], *lines)


def simulation_ratios() -> str:
    lines = []
    for version, steps, _ in _speeds():
        line = [version, steps["task"]]
        for ratio in ("fused_over_robosuite", "fused_over_floor", "chunks_over_floor"):
            line += [f"{steps[ratio]['median']:.2f}", f"{steps[ratio]['p10']:.2f} to {steps[ratio]['p90']:.2f}"]
        lines.append(line)
    heads = itertools.chain.from_iterable(
        (f"{each}", "10 to 90 %") for each in ("fused / robosuite", "fused / floor", "chunks of 4 / floor")
    )
    return table(["robosuite", "task", *heads], *lines)


def simulation_microseconds() -> str:
    found = {
        steps["task"]: steps["microseconds_per_control_step"] for version, steps, _ in _speeds() if version == "1.4.1"
    }
    parts = list(next(iter(found.values())))
    return table(["", *found], *([part, *(f"{each[part]:.0f}" for each in found.values())] for part in parts))


def simulation_evaluation() -> str:
    found = figures("simulation_speed.json")["evaluation"]
    columns = {
        "env steps/s": ("env_steps_per_second", 0),
        "over the plain loop": ("over_plain_loop", 1),
        "CPU ms per env step": ("cpu_milliseconds_per_env_step", 2),
        "CPU of the plain loop over it": ("cpu_of_plain_loop_over_it", 1),
    }
    lines = [
        [name, *(f"{found[key][name]['median']:.{digits}f}" for key, digits in columns.values())]
        for name in found["env_steps_per_second"]
    ]
    return table(["Lift, whole evaluation", *columns], *lines)


def simulation_success() -> str:
    lines = []
    for version, file in (("1.4.1", "simulation_success.json"), ("1.5.2", "simulation_success15.json")):
        found = figures(file)
        for stepping in ("fused", "stock"):
            low, high = (str(end) for end in found[stepping]["ci95"])
            cells = [percent(found[stepping]["success_rate"]), percents({"low": low, "high": high})]
            lines.append([version, stepping, *cells, f"{found[stepping]['mean_length']:.1f}"])
    return table(["robosuite", "stepping", "success", "95 % interval", "mean length"], *lines)


def gpu_toy() -> str:
    found = figures("gpu_toy.json")["steps"]
    return table(
        ["step", "in small, on a CPU", "seconds"],
        *([f"`{name}`", step["verdict"], f"{step['wall_s']:.0f}"] for name, step in found.items()),
    )


def simulation_equality() -> str:
    lines = []
    versions = (("1.4.1, 3.6.0", "simulation_equality.csv"), ("1.5.2, 3.17.0", "simulation_equality15.csv"))
    for version, file in versions:
        for (task, actions), own in itertools.groupby(rows(file), key=lambda row: (row["task"], row["actions"])):
            at = {(row["from_robosuite"], int(row["control_step"])): row for row in own}
            largest = [at["fused", step]["max"] for step in (1, 10, 30)]
            last = [at[pair, 100][value] for value in ("median", "max") for pair in ("fused", "moved")]
            within = [f"{float(at[pair, 100]['within_1e-5']):.0%}" for pair in ("fused", "moved")]
            lines.append([version, f"{task}, {actions}", *largest, *last, *within])
    last_heads = [f"100: {value}{of}" for value in ("median", "largest", "within 1e-5") for of in ("", ", moved")]
    return table(["robosuite, MuJoCo", "task, actions", "1: largest", "10", "30", *last_heads], *lines)


FIGURES: dict[str, tuple[str, dict[str, Any], str]] = yaml.safe_load((ROOT / "docs/figures.yaml").read_text())
LISTED: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docs/tables.yaml").read_text())
DRAWN: dict[str, Callable[[], str]] = {
    each.__name__: each
    for each in (
        *(steered, steered_square, steered_lift_pieces, steered_can_pieces, goals, human, human_pieces_over_seeds),
        *(human_in_full, by_updates, ddim_settings),
        *(dsrl_lift, dsrl_can, dsrl_can_by_fit, dsrl_can_50k_seeds, dsrl_square, dsrl_updates, files_and_commands),
        *(deciding, onnx_latency, cold_start, training_speed, training_threads),
        *(simulation_steps, simulation_ratios, simulation_microseconds, simulation_evaluation, simulation_equality),
        *(simulation_success, gpu_toy, dsrl_lift_15k, lift_15k_tuning, env_steps_to, dips),
    )
}


def content(name: str) -> str:
    """The table of that name."""
    if name in LISTED:
        return listed(LISTED[name])
    if name in DRAWN:
        return DRAWN[name]()
    return table(*yaml.safe_load((ROOT / "docs/results/small_tables.yaml").read_text())[name])


def rendered(page: str) -> str:
    """The text of a page with every marked table and figure as its files have it."""
    text = MARKED.sub(lambda found: f"<!-- table {found[1]} -->\n{content(found[1])}", (ROOT / page).read_text())
    return INLINE.sub(lambda found: f"<!-- figure {found[1]} -->{figure(found[1])}<!-- / -->", text)


if __name__ == "__main__":
    for each in PAGES:
        (ROOT / each).write_text(rendered(each))
