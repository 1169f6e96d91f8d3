"""A computation that one process alone fails at: alone_fails.py HOW."""

from __future__ import annotations

import sys

from mribench import processes
from mribench.commands.options import Group
from mribench.errors import MribenchError


class Work(Group):
    """In place of the commands."""

    def make_context(self, *_args, **_options):
        how = sys.argv[1]
        if how == "agreed":
            with processes.agreement("work"):
                fail("the volume of the second process must be whole, but is not")
        if how == "unnoticed":
            fail("the second process is out of luck")
        processes.gather(None, "the work after")
        raise AssertionError("unreachable")


def fail(reason):
    if not processes.is_first():
        raise MribenchError(reason)


Work().main()
