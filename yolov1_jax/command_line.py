"""How the programs meet the user: flags, one line for a mistake, exit codes.

Exit codes: 0 done, 1 the run failed, 2 a mistake in what was asked for.
"""

import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags

from yolov1_jax.config import unknown_key_message
from yolov1_jax.errors import RunError, UserError

# Config values that are lists of strings, which a shell user types with commas.
_STRING_LISTS = ("config.data.train", "config.data.eval", "config.model.class_names")


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and calls `main` with the positional arguments; never returns normally."""

    def guarded(argv: list[str]) -> None:
        try:
            main(argv[1:])
        except UserError as error:
            fail(str(error), 2)
        except RunError as error:
            fail(str(error), 1)

    app.run(guarded, flags_parser=_parse_flags)


def fail(message: str, code: int) -> NoReturn:
    """Prints one line to stderr and exits."""
    sys.stdout.flush()
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(code)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS([argv[0], *map(_quote_list, argv[1:])])
    except flags.Error as error:
        fail(str(error), 2)
    except AttributeError as error:
        # ml_collections raises it for a key that the locked config lacks, and names its last part.
        unknown = _unknown_config_key(argv)
        if unknown is None:
            raise
        fail(unknown, 2)
        raise AssertionError from error
    except SystemExit:
        if {"--help", "-h", "--helpfull", "--helpshort", "-help"} & set(argv):
            sys.exit(0)
        raise


def _quote_list(argument: str) -> str:
    """--config.data.train=a,b -> --config.data.train=('a','b',)."""
    name, equals, value = argument.lstrip("-").partition("=")
    if name not in _STRING_LISTS or not equals or value[:1] in "([\"'":
        return argument
    items = [item.strip() for item in value.split(",") if item.strip()]
    return f"--{name}=({''.join(repr(item) + ',' for item in items)})"


def _unknown_config_key(argv: list[str]) -> str | None:
    for argument in argv[1:]:
        match = re.match(r"--?config\.([\w.]+)(=|$)", argument)
        if not match:
            continue
        # Overrides are parsed in order, so the first that the config lacks is the one refused.
        config: Any = flags.FLAGS["config"].value
        node = config
        for part in match[1].split("."):
            if not hasattr(node, "keys") or part not in node:
                return unknown_key_message(config, match[1])
            node = node[part]
    return None
