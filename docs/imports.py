"""Who imports whom, read from the code: the packages as floors, and their picture `docs/imports.svg`.

python docs/imports.py writes the picture anew; a test fails where it is out of date or where an import points upwards.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/imports.svg"
# From the ground up. A package imports those on lower floors alone, and none beside it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("common",),
    ("envs", "policies"),
    ("datamodules", "rollouts", "lightning_modules"),
    ("experts", "callbacks", "dsrl", "reports"),
    ("sweeps",),
    ("commands",),
    ("cli",),
)
COLOURS = ("#1f6feb", "#b35900", "#1a7f37", "#8250df", "#cf222e", "#57606a", "#0a7b83", "#9a6700", "#bf3989", "#24292f")
WIDTH, STEP, BOX, HEIGHT = 880, 92, 150, 34


def packages() -> list[str]:
    """The names of all packages and of ``cli``, the module beside them."""
    return [name for floor in FLOORS for name in floor]


def imports() -> dict[str, set[str]]:
    """Package -> the other packages whose modules its own import, inside functions too."""
    known = set(packages())
    found = {}
    for name in packages():
        files: Iterable[Path] = [ROOT / "cli.py"] if name == "cli" else (ROOT / name).rglob("*.py")
        found[name] = {top for file in files for top in _imported(file) if top in known and top != name}
    return found


def upward() -> list[str]:
    """The imports that do not point to a lower floor."""
    level = {name: height for height, floor in enumerate(FLOORS) for name in floor}
    pairs = ((name, other) for name, others in imports().items() for other in sorted(others))
    return [f"{name} imports {other}" for name, other in pairs if level[other] >= level[name]]


def picture() -> str:
    """Floors as rows of boxes, imports as lines in the colour of the package that imports; as SVG.

    Nearly everything imports the lowest floor, so it is drawn as the ground, without lines.
    """
    centres = {
        name: (WIDTH * (column + 1) / (len(floor) + 1), STEP * (len(FLOORS) - row) - STEP / 2)
        for row, floor in enumerate(FLOORS)
        for column, name in enumerate(floor)
    }
    ground = FLOORS[0]
    drawn = {name: others.difference(ground) for name, others in imports().items()}
    importers = [name for name, others in drawn.items() if others]
    colour = dict(zip(importers, COLOURS, strict=False))
    lines = []
    for name in importers:
        x, y = centres[name]
        others = sorted(drawn[name], key=lambda other: centres[other])
        for number, other in enumerate(others, start=1):
            end_x, end_y = centres[other]
            # Leaves are spread over the box's lower edge; arrivals lean towards where they come from.
            begin_x = x + BOX * (number / (len(others) + 1) - 0.5)
            end_x += max(-BOX / 2.5, min(BOX / 2.5, (begin_x - end_x) / 4))
            top, bottom = y + HEIGHT / 2, end_y - HEIGHT / 2
            bend = (bottom - top) / 2
            lines.append(
                f'<path d="M{begin_x:.0f} {top:.0f} C{begin_x:.0f} {top + bend:.0f} {end_x:.0f} {bottom - bend:.0f} '
                f'{end_x:.0f} {bottom:.0f}" stroke="{colour[name]}"/>'
            )
    widths = {name: 4 * BOX if name in ground else BOX for name in centres}
    boxes = [
        f'<rect x="{x - widths[name] / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{widths[name]}" height="{HEIGHT}" '
        f'rx="5" stroke="{colour.get(name, "#57606a")}"/><text x="{x:.0f}" y="{y + 5:.0f}">{name}</text>'
        for name, (x, y) in centres.items()
    ]
    size = f'width="{WIDTH}" height="{STEP * len(FLOORS)}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}',
            'font-family="sans-serif" font-size="15" text-anchor="middle">',
            '<rect width="100%" height="100%" fill="white"/>',
            '<g fill="none" stroke-width="1.4" opacity="0.75">',
            *lines,
            '</g><g fill="white" stroke-width="1.6">',
            *(box.replace("<text", '<text fill="black" stroke="none"') for box in boxes),
            "</g></svg>\n",
        ]
    )


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


if __name__ == "__main__":
    PICTURE.write_text(picture())
