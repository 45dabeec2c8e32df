"""Command lines by jsonargparse, with a mistake ending in one message instead of the whole usage text."""

from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from common.errors import UserError


class OneMessage:
    """Mixin for jsonargparse parsers: a mistake in the line raises ``UserError``."""

    prog: str

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(f"{message}\nOptions: python {self.prog} --help")


class CommandParser(OneMessage, ArgumentParser):  # type: ignore[misc]
    """Parser of the commands that are plain functions; a flag must be spelled out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
