"""Interrupts the program at a chosen file operation. Python imports this file before the program.

Signals sent from outside hit a run anywhere; this hits it at the same place every time, and the
program needs no code for it: Python tells an audit hook of every file operation.

INTERRUPT has two lines: a regular expression, searched for in "<event> <path>", such as
"os.rename .*/6$"; and SIGKILL, SIGTERM or "error", which is an exception at that place.
"""

import os
import re
import signal
import sys

_AT, _BY = os.environ["INTERRUPT"].split("\n")
_done = False


def _interrupt(event, args):
    global _done
    if _done or event.partition(".")[0] not in ("open", "os", "shutil") or not args:
        return
    path = args[1] if event == "os.rename" else args[0]  # the new name
    if re.search(_AT, f"{event} {path}"):
        _done = True
        if _BY == "error":
            raise RuntimeError("an error made by the test")
        os.kill(os.getpid(), signal.Signals[_BY])


sys.addaudithook(_interrupt)
