"""Command lines by jsonargparse, with a mistake ending in one message instead of the whole usage text."""

import os
import re
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from common.errors import LineError

# jsonargparse's and argparse's words for a mistake, and what a reader of --help would call the same.
PLAINER = (
    (r'^Parser key "([^"]+)":\s*', r"--\1: "),
    (r"<class '(?:\w+\.)*(\w+)'>", r"\1"),
    (r"typing\.Literal\[([^]]*)\]", r"one of \1"),
    (r"\bExpected a (?=\w)", "Expected "),
    (r"\bNoneType\b", "null"),
    (r"Expected path but .* not accessible or invalid\n +- ", ""),  # a section can come from a file as well
    (r": +- (?=Expected|Does not)", ": "),
    (r"dot import path string: \S+", "import path"),
    # The options of a class that a section names.
    (
        r'^(--[\w.]+): Type .* expects a function or a callable class: Parser key "([\w.]+)":\s*(.*?)'
        r"\. Got value: Namespace\(.*",
        r"\1.init_args.\2: \3",
    ),
    (r"Call to compute_fn of link .* with args .* failed: ", ""),
    (
        r"Group 'learner' does not accept option '([\w.-]+)'",
        r"--learner.\1 is no option of this learner, which --learner.algorithm or the last config to set it names",
    ),
)
# A value that fits none of several types: a line for each of them.
NONE_OF = re.compile(
    r"Does not validate against any of the Union subtypes\n +Subtypes: .*\n +Errors:\n"
    r"((?: +- (?:Expected|Not of type) .*\n)+) +Given value type: .*\n +Given value: "
)


class ProjectParser:
    """Mixin for jsonargparse parsers.

    A mistake raises ``LineError``, a flag must be spelled out, and ``~`` is the home folder in every path.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)  # type: ignore[call-arg]

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
    """Parser of the commands that are plain functions."""


def values_in(config: str) -> dict[str, Any]:
    """A config file's; none where the parser will say what is wrong with it, or of a pipe, which is read only once."""
    try:
        path = Path(config).expanduser()
        values = yaml.safe_load(path.read_text()) if path.is_file() else None
    except Exception:  # YAML's tags raise whatever Python's constructors do
        return {}
    return values if isinstance(values, dict) else {}


def _alternatives(lines: str) -> str:
    of_one = r"^ +- (?:Expected |Not of type (\w+): .*)|\. Got value: .*"
    return " or ".join(re.sub(of_one, r"\1", line) for line in lines.splitlines())


def expand_home(value: Any) -> Any:
    """``value`` with the home folder in place of a leading ``~``: a shell leaves that of ``--output=~/x`` to us."""
    if isinstance(value, str | Path) and str(value).startswith("~"):
        return type(value)(os.path.expanduser(value))
    if isinstance(value, list):
        return [expand_home(each) for each in value]
    if isinstance(value, dict):
        return {key: expand_home(each) for key, each in value.items()}
    return value
