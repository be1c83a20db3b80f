"""How the programs meet the user: flags, one line for a mistake, exit codes.

Exit codes: 0 done, 1 the run failed, 2 a mistake in what was asked for, 130 Ctrl-C.
"""

import logging
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from yolov1_jax.config import unknown_key_message
from yolov1_jax.errors import RunError, UserError

_DEFAULT_CONFIG = pathlib.Path(__file__).resolve().parents[1] / "configs" / "quickstart.py"

flags.disclaim_key_flags()  # --config belongs to the program that asks for it, and to its --help

# Config values that are lists of strings, which a shell user types with commas.
_STRING_LISTS = ("config.data.train", "config.data.eval", "config.model.class_names")
_NUMBER_LISTS = (
    "config.optimizer.decay_epochs",
    "config.model.pixel_mean",
    "config.model.pixel_std",
)


def define_config() -> flags.FlagHolder:
    """Defines --config and, with it, --config.<key>; by default configs/quickstart.py."""
    # The default is put in by `run`: ml_collections would read the command line here already, when
    # the program is imported, and answer a mistake with a traceback.
    return config_flags.DEFINE_config_file(
        "config", None, "file with a get_config(); else configs/quickstart.py", lock_config=True
    )


def run(main: Callable[[list[str]], None], *, takes_arguments: bool = True) -> None:
    """Parses the flags and calls `main` with the positional arguments; never returns normally.

    Without `takes_arguments`, there may be none.
    """

    def guarded(argv: list[str]) -> None:
        logging.getLogger().setLevel(logging.WARNING)  # absl's own level lets jax chat
        # Orbax, which logs through absl, warns of every option that was chosen on purpose.
        logging.getLogger("absl").setLevel(logging.ERROR)
        try:
            if argv[1:] and not takes_arguments:
                raise UserError(
                    f"expected flags only, found {argv[1]!r}: write a list with commas, as in "
                    "--splits=a,b, and spaces within quotes"
                )
            main(argv[1:])
        except UserError as error:
            fail(str(error), 2)
        except RunError as error:
            fail(str(error), 1)
        except KeyboardInterrupt:
            fail("interrupted", 130)

    app.run(guarded, flags_parser=_parse_flags)


def fail(message: str, code: int) -> NoReturn:
    """Prints one line to stderr and exits."""
    sys.stdout.flush()
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(code)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        if "config" in flags.FLAGS:
            argv = _with_config(argv)
        return flags.FLAGS([argv[0], *_quote_lists(argv[1:])])
    except (flags.Error, UserError) as error:
        fail(str(error), 2)
    except SystemExit:
        if {"--help", "-h", "--helpfull", "--helpshort", "-help"} & set(argv):
            sys.exit(0)
        raise


def _with_config(argv: list[str]) -> list[str]:
    """Adds the default --config where there is none, and looks at the keys that are set.

    ml_collections notices the same mistakes, but by various exceptions, some of them late.

    Raises:
      UserError: there is no such file, it does not hold a config, or the config lacks a key.
    """
    argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    given = [i for i, argument in enumerate(argv) if re.match(r"--?config(=|$)", argument)]
    if not given:
        argv = [argv[0], f"--config={_DEFAULT_CONFIG}", *argv[1:]]
    _, equals, path = argv[given[-1] if given else 1].partition("=")
    path = path if equals else "".join(argv[given[-1] + 1 :][:1])
    if not pathlib.Path(path.split(":")[0]).is_file():
        raise UserError(
            f"expected a config file at {path!r}, found none: give one such as configs/r34.py"
        )
    config = _read_config(path)
    for argument in argv[1:]:
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if match and not _has_key(config, match[1]):
            raise UserError(unknown_key_message(config, match[1]))
    return argv


def _read_config(path: str) -> ConfigDict:
    """The config of a file, which may be any Python, and so fail in any way."""
    file = pathlib.Path(path.split(":")[0])
    try:
        config = flags.FLAGS["config"].parser.parse(path)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if pathlib.Path(frame.filename) == file.resolve()]
        if isinstance(error, SyntaxError) and not lines:
            lines = [error.lineno]
        where = f"{file}, line {lines[-1]}" if lines else str(file)
        reason = f"{type(error).__name__}: {error}"
    else:
        if isinstance(config, ConfigDict):
            return config
        where, reason = str(file), f"a get_config() that returns {type(config).__name__}"
    raise UserError(
        f"expected a get_config() that returns a ConfigDict in {where}, found {reason}; "
        "compare it with configs/r34.py"
    )


def _has_key(config: Any, key: str) -> bool:
    node = config
    for part in key.split("."):
        if not hasattr(node, "keys") or part not in node:
            return False
        node = node[part]
    return True


def _quote_lists(arguments: list[str]) -> list[str]:
    """--config.data.train=a,b or --config.data.train a,b -> --config.data.train=('a','b',).

    Of a list given twice the last one stays, as of any other value: ml_collections would join them.
    """
    lists = (*_STRING_LISTS, *_NUMBER_LISTS)
    quoted: list[str] = []
    for argument in arguments:
        if quoted and quoted[-1].startswith("-") and quoted[-1].lstrip("-") in lists:
            argument = f"{quoted.pop()}={argument}"
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in lists:
            quoted = [other for other in quoted if other.lstrip("-").partition("=")[0] != name]
        quoted.append(_quote_list(argument))
    return quoted


def _quote_list(argument: str) -> str:
    name, equals, value = argument.lstrip("-").partition("=")
    if name not in _STRING_LISTS or not equals or value[:1] in "([\"'":
        return argument
    items = [item.strip() for item in value.split(",") if item.strip()]
    return f"--{name}=({''.join(repr(item) + ',' for item in items)})"
