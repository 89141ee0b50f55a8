"""The page in a real Chromium, over the endpoint's app in this process."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from PIL import Image
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from jobs.demo.scenes import CLASSES
from rsir_core import schemas
from rsir_core.endpoint.tokens import Tokens, hash_of
from rsir_core.index.index import Index
from tests.support import serving
from tests.support.page import Page, Placed
from tests.support.serving import LIMITS, ONE

pytestmark = pytest.mark.slow


def upload(page: Page, file: Path) -> None:
    page.driver.find_element(By.ID, "file").send_keys(str(file))


def uploaded_path(index: str, image_id: str) -> Path:
    return Path(Index(index).features().to_pylist()[0]["uri"]).parents[1] / image_id


def test_an_upload_shows_what_was_found_and_why(page: Page, index: str) -> None:
    upload(page, uploaded_path(index, ONE))
    page.until_answered()
    assert page.names()[0] == ONE
    assert len(page.names()) == 20
    assert page.driver.execute_script("return document.documentElement.outerHTML").count("×10") == 0
    assert "beach" in page.text("#query figcaption")
    assert "Key region: 230×230 of 256×256 pixels" in page.text("#query figcaption")
    (region,) = page.driver.find_elements(By.CSS_SELECTOR, "#query rect.region:not(.halo)")
    assert region.get_attribute("width") == "230"
    assert page.driver.find_elements(By.CSS_SELECTOR, "#query rect.object")
    page.until("[...document.querySelectorAll('#query img, #grid img')].slice(0, 3).every(i => i.naturalWidth > 0)")


def test_the_three_parts_of_a_bar_multiply_to_the_weighted_distance(page: Page, index: str) -> None:
    page.open(f"?image_id={ONE}&order=weighted")
    answers = page.driver.execute_async_script(
        "const done = arguments[0]; Promise.all([import('./factors.js'), fetch('search', {method: 'POST', "
        f"headers: {{'Content-Type': 'application/json'}}, body: JSON.stringify({{image_id: '{ONE}'}})}})"
        ".then(r => r.json())]).then(([view, answer]) => done(answer.results.slice(1).map("
        "r => [view.shares(r, 'weighted_distance'), r.weighted_distance, r.distance])))"
    )
    for shares, weighted, distance in answers:
        if distance <= 1:
            assert 10.0 ** -sum(shares) == pytest.approx(weighted, rel=1e-6)
    bars = page.driver.execute_script(
        "return [...document.querySelectorAll('#grid .bar')].map("
        "b => [b.clientWidth, b.querySelector('i').offsetWidth])"
    )
    widths = [parts for _, parts in bars]
    assert widths == sorted(widths, reverse=True)  # nearer, longer
    assert all(parts <= whole for whole, parts in bars)


def test_a_weight_that_is_the_least_is_said_to_be_at_least_so_sure(page: Page) -> None:
    page.open(f"?image_id={ONE}")
    (words,) = page.driver.execute_async_script(
        "const done = arguments[0]; import('./factors.js').then(({ factorWords }) => {"
        "const result = {query_weight: 0.1, candidate_weight: 0.25, distance: 0.3, class: 'beach'};"
        "done([factorWords(result, {class: 'beach'}, {rankedBy: 'weighted_distance', leastWeight: 0.1})"
        ".map(e => e.textContent).join(' ')]); })"
    )
    assert "at least 90.0\xa0% sure that the query shows beach" in words and " 75.0\xa0% sure that this image" in words
    assert "at least 75" not in words


def test_the_order_is_the_persons_choice_and_by_default_the_querys(page: Page, client: httpx.Client) -> None:
    def ranked(distance: str) -> dict[str, Any]:
        asked = {"image_id": ONE, "positive": [other], "distance": distance, "k": 21}
        answer: dict[str, Any] = client.post("/search", json=asked).json()
        return answer

    other = "river/river000.jpg"  # two classes are looked for at once, so that neither is sure
    page.open(f"?image_id={ONE}&good={other}")
    assert "by looks alone, as the class is unsure" in page.text("#status")
    assert ranked("auto")["ranked_by"] == "distance"
    for order, parts in (("weighted", 3), ("plain", 1)):
        choice = Select(page.driver.find_element(By.ID, "order"))
        page.search(lambda choice=choice, order=order: choice.select_by_value(order))  # type: ignore[misc]
        assert page.names() == others([row["image_id"] for row in ranked(order)["results"]])
        assert page.address()["order"] == [order]
        assert "looks alone" not in page.text("#status")
        page.driver.execute_script("scrollTo(0, 0)")
        page.click("#grid li:nth-child(2) .card")
        page.click("#why summary")
        assert len(page.all("#why li")) == len(page.driver.find_elements(By.CSS_SELECTOR, "#why .bar i")) == parts
        page.click("#why summary")
        page.click("#close-result")
        page.until("!history.state?.open")


def test_an_image_is_picked_and_a_result_searched_from_with_the_keyboard(page: Page) -> None:
    Select(page.driver.find_element(By.ID, "of-class")).select_by_value("beach")
    page.until("document.querySelectorAll('#images .card').length === 2")
    page.driver.execute_script("document.querySelector('#images .card').focus()")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.until_answered()
    names = page.names()
    assert "beach/beach000.jpg" not in names  # the query
    assert focused(page) == "results-title"
    press(page, *[Keys.TAB] * 6)  # boxes, size, link, download, collection, the grid
    assert current_card(page) == names[0]
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert current_card(page) == names[1]
    assert (
        len(page.driver.find_elements(By.CSS_SELECTOR, "#grid [tabindex='0'], #grid .mark:not([tabindex='-1'])")) == 1
    )
    press(page, "g")
    assert [chip.get_attribute("title").split("\n")[0] for chip in page.all("#chips button")] == [names[1]]
    press(page, "g", Keys.END)
    assert current_card(page) == names[-1]
    press(page, Keys.HOME, Keys.ENTER)
    page.until("document.querySelector('#result').open")
    press(page, Keys.ARROW_RIGHT)
    assert page.text("#facts").find(names[1]) > 0
    page.search(lambda: page.click("#search-from"))
    assert page.address()["image_id"] == [names[1]]
    assert not page.driver.execute_script("return document.querySelector('#result').open")
    page.driver.back()
    page.until(f"document.querySelector('#grid .name')?.textContent === '{names[0]}'")
    page.driver.back()
    page.until("document.querySelector('#archive').hidden === false")


def press(page: Page, *keys: str) -> None:
    ActionChains(page.driver).send_keys(*keys).perform()


def current_card(page: Page) -> str:
    script = "return document.activeElement.matches('.card') && document.activeElement.closest('li').dataset.imageId"
    return str(page.driver.execute_script(script))


def others(names: list[str]) -> list[str]:
    """All but the query, which is not among its own results."""
    return [name for name in names if name != ONE]


def test_k_and_the_class_filter_are_obeyed_and_kept_in_the_address(page: Page) -> None:
    page.open(f"?image_id={ONE}&k=3&class=river&class=beach")
    names = page.names()
    assert len(names) == 3
    assert {name.split("/")[0] for name in names} <= {"river", "beach"}
    assert page.text("#filter-says") == "beach, river"
    page.driver.execute_script("document.querySelector('#filter').open = true")
    page.driver.find_element(By.CSS_SELECTOR, "#classes input[value=river]").click()
    page.until("document.querySelectorAll('#grid .card').length === 1")
    assert "class=beach" in page.driver.current_url
    assert "river" not in page.driver.current_url


def test_all_objects_are_shown_with_the_representative_one_first(page: Page, index: str, client: httpx.Client) -> None:
    file = uploaded_path(index, ONE)
    asked = {"image": file.read_bytes()}
    query = client.post("/search", files=asked, data={"preview": "true"}).json()["query"]
    assert query["objects"][0] == query["object"]
    assert 1 < len(query["objects"]) <= 20
    assert client.post("/search", files=asked).json()["query"]["objects"] == [query["object"]]  # nobody looks at them
    corner = {"x0": 0, "y0": 0, "x1": 9, "y1": 9}
    drawn = client.post("/search", files=asked, data={"preview": "true", "box": "0,0,9,9"}).json()["query"]
    assert drawn["objects"][0] == drawn["object"] == {"class": "given", "score": 1, "box": corner}
    assert drawn["objects"][1:] == query["objects"]
    page.search(lambda: upload(page, file))
    page.click("#query .objects summary")
    listed = [item.text.split(",")[0] for item in page.all("#query .objects li")]
    assert listed == [found["class"].replace("_", " ") for found in query["objects"]]
    for kind, count in (("object", 1), ("other", len(listed) - 1), ("region", 1)):
        assert len(page.driver.find_elements(By.CSS_SELECTOR, f"#query rect.{kind}:not(.halo)")) == count
    ActionChains(page.driver).move_to_element(page.all("#query .objects li")[1]).perform()
    page.until("document.querySelector('#query rect.other[data-same=object-2]').classList.contains('lit')")


def test_another_box_is_dragged_and_the_detector_used_again(page: Page) -> None:
    page.open(f"?image_id={ONE}")
    before = page.names()
    page.search(lambda: page.drag("#query svg", (-0.45, -0.45), (0.2, 0.3)))
    box = [float(edge) for edge in page.address()["box"][0].split(",")]
    expected = [0.05 * 256, 0.05 * 256, 0.25 * 256, 0.35 * 256]
    assert box == pytest.approx(expected, abs=3)
    assert "your box" in page.text("#query figcaption")
    region = page.driver.find_element(By.CSS_SELECTOR, "#query rect.region:not(.halo)")
    assert (region.get_attribute("x"), region.get_attribute("y")) == ("0", "0")
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#query rect.other:not(.halo)")) > 0  # the detector's
    page.search(lambda: page.click("#undraw"))
    assert "box" not in page.address()
    assert page.names() == before
    page.search(page.driver.back)
    assert "your box" in page.text("#query figcaption")


def test_another_box_is_given_by_its_edges(page: Page, index: str) -> None:
    page.search(lambda: upload(page, uploaded_path(index, ONE)))
    page.click("#draw summary")
    for edge, value in {"left": 200, "top": 180, "right": 150, "bottom": 256}.items():
        page.type_into(f"#box-{edge}", value)
    page.click("#box-search")
    message = "document.querySelector('#box-right').validationMessage"
    assert page.driver.execute_script(f"return {message}") == "Right must be greater than left"
    page.type_into("#box-right", 256)
    page.until("document.querySelector('#query rect.draft:not(.halo)')?.getAttribute('width') === '56'")
    page.search(lambda: page.driver.find_element(By.ID, "box-right").send_keys(Keys.ENTER))
    region = page.driver.find_element(By.CSS_SELECTOR, "#query rect.region:not(.halo)")
    assert (region.get_attribute("x"), region.get_attribute("y")) == ("26", "26")


def test_more_results_come_in_pages_that_keep_the_marks(page: Page, client: httpx.Client) -> None:
    page.open(f"?image_id={ONE}&k=4")
    page.click("#grid li:nth-child(3) .mark.good")
    for shown in (8, 12):
        page.driver.execute_script("document.querySelector('#further').click()")
        page.until(f"document.querySelectorAll('#grid .card').length === {shown}")
        page.until("!document.body.classList.contains('busy')")
    expected = client.post("/search", json={"image_id": ONE, "k": 13, "distance": "auto"}).json()["results"]
    assert page.names() == others([result["image_id"] for result in expected])
    assert [rank.text for rank in page.all("#grid .rank")] == [str(i) for i in range(1, 13)]
    assert [pressed(mark) for mark in page.all("#grid .mark.good")] == [i == 2 for i in range(12)]
    assert page.driver.switch_to.active_element.accessible_name.startswith("Result 9 ")
    page.open(f"?image_id={ONE}&k=4")
    assert page.text("#status").startswith("The first 4 results")
    page.open(f"?image_id={ONE}&k=50")
    assert page.all("#further") == [] and page.text("#status").startswith("27 results")


def pressed(mark: Any) -> bool:
    return bool(mark.get_attribute("aria-pressed") == "true")


def test_marked_results_refine_the_search(page: Page, client: httpx.Client) -> None:
    page.open(f"?image_id={ONE}&k=6")
    before = page.names()
    good, bad = before[4], before[1]
    chips = [f"Take the mark {kind} away from {name.split('/')[1]}" for kind, name in (("good", good), ("bad", bad))]
    page.click("#grid li:nth-child(5) .mark.good")
    page.click("#grid li:nth-child(2) .mark.good")
    page.click("#grid li:nth-child(2) .mark.bad")  # thought better of it
    for chip, name in zip(page.all("#chips button"), chips, strict=True):
        assert name in chip.accessible_name
    page.search(lambda: page.click("#refine"))
    assert (page.address()["good"], page.address()["bad"]) == ([good], [bad])
    asked = {"image_id": ONE, "positive": [good], "negative": [bad], "k": 8, "distance": "auto"}
    expected = [result["image_id"] for result in client.post("/search", json=asked).json()["results"]]
    assert page.names() == [name for name in others(expected) if name != bad][:6] != before
    assert "Refined by 1 good and 1 bad example" in page.text("#query figcaption")
    assert not page.driver.find_element(By.ID, "refine").is_enabled()
    page.search(lambda: page.click("#unmark"))
    assert page.names() == before
    assert page.all("#marks") == []


def test_days_filter(map_page: Page, placed: Placed) -> None:
    map_page.open("?image_id=" + ONE)
    map_page.click("#dates summary")
    assert "from 2020-01-31 to" in map_page.text("#times-say")
    first, last = placed.rows[3][schemas.TIME], placed.rows[6][schemas.TIME]
    set_day = (
        "const f = document.getElementById(arguments[0]); f.value = arguments[1]; f.dispatchEvent(new Event('change'))"
    )
    map_page.driver.execute_script(set_day, "from", f"{first:%Y-%m-%d}")
    map_page.search(lambda: map_page.driver.execute_script(set_day, "to", f"{last:%Y-%m-%d}"))
    assert set(map_page.names()) >= set(others([row["image_id"] for row in placed.rows[3:7]]))
    assert map_page.text("#dates-say") == f"from {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    map_page.until("document.querySelectorAll('#grid .card').length <= 4")
    map_page.driver.execute_script(set_day, "to", "2020-01-01")
    map_page.until("document.querySelector('#to').validationMessage === 'The last day is before the first'")
    map_page.search(lambda: map_page.click("#reset"))
    assert map_page.text("#dates-say") == "any time"


def test_a_query_that_is_like_nothing_is_told_so(page: Page, client: httpx.Client) -> None:
    page.open(f"?image_id={ONE}&class=forest")
    answer = client.post("/search", json={"image_id": ONE, "classes": ["forest"], "distance": "auto"}).json()
    assert answer["no_match"] is True
    assert page.text("#unlike").startswith("Probably not among the images that pass the filters. The closest:")
    assert "%" not in page.text("#unlike")
    page.click("#trust-more summary")
    assert "about 13 get this message" in page.text("#trust")
    assert "about 1 passes as found" in page.text("#trust")
    page.search(lambda: page.click("#reset"))  # it finds itself
    assert not page.driver.find_element(By.ID, "unlike").is_displayed()


def test_only_copies(page: Page) -> None:
    page.open(f"?image_id={ONE}")
    page.search(lambda: page.click("#copies"))
    assert ONE not in page.names()
    assert len(page.names()) < 20
    assert page.address()["copies"] == ["1"]
    assert {item.text for item in page.all("#grid .kind")} <= {"another picture"}
    assert page.text("#status").startswith("The index has no other copy of this picture")


def test_an_upload_that_is_there_already_is_told_from_look_alikes(page: Page, index: str, tmp_path: Path) -> None:
    page.click("#copies")
    Image.open(uploaded_path(index, ONE)).save(tmp_path / "again.jpg", quality=95)
    page.search(lambda: upload(page, tmp_path / "again.jpg"))
    assert "One of these is a copy of this picture." in page.text("#status")
    first = page.all("#grid .card")[0]
    assert page.all("#grid .kind.same")[0].text == "the same picture, saved or scaled anew"
    assert "the same picture, saved or scaled anew" in first.accessible_name


def test_a_link_is_the_whole_search(map_page: Page, placed: Placed) -> None:
    address = f"?image_id={ONE}&box=10,20,90,80&class=beach&class=river&good=beach/beach000.jpg&bad=river/river000.jpg"
    address += "&from=2020-02-01&to=2030-01-01&bbox=-179,10,179,80&k=3"
    map_page.open(address)
    names, asked = map_page.names(), map_page.address()
    version = asked.pop("version")  # which the address did not say, and has answered
    map_page.search(lambda: map_page.click("#copies"))
    map_page.search(lambda: map_page.click("#copies"))
    assert map_page.names() == names
    allowed = {"origin": placed.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    map_page.driver.execute_cdp_cmd("Browser.grantPermissions", allowed)
    map_page.click("#share")
    map_page.until("document.querySelector('#link-says').textContent.includes('link')")
    link = map_page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    map_page.driver.get("about:blank")
    map_page.driver.get(link)
    map_page.until_answered()
    assert map_page.names() == names
    said = map_page.address()
    assert said.pop("version") == version
    assert said == asked


def test_a_link_to_an_uploads_search_finds_the_same(page: Page, index: str, tmp_path: Path) -> None:
    Image.open(uploaded_path(index, ONE)).rotate(17).save(tmp_path / "mine.png")
    page.search(lambda: upload(page, tmp_path / "mine.png"))
    page.click("#grid li:nth-child(2) .mark.good")
    page.click("#grid li:nth-child(5) .mark.bad")
    page.search(lambda: page.click("#refine"))
    cards = [card.accessible_name for card in page.all("#grid .card")]
    page.driver.execute_script("navigator.clipboard.writeText = () => Promise.reject()")
    page.click("#share")
    page.until("!document.querySelector('#link').hidden")
    assert "does not show it" in page.text("#link-says")
    link = page.driver.find_element(By.ID, "link").get_attribute("value")
    page.driver.get("about:blank")
    page.driver.get(link)
    page.until_answered()
    assert [card.accessible_name for card in page.all("#grid .card")] == cards
    assert "which a link does not hold" in page.text("#query")
    page.driver.get(link.replace("descriptor=", "descriptor=%C3%A4"))
    page.until("!document.querySelector('#archive').hidden")


def test_a_picked_image_shows_all_of_its_objects(page: Page, client: httpx.Client) -> None:
    plain, seen = (
        client.post("/search", json={"image_id": ONE, "preview": preview}).json() for preview in (False, True)
    )
    assert seen["results"] == plain["results"] and seen["query"]["feature"] == plain["query"]["feature"]
    assert seen["query"]["objects"][0] == seen["query"]["object"] == plain["query"]["object"]
    assert len(seen["query"]["objects"]) > len(plain["query"]["objects"]) == 1
    page.open(f"?image_id={ONE}")
    assert len(page.all("#query rect.other:not(.halo)")) == len(seen["query"]["objects"]) - 1


def test_a_link_to_an_older_version_says_so(page: Page) -> None:
    version = page.driver.execute_async_script("fetch('index').then(r => r.json()).then(i => arguments[0](i.version))")
    page.driver.get(f"{page.driver.current_url}?image_id={ONE}&version={version + 7}")
    page.until("document.querySelector('#error').textContent.includes('version')")
    assert f"of version {version + 7} of the index; the newest is {version}" in page.text("#old")
    page.search(lambda: page.click("#newest"))
    assert page.address()["version"] == [str(version)]
    assert page.all("#old") == []


def test_a_busy_endpoint_is_asked_again(map_page: Page, placed: Placed) -> None:
    placed.busy[0] = 1
    map_page.driver.get(f"{placed.url}/?image_id={ONE}")
    map_page.until("document.querySelector('#status').textContent.includes('busy; trying again in 1 s (try 2 of 5)')")
    map_page.until_answered()
    placed.busy[0] = 5
    map_page.click("#grid li:nth-child(2) .card")
    map_page.click("#search-from")
    map_page.until("document.querySelector('#error').textContent === 'The endpoint is still busy; try again later.'")
    assert placed.busy == [0]


def test_what_browsers_cannot_show_is_shown(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "scene.tif"
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(file)
    upload(page, file)
    page.until_answered()
    page.until("document.querySelector('#query img').naturalWidth > 0")
    (shown,) = page.driver.find_elements(By.CSS_SELECTOR, "#query img")
    assert [shown.get_property(name) for name in ("naturalWidth", "naturalHeight")] == [96, 64]


def focused(page: Page) -> str:
    return str(page.driver.execute_script("return document.activeElement.id || document.activeElement.value"))


def test_filters_keep_the_keyboard_and_a_new_search_brings_it_to_the_results(page: Page) -> None:
    page.search(lambda: page.click("#images li:nth-child(2) .card"))
    assert focused(page) == "results-title"
    page.unfold("filter")
    for place in (1, 2):
        tick = page.driver.find_element(By.CSS_SELECTOR, f"#classes label:nth-child({place}) input")
        page.search(partial(tick.send_keys, Keys.SPACE))
        assert focused(page) == CLASSES[place - 1]
    assert page.address()["class"] == list(CLASSES[:2])


def test_to_the_results_by_the_keyboard_and_nothing_is_lost(page: Page, index: str) -> None:
    page.search(lambda: upload(page, uploaded_path(index, ONE)))
    before = page.driver.current_url
    page.driver.find_element(By.ID, "skip").send_keys(Keys.ENTER)
    assert focused(page) == "main" and page.driver.current_url == before
    assert page.names()[0] == ONE


def test_marks_of_a_lost_upload_are_not_another_search(page: Page, index: str) -> None:
    page.search(lambda: upload(page, uploaded_path(index, ONE)))
    page.click("#grid li:nth-child(2) .mark")
    page.search(lambda: page.click("#refine"))
    assert page.address()["good"]
    page.click("#recent summary")
    page.click("#forget")
    page.driver.refresh()
    page.until("document.querySelector('#status').textContent.includes('no longer here')")
    assert page.all("#results") == []


def test_a_link_with_days_the_wrong_way_round_says_so(map_page: Page, placed: Placed) -> None:
    map_page.driver.get(f"{placed.url}/?image_id={ONE}&from=2022-01-02&to=2021-01-01")
    map_page.until("document.querySelector('#error').textContent === 'The last day is before the first'")
    assert map_page.all("#to")


def test_a_file_that_is_chosen_early_is_searched_for(chromium: Any, index: str) -> None:
    tokens = Tokens({"ann": hash_of("right")})
    with serving.serving(serving.local_app(index, tokens=tokens)) as url:
        chromium.get(url)
        page = Page(chromium)
        page.until("document.querySelector('#key').hidden === false")  # nothing is known of the index yet
        upload(page, uploaded_path(index, ONE))
        page.search(lambda: page.type_into("#token", "right" + Keys.ENTER))
        assert page.names()[0] == ONE
        chromium.delete_all_cookies()


def test_errors_are_said_in_words(page: Page, tmp_path: Path) -> None:
    junk = tmp_path / "junk.jpg"
    junk.write_bytes(b"no picture")
    upload(page, junk)
    page.until("document.querySelector('#error').hidden === false")
    assert "no JPEG" in page.text("#error") and "it looks like text" in page.text("#error")
    page.click("#dismiss")
    assert page.all("#problem") == []
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(LIMITS.max_bytes + 1))
    upload(page, large)
    page.until("document.querySelector('#error').textContent.includes('large.jpg has')")
    page.driver.get(page.driver.current_url.split("?")[0] + "?image_id=none")
    page.until("document.querySelector('#error').textContent.includes('not in the index')")
    assert page.text("#status") == ""


def test_a_token_is_asked_for_once(chromium: Any, index: str) -> None:
    tokens = Tokens({"ann": hash_of("right")})
    with serving.serving(serving.local_app(index, tokens=tokens)) as url:
        chromium.get(f"{url}/?image_id={ONE}")
        page = Page(chromium)
        page.until("document.querySelector('#key').hidden === false")
        assert page.all("#archive, #results") == []
        page.type_into("#token", "wrong" + Keys.ENTER)
        page.until("document.querySelector('#error').textContent === 'The endpoint does not know this token.'")
        page.search(lambda: page.type_into("#token", "right" + Keys.ENTER))
        assert len(page.names()) == 20
        assert page.all("#key, #error") == []
        page.until("document.querySelector('#grid img').naturalWidth > 0")  # images cannot send a header
        page.open(f"?image_id={ONE}&k=3")
        chromium.delete_all_cookies()


PHONE = {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture
def phone(map_page: Page) -> Iterator[Page]:
    """The page on a phone."""
    map_page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    map_page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    yield map_page
    map_page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    map_page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def swipe(page: Page, selector: str, start: tuple[float, float], way: tuple[float, float]) -> None:
    """With one finger, from a share of an element's size for such a way."""
    element = page.driver.find_element(By.CSS_SELECTOR, selector)
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    edges = page.driver.execute_script("return arguments[0].getBoundingClientRect().toJSON()", element)
    x, y, w, h = (edges[name] for name in ("x", "y", "width", "height"))
    places = [{"x": x + (start[0] + i / 4 * way[0]) * w, "y": y + (start[1] + i / 4 * way[1]) * h} for i in range(5)]
    moves = [("touchMove", [place]) for place in places[1:]]
    for kind, points in [("touchStart", places[:1]), *moves, ("touchEnd", [])]:
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_it_fits_a_phone(phone: Page) -> None:
    phone.open(f"?image_id={ONE}&good=beach/beach000.jpg&bad=river/river001.jpg&bad=river/river000.jpg")
    for name in ("filter", "dates", "place", "draw"):
        phone.unfold(name)
    wider = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 360)"
    assert (
        phone.driver.execute_script(
            f"return {wider}.filter(e => !e.closest('#chips, .heard, dialog')).map(e => e.outerHTML)"
        )
        == []
    )
    assert phone.driver.execute_script("return document.documentElement.scrollWidth") == 360
    assert len({card.rect["x"] for card in phone.all("#grid .card")}) == 2
    small = [b.text for b in phone.all("button, summary") if b.rect["height"] < 24]  # WCAG 2.2, 2.5.8
    assert small == []


