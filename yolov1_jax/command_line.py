"""The command `yolov1 NAME`, and what all commands share: flags, configs, errors, exit codes.

    yolov1 train|evaluate|predict|compare|export|benchmark [FLAGS]

is the same as `python -m yolov1_jax.main`, `python -m yolov1_jax.evaluate` and so on.
Exit codes: 0 done, 1 the run failed, 2 a mistake in what was asked for, 130 Ctrl-C.
"""

import importlib
import logging
import re
import sys
from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import ConfigDict

from yolov1_jax.config import RunError, UserError, override, read_config_file

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)


COMMANDS = ("train", "evaluate", "predict", "compare", "export", "benchmark")


def main() -> int:
    """Runs the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        module = "main" if name == "train" else name
        return importlib.import_module(f"yolov1_jax.{module}").main(sys.argv[2:])
    if name in ("--help", "-h"):
        print(__doc__)
        return 0
    return _failed(f"expected one of {', '.join(COMMANDS)}, found {name!r}", 2)


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
        return re.split(r"[/\\]", self._file.value.partition(":")[0])[-1].removesuffix(".py")

    @property
    def value(self) -> ConfigDict:
        """The config of the file with the values that the command line sets."""
        config = read_config_file(self._file.value)
        for assignment in self._overrides.value:
            key, _, text = assignment.partition("=")
            config = override(config, key, text)
        return config


def run(
    body: Callable[[list[str]], None],
    flag_values: flags.FlagValues,
    argv: Sequence[str] | None,
    *,
    usage: str | None,
    takes_arguments: bool = False,
) -> int:
    """Parses the command's own flags and calls `body` with the positional arguments.

    `argv` is what follows the command's name, None for that of the process; `usage` stands above
    the list of flags in --help. Returns the exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"--help", "-h", "-help"} & set(arguments):
        print(f"{usage}\nFlags:\n{flag_values.get_help(include_special_flags=False)}")
        return 0
    logging.getLogger().setLevel(logging.WARNING)
    # Orbax, which logs through absl, warns of every option that was chosen on purpose.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        flag_values.unparse_flags()  # of an earlier call in this process
        positional = flag_values(["", *_join_overrides(arguments)])[1:]
        if positional and not takes_arguments:
            raise UserError(
                f"expected flags only, found {positional[0]!r}: write a list with commas, as in "
                "--splits=a,b, and spaces within quotes"
            )
        body(positional)
    except (UserError, flags.Error) as error:
        return _failed(error, 2)
    except (RunError, OSError) as error:  # a full disk, no permission
        return _failed(error, 1)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    return 0


def _failed(message: object, code: int) -> int:
    sys.stdout.flush()
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    return code


def _join_overrides(arguments: Sequence[str]) -> list[str]:
    """--config.seed=1, --config.seed 1, --config.flag, --noconfig.flag -> --config_override=..."""
    joined, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if match := _OVERRIDE.fullmatch(argument):
            no, key, text = match.groups()
            if text is None:
                has_value = rest and not no and not rest[0].startswith("--")
                text = rest.pop(0) if has_value else str(not no)
            argument = f"--config_override={key}={text}"
        joined.append(argument)
    return joined
