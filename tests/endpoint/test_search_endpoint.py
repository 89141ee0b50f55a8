"""Queries: described as the index was, ranked as the paper says."""

import asyncio
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from jobs.demo.scenes import CLASSES
from rsir_core import schemas
from rsir_core.backend.protocol import RankRequest
from rsir_core.backend.searcher_worker import SearcherWorker
from rsir_core.index.index import Index
from rsir_core.models.describe import Describer
from rsir_core.models.regions import Box, DrawnBox, Region, object_region
from rsir_core.retrieval.describing import QueryDescriber
from rsir_core.retrieval.partition import Partition
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.query import ImageName, Ranking
from rsir_core.retrieval.served_version import open_version
from rsir_core.search.ranking_options import RankingOptions
from tests.support.serving import FARTHEST, LIMITS, ONE, Rows, check_finds_itself, upload

# The same way for the index and for a query


def test_each_indexed_image_finds_itself_when_it_is_uploaded(client: httpx.Client, stored: Rows) -> None:
    for row in stored:
        check_finds_itself(client, row)


def test_the_descriptor_of_an_indexed_image_is_its_row(client: httpx.Client, stored: Rows) -> None:
    row = stored[7]
    query = client.post("/search", json={"image_id": row["image_id"], "k": 1}).json()["query"]
    assert query["feature"] == row["feature"]
    assert list(query["class_probabilities"]) == list(CLASSES)
    assert list(query["class_probabilities"].values()) == row["class_probabilities"]
    assert query["region"] == row["region"]
    assert query["object"] == {"class": row["object_class"], "score": row["object_score"], "box": row["object_box"]}


def test_a_batch_of_queries_is_described_as_each_of_them_alone(index: str, stored: Rows) -> None:
    describer = QueryDescriber(open_version(index), LIMITS.max_pixels)
    boxes = [
        None, DrawnBox(Box(0, 0, 20, 20), True), DrawnBox(Box(0, 0, 20, 20), False),
        DrawnBox(Box(200, 200, 256, 256), False), DrawnBox(Box(200, 200, 256, 256), True),
    ]  # fmt: skip
    pictures = [describer.read(row["uri"], None) for row in stored[:5]]
    together = describer.describe(pictures, boxes)
    for picture, box, found in zip(pictures, boxes, together, strict=True):
        (alone,) = describer.describe([picture], [box])
        assert found.region == alone.region
        np.testing.assert_allclose(found.feature, alone.feature, atol=1e-5)


def test_a_given_box_replaces_the_detector(client: httpx.Client) -> None:
    asked = {"image_id": ONE, "box": [0, 0, 10, 10], "k": 1}
    named = client.post("/search", json=asked).json()["query"]
    assert named["image_id"] == ONE
    assert (named["region"]["x"], named["region"]["y"]) == (0, 0)
    (row,) = client.post("/search", json={"image_id": ONE, "k": 1}).json()["results"]
    sent = upload(client, Path(row["uri"]).read_bytes(), box="0,0,10,10", k=1).json()["query"]
    assert sent["feature"] == pytest.approx(named["feature"], abs=1e-6)
    assert sent["region"] != row["region"]


def test_a_box_is_described_by_itself(client: httpx.Client, index: str, stored: Rows) -> None:
    box, row = Box(100, 120, 140, 150), stored[0]
    answer = client.post(
        "/search", json={"image_id": row["image_id"], "box": list(box), "box_as": "object", "k": 1}
    ).json()
    region = Region(**answer["query"]["region"])
    assert region == object_region(row["height"], row["width"], box)
    pixels = np.asarray(Image.open(row["uri"]).convert("RGB"))[
        region.y : region.y + region.height, region.x : region.x + region.width
    ]
    described = Describer(Index(index).bundle()).describe([pixels], tau=1)  # the cut-out as a whole image
    feature = Index(index).pca(open_version(index).pca).transform(described.embedding)
    np.testing.assert_allclose(answer["query"]["feature"], feature[0], atol=1e-4)
    assert answer["no_match"] is None  # the threshold is of key regions


def test_a_row_is_recognised_through_rounding_and_nothing_else_is(index: str, stored: Rows) -> None:
    rows = PartitionSearch(open_version(index))
    for row in stored[::3]:
        _, _, exact = rows.resolve(ImageName("image_id", row["image_id"])) or pytest.fail("not found")
        rounded = replace(exact, feature=exact.feature + np.float32(1e-4))
        _, image_id, recognised = rows.resolve(rounded) or pytest.fail("not recognised")
        assert image_id == row["image_id"] and recognised.feature.tolist() == row["feature"]
        (first,) = rows.rank(recognised, Ranking(1), None).rows.to_pylist()
        assert (first["image_id"], first["weighted_distance"]) == (row["image_id"], 0)
        for other in (
            replace(exact, feature=exact.feature + np.float32(1e-3)),
            replace(rounded, class_probabilities=np.roll(exact.class_probabilities, 1)),
        ):
            assert rows.resolve(other) is None


# Ranking


