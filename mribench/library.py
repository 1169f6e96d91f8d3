"""A bench as a Python program uses it: the commands train, generate, evaluate and report as methods."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd

from mribench.bench.folder import Run, open_bench, start_bench
from mribench.bench.records import ScoresRecord, TrainingStep
from mribench.data.nifti import Rescale
from mribench.errors import finish
from mribench.generation import start_sampler_run
from mribench.reports import leaderboard
from mribench.reports.csv_tables import as_csv
from mribench.reports.fields import make_table
from mribench.reports.records import Reader, read_training
from mribench.runtime import Context, make_context
from mribench.samples import BATCH
from mribench.scored import Evaluation
from mribench.session import Session
from mribench.training import plan_training


class Bench:
    """A bench on disk: one protocol, its cohort and all entrants. Every method resumes and repeats as its command does.

    With `protocol` (a shipped name or a .toml file) the bench is made if there is none. `context` (see `make_context`)
    replaces `device`. Raises UsageError when there is no bench, or one of another protocol.

    >>> import tempfile
    >>> Bench(tempfile.mkdtemp(), "demo", device="cpu").runs
    []
    """

    def __init__(
        self,
        folder: Path | str,
        protocol: str | None = None,
        *,
        simulated: bool = False,
        device: str = "auto",
        context: Context | None = None,
    ) -> None:
        path = Path(folder)
        files = start_bench(path, protocol, simulated) if protocol else open_bench(path)
        self._session = Session(files, context or make_context(device))

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._session.bench.folder

    @property
    def runs(self) -> list[str]:
        """Names of all runs, trained or not."""
        return [run.name for run in self._session.bench.runs()]

    def train(
        self,
        model: str,
        *,
        preset: str | None = None,
        seed: int = 0,
        name: str | None = None,
        overwrite: bool = False,
        raise_budget: bool = False,
        score_every: int | None = None,
        tensorboard: Path | str | None = None,
        **settings: Any,
    ) -> str:
        """Train a model with settings of its own, `mribench train MODEL --set ...`; returns the run's name.

        `score_every`: volumes between two scores of a few samples; `tensorboard`: folder for losses and scores.

        Raises UsageError for unknown settings or a run with other ones, MribenchError when a loss is not finite.
        """
        session = self._session
        plan = plan_training(session.bench, session.cohort(), model, preset, settings, seed, name)
        session.train(plan, overwrite, raise_budget, score_every, Path(tensorboard) if tensorboard else None)
        return plan.run.name

    def training(self, run: str) -> list[TrainingStep]:
        """The records of a run's training, by step: volumes seen, losses, scores."""
        return read_training(self._run(run).progress, Reader(self._session.bench))

    def generate(
        self,
        run: str | None = None,
        *,
        name: str | None = None,
        batch: int = BATCH,
        overwrite: bool = False,
        **settings: Any,
    ) -> list[str]:
        """Sample one trained run, or all and the controls; returns the names of the entrants that there are now.

        `settings` are those of the sampler; with `name` they make another entrant of the run's weights. Raises
        UsageError for other settings, MribenchError for a run that is not trained, or that lists what failed.
        """
        session = self._session
        if run is None:
            session.generate_all(batch, overwrite)
            self._finish()
        elif name is None:
            session.generate(self._run(run), settings or None, batch, overwrite)
        else:
            chosen = start_sampler_run(session.bench, self._run(run), name, settings, overwrite=overwrite)
            session.generate(chosen, None, batch)
        return [entrant.name for entrant in session.bench.entrants()]

    def add(
        self, folder: Path | str, name: str, *, rescale: Rescale | None = None, overwrite: bool = False
    ) -> None:
        """Make a folder of NIfTI an entrant; raises MribenchError when its volumes have another grid or range."""
        self._session.add_folder(name, Path(folder), rescale, overwrite)

    def evaluate(self, run: str | None = None, *, overwrite: bool = False) -> dict[str, Evaluation]:
        """Score one entrant, or all; returns each one's scores by its name.

        Raises MribenchError that lists what failed; what succeeded is on disk, and is returned by the next call.
        """
        runs = None if run is None else [self._run(run)]
        scored = self._session.evaluate(runs, overwrite)
        self._finish()
        return {each.name: Evaluation.of(ScoresRecord.read(each.scores)) for each in scored}

    def report(self) -> Path:
        """Score what has no scores, and write page and tables; returns the page's path. Raises as `evaluate`."""
        page = self._session.report()
        self._finish()
        return page

    def leaderboard(self) -> pd.DataFrame:
        """The table as it stands, one row an entrant, in the columns of table.csv; computes nothing."""
        table = make_table(leaderboard.build(self._session.bench))
        return pd.read_csv(io.StringIO(as_csv(table))).set_index("run")

    def _run(self, name: str) -> Run:
        return self._session.bench.existing_run(name)

    def _finish(self) -> None:
        failures, self._session.failures = self._session.failures, []
        finish(failures)
