"""A data set as one HTML file: values, lengths, the hand's ways, first frames, and every problem."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from datamodules.demonstrations import Demonstration
from datamodules.hdf5 import DatasetFile
from datamodules.inspection import Report
from reports import figures
from reports.page import Plot, picture_source, write_page

BINS = 32
HAND = "_eef_pos"  # how the names of a hand's positions end


class Spread(NamedTuple):
    """The values of one dimension over all demonstrations."""

    dim: int
    low: float
    high: float
    mean: float
    histogram: Markup


class Frame(NamedTuple):
    """How a demonstration begins."""

    name: str
    source: str


@dataclass(frozen=True)
class _Content:
    lengths: list[int]
    values: dict[str, np.ndarray]  # array -> (all transitions, d)
    ways: dict[str, list[np.ndarray]]  # hand -> (T, 2) of each demonstration: x, y in m


def write_dataset_page(dataset: Path, report: Report, output: Path, frames: Mapping[str, np.ndarray]) -> None:
    """Write the page of a data set.

    Args:
        dataset: the hdf5 file.
        report: its survey.
        output: the page.
        frames: first frame (H, W, 3) uint8 by demonstration; empty: no contact sheet.
    """
    with DatasetFile(dataset) as file:
        content = _content([file.examine(name, fields=())[0] for name in file.names()])
    write_page(
        "dataset.html.j2",
        output,
        title=dataset.name,
        report=report,
        plots=_plots(content),
        spreads={key: [_spread(i, column) for i, column in enumerate(v.T)] for key, v in content.values.items()},
        frames=[Frame(name, _jpeg(frame)) for name, frame in frames.items()],
    )


def _content(demonstrations: list[Demonstration]) -> _Content:
    values: dict[str, list[np.ndarray]] = {}
    for demonstration in demonstrations:
        arrays = {"actions": demonstration.actions, **{f"obs/{k}": v for k, v in demonstration.obs.items()}}
        for key, array in arrays.items():
            if array.size:
                values.setdefault(key, []).append(array)
    ways = {
        key: [array[:, :2] for array in arrays if np.isfinite(array).all()]
        for key, arrays in values.items()
        if key.endswith(HAND) and key.startswith("obs/")
    }
    joined = {key: np.concatenate(arrays) for key, arrays in values.items()}
    return _Content([len(demonstration) for demonstration in demonstrations], joined, ways)


def _plots(content: _Content) -> list[Plot]:
    lengths = figures.length_histogram([("", content.lengths)], "demonstrations")
    plots = [Plot("Lengths", lengths, "Env steps of each demonstration.")]
    for key, ways in content.ways.items():
        if ways:
            caption = "From above, a line per demonstration; filled: where it begins, ring: where it ends."
            plots.append(Plot(f"The hand's ways: {key}", figures.hand_ways(ways, key), caption))
    return plots


def _spread(index: int, column: np.ndarray) -> Spread:
    finite = column[np.isfinite(column)]
    if not finite.size:
        return Spread(index, np.nan, np.nan, np.nan, Markup())
    low, high = float(finite.min()), float(finite.max())
    return Spread(index, low, high, float(finite.mean()), _sparkline(np.histogram(finite, BINS)[0]))


def _sparkline(counts: np.ndarray) -> Markup:
    """Bars of a table's row: matplotlib would take a hundredth of a second for each."""
    heights = np.ceil(100 * counts / max(counts.max(), 1)).astype(int)
    bars = "".join(f"M{4 * i} 100v-{height}h3v{height}" for i, height in enumerate(heights) if height)
    return Markup('<svg class="spark" viewBox="0 0 {} 100" preserveAspectRatio="none"><path d="{}"/></svg>').format(
        4 * BINS, bars
    )


def _jpeg(frame: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=80)
    return picture_source("image/jpeg", buffer.getvalue())