def test_a_ranking_looks_through_its_filter_once(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, passing = SearcherWorker(index), Partition.passing
    asked: list[Any] = []

    def counted(*of: Any) -> Any:
        asked.append(of)
        return passing(*of)

    monkeypatch.setattr(Partition, "passing", counted)
    asyncio.run(worker.answer([RankRequest(1, ImageName("image_id", ONE), Ranking(1), resolve=True)]))
    assert len(asked) == 1


def brute_force(stored: Rows, query: dict[str, Any]) -> list[tuple[float, str]]:
    """Paper equations 6 to 8, row by row; complements as sums of the others."""
    p_query, c_query = query["class_probabilities"], int(np.argmax(query["class_probabilities"]))
    ranked = []
    for row in stored:
        p_row = row["class_probabilities"]
        c_row = int(np.argmax(p_row))
        weight_q = math.fsum(p for c, p in enumerate(p_query) if c != c_row)
        weight_r = math.fsum(p for c, p in enumerate(p_row) if c != c_query)
        ranked.append((weight_q * weight_r * math.dist(query["feature"], row["feature"]), row["image_id"]))
    return sorted(ranked)


def test_results_are_the_weighted_distances_of_the_paper(client: httpx.Client, stored: Rows) -> None:
    for query in stored[::5]:
        results = client.post("/search", json={"uri": query["uri"], "k": 50, "distance": "weighted"}).json()["results"]
        expected = brute_force(stored, query)
        assert [r["rank"] for r in results] == list(range(1, len(stored) + 1))
        assert [r["image_id"] for r in results] == [image_id for _, image_id in expected]
        assert [r["weighted_distance"] for r in results] == pytest.approx([wd for wd, _ in expected], rel=1e-5)
        for r in results:
            assert r["weighted_distance"] == pytest.approx(r["query_weight"] * r["candidate_weight"] * r["distance"])


def test_a_result_shows_its_row(client: httpx.Client, stored: Rows) -> None:
    rows_of = {row["image_id"]: row for row in stored}
    for result in client.post("/search", json={"image_id": ONE}).json()["results"]:
        row = rows_of[result["image_id"]]
        same = [
            schemas.URI,
            schemas.CLASS,
            schemas.REGION,
            schemas.OBJECT_CLASS,
            schemas.OBJECT_BOX,
            schemas.HEIGHT,
            schemas.WIDTH,
        ]
        assert {n: result[n] for n in same} == {n: row[n] for n in same}
        assert result["probability"] == max(row["class_probabilities"])


def test_the_class_filter_keeps_the_order_of_the_rest(client: httpx.Client) -> None:
    wanted = ["beach", "river"]
    everything = client.post("/search", json={"image_id": ONE, "k": 50}).json()["results"]
    expected = [r["image_id"] for r in everything if r["class"] in wanted]
    some = client.post("/search", json={"image_id": ONE, "k": 50, "classes": wanted}).json()["results"]
    assert [r["image_id"] for r in some] == expected
    data = Path(everything[0]["uri"]).read_bytes()
    for text in ("beach,river", '["beach", "river"]', ["beach", "river"]):
        again = upload(client, data, k=50, classes=text).json()["results"]
        assert [r["image_id"] for r in again] == expected


# What ranks, and whether anything is like the query


def test_auto_never_weights_where_the_classes_do_not_fit_the_archive(index: str) -> None:
    served = open_version(index)
    assert served.classes_fit and served.no_match is not None
    assert Ranking.of(RankingOptions(), served).distance == "auto"
    for agreement, expected in ((0.98, "auto"), (0.97, "plain"), (None, "auto")):
        measured = replace(served, no_match=served.no_match._replace(class_agreement=agreement))
        assert Ranking.of(RankingOptions(), measured).distance == expected
        assert Ranking.of(RankingOptions(distance="weighted"), measured).distance == "weighted"


def test_the_distance_that_was_asked_for_ranks_and_is_named(client: httpx.Client, stored: Rows) -> None:
    row = stored[0]
    uniform = [1 / len(CLASSES)] * len(CLASSES)
    for p, distance, by in (
        (row["class_probabilities"], "weighted", "weighted_distance"),
        (row["class_probabilities"], "plain", "distance"),
        (uniform, "weighted", "weighted_distance"),
        (uniform, "auto", "distance"),  # of each class there are two rows, so no neighbours are of one class
    ):
        asked = {"feature": row["feature"], "class_probabilities": p, "distance": distance, "k": 50}
        answer = client.post("/search", json=asked).json()
        assert answer["ranked_by"] == by
        keys = [result[by] for result in answer["results"]]
        assert keys == sorted(keys) and len(keys) > 10
        same = {"auto": {"distance": "plain", "weighted_distance": "weighted"}[by]}.get(distance, distance)
        assert answer["results"] == client.post("/search", json={**asked, "distance": same}).json()["results"]
        if distance == "auto":
            by_default = {name: value for name, value in asked.items() if name != "distance"}
            assert client.post("/search", json=by_default).json() == answer
    refused = client.post("/search", json={**asked, "distance": "euclidean"})
    assert refused.status_code == 422 and "euclidean" in refused.json()["detail"]


def test_a_query_that_is_like_nothing_is_told_so_on_every_page(client: httpx.Client, stored: Rows) -> None:
    row = stored[0]
    far = {"feature": [2.0] * len(row["feature"]), "class_probabilities": row["class_probabilities"]}
    verdicts = set()
    for asked in (far, {"image_id": row["image_id"]}):
        nearest = client.post("/search", json={**asked, "distance": "plain", "k": 1}).json()["results"][0]["distance"]
        for distance, page in itertools.product(("weighted", "plain"), ({}, {"offset": 5})):
            answer = client.post("/search", json={**asked, **page, "distance": distance, "k": 3}).json()
            assert (answer["no_match"], answer["false_match_rate"]) == (nearest >= FARTHEST, 0.01)
            verdicts.add(answer["no_match"])
    assert verdicts == {True, False}
    none = client.post("/search", json={**far, "near_duplicates": True}).json()
    assert (none["no_match"], none["false_match_rate"], none["results"]) == (None, None, [])
