"""The command `yolov1 NAME`, and what all commands share: flags, configs, errors, exit codes.

    yolov1 train|evaluate|report|inspect|predict|demo|compare|export|benchmark [FLAGS]

is the same as `python -m yolov1_jax NAME`, and as `python -m yolov1_jax.main`,
`python -m yolov1_jax.evaluate` and so on. `yolov1 NAME --help` lists the flags.
Exit codes: 0 done, 1 the run failed, 2 a mistake in what was asked for; 130 and 143, stopped by
Ctrl-C or SIGTERM before the end.
"""

import contextlib
import difflib
import errno
import importlib
import importlib.metadata
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import ConfigDict

from yolov1_jax.config import (
    RunError,
    UserError,
    flatten,
    override,
    read_config_file,
    shipped_config,
    split_variant,
)
from yolov1_jax.training.preemption import watch_signals

_OVERRIDE = re.compile(r"--?config\.([^=]+)(?:=(.*))?", re.DOTALL)
# What JAX and its collectives say in one process when another one has gone.
_PEER_GONE = re.compile("peer|heartbeat|coordination|barrier|UNAVAILABLE|DEADLINE_EXCEEDED", re.I)

COMMANDS = (
    *("train", "evaluate", "report", "inspect", "predict", "demo", "compare"),
    *("export", "benchmark"),
)


def main() -> int:
    """Runs the command that the first argument names."""
    return _exit_code(_run_named)


def _run_named() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        # A module inspect would hide Python's own from all that is run in the package's folder.
        file = {"train": "main", "inspect": "inspect_data"}.get(name, name)
        return importlib.import_module(f"yolov1_jax.{file}").main(sys.argv[2:])
    if _printed_help([name], __doc__):
        return 0
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f": did you mean {near[0]}?" if near else ""
    raise UserError(f"expected one of {', '.join(COMMANDS)}, found {name!r}{hint}")


class ConfigFlag:
    """--config=FILE[:VARIANT] and --config.<key>=<value> of one command."""

    def __init__(self, flag_values: flags.FlagValues) -> None:
        self._file = flags.DEFINE_string(
            "config",
            "quickstart",
            "config file, or the name of a shipped one; --config.<key>=<value> sets a value in it",
            flag_values=flag_values,
        )
        self._overrides = flags.DEFINE_multi_string(
            "config_override", [], "as --config.<key>=<value>", flag_values=flag_values
        )

    @property
    def name(self) -> str:
        """The file's name without its folder and ending."""
        return re.split(r"[/\\]", split_variant(self._file.value)[0])[-1].removesuffix(".py")

    @property
    def value(self) -> ConfigDict:
        """The config of the file with the values that the command line sets."""
        config = read_config_file(self._file.value)
        for assignment in self._overrides.value:
            key, _, text = assignment.partition("=")
            config = override(config, key, text)
        return config


def run(
    body: Callable[[list[str]], int | None],
    flag_values: flags.FlagValues,
    argv: Sequence[str] | None,
    *,
    usage: str | None,
    takes_arguments: bool = False,
) -> int:
    """Parses the command's own flags and calls `body` with the positional arguments.

    `argv` is what follows the command's name, None for that of the process; `usage` stands above
    the list of flags in --help. Returns the exit code, which is that of `body` if it returns one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # that of the libraries
    # Pillow's own limit; ours, in data/images.py, says more.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files and classes may be of any script
            stream.reconfigure(errors="backslashreplace")

    def command() -> int:
        if _printed_help(arguments, usage, flag_values):
            return 0
        flag_values.unparse_flags()  # of an earlier call in this process
        if "config" in flag_values:
            arguments[:] = _join_overrides(arguments)
        try:
            positional = flag_values(["", *arguments])[1:]
        except flags.UnrecognizedFlagError as error:
            raise UserError(f"{error}{_keys_of_that_name(error.flagname, flag_values)}") from None
        if positional and not takes_arguments:
            raise UserError(_unexpected(positional[0], flag_values))
        for flag in flag_values:
            if flag_values[flag].value in ("", []) and flag_values[flag].present:
                raise UserError(f"--{flag} is empty: give it a value, or leave it out")
        with watch_signals():
            return body(positional) or 0

    return _exit_code(command)


def _exit_code(command: Callable[[], int]) -> int:
    """Calls `command`; what goes wrong becomes one line on stderr and an exit code."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except (UserError, flags.Error) as error:
        return _failed(error, 2)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if (cause := _cause_outside(error)) is None:
            raise
        return _failed(cause, 1)


def _printed_help(
    arguments: Sequence[str], usage: str | None, flag_values: flags.FlagValues | None = None
) -> bool:
    """Whether help or the version was asked for, and was printed."""
    if "--version" in arguments:
        print(f"yolov1_jax {importlib.metadata.version('yolov1_jax')}")
    elif {"--help", "-h", "-help"} & set(arguments):
        print(usage)
        if flag_values is not None:
            print(f"Flags:\n{flag_values.get_help(include_special_flags=False)}")
    else:
        return False
    return True


def _unexpected(argument: str, flag_values: flags.FlagValues) -> str:
    hint = "write a list with commas, as in --splits=a,b, and spaces within quotes"
    if "config" in flag_values:
        with contextlib.suppress(UserError):
            read_config_file(argument)
            hint = f"did you mean --config={argument}?"
    if "workdir" in flag_values and os.path.isdir(argument):
        hint = f"did you mean --workdir={argument}?"
    return f"expected flags only, found {argument!r}: {hint}"


def _keys_of_that_name(flag: str, flag_values: flags.FlagValues) -> str:
    keys = flatten(shipped_config("r34")) if "config" in flag_values else ()
    meant = [f"--config.{key}" for key in keys if key.rpartition(".")[2] == flag]
    return f": did you mean {' or '.join(meant)}?" if meant else ""


def _cause_outside(error: BaseException | None) -> str | None:
    """One line about a failure that the program has not caused; None for a fault of its own."""
    while error is not None:
        if isinstance(error, RunError):
            return str(error)
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = "; make room, and give the same command again: what was saved is safe"
            return f"{error}{hint if full else ''}"
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            text = f"out of memory: {error}"
            return f"{text[:300]}; choose a smaller batch size, or a smaller image_size"
        if type(error).__name__ == "JaxRuntimeError" and _PEER_GONE.search(str(error)):
            return (
                "another process of this run has ended or cannot be reached; the same command "
                f"continues from the last checkpoint ({str(error)[:200]})"
            )
        error = error.__cause__
    return None


def _failed(message: object, code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:  # it is full: the interpreter would try again, and say so
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    return code


def _join_overrides(arguments: Sequence[str]) -> list[str]:
    """--config.seed=1 and --config.seed 1 become --config_override=seed=1."""
    joined, rest = [], iter(arguments)
    for argument in rest:
        if match := _OVERRIDE.fullmatch(argument):
            key, text = match.groups()
            argument = f"--config_override={key}={next(rest, '') if text is None else text}"
        joined.append(argument)
    return joined
