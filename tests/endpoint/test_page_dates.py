"""The same place at other dates in the page: a strip below an opened result, and one of them beside it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from selenium.webdriver import ActionChains, Keys

from rsir_core import schemas
from tests.support import serving
from tests.support.page import Page

pytestmark = pytest.mark.slow
CELL = "12022203213"
IN_CELL = 5


@pytest.fixture(scope="module")
def dated(index: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """An endpoint some of whose rows are of one cell, and their image ids in order of time."""
    copy = serving.copy_of(index, tmp_path_factory.mktemp("dated") / "index")
    rows = copy.features().to_pylist()
    for i in range(IN_CELL):
        time = datetime(2020, 6, 1, tzinfo=UTC) + timedelta(days=400 * ((3 * i) % IN_CELL))
        rows[i] |= {schemas.CELL: CELL, schemas.COVERED: 1.0, schemas.TIME: time}
    serving.publish(copy, pa.Table.from_pylist(rows, schemas.FEATURES))
    in_order = [row["image_id"] for row in sorted(rows[:IN_CELL], key=lambda row: row["time"])]
    with serving.serving(serving.local_app(copy.uri)) as url:
        yield url, in_order


@pytest.fixture
def page(chromium: Any, dated: tuple[str, list[str]]) -> Iterator[Page]:
    url, _ = dated
    chromium.get(f"{url}/?image_id={serving.ONE}&k=50")
    page = Page(chromium)
    page.until_answered()
    yield page
    chromium.execute_script("localStorage.clear()")


def open_result(page: Page, image_id: str) -> None:
    page.driver.execute_script(f"document.querySelector('[data-image-id=\"{image_id}\"] .card').click()")
    page.until("document.querySelector('#result').open")


def captions(page: Page) -> list[str]:
    return [caption.text for caption in page.all("#pair figcaption")]


def test_the_dates_of_a_place_are_shown_and_put_beside_the_result(page: Page, dated: tuple[str, list[str]]) -> None:
    _, in_order = dated
    here = in_order[2]
    open_result(page, here)
    page.until("!document.querySelector('#same-place').hidden")
    buttons = page.all("#same-place button")
    assert [button.get_attribute("title") for button in buttons] == in_order
    dates = [button.text.splitlines()[0] for button in buttons]
    assert dates == sorted(dates) and "this one" in buttons[2].text and not buttons[2].is_enabled()
    assert f"{IN_CELL} images" in page.text("#same-place h3") and CELL in page.text("#facts")
    before = captions(page)
    buttons[0].click()
    assert captions(page) == [dates[0], f"Result, {dates[2]}"]
    buttons[4].send_keys(Keys.ENTER)
    assert captions(page)[0] == dates[4]
    assert [b.get_attribute("aria-pressed") for b in buttons] == ["false", "false", None, "false", "true"]
    assert Axe().run(page.driver, options={"resultTypes": ["violations"]})["violations"] == []
    buttons[4].click()
    assert captions(page) == before


def test_only_cells_have_dates(page: Page, dated: tuple[str, list[str]]) -> None:
    _, in_order = dated
    open_result(page, in_order[0])
    page.until("!document.querySelector('#same-place').hidden")
    others = [id_ for id_ in page.driver.execute_script(
        "return [...document.querySelectorAll('#grid [data-image-id]')].map(e => e.dataset.imageId)")
        if id_ not in in_order]  # fmt: skip
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    page.until("!history.state?.open")
    open_result(page, others[0])
    page.until("document.querySelector('#facts').textContent.includes('Id')")
    assert page.all("#same-place") == []
