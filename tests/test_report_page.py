"""The page about a run: what it says, and what a real browser makes of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from cli import COMMANDS
from commands.front_door import run, spell_out_lists
from commands.run_videos import choose
from reports.page import write_run_page
from reports.run_files import read_run
from rollouts.recording import Take, write_video
from tests.browser import CHROMIUM, DRIVER, WHY_NOT, Browser
from tests.run_folders import write_dsrl_run, write_fit_run, write_results


def write_clip(path: Path) -> None:
    frames = list(np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8))
    write_video(path, [Take("base", frames, "FAILURE", False), Take("steered", frames, "SUCCESS", True)])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each kind of run, and all of them side by side; the first has two videos."""
    folder = tmp_path_factory.mktemp("pages")
    dsrl, fit = write_dsrl_run(folder / "lift_prior"), write_fit_run(folder / "can_bc")
    results = write_results(folder / "lift.json")
    for name in ("episode_007_base_failure_steered_success", "episode_008_base_success_steered_success"):
        write_clip(dsrl / "videos" / f"{name}.mp4")
    runs = {"dsrl": [dsrl], "fit": [fit], "results": [results], "all": [dsrl, fit, results]}
    for name, paths in runs.items():
        write_run_page(paths, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in runs}


def test_a_page_says_what_was_run_and_what_came_of_it(pages: dict[str, Path]) -> None:
    page = pages["dsrl"].read_text().replace("\N{NO-BREAK SPACE}", " ")
    for text in (
        "90.0 %",
        "60.0 %",
        "--output &lt;here &amp; there&gt;",
        "0123456789abcdef0123456789abcdef01234567+changes",
        "torch 2.9.0",
        "usable cores: 2",
        "learner.hidden_sizes",
        "base, w = 0",
        "Success against env steps",
        "Solved within t steps",
        "Initial states: base, w ~ N(0, I)",
        "KL to the prior",
        "updates",
        "Episode 007 base failure steered success",
    ):
        assert text in page
    assert page.count("<video") == 2
    fit = pages["fit"].read_text()
    assert "Success against updates" in fit
    assert "model.lr" in fit
    assert "Initial states" not in fit, "nothing was judged"
    assert "Initial states: steered" in pages["results"].read_text()
    assert "Dashed: the base" in page
    assert "Dashed: the base" not in fit, "it has none"
    together = pages["all"].read_text()
    assert together.count("<section>") == 3
    assert "last rollouts" in together, "a run that nobody judged has its row too"


def test_a_page_about_one_run_lies_in_its_folder(tmp_path: Path) -> None:
    folder = write_fit_run(tmp_path / "can_bc")
    assert run(COMMANDS, ["report", "--run", str(folder)]) == 0
    assert (folder / "report.html").is_file()


def test_a_page_depends_on_nothing_outside_itself(pages: dict[str, Path]) -> None:
    for page in pages.values():
        asked = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s>)]{1,40})', page.read_text())
        assert asked
        assert all(address.startswith(("data:", "#")) for address in asked), asked


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=WHY_NOT)
def test_a_browser_renders_it_plays_the_videos_and_asks_nobody(pages: dict[str, Path], tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        for name, page in pages.items():
            for width in (390, 1280):
                browser.open(page, width)
                across = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]")
                assert across[0] <= width, f"{name} scrolls sideways at {width} pixels"
                drawn = browser.run(
                    "return [...document.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect().height)"
                )
                assert len(drawn) >= 2
                assert min(drawn) > 100
        browser.open(pages["dsrl"], 1280)
        played = browser.run(
            "return Promise.all([...document.querySelectorAll('video')].map(async video => { await video.play();"
            "await new Promise(done => video.addEventListener('timeupdate', done, {once: true}));"
            "return [video.readyState, video.error, video.currentTime, video.videoWidth]; }))"
        )
        assert len(played) == 2
        for state, error, seconds, across in played:
            assert error is None
            assert state >= 2, "there is a picture"
            assert seconds > 0
            assert across == 128
        assert browser.console() == []
        assert {address.partition(":")[0] for address in browser.requested()} == {"file", "data"}


def test_videos_are_of_every_way_in_which_an_episode_ends(tmp_path: Path) -> None:
    judged = read_run(write_dsrl_run(tmp_path / "run"))
    assert judged.base is not None
    assert judged.judged is not None
    chosen = choose(judged, 3)
    before = [judged.base.episodes[i].success for i in chosen]
    after = [judged.judged.episodes[i].success for i in chosen]
    assert list(zip(before, after, strict=True)) == [(False, True), (True, True), (False, False)]
    assert choose(read_run(write_fit_run(tmp_path / "fit")), 2) == [0, 1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "metrics.csv").unlink(), r"none of these. Expected the folder of a `dsrl` or `fit` run"),
        (lambda run: (run / "report.json").write_text("[]"), r"damaged, or not written by this project"),
        (lambda run: (run / "config.yaml").write_text("seed: 1"), r"damaged, or not written by this project"),
        (lambda run: (run / "metrics.csv").write_text("env_steps\nmany\n"), r"damaged, or not written by this project"),
    ],
)
def test_a_folder_that_cannot_be_read_is_one_message(
    spoil: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_dsrl_run(tmp_path / "run")
    assert callable(spoil)
    spoil(folder)
    assert run(COMMANDS, ["report", "--run", str(folder), "--output", str(tmp_path / "page.html")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "page.html").exists()


def test_several_runs_are_words_after_one_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = write_results(tmp_path / "a b.json")
    line = ["report", "--run", str(results), str(write_fit_run(tmp_path / "fit")), "--output", str(tmp_path / "p.html")]
    assert run(COMMANDS, line) == 0
    assert (tmp_path / "p.html").as_uri() in capsys.readouterr().out
    assert "2 runs side by side" in (tmp_path / "p.html").read_text()
    assert spell_out_lists(["run"], ["--run", "a", "b", "--n", "3"]) == ['--run=["a", "b"]', "--n", "3"]
    assert spell_out_lists(["run"], ["--n", "3", "--run=a"]) == ["--n", "3", '--run=["a"]']
