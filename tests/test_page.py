"""The page in a real Chromium, over the endpoint's app in this process."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.demo_scenes import CLASSES
from rsir_core.table import Index
from tests.serving import LIMITS, ONE

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

from selenium.webdriver import ActionChains, Keys  # noqa: E402 where it is installed
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
]  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as driver:
        yield driver


class Page:
    """The page as a user sees it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def until(self, script: str) -> None:
        """Wait until a JavaScript expression holds."""
        WebDriverWait(self.driver, 30).until(lambda driver: driver.execute_script(f"return {script}"), script)

    def all(self, selector: str) -> list[Any]:
        return [found for found in self.driver.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]

    def text(self, selector: str) -> str:
        return " ".join(found.text for found in self.all(selector))

    def until_answered(self) -> None:
        self.until("document.querySelector('#status').textContent.includes('result')")

    def names(self) -> list[str]:
        return [name.text for name in self.all("#grid .name")]


@pytest.fixture
def page(chromium: Any, url: str) -> Iterator[Page]:
    chromium.get(url)
    page = Page(chromium)
    page.until(f"document.querySelectorAll('#images .card').length === {2 * len(CLASSES)}")
    chromium.get_log("browser")  # of earlier tests
    yield page
    complaints = [entry for entry in chromium.get_log("browser") if "Failed to load resource" not in entry["message"]]
    assert complaints == []


def upload(page: Page, file: Path) -> None:
    page.driver.find_element(By.ID, "file").send_keys(str(file))


def uploaded_path(index: str, image_id: str) -> Path:
    return Path(Index(index).features().to_pylist()[0]["uri"]).parents[1] / image_id


def test_an_upload_shows_what_was_found_and_why(page: Page, index: str) -> None:
    upload(page, uploaded_path(index, ONE))
    page.until_answered()
    assert page.names()[0] == ONE
    assert len(page.names()) == 20
    assert "beach" in page.text("#query figcaption")
    assert "Key region: 230×230 of 256×256 pixels" in page.text("#query figcaption")
    (region,) = page.driver.find_elements(By.CSS_SELECTOR, "#query rect.region:not(.halo)")
    assert region.get_attribute("width") == "230"
    assert page.driver.find_elements(By.CSS_SELECTOR, "#query rect.object")
    page.until("[...document.querySelectorAll('#query img, #grid img')].slice(0, 3).every(i => i.naturalWidth > 0)")


def test_the_three_parts_of_a_bar_multiply_to_the_weighted_distance(page: Page, index: str) -> None:
    page.driver.get(f"{page.driver.current_url}?image_id={ONE}")
    page.until_answered()
    answers = page.driver.execute_async_script(
        "const done = arguments[0]; Promise.all([import('./view.js'), fetch('search', {method: 'POST', "
        f"headers: {{'Content-Type': 'application/json'}}, body: JSON.stringify({{image_id: '{ONE}'}})}})"
        ".then(r => r.json())]).then(([view, answer]) => done(answer.results.slice(1).map("
        "r => [view.shares(r), r.weighted_distance, r.distance])))"
    )
    for shares, weighted, distance in answers:
        if distance <= 1:
            assert 10.0 ** -sum(shares) == pytest.approx(weighted, rel=1e-6)
    bars = page.driver.execute_script(
        "return [...document.querySelectorAll('#grid .bar')].map("
        "b => [b.clientWidth, [...b.children].reduce((w, i) => w + i.offsetWidth, 0)])"
    )
    widths = [parts for _, parts in bars[1:]]
    assert widths == sorted(widths, reverse=True)  # nearer, longer
    assert all(parts <= whole for whole, parts in bars)


def test_an_image_is_picked_and_a_result_searched_from_with_the_keyboard(page: Page) -> None:
    Select(page.driver.find_element(By.ID, "of-class")).select_by_value("beach")
    page.until("document.querySelectorAll('#images .card').length === 2")
    page.driver.execute_script("document.querySelector('#images .card').focus()")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.until_answered()
    first, second = page.names()[:2]
    assert first == "beach/beach000.jpg"
    assert page.driver.switch_to.active_element.get_attribute("id") == "results-title"
    ActionChains(page.driver).send_keys(Keys.TAB, Keys.TAB, Keys.TAB, Keys.ENTER).perform()  # legend, first, second
    page.until(f"document.querySelector('#grid .name')?.textContent === '{second}'")
    page.driver.back()
    page.until(f"document.querySelector('#grid .name')?.textContent === '{first}'")
    page.driver.back()
    page.until("document.querySelector('#archive').hidden === false")


def test_k_and_the_class_filter_are_obeyed_and_kept_in_the_address(page: Page) -> None:
    page.driver.get(f"{page.driver.current_url}?image_id={ONE}&k=3&class=river&class=beach")
    page.until_answered()
    names = page.names()
    assert len(names) == 3
    assert {name.split("/")[0] for name in names} <= {"river", "beach"}
    assert page.text("#filter-says") == "beach, river"
    page.driver.execute_script("document.querySelector('#filter').open = true")
    page.driver.find_element(By.CSS_SELECTOR, "#classes input[value=river]").click()
    page.until("document.querySelectorAll('#grid .card').length === 2")
    assert "class=beach" in page.driver.current_url
    assert "river" not in page.driver.current_url


def test_what_browsers_cannot_show_is_shown(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "scene.tif"
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(file)
    upload(page, file)
    page.until_answered()
    page.until("document.querySelector('#query img').naturalWidth === 96")


def test_errors_are_said_in_words(page: Page, tmp_path: Path) -> None:
    junk = tmp_path / "junk.jpg"
    junk.write_bytes(b"no picture")
    upload(page, junk)
    page.until("document.querySelector('#error').hidden === false")
    assert "no JPEG" in page.text("#error")
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(LIMITS.max_bytes + 1))
    upload(page, large)
    page.until("document.querySelector('#error').textContent.includes('large.jpg has')")
    page.driver.get(page.driver.current_url.split("?")[0] + "?image_id=none")
    page.until("document.querySelector('#error').textContent.includes('not in the index')")
    assert page.text("#status") == ""


def test_it_fits_a_phone(page: Page) -> None:
    phone = {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        page.driver.get(f"{page.driver.current_url}?image_id={ONE}")
        page.until_answered()
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 360
        assert len({card.rect["x"] for card in page.all("#grid .card")}) == 2
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    page.driver.get(f"{page.driver.current_url}?image_id={ONE}")
    page.until_answered()
    for element in page.all("button, input, select, summary, a, [role]"):
        assert element.accessible_name or element.aria_role in ("status", "alert", "generic"), element.get_attribute(
            "outerHTML"
        )
    for image in page.all("#query img"):
        assert ONE in image.get_attribute("alt")
