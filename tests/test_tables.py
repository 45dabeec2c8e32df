"""The pages' marked tables are those of the files of figures."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.training_toy import ROOT


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs/tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_tables"] = module
    spec.loader.exec_module(module)
    return module


def test_every_page_has_the_figures_of_its_files(tables: ModuleType) -> None:
    for page in tables.PAGES:
        assert tables.rendered(page) == (ROOT / page).read_text(), f"{page} differs: python docs/tables.py"


def test_every_table_stands_in_one_place(tables: ModuleType) -> None:
    marked = [name for page in tables.PAGES for name in tables.MARKED.findall((ROOT / page).read_text())]
    assert len(marked) == len(set(marked))
    assert not {*tables.LISTED, *tables.DRAWN} - set(marked)
    inline = {name for page in tables.PAGES for name in tables.INLINE.findall((ROOT / page).read_text())}
    once = {row["figure"] for row in tables.rows("once.csv")}
    assert inline == {*tables.FIGURES, *once}
    assert not tables.FIGURES.keys() & once


def test_no_measured_table_is_typed(tables: ModuleType) -> None:
    """One is told by a cell that is a decimal number or a rate, an interval, and nothing else."""
    number = r"\**-?[\d,]*\.?\d+(e-?\d+)?( ms| s| %)?\**"
    measured = re.compile(rf"\| (?=[^|]*[.%])({number}|{number} to {number}) (?=\|)")
    for page in [ROOT / "README.md", ROOT / "pretrained/README.md", *(ROOT / "docs").glob("*.md")]:
        typed = tables.MARKED.sub("", page.read_text())
        assert not measured.search(typed), f"{page.name}: {measured.search(typed)}: put it into docs/results"


def test_no_rate_in_a_sentence_is_typed(tables: ModuleType) -> None:
    """Unless the sentence calls it a goal, or another project's, or means settings and the level of all intervals."""
    goals = r"goals? (of|is|were) \.\d+( and \.\d+)?|\) of \.97 within|does not reach \.98|bound of \.98"
    settings = r"rate (of )?\.\d+|EMA \.\d+|\.\d+ N\(0, I\)|scale, \.5|\.5 standard deviation|\.001 \|w\|"
    others = r"82 % of 20 episodes|95 % interval|Wilson's, 95 %|goal of 95 %|95 % that is aimed at"
    rate = re.compile(r"(?<![\w.-])\.\d+\b|\b\d+(\.\d+)? %")
    for page in [ROOT / "README.md", ROOT / "pretrained/README.md", *(ROOT / "docs").glob("*.md")]:
        text = tables.INLINE.sub("", tables.MARKED.sub("", page.read_text()))
        text = re.sub(r"^```.*?^```|^\|.*?$|`[^`]*`", "", text, flags=re.MULTILINE | re.DOTALL)
        text = re.sub("|".join((goals, settings, others)), "", " ".join(text.split()))
        found = rate.search(text)
        assert found is None, f"{page.name}: ...{text[: found.end()][-80:]}: put it into docs/results"


def test_another_figure_changes_the_page(tables: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*tables.PAGES, "docs/results", "docs/curves.yaml", "pretrained/figures.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    figures = tmp_path / "docs/results/bc.csv"
    figures.write_text(figures.read_text().replace("0.965,0.93,0.983", "0.905,0.856,0.938"))
    [changed] = set(tables.rendered("README.md").splitlines()) - set((ROOT / "README.md").read_text().splitlines())
    assert changed == "| Square | the clean chunk (`fast.yaml`) | 12,000 | 90.5 % | 85.6 to 93.8 |"
