"""Many results on the page: only the cards near the view are there, and nobody notices."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from selenium.webdriver import Keys

from rsir_core.endpoint.app import build_app
from rsir_core.endpoint.page_files import ALONE
from tests.benchmarks.page import write_index
from tests.support.page import Page
from tests.support.serving import LIMITS, LocalBackend, serving

pytestmark = pytest.mark.slow
ROWS, RESULTS = 2600, 2000
RANK = "Number(document.activeElement.querySelector('.rank')?.textContent)"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An endpoint over rows enough for several lists."""
    uri = str(tmp_path_factory.mktemp("many") / "index")
    write_index(uri, ROWS)
    backend = LocalBackend(uri)
    limits = replace(LIMITS, max_k=RESULTS + 1)
    with serving(build_app(backend.router, backend.versions, limits, lambda _: None, None, ALONE)) as url:
        yield url


def ranks(page: Page) -> list[int]:
    """Ranks of the cards that are there, in the page's order."""
    found: list[int] = page.driver.execute_script(
        "return [...document.querySelectorAll('#grid .rank')].map(rank => Number(rank.textContent))"
    )
    return found


def test_cards_are_there_where_one_looks_and_the_page_stays_as_high(chromium: Any, many: str) -> None:
    chromium.get(f"{many}/")
    page = Page(chromium)
    page.open("?image_id=tiles/000000000.jpg&k=1000")
    for lists in (3, 5):  # 1000 results, 2000
        page.until(f"document.querySelectorAll('#grid ol').length === {lists}")
        if lists == 3:
            page.search(lambda: page.driver.execute_script("document.querySelector('#further').click()"))
    starts = page.driver.execute_script("return [...document.querySelectorAll('#grid ol')].map(list => list.start)")
    assert starts == [1, 421, 841, 1261, 1681]
    page.driver.execute_script("window.scrollTo(0, 0)")
    page.until("document.querySelector('#grid ol').childElementCount === 420")
    page.until("document.querySelectorAll('#grid .card').length < 2000")
    assert set(range(1, 421)) <= set(ranks(page))
    height = page.driver.execute_script("return document.querySelector('#grid').offsetHeight")
    page.driver.execute_script("document.querySelector('#grid .card').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.END)
    page.until(f"{RANK} === 2000")
    page.until("[...document.querySelectorAll('#grid ol')].at(-1).childElementCount === 320")
    page.driver.execute_script("document.querySelector('#grid ol:nth-child(3)').scrollIntoView()")
    page.until("document.querySelector('#grid ol:nth-child(3)').childElementCount === 420")
    assert len(ranks(page)) < 2000 and set(range(841, 1261)) <= set(ranks(page))
    assert page.driver.execute_script("return document.querySelector('#grid').offsetHeight") == pytest.approx(
        height, rel=0.02
    )
    page.driver.switch_to.active_element.send_keys(Keys.HOME)
    page.until(f"{RANK} === 1")
