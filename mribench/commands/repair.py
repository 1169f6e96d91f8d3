"""What `mribench verify --repair` does: damaged files are removed, then the commands that made them are run."""

from __future__ import annotations

from collections.abc import Sequence

from mribench.bench.cohort import start_cohort
from mribench.bench.controls import possible_controls
from mribench.bench.folder import Bench, Run
from mribench.bench.verification import Damage
from mribench.data.prepare.simulated import simulated_cohort
from mribench.files import drop_damaged_lines, write_sums, write_text
from mribench.models import get_model
from mribench.reports.page.quality import PAGE, quality_page
from mribench.session import Session
from mribench.training import Plan


def repair_damages(session: Session, damages: Sequence[Damage]) -> None:
    """Make good what can be; a failure of one run is noted in the session and the others go on."""
    steps = {damage.remedy for damage in damages}
    for damage in damages:
        if damage.remedy == "lines":
            drop_damaged_lines(damage.path)
        elif damage.remedy not in (
            "",
            "train",
        ):  # weights are written again from the checkpoint, over the old ones
            damage.path.unlink(missing_ok=True)
    if "cohort" in steps:
        _make_cohort(session)
    if "selftest" in steps:
        _write_selftest_table(session.bench)
    for run in _runs(damages, "train"):
        with session.collect_failures(run.name):
            _train(session, run)
    for run in _runs(damages, "generate"):
        with session.collect_failures(run.name):
            _generate(session, run)
    scored = [run for run in session.bench.entrants() if run in _runs(damages, "generate", "evaluate")]
    if scored:
        session.evaluate(scored)
    if "report" in steps:
        session.report()


def _runs(damages: Sequence[Damage], *remedies: str) -> list[Run]:
    return list(dict.fromkeys(damage.run for damage in damages if damage.run and damage.remedy in remedies))


def _make_cohort(session: Session) -> None:
    bench = session.bench
    if bench.protocol.cohort.source == "simulated":
        with bench.lock("cohort"):
            simulated_cohort(bench.cohort_folder, bench.protocol.cohort_plan, session.context.progress)
    elif not (bench.cohort_folder / PAGE).exists():
        quality_page(start_cohort(bench, session.context.progress), new=True)


def _train(session: Session, run: Run) -> None:
    record = run.read_record()
    config = get_model(str(record.model)).read_config(record.config)
    session.train(Plan(run, record, config))


def _generate(session: Session, run: Run) -> None:
    for control, count in possible_controls(session.cohort(), session.bench.protocol.evaluation.samples):
        if control.name == run.name:
            session.make_control(control, count)
            return
    if entrant := session.bench.entrant_of_door(run):
        session.make_door_control(entrant)
        return
    session.generate(run, None)


def _write_selftest_table(bench: Bench) -> None:
    from mribench.selftest.record import SelfTest
    from mribench.selftest.verdicts import as_csv

    write_text(bench.folder / "selftest.csv", as_csv(SelfTest.read(bench.folder / "selftest.json")))
    write_sums(bench.folder, ["selftest.csv"])
