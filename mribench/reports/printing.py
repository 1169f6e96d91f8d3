"""The page as PDF, printed by a browser of the Chromium family that is installed; nothing is asked of the network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from mribench.bench.folder import Bench
from mribench.errors import MribenchError, UsageError
from mribench.files import atomic, write_sums
from mribench.reports.leaderboard import FILES

BROWSER = "MRIBENCH_BROWSER"  # the environment variable that names another one
SECONDS = 180  # a page of seven entrants takes a few seconds; a browser that hangs must end
_NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)  # fmt: skip
_OPTIONS = (
    "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
    "--disable-extensions", "--disable-sync", "--disable-background-networking", "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--no-pdf-header-footer",
)  # fmt: skip


def find_browser() -> Path:
    """The browser that $MRIBENCH_BROWSER names, or the first that is installed; raises UsageError without any."""
    asked = os.environ.get(BROWSER, "")
    for name in [asked] if asked else _NAMES:
        if path := shutil.which(name):
            return Path(path)
    given = f"{asked}, which {BROWSER} names, is no program" if asked else "none is installed"
    raise UsageError(
        f"--pdf needs a browser of the Chromium family, but {given}. Install Chromium, Chrome or Edge, or set "
        f"{BROWSER} to the path of one, or print index.html from any browser."
    )


def print_report(bench: Bench, browser: Path) -> Path:
    """Print the report's page to index.pdf beside it; raises MribenchError as `print_page`."""
    pdf = bench.page.with_suffix(".pdf")
    print_page(bench.page, pdf, browser)
    write_sums(bench.report, [*FILES, bench.page.name, pdf.name])
    return pdf


def print_page(page: Path, pdf: Path, browser: Path, seconds: float = SECONDS) -> None:
    """Print a page to a PDF file, atomically; raises MribenchError when the browser fails or takes too long."""
    with atomic(pdf) as temporary, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        own = [f"--user-data-dir={profile}", f"--print-to-pdf={temporary.resolve()}", page.resolve().as_uri()]
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses to root
        fault = _run([str(browser), *_OPTIONS, *sandbox, *own], seconds)
        if fault or not temporary.read_bytes().startswith(b"%PDF-"):
            raise MribenchError(
                f"{browser} must print {page} as PDF, but {fault or 'it wrote none'}. The page and the tables are "
                f"written. Run the same command again, set {BROWSER} to another browser, or print the page by hand."
            )


def _run(command: list[str], seconds: float) -> str:
    """What went wrong, or ""; a browser that takes too long is ended with its helpers."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return f"it cannot be started: {error.strerror or error}"
    try:
        _, said = process.communicate(timeout=seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return f"it was not ready after {seconds:g} s"
        raise
    last = (said.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    return f"it ended with code {process.returncode}: {last}" if process.returncode else ""
