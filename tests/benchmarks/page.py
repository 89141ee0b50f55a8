"""The longest tasks of the search page's main thread, in a real Chromium: as long as one runs, nobody can click.

Of an index of so many rows with footprints: the page is opened with its map and a search; the map is moved over the
archive; then further results are asked for, a page of them at a time, until so many are shown. Milliseconds; medians
of the rounds. The browser draws by software, and it, the endpoint and this process share the machine's cores.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsir_core import schemas
from rsir_core.endpoint.app import build_app
from rsir_core.endpoint.page_files import PageSettings
from rsir_core.index.index import Index
from rsir_core.index.writer import write_rows
from rsir_core.retrieval.partition import in_runs
from tests.benchmarks.index import write_models
from tests.support.browser import browser
from tests.support.drawn_rows import drawn_version
from tests.support.page import Page
from tests.support.serving import LIMITS, LocalBackend, serving
from tests.support.writing import writer_of

AT_ONCE = 1000  # results that the page asks for at a time
WATCH = """
window.longest = 0;
new PerformanceObserver((list) => { for (const task of list.getEntries()) longest = Math.max(longest, task.duration); })
  .observe({ type: "longtask", buffered: true });
Object.defineProperty(window, "maplibregl", { configurable: true, set(given) {
  const Made = given.Map;
  given.Map = class extends Made { constructor(options) { super(options); window.made = this; } };
  Object.defineProperty(window, "maplibregl", { value: given });
} });
"""
QUIET = "window.made?.getSource('middles') && made.loaded() && made.areTilesLoaded()"


def write_index(uri: str, n: int) -> None:
    """Write n rows, with the models of `index` and footprints anywhere in a rectangle of 40° × 24°."""
    index, rng = Index(uri), np.random.default_rng(0)
    write_models(f"{uri}/models")
    writer_of(index).adopt_bundle(f"{uri}/models")
    table = drawn_version(index, n, rng)
    west, south = rng.uniform(-10, 30, n), rng.uniform(36, 60, n)
    sides = dict(zip(schemas.BBOX_FIELDS, (west, south, west + 0.02, south + 0.02), strict=True))
    kind = schemas.FEATURES.field(schemas.BBOX).type
    boxes = pa.StructArray.from_arrays(
        [pa.array(sides[field.name], field.type) for field in kind], fields=[kind.field(i) for i in range(len(kind))]
    )
    table = table.set_column(table.column_names.index(schemas.BBOX), schemas.FEATURES.field(schemas.BBOX), boxes)
    writer_of(index).commit("features", [write_rows(index.uri, "features", *in_runs(table))], "overwrite")


def longest(page: Page) -> float:
    """Take the longest task since the last call, in milliseconds; 0 where none took 50."""
    found = page.driver.execute_async_script(
        "const done = arguments[0]; setTimeout(() => { done(longest); longest = 0; }, 200);"
    )
    return float(found)


def settle(page: Page) -> None:
    """Wait until the map shows all that it has been given, and goes on doing so for half a second."""
    since = None
    while since is None or time.monotonic() - since < 0.5:
        if not page.driver.execute_script(f"return {QUIET}"):
            since = None
        elif since is None:
            since = time.monotonic()
        time.sleep(0.05)


def measure(page: Page, root: str, results: int) -> dict[str, float]:
    """Open the page, move its map, and show so many results."""
    first = min(results, AT_ONCE)
    page.driver.get("about:blank")
    page.driver.get(f"{root}/?image_id=tiles/000000000.jpg&k={first}")
    page.until_answered()
    settle(page)
    found = {"open": longest(page)}
    for lon, lat, zoom in ((10, 48, 3), (10, 48, 6), (12, 50, 9)):
        page.driver.execute_script(
            "made.jumpTo({ center: [arguments[0], arguments[1]], zoom: arguments[2] })", lon, lat, zoom
        )
        settle(page)
    found["move"] = longest(page)
    shown = first
    while shown < results:
        shown += min(first, results - shown)
        page.driver.execute_script("document.querySelector('#further').click()")
        page.until(f"document.querySelectorAll('#grid ol').length >= {shown} / 420")
        page.until_answered()
    settle(page)
    found["results"] = longest(page)
    page.driver.execute_script("window.scrollTo(0, document.body.scrollHeight / 2)")
    found["scroll"] = longest(page)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure several times with one endpoint and one browser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--results", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_index(str(Path(folder, "index")), args.rows)
        backend = LocalBackend(str(Path(folder, "index")))
        app = build_app(
            backend.router,
            backend.versions,
            replace(LIMITS, max_k=args.results + 1),
            lambda _: None,
            None,
            PageSettings(),
        )
        with serving(app) as root, browser("--window-size=1440,900") as driver:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
            rounds += [measure(Page(driver), root, args.results) for _ in range(args.rounds)]
    result: dict[str, Any] = {"rows": args.rows, "results": args.results}
    result |= {f"longest_task_ms_{what}": round(statistics.median(one[what] for one in rounds)) for what in rounds[0]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
