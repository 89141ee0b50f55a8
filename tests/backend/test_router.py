"""The router: what several searchers answer together is what one of them answers alone."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from rsir_core import schemas
from rsir_core.imagery.decode import read_picture
from rsir_core.index.index import Index
from tests.support.serving import ONE, Rows, copy_of, local_app, png, publish, serving, upload

pytestmark = pytest.mark.slow
OTHERS = ["beach/beach000.jpg", "river/river001.jpg"]


@pytest.fixture(scope="module", params=[5, 1], ids=["five files", "one file, so that two searchers have none"])
def partitioned(index: str, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Iterator[httpx.Client]:
    """The same rows, over three searchers."""
    copy = copy_of(index, tmp_path_factory.mktemp("partitioned") / "index")
    publish(copy, Index(index).features(), files=request.param)
    with serving(local_app(copy.uri, parts=3)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def without_version(response: httpx.Response) -> Any:
    answer = response.json()
    assert (response.status_code, "version" in answer) == (200, True), answer
    return {k: v for k, v in answer.items() if k not in ("version", "versions")}


@pytest.mark.parametrize(
    "asked",
    [
        {"image_id": ONE, "k": 50},
        {"image_id": ONE, "k": 3, "offset": 4},
        {"image_id": ONE, "k": 50, "classes": ["beach", "river"]},
        {"image_id": ONE, "k": 50, "where": [["height", ">", 1], ["image_id", "!=", ONE]]},
        {"image_id": ONE, "k": 50, "bbox": [0, 0, 1, 1]},
        {"image_id": ONE, "k": 50, "box": [0, 0, 99, 99]},
        {"image_id": ONE, "k": 50, "near_duplicates": True},
        {"image_id": ONE, "k": 50, "positive": OTHERS[:1], "negative": OTHERS[1:]},
        {"positive": OTHERS, "k": 50},
    ],
    ids=str,
)
def test_every_kind_of_query_by_name(client: httpx.Client, partitioned: httpx.Client, asked: dict[str, Any]) -> None:
    expected = without_version(client.post("/search", json=asked))
    assert without_version(partitioned.post("/search", json=asked)) == expected
    assert expected["results"] or "bbox" in asked


def test_uploads_uris_and_descriptors(client: httpx.Client, partitioned: httpx.Client, stored: Rows) -> None:
    for row in stored[::6]:
        ready = {"feature": row["feature"], "class_probabilities": row["class_probabilities"]}
        for asked in ({"uri": row["uri"]}, ready):
            one, many = (c.post("/search", json={**asked, "k": 50}) for c in (client, partitioned))
            assert without_version(many) == without_version(one)
        data = Path(row["uri"]).read_bytes()
        assert without_version(upload(partitioned, data, k=9)) == without_version(upload(client, data, k=9))


def test_what_else_is_told(client: httpx.Client, partitioned: httpx.Client) -> None:
    for path in ("/index", "/healthz"):
        assert without_version(partitioned.get(path)) == without_version(client.get(path))
    for path in ("/images?offset=3&limit=9", "/images?contains=CH0&class=beach", f"/thumbnail/{ONE}"):
        assert partitioned.get(path).content == client.get(path).content
    for asked in ({"image_id": "none"}, {"positive": [ONE, "none"]}, {"image_id": ONE, "classes": ["moon"]}):
        one, many = (c.post("/search", json=asked) for c in (client, partitioned))
        assert (many.status_code, many.json()) == (one.status_code, one.json())
        assert one.is_client_error


# Kinds of query


@pytest.mark.parametrize("size", [1, 7, 50])
def test_pages_together_are_one_large_page(partitioned: httpx.Client, size: int) -> None:
    whole = partitioned.post("/search", json={"image_id": ONE, "k": 50}).json()["results"]
    pages = [
        partitioned.post("/search", json={"image_id": ONE, "k": min(size, 50 - i), "offset": i}).json()["results"]
        for i in range(0, 50, size)
    ]
    assert [result for page in pages for result in page] == whole


def test_a_ready_descriptor_ranks_as_its_image_does(client: httpx.Client, stored: Rows) -> None:
    for row in stored[::4]:
        ready = {"feature": row["feature"], "class_probabilities": row["class_probabilities"], "k": 50}
        answer = client.post("/search", json=ready).json()
        assert (answer["query"]["image_id"], answer["query"]["region"]) == (None, None)
        named = client.post("/search", json={"image_id": row["image_id"], "k": 50}).json()
        assert answer["results"] == named["results"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feature": [0.0]}, "feature: 1 numbers; this index has 8"),
        ({"class_probabilities": [1.0]}, "class_probabilities: 1 numbers"),
        ({"class_probabilities": None}, "give both"),
        ({"class_probabilities": [0.0] * 8}, "must sum to 1"),
        ({"feature": [3.0] * 8}, "less than or equal to 2"),
    ],
)
def test_a_descriptor_of_something_else_is_refused(
    client: httpx.Client, stored: Rows, change: dict[str, Any], words: str
) -> None:
    ready = {"feature": stored[0]["feature"], "class_probabilities": stored[0]["class_probabilities"]}
    if "sum" in words:
        change = {"class_probabilities": [0.0] * len(stored[0]["class_probabilities"])}
    response = client.post("/search", json=ready | change)
    assert (response.status_code, words in response.json()["detail"]) == (422, True), response.text


def test_feedback_moves_the_query_to_the_good_and_away_from_the_bad(client: httpx.Client, stored: Rows) -> None:
    row_of = {row["image_id"]: np.array(row["feature"]) for row in stored}
    good, bad = OTHERS

    def distances(**more: Any) -> tuple[float, float]:
        query = client.post("/search", json={"image_id": ONE, **more}).json()["query"]
        to_good, to_bad = (np.linalg.norm(np.array(query["feature"]) - row_of[name]) for name in (good, bad))
        return float(to_good), float(to_bad)

    near, far = distances()
    assert distances(positive=[good])[0] < near
    assert distances(negative=[bad])[1] > far
    moved = client.post("/search", json={"positive": [good], "k": 1}).json()
    assert moved["results"][0]["image_id"] == good
    assert moved["query"]["image_id"] is None
    assert client.post("/search", json={"negative": [bad]}).status_code == 422


def test_near_duplicates_are_ranked_by_the_plain_distance_and_end_where_others_begin(
    client: httpx.Client, stored: Rows
) -> None:
    for query in stored[::3]:
        asked = {"image_id": query["image_id"], "k": 50, "near_duplicates": True}
        found = [result["image_id"] for result in client.post("/search", json=asked).json()["results"]]
        away = sorted((math.dist(row["feature"], query["feature"]), row["image_id"]) for row in stored)
        assert found == [name for distance, name in away if distance <= 0.2]
        assert found[0] == query["image_id"]


def test_an_empty_name_is_not_in_the_index(partitioned: httpx.Client) -> None:
    for name in ("image_id", "uri"):
        response = partitioned.post("/search", json={name: ""})
        assert (response.status_code, f"{name} ''" in response.json()["detail"]) == (404, True)


@pytest.mark.parametrize("parts", [1, 2])
def test_an_upload_is_the_row_it_is_among_others_as_near(index: str, stored: Rows, tmp_path: Path, parts: int) -> None:
    """A nearer row of other probabilities, as of open sea, hides it from no number of searchers."""
    copy, one = copy_of(index, tmp_path / "index"), stored[0]
    turned = one[schemas.CLASS_PROBABILITIES][1:] + one[schemas.CLASS_PROBABILITIES][:1]
    near = stored[-1] | {schemas.FEATURE: one[schemas.FEATURE], schemas.CLASS_PROBABILITIES: turned}
    far = [x + 1e-4 for x in one[schemas.FEATURE]]
    publish(copy, pa.Table.from_pylist([one | {schemas.FEATURE: far}, *stored[1:-1], near], schemas.FEATURES), files=2)
    with serving(local_app(copy.uri, parts=parts)) as url, httpx.Client(base_url=url, timeout=60) as client:
        answer = upload(client, Path(one["uri"]).read_bytes()).json()
        assert (answer["results"][0]["image_id"], answer["results"][0]["weighted_distance"]) == (one["image_id"], 0)


def test_pixels_tell_which_near_duplicates_are_the_picture(index: str, stored: Rows, tmp_path: Path) -> None:
    copy, (one, other) = copy_of(index, tmp_path / "index"), (stored[0]["image_id"], stored[1]["image_id"])
    alike = {name: stored[0][name] for name in (schemas.FEATURE, schemas.CLASS, schemas.CLASS_PROBABILITIES)}
    publish(copy, pa.Table.from_pylist([stored[0], stored[1] | alike, *stored[2:]], schemas.FEATURES))
    pixels = read_picture(stored[0]["uri"]).pixels
    saved = io.BytesIO()
    Image.fromarray(pixels).save(saved, "JPEG", quality=95)

    def kinds(response: httpx.Response) -> dict[str, str]:
        return {result["image_id"]: result["same_picture"] for result in response.json()["results"]}

    with serving(local_app(copy.uri)) as url, httpx.Client(base_url=url, timeout=60) as client:
        stored_one = client.post("/search", json={"image_id": one, "near_duplicates": True})
        assert kinds(stored_one) == {one: "identical", other: "different"}
        for data, kind in ((png(pixels), "identical"), (saved.getvalue(), "re-encoded")):
            assert kinds(upload(client, data, near_duplicates="true")) == {one: kind, other: "different"}
        assert "same_picture" not in client.post("/search", json={"image_id": one}).json()["results"][0]
