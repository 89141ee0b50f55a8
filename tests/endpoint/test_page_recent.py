"""Recent queries, kept by a real Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By

from rsir_core.endpoint.tokens import Tokens, hash_of
from rsir_core.index.index import Index
from tests.support import serving
from tests.support.page import Page
from tests.support.serving import ONE

pytestmark = pytest.mark.slow


@pytest.fixture
def fresh(page: Page) -> Iterator[Page]:
    """The page in a browser that has kept nothing."""
    page.driver.execute_script("localStorage.clear()")
    page.driver.refresh()
    page.until("document.querySelectorAll('#images .card').length > 0")
    yield page
    page.driver.execute_script("localStorage.clear()")


def upload(page: Page, file: Path) -> None:
    page.search(lambda: page.driver.find_element(By.ID, "file").send_keys(str(file)))


def turned(index: str, folder: Path, angle: float) -> Path:
    """A picture that the index does not have."""
    uri = Path(Index(index).features().to_pylist()[0]["uri"]).parents[1] / ONE
    Image.open(uri).rotate(angle).save(folder / f"turned{angle}.png")
    return folder / f"turned{angle}.png"


def recents(page: Page) -> list[str]:
    return [button.get_attribute("title") for button in page.driver.find_elements(By.CSS_SELECTOR, "#recents button")]


def kept(page: Page, storage: str = "localStorage") -> Any:
    return page.driver.execute_script(f"return {storage}.getItem('rsir.recent')")


def test_queries_survive_a_reload_until_they_are_forgotten(fresh: Page) -> None:
    page = fresh
    assert page.all("#recent") == []
    for address in (f"?image_id={ONE}&k=3", "?image_id=river/river000.jpg&k=4&class=river", f"?image_id={ONE}&k=5"):
        page.open(address)
    page.driver.refresh()
    page.until_answered()
    assert recents(page) == [ONE, "river/river000.jpg"]
    page.click("#recent summary")
    page.search(lambda: page.click("#recents li:nth-child(2) button"))
    assert (page.address()["image_id"], page.address()["class"], page.address()["k"]) == (
        ["river/river000.jpg"],
        ["river"],
        ["4"],
    )
    page.unfold("recent")
    page.click("#forget")
    assert (recents(page), kept(page), page.all("#recent")) == ([], None, [])


def test_an_upload_survives_a_reload_with_its_refinement(fresh: Page, index: str, tmp_path: Path) -> None:
    page = fresh
    upload(page, turned(index, tmp_path, 17))
    first = page.names()
    page.click("#grid li:nth-child(3) .mark.good")
    page.search(lambda: page.click("#refine"))
    names = page.names()
    assert names != first
    page.driver.get("about:blank")
    page.driver.back()
    page.driver.refresh()
    page.until_answered()
    assert page.names() == names
    assert "turned17.png" in page.text("#query")
    page.until("document.querySelector('#query img').naturalWidth === 96")
    page.search(lambda: page.click("#unmark"))
    assert page.names() == first
    assert recents(page) == ["turned17.png"]


def test_what_is_kept_is_bounded(fresh: Page, index: str, tmp_path: Path) -> None:
    page = fresh
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    for angle in range(14):
        Image.fromarray(np.roll(noise, angle)).save(tmp_path / f"{angle}.png")
        upload(page, tmp_path / f"{angle}.png")
    assert recents(page) == [f"{angle}.png" for angle in range(13, 1, -1)]
    assert len(kept(page)) < 12 * 20_000


def test_with_tokens_nothing_outlives_the_tab(chromium: Any, index: str) -> None:
    with serving.serving(serving.local_app(index, tokens=Tokens({"ann": hash_of("right")}))) as url:
        chromium.get(f"{url}/?image_id={ONE}&k=3")
        page = Page(chromium)
        page.until("document.querySelector('#key').hidden === false")
        page.search(lambda: page.type_into("#token", "right" + Keys.ENTER))
        page.driver.refresh()
        page.until_answered()
        assert recents(page) == [ONE]
        assert kept(page) is None and kept(page, "sessionStorage") is not None
        chromium.delete_all_cookies()
