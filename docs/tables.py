"""The tables of figures in the pages, rendered from the files that hold the figures.

python docs/tables.py writes them anew: under each line `<!-- table NAME -->` of a page. A test fails where a page
differs from its files, so that no figure of these tables is typed.
"""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/data.md", "docs/results.md", "docs/simulation.md", "pretrained/README.md")
MARKED = re.compile(r"^<!-- table (\w+) -->\n(?:\|.*\n)*", re.MULTILINE)

Row = dict[str, str]


def rows(name: str) -> list[Row]:
    """A file of figures, by its path in the repository."""
    with (ROOT / name).open(newline="") as file:
        return list(csv.DictReader(file))


def table(*lines: Sequence[str]) -> str:
    """Markdown: the names of the columns, then the rows."""
    head, *body = ("|" + "".join(f" {cell} |" if cell else " |" for cell in line) + "\n" for line in lines)
    return head + "|" + "---|" * len(lines[0]) + "\n" + "".join(body)


def percent(row: Row) -> str:
    """88.5 %"""
    return f"{100 * float(row['success']):.1f} %".replace("100.0", "100")


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


# What the rows of bc.csv are called in the pages.
PREDICTS = {"epsilon": "the noise", "bc_quickstart": "the noise", "clean chunk": "the clean chunk (`fast.yaml`)"}
BASELINES = ("N(0, I)", "0.5 N(0, I)", "w = 0")


def scripted() -> str:
    found = [
        [
            row["task"].capitalize(),
            next(said for word, said in PREDICTS.items() if word in row["recipe"]),
            count(row["gradient_steps"]),
            percent(row),
            percents(row),
        ]
        for row in rows("docs/results/bc.csv")
    ]
    return table(["task", "the network predicts", "gradient steps", "success", "95 % interval"], *found)


def scripted_in_full() -> str:
    found = [
        [
            row["task"].capitalize(),
            row["recipe"],
            count(row["gradient_steps"]),
            f"**{percent(row)}**",
            percents(row),
            f"{float(row['mean_length']):.0f}",
        ]
        for row in rows("docs/results/bc.csv")
    ]
    return table(["task", "recipe", "updates", "success", "interval", "mean length"], *found)


def steered() -> str:
    found = []
    for run in [f"lift_prior_s{s}" for s in (7, 8, 9)] + [f"can_prior_s{s}" for s in (7, 8, 9)] + ["square_prior_s7"]:
        own = [row for row in rows("docs/results/dsrl.csv") if row["run"] == run]
        base = next(row for row in own if row["policy"] == "N(0, I)")
        others = [row for row in own if not row["policy"].startswith("steered") and row is not base]
        best = max(others, key=lambda row: float(row["success"]))
        last = _selected(own)[-1]
        name = f"{run.partition('_')[0].capitalize()}, {base['training_seed']}"
        found.append([name, percent(base), percent(best), f"**{percent(last)}**", count(last["env_steps"])])
    return table(
        ["task, seed", "the policy as it is", "scaled or fixed noise at best", "**steered**", "env steps"], *found
    )


def steered_ensembles() -> str:
    found = []
    for run in dict.fromkeys(row["run"] for row in rows("docs/results/dsrl.csv") if "-human-ensemble_" in row["run"]):
        own = [row for row in rows("docs/results/dsrl.csv") if row["run"] == run]
        base = next(row for row in own if row["policy"] == "N(0, I)")
        best = max((r for r in own if not r["policy"].startswith("steered")), key=lambda row: float(row["success"]))
        [chosen] = _selected(own)
        name = f"{run.partition('-')[0].capitalize()}, {base['training_seed']}"
        lengths = [f"{float(row['mean_length']):.0f}" for row in (best, chosen)]
        cells = [rate(base["success"]), f"{rate(best['success'])} ({best['policy']})", _kind(chosen, bold=True)]
        found.append([name, *cells, interval(chosen), count(chosen["env_steps"]), *lengths])
    head = ["task, seed", "N(0, I)", "best baseline", "steered", "interval", "env steps"]
    return table([*head, "mean length, best baseline", "mean length, steered"], *found)


def steered_human() -> str:
    own = {
        row["policy"]: row for row in rows("docs/results/dsrl.csv") if row["run"] == "square-human-ensemble_prior_s41"
    }
    named = {
        "N(0, I)": "as it is, with N(0, I)",
        "0.5 N(0, I)": "with .5 N(0, I), as `human.yaml` has it",
        "steered, mean": "**steered**, 99,531 env steps",
    }
    found = [
        [said, percent(own[policy]), percents(own[policy]), f"{float(own[policy]['mean_length']):.0f}"]
        for policy, said in named.items()
    ]
    return table(["the ensemble of training seed 0", "success", "95 % interval", "mean length"], *found)


