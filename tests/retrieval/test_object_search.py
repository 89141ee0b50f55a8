"""Regions of objects beside key regions: each image once, by its best region, exactly as brute force finds them."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core import schemas
from rsir_core.errors import QueryError
from rsir_core.index.index import Index
from rsir_core.index.object_rows import ObjectLists
from rsir_core.index.stored_objects import read_with_objects
from rsir_core.index.writer import write_rows
from rsir_core.retrieval.answers import merge_ranked
from rsir_core.retrieval.object_partition import best_of_images
from rsir_core.retrieval.partition import in_runs
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.query import Descriptor, Ranking
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.exact import Hits
from rsir_core.search.filters import Filter
from rsir_core.search.ranking_options import RankingOptions
from tests.retrieval.test_partition import NAMES, SIZES, K, feature_rows
from tests.support.writing import writer_of

MOST = 4  # objects of an image
KINDS = ("plane", "ship")


def with_objects(features: pa.Table, seed: int) -> pa.Table:
    """Rows with up to `MOST` objects each, some of them alike."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, MOST + 1, len(features))
    m = int(count.sum())
    p = rng.dirichlet(np.full(len(NAMES), 0.2), m).astype(np.float32)
    p[rng.random(m) < 0.5] = [0.6, 0.3, 0.1]
    feature = rng.integers(-1, 2, (m, K)).astype(np.float32)  # few values, so that many are equally far
    boxes = [{"x0": i, "y0": 0.0, "x1": i + 1.0, "y1": 1.0} for i in map(float, range(m))]
    fields = {
        schemas.REGION: pa.array([{"x": i, "y": 1, "width": 2, "height": 2} for i in range(m)], schemas.PIXELS),
        schemas.OBJECT_CLASS: pa.array(KINDS).take(pa.array(rng.integers(0, 2, m))),
        schemas.OBJECT_SCORE: pa.array(rng.random(m), pa.float32()),
        schemas.OBJECT_BOX: pa.array(boxes, schemas.FEATURES.field(schemas.OBJECT_BOX).type),
        schemas.CLASS_PROBABILITIES: schemas.to_vectors(p.reshape(m, len(NAMES))),
        schemas.CLASS: pa.array(NAMES).take(pa.array(p.argmax(axis=1))),
        schemas.FEATURE: schemas.to_vectors(feature),
        schemas.PLACE: pa.nulls(m, pa.int32()),
    }
    lists = ObjectLists(count, pa.StructArray.from_arrays(list(fields.values()), list(fields)))
    column = lists.to_column(fields, schemas.FEATURE_OBJECTS)
    return features.append_column(schemas.FEATURES_WITH_OBJECTS.field(schemas.OBJECTS), column)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index(str(tmp_path_factory.mktemp("objects") / "index"))
    for first, size in zip(np.cumsum([0, *SIZES]), SIZES, strict=False):
        rows = with_objects(feature_rows(int(first), size), int(first))
        writer_of(index).commit("features", [write_rows(index.uri, "features", *in_runs(rows))], "append")
    return index


@pytest.fixture(scope="module")
def regions(index: Index) -> list[dict[str, Any]]:
    """All regions of all images, read as any tool would."""
    found = []
    for file in index.feature_files():
        for row in read_with_objects(index, file)[0].to_pylist():
            objects = row.pop(schemas.OBJECTS)
            found.append({**row, schemas.REGION_NUMBER: 0})
            found += [{**row, **one, schemas.REGION_NUMBER: i} for i, one in enumerate(objects, 1)]
    return found


def searches(index: Index, parts: int) -> list[PartitionSearch]:
    served = ServedVersion(
        index.uri, index.version(), sum(SIZES), "1", "1", NAMES, K, has_detector=True, tau=0.9, regions=MOST + 1
    )
    return [PartitionSearch(served, part, parts) for part in range(parts)]


@pytest.fixture(scope="module")
def opened(index: Index) -> dict[int, list[PartitionSearch]]:
    return {parts: searches(index, parts) for parts in (1, 3)}


def brute(rows: list[dict[str, Any]], query: Descriptor, by: str) -> list[tuple[float, str, int]]:
    """Every image by its best region: what ranks it, its id and the region's number."""
    best: dict[str, tuple[float, str, int]] = {}
    p = query.class_probabilities.astype(float)
    for row in rows:
        q = np.array(row[schemas.CLASS_PROBABILITIES])
        weights = (p.sum() - p[q.argmax()]) * (q.sum() - q[p.argmax()]) if by == "weighted_distance" else 1.0
        far = weights * float(np.linalg.norm(query.feature.astype(float) - np.array(row[schemas.FEATURE])))
        one = (round(far, 5), row[schemas.IMAGE_ID], row[schemas.REGION_NUMBER])
        best[one[1]] = min(best.get(one[1], one), one)
    return sorted(best.values())


FILTERS = [
    Filter(), Filter(classes=("beach",)), Filter(where=(("object_class", "==", "ship"),)),
    Filter(where=(("width", ">", 99),)),
]  # fmt: skip


