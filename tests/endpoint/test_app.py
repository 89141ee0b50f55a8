"""The routes: what they refuse, and what else they tell."""

import asyncio
import base64
import io
import json
import math
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.types import Message

from jobs.demo.scenes import CLASSES
from rsir_core import schemas
from rsir_core.endpoint.messages import AnswerJson
from rsir_core.endpoint.page_files import PAGE
from rsir_core.endpoint.reading import read_search
from rsir_core.endpoint.request import SearchRequest
from rsir_core.errors import QueryError
from rsir_core.index.index import Index
from tests.support.serving import LIMITS, ONE, Rows, png, upload

# Refusals


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({}, 422, "exactly one of"),
        ({"image_id": ONE, "uri": ONE}, 422, "exactly one of"),
        ({"image_id": "beach/none.jpg"}, 404, "'beach/none.jpg' is not in the index"),
        ({"uri": "/etc/passwd"}, 404, "'/etc/passwd' is not in the index"),
        ({"uri": ""}, 404, "'' is not in the index"),
        ({"image_id": "", "positive": [ONE]}, 404, "'' is not in the index"),
        ({"uri": "http://127.0.0.1:1/x.jpg", "box": [0, 0, 1, 1]}, 404, "is not in the index"),
        ({"image_id": ONE, "k": 0}, 422, "k: "),
        ({"image_id": ONE, "k": 51}, 422, "51 from offset 0 reaches beyond this endpoint's 50"),
        ({"image_id": ONE, "k": "many"}, 422, "k: "),
        ({"image_id": ONE, "classes": ["beach", "moon"]}, 422, "moon unknown; known are airport"),
        ({"image_id": ONE, "classes": []}, 422, "classes: "),
        ({"image_id": ONE, "k": 9, "offset": 42}, 422, "9 from offset 42"),
        ({"image_id": ONE, "bbox": [0, -91, 1, 1]}, 422, "bbox"),
        ({"image_id": ONE, "bbox": [0, 50, 10, 40]}, 422, "its south 50 lies north of its north 40"),
        ({"image_id": ONE, "start": "2020"}, 422, "start: "),  # not so many seconds since 1970
        ({"image_id": ONE, "end": 2020}, 422, "ISO 8601, as 2024-01-15"),
        ({"image_id": ONE, "start": "2026-02-01", "end": "2026-01-01T00:00:00Z"}, 422, "start: 2026-02-01T00:00:00"),
        ({"feature": ["x"] * 9000, "class_probabilities": [1]}, 422, "and 8995 more"),
        ({"feature": [0] * 10_001, "class_probabilities": [1]}, 422, "feature: List should have at most 10000"),
        ({"image_id": ONE, "where": [["moon", "==", 1]]}, 422, "no column 'moon'"),
        ({"image_id": ONE, "version": 7}, 404, "no version 7 is served; the newest is 1"),
        ({"image_id": ONE, "box": [5, 5, 5, 9]}, 422, "256×256"),
        ({"image_id": ONE, "box": [0, 0, 257, 9]}, 422, "256×256"),
        ({"image_id": ONE, "box": [0, 0, 9]}, 422, "box"),
        ({"image_id": ONE, "colour": "red"}, 422, "colour"),
        ([1], 422, "object"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(client: httpx.Client, asked: Any, status: int, words: str) -> None:
    response = client.post("/search", json=asked)
    assert (response.status_code, words in response.json()["detail"]) == (status, True), response.text


def test_bodies_of_other_kinds_are_refused(client: httpx.Client) -> None:
    assert client.post("/search", content=b"x").status_code == 415
    assert client.post("/search", data={"image_id": ONE}).status_code == 415  # a form of the other kind
    broken = client.post("/search", content=b"{", headers={"Content-Type": "application/json"})
    assert (broken.status_code, "Invalid JSON" in broken.json()["detail"]) == (422, True)
    text = client.post("/search", files={"image": (None, "text"), "other": b"x"})
    assert (text.status_code, "image: a text" in text.json()["detail"]) == (422, True)
    misnamed = client.post("/search", files={"picture": b"x"})
    assert (misnamed.status_code, "send the file as `image`" in misnamed.json()["detail"]) == (422, True)


def test_uploads_that_are_no_pictures_are_refused(client: httpx.Client) -> None:
    assert upload(client, b"junk").status_code == 422
    assert upload(client, b"\xff\xd8\xff\xe0 cut short").status_code == 422
    complex_tiff = rasterio.MemoryFile()
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "complex64"}
    with complex_tiff, complex_tiff.open(**profile, transform=rasterio.Affine.scale(2)) as file:
        file.write(np.ones((1, 8, 8), np.complex64))
        file.close()
        assert upload(client, complex_tiff.read()).status_code == 415


