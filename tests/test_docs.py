"""The docs: figures, links, command lines, paths and words are those of the package."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import click
import pytest

import mribench
from mribench.cli import main
from mribench.models import MODELS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(mribench.__file__).resolve().parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
OURS = [page for page in PAGES if page.name != "THIRD_PARTY.md"]
NOT_OUR_WORDS = re.compile(r"\b(dear|dearer|floors?|sees|blind|deletes)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def figures():
    """docs/figures.py, which imports the modules beside it."""
    sys.path.insert(0, str(ROOT / "docs"))
    yield importlib.import_module("figures")
    sys.path.remove(str(ROOT / "docs"))


def each(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


def prose(page):
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    for title in re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@each(PAGES)
def test_every_figure_is_that_of_the_results_files(figures, page):
    _, stale, faults = figures.fill(page.read_text())
    assert not faults
    assert not stale, "run `python docs/figures.py`"


def test_a_stale_figure_is_named_and_filled_in(figures):
    page = "It takes <!--= demo/seconds clock -->a while<!--/--> in all."
    text, stale, faults = figures.fill(page)
    assert stale == ["demo/seconds clock"]
    assert re.fullmatch(r"It takes <!--= demo/seconds clock -->\d+ min \d+ s<!--/--> in all\.", text)
    assert not faults
    assert figures.fill(text) == (text, [], [])


def test_a_figure_that_no_results_file_has_is_a_fault_and_leaves_its_place(figures):
    page = "<!--= demo/hours .1f -->1.0<!--/--> <!--= nothing -->2<!--/-->"
    text, stale, faults = figures.fill(page)
    assert (text, stale) == (page, [])
    assert [fault.split(":")[0] for fault in faults] == ["demo/hours .1f", "nothing"]


@each(PAGES)
def test_a_figure_inside_a_sentence_never_begins_a_line_where_markdown_would_end_the_paragraph(page):
    assert not re.findall(r"^<!--= .+? -->.+$", page.read_text(), flags=re.MULTILINE)


@each(PAGES)
def test_every_relative_link_leads_to_a_file_and_to_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(linked), f"{linked.name} has no heading #{anchor}"


def command_lines(page):
    """Command lines of code blocks (fenced or indented) and code spans."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"^ {4}(.*mribench .+)$", text, flags=re.MULTILINE)
    spans = re.findall(r"(?<!`)`(mribench [^`]+)`", prose(page).replace("\n", " "))
    for line in "\n".join([*blocks, *spans]).splitlines():
        for part in re.split(r"&&|;", line):
            words = re.split(r"#|\s{2,}|\.\.\.", part.strip())[0].strip()
            if re.match(r"mribench [a-z-]", words):
                yield words


def parse(line):
    """Parse a command line as click does, without running it or looking for its files; raises click's error."""
    words = shlex.split(line)[1:]
    if words[0].startswith("-"):
        return main.make_parser(click.Context(main)).parse_args(words)
    command = main.commands.get(words[0])
    assert command, f"there is no command {words[0]!r}"
    values, extra, _ = command.make_parser(click.Context(command)).parse_args(words[1:])
    assert not extra, f"unexpected {extra}"
    for parameter in command.params:
        value = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            assert value in parameter.type.choices, f"{value!r} is none of {parameter.type.choices}"
    return command.name, values


def test_the_parser_of_the_docs_refuses_what_the_command_line_refuses():
    parse("mribench evaluate --real A --samples B")
    for line in (
        "mribench evaluate --reel A",
        "mribench list model",
        "mribench report now",
        "mribench train --seed",
    ):
        with pytest.raises((AssertionError, click.UsageError)):
            parse(line)


@each(OURS)
def test_every_command_line_parses_and_names_a_model_that_exists(page):
    for line in set(command_lines(page)):
        try:
            parsed = parse(line)
        except (AssertionError, click.UsageError) as error:
            pytest.fail(f"{line}: {error}")
        model = parsed[1].get("model") if parsed[0] == "train" else None
        if isinstance(model, str) and not model.isupper() and not page.name.startswith("adding-"):
            assert model in MODELS, line


def paths(page):
    """Paths of the repository that a page names, but for placeholders such as NAME.py."""
    for path in re.findall(r"(?<![\w/.\"-])((?:mribench|benchmarks|docs|tests)/[\w./-]*)", page.read_text()):
        if not re.search(r"[A-Z]{3,}|/\d+$", path):
            yield path.rstrip(".")


@each([page for page in OURS if page.name != "CHANGELOG.md"])
def test_every_path_that_a_page_names_exists(page):
    for path in paths(page):
        place = PACKAGE.parent if path.startswith("mribench/") else ROOT
        example = page.name.startswith("adding-") and path.startswith(("mribench/models", "mribench/metrics"))
        assert (place / path).exists() or example, path


@each([page for page in OURS if page.name != "CHANGELOG.md"])
def test_every_module_and_name_that_a_page_imports_exists(page):
    for name in re.findall(r"\bmribench(?:\.[A-Za-z_0-9]+)+", page.read_text()):
        if page.name.startswith("adding-"):
            continue
        assert resolves(name), name


def resolves(dotted):
    """True when `dotted` is a module, or a name in one."""
    try:
        if importlib.util.find_spec(dotted):
            return True
    except ModuleNotFoundError:
        pass
    module, _, attribute = dotted.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False


def modules_of_rooms():
    """(folder, module) of the table of rooms in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = re.search(r"^\| room .*?\n\n", text, flags=re.DOTALL | re.MULTILINE)[0]
    return set(re.findall(r"`mribench/([\w/]+?)/?(?:\.py)?`", rooms))


def test_every_room_of_the_package_is_in_the_plan():
    folders = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"."}
    inside = {"bench/protocols", "metrics/arrays/kernels"}
    assert folders - inside <= modules_of_rooms()


@each([page for page in OURS if page.name not in ("CHANGELOG.md", "glossary.md")])
def test_the_words_are_those_of_the_glossary(page):
    lines = prose(page).splitlines()
    assert not [line for line in lines if NOT_OUR_WORDS.search(re.sub(r"`[^`]*`", "", line))]


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_names_that_exist(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mribench"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                assert resolves(name), name
