"""Marks that are kept in a collection, on the page in a real Chromium."""

import csv
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsir_core.errors import ReadOnlyError
from rsir_core.index.index import Index
from rsir_core.index.labels import read_labels, save_labels
from tests.support import serving
from tests.support.serving import ONE

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.endpoint.test_page import pressed
from tests.support.page import Page, opened

pytestmark = pytest.mark.slow


@pytest.fixture
def labelled(index: str, tmp_path: Path) -> Index:
    return serving.copy_of(index, tmp_path / "index")


@pytest.fixture
def page(chromium: Any, labelled: Index) -> Iterator[Page]:
    with serving.serving(serving.local_app(labelled.uri)) as url:
        chromium.get(url)
        chromium.execute_script("localStorage.clear()")
        yield from opened(chromium, url)


def labels_of(index: Index, name: str) -> dict[str, str]:
    return {row["image_id"]: row["label"] for row in read_labels(index, name).to_pylist()}


def until_kept(page: Page, words: str) -> None:
    page.until(f"document.querySelector('#collection-says').textContent === '{words}'")


def create(page: Page, name: str) -> None:
    Select(page.driver.find_element(By.ID, "collection")).select_by_visible_text("a new collection …")
    ActionChains(page.driver).send_keys(name, Keys.ENTER).perform()  # the keyboard is in the field


def test_marks_are_kept_survive_a_reload_and_are_undone(page: Page, labelled: Index) -> None:
    page.open(f"?image_id={ONE}")
    names = page.names()
    page.click("#grid li:nth-child(1) .mark.good")
    assert "collection" in page.text("#marks-say")  # what it takes to learn from marks
    create(page, "storage tanks")
    until_kept(page, "1 image: 1 good")  # what was marked before is kept, too
    assert "collection" not in page.text("#marks-say")
    page.click("#grid li:nth-child(2) .mark.bad")
    page.click("#grid li:nth-child(3) .mark.good")
    until_kept(page, "3 images: 1 bad, 2 good")
    page.until("true")
    page.open(f"?image_id={ONE}")
    until_kept(page, "3 images: 1 bad, 2 good")
    assert labels_of(labelled, "storage tanks") == {names[0]: "good", names[1]: "bad", names[2]: "good"}
    assert [pressed(mark) for mark in page.all("#grid .mark")][:6] == [True, False, False, True, True, False]
    assert not page.all("#chips li")  # they are not this search's
    page.click("#grid li:nth-child(2) .mark.good")  # thought better of it
    page.click("#grid li:nth-child(3) .mark.good")  # taken away
    until_kept(page, "2 images: 2 good")
    page.click("#undo")
    until_kept(page, "3 images: 3 good")
    page.click("#undo")
    until_kept(page, "3 images: 1 bad, 2 good")
    assert not page.all("#undo")
    page.driver.refresh()
    until_kept(page, "3 images: 1 bad, 2 good")
    assert len(labelled.rows("labels", ["label"])) == 7  # each change is a row of its own
    assert Axe().run(page.driver)["violations"] == []


def test_a_link_keeps_nothing_and_a_collection_that_others_mark_is_chosen(page: Page, labelled: Index) -> None:
    save_labels(labelled, "ships & more é", {ONE: "good", "river/river000.jpg": "harbor"}, dict.fromkeys(
        [ONE, "river/river000.jpg"], "u"), "bob")  # fmt: skip
    page.open("?good=beach/beach000.jpg&bad=river/river001.jpg")
    choice = Select(page.driver.find_element(By.ID, "collection"))
    assert [option.text for option in choice.options] == ["this page only", "ships & more é", "a new collection …"]
    page.driver.execute_script("localStorage.setItem('rsir.collection', 'ships & more é')")
    page.open("?good=beach/beach000.jpg&bad=river/river001.jpg")
    until_kept(page, "2 images: 1 good, 1 harbor")
    assert labels_of(labelled, "ships & more é") == {ONE: "good", "river/river000.jpg": "harbor"}