NOISES = {1.0: "N(0, I)", 0.5: ".5 N(0, I)"}
HUMAN_REPORTS = {
    "ensemble, REPORT": "`fast.yaml` and `human.yaml`: eight networks of 3 x 256, averaged",
    "fast6d, REPORT": "one network of 3 x 512 in their place",
    "full recipe, REPORT, last weights": "the full recipe: the noise, one network of 3 x 1024, 3,000 epochs",
}


def _human_reports(*more: Callable[[Row], str]) -> list[list[str]]:
    figures = rows("docs/results/bc_human.csv")
    return [
        [
            name if row["training_seed"] == "0" else "",
            row["training_seed"],
            count(row["updates"]),
            f"**{percent(row)}**" if run.startswith("ensemble") else percent(row),
            percents(row),
            *(cell(row) for cell in more),
        ]
        for run, name in HUMAN_REPORTS.items()
        for row in sorted((row for row in figures if row["run"] == run), key=lambda row: row["training_seed"])
    ]


def human() -> str:
    return table(["recipe", "training seed", "gradient steps", "success", "95 % interval"], *_human_reports())


def human_in_full() -> str:
    found = _human_reports(
        lambda row: "200" if "all 200" in row["data"] else "180",
        lambda row: f"{float(row['mean_length_of_successes']):.0f}",
    )
    head = ["recipe", "training seed", "updates", "success", "95 % interval", "demonstrations", "length of a success"]
    return table(head, *found)


def human_ensembles() -> str:
    named = {
        "fast6d, 400 episodes": "one of 3 x 512",
        "fast6d, seeds 0 to 2 averaged": "three of 3 x 512",
        "all demonstrations, seeds 10 to 12 averaged": "three of 3 x 512, three other seeds",
        "ensemble": "**eight of 3 x 256** (`human.yaml`)",
        "ensemble, seeds 0 and 1 together": "sixteen of 3 x 256",
        "full recipe, epochs 600, 1800, 3000 averaged": "three checkpoints of one run of the full recipe",
    }
    figures = {
        row["run"]: row
        for row in rows("docs/results/bc_human.csv")
        if row["episodes"] == "400" and float(row["noise_scale"]) == 0.5
    }
    found = [
        [
            name,
            "all 200" if "all 200" in figures[run]["data"] else "180",
            count(figures[run]["updates"]),
            rate(figures[run]["success"]),
            interval(figures[run]),
            f"{float(figures[run]['mean_length']):.0f}",
        ]
        for run, name in named.items()
    ]
    return table(["networks", "demonstrations", "updates of each", "success", "interval", "mean length"], *found)


def human_listening() -> str:
    found = [
        [
            row["policy"],
            rate(row["spread"]),
            *(percent(row | {"success": row[key]}) for key in ("success", "some_draw_succeeds", "all_succeed")),
        ]
        for row in rows("docs/results/human_listening.csv")
    ]
    return table(["policy", "spread", "success", "states that some draw solves", "that all solve"], *found)


def human_pieces() -> str:
    figures = [row for row in rows("docs/results/bc_human.csv") if row["run"] == "ensemble, pieces, ph and mh"]
    found = [
        [
            row["task"].capitalize(),
            count(row["updates"]),
            NOISES[float(row["noise_scale"])],
            rate(row["success"]),
            interval(row),
            f"{float(row['mean_length']):.0f}",
        ]
        for row in figures
    ]
    return table(["task", "updates of each", "noise", "success", "interval", "mean length"], *found)


def shipped() -> str:
    found = [[row["policy"], row["agent"], percent(row), percents(row)] for row in rows("pretrained/figures.csv")]
    return table(["policy", "", "success", "95 % interval"], *found)


def shipped_lift() -> str:
    figures = {row["agent"]: row for row in rows("pretrained/figures.csv") if row["policy"] == "lift"}
    found = [[agent, percent(figures[agent]), percents(figures[agent])] for agent in ("base", "steered")]
    return table(["Lift", "success", "95 % interval"], *found)


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


