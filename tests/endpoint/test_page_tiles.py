"""Tiles of a scene in the page: their names, their places, and what lies around them."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import serving
from tests.support.page import Page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An endpoint over pictures without a place and the nine tiles of a scene."""
    index = serving.build_index(tmp_path_factory.mktemp("tiled"), per_class=1, scene_side=768)
    with serving.serving(serving.local_app(index)) as url:
        yield url


@pytest.fixture
def page(chromium: Any, tiled: str) -> Iterator[Page]:
    chromium.get(f"{tiled}/?image_id=beach/beach000.jpg&k=50")
    page = Page(chromium)
    page.until_answered()
    yield page
    chromium.execute_script("localStorage.clear()")


def picture(page: Page) -> list[Any]:
    """Width and address of the opened image, once it is there, and the view box of what is drawn on it."""
    page.until("document.querySelector('#pair figure:last-child img')?.naturalWidth > 0")
    image = "const i = document.querySelector('#pair figure:last-child img')"
    box = "document.querySelector('#pair figure:last-child svg').getAttribute('viewBox')"
    found: list[Any] = page.driver.execute_script(f"{image}; return [i.naturalWidth, i.src, {box}]")
    return found


def test_a_tile_has_a_readable_name_and_a_place(page: Page) -> None:
    tile = "scene.tif#xywh=256,256,256,256"
    card = page.driver.execute_script(f"return document.querySelector('[data-image-id=\"{tile}\"] .card')")
    page.driver.execute_script("arguments[0].scrollIntoView()", card)  # what is far from view has no name yet
    assert "scene.tif, tile at 256, 256" in card.accessible_name
    assert "#xywh" not in card.accessible_name
    assert "47.850° N, 15.005° E" in card.text.replace("\N{NO-BREAK SPACE}", " ")
    assert card.get_attribute("title") == tile


def test_the_surroundings_of_a_tile_are_shown_and_taken_away(page: Page) -> None:
    page.driver.execute_script(
        "document.querySelector('[data-image-id=\"scene.tif#xywh=256,256,256,256\"] .card').click()"
    )
    width, source, box = picture(page)
    assert (width, box) == (256, "0 0 256 256") and "around" not in source
    page.click("#show-around")
    width, source, box = picture(page)
    assert (width, box) == (512, "-128 -128 512 512") and source.endswith("?around=0.5")
    assert "with its surroundings" in page.text("#pair")
    page.click("#show-around")
    assert picture(page)[0] == 256
    page.click("#close-result")
    page.until("!history.state?.open")
    page.driver.execute_script("document.querySelector('[data-image-id$=\".jpg\"] .card').click()")
    assert page.all("#around") == []  # a picture that is no tile has none
