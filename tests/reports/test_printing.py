"""The page as PDF: which browser, what when it fails, hangs or is not there."""

import os
import shutil
import stat
import time

import pytest
from click.testing import CliRunner

from mribench.cli import main
from mribench.errors import MribenchError, UsageError
from mribench.files import differing
from mribench.reports.printing import BROWSER, find_browser, print_page

PRINTS = 'for a in "$@"; do case "$a" in --print-to-pdf=*) printf "%%PDF-1.4 ok" > "${a#*=}";; esac; done\n'


@pytest.fixture
def make_browser(tmp_path, monkeypatch):
    """A program named like a browser, alone on PATH, that runs a shell script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(BROWSER, raising=False)

    def make(script, name="google-chrome"):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "index.html"
    path.write_text("<!doctype html><title>t</title><p>one page</p>")
    return path


def test_the_first_installed_browser_is_taken_and_the_variable_goes_before(make_browser, monkeypatch):
    edge = make_browser("", "msedge")
    assert find_browser() == edge
    chromium = make_browser("", "chromium")
    assert find_browser() == chromium
    monkeypatch.setenv(BROWSER, str(edge))
    assert find_browser() == edge
    monkeypatch.setenv(BROWSER, "firefox-of-mine")
    with pytest.raises(UsageError, match="firefox-of-mine, which MRIBENCH_BROWSER names, is no program"):
        find_browser()


def test_without_a_browser_the_command_ends_before_it_works(make_browser, full_bench):
    result = CliRunner().invoke(main, ["report", "--pdf", "--bench", str(full_bench.bench.folder)])
    assert result.exit_code == 2 and "needs a browser of the Chromium family" in result.output
    assert not full_bench.bench.page.exists()


def test_a_pdf_takes_its_place_whole(make_browser, page, tmp_path):
    print_page(page, tmp_path / "out.pdf", make_browser(PRINTS))
    assert (tmp_path / "out.pdf").read_bytes() == b"%PDF-1.4 ok"
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo first >&2; echo no display >&2; exit 3", "ended with code 3: no display"),
        ("exit 0", "it wrote none"),
        ("echo text > /dev/null", "it wrote none"),
    ],
)
def test_a_failed_print_says_why_and_keeps_what_was_there(make_browser, page, tmp_path, script, said):
    (tmp_path / "out.pdf").write_bytes(b"%PDF-old")
    with pytest.raises(MribenchError, match=said):
        print_page(page, tmp_path / "out.pdf", make_browser(script))
    assert (tmp_path / "out.pdf").read_bytes() == b"%PDF-old" and not list(tmp_path.glob(".tmp-*"))


def test_a_browser_that_hangs_is_ended_with_its_helpers(make_browser, page, tmp_path):
    browser = make_browser(f"/bin/sleep 60 & echo $! > {tmp_path}/helper; wait")
    started = time.monotonic()
    with pytest.raises(MribenchError, match=r"was not ready after 0\.5 s"):
        print_page(page, tmp_path / "out.pdf", browser, seconds=0.5)
    assert time.monotonic() - started < 20
    helper = int((tmp_path / "helper").read_text())
    for _ in range(100):
        try:
            os.kill(helper, 0)
        except ProcessLookupError:
            return
        state = f"/proc/{helper}/stat"
        if os.path.exists(state) and open(state).read().rpartition(")")[2].split()[0] == "Z":  # noqa: SIM115
            return
        time.sleep(0.05)
    pytest.fail("the helper lives on")


def test_a_program_that_cannot_be_started_is_named(page, tmp_path):
    with pytest.raises(MribenchError, match="it cannot be started"):
        print_page(page, tmp_path / "out.pdf", tmp_path / "none")


def test_report_prints_and_a_later_report_removes_the_outdated_pdf(make_browser, full_bench):
    bench = full_bench.bench
    call = ["report", "--bench", str(bench.folder)]
    make_browser(PRINTS)
    result = CliRunner().invoke(main, [*call, "--pdf"])
    pdf = bench.report / "index.pdf"
    assert pdf.read_bytes() == b"%PDF-1.4 ok" and str(pdf) in result.stdout.splitlines()
    assert differing(bench.report) == [] and "index.pdf" in (bench.report / "SHA256SUMS").read_text()
    make_browser("exit 5")
    failed = CliRunner().invoke(main, [*call, "--pdf"])
    assert failed.exit_code == 1 and "ended with code 5" in failed.output and "P(first)" in failed.output
    assert not pdf.exists() and differing(bench.report) == []


def test_chromium_prints(page, tmp_path):
    if os.environ.get("MRIBENCH_WITHOUT_BROWSER"):
        pytest.skip("MRIBENCH_WITHOUT_BROWSER is set")
    browser = shutil.which("chromium")
    assert browser, "apt-get install chromium, or set MRIBENCH_WITHOUT_BROWSER=1"
    print_page(page, tmp_path / "out.pdf", find_browser())
    assert (tmp_path / "out.pdf").read_bytes().rstrip().endswith(b"%%EOF")
