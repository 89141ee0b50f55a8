"""The page's map in a real Chromium: MapLibre draws by software there."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import shapely
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from rsir_core import schemas
from rsir_core.endpoint.page_files import PageSettings
from tests.support import serving
from tests.support.browser import browser
from tests.support.page import Page, Placed, opened
from tests.support.serving import ONE

pytestmark = pytest.mark.slow

# Keep the map that the page makes, for tests to ask where things are on it.
KEEP = """
Object.defineProperty(window, "maplibregl", { configurable: true, set(given) {
  const Made = given.Map;
  given.Map = class extends Made { constructor(options) { super(options); window.made = this; } };
  Object.defineProperty(window, "maplibregl", { value: given });
} });
"""


@pytest.fixture
def page(chromium: Any, placed: Placed) -> Iterator[Page]:
    """The page over rows with footprints, its map loaded."""
    kept = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": KEEP})
    for page in opened(chromium, placed.url):
        settle(page)
        yield page
    chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", kept)
    chromium.execute_script("localStorage.clear()")


def settle(page: Page) -> None:
    """Wait until the map shows all that it has been given: for a while nothing is on its way."""
    page.driver.execute_script("window.quietSince = null")
    page.until(
        "(() => { const quiet = window.made?.getSource('middles') && made.loaded() && made.areTilesLoaded();"
        " if (!quiet) window.quietSince = null; else window.quietSince ??= performance.now();"
        " return quiet && performance.now() - window.quietSince > 400; })()"
    )


def drawn(page: Page) -> dict[int, float]:
    """Ranks of the results that the map shows, each with its share of all ranks, which colours it."""
    found = "made.queryRenderedFeatures({layers: ['middles', 'footprints']}).map(f => [f.id, f.properties.share])"
    return dict(page.driver.execute_script(f"return {found}"))


def pixel(page: Page, lon: float, lat: float) -> tuple[float, float]:
    """Where a place is on the map, from its middle."""
    script = (
        "const p = made.project(arguments[0]), c = made.getContainer(); "
        "return [p.x - c.clientWidth / 2, p.y - c.clientHeight / 2]"
    )
    x, y = page.driver.execute_script(script, [lon, lat])
    return x, y


def click(page: Page, lon: float, lat: float) -> None:
    canvas = page.driver.find_element(By.ID, "map")
    ActionChains(page.driver, duration=50).move_to_element_with_offset(
        canvas, *map(round, pixel(page, lon, lat))
    ).click().perform()


def middle(row: dict[str, Any]) -> tuple[float, float]:
    box = row[schemas.BBOX]
    return (box["xmin"] + box["xmax"]) / 2, (box["ymin"] + box["ymax"]) / 2


def look_at(page: Page, west: float, south: float, east: float, north: float) -> None:
    settle(page)
    page.driver.execute_script(
        "made.fitBounds([[arguments[0], arguments[1]], [arguments[2], arguments[3]]], {animate: false, padding: 20})",
        west,
        south,
        east,
        north,
    )
    settle(page)


def rows_but_the_query(placed: Placed) -> list[dict[str, Any]]:
    return [row for row in placed.rows if row["image_id"] != ONE]


def inside(row: dict[str, Any], west: float, south: float, east: float, north: float) -> bool:
    box = row[schemas.BBOX]
    if box is None or not (box["ymin"] <= north and box["ymax"] >= south):
        return False
    ranges = [(box["xmin"], box["xmax"])] if box["xmin"] <= box["xmax"] else [(box["xmin"], 180), (-180, box["xmax"])]
    asked = [(west, east)] if west <= east else [(west, 180), (-180, east)]
    return any(low <= e and high >= w for low, high in ranges for w, e in asked)


def test_results_with_a_place_are_drawn_by_rank(page: Page, placed: Placed) -> None:
    page.open(f"?image_id={ONE}&k=50")
    settle(page)
    rows = rows_but_the_query(placed)
    count = sum(row[schemas.BBOX] is not None for row in rows)
    assert f"{count} of {len(rows)} results have a place" in page.text("#map-says")
    shares = drawn(page)
    assert len(shares) == count
    ordered = [shares[rank] for rank in sorted(shares)]
    assert ordered == sorted(ordered) and (ordered[0], ordered[-1]) == (0, 1)
    places = page.driver.execute_script(
        "return performance.getEntriesByType('resource').map(e => new URL(e.name).origin)"
    )
    assert set(places) <= {placed.url, "null"}  # files that the page writes for the map have no origin


def test_nothing_is_loaded_where_nothing_has_a_place(chromium: Any, url: str) -> None:
    for page in opened(chromium, url):
        page.open(f"?image_id={ONE}")
        assert page.all("#map-setting, #map-panel, #place") == []
        assert page.driver.execute_script("return window.maplibregl === undefined")


def test_a_rectangle_on_the_map_filters(page: Page, placed: Placed) -> None:
    page.open(f"?image_id={ONE}&k=50")
    look_at(page, 8, 35, 60, 50)
    x, y = pixel(page, 14, 47)
    to_x, to_y = pixel(page, 21, 38)
    page.click("#draw-rectangle")
    assert page.driver.find_element(By.ID, "draw-rectangle").get_attribute("aria-pressed") == "true"
    drag = ActionChains(page.driver, duration=50).move_to_element_with_offset(
        page.driver.find_element(By.ID, "map"), round(x), round(y)
    )
    page.search(lambda: drag.click_and_hold().move_by_offset(round(to_x - x), round(to_y - y)).release().perform())
    chosen = [float(edge) for edge in page.address()["bbox"][0].split(",")]
    assert chosen == pytest.approx([14, 38, 21, 47], abs=0.2)
    rows = rows_but_the_query(placed)
    expected = {row["image_id"] for row in rows if inside(row, *chosen)}
    assert set(page.names()) == expected
    assert 0 < len(expected) < len(rows) - 1
    assert page.driver.find_element(By.ID, "draw-rectangle").get_attribute("aria-pressed") == "false"
    page.click("#place summary")
    page.search(lambda: page.click("#unplace"))
    for name, value in {"#west": 179, "#south": 30, "#east": -179, "#north": 60}.items():
        page.type_into(name, value)
    page.search(lambda: page.driver.switch_to.active_element.send_keys(Keys.TAB))
    assert page.names() == [placed.rows[-1]["image_id"]]
    page.search(lambda: page.click("#unplace"))
    assert "bbox" not in page.address()


def test_what_the_map_shows_is_searched_within_also_across_180(page: Page, placed: Placed) -> None:
    page.open(f"?image_id={ONE}&k=50")
    look_at(page, 175, 30, 185, 60)
    page.search(lambda: page.click("#within-view"))
    west, south, east, north = (float(edge) for edge in page.address()["bbox"][0].split(","))
    assert west > 0 > east and south < 30 and north > 60
    assert page.names() == [placed.rows[-1]["image_id"]]


def test_a_polygon_filters_exactly(page: Page, placed: Placed) -> None:
    page.open(f"?image_id={ONE}&k=50")
    look_at(page, 8, 35, 60, 50)
    page.click("#draw-polygon")
    for corner in ((12, 39), (30, 39), (30, 46)):
        click(page, *corner)
    assert page.text("#draw-polygon") == "Close the polygon"
    ActionChains(page.driver).send_keys(Keys.BACKSPACE).perform()
    assert page.text("#draw-polygon") == "Draw a polygon"
    click(page, 28, 46)
    page.search(lambda: page.click("#draw-polygon"))
    corners = [[float(n) for n in corner.split(",")] for corner in page.address()["polygon"][0].split(";")]
    assert [pytest.approx(c, abs=0.2) for c in corners] == [[12, 39], [30, 39], [28, 46]]
    asked = shapely.Polygon(corners)
    with_place = [row for row in rows_but_the_query(placed)[:-1] if row[schemas.BBOX]]
    expected = {row["image_id"] for row in with_place if asked.intersects(shapely.box(*row[schemas.BBOX].values()))}
    assert set(page.names()) == expected
    assert 0 < len(expected) < len({row["image_id"] for row in with_place if inside(row, *asked.bounds)})
    assert page.text("#place-says") == "a polygon of 3 corners"
    page.search(lambda: page.click("#reset"))
    assert "polygon" not in page.address()


def test_a_polygon_that_crosses_itself_or_180_is_refused_in_words(page: Page) -> None:
    page.driver.get(page.driver.current_url.split("?")[0] + f"?image_id={ONE}&polygon=10,40;20,50;20,40;10,50")
    page.until("document.querySelector('#error').textContent.includes('cross')")
    page.open(f"?image_id={ONE}")
    look_at(page, 170, 30, 190, 60)
    page.click("#draw-polygon")
    for corner in ((172, 35), (188, 35), (188, 55)):
        click(page, *corner)
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    assert "180°" in page.text("#map-says")
    assert "polygon" not in page.address()


def test_a_footprint_is_clicked_to_open_it_and_to_search_from_it(page: Page, placed: Placed) -> None:
    page.open(f"?image_id={ONE}&k=50")
    row = rows_but_the_query(placed)[5]
    look_at(page, *row[schemas.BBOX].values())
    click(page, *middle(row))
    assert row["image_id"] in page.text(".popup")
    page.until("document.querySelector('.popup img').naturalWidth > 0")
    ActionChains(page.driver).move_to_element(page.all(".popup button")[0]).click().perform()
    page.until("document.querySelector('#result').open")
    assert row["image_id"] in page.text("#facts")
    page.click("#close-result")
    page.until("!history.state?.open")
    page.search(lambda: page.all(".popup button")[1].click())
    assert page.address()["image_id"] == [row["image_id"]]


def test_a_result_and_its_footprint_are_lit_together(page: Page, placed: Placed) -> None:
    def lit() -> list[int]:
        state = "made.getFeatureState({source: 'footprints', id}).lit"
        found: list[int] = page.driver.execute_script(f"return [...Array(60).keys()].filter(id => id && {state})")
        return found

    page.open(f"?image_id={ONE}&k=50")
    settle(page)
    third = page.all("#grid .card")[2]
    page.driver.execute_script("arguments[0].focus()", third)
    assert lit() == [3]
    row = rows_but_the_query(placed)[5]
    look_at(page, *row[schemas.BBOX].values())
    canvas = page.driver.find_element(By.ID, "map")
    ActionChains(page.driver).move_to_element_with_offset(canvas, *map(round, pixel(page, *middle(row)))).perform()
    page.until(f"document.querySelector('#grid li.lit')?.dataset.imageId === '{row['image_id']}'")
    (rank,) = lit()
    assert page.names()[rank - 1] == row["image_id"]


def test_the_keyboard_goes_over_the_map_from_result_to_result(page: Page) -> None:
    page.open(f"?image_id={ONE}&k=5")
    settle(page)
    page.driver.execute_script("document.querySelector('#map canvas').focus()")
    names = page.names()
    for key, place in (("n", 0), ("n", 1), ("p", 0), ("p", -1)):
        ActionChains(page.driver).send_keys(key).perform()
        assert names[place] in page.text(".popup") and names[place] in page.text("#map-says")
        assert page.driver.find_element(By.CSS_SELECTOR, "#grid li.lit").get_attribute("data-image-id") == names[place]


def test_the_archive_is_counted_by_cells(page: Page, placed: Placed) -> None:
    answer = httpx.get(f"{placed.url}/density").json()
    size, with_place = answer["degrees"], [row for row in placed.rows if row[schemas.BBOX]]
    assert sum(cell["images"] for cell in answer["cells"]) == len(with_place)
    for west, south, count in (cell.values() for cell in answer["cells"]):
        middles = [(180.0, middle(row)[1]) if row is placed.rows[-1] else middle(row) for row in with_place]
        here = [
            1 for lon, lat in middles if west <= (lon + 180) % 360 - 180 < west + size and south <= lat < south + size
        ]
        assert len(here) == count
    page.click("#see-archive")
    settle(page)
    shown = page.driver.execute_script(
        "return made.queryRenderedFeatures({layers: ['density']}).map(f => f.properties.images)"
    )
    assert set(shown) == {cell["images"] for cell in answer["cells"]}


def test_without_webgl_the_edges_are_given_by_fields(placed: Placed) -> None:
    with browser("--disable-3d-apis") as driver:
        driver.get(f"{placed.url}/?image_id={ONE}&k=50")
        page = Page(driver)
        page.until("document.querySelector('#map-problem').textContent.includes('WebGL')")
        page.until_answered()
        assert page.all("#map, #map-tools") == []
        page.click("#place summary")
        for name, value in {"#west": 179, "#south": 30, "#east": -179, "#north": 60}.items():
            page.type_into(name, value)
        page.search(lambda: page.driver.switch_to.active_element.send_keys(Keys.TAB))
        assert page.names() == [placed.rows[-1]["image_id"]]


@pytest.mark.parametrize("path", ["tiles/{z}/{x}/{y}.png", "style.json"])
def test_a_basemap_is_asked_for_where_one_is_configured_and_nothing_else(
    chromium: Any, placed: Placed, path: str
) -> None:
    asked: list[str] = []
    host = FastAPI()
    tile = serving.png(np.full((256, 256, 3), 200, np.uint8))
    allowed = {"Access-Control-Allow-Origin": "*"}

    @host.get("/tiles/{z}/{x}/{y}")
    def tiles(z: int, x: int, y: str) -> Response:
        asked.append(y)
        return Response(tile, media_type="image/png", headers=allowed)

    @host.get("/style.json")
    def style() -> Response:
        source = {"type": "raster", "tiles": [f"{elsewhere}/tiles/{{z}}/{{x}}/{{y}}.png"], "attribution": "© Somebody"}
        layers = [{"id": "ground", "type": "raster", "source": "ground"}]
        return JSONResponse({"version": 8, "sources": {"ground": source}, "layers": layers}, headers=allowed)

    with serving.serving(host) as elsewhere:
        app = serving.local_app(placed.uri, page=PageSettings(None, f"{elsewhere}/{path}"))
        with serving.serving(app) as url:
            policy = httpx.get(url).headers["content-security-policy"]
            assert f"connect-src 'self' blob: {elsewhere};" in policy
            kept = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": KEEP})
            for page in opened(chromium, url):
                settle(page)
                assert asked
                assert ("127.0.0.1" if "{z}" in path else "© Somebody") in page.text(".maplibregl-ctrl-attrib")
                assert page.all(".overlay line") == []
            chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", kept)


@pytest.mark.parametrize("path", ["tiles/{z}/{x}/{y}.png", "style.json"])
def test_a_basemap_that_does_not_answer_is_said_and_the_map_works(chromium: Any, placed: Placed, path: str) -> None:
    app = serving.local_app(placed.uri, page=PageSettings(None, f"http://127.0.0.1:9/{path}"))
    with serving.serving(app) as url:
        kept = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": KEEP})
        for page in opened(chromium, url):
            page.until("document.querySelector('#map-problem').textContent.includes('127.0.0.1')")
            page.open(f"?image_id={ONE}&k=3")
            page.until("Boolean(window.made?.getSource('middles'))")
            page.until("made.queryRenderedFeatures({layers: ['middles', 'footprints']}).length > 0")
            assert "127.0.0.1" in page.text("#map-problem") and set(drawn(page)) <= {1, 2, 3}
        chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", kept)


def test_the_map_is_put_away_and_stays_away(page: Page) -> None:
    page.click("#show-map")
    assert page.all("#map-panel") == []
    page.open(f"?image_id={ONE}&k=3")
    assert page.all("#map-panel") == []
    assert page.driver.execute_script("return window.maplibregl === undefined")
    page.click("#show-map")
    settle(page)
    assert set(drawn(page)) <= {1, 2, 3}
