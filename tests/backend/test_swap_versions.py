"""Versions: loaded once, swapped under queries, let go of."""

import asyncio
import gc
import json
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import not_
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from rsir_core import schemas
from rsir_core.backend import versions as versions_room
from rsir_core.backend.protocol import DescribeRequest, RankRequest, ResolveRequest, ScoredRequest
from rsir_core.backend.searcher_worker import SearcherWorker
from rsir_core.backend.version_cache import VersionCache
from rsir_core.errors import QueryError, TableError
from rsir_core.index import no_match
from rsir_core.index.index import Index
from rsir_core.index.no_match import put_no_match_threshold
from rsir_core.retrieval.query import Descriptor, ImageName, Ranking, no_match_of
from rsir_core.search.ranking_options import RankingOptions
from tests.support.serving import ONE, LocalBackend, copy_of, local_app, publish, publish_by_other_pca, serving
from tests.support.writing import writer_of

pytestmark = pytest.mark.slow

QUERY = RankingOptions(k=3)
AGREEING = 0.2  # as these models are never sure

# Caches


class Loader:
    """Loads versions when it is let; remembers which."""

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.may = threading.Event()
        self.may.set()

    def __call__(self, version: int) -> "Loaded":
        self.loaded.append(version)
        assert self.may.wait(30)
        if version == 13:
            raise ValueError("damaged")
        return Loaded(version)


class Loaded:
    def __init__(self, version: int) -> None:
        self.version = version


def test_a_version_that_many_ask_for_at_once_is_loaded_once() -> None:
    loader = Loader()
    loader.may.clear()
    cache = VersionCache(loader)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cache.get, 1) for _ in range(8)]
        loader.may.set()
        assert len({id(one.result()) for one in asked}) == 1
    assert loader.loaded == [1]


def test_loading_one_version_holds_up_nobody_who_asks_for_another() -> None:
    loader = Loader()
    cache = VersionCache(loader)
    old = cache.get(1)
    loader.may.clear()
    with ThreadPoolExecutor(1) as pool:
        new = pool.submit(cache.get, 2)
        assert cache.get(1) is old
        assert cache.newest is old
        assert not new.done()
        loader.may.set()
        assert new.result().version == 2
        assert cache.newest.version == 2


def test_what_is_not_held_any_more_is_let_go_of() -> None:
    cache = VersionCache(Loader())
    old = weakref.ref(cache.get(1))
    assert cache.hold([1, 2]) == {}
    assert old() is not None
    assert cache.hold([2]) == {}
    assert old() is None


def test_a_version_that_cannot_be_loaded_leaves_the_others_and_can_be_tried_again() -> None:
    loader = Loader()
    cache = VersionCache(loader)
    cache.get(1)
    assert cache.hold([1, 13]) == {13: "damaged"}
    assert cache.get(1).version == 1
    with pytest.raises(ValueError, match="damaged"):
        cache.get(13)
    assert loader.loaded == [1, 13, 13]


# Loaded versions


@pytest.fixture
def changing(index: str, tmp_path: Path) -> Index:
    return copy_of(index, tmp_path / "index")


def fewer(index: Index, leave_out: int = 1) -> int:
    return publish(index, index.features().slice(leave_out), files=2)


async def version_of(backend: LocalBackend, version: int | None = None) -> int:
    async with backend.versions.lend(version) as served:
        await backend.router.probe(served)
        return served.version


def test_the_newest_version_is_served_once_it_is_looked_for(changing: Index) -> None:
    async def check() -> None:
        backend = LocalBackend(changing.uri, parts=2)
        first = changing.version()
        assert await version_of(backend) == first
        old = weakref.ref(backend.searchers[0]._versions.get(first))
        second = fewer(changing)
        assert await version_of(backend) == first
        await backend.versions.refresh()
        assert await version_of(backend) == second
        assert backend.versions.newest.images == len(changing.features())
        assert backend.versions.numbers == [second]
        gc.collect()
        assert old() is None  # memory returns

    asyncio.run(check())


