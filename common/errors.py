"""The one exception that means "the user can mend this"."""


class UserError(Exception):
    """A mistake in a command's input: the message names what, where, found, expected and how to mend it.

    ``cli.py`` prints the message alone on stderr and exits with status 2; nothing catches it on the way.
    """


class LineError(UserError):
    """A mistake in the words of a command line, which the command's ``--help`` would clear up."""
