"""Python reads this at its start where this folder leads PYTHONPATH: `conftest.frozen` does.

The process goes to sleep for good once it has put a file that matches $FREEZE_AT in its place for
the $FREEZE_AFTER-th time; with $FREEZE_BEFORE right before that. Whoever kills it then does so at a
known moment, however fast the machine is: what is left is what was on the disk at that moment.
"""

import fnmatch
import os
import time
from pathlib import Path

pattern, left = os.environ["FREEZE_AT"], int(os.environ["FREEZE_AFTER"])
replace = os.replace


def replace_and_freeze(source, target, **options):
    global left
    matches = fnmatch.fnmatch(Path(target).absolute().as_posix(), pattern)
    left -= matches
    last = matches and left == 0
    if last and "FREEZE_BEFORE" in os.environ:
        freeze()
    replace(source, target, **options)
    if last:
        freeze()


def freeze():
    Path(os.environ["FREEZE_SIGN"]).touch()
    time.sleep(3600)


os.replace = replace_and_freeze