def test_what_cannot_be_saved_is_said_and_not_counted(
    page: Page, labelled: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ReadOnlyError("labels cannot be saved here")

    page.open(f"?image_id={ONE}")
    create(page, "tanks")
    until_kept(page, "0 images")
    monkeypatch.setattr("rsir_core.endpoint.collections.save_labels", refuse)
    page.click("#grid li:nth-child(1) .mark.good")
    page.until("document.querySelector('#error').textContent === 'labels cannot be saved here'")
    until_kept(page, "0 images")
    assert not labelled.has_table("labels")


def test_results_and_a_collection_are_downloaded_and_the_line_gets_the_same(
    page: Page, labelled: Index, tmp_path: Path
) -> None:
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.open(f"?image_id={ONE}&k=5")
    names = page.names()
    create(page, "tanks")
    until_kept(page, "0 images")
    page.click("#grid li:nth-child(1) .mark.good")
    until_kept(page, "1 image: 1 good")
    page.click("#take summary")
    Select(page.driver.find_element(By.ID, "format")).select_by_visible_text("CSV")
    for button, name, expected in (("#take-results", "results", names), ("#take-collection", "tanks", names[:1])):
        page.click(button)
        page.until(f"document.querySelector('#status').textContent === '{name}.csv is downloaded.'")
        WebDriverWait(tmp_path / f"{name}.csv", 10).until(Path.exists)  # type: ignore[type-var]
        assert [
            row["image_id"] for row in csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines())
        ] == expected
    page.type_into("#take-count", 2)
    line = page.text("#line")
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["image_id"] for row in csv.DictReader((tmp_path / "results.csv").read_text().splitlines())] == names[:2]
    assert Axe().run(page.driver)["violations"] == []


def test_the_form_of_a_download_is_about_the_results_that_are_shown(page: Page) -> None:
    def form() -> tuple[str, bool, bool]:
        count = page.driver.find_element(By.ID, "take-count").get_attribute("value")
        line = page.text("#line")
        return count, f'"k":{count},' in line, '"classes":["beach"]' in line

    page.open(f"?image_id={ONE}&k=5")
    page.click("#take summary")
    assert form() == ("5", True, False)
    assert page.text("#left-out")  # the query itself
    page.search(lambda: page.type_into("#k", f"7{Keys.TAB}"))
    assert form() == ("7", True, False)
    page.type_into("#take-count", 2)  # from now on it is the person's
    page.unfold("filter")
    page.search(lambda: page.click("#classes input[value=beach]"))
    assert form() == ("2", True, True)


def test_marks_are_learned_from_and_the_least_certain_are_marked_next(page: Page, labelled: Index) -> None:
    names = labelled.features(columns=["image_id"])["image_id"].to_pylist()
    labels: dict[str, str | None] = {
        n: "good" if n.startswith("beach") else "bad" for n in names if n.endswith("0.jpg")
    }
    save_labels(labelled, "beaches", labels, dict.fromkeys(labels, "u"), None)
    page.driver.execute_script("localStorage.setItem('rsir.collection', 'beaches')")
    page.open(f"?image_id={ONE}&class=beach")
    until_kept(page, "14 images: 13 bad, 1 good")
    page.click("#learn")
    page.until("document.querySelectorAll('#learned-grid .card').length > 0")
    assert "Too few to say" in page.text("#estimate") and not page.all("#results")
    assert page.all("#learned-grid .name")[0].text == "beach/beach000.jpg"
    assert pressed(page.all("#learned-grid .mark.good")[0])
    page.driver.execute_script(
        "const t = document.querySelector('#threshold'); t.value = 0; t.dispatchEvent(new Event('input'));"
        "t.dispatchEvent(new Event('change'))"
    )
    page.until("document.querySelector('#status').textContent.startsWith('28 images')")
    assert "first 24" in page.text("#status") and "filters" in page.text("#status")
    page.click("#learned-more")
    page.until("document.querySelectorAll('#learned-grid .card').length === 28")
    assert page.driver.find_element(By.ID, "learned-download").get_attribute("href").endswith("format=gpkg&threshold=0")
    Select(page.driver.find_element(By.ID, "learned-order")).select_by_value("uncertain")
    page.until("document.querySelector('#status').textContent.startsWith('14 of 14 images')")
    assert not [name.text for name in page.all("#learned-grid .name") if name.text in labels]
    page.click("#learned-grid li:nth-child(1) .mark.bad")
    page.until("true")
    assert Axe().run(page.driver)["violations"] == []
    page.click("#learn-again")
    page.until("document.querySelector('#status').textContent.startsWith('13 of 13 images')")
    page.click("#learned-grid li:nth-child(3) .card")
    page.until("document.querySelectorAll('#grid .card').length > 0 && document.querySelector('#learned').hidden")
    page.driver.back()
    page.until("!document.querySelector('#learned').hidden")
    assert page.text("#status").startswith("13 of 13 images")
    page.driver.refresh()
    page.until("document.querySelectorAll('#learned-grid .card').length > 0")
    assert page.text("#learned-title") == "Learned from beaches"
    page.click("#unlearn")
    page.until("document.querySelectorAll('#grid .card').length > 0 && document.querySelector('#learned').hidden")
