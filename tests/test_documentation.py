"""What the pages point to is there: links, their headings, configurations and tests."""

import re
from pathlib import Path

import pytest

from tests.training_toy import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not heading or heading in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_configurations_and_tests_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"\b(?:configs|tests|benchmarks)/[\w/]+\.(?:yaml|py|sh)\b", page.read_text()):
        if "_T." not in name and name not in ("configs/bc_stack.yaml", "configs/dsrl_lift_shift.yaml"):  # examples
            assert (ROOT / name).is_file(), name


def test_examples_use_one_name_per_kind_of_flag() -> None:
    for page in PAGES:
        for command in re.findall(r"^python cli\.py .*?(?<!\\)$", page.read_text(), re.MULTILINE | re.DOTALL):
            older = {"--data.path", "--ckpt_path", "--best.dirpath", "--demonstrations.path", "--logdir"}
            assert older.isdisjoint(command.split()), command