@given(
    st.sampled_from(["key", "objects", "all"]), st.sampled_from(["weighted", "plain"]), st.sampled_from([1, 3]),
    st.integers(1, 80), st.integers(0, 3), st.integers(0, 40),
)  # fmt: skip
def test_images_are_ranked_by_their_best_region(
    opened: dict[int, list[PartitionSearch]], regions: list[dict[str, Any]], searched: Any, distance: Any, parts: int,
    k: int, which: int, seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    feature = rng.integers(-1, 2, K).astype(np.float32)
    query = Descriptor(None, None, feature, np.array([0.5, 0.25, 0.25], np.float32))
    ranking = Ranking(k, filter=FILTERS[which], distance=distance, regions=searched)
    answers = [part.rank(query, ranking, part.passing(ranking.filter)) for part in opened[parts]]
    found = merge_ranked(answers, ranking).rows
    tests: list[Callable[[dict[str, Any]], bool]] = [
        lambda _: True, lambda row: row["class"] == "beach", lambda row: row["object_class"] == "ship", lambda _: False,
    ]  # fmt: skip
    of_kind = {"key": {0}, "objects": set(range(1, MOST + 1)), "all": set(range(MOST + 1))}[searched]
    rows = [row for row in regions if tests[which](row) and row[schemas.REGION_NUMBER] in of_kind]
    wanted = brute(rows, query, ranking.ranked_by)
    names = (ranking.ranked_by, schemas.IMAGE_ID, schemas.REGION_NUMBER)
    got = list(zip(*(found[name].to_pylist() for name in names), strict=True))
    assert len({image for _, image, _ in got}) == len(got) == min(k, len(wanted))
    assert [round(far, 5) for far, _, _ in got] == pytest.approx([far for far, _, _ in wanted[:k]], abs=2e-5)
    if distance == "plain":  # of few values: ties are exact
        assert [one[1:] for one in got] == [one[1:] for one in wanted[:k]]
    by_name = {(row[schemas.IMAGE_ID], row[schemas.REGION_NUMBER]): row for row in rows}
    for row in found.to_pylist():
        stored = by_name[row[schemas.IMAGE_ID], row[schemas.REGION_NUMBER]]
        assert all(row[name] == stored[name] for name in ("region", "object_box", "object_class", "class", "uri"))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=60), st.integers(1, 8), st.integers(0, 9))
def test_the_best_of_each_image_needs_as_many_rows_as_it_takes(
    drawn: list[tuple[int, int]], first: int, seed: int
) -> None:
    key, image = np.array([k for k, _ in drawn], float), np.array([i for _, i in drawn], np.int64)
    number = np.random.default_rng(seed).permutation(len(drawn))
    order = np.lexsort((np.random.default_rng(seed + 1).permutation(len(drawn)), image, key))

    def search(k: int) -> Hits:
        rows = order[:k]
        return Hits(rows, key[rows], key[rows], key[rows], key[rows])

    found = best_of_images(search, image, number, first, "distance").rows.tolist()
    best = {i: min((key[j], i, number[j], j) for j in range(len(drawn)) if image[j] == i) for i in set(image.tolist())}
    assert found == [j for *_, j in sorted(best.values())[:first]]


@pytest.mark.parametrize(("parts", "searched"), list(product([1, 3], ["key", "objects", "all"])))
def test_images_that_are_likely_are_found_by_any_of_their_regions(
    opened: dict[int, list[PartitionSearch]], parts: int, searched: Any
) -> None:
    query = Descriptor(None, None, np.zeros(K, np.float32), np.array([0.5, 0.25, 0.25], np.float32))
    ranking = Ranking(99, distance="plain", regions=searched)
    for part in opened[parts]:
        ids = part.rank(query, Ranking(99, distance="plain"), None).rows[schemas.IMAGE_ID].to_pylist()
        likely = np.zeros(len(ids), np.bool_)
        likely[::2] = True
        wanted = set(part.rank(query, Ranking(99, distance="plain"), likely).rows[schemas.IMAGE_ID].to_pylist())
        found = part.rank(query, ranking, None, likely).rows[schemas.IMAGE_ID].to_pylist()
        assert set(found) <= wanted and (searched == "objects" or len(found) == len(wanted))


def test_images_stay_one_row(index: Index, opened: dict[int, list[PartitionSearch]]) -> None:
    (part,) = opened[1]
    assert index.features().num_rows == sum(SIZES) == part.images("", None, 99).total
    assert index.features().schema == schemas.FEATURES
    assert sum(part.summary.classes.values()) == sum(SIZES)


def test_an_index_of_key_regions_says_that_it_has_no_others(index: Index) -> None:
    served = ServedVersion(index.uri, 1, 1, "1", "1", NAMES, K, has_detector=True, tau=0.9)
    assert Ranking.of(RankingOptions(), served).regions == "key"
    assert Ranking.of(RankingOptions(regions="all"), served).regions == "all"  # as far as there are
    with pytest.raises(QueryError, match="--regions"):
        Ranking.of(RankingOptions(regions="objects"), served)


def test_files_of_an_index_of_key_regions_are_as_they_were(tmp_path: Path) -> None:
    rows = feature_rows(0, 9)
    field = schemas.FEATURES_WITH_OBJECTS.field(schemas.OBJECTS)
    table, clusters = in_runs(rows)
    with_nulls = table.append_column(field, pa.nulls(len(table), field.type))
    written = [write_rows(str(tmp_path), "features", one, clusters).name for one in (table, with_nulls)]
    one, other = ((tmp_path / "features" / name).read_bytes() for name in written)
    assert one == other and b"objects" not in one