def test_too_many_pixels_are_refused(client: httpx.Client) -> None:
    side = math.isqrt(LIMITS.max_pixels)
    response = upload(client, png(np.zeros((side + 1, side + 1), np.uint8)))
    assert response.status_code == 413
    assert str(LIMITS.max_pixels) in response.json()["detail"].replace(",", "")
    assert upload(client, png(np.zeros((side, side), np.uint8))).status_code == 200


def test_too_many_bytes_are_refused_over_http(client: httpx.Client) -> None:
    response = upload(client, bytes(LIMITS.max_bytes))
    assert (response.status_code, str(LIMITS.max_bytes) in response.json()["detail"]) == (413, True)


@pytest.mark.parametrize(("headers", "chunks_read"), [([(b"content-length", b"1000000")], 0), ([], 3)])
def test_too_many_bytes_are_found_while_reading(headers: list[tuple[bytes, bytes]], chunks_read: int) -> None:
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": bytes(LIMITS.max_bytes // 2), "more_body": read < 10}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json"), *headers]}
    with pytest.raises(QueryError, match="200000 bytes") as refused:
        asyncio.run(read_search(Request(scope, receive), LIMITS))
    assert refused.value.kind == "too_large"
    assert read == chunks_read


@pytest.mark.parametrize(("name", "value"), [(b"image_id", b"+2AA-"), (b"+2AA-", b"x")])
def test_a_form_of_texts_that_are_none_is_refused(name: bytes, value: bytes) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value + b"\r\n--B--\r\n"

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    kind = (b"content-type", b"multipart/form-data; boundary=B; charset=utf-7")
    with pytest.raises(QueryError, match="UTF-8"):
        asyncio.run(read_search(Request({"type": "http", "method": "POST", "headers": [kind]}, receive), LIMITS))


@given(st.lists(st.text(min_size=1), min_size=1))
def test_any_class_name_can_be_sent_in_a_form(names: list[str]) -> None:
    assert SearchRequest.model_validate({"classes": json.dumps(names)}).classes == tuple(dict.fromkeys(names))


@pytest.mark.parametrize("text", ["", " , ", "[", "[1, 2]", "{}[", '["a"'])
def test_texts_that_are_no_list_of_names_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate({"classes": text, "box": text})


# What else the endpoint tells


def test_health_is_a_query_that_went_all_the_way(client: httpx.Client, index: str) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "version": Index(index).version()}


def test_what_is_served(client: httpx.Client, stored: Rows) -> None:
    told = client.get("/index").json()
    assert told["images"] == sum(told["classes"].values()) == len(stored)
    assert list(told["classes"]) == list(CLASSES)
    assert (told["bundle"], told["pca"]) == (stored[0][schemas.BUNDLE], stored[0][schemas.PCA])
    assert told["max_k"] == LIMITS.max_k


def test_pages_of_the_index_together_are_the_index(client: httpx.Client, stored: Rows) -> None:
    pages = [client.get("/images", params={"offset": i, "limit": 7}).json() for i in range(0, len(stored) + 7, 7)]
    assert [image["image_id"] for page in pages for image in page["images"]] == [r["image_id"] for r in stored]
    assert {page["total"] for page in pages} == {len(stored)}


def test_images_by_name_and_class(client: httpx.Client, stored: Rows) -> None:
    found = client.get("/images", params={"contains": "CH001.", "class": "beach"}).json()
    assert found == {"total": 1, "images": [{"image_id": ONE, "class": "beach"}]}
    assert client.get("/images", params={"contains": "%", "class": "beach"}).json()["total"] == 0
    assert client.get("/images", params={"class": "moon"}).status_code == 404
    assert client.get("/images", params={"limit": 0}).json()["detail"].startswith("limit: ")


def test_thumbnails_are_of_indexed_images_only(client: httpx.Client, index: str, stored: Rows) -> None:
    response = client.get(f"/thumbnail/{ONE}")
    assert response.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(response.content)) as image:
        assert (image.format, max(image.size)) == ("JPEG", 256)
    for path in (stored[0]["uri"], "../models/bundle.json", "/etc/passwd", "", "beach", ONE.upper()):
        assert client.get("/thumbnail/" + path.replace("/", "%2F")).status_code == 404, path


