"""Search inside a box in the page: what is searched is said and can be switched; results show what was found."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from selenium.webdriver import Keys
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select

from tests.support import serving
from tests.support.page import Page, opened
from tests.support.serving import ONE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url_of_regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An endpoint over an index of up to four regions of each image."""
    index = serving.build_index(tmp_path_factory.mktemp("regions"), per_class=2, regions=4)
    with serving.serving(serving.local_app(index)) as url:
        yield url


@pytest.fixture
def page(chromium: Any, url_of_regions: str) -> Iterator[Page]:
    yield from opened(chromium, url_of_regions)


def cards(page: Page) -> list[str]:
    return [card.text for card in page.all("#grid .card")]


def test_a_box_is_looked_for_among_objects_and_what_is_searched_can_be_switched(page: Page) -> None:
    page.open(f"?image_id={ONE}")
    scenes = page.names()
    assert not any("found by" in card for card in cards(page))
    page.search(lambda: page.drag("#query svg", (-0.1, -0.1), (0.1, 0.1)))
    caption = page.text("#query figcaption")
    assert "your box" in caption and "the box with a margin" in caption
    assert any("found by its" in card for card in cards(page))
    among_all = page.names()
    assert among_all != scenes and len(set(among_all)) == len(among_all)
    page.search(lambda: Select(page.driver.find_element("id", "regions")).select_by_value("key"))
    assert not any("found by" in card for card in cards(page)) and page.address()["regions"] == ["key"]
    page.search(lambda: Select(page.driver.find_element("id", "regions")).select_by_value("objects"))
    assert all("found by its" in card for card in cards(page))
    page.search(lambda: Select(page.driver.find_element("id", "box-as")).select_by_value("centre"))
    assert "Key region" in page.text("#query figcaption") and page.address()["as"] == ["centre"]
    page.search(lambda: Select(page.driver.find_element("id", "regions")).select_by_value("auto"))
    assert not any("found by" in card for card in cards(page))  # whole scenes fit the key region
    page.search(page.driver.back)
    assert all("found by its" in card for card in cards(page))
    page.search(lambda: page.click("#undraw"))
    assert "box" not in page.address()


def test_an_opened_result_shows_its_region_and_is_searched_from(page: Page, url_of_regions: str) -> None:
    page.open(f"?image_id={ONE}&box=100,100,140,150&regions=objects")
    first = page.names()[0]
    page.driver.execute_script("document.querySelector('#grid .card').focus()")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.until("document.querySelector('#result').open")
    assert "found by its" in page.text("#facts")
    asked = {"image_id": ONE, "box": [100, 100, 140, 150], "regions": "objects"}
    results = httpx.post(f"{url_of_regions}/search", json=asked).json()["results"]
    (region,) = [row["region"] for row in results if row["image_id"] == first]
    rect = page.driver.find_element("css selector", "#pair figure:last-child rect.region:not(.halo)")
    assert {name: int(rect.get_attribute(name)) for name in region} == region
    assert not Axe().run(page.driver)["violations"]
    page.search(lambda: page.click("#search-from"))
    assert page.address()["image_id"] == [first]
    box = [float(edge) for edge in page.address()["box"][0].split(",")]
    assert 0 <= box[0] < box[2] <= 256 and 0 <= box[1] < box[3] <= 256
    assert not Axe().run(page.driver)["violations"]


def test_a_link_to_an_uploads_box_searches_the_same_regions(page: Page) -> None:
    page.open(f"?image_id={ONE}&box=100,100,140,150&order=plain")  # an upload's own image is a neighbour for `auto`
    wanted = page.names()
    answer = page.driver.execute_async_script(
        "const done = arguments[0]; Promise.all([import('./query.js'), fetch('index').then(r => r.json())]).then("
        "async ([query, index]) => { const asked = query.fromAddress(location.search, index);"
        "const found = await (await fetch('search', query.toRequest(asked, 0, 20))).json();"
        "const link = query.toAddress(query.withoutFile({...asked, file: {}, image_id: null}, found.query, "
        "index.class_names)); const again = query.fromAddress(link, index);"
        "done([again.regions, again.box, (await (await fetch('search', query.toRequest(again, 0, 20))).json())"
        ".results.map(r => r.image_id)]); })"
    )
    assert answer[:2] == ["all", None]
    assert [name for name in answer[2] if name != ONE] == wanted[: len(answer[2]) - (ONE in answer[2])]


def test_an_index_of_scenes_alone_offers_no_regions(chromium: Any, url: str) -> None:
    for page in opened(chromium, url):
        page.open(f"?image_id={ONE}&box=100,100,140,150")
        assert page.all("#regions") == [] and "Key region" in page.text("#query figcaption")
        choose = Select(page.driver.find_element("id", "box-as"))
        page.search(partial(choose.select_by_value, "object"))
        assert "no regions of single objects" in page.text("#query figcaption")
