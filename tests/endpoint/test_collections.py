"""Labels by HTTP: saved, read back, withdrawn, and refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rsir_core.archive.labels import label_images, labels_to_csv
from rsir_core.archive.listing import list_images
from rsir_core.endpoint.tokens import Tokens, hash_of
from rsir_core.errors import ReadOnlyError
from rsir_core.index.index import Index
from rsir_core.index.labels import read_labels
from tests.support.serving import ONE, copy_of, local_app, serving

OTHER = "river/river000.jpg"
COLLECTION = "/collections/storage%20tanks"
TANKS = f"{COLLECTION}/labels"


@pytest.fixture
def labelled(index: str, tmp_path: Path) -> Iterator[tuple[Index, httpx.Client]]:
    """An index that a test may label, and its endpoint with a token of alice's."""
    yield from _served(index, tmp_path / "index")


@pytest.fixture(scope="module")
def unlabelled(index: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, httpx.Client]]:
    """An index that stays without labels, and its endpoint."""
    yield from _served(index, tmp_path_factory.mktemp("unlabelled") / "index")


def _served(index: str, folder: Path) -> Iterator[tuple[Index, httpx.Client]]:
    copy = copy_of(index, folder)
    app = local_app(copy.uri, tokens=Tokens({"alice": hash_of("secret")}))
    with (
        serving(app) as url,
        httpx.Client(base_url=url, headers={"Authorization": "Bearer secret"}, timeout=60) as client,
    ):
        yield copy, client


def body(*labels: tuple[str, str | None]) -> dict[str, Any]:
    return {"labels": [{"image_id": image_id, "label": label} for image_id, label in labels]}


def test_labels_are_saved_read_and_withdrawn(labelled: tuple[Index, httpx.Client]) -> None:
    index, client = labelled
    assert client.get("/collections").json() == {"collections": []}
    assert client.get(COLLECTION).json() == {"total": 0, "labels": []}
    assert client.post(TANKS, json=body((ONE, "good"), (OTHER, "bad"), (OTHER, "good"))).json() == {"saved": 2}
    client.post("/collections/ships/labels", json=body((ONE, "bad")))
    (tanks,) = [one for one in client.get("/collections").json()["collections"] if one["name"] == "storage tanks"]
    assert tanks["labels"] == {"good": 2}
    first, second = client.get(COLLECTION).json()["labels"]
    assert (first["image_id"], first["label"], first["by"], first["time"]) == (ONE, "good", "alice", tanks["time"])
    assert client.get(COLLECTION, params={"offset": 1, "limit": 1}).json() == {"total": 2, "labels": [second]}
    client.post(TANKS, json=body((ONE, None)))
    assert [label["image_id"] for label in client.get(COLLECTION).json()["labels"]] == [OTHER]
    assert len(index.rows("labels", ["label"])) == 4  # each stays
    assert index.version() == 1


@pytest.mark.parametrize(
    ("path", "sent", "status", "words"),
    [
        (TANKS, body((ONE, "good"), ("beach/none.jpg", "good")), 404, "'beach/none.jpg' is not in the index"),
        (TANKS, {"labels": []}, 422, "labels"),
        (TANKS, {}, 422, "labels"),
        (TANKS, {"labels": [{"image_id": ONE}]}, 422, "label"),
        (TANKS, body((ONE, "")), 422, "label"),
        (TANKS, body((ONE, "x" * 65)), 422, "label"),
        (TANKS, body((ONE, "a\nb")), 422, "label"),
        (TANKS, body((ONE, "good")) | {"by": "bob"}, 422, "by"),
        ("/collections/.hidden/labels", body((ONE, "good")), 422, "name"),
        (f"/collections/{'x' * 65}/labels", body((ONE, "good")), 422, "name"),
        (TANKS, body(*[(ONE, "good")] * 1001), 422, "1001"),
        (TANKS, body(("x" * 5_000_000, "good")), 413, "larger"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_nothing_is(
    unlabelled: tuple[Index, httpx.Client], path: str, sent: Any, status: int, words: str
) -> None:
    index, client = unlabelled
    refused = client.post(path, json=sent)
    assert (refused.status_code, words in refused.json()["detail"]) == (status, True), refused.text
    assert not index.has_table("labels")


def test_another_sites_page_and_a_stranger_save_nothing(unlabelled: tuple[Index, httpx.Client]) -> None:
    index, client = unlabelled
    plain = client.post(TANKS, content=b"{}", headers={"Content-Type": "text/plain"})  # as a page may send unasked
    assert plain.status_code == 415
    assert httpx.post(f"{client.base_url}{TANKS}", json=body((ONE, "good"))).status_code == 401
    assert not index.has_table("labels")


def test_an_index_that_may_not_be_written_is_a_refusal_in_words(
    labelled: tuple[Index, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ReadOnlyError("labels cannot be saved")

    monkeypatch.setattr("rsir_core.endpoint.collections.save_labels", refuse)
    refused = labelled[1].post(TANKS, json=body((ONE, "good")))
    assert (refused.status_code, refused.json()["detail"]) == (403, "labels cannot be saved")
    assert "retry-after" not in refused.headers


@pytest.mark.slow
def test_an_endpoint_can_be_told_to_save_none(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import serving as support  # noqa: PLC0415

    monkeypatch.setattr(support, "LIMITS", replace(support.LIMITS, max_labels=0))
    with serving(local_app(index)) as url:
        assert httpx.get(f"{url}/index").json()["max_labels"] == 0
        refused = httpx.post(f"{url}{TANKS}", json=body((ONE, "good")))
        assert (refused.status_code, "--max-labels" in refused.json()["detail"]) == (403, True)
        assert httpx.get(f"{url}{COLLECTION}").status_code == 200
    assert not Index(index).has_table("labels")


def test_the_csv_of_a_collection_is_one_that_training_takes(
    labelled: tuple[Index, httpx.Client], tmp_path: Path
) -> None:
    index, client = labelled
    client.post(TANKS, json=body((ONE, 'a, "b"'), (OTHER, "bad")))
    rows = read_labels(index, "storage tanks").to_pylist()
    file = tmp_path / "labels.csv"
    file.write_text(labels_to_csv((row["uri"], row["label"]) for row in rows))
    images = list_images(str(Path(rows[0]["uri"]).parents[1]))
    assert label_images(images, str(file)) == [(row["uri"], row["label"]) for row in rows]
