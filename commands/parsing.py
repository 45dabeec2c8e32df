"""Command lines by jsonargparse, with a mistake ending in one message instead of the whole usage text."""

import os
import re
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from common.errors import LineError

# jsonargparse's and argparse's words for a mistake, and what a reader of --help would call the same.
PLAINER = (
    (r'^Parser key "([^"]+)":\s*', r"--\1: "),
    (r"<class '(?:\w+\.)*(\w+)'>", r"\1"),
    (r"typing\.Literal\[([^]]*)\]", r"one of \1"),
    (r"\bExpected a (?=\w)", "Expected "),
    (r"\bNoneType\b", "null"),
)
# A value that fits none of several types: a line for each of them.
NONE_OF = re.compile(
    r"Does not validate against any of the Union subtypes\n +Subtypes: .*\n +Errors:\n((?: +- Expected .*\n)+)"
    r" +Given value type: .*\n +Given value: "
)


class ProjectParser:
    """Mixin for jsonargparse parsers: a mistake raises ``LineError``, and ``~`` is the home folder in every path."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # type: ignore[attr-defined]
            # The parser of a class's own options: whoever asked it says which key of the line is meant.
            super().error(message, ex)  # type: ignore[misc]
        for theirs, plain in PLAINER:
            message = re.sub(theirs, plain, message)
        message = NONE_OF.sub(lambda each: f"Expected {_alternatives(each[1])}. Got value: ", message)
        begins, required, missing = message.partition("arguments are required: ")
        if required:
            message = begins + required + re.sub(r"(?<![\w.-])(?=\w)", "--", missing)
        every = {flag for action in self._actions for flag in action.option_strings}  # type: ignore[attr-defined]
        flags = {flag for flag in every if not flag.endswith((".help", "+"))}
        sections = {flag.rpartition(".")[0] for flag in flags}
        raise LineError(message, sorted(flags - sections))

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:
        """The line's values, those of its config files and the defaults."""
        config = super().parse_args(*args, **kwargs)  # type: ignore[misc]
        for key, value in list(config.items()):
            config[key] = expand_home(value)
        return config


class CommandParser(ProjectParser, ArgumentParser):  # type: ignore[misc]
    """Parser of the commands that are plain functions; a flag must be spelled out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)


def _alternatives(lines: str) -> str:
    return " or ".join(line.strip().removeprefix("- Expected ") for line in lines.splitlines())


def expand_home(value: Any) -> Any:
    """``value`` with the home folder in place of a leading ``~``: a shell leaves that of ``--output=~/x`` to us."""
    if isinstance(value, str | Path) and str(value).startswith("~"):
        return type(value)(os.path.expanduser(value))
    if isinstance(value, list):
        return [expand_home(each) for each in value]
    if isinstance(value, dict):
        return {key: expand_home(each) for key, each in value.items()}
    return value
