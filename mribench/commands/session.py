"""The steps of a command as a person sees them: progress, one line per run, failures collected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mribench import training
from mribench.bench.controls import Control
from mribench.bench.folder import Bench, Run
from mribench.commands import steps as commands
from mribench.commands.console import Display
from mribench.data.cohort import Cohort
from mribench.data.nifti import Rescale
from mribench.errors import MribenchError, TooLittleMemory, UsageError, is_out_of_memory, out_of_memory
from mribench.files import read_json
from mribench.folders import open_entrant
from mribench.metrics.arrays.pairs import DEFAULT_MEMORY
from mribench.metrics.features.weights import Weights
from mribench.reports import leaderboard
from mribench.reports.page.html import write_report

RECORD_SECONDS = 1.0  # at most one line of training.jsonl per this time


@dataclass
class Session:
    """One command on one bench. A failure of one run is kept in `failures` and costs no other run."""

    screen: Display
    bench: Bench
    failures: list[str]

    @property
    def cohort(self) -> Cohort:
        return commands.start_cohort(self.bench, self.screen.report)

    def train(self, run: Run, record: dict[str, Any], device: str, overwrite: bool) -> None:
        """Train a planned run; prints the path of its weights."""
        budget, logged, last = record["config"]["budget"], 0.0, None
        for last in commands.train(self.bench, self.cohort, run, record, device=device, overwrite=overwrite):
            losses = " ".join(f"{name} {value:.4g}" for name, value in last.losses.items())
            self.screen.report(f"train {run.name}", min(last.seen, budget), budget, losses)
            if last.seconds - logged > RECORD_SECONDS or last.seen >= budget:
                training.append_record(run, last)
                logged = last.seconds
        self.say("train", run.name, last is not None)
        click.echo(run.weights)

    def generate(
        self, run: Run, settings: dict[str, Any] | None, device: str, batch: int, overwrite: bool
    ) -> None:
        """Sample one trained run; prints the folder."""
        made, total = 0, self.bench.protocol.evaluation.samples
        steps = commands.generate(self.bench, run, settings, device=device, batch=batch, overwrite=overwrite)
        for made in steps:
            self.screen.report(f"generate {run.name}", made, total)
        self.say("generate", run.name, made > 0)
        click.echo(run.samples_folder)

    def generate_all(self, device: str, batch: int, overwrite: bool) -> None:
        """Sample every trained run and make the controls."""
        for run in self.bench.runs():
            with self.at_its_own_cost(run.name):
                if run.read_record()["kind"] == "model":
                    self.generate(run, None, device, batch, overwrite)
        for control, count in commands.possible_controls(self.bench, self.cohort):
            with self.at_its_own_cost(control.name):
                self._make_control(control, count, overwrite)

    def _make_control(self, control: Control, count: int, overwrite: bool) -> None:
        made = 0
        for made in commands.make_control(self.bench, self.cohort, control, count, overwrite=overwrite):
            self.screen.report(f"make {control.name}", made, count)
        self.say("make", control.name, made > 0)

    def add_folder(self, name: str, folder: Path, rescale: Rescale | None, overwrite: bool) -> None:
        """Make a folder of NIfTI an entrant of the bench."""
        volumes = open_entrant(self.bench, name, folder, rescale, self.screen.report)
        for done in commands.add_folder(self.bench, name, volumes, overwrite=overwrite):
            self.screen.report(f"copy {name}", done, self.bench.protocol.evaluation.samples)

    def evaluate(
        self,
        runs: Sequence[Run] | None,
        weights: Weights | None,
        device: str,
        memory: int = DEFAULT_MEMORY,
        overwrite: bool = False,
    ) -> list[Run]:
        """Score runs (None = all that have samples) one by one; returns those that have scores now.

        Raises UsageError for 3D weights that the protocol's metrics do not use.
        """
        protocol = self.bench.protocol
        if weights and weights.volumes and "fid_3d" not in protocol.evaluation.metrics:
            raise UsageError(
                f"--weights-3d is for fid_3d, which protocol {protocol.name} does not measure. "
                "Name it among the metrics of a .toml protocol, or score two folders with --real and --samples."
            )
        scored = []
        for run in commands.entrants(self.bench) if runs is None else runs:
            with self.at_its_own_cost(run.name):
                self._evaluate(run, weights, device, memory, overwrite)
                scored.append(run)
        return scored

    def _evaluate(self, run: Run, weights: Weights | None, device: str, memory: int, overwrite: bool) -> None:
        def progress(what: str, done: int, total: int) -> None:
            self.screen.report(f"{run.name}: {what}", done, total)

        new, missing = commands.evaluate(
            self.bench,
            self.cohort,
            run,
            weights=weights,
            device=device,
            memory=memory,
            overwrite=overwrite,
            progress=progress,
        )
        self.say("evaluate", run.name, new)
        nothing = len(missing) == len(self.bench.protocol.evaluation.metrics)
        for one in missing:
            click.echo(f"  not computed: {one.metric}: {one.reason}", err=True)
            if nothing or not one.by_design:
                self.failures.append(f"{run.name}: {one.metric}: {one.reason}")

    def report(self, weights: Weights | None, device: str, memory: int = DEFAULT_MEMORY) -> None:
        """Score what has no scores yet, embed all entrants, write the report; prints table and path."""
        if not commands.entrants(self.bench):
            raise UsageError(f"{self.bench.folder} has no samples to report on. Run: mribench generate --all")
        scored = self.evaluate(None, weights, device, memory)
        with self.at_its_own_cost("t-SNE"):
            commands.embed(
                self.bench, self.cohort, scored, weights=weights, device=device, progress=self.screen.report
            )
        page = write_report(self.bench)
        click.echo(self.table(), err=True)
        click.echo(page)

    @contextmanager
    def at_its_own_cost(self, name: str) -> Iterator[None]:
        """What fails inside is noted in `failures` and stops nothing else."""
        try:
            yield
        except TooLittleMemory:
            raise
        except MribenchError as error:
            self.failures.append(f"{name}: {error}")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.failures.append(f"{name}: {out_of_memory(error)}")

    def table(self) -> str:
        """The leaderboard as text."""
        return leaderboard.as_text(leaderboard.build(self.bench))

    def scores_as_json(self, runs: Sequence[Run]) -> str:
        """The scores.json of each run, as one JSON list."""
        return json.dumps([read_json(run.scores) for run in runs], indent=1)

    def say(self, verb: str, name: str, new: bool) -> None:
        """One line on stderr: done, or nothing to do."""
        click.echo(f"{verb} {name}: {'done' if new else 'up to date'}", err=True)
