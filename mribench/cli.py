"""The command line: one group, one module of `commands` a command. torch is imported inside commands only."""

from __future__ import annotations

import logging
import os
import sys

import click

from mribench import __version__, processes
from mribench.commands.adopt import adopt
from mribench.commands.check import check
from mribench.commands.compare import compare
from mribench.commands.demo import demo
from mribench.commands.evaluate import evaluate
from mribench.commands.export import export
from mribench.commands.generate import generate
from mribench.commands.init import init
from mribench.commands.leaderboard import leaderboard
from mribench.commands.list import list_things
from mribench.commands.new import new
from mribench.commands.options import Group
from mribench.commands.prepare import prepare
from mribench.commands.report import report
from mribench.commands.selftest import selftest
from mribench.commands.status import status
from mribench.commands.train import train
from mribench.commands.verify import verify
from mribench.errors import UsageError

# What CUDA asks for before its matrix products are deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Commands that several processes may share (docs/cluster.md).
JOINT = {"prepare", "train", "generate", "evaluate", "report"}

# On stderr; the product's path (or --json) is all that goes to stdout.
EPILOG = (
    "Run a killed command again: it goes on where it stopped. Exit codes: 0 done, 1 failed, 2 wrong usage."
)


@click.group(cls=Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mribench")
@click.option("-v", "--verbose", count=True, help="Say more.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_context
def main(context: click.Context, verbose: int, quiet: bool) -> None:
    """Train, sample and rank 3D generative models of brain MRI.

    \b
    mribench demo                                   everything once, on simulated brains
    mribench evaluate --real DIR --samples DIR      score two folders of NIfTI
    mribench train cdpm; mribench generate --all; mribench report
    """
    level = (logging.ERROR if quiet else logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    context.obj = quiet
    if os.environ.get("NO_COLOR"):
        context.color = False  # otherwise click colours on terminals only
    if processes.size() > 1 and context.invoked_subcommand not in JOINT:
        raise UsageError(
            f"mribench {context.invoked_subcommand} is the work of one process. Start it without torchrun or srun."
        )


for command in (
    demo,
    init,
    prepare,
    train,
    generate,
    adopt,
    evaluate,
    report,
    status,
    export,
    compare,
    leaderboard,
    list_things,
    new,
    check,
    verify,
    selftest,
):
    main.add_command(command)
