"""mribench generate."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from mribench import processes
from mribench.commands.completion import run_names
from mribench.commands.options import (
    Compute,
    batch_option,
    bench_option,
    compute_options,
    one_or_all,
    overwrite_option,
    parse_settings,
)
from mribench.errors import UsageError


@click.command()
@click.argument("run", required=False, shell_complete=run_names)
@click.option("--all", "everything", is_flag=True, help="Every trained run, and the controls.")
@bench_option
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting of RUN's sampler."
)
@click.option("--name", help="Make another entrant of RUN's weights, with the --set given, and call it so.")
@compute_options()
@batch_option
@overwrite_option
@click.pass_obj
def generate(
    quiet: bool,
    run: str | None,
    everything: bool,
    folder: Path,
    settings: tuple[str, ...],
    name: str | None,
    compute: Compute,
    batch: int,
    overwrite: bool,
) -> None:
    """Sample RUN into NIfTI volumes, as many as the protocol asks for.

    \b
    mribench generate --all
    mribench generate cdpm --set ddim_steps=20 --batch 4
    mribench generate cdpm --name cdpm-dpm20 --set ddim_steps=20
    """
    from mribench.bench.folder import open_bench
    from mribench.commands.console import session
    from mribench.generation import start_sampler_run

    one_or_all(run, everything, "RUN")
    if everything and (settings or name):
        raise UsageError("--set and --name go with one RUN: models have different samplers.")
    with session(quiet, compute, lambda: open_bench(folder)) as current:
        if everything:
            current.generate_all(batch, overwrite)
        else:
            chosen, changed = current.bench.existing_run(str(run)), parse_settings(settings) or None
            if name:
                chosen = processes.from_first(
                    partial(
                        start_sampler_run, current.bench, chosen, name, changed or {}, overwrite=overwrite
                    )
                )
                changed, overwrite = None, False
            current.generate(chosen, changed, batch, overwrite)
