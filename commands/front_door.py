"""Runs the command that a line names, and turns a user's mistake into one message."""

import difflib
import importlib.util
import inspect
import itertools
import json
import os
import re
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from commands.first_words import first_flags, program, welcome
from common.errors import InUseError, LineError, UserError

MISTAKE, IN_USE, INTERRUPTED = 2, 75, 130
HELP = ("-h", "--help")
# The last part of flags that take a file or a folder.
PATHS = (
    *("config", "c", "dataset", "input", "output", "checkpoint", "bc_checkpoint", "ckpt_path", "sac", "run", "path"),
    *("dirpath", "logdir", "save_dir", "default_root_dir"),
)


@dataclass(frozen=True)
class Command:
    """A command of the front door.

    Args:
        target: "module:function", imported only when the command runs.
        summary: one line for the list of commands.
        other_names: flag by another name; one with a value (``--ckpt_path=last``) makes the name a switch.
    """

    target: str
    summary: str
    other_names: Mapping[str, str] = field(default_factory=dict)


# These parse their own line, subcommand included.
OWN_PARSERS = ("commands.train", "commands.dsrl")


def run_in_shell(commands: Mapping[str, Command], args: Sequence[str]) -> int:
    """``run``, for a process's own words: where the reader of its output has gone (``| head``), it ends with 141.

    That is what a shell shows of a program that the lost reader killed (SIGPIPE). Nothing is to be said then.
    """
    try:
        try:
            return run(commands, args)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 128 + signal.SIGPIPE


def _reader_has_gone() -> bool:
    output = select.poll()
    output.register(sys.stdout, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0))


def run(commands: Mapping[str, Command], args: Sequence[str]) -> int:
    """Run one command line.

    Args:
        commands: the table.
        args: the words after the program's name.

    Returns:
        The exit status: 0, 2 for a user's mistake, 75 where another run holds the folder, 130 after Ctrl-C. A failure
        that is not the user's raises, and so ends with a traceback and status 1.
    """
    if not args:
        print(welcome())
        return 0
    if args[0] in HELP:
        print(_overview(commands))
        return 0
    name, rest = args[0], list(args[1:])
    if name not in commands:
        return _mistake(f"unknown command {name!r}: expected one of {', '.join(commands)}")
    if any(word in HELP for word in rest):
        print(first_flags(name), end="")
    if (flag := _without_value(rest)) is not None:
        return _mistake(f"{flag} is given an empty value: is a variable of the shell unset?")
    typed, rest = rest, files_first(_known_names(commands[name].other_names, rest))
    # Read when torch is imported: its threads sleep while they wait for one another. Spinning gains a fifth on two idle
    # cores and costs nine tenths of the speed where another program wants one of them (docs/speed.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    module_name, _, function_name = commands[name].target.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # Lightning sets its own, imported
        if module_name in OWN_PARSERS:
            function([name, *rest])
        else:
            _call(function, name, rest)
    except ModuleNotFoundError:
        if importlib.util.find_spec("jsonargparse") is not None:  # which every command needs
            raise
        return _mistake(
            f"{sys.executable} lacks this project's packages. `make setup` installs them into .venv, and "
            "`source .venv/bin/activate` makes that the Python of this shell"
        )
    except LineError as error:
        meant = _meant(str(error), typed, error.flags, commands[name].other_names)
        message = _as_typed(str(error), typed, commands[name].other_names)
        return _mistake(f"{message}{meant}\nOptions: {program()} {name} --help")
    except InUseError as error:
        return _mistake(str(error), IN_USE)
    except UserError as error:
        return _mistake(str(error))
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _call(function: Callable[..., None], name: str, args: list[str]) -> None:
    from jsonargparse import auto_cli

    from commands.parsing import CommandParser

    parameters = inspect.signature(function).parameters.items()
    switches = [name for name, parameter in parameters if parameter.annotation is bool]
    lists = [name for name, parameter in parameters if parameter.annotation == list[Path]]
    auto_cli(
        function,
        args=spell_out_lists(lists, spell_out_switches(switches, args)),
        as_positional=False,
        parser_class=CommandParser,
        prog=f"{program()} {name}",
    )