def test_a_finger_draws_a_box_once_it_is_asked_for_and_scrolls_otherwise(phone: Page) -> None:
    phone.open(f"?image_id={ONE}")
    phone.unfold("draw")
    phone.search(lambda: swipe(phone, "#query svg", (0.1, 0.1), (0.4, 0.3)))
    box = [float(edge) / 256 for edge in phone.address()["box"][0].split(",")]
    assert box == pytest.approx([0.1, 0.1, 0.5, 0.4], abs=0.02)
    phone.open(f"?image_id={ONE}")
    swipe(phone, "#query svg", (0.2, 0.7), (0.2, -0.5))
    phone.until("scrollY > 0")
    assert "box" not in phone.address()


def test_an_error_is_in_view_on_a_phone(phone: Page, tmp_path: Path) -> None:
    phone.open(f"?image_id={ONE}")
    (tmp_path / "junk.jpg").write_bytes(b"hello there")
    upload(phone, tmp_path / "junk.jpg")
    phone.until("!document.querySelector('#error').hidden")
    edges = phone.driver.execute_script("return document.querySelector('#error').getBoundingClientRect().toJSON()")
    assert 0 <= edges["top"] < edges["bottom"] <= PHONE["height"]
    assert "b'" not in phone.text("#error")


def test_everything_that_can_be_used_has_a_name(map_page: Page) -> None:
    page = map_page
    page.open(f"?image_id={ONE}&box=9,9,99,99&good=beach/beach000.jpg&bbox=10,30,90,60")
    for name in ("filter", "dates", "place", "draw"):
        page.unfold(name)
    near = "document.querySelectorAll('#grid li').forEach(e => { e.style.contentVisibility = 'visible'; })"
    page.driver.execute_script(near)  # what is far from view has no name yet
    for element in page.all("button, input, select, summary, a, [role], [tabindex='0']"):
        assert element.accessible_name or element.aria_role in ("status", "alert", "generic"), element.get_attribute(
            "outerHTML"
        )
    for image in page.all("#query img"):
        assert ONE in image.get_attribute("alt")