def test_thresholds_that_are_stored_after_their_version_are_taken(changing: Index) -> None:
    async def check() -> None:
        backend = LocalBackend(changing.uri)
        version = fewer(changing)
        await backend.versions.refresh()
        before = backend.versions.newest.no_match
        assert backend.versions.newest.version == version and before is not None and before.distance != 0.25
        put_no_match_threshold(writer_of(changing), version, before._replace(distance=0.25))
        async with backend.versions.lend(None) as under_way:
            await backend.versions.refresh()
            assert under_way.no_match == before
        assert backend.versions.newest.no_match == before._replace(distance=0.25)
        async with backend.versions.lend(None) as served:
            assert served.no_match == backend.versions.newest.no_match

    asyncio.run(check())


@pytest.mark.parametrize("parts", [1, 2])
def test_a_far_query_is_judged_by_a_threshold_that_was_stored_after_its_version(
    changing: Index, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The searchers have loaded the version with that of the version before."""
    monkeypatch.setattr(no_match, "AGREEING_PROBABILITY", AGREEING)

    async def check() -> None:
        backend = LocalBackend(changing.uri, parts)
        version = fewer(changing)
        await backend.versions.refresh()
        known, rows = backend.versions.newest.no_match, changing.features(version)
        feature, p = (schemas.to_matrix(rows[name]) for name in (schemas.FEATURE, schemas.CLASS_PROBABILITIES))
        assert known is not None and known.agreeing_distance is None
        put_no_match_threshold(writer_of(changing), version, known._replace(distance=1e-3, agreeing_distance=5.0))
        await backend.versions.refresh()
        verdicts = set()
        for away in (0.01, 9.0):
            for i, row in enumerate(feature):
                far = Descriptor(None, None, (row + away).astype(np.float32), p[i])
                async with backend.versions.lend(None) as served:
                    ranking = Ranking.of(QUERY, served)
                    ranked = await backend.router.rank(RankRequest(served.version, far, ranking))
                    distance = np.linalg.norm(feature.astype(float) - far.feature, axis=1)
                    near = distance.argsort()[:5]
                    is_match = distance[near].mean() < 5 and p[near, p[i].argmax()].mean() >= AGREEING
                    assert no_match_of(served, ranking, ranked) is not_(distance.min() < 1e-3 or is_match)
                    verdicts.add(is_match)
        assert len(verdicts) == 2  # else the test could not fail

    asyncio.run(check())


def test_a_query_under_way_keeps_its_version(changing: Index) -> None:
    async def check() -> None:
        backend = LocalBackend(changing.uri)
        async with backend.versions.lend(None) as served:
            second = fewer(changing)
            await backend.versions.refresh()
            assert backend.versions.numbers == [served.version, second]
            (found,) = await backend.router.resolve(served.version, [ImageName("image_id", ONE)])
            assert found.image_id == ONE
            assert await version_of(backend) == second
        await backend.versions.refresh()
        assert backend.versions.numbers == [second]

    asyncio.run(check())


def test_an_older_version_is_loaded_for_who_asks_and_goes_when_nobody_does(
    changing: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        first, second, third = changing.version(), fewer(changing), fewer(changing)
        backend = LocalBackend(changing.uri)
        assert await asyncio.gather(*(version_of(backend, first) for _ in range(5))) == [first] * 5
        assert backend.versions.numbers == [first, third]
        with pytest.raises(QueryError, match="another is in use") as refused:
            await version_of(backend, second)
        assert refused.value.kind == "busy"
        await backend.versions.refresh()
        assert backend.versions.numbers == [first, third]
        monkeypatch.setattr(versions_room, "KEEP", 0.0)
        await backend.versions.refresh()
        assert backend.versions.numbers == [third]
        assert await version_of(backend, second) == second

    asyncio.run(check())


def test_a_version_stays_for_who_has_just_asked_for_it(changing: Index) -> None:
    async def check() -> None:
        first = changing.version()
        backend = LocalBackend(changing.uri)
        assert await version_of(backend, first) == first  # by its number, as a page does
        second = fewer(changing)
        await backend.versions.refresh()
        assert backend.versions.numbers == [first, second]
        assert await version_of(backend, first) == first

    asyncio.run(check())


@pytest.mark.parametrize("version", [5, 2**70])
def test_a_version_that_never_was_is_not_found(changing: Index, version: int) -> None:
    backend = LocalBackend(changing.uri)
    with pytest.raises(QueryError, match=f"no version {version}") as refused:
        asyncio.run(version_of(backend, version))
    assert refused.value.kind == "unknown"
    assert backend.versions.numbers == [changing.version()]


def test_a_version_that_was_vacuumed_is_not_found(changing: Index) -> None:
    first = changing.version()
    files = changing.feature_files(first)
    fewer(changing)
    for file in files:
        (Path(changing.table_uri("features")) / file.name).unlink()
    backend = LocalBackend(changing.uri)
    with pytest.raises(QueryError, match="is gone") as refused:
        asyncio.run(version_of(backend, first))
    assert refused.value.kind == "unknown"


def damage(index: Index) -> None:
    for file in index.feature_files():
        (Path(index.table_uri("features")) / file.name).write_bytes(b"PAR1 not really PAR1")


def lose_pca(index: Index) -> None:
    shutil.rmtree(f"{index.uri}/pca")


def test_a_replica_starts_with_the_version_before_where_the_newest_is_broken(changing: Index) -> None:
    good = changing.version()
    whole = {file: file.read_bytes() for file in Path(changing.table_uri("features")).glob("*.parquet")}
    fewer(changing)
    damage(changing)
    for file, content in whole.items():
        file.write_bytes(content)
    (found,) = asyncio.run(SearcherWorker(changing.uri).answer([ResolveRequest(good, [ImageName("image_id", ONE)])]))
    assert isinstance(found, list) and [match and match.image_id for match in found] == [ONE]
    for file in whole:
        file.write_bytes(b"")
    with pytest.raises(TableError, match="damaged"):  # as the newest
        SearcherWorker(changing.uri)


def damage_features(file: Path) -> None:
    """What only who reads the features sees."""
    group = pq.ParquetFile(file).metadata.row_group(0)
    columns = (group.column(i) for i in range(group.num_columns))
    column = next(c for c in columns if c.path_in_schema.startswith(f"{schemas.FEATURE}."))
    start, data = column.dictionary_page_offset or column.data_page_offset, bytearray(file.read_bytes())
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(data)


def test_an_endpoint_that_starts_where_the_newest_is_broken_serves_the_one_before(
    changing: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        backend = LocalBackend(changing.uri, parts=2)
        await backend.versions.refresh()
        assert await version_of(backend) == good
        assert f"version {broken} cannot be loaded" in str(backend.versions.problem)
        await backend.versions.refresh()
        assert await version_of(backend) == good
        for searcher in backend.searchers:
            await searcher.check_health()
        file.write_bytes(whole)
        monkeypatch.setattr(versions_room, "RETRY", -1)  # the wait is over
        await backend.versions.refresh()
        await backend.versions.refresh()
        assert await version_of(backend) == broken and backend.versions.problem is None

    good, broken = changing.version(), fewer(changing)
    file = Path(changing.table_uri("features")) / changing.feature_files()[-1].name
    whole = file.read_bytes()
    damage_features(file)
    monkeypatch.setattr(versions_room, "RETRY", 0)
    asyncio.run(check())


def test_scores_that_take_long_keep_no_search_waiting(changing: Index) -> None:
    may_end = threading.Event()

    class Long(ScoredRequest):
        def answer(self, rows: Any) -> Any:
            assert may_end.wait(30)

    async def check() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))  # as few as Ray Serve gives
        worker, version = SearcherWorker(changing.uri), changing.version()
        long = [asyncio.create_task(worker.answer([Long(version, None)])) for _ in range(5)]  # type: ignore[arg-type]
        await asyncio.sleep(0)  # so that they have begun
        (found,) = await asyncio.wait_for(worker.answer([ResolveRequest(version, [ImageName("image_id", ONE)])]), 20)
        await asyncio.wait_for(worker.check_health(), 20)
        assert isinstance(found, list) and not any(task.done() for task in long)
        may_end.set()
        await asyncio.gather(*long)

    asyncio.run(check())


def replace_bundle(index: Index) -> None:
    """An index has one bundle, that its rows were described with."""
    manifest = Path(index.uri, "bundle", "bundle.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"fingerprint": "another"}))


@pytest.mark.parametrize(
    ("harm", "words"),
    [(damage, "damaged"), (lose_pca, "safetensors is missing"), (replace_bundle, "another")],
)
def test_a_newest_version_that_cannot_be_loaded_leaves_the_old_one(
    changing: Index, harm: Callable[[Index], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        backend = LocalBackend(changing.uri)
        first, broken = changing.version(), fewer(changing)
        harm(changing)
        await backend.versions.refresh()
        assert await version_of(backend) == first
        assert backend.versions.numbers == [first]
        assert backend.versions.problem is not None
        assert f"version {broken} cannot be loaded" in backend.versions.problem
        assert words in backend.versions.problem
        monkeypatch.setattr(versions_room, "RETRY", 0.0)
        await backend.versions.refresh()
        assert await version_of(backend) == first

    asyncio.run(check())


def test_a_replica_that_cannot_load_a_version_keeps_all_at_the_old_one(changing: Index) -> None:
    async def check() -> None:
        backend = LocalBackend(changing.uri, parts=2)
        first, second = changing.version(), fewer(changing)
        worker = backend.searchers[1]
        whole, worker._versions = worker._versions, VersionCache(no_memory)
        await backend.versions.refresh()
        assert backend.versions.problem == f"version {second} cannot be loaded: no memory"
        worker._versions = whole
        assert await version_of(backend) == first
        third = fewer(changing)
        await backend.versions.refresh()
        assert await version_of(backend) == third
        assert backend.versions.problem is None

    def no_memory(version: int) -> Any:
        raise MemoryError("no memory")

    asyncio.run(check())


def test_another_pca_swaps_describer_and_searchers_together(changing: Index) -> None:
    """A describer with the old PCA would not find an upload at distance 0, or not at all in fewer dimensions."""

    async def check() -> None:
        backend = LocalBackend(changing.uri, parts=2)
        data = Path(changing.features()[schemas.URI][0].as_py()).read_bytes()
        async with backend.versions.lend(None) as old:
            publish_by_other_pca(changing, dimensions=5)
            await backend.versions.refresh()
            async with backend.versions.lend(None) as new:
                for served, dimensions in ((old, 8), (new, 5)):
                    described = await backend.router.describe(DescribeRequest(served.version, data))
                    (found,) = await backend.router.resolve(served.version, [described])
                    assert len(found.feature) == served.dimensions == dimensions
                    assert found.feature.tolist() in features_of(served.version)

    def features_of(version: int) -> list[list[float]]:
        found: list[list[float]] = changing.features(version)[schemas.FEATURE].to_pylist()
        return found

    asyncio.run(check())


# Over HTTP


@pytest.fixture
def endpoint(changing: Index) -> Iterator[httpx.Client]:
    with (
        serving(local_app(changing.uri, parts=2, refresh=0.01)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def test_versions_are_swapped_under_load_and_nothing_fails_or_mixes(endpoint: httpx.Client, changing: Index) -> None:
    counts = {changing.version(): len(changing.features())}
    done = threading.Event()

    def ask(_: int) -> set[int]:
        seen = set()
        is_last = False
        while not is_last:
            is_last = done.is_set()  # so that each asks once more when the newest version is served
            answer = endpoint.post("/search", json={"uri": last, "k": 50})
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["results"]) == counts[answer.json()["version"]]
            seen.add(answer.json()["version"])
        return seen

    last = changing.features()[schemas.URI][-1].as_py()
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, i) for i in range(4)]
        for _ in range(4):
            counts[changing.version() + 1] = len(changing.features()) - 1
            newest = fewer(changing)
            while endpoint.get("/index").json()["version"] != newest:
                assert not any(one.done() for one in asking)
        done.set()
        assert set.union(*(one.result() for one in asking)) >= {newest}


def test_an_older_version_by_its_number(endpoint: httpx.Client, changing: Index) -> None:
    first = changing.version()
    asked = {"image_id": ONE, "k": 50}
    before = endpoint.post("/search", json=asked).json()
    second = fewer(changing)
    while endpoint.get("/index").json()["version"] != second:
        pass
    assert endpoint.post("/search", json=asked).json() != before
    assert endpoint.post("/search", json=asked | {"version": first}).json() == before
    told = endpoint.get("/index").json()
    assert (told["versions"], told["problem"]) == ([first, second], None)
