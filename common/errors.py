"""The one exception that means "the user can mend this"."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in a command's input: the message names what, where, found, expected and how to mend it.

    ``cli.py`` prints the message alone on stderr and exits with status 2; nothing catches it on the way.
    """


class InUseError(UserError):
    """Another process holds what the command needs, so the same line may succeed later: the exit status is 75.

    That is EX_TEMPFAIL of sysexits.h, by which a script can tell it from a mistake.
    """


class LineError(UserError):
    """A mistake in the words of a command line, which the command's ``--help`` would clear up.

    Args:
        message: what is wrong.
        flags: those that the line's parser knows.
    """

    def __init__(self, message: str, flags: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.flags = flags
