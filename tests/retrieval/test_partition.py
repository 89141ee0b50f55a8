"""Rows in memory: those of the table, however many files and shares they come in, whoever wrote them."""

import asyncio
import gc
import tempfile
from itertools import chain
from operator import not_
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from rsir_core import schemas
from rsir_core.backend.protocol import RankRequest
from rsir_core.backend.router import Router
from rsir_core.errors import TableError
from rsir_core.index.index import Index
from rsir_core.index.no_match import NoMatchThreshold
from rsir_core.index.writer import write_rows
from rsir_core.retrieval import partition as resident
from rsir_core.retrieval import query
from rsir_core.retrieval.answers import merge_ranked
from rsir_core.retrieval.partition import SCHEMA, Partition, in_runs
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.query import Descriptor, Ranked, Ranking, no_match_of
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.clusters import Clusters
from rsir_core.search.filters import EVERYTHING, Filter
from rsir_core.search.ranking_options import DistanceName
from tests.support.writing import writer_of

NAMES = ("beach", "forest", "river")
K, SIZES = 4, (40, 1, 23)  # rows of each file
PROBABLE = 0.6  # as few neighbours of so few random rows are more


def feature_rows(first: int, count: int, seed: int = 0) -> pa.Table:
    """Rows as the index job publishes them, of a place each."""
    rng = np.random.default_rng(seed + first)
    p = rng.dirichlet(np.full(len(NAMES), 0.2), count).astype(np.float32).reshape(count, len(NAMES))
    ids = [f"{i:03}/ä b.jpg" for i in range(first, first + count)]
    columns = {
        schemas.IMAGE_ID: ids,
        schemas.URI: [f"/archive/{i}" for i in ids],
        schemas.BBOX: [{"xmin": i, "ymin": 0.0, "xmax": i + 0.5, "ymax": 1.0} for i in map(float, range(count))],
        schemas.CLASS_PROBABILITIES: schemas.to_vectors(p),
        schemas.CLASS: pa.array(NAMES).take(pa.array(p.argmax(axis=1))),
        schemas.FEATURE: schemas.to_vectors(rng.normal(size=(count, K))),
        schemas.REGION: [{"x": 0, "y": 0, "width": 8, "height": 8}] * count,
        **dict.fromkeys((schemas.ETAG, schemas.BUNDLE, schemas.PCA), ["1"] * count),
        **dict.fromkeys((schemas.HEIGHT, schemas.WIDTH), [8] * count),
    }
    return pa.table([columns.get(f.name, pa.nulls(count, f.type)) for f in schemas.FEATURES], schemas.FEATURES)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = Index(str(tmp_path / "index"))
    for first, size in zip(np.cumsum([0, *SIZES]), SIZES, strict=False):
        table, clusters = in_runs(feature_rows(int(first), size))
        writer_of(index).commit("features", [write_rows(index.uri, "features", table, clusters)], "append")
    return index


def as_rows(table: pa.Table) -> list[dict[str, object]]:
    return sorted(table.select(SCHEMA.names).to_pylist(), key=lambda row: str(row[schemas.IMAGE_ID]))


def shares(index: Index, parts: int) -> list[Partition]:
    return [Partition(index, index.version(), part, parts) for part in range(parts)]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_shares_together_are_the_table(index: Index, parts: int) -> None:
    stored = index.features()
    loaded = shares(index, parts)
    assert sum(map(len, loaded)) == len(stored) == sum(SIZES)
    assert as_rows(pa.concat_tables([share.table for share in loaded])) == as_rows(stored)
    feature_of = dict(zip(stored[schemas.IMAGE_ID].to_pylist(), stored[schemas.FEATURE].to_pylist(), strict=True))
    for share in loaded:
        assert share.table.schema == SCHEMA
        assert [feature_of[i] for i in share.table[schemas.IMAGE_ID].to_pylist()] == share.feature.tolist()
        assert share.clusters.count.sum() == len(share)


@pytest.mark.parametrize("parts", [1, 3])
def test_each_row_is_found_by_id_and_by_uri_in_one_share(index: Index, parts: int) -> None:
    loaded = shares(index, parts)
    for row in index.features().to_pylist():
        for column in (schemas.IMAGE_ID, schemas.URI):
            found = [(share, place) for share in loaded if (place := share.find(column, row[column])) is not None]
            assert [share.table[column][place].as_py() for share, place in found] == [row[column]]
            assert all(share.find(column, row[column] + "x") is None for share in loaded)
    assert loaded[0].find(schemas.IMAGE_ID, "") is None


def test_rows_are_taken_in_the_order_asked_for(index: Index) -> None:
    (loaded,) = shares(index, 1)
    everything = loaded.table.to_pylist()
    rng = np.random.default_rng(0)
    for positions in (
        [],
        [0],
        [63, 0, 40, 39, 40, 40],
        rng.permutation(len(loaded)),
        rng.integers(len(loaded), size=200),
    ):
        taken = loaded.take(np.array(positions, np.int64))
        assert taken.to_pylist() == [everything[i] for i in positions]
        assert taken.schema == SCHEMA


