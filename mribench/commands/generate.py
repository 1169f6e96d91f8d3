"""mribench generate."""

from __future__ import annotations

from pathlib import Path

import click

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
@click.argument("run", required=False)
@click.option("--all", "everything", is_flag=True, help="Every trained run, and the controls.")
@bench_option
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting of RUN's sampler."
)
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
    compute: Compute,
    batch: int,
    overwrite: bool,
) -> None:
    """Sample RUN into NIfTI volumes, as many as the protocol asks for.

    \b
    mribench generate --all
    mribench generate cdpm --set ddim_steps=20 --batch 4
    """
    from mribench.bench.folder import open_bench
    from mribench.commands.session import session

    one_or_all(run, everything, "RUN")
    if everything and settings:
        raise UsageError("--set goes with one RUN: models have different samplers.")
    with session(quiet, compute, lambda: open_bench(folder)) as current:
        if everything:
            current.generate_all(batch, overwrite)
        else:
            chosen = current.bench.existing_run(str(run))
            current.generate(chosen, parse_settings(settings) or None, batch, overwrite)
