"""The page in a real Chromium, by Debian's packages chromium and chromium-driver and the package selenium.

Without a browser these tests fail; MRIBENCH_WITHOUT_BROWSER=1 leaves them out on purpose.
"""

import base64
import io
import itertools
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from mribench.data.grid import quantise
from mribench.data.nifti import write_nifti
from mribench.files import digest_volume, read_json, write_json
from mribench.reports.page.html import write_report

HOSTILE = (
    "<script>window.pwned=1</script>\"'><img src=x onerror=window.pwned=1>\n=cmd|' /C calc'!A0 {{ 7*7 }} "
    "\u202eשלום עולם $x_{y}$ " + "long" * 60
)
DRAWN = "return document.getElementById('right-canvas').width > 300"
BLANK = "the canvas is blank or torn"


@pytest.fixture(scope="module")
def chromium():
    if os.environ.get("MRIBENCH_WITHOUT_BROWSER"):
        pytest.skip("MRIBENCH_WITHOUT_BROWSER is set")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.fail(
            "The report is tested in a browser, which is not here. Run: apt-get install chromium chromium-driver, "
            "or set MRIBENCH_WITHOUT_BROWSER=1 to do without."
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver)) as browser:
        yield browser


class Visit:
    """One page in the browser at one width."""

    def __init__(self, chromium, path):
        self.chromium, self.path = chromium, path
        for log in ("browser", "performance"):
            chromium.get_log(log)

    def open(self, width=1400):
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.chromium.get(self.path.as_uri())
        return self

    def run(self, script, *arguments):
        return self.chromium.execute_script(script, *arguments)

    def all(self, selector):
        return self.chromium.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.chromium.find_element(By.CSS_SELECTOR, selector)

    def shown(self, selector):
        return [element for element in self.all(selector) if element.is_displayed()]

    def wait(self, script):
        WebDriverWait(self.chromium, 10, 0.05).until(lambda _: self.run(script))

    @property
    def overflow(self):
        return self.run("return document.documentElement.scrollWidth - innerWidth")

    def models(self, body=0):
        return self.run(
            "return [...document.querySelector('table.board').tBodies[arguments[0]].rows]"
            ".filter(r => r.cells.length > 1).map(r => r.cells[0].dataset.text)",
            body,
        )

    def look_inside(self):
        self.one("#open-viewer").click()
        self.wait(DRAWN)

    def head(self, title):
        heads = self.all("table.board th[scope=col]")
        return next(head for head in heads if head.text.lower().startswith(title.lower()))

    def pixels(self, side):
        width, height, data = self.run(
            "const c = document.getElementById(arguments[0] + '-canvas');"
            "return [c.width, c.height, c.toDataURL('image/png')]",
            side,
        )
        picture = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB")
        assert picture.size == (width, height)
        return np.asarray(picture).astype(int)

    def silent(self):
        """No console message, and nothing asked for but the page itself and what is inside of it."""
        assert self.chromium.get_log("browser") == []
        sent = [json.loads(entry["message"])["message"] for entry in self.chromium.get_log("performance")]
        asked = {
            m["params"]["request"]["url"].partition("#")[0]
            for m in sent
            if m["method"] == "Network.requestWillBeSent"
        }
        assert self.path.as_uri() in asked
        assert all(url.startswith("data:") for url in asked - {self.path.as_uri()})


@pytest.fixture
def visit(chromium, request):
    """A function that opens a page; after the test the page must have been silent."""
    visits = []

    def open_page(path, width=1400):
        visits.append(Visit(chromium, path).open(width))
        return visits[-1]

    yield open_page
    for page in visits[-1:]:
        page.silent()


@pytest.fixture(scope="module")
def path(shared_bench):
    return write_report(shared_bench.bench)


@pytest.mark.parametrize("width", [1400, 400])
def test_page_fits_opens_fast_and_is_silent(visit, path, width):
    page = visit(path, width)
    assert page.overflow <= 0
    page.look_inside()
    assert page.run("return performance.getEntriesByType('navigation')[0].loadEventEnd") < 2000
    broken = "return [...document.images].filter(i => i.complete && i.naturalWidth === 0).length"
    assert page.run(broken) == 0


