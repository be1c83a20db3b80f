"""Interrupts the program at a chosen system call. Python imports this file before the program.

Sleeping and polling from outside hit a run somewhere; this hits it at the same place every time,
and the program itself needs no code for it: Python tells an audit hook of every file operation.

INTERRUPT_AT   regular expression, searched for in "<event> <path>", such as "os.rename .*/6$"
INTERRUPT_BY   SIGKILL, SIGTERM, or "error": an exception at that place
INTERRUPT_ARG  optional: only in a process that was started with this argument
"""

import os
import re
import signal
import sys

_AT = re.compile(os.environ["INTERRUPT_AT"])
_BY = os.environ["INTERRUPT_BY"]
_ARGUMENT = os.environ.get("INTERRUPT_ARG")
_done = False


def _interrupt(event, args):
    global _done
    if _done or event.partition(".")[0] not in ("open", "os", "shutil") or not args:
        return
    # A rename has two paths: what a file is called in the end is what counts.
    path = args[1] if event == "os.rename" else args[0]
    if not _AT.search(f"{event} {path}"):
        return
    if _ARGUMENT is not None and _ARGUMENT not in sys.argv:
        return
    _done = True
    if _BY == "error":
        raise RuntimeError("an error made by the test")
    os.kill(os.getpid(), signal.Signals[_BY])


sys.addaudithook(_interrupt)