def _without_value(words: Sequence[str]) -> str | None:
    """A flag for a path that is given the empty string: it would be taken for the current folder."""
    for word, after in itertools.pairwise([*words, "--"]):
        flag, equals, value = word.partition("=")
        name = flag.lstrip("-").rpartition(".")[2]
        if flag.startswith("-") and name in PATHS and (value if equals else after) == "":
            return flag
    return None


def _known_names(other_names: Mapping[str, str], args: list[str]) -> list[str]:
    """The line with each flag under the name that its parser knows."""
    words = []
    for word in args:
        flag, equals, value = word.partition("=")
        known = other_names.get(flag, flag)
        words.append(word if "=" in known and equals else known + equals + value)
    return words


def files_first(words: Sequence[str]) -> list[str]:
    """The line with its config files before its flags.

    jsonargparse lets the later win. A file holds over an earlier file, but what is typed holds over every file: a run
    must not go into the folder that a file names because its ``--output`` was typed before that file.
    """
    files, flags = [], []
    rest = iter(words)
    for word in rest:
        if word in ("-c", "--config"):
            files += [word, *itertools.islice(rest, 1)]
        elif word.startswith("--config=") or re.match(r"-c[^-\s]", word):
            files.append(word)
        else:
            flags.append(word)
    return [*files, *flags]


def spell_out_switches(switches: Iterable[str], args: list[str]) -> list[str]:
    """``--resume`` as ``--resume=true``: jsonargparse wants a value for every boolean."""
    flags = {f"--{name}" for name in switches}
    following = [*args[1:], "--"]
    return [
        f"{word}=true" if word in flags and after.startswith("-") else word
        for word, after in zip(args, following, strict=False)  # one longer where there are no words
    ]


def spell_out_lists(names: Iterable[str], args: list[str]) -> list[str]:
    """``--run a b`` as ``--run=["a", "b"]``: jsonargparse takes one word for a list."""
    flags = {f"--{name}" for name in names}
    words: list[str] = []
    values: list[str] | None = None  # of the list that is being read
    for word in [*args, "--"]:
        flag, equals, value = word.partition("=")
        if values is not None and not word.startswith("-"):
            values.append(word)
            continue
        if values is not None:
            words[-1] += f"={json.dumps(values)}"
        values = None if flag not in flags else [value] if equals else []
        words.append(word if flag not in flags else flag)
    return words[:-1]


def _overview(commands: Mapping[str, Command]) -> str:
    lines = [f"  {name:<10}{command.summary}" for name, command in commands.items()]
    return "\n".join([f"usage: {program()} <command> [options]", "", *lines, "", f"{program()} <command> --help"])


def _as_typed(message: str, typed: Sequence[str], other_names: Mapping[str, str]) -> str:
    """The message with flags by the names that the line has for them."""
    for flag in {word.partition("=")[0] for word in typed} & set(other_names):
        known = other_names[flag].partition("=")[0]
        message = re.sub(rf"{re.escape(known)}(?![\w.-])", flag, message)
    return message


def _meant(message: str, typed: Sequence[str], flags: Sequence[str], other_names: Mapping[str, str]) -> str:
    """For a word that a parser does not know, the flag that is most like it."""
    unknown = message.partition("unrecognized arguments: ")[2].split()
    if not unknown:
        return ""
    if not unknown[0].startswith("-"):
        before = dict(zip(typed[1:], typed, strict=False)).get(unknown[0], "")
        if "=" in other_names.get(before, ""):
            return f". {before} takes no value"
        return " (each value follows its flag; several files are one: '[a.hdf5, b.hdf5]')"
    flag = unknown[0].partition("=")[0]
    if flag in other_names:
        return f". {flag} takes no value"
    alike = difflib.get_close_matches(flag, [*flags, *other_names], n=1, cutoff=0.75)
    return f". Is {alike[0]} meant in place of {flag}?" if alike else ""


def _mistake(message: str, status: int = MISTAKE) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status
