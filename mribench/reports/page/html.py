"""The page: one HTML file that needs no other file and loads nothing from the network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort
from mribench.errors import MribenchError
from mribench.files import write_sums, write_text
from mribench.reports import papers
from mribench.reports.discretion import without_people
from mribench.reports.leaderboard import FILES, from_bench, write_tables
from mribench.reports.page import templating, words
from mribench.reports.page.front import front_facts, front_warnings
from mribench.reports.page.sections import SECTIONS, Material
from mribench.reports.page.viewer import PICTURES
from mribench.reports.records import read_cohort, read_entrants
from mribench.reports.rows import Leaderboard


def write_report(
    bench: Bench, real_pictures: bool = True, pictures: int = PICTURES, figures: bool = False
) -> Path:
    """Write index.html and the tables beside it from the bench's files; returns the page's path.

    With `figures` also figures/ for papers. Those of an earlier report and its PDF, perhaps outdated, are removed.
    What cannot be read appears with its reason. Unchanged files give an unchanged page. `pictures` volumes of each
    entrant can be looked into. Without `real_pictures` nothing shows or names a real volume; raises MribenchError when
    the cohort, which has the names, cannot be read.
    """
    cohort, trouble = read_cohort(bench)
    entrants = read_entrants(bench, cohort)
    if not real_pictures:
        if cohort is None:
            raise MribenchError(f"Which names must not be shown is known from the cohort only: {trouble}")
        bench, cohort, entrants = without_people(bench, cohort, entrants)
    board = from_bench(bench, cohort, entrants)
    write_tables(board, bench.report)
    write_text(bench.page, render(bench, cohort, board, trouble, pictures))
    bench.page.with_suffix(".pdf").unlink(missing_ok=True)
    write_sums(bench.report, [*FILES, bench.page.name])
    if figures:
        papers.write_figures(bench, cohort, board)
    else:
        papers.remove_figures(bench)
    return bench.page


def render(
    bench: Bench, cohort: Cohort | None, board: Leaderboard, trouble: str = "", pictures: int = PICTURES
) -> str:
    """The page as text; `trouble` says why there is no cohort, `pictures` volumes of each entrant are in the viewer."""
    material, spec = Material(bench, cohort, board, pictures), bench.protocol.cohort
    viewer, _ = material.viewer
    script = files("mribench.reports.page").joinpath("page.js").read_text(encoding="utf-8")
    warnings = (
        (words.SIMULATED, (cohort.source if cohort else spec.source) == "simulated"),
        (words.REWARDS_COPYING, spec.reference_from_train),
    )
    return templating.page(
        "page.html.j2",
        title=f"mribench: {bench.protocol.name}",
        style=templating.style_sheet(
            "style.css.j2",
            material.gallery.grid,
            groups=len(material.leaderboard.groups),
            running_head=templating.css_string(f"{bench.protocol.name}. {board.headline}"),
        ),
        headline=board.headline,
        cards=material.cards,
        places=material.places,
        facts=front_facts(bench, cohort, material.entrants),
        notices=front_warnings(board),
        scripts=[*([viewer.script] if viewer else []), script],
        words=words,
        protocol=bench.protocol.name,
        warnings=[text for text, applies in warnings if applies],
        trouble=trouble,
        sections=[(section, section.render(material)) for section in SECTIONS],
    )