def test_a_result_opens_with_what_is_known_and_back_closes_it(map_page: Page, placed: Placed) -> None:
    page = map_page
    page.open(f"?image_id={ONE}&k=5")
    names, before = page.names(), page.driver.current_url
    row = next(row for row in placed.rows if row["image_id"] == names[1])
    page.click("#grid li:nth-child(2) .card")
    page.until("[...document.querySelectorAll('#pair img')].every(image => image.naturalWidth === 256)")
    assert len(page.all("#pair img")) == 2  # the query and the result
    facts = page.text("#facts")
    box = row[schemas.BBOX]
    middle = (box["ymin"] + box["ymax"]) / 2, (box["xmin"] + box["xmax"]) / 2
    assert all(text in facts for text in (names[1], row["uri"], f"{row[schemas.TIME]:%Y-%m-%d}", f"{middle[0]:.5f}° N"))
    assert page.driver.find_element(By.ID, "open-in").get_attribute("href") == (
        f"https://viewer.example/?lat={middle[0]:g}&id={names[1].replace('/', '%2F')}"
    )
    allowed = {"origin": placed.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.driver.execute_cdp_cmd("Browser.grantPermissions", allowed)
    for button, text in {
        "id": names[1],
        "uri": row["uri"],
        "place": f"{middle[0]:.6f}, {middle[1]:.6f}",
    }.items():
        page.click(f"#copy-{button}")
        page.until("document.querySelector('#copied-says').textContent.startsWith('Copied')")
        assert page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == text
        page.driver.execute_script("document.querySelector('#copied-says').textContent = ''")
    for switch, kind in (("region", "region"), ("objects", "object")):
        assert page.all(f"#pair rect.{kind}")
        page.click(f"#show-{switch}")
        assert page.all(f"#pair rect.{kind}") == []
        page.click(f"#show-{switch}")
    press(page, Keys.ARROW_LEFT)
    assert page.text("#result-place") == "1 of 5" and names[0] in page.text("#facts")
    assert page.driver.current_url == before
    page.driver.back()
    page.until("!document.querySelector('#result').open")
    assert page.names() == names and current_card(page) == names[0]
    press(page, Keys.ENTER, Keys.ESCAPE)
    page.until("!document.querySelector('#result').open && !history.state?.open")
    assert current_card(page) == names[0] and page.driver.current_url == before


def test_both_pictures_have_one_scale(page: Page, tmp_path: Path) -> None:
    Image.fromarray(np.full((100, 128, 3), 90, np.uint8)).save(tmp_path / "small.png")
    page.search(lambda: upload(page, tmp_path / "small.png"))
    page.click("#grid .card")
    widths = [frame.rect["width"] for frame in page.all("#pair .picture")]
    assert widths[1] / widths[0] == pytest.approx(256 / 128, rel=0.02)
    page.click("#show-query")
    assert len(page.all("#pair .picture")) == 1
    page.click("#show-query")


def test_back_returns_to_the_results_as_they_were(page: Page) -> None:
    page.open(f"?image_id={ONE}&k=8")
    page.driver.execute_script("document.querySelector('#further').click()")
    page.until("document.querySelectorAll('#grid .card').length === 16")
    page.driver.execute_script("scrollTo(0, 300)")
    page.click("#browse")
    assert page.all("#results") == []
    page.driver.back()
    page.until("!document.querySelector('#results').hidden")
    assert len(page.names()) == 16
    page.click("#grid li:nth-child(4) .card")
    page.search(lambda: page.click("#search-from"))
    page.search(page.driver.back)
    assert len(page.names()) == 16
    assert page.driver.execute_script("return scrollY") > 0


def test_more_results_come_as_one_scrolls(page: Page) -> None:
    page.open(f"?image_id={ONE}&k=16")
    assert len(page.names()) == 16
    page.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
    page.until("document.querySelectorAll('#grid .card').length > 16")


def test_theme_size_and_boxes_are_chosen_and_kept(page: Page) -> None:
    page.open(f"?image_id={ONE}&k=5")
    width = page.all("#grid .card")[0].rect["width"]
    Select(page.driver.find_element(By.ID, "theme")).select_by_value("dark")
    page.driver.find_element(By.ID, "size").send_keys(*[Keys.ARROW_RIGHT] * 8)
    page.click("#boxes")
    for _ in range(2):
        assert page.driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(18, 24, 26)"
        assert page.all("#grid .card")[0].rect["width"] > width
        assert page.all("#grid rect") == []
        page.driver.refresh()
        page.until_answered()
    page.driver.execute_script("localStorage.clear()")


def test_a_long_name_hides_no_button_and_no_filter_scrolls(map_page: Page) -> None:
    page = map_page
    size = {"width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.open(f"?image_id={ONE}&k=5&class=beach")
    long = "'a'.repeat(300)"
    page.driver.execute_script(f"for (const name of document.querySelectorAll('.name')) name.textContent = {long}")
    page.driver.execute_script(f"document.querySelector('#filter-says').textContent = {long}")
    right = "e => e.getBoundingClientRect().right"
    fields = "[...document.querySelectorAll('.controls > *')]"
    wider = f"{fields}.filter(e => ({right})(e) > ({right})(e.parentElement)).map(e => e.outerHTML)"
    assert page.driver.execute_script(f"return {wider}") == []
    for button in page.all("#grid li .mark"):
        edges = page.driver.execute_script("return arguments[0].closest('li').getBoundingClientRect().toJSON()", button)
        assert edges["left"] <= button.rect["x"] and button.rect["x"] + button.rect["width"] <= edges["right"] + 1
    bottom = "return document.querySelector('.query').getBoundingClientRect().bottom"
    assert page.driver.execute_script(bottom) <= 900
    for name in ("filter", "dates", "place"):
        page.unfold(name)
        scrolled = "e => e.scrollHeight > e.clientHeight + 1 && getComputedStyle(e).overflowY === 'auto'"
        found = f"return [...document.querySelectorAll('.query, .query *')].filter({scrolled}).map(e => e.outerHTML)"
        assert page.driver.execute_script(found) == []
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice", "experimental"]}


def test_axe_finds_nothing_in_any_state(map_page: Page, placed: Placed) -> None:
    page, axe = map_page, Axe()

    def check(state: str) -> None:
        found = axe.run(page.driver, options=RULES)["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == [], state

    for theme in ("light", "dark"):
        Select(page.driver.find_element(By.ID, "theme")).select_by_value(theme)
        check("archive")
        page.open(f"?image_id={ONE}&k=5")
        check("results")
        for name in ("filter", "dates", "place", "draw"):
            page.unfold(name)
            check(name)
        page.driver.execute_script("document.querySelector('#place').open = false")
        page.click("#grid .mark.good")
        check("marked")
        page.driver.execute_script("document.querySelector('#grid .card').click()")
        page.unfold("why")
        check("opened")
        page.click("#close-result")
        page.open(f"?image_id={ONE}&k=5&class=forest")
        page.unfold("trust-more")
        check("no match")
        page.driver.get(f"{placed.url}/?image_id=none")
        page.until("!document.querySelector('#error').hidden")
        check("error")
    page.driver.execute_script("localStorage.clear()")
    page.driver.get_log("browser")  # axe's own
