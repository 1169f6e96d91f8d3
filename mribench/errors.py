"""The two kinds of failure a user can meet; only cli.py turns them into an exit code."""

from collections.abc import Sequence


class MribenchError(Exception):
    """Something that must hold does not: says what, what was given, what to do. Exit code 1."""

    exit_code = 1


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch ran out of memory (told by name and words: on a CPU torch has no type for it)."""
    words = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return words or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def out_of_memory(error: BaseException) -> str:
    """What to tell a person whose memory did not suffice."""
    detail = f" ({str(error).splitlines()[0]})" if str(error) else ""
    return f"There was not enough memory. Try --batch 1, or train with --set batch_size=1.{detail}"
