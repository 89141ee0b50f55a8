"""The search page in a real Chromium, as a user sees it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from jobs.demo.scenes import CLASSES
from rsir_core import schemas
from rsir_core.index.index import Index
from tests.support import serving
from tests.support.serving import Rows

HARMLESS = ("Failed to load resource", "GPU stall")  # refused requests; WebGL by software is slow


class Placed(NamedTuple):
    """An endpoint over rows with times and footprints, how many more searches it is too busy for, and its index."""

    url: str
    rows: Rows
    busy: list[int]
    uri: str


def place_rows(index: Index) -> Rows:
    """Give an index's rows times, a month apart, and footprints, the last across ±180°; one of them has neither."""
    found: Rows = index.features().to_pylist()
    for i, row in enumerate(found):
        row[schemas.TIME] = datetime(2020, 1, 1, 12, tzinfo=UTC) + timedelta(days=30 * i)
        row[schemas.BBOX] = dict(
            zip(schemas.BBOX_FIELDS, (10 + 2 * i, 40 + i % 5, 10.5 + 2 * i, 40.5 + i % 5), strict=True)
        )
    found[-1][schemas.BBOX] |= {"xmin": 179.5, "xmax": -179.5}
    found[0] |= {schemas.TIME: None, schemas.BBOX: None}
    serving.publish(index, pa.Table.from_pylist(found, schemas.FEATURES))
    return found


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
        self.until("document.querySelector('#status').textContent && !document.body.classList.contains('busy')")

    def open(self, address: str) -> None:
        """Search by an address of this page, from a blank one, so that nothing of an earlier answer is left."""
        root = self.driver.current_url.split("?")[0]
        self.driver.get("about:blank")
        self.driver.get(root + address)
        self.until_answered()

    def search(self, act: Callable[[], Any]) -> None:
        """Do what searches, and wait for the answer to it."""
        self.driver.execute_script("document.querySelector('#status').textContent = ''")
        act()
        self.until_answered()

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def unfold(self, identity: str) -> None:
        self.driver.execute_script("document.getElementById(arguments[0]).open = true", identity)

    def drag(self, selector: str, start: tuple[float, float], way: tuple[float, float]) -> None:
        """With the mouse from a place on an element, as shares of its size from its middle, for such a way."""
        element = self.driver.find_element(By.CSS_SELECTOR, selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        w, h = element.rect["width"], element.rect["height"]
        move = ActionChains(self.driver, duration=50).move_to_element_with_offset(
            element, int(start[0] * w), int(start[1] * h)
        )
        move.click_and_hold().move_by_offset(int(way[0] * w), int(way[1] * h)).release().perform()

    def type_into(self, selector: str, text: Any) -> None:
        field = self.driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(str(text))

    def address(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.driver.current_url).query)

    def names(self) -> list[str]:
        return [name.text for name in self.all("#grid .name")]


def opened(chromium: Any, url: str) -> Iterator[Page]:
    """The page before anything is asked; nothing may be logged until the test ends but requests that are refused."""
    chromium.get(url)
    page = Page(chromium)
    page.until(f"document.querySelectorAll('#images .card').length === {2 * len(CLASSES)}")
    chromium.get_log("browser")  # of earlier tests
    yield page
    complaints = [
        entry for entry in chromium.get_log("browser") if not any(harmless in entry["message"] for harmless in HARMLESS)
    ]
    assert complaints == []
