"""One piece of work on one bench: the steps in their order, a line per run, failures of single runs collected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mribench import processes
from mribench.adoption import Door, adopt, advice_on, make_door_control
from mribench.bench.cohort import start_cohort
from mribench.bench.controls import Control, possible_controls
from mribench.bench.folder import Bench, Run
from mribench.bench.records import ScoresRecord, TrainingStep
from mribench.data.cohort import Cohort
from mribench.data.nifti import Rescale
from mribench.errors import (
    MribenchError,
    TooLittleMemory,
    UsageError,
    is_out_of_memory,
    out_of_memory,
)
from mribench.evaluation import embed, evaluate_run
from mribench.generation import add_folder, generate, make_control
from mribench.reports import leaderboard
from mribench.reports.page.html import write_report
from mribench.reports.printing import print_report
from mribench.runtime import Context, no_progress
from mribench.samples import BATCH
from mribench.training import Plan, Scorer, train
from mribench.training_scores import TensorBoard, TrainingScores


def _nothing(*_: Any) -> None:
    """Tell nobody."""


@dataclass
class Session:
    """A bench, a context, and who is told: `show_step` progress with a note, `say` a line, `hand_over` a product.

    The failure of one run is noted in `failures`; the others go on.
    """

    bench: Bench
    context: Context
    show_step: Callable[[str, int, int, str], None] = _nothing
    say: Callable[[str], None] = _nothing
    hand_over: Callable[[Path], None] = _nothing
    failures: list[str] = field(default_factory=list)
    _cohort: Cohort | None = None

    def cohort(self) -> Cohort:
        """The bench's cohort, opened (or, where it is simulated, made) once."""
        if self._cohort is None:
            self._cohort = processes.first_alone(lambda: start_cohort(self.bench, self.context.progress))
        return self._cohort

    def train(
        self,
        plan: Plan,
        overwrite: bool = False,
        raise_budget: bool = False,
        score_every: int | None = None,
        tensorboard: Path | None = None,
    ) -> None:
        """Train, or train on; hands over the weights. Scores every `score_every` volumes where that is given."""
        name, budget = plan.run.name, plan.config.budget

        def show(step: TrainingStep) -> None:
            losses = " ".join(f"{loss} {value:.4g}" for loss, value in step.losses.items())
            self.show_step(f"train {name}", min(step.seen, budget), budget, losses)
            if board:
                board.write(step)

        board = TensorBoard(tensorboard, name) if tensorboard and processes.is_first() else None
        try:
            outcome = train(
                self.bench,
                self.cohort(),
                plan,
                self.context,
                overwrite=overwrite,
                raise_budget=raise_budget,
                scorer=self._scorer(score_every),
                on_step=show,
            )
        finally:
            if board:
                board.close()
        self._say("train", name, outcome)
        self.hand_over(plan.run.weights)

    def _scorer(self, every: int | None) -> Scorer | None:
        if every is None:
            return None
        extractor, quiet = (
            self.bench.protocol.evaluation.extractor,
            replace(self.context, progress=no_progress),
        )
        return Scorer(every, TrainingScores(self.cohort(), extractor, quiet))

    def generate(
        self, run: Run, settings: dict[str, Any] | None, batch: int = BATCH, overwrite: bool = False
    ) -> None:
        """Sample one trained run; hands over the folder."""
        outcome = generate(self.bench, run, self.context, settings=settings, batch=batch, overwrite=overwrite)
        self._say("generate", run.name, outcome)
        self.hand_over(run.samples_folder)

    def generate_all(self, batch: int = BATCH, overwrite: bool = False) -> None:
        """Sample every trained run and make the controls."""
        for run in self.bench.runs():
            with self.collect_failures(run.name):
                record = processes.from_first(run.read_record)
                if record.kind == "model":
                    self.generate(run, None, batch, overwrite)
                elif record.kind == "folder" and record.adoption:
                    self.make_door_control(run, overwrite)
        wanted = self.bench.protocol.evaluation.samples
        for control, count in possible_controls(self.cohort(), wanted):
            with self.collect_failures(control.name):
                self.make_control(control, count, overwrite)

    def make_control(self, control: Control, count: int, overwrite: bool = False) -> None:
        """Make a control's volumes."""
        outcome = processes.from_first(
            lambda: make_control(self.bench, self.cohort(), control, count, self.context, overwrite=overwrite)
        )
        self._say("make", control.name, outcome)

    def add_folder(self, name: str, folder: Path, rescale: Rescale | None, overwrite: bool) -> None:
        """Make a folder of NIfTI an entrant of the bench."""
        processes.from_first(
            lambda: add_folder(self.bench, name, folder, rescale, self.context, overwrite=overwrite)
        )

    def adopt(self, name: str, door: Door, skip_bad: bool, overwrite: bool) -> None:
        """Make stored volumes an entrant, and its control of real volumes; hands over the folder."""
        outcome = adopt(self.bench, name, door, self.context, skip_bad=skip_bad, overwrite=overwrite)
        self._say("adopt", name, outcome)
        run = self.bench.run(name)
        if outcome == "done" and (said := advice_on(door, run, self.cohort())):
            self.say(said)
        self.make_door_control(run, overwrite)
        self.hand_over(run.samples_folder)

    def make_door_control(self, run: Run, overwrite: bool = False) -> None:
        """Make the control of an adopted entrant."""
        outcome = processes.from_first(
            lambda: make_door_control(self.bench, self.cohort(), run, self.context, overwrite=overwrite)
        )
        why = f"left out, because protocol {self.bench.protocol.name} has no held-out volumes"
        self._say("make", self.bench.door_control(run).name, outcome or why)

    def evaluate(self, runs: Sequence[Run] | None = None, overwrite: bool = False) -> list[Run]:
        """Score runs (None = all that have samples); returns those that have scores now.

        Raises UsageError for 3D weights that the protocol's metrics do not use.
        """
        protocol = self.bench.protocol
        if self.context.weights_3d and "fid_3d" not in protocol.evaluation.metrics:
            raise UsageError(
                f"--weights-3d is for fid_3d, which protocol {protocol.name} does not measure. "
                "Name it among the metrics of a .toml protocol, or score two folders with --real and --samples."
            )
        scored = []
        for run in self.bench.entrants() if runs is None else runs:
            with self.collect_failures(run.name):
                self._evaluate(run, overwrite)
                scored.append(run)
        return scored

    def _evaluate(self, run: Run, overwrite: bool) -> None:
        context = self.context.named(run.name)
        outcome, missing = evaluate_run(self.bench, self.cohort(), run, context, overwrite=overwrite)
        self._say("evaluate", run.name, outcome)
        nothing = len(missing) == len(self.bench.protocol.evaluation.metrics)
        for absent in missing:
            self.say(f"  not computed: {absent.metric}: {absent.reason}")
            if nothing or not absent.by_design:
                self.failures.append(f"{run.name}: {absent.metric}: {absent.reason}")

    def report(
        self,
        real_pictures: bool = True,
        pictures: int = 2,
        wide: bool = False,
        figures: bool = False,
        browser: Path | None = None,
    ) -> Path:
        """Score what has no scores yet, embed all entrants, write the report; says the table, returns the page.

        A `browser` prints the page as PDF too.
        """
        if not self.bench.entrants():
            raise UsageError(f"{self.bench.folder} has no samples to report on. Run: mribench generate --all")
        scored = self.evaluate()
        with self.collect_failures("t-SNE"):
            cohort = self.cohort()
            processes.from_first(lambda: embed(self.bench, cohort, scored, self.context))
        with self.bench.lock("report"):
            page = processes.from_first(lambda: write_report(self.bench, real_pictures, pictures, figures))
            self.hand_over(page)
            with self.collect_failures("index.pdf"):
                if browser is not None:
                    self.hand_over(processes.from_first(lambda: print_report(self.bench, browser)))
        self.say(self.table(wide).rstrip())
        return page

    @contextmanager
    def collect_failures(self, name: str) -> Iterator[None]:
        """A failure inside is noted in `failures`, and the command goes on; of several processes, if all failed so."""
        try:
            yield
        except TooLittleMemory:
            raise
        except (MribenchError, OSError) as error:
            if processes.size() > 1 and not getattr(error, "agreed", False):
                raise
            reason = out_of_memory(error) if is_out_of_memory(error) else error
            self.failures.append(f"{name}: {reason}")
        except Exception as error:
            if processes.size() > 1 or not is_out_of_memory(error):
                raise
            self.failures.append(f"{name}: {out_of_memory(error)}")

    def table(self, wide: bool = False) -> str:
        """The leaderboard as text for a terminal."""
        return leaderboard.as_text(leaderboard.build(self.bench), wide)

    def scores_as_json(self, runs: Sequence[Run]) -> str:
        """The scores.json of each run, as one JSON list."""
        return json.dumps([ScoresRecord.read(run.scores).as_json() for run in runs], indent=1)

    def _say(self, verb: str, name: str, outcome: str) -> None:
        self.say(f"{verb} {name}: {outcome}")
