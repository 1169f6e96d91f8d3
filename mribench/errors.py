"""The two kinds of failure a user can meet; only cli.py turns them into an exit code."""

import errno
import re
from collections.abc import Sequence


class MribenchError(Exception):
    """Something that must hold does not: says what, what was given, what to do. Exit code 1."""

    exit_code = 1
    agreed = False  # whether every process of the command raises it


class NotApplicable(MribenchError):
    """A metric has no meaning for these sets by their nature; trying again cannot help."""


class UsageError(MribenchError):
    """The command was asked for something it cannot mean. Exit code 2."""

    exit_code = 2


class TooLittleMemory(UsageError):
    """The budget that the user gave holds not even the smallest piece of work."""


def finish(failures: Sequence[str]) -> None:
    """Raise MribenchError listing what failed, if anything did: work that could be done has been done."""
    if failures:
        raise MribenchError("these failed:\n  " + "\n  ".join(failures))


_OUT_OF_MEMORY = re.compile(
    "can't allocate|cannot allocate|failed to map segment|bad_alloc|can't start new thread|out of memory",
    re.IGNORECASE,
)  # as torch, the system's loader, C++ and Python say it


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that Python, torch or the system had no more memory."""
    first: BaseException | None = error
    while first is not None:
        if isinstance(first, MemoryError) or type(first).__name__ == "OutOfMemoryError":
            return True
        if getattr(first, "errno", None) == errno.ENOMEM or _OUT_OF_MEMORY.search(str(first)):
            return True
        first = first.__cause__ or first.__context__
    return False


def out_of_memory(error: BaseException) -> str:
    """What to tell a person whose memory did not suffice."""
    detail = f" ({str(error).splitlines()[0]})" if str(error) else ""
    return f"There was not enough memory. Try --batch 1, or train with --set batch_size=1.{detail}"
