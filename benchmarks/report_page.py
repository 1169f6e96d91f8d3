"""A report's weight and how fast a browser opens it, and the picture of it in docs/.

    python benchmarks/report_page.py BENCH ... [--picture docs/report.png]        (seconds; needs chromium-driver)

Each BENCH is a folder with a finished report: `mribench report` is not run. One tab opens each page from the disk in
turn, nine times; the time is that of the browser's own clock from the start of the navigation to its load event,
scripts and pictures included. The picture is the first page's: down to the notes of the leaderboard, then all
entrants and the viewer. Writes benchmarks/results/report_page.json.
"""

from __future__ import annotations

import argparse
import base64
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
ROUNDS, WIDTH, SHOWN_WIDTH, COLOURS = 9, 1400, 1120, 160
LOADED = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
EDGES = """return [
    document.querySelector("#leaderboard ol.notes, table.board").getBoundingClientRect().bottom,
    document.getElementById("sheet").getBoundingClientRect().top,
    document.getElementById("samples").getBoundingClientRect().top].map(y => Math.round(y + scrollY))"""


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
    opened(chromium, page)
    WebDriverWait(chromium, 10).until(
        lambda tab: tab.execute_script("return document.getElementById('right-canvas').width > 300")
    )
    bottom, sheet, samples = chromium.execute_script(EDGES)
    parts = [shot(chromium, 0, bottom + 10), shot(chromium, sheet - 20, samples - 10)]
    whole = Image.new("RGB", (WIDTH, sum(part.height for part in parts)))
    whole.paste(parts[0], (0, 0))
    whole.paste(parts[1], (0, parts[0].height))
    small = whole.resize((SHOWN_WIDTH, whole.height * SHOWN_WIDTH // WIDTH), Image.Resampling.LANCZOS)
    with atomic(picture) as temporary:
        small.quantize(COLOURS, dither=Image.Dither.NONE).save(temporary, optimize=True)


def shot(chromium: webdriver.Chrome, top: int, bottom: int) -> Image.Image:
    clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top, "scale": 1}
    taken = chromium.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")


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
                chromium.execute_script("return document.querySelectorAll('details.card').length")
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