def robosuite15() -> str:
    lines = [
        [row["task"], row["who"], count(row["episodes"]), f"**{percent(row)}**", percents(row), row["mean_length"]]
        for row in rows("docs/results/robosuite15.csv")
    ]
    return table(["task", "who", "episodes", "success", "95 % interval", "mean length"], *lines)


def recipe() -> str:
    named = {
        "base": "base",
        "sample": "**the network gives the clean chunk** (`prediction: sample`)",
        "velocity": "it gives the velocity (`prediction: velocity`)",
        "fp32": "fp32 instead of bf16",
        "padded": "windows padded at the episode's end",
        "ema_0.9998": "EMA 0.9998",
        "constant_lr": "constant learning rate",
        "lr_3e-4": "learning rate 3e-4",
        "seed_rates": "learning rate 1e-4 and EMA 0.995, as in the full recipe",
        "batch_128": "batch 128 instead of 256",
        "narrow": "width 256 instead of 512",
    }
    found = {row["variant"]: row for row in rows("docs/results/bc_recipe.csv")}
    lines = [[said, rate(found[name]["success"], 2), interval(found[name], 2)] for name, said in named.items()]
    return table(["variant", "success", "interval"], *lines)


def by_updates() -> str:
    found = rows("docs/results/bc_success_by_steps.csv")
    steps = sorted({int(row["gradient_steps"]) for row in found})
    cells = {(row["task"], int(row["gradient_steps"])): rate(row["success"], 2) for row in found}
    lines = [[task.capitalize(), *(cells.get((task, step), "") for step in steps)] for task in ("can", "square")]
    return table(["updates", *(f"{step:,}" for step in steps)], *lines)


def dsrl_lift() -> str:
    return _dsrl({f"lift_prior_s{seed}": str(seed) for seed in (7, 8, 9)})


def dsrl_square() -> str:
    return _dsrl({"square_prior_s7": "7", "square_prior_s0": "0, older data"})


def dsrl_can() -> str:
    lines = []
    for seed in (7, 8, 9):
        own = [row for row in rows("docs/results/dsrl.csv") if row["run"] == f"can_prior_s{seed}"]
        early, late = _selected(own)
        length = f"{float(late['mean_length']):.0f}"
        lines.append([str(seed), *_played(own), _kind(early), _kind(late, bold=True), interval(late), length])
    head = ["training seed", "N(0, I)", ".5 N(0, I)", "w = 0"]
    return table([*head, "steered after 90,000", "steered after 150,000", "interval", "mean length"], *lines)


def _dsrl(runs: dict[str, str]) -> str:
    lines = []
    for run, seed in runs.items():
        own = [row for row in rows("docs/results/dsrl.csv") if row["run"] == run]
        [chosen] = _selected(own)
        other = next(row for row in own if row["policy"].startswith("steered") and row["selected"] == "false")
        length = f"{float(chosen['mean_length']):.0f}"
        lines.append([seed, *_played(own), _kind(chosen, bold=True), interval(chosen), length, rate(other["success"])])
    head = ["training seed", "N(0, I)", ".5 N(0, I)", "w = 0"]
    return table([*head, "steered", "interval", "mean length", "the other"], *lines)


def _selected(own: list[Row]) -> list[Row]:
    """The steered policies that selection episodes chose, by env steps."""
    return sorted((row for row in own if row["selected"] == "true"), key=lambda row: int(row["env_steps"]))


def _played(own: list[Row]) -> list[str]:
    return [rate(next(row for row in own if row["policy"] == policy)["success"]) for policy in BASELINES]


def _kind(row: Row, bold: bool = False) -> str:
    success = rate(row["success"])
    return f"{row['policy'].removeprefix('steered, ')} {f'**{success}**' if bold else success}"


TABLES: dict[str, Callable[[], str]] = {
    each.__name__: each
    for each in (
        *(
            scripted,
            scripted_in_full,
            steered,
            steered_ensembles,
            steered_human,
            human,
            human_in_full,
            human_ensembles,
            human_listening,
            human_pieces,
            shipped,
            shipped_lift,
            recipe,
            by_updates,
        ),
        *(dsrl_lift, dsrl_can, dsrl_square, robosuite15, files_and_commands),
    )
}


def rendered(page: str) -> str:
    """The text of a page with every marked table as its files have it."""
    return MARKED.sub(lambda found: f"<!-- table {found[1]} -->\n{TABLES[found[1]]()}", (ROOT / page).read_text())


if __name__ == "__main__":
    for each in PAGES:
        (ROOT / each).write_text(rendered(each))
