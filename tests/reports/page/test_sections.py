import re

import pytest

from mribench.reports.page.html import write_report
from mribench.reports.page.sections import SECTIONS


def render(maker):
    return write_report(maker.bench).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(shared_bench):
    return render(shared_bench)


def content(text, section):
    """What stands below the section's heading, without tags."""
    inner = re.search(rf'<section id="{section.id}"[^>]*>(.*?)</section>', text, re.S).group(1)
    return re.sub("<[^>]*>", "", inner.partition("</h2>")[2]).strip()


def test_ids_are_unique_and_in_the_order_of_the_page(shown):
    ids = [section.id for section in SECTIONS]
    assert len(set(ids)) == len(ids)
    assert re.findall(r'<section id="(\w+)"', shown) == ids


def test_the_navigation_leads_to_every_section_once_in_order(shown):
    navigation = re.search("<nav.*?</nav>", shown, re.S).group(0)
    links = re.findall(r'<a href="#(\w+)">([^<]+)</a>', navigation)
    assert links == [(section.id, section.link) for section in SECTIONS]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.id)
def test_each_section_has_its_heading_by_which_it_is_named(shown, section):
    opening = f'<section id="{section.id}" aria-labelledby="h-{section.id}">'
    assert f'{opening}\n<h2 id="h-{section.id}">{section.title}</h2>' in shown
    assert content(shown, section)


EMPTY = {
    "leaderboard": "This bench has no runs yet.",
    "entrants": "No entrant yet.",
    "viewer": "No volume can be read.",
    "sheet": "There is neither a reference volume nor an entrant.",
    "intervals": "Intervals are compared once two entrants have scores.",
    "metrics": "No entrant has scores yet.",
    "protocol": "(as asked)",
}


def silent(text, expected):
    """The sections that do not say what they should."""
    return [section.id for section in SECTIONS if expected[section.id] not in content(text, section)]


def test_a_section_without_anything_to_show_says_why(make_bench):
    maker = make_bench()
    with_cohort = {
        "sheet": "Reference",
        "viewer": "Reference, volume 1",
        "protocol": "no volume has two roles",
    }
    assert not silent(render(maker), EMPTY | with_cohort)
    (maker.bench.cohort_folder / "volumes.json").unlink()
    assert not silent(render(maker), EMPTY)
