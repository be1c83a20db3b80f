"""The errors that end a program with one line instead of a traceback."""


class UserError(Exception):
    """A mistake in what the user gave: a path, a config value, a data file.

    Its message is one line: what was expected, what was found, what to do. Entry points print the
    line without a traceback and exit with code 2.
    """


class RunError(Exception):
    """A run that cannot go on although nothing it was given is wrong, such as a loss of NaN.

    Its message is one line. Entry points print it and exit with code 1.
    """
