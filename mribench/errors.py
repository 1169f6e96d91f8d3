"""The two kinds of failure a user can meet; only cli.py turns them into an exit code."""

from collections.abc import Sequence

OUT_OF_MEMORY = "There was not enough memory. Try --batch 1, or train with --set batch_size=1."


class MribenchError(Exception):
    """Something that must hold does not: says what, what was given, what to do. Exit code 1."""

    exit_code = 1


class NotApplicable(MribenchError):
    """A metric has no meaning for these sets by their nature; trying again cannot help."""


class UsageError(MribenchError):
    """The command was asked for something it cannot mean. Exit code 2."""

    exit_code = 2


def finish(failures: Sequence[str]) -> None:
    """Raise MribenchError listing what failed, if anything did: work that could be done has been done."""
    if failures:
        raise MribenchError("these failed:\n  " + "\n  ".join(failures))