def test_columns_sort_with_the_comparable_first_and_the_absent_last(visit, path):
    page = visit(path)
    assert page.models() == ["cDPM", "HA-GAN"] and page.models(1) == ["3D-DPM"]
    head = page.head("MMD")
    button = head.find_element(By.TAG_NAME, "button")
    button.click()
    assert page.models() == ["cDPM", "HA-GAN"]
    assert head.get_attribute("aria-sort") == "ascending"
    button.click()
    assert page.models() == ["HA-GAN", "cDPM"] and page.models(1) == ["3D-DPM"]
    assert head.get_attribute("aria-sort") == "descending"
    page.one("#leaderboard fieldset label:has(input[id^=show-group]:not(:checked))").click()
    page.head("FID-A (central)").find_element(By.TAG_NAME, "button").click()
    assert page.models() == ["cDPM", "HA-GAN"]
    assert [h.get_attribute("aria-sort") for h in page.all("table.board thead th")].count("ascending") == 1
    page.head("model").find_element(By.TAG_NAME, "button").click()
    assert page.models() == ["cDPM", "HA-GAN"]
    controls = page.run("return document.querySelector('tbody.control').rows[0].className")
    assert controls == "group" and page.models(2) == ["Held-out real volumes", "Uniform noise"]


def test_sorting_works_from_the_keyboard(visit, path):
    page = visit(path)
    button = page.head("gap").find_element(By.TAG_NAME, "button")
    page.run("arguments[0].focus()", button)
    ActionChains(page.chromium).send_keys(Keys.ENTER).send_keys(Keys.ENTER).perform()
    assert page.models() == ["HA-GAN", "cDPM"]


def test_controls_hide_everywhere(visit, path):
    page = visit(path)
    box, count = page.one("#show-controls"), len(page.shown(".control"))
    assert count > 5
    box.click()
    assert not page.shown(".control")
    assert "Uniform noise" not in page.one("table.board").text
    box.click()
    assert len(page.shown(".control")) == count


def test_a_number_is_one_click_from_its_definition_and_its_entrant(visit, path):
    page = visit(path)
    page.head("FID-A").find_element(By.TAG_NAME, "a").click()
    assert "fid_a" in page.one("tr:target").text
    page.one("table.board tbody a.quiet").click()
    entrant = page.one("details:target")
    assert entrant.get_attribute("open") and "16 volumes seen" in entrant.text
    assert [e.get_attribute("id") for e in page.shown(".entrant")] == ["cdpm"]


def test_a_link_leads_into_an_entrant_and_a_second_one_stands_beside_it(visit, path):
    page = visit(path)
    page.run("location.hash = 'ha_gan/copies'")
    page.wait("return document.getElementById('ha_gan').open")
    assert [e.get_attribute("id") for e in page.shown(".entrant")] == ["ha_gan"]
    assert page.one("[id='ha_gan/copies']").is_displayed()
    Select(page.one("#second-entrant")).select_by_visible_text("cDPM")
    left, right = (page.one(f"#{name}").rect for name in ("cdpm", "ha_gan"))
    assert left["y"] == right["y"] and left["x"] != right["x"]
    Select(page.one("#first-entrant")).select_by_visible_text("all")
    assert len(page.shown(".entrant")) == 5
    page.one("tr[data-place=dpm3d] td").click()
    page.wait("return location.hash === '#dpm3d'")
    assert "axial slices 5 to 10 only" in page.one("#dpm3d").text


def test_digits_come_with_the_focus(visit, path):
    page = visit(path)
    interval = page.one("tr[data-place=cdpm] .under .interval")
    assert not interval.is_displayed()
    page.run("document.querySelector('tr[data-place=cdpm] a.quiet').focus()")
    assert interval.is_displayed()