def test_the_thumbnail_of_an_image_that_has_gone(client: httpx.Client, stored: Rows) -> None:
    file = Path(stored[-1]["uri"])
    data = file.read_bytes()
    file.unlink()
    try:
        response = client.get(f"/thumbnail/{stored[-1]['image_id']}")
        assert (response.status_code, file.name in response.json()["detail"]) == (404, True)
        file.mkdir()  # which no store reads: a failure that is its own
        assert client.get(f"/thumbnail/{stored[-1]['image_id']}").status_code == 502
        file.rmdir()
        asked = {"image_id": stored[-1]["image_id"], "preview": True, "near_duplicates": True}
        answer = client.post("/search", json=asked).json()  # by its row
        assert (answer["results"][0]["image_id"], answer["results"][0]["same_picture"]) == (asked["image_id"], None)
        assert "it cannot be read any more" in answer["query"]["notes"] and "preview" not in answer["query"]
    finally:
        file.write_bytes(data)


def test_the_preview_is_the_picture_that_was_described(client: httpx.Client) -> None:
    wide = np.zeros((100, 1000, 3), np.uint8)
    wide[:, 500:] = 255, 0, 0
    query = upload(client, png(wide), preview="true").json()["query"]
    head, data = query["preview"].split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (512, 51)
        np.testing.assert_allclose(np.asarray(image)[25, [100, 400]], [[0, 0, 0], [255, 0, 0]], atol=4)
    assert "preview" not in upload(client, png(wide)).json()["query"]


def test_answers_are_as_documented(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    search = document["paths"]["/search"]["post"]
    assert set(search["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert search["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/AnswerJson")
    answer = client.post("/search", json={"image_id": ONE, "near_duplicates": True})
    TypeAdapter(AnswerJson).validate_json(answer.content, strict=True)
    fields = document["components"]["schemas"]["ResultJson"]["properties"]
    assert set(answer.json()["results"][0]) == set(fields)


def test_the_limits_that_run_are_documented(client: httpx.Client) -> None:
    content = client.get("/openapi.json").json()["paths"]["/search"]["post"]["requestBody"]["content"]
    upload = content["multipart/form-data"]["schema"]
    for body in (upload, *content["application/json"]["schema"]["oneOf"]):
        asked = body["properties"]
        for name in ("k", "offset"):
            low, high = asked[name]["minimum"], asked[name]["maximum"]
            rest = {"k": 1} if name == "offset" else {}
            statuses = [
                client.post("/search", json={"image_id": ONE, **rest, name: value}).status_code
                for value in (low - 1, low, high, high + 1)
            ]
            assert statuses == [422, 200, 200, 422]
    for limit in (LIMITS.max_bytes, LIMITS.max_pixels):
        assert str(limit) in upload["properties"]["image"]["description"]


def test_every_kind_of_query_is_of_one_documented_form(client: httpx.Client, stored: Rows) -> None:
    """And what is of none, or of several, is refused."""
    content = client.get("/openapi.json").json()["paths"]["/search"]["post"]["requestBody"]["content"]
    forms = content["application/json"]["schema"]["oneOf"]
    ready = {name: stored[0][name] for name in ("feature", "class_probabilities")}
    sources = [{"image_id": ONE}, {"uri": stored[0]["uri"]}, ready, {"positive": [ONE]}, {"box": [0, 0, 9, 9]}]
    for some in (set(chosen) for n in range(len(sources) + 1) for chosen in combinations(range(len(sources)), n)):
        asked = {name: value for i in some for name, value in sources[i].items()}
        of = sum(jsonschema_rs.is_valid(form, asked) for form in forms)
        # examples may come with any of the others: then its form is that one's
        assert of <= 1
        assert (of == 1) == (client.post("/search", json=asked).status_code == 200), asked


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    answers = [client.get(f"/{file.name}") for file in PAGE.iterdir() if file.name != "index.html"]
    assert {answer.headers["cache-control"] for answer in (page, *answers)} == {"no-cache"}
    texts = [page.text, *(answer.text for answer in answers)]
    addresses = {url for text in texts for url in re.findall(r"(?:https?:)?//[\w.]+\.\w+", text)}
    assert addresses == {"http://www.w3.org"}  # the name of SVG's namespace
    for name in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert client.get(f"/{name}").status_code == 200, name


def test_an_image_is_shown_whole(client: httpx.Client) -> None:
    answer = client.get(f"/image/{ONE}", params={"around": 1})  # it is no tile, so nothing is around it
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (256, 256)
    assert client.get("/image/beach/none.jpg").status_code == 404
    assert client.get(f"/image/{ONE}", params={"around": 3}).status_code == 422
