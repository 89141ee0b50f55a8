"""Search an index once, in this process, and show what was found."""

import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

import rsir_core as rsir
from jobs.command import Summary
from jobs.searching.options import SearchConfig
from rsir_core.errors import ConfigError, QueryError

PIPE_COLUMNS: Final = 1000  # so that no name is folded where a program reads


def search(config: SearchConfig) -> Summary:
    """Run the job once.

    Raises:
        ConfigError: a filter or a box that this index or this image does not take.
        ImageError, QueryError: the image cannot become a picture, or is nowhere.
        TableError, BundleError: the index cannot be opened.
    """
    index = rsir.open(config.index, config.version)
    try:
        hits = index.search(
            config.image, config.k, box=config.box, box_as=config.box_as, classes=config.classes, bbox=config.bbox,
            polygon=config.polygon, start=config.start, end=config.end, where=config.where,
            distance=config.distance, near_duplicates=config.near_duplicates, max_distance=config.max_distance,
            regions=config.regions,
        )  # fmt: skip
    except QueryError as error:
        if error.kind == "invalid":
            raise ConfigError(str(error)) from error
        raise
    if config.out:
        hits.to_file(config.out)
    if config.open:
        _show(hits)
    if config.as_json or config.geojson:
        return _encoded(config, hits)
    if not config.open and not config.out:
        _print(hits)
    return {}


def _encoded(config: SearchConfig, hits: rsir.SearchHits) -> Summary:
    """Return the endpoint's JSON; GeoJSON is printed here."""
    from rsir_core.endpoint.messages import answer_json, item_collection  # noqa: PLC0415 -- brings pystac

    if config.as_json:
        answer: dict[str, Any] = orjson.loads(answer_json(hits.served, hits.ranking, hits.ranked))
        return answer
    sys.stdout.write(item_collection(hits.ranking, hits.ranked).decode() + "\n")
    return {}


def _print(hits: rsir.SearchHits) -> None:
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    console, query = Console(width=width, highlight=False, markup=False), hits.query
    size = f", {query.width}×{query.height} pixels" if query.width else ""
    of_query = f", object {query.object.name}" if query.object else ""
    console.print(f"query: {hits.class_words}{size}{of_query}")
    if hits.no_match:
        console.print("nothing in the index is like it; these are the nearest", style="yellow")
    table = Table(box=None, pad_edge=False)
    names = ["rank", "image", "class", "prob.", "weighted", "distance", "w query", "w row"]
    has_objects = any(hit.region_number for hit in hits)
    for name in [*names, "found"] if has_objects else names:
        is_text = name in ("image", "class", "found")
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for hit in hits:
        factors = (hit.weighted_distance, hit.distance, hit.query_weight, hit.candidate_weight)
        probability = f"{hit.probability:.1%}" if hit.class_name else ""
        region = f"{hit.object.name} {list(hit.region)}" if hit.region_number and hit.object else "scene"
        found = [region] if has_objects else []
        table.add_row(str(hit.rank), hit.image_id, hit.class_name, probability, *(f"{x:.3g}" for x in factors), *found)
    console.print(table)
    least = f" with weights of at least {hits.least_weight:g}" if hits.least_weight else ""
    of = f"{len(hits)} of {hits.served.images} images, version {hits.served.version}"
    console.print(f"{of}, by {hits.ranked_by}{least}")


def _show(hits: rsir.SearchHits) -> None:
    """Write the pictures to a page that stays, and open it where there is a browser."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="rsir-search-", suffix=".html", encoding="utf-8", delete=False
    ) as file:
        file.write(f"<!doctype html><meta charset=utf-8><title>rsir search</title>{hits.to_html()}\n")
    if not webbrowser.open(Path(file.name).as_uri()):
        print(f"no browser here; the page is {file.name}", file=sys.stderr)