def test_viewer_shows_moves_and_changes_volumes(visit, path):
    page = visit(path)
    page.look_inside()
    left, right = page.pixels("left"), page.pixels("right")
    assert left.max() > 200 and right.max() > 200, BLANK
    assert (left != right).any()
    assert "Reference, volume 1" in page.one("#left-volume").text
    Select(page.one("#right-volume")).select_by_visible_text("Reference, volume 1")
    WebDriverWait(page.chromium, 10, 0.05).until(lambda _: page.pixels("right").tolist() == left.tolist())
    slider = page.one("#slice-Z")
    before = slider.get_attribute("value")
    slider.send_keys(Keys.ARROW_RIGHT)
    assert int(slider.get_attribute("value")) == int(before) + 1
    moved = page.pixels("left")
    assert (moved != left).any() and page.pixels("right").tolist() == moved.tolist()
    canvas = page.one("#left-canvas")
    ActionChains(page.chromium).move_to_element_with_offset(canvas, 20, -20).click().perform()
    assert (page.pixels("left") != moved).any()
    assert page.pixels("left").tolist() == page.pixels("right").tolist()


def test_a_picture_opens_in_the_viewer_and_its_difference_by_a_key(visit, path):
    page = visit(path)
    page.run("location.hash = 'ha_gan'")
    page.wait("return document.getElementById('ha_gan').open")
    buttons = page.all("[id='ha_gan/pictures'] button.look")
    assert len(buttons) == 2 and not page.all("#right-sprite")  # nothing is decoded before
    buttons[1].click()
    page.wait(DRAWN)
    assert page.one("#right-volume").get_attribute("value") == "ha_gan/1"
    before, level = page.pixels("right"), page.one("#slice-Z").get_attribute("value")
    page.one("#right-canvas").send_keys(Keys.ARROW_UP)
    assert int(page.one("#slice-Z").get_attribute("value")) == int(level) + 1
    Select(page.one("#left-volume")).select_by_value("ha_gan/1")
    page.wait("return document.getElementById('left-sprite').src === sprites.get('ha_gan/1')")
    page.one("#right-canvas").send_keys("d")
    page.wait("return document.getElementById('right-sprite').src.startsWith('data:image/png')")
    page.run("draw()")
    grey = page.pixels("right").max(axis=2) - page.pixels("right").min(axis=2) < 8
    assert (
        page.pixels("right")[: len(before) // 2][grey[: len(before) // 2]].mean() < 20
    )  # equal volumes leave black


def test_viewer_keeps_the_sides_of_the_body(visit, make_bench):
    """A cube at the subject's right, front and top: on the viewer's right in coronal and axial, up in all."""
    maker = make_bench()
    run = maker.add("cdpm")
    corner = np.zeros((16, 16, 16), np.float32)
    corner[10:14, 10:14, 10:14] = 1
    affine = maker.cohort.grid.affine
    write_nifti(run.samples_folder / "000000.nii.gz", corner, affine)
    record = read_json(run.samples_record)
    record["files"][0]["digest"] = digest_volume(quantise(corner), affine)
    write_json(run.samples_record, record)
    page = visit(write_report(maker.bench))
    page.look_inside()
    Select(page.one("#left-volume")).select_by_visible_text("CDPM, volume 1")
    page.wait("return document.getElementById('left-sprite').src === sprites.get('cdpm/0')")
    for axis in "XYZ":
        slider = page.one(f"#slice-{axis}")
        most = int(slider.get_attribute("max"))
        page.run(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            slider,
            round(12 / 16 * most),
        )
    picture = page.pixels("left")
    bright = (picture > 180).all(axis=2)
    x, y = (int(page.one(f"#slice-{axis}").get_attribute("max")) + 1 for axis in "XY")
    edges = np.cumsum([0, y, x, x]) * picture.shape[1] // (2 * x + y)
    for start, stop in itertools.pairwise(edges):
        # Letters and coordinates lie at the rims; the cube does not.
        rows, columns = np.nonzero(bright[: int(0.85 * len(bright)), start:stop])
        inner = (columns > 0.15 * (stop - start)) & (columns < 0.9 * (stop - start))
        assert inner.sum() > 50
        assert np.median(columns[inner]) > 0.55 * (stop - start), "front and right are to the right"
        assert np.median(rows[inner]) < 0.5 * len(bright), "top and front are up"


def test_policy_stops_what_the_page_did_not_bring(chromium, path):
    page = Visit(chromium, path).open()
    page.run(
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 1'; document.body.append(s);"
        "const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i)"
    )
    assert page.run("return window.pwned") is None
    messages = " ".join(entry["message"] for entry in chromium.get_log("browser"))
    assert "script-src" in messages and "img-src" in messages


def test_without_scripts_the_page_is_whole(visit, path, chromium):
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page = visit(path)
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert not page.all("thead button") and not page.one("#planes").is_displayed()
    assert "2.00" in page.one("table.board").text
    page.one("#show-controls").click()
    assert not page.shown(".control")


def test_hostile_names_stay_text(visit, full_bench):
    run = full_bench.bench.run("ha_gan")
    record = read_json(run.record)
    evil = {"title": HOSTILE, "config": {HOSTILE: HOSTILE}, "versions": {HOSTILE: HOSTILE}, "model": HOSTILE}
    write_json(run.record, {**record, **evil, "what": HOSTILE})
    scores = read_json(run.scores)
    for score in scores["scores"]:
        score.update(notes=[HOSTILE], title=HOSTILE, signature=HOSTILE, interval=HOSTILE, unit=HOSTILE)
    scores["missing"] = [{"metric": HOSTILE, "reason": HOSTILE}]
    write_json(run.scores, scores)
    page = visit(write_report(full_bench.bench), 400)
    page.look_inside()
    assert page.run("return window.pwned") is None
    assert len(page.all("script")) == 2 and not page.all("img[onerror], img[src=x]")
    assert "<script>window.pwned=1</script>" in page.one("table.board").text
    assert "\u202e" not in page.run("return document.body.textContent")
    assert page.overflow <= 0
    assert page.open(1400).overflow <= 0


def test_twenty_entrants_with_failures(visit, make_bench, make_scores):
    maker = make_bench()
    for i in range(17):
        maker.add(f"folder{i}", 0.1 + i / 10, title=f"Model {i}", kind="folder" if i else "model")
    maker.add("part", scores={m: s for m, s in make_scores(0.5).items() if m.startswith("fid")})
    maker.add("failed").samples_record.unlink()
    maker.add("torn").scores.write_text("{", encoding="utf-8")
    maker.add("noise", 9, kind="control")
    page = visit(write_report(maker.bench))
    assert page.overflow <= 0
    assert len(page.models()) == 17 and set(page.models(1)) == {"PART", "FAILED", "TORN"}
    text = page.one("table.board").text
    assert "There is no samples.json. Run: mribench generate failed" in text
    assert "scores.json must be readable JSON" in text
    notes = page.one("ol.notes").text
    assert "not computed" in notes
    page.head("FID-A").find_element(By.TAG_NAME, "button").click()
    assert page.models()[0] == "Model 0" and page.models(1) == ["PART", "FAILED", "TORN"]


def test_one_entrant_is_told_so(visit, make_bench):
    maker = make_bench()
    maker.add("cdpm")
    page = visit(write_report(maker.bench))
    assert "at least two models" in page.one("h1").text
    assert "once two entrants" in page.one("#intervals").text


def test_page_prints(visit, path):
    page = visit(path)
    pdf = base64.b64decode(page.chromium.print_page())
    assert pdf.startswith(b"%PDF") and len(pdf) > 50_000
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 8


def test_dark_and_light_text_has_contrast(visit, path):
    page = visit(path)
    page.look_inside()
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        style = "return getComputedStyle(document.documentElement).getPropertyValue('--' + arguments[0])"
        colours = {
            name: page.run(style, name)
            for name in ("paper", "warn", "green", "ink", "soft", "blue", "red", "orange")
        }
        for text in ("ink", "soft", "blue", "red", "orange"):
            assert contrast(colours[text], colours["paper"]) >= 4.5, (scheme, text)
        for ground in ("warn", "green"):
            assert contrast(colours["ink"], colours[ground]) >= 4.5
            assert contrast(colours["soft"], colours[ground]) >= 4.5
    page.chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def contrast(a, b):
    """WCAG 2.1 contrast ratio of two #rgb or #rrggbb colours."""
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour):
    digits = colour.strip().lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * d for d in digits)
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))
