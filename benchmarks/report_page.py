"""A report's weight and how fast a browser opens it, and the picture of it in docs/.

    python benchmarks/report_page.py BENCH ... [--picture docs/report.png]        (seconds; needs chromium-driver)

Each BENCH is a folder with a finished report: `mribench report` is not run. One tab opens each page from the disk in
turn, nine times; the time is that of the browser's own clock from the start of the navigation to its load event,
scripts and pictures included. The picture is the first 1500 pixels of the first page. Writes
benchmarks/results/report_page.json.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
from pathlib import Path

from PIL import Image
from provenance import machine
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from mribench.files import atomic, write_json

RESULT = Path(__file__).parent / "results" / "report_page.json"
ROUNDS, WIDTH, HEIGHT, SHOWN_WIDTH = 9, 1400, 1500, 1120
LOADED = "return performance.getEntriesByType('navigation')[0].loadEventEnd"


def browser() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},1000"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def opened(chromium: webdriver.Chrome, page: Path) -> float:
    """Seconds to the load event."""
    chromium.get(page.as_uri())
    seconds: float = WebDriverWait(chromium, 60).until(lambda tab: tab.execute_script(LOADED)) / 1000
    return seconds


def photograph(chromium: webdriver.Chrome, page: Path, picture: Path) -> None:
    chromium.set_window_size(WIDTH, HEIGHT)
    opened(chromium, page)
    whole = Image.open(io.BytesIO(chromium.get_screenshot_as_png())).convert("RGB")
    small = whole.resize((SHOWN_WIDTH, whole.height * SHOWN_WIDTH // WIDTH), Image.Resampling.LANCZOS)
    with atomic(picture) as temporary:
        small.save(temporary, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", type=Path, nargs="+")
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    pages = [(bench / "report" / "index.html").resolve() for bench in asked.bench]
    with browser() as chromium:
        rounds = [[opened(chromium, page) for page in pages] for _ in range(ROUNDS)]
        entrants = []
        for page in pages:
            opened(chromium, page)
            entrants.append(
                chromium.execute_script("return document.querySelectorAll('details.entrant').length")
            )
        if asked.picture:
            photograph(chromium, pages[0], asked.picture)
    results = [
        {
            "entrants": count,
            "megabytes": round(page.stat().st_size / 1e6, 2),
            "seconds_to_load_median": round(statistics.median(times), 3),
            "seconds_to_load_worst": round(max(times), 3),
        }
        for page, count, times in zip(pages, entrants, zip(*rounds, strict=True), strict=True)
    ]
    write_json(RESULT, {**machine(), "rounds": ROUNDS, "width": WIDTH, "pages": results})
    for result in results:
        print(result)


if __name__ == "__main__":
    main()