@pytest.mark.parametrize("parts", [1, 3])
def test_search_and_filters_are_the_same_in_shares(index: Index, parts: int) -> None:
    (whole,), loaded = shares(index, 1), shares(index, parts)
    wanted = Filter(classes=("beach", "river"))
    for f in (EVERYTHING, wanted, Filter(classes=())):
        names = []
        for group in ([whole], loaded):
            found = []
            for share in group:
                hits = share.search(whole.feature[5], np.full(3, 1 / 3, np.float32), 9, share.passing(f, NAMES), False)
                ids = share.take(hits.rows)[schemas.IMAGE_ID].to_pylist()
                found += list(zip(hits.weighted_distance.tolist(), ids, strict=True))
            names.append(sorted(found)[:9])
        assert names[0] == names[1]
        assert len(names[0]) == (0 if f.classes == () else 9)


def open_deleted(place: Path) -> int:
    """Files of a folder that are mapped and have no name."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(str(place) in line and line.endswith("(deleted)") for line in lines)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not tell what is mapped")
def test_the_rows_file_has_no_name_and_goes_with_the_rows(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    clustered = resident._clustered

    def nameless(*read: Any) -> tuple[pa.Table, Clusters]:
        """While it loads, when it may be killed, too."""
        assert list(place.iterdir()) == []
        return clustered(*read)

    monkeypatch.setattr(resident, "_clustered", nameless)
    loaded = Partition(index, index.version())
    assert list(place.iterdir()) == []
    assert open_deleted(place) > 0
    assert len(loaded.take(np.arange(3))) == 3
    del loaded
    gc.collect()
    assert open_deleted(place) == 0


def test_files_that_a_stranger_wrote_are_clustered_when_they_are_loaded(index: Index) -> None:
    more = feature_rows(100, 30)
    write_deltalake(index.table_uri("features"), more, mode="append")
    (file,) = [f for f in index.feature_files() if f.row_count == 30]
    assert index.read_features(file)[1] is None
    for parts in (1, 2):
        loaded = shares(index, parts)
        assert as_rows(pa.concat_tables([share.table for share in loaded])) == as_rows(index.features())
        for row in more.slice(0, 3).to_pylist():
            feature, p = (np.array(row[name], np.float32) for name in (schemas.FEATURE, schemas.CLASS_PROBABILITIES))
            hits = [(share, share.search(feature, p, 1, None, euclidean=True)) for share in loaded]
            best = [(hit.distance[0], share.take(hit.rows)[schemas.IMAGE_ID][0].as_py()) for share, hit in hits]
            assert min(best) == (0, row[schemas.IMAGE_ID])


def test_a_stranger_may_rewrite_it_all(index: Index) -> None:
    version = index.version()
    write_deltalake(index.table_uri("features"), index.features(), mode="overwrite")
    old, new = Partition(index, version), Partition(index, index.version())
    assert as_rows(old.table) == as_rows(new.table)
    assert pq.read_table(f"{index.uri}/features/{index.feature_files()[0].name}").num_rows == len(new)


def test_a_version_that_is_not_there(index: Index) -> None:
    with pytest.raises(TableError, match="no version 99"):
        Partition(index, 99)


@pytest.mark.parametrize("parts", [1, 3])
def test_auto_weights_where_the_five_nearest_others_are_probably_of_the_querys_class(
    index: Index, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedVersion(index.uri, index.version(), sum(SIZES), "1", "1", NAMES, K, has_detector=False, tau=0.9)
    monkeypatch.setattr(query, "WEIGHTED_FROM", PROBABLE)
    found = [PartitionSearch(served, part, parts) for part in range(parts)]
    table = index.features()
    feature, p = (schemas.to_matrix(table[name]) for name in (schemas.FEATURE, schemas.CLASS_PROBABILITIES))
    ids, assigned = table[schemas.IMAGE_ID].to_pylist(), p.argmax(axis=1)
    distance = np.linalg.norm(feature[:, None].astype(float) - feature[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    orders = set()
    for i, near in enumerate(distance.argsort(axis=1)[:, :5]):
        is_sure = p[near, assigned[i]].mean() >= PROBABLE
        orders.add(expected := "weighted_distance" if is_sure else "distance")
        for image_id in (ids[i], None):  # the row itself, and an upload of the same picture
            asked = Descriptor(image_id, None, feature[i], p[i])
            near_rows = chain.from_iterable(share.neighbours(asked) for share in found)
            settled = Ranking(3).settled(query.without_own(near_rows, image_id))
            assert settled.ranked_by == expected
            if parts == 1:
                ranked, same = (found[0].rank(asked, ranking, None) for ranking in (Ranking(3), settled))
                assert ranked.ranked_by == settled.ranked_by and ranked.rows == same.rows
                assert ranked.least_weight == (0.1 if is_sure else 0)
                assert min(ranked.rows["query_weight"].to_pylist()) >= ranked.least_weight
    assert len(orders) == 2  # else the test could not fail


class InProcess:
    """A searcher of one share, in this process."""

    def __init__(self, rows: PartitionSearch) -> None:
        self._rows = rows

    async def hold(self, _: list[int]) -> dict[int, str]:
        return {}

    async def answer(self, asked: list[Any]) -> list[Any]:
        return [request.answer(self._rows) for request in asked]


@pytest.mark.slow
def test_searchers_of_shares_settle_the_order_together(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    served = ServedVersion(index.uri, index.version(), sum(SIZES), "1", "1", NAMES, K, has_detector=False, tau=0.9)
    monkeypatch.setattr(query, "WEIGHTED_FROM", PROBABLE)
    whole, *shares = (PartitionSearch(served, part, parts) for part, parts in ((0, 1), (0, 3), (1, 3), (2, 3)))
    nobody: Any = SimpleNamespace(describe=None)  # what is asked with is described
    router = Router(nobody, [InProcess(share) for share in shares])
    table = index.features()
    feature, p = (schemas.to_matrix(table[name]) for name in (schemas.FEATURE, schemas.CLASS_PROBABILITIES))

    async def ranked_by_all() -> list[Ranked]:
        asked = [Descriptor(None, None, f, of_classes) for f, of_classes in zip(feature, p, strict=True)]
        return [await router.rank(RankRequest(served.version, one, Ranking(3), resolve=True)) for one in asked]

    together = asyncio.run(ranked_by_all())
    for found, f, of_classes in zip(together, feature, p, strict=True):
        alone = whole.rank(Descriptor(None, None, f, of_classes), Ranking(3), None)
        assert (found.ranked_by, found.rows, found.least_weight) == (alone.ranked_by, alone.rows, alone.least_weight)
    assert {found.ranked_by for found in together} == {"distance", "weighted_distance"}


@pytest.mark.slow
@pytest.mark.parametrize("distance", ["plain", "weighted"])
def test_no_match_is_told_by_the_nearest_rows_of_all_shares_that_pass_the_filter(
    index: Index, distance: DistanceName
) -> None:
    limits = NoMatchThreshold("1", "1", 100, sum(SIZES), 0.01, 0.9, agreeing_distance=1.5)
    served = ServedVersion(
        index.uri, index.version(), sum(SIZES), "1", "1", NAMES, K, has_detector=False, tau=0.9, no_match=limits
    )
    rng, table = np.random.default_rng(5), index.features()
    feature, p = (schemas.to_matrix(table[name]) for name in (schemas.FEATURE, schemas.CLASS_PROBABILITIES))
    asked = [
        Descriptor(None, None, f, of_classes)
        for f, of_classes in zip(
            rng.normal(size=(60, K)).astype(np.float32), rng.dirichlet([0.1] * 3, 60).astype(np.float32), strict=True
        )
    ]
    told = set()
    for wanted, most in ((EVERYTHING, None), (Filter(classes=("river",)), None), (EVERYTHING, 1e-6)):  # results, not it
        passes = np.isin(table[schemas.CLASS].to_pylist(), wanted.classes or NAMES)
        ranking = Ranking(3, filter=wanted, distance=distance, far_from=0.9, max_distance=most)
        for parts in (1, 3):
            searches = [PartitionSearch(served, part, parts) for part in range(parts)]
            for one in asked:
                ranked = merge_ranked([s.rank(one, ranking, s.passing(wanted)) for s in searches], ranking)
                far = np.linalg.norm(feature[passes].astype(float) - one.feature, axis=1)
                near = far.argsort()[:5]
                together = far[near].mean() < 1.5 and p[passes][near, one.class_probabilities.argmax()].mean() >= 0.5
                assert no_match_of(served, ranking, ranked) is not_(far.min() < 0.9 or together)
                told.add((bool(far.min() < 0.9), bool(together)))
    assert told == {(True, True), (True, False), (False, True), (False, False)}  # else the test could not fail


@pytest.mark.parametrize("image_id", ["b", None])
def test_only_one_row_is_a_querys_own_however_they_are_shared(image_id: str | None) -> None:
    copies = [query.Neighbour(0.0, name, 0.5) for name in "cab"]
    others = [query.Neighbour(0.3, "d", 0.5)]
    kept = query.without_own([*others, *copies], image_id)
    assert [one.image_id for one in kept] == (["a", "c", "d"] if image_id else ["b", "c", "d"])
    assert query.without_own(others, image_id) == others
    assert len(query.without_own([*copies, *others], "x")) == 4


def test_a_row_without_neighbours_is_ranked_by_looks() -> None:
    assert Ranking(1).settled([]).ranked_by == "distance"
