"""Versions: loaded once, swapped under queries, let go of."""

import asyncio
import gc
import json
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.serving import library as library_room
from jobs.serving.library import Library
from jobs.serving.replicas import SearcherReplica
from jobs.serving.version_cache import VersionCache
from rsir_core import schemas
from rsir_core.errors import QueryError, TableError
from rsir_core.index.index import Index
from rsir_core.index.no_match import put_no_match
from tests.support.serving import ONE, LocalFleet, copy_of, local_app, publish, publish_by_other_pca, serving
from tests.support.writing import writer_of

pytestmark = pytest.mark.slow

# Shelves


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
    shelf = VersionCache(loader)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(shelf.get, 1) for _ in range(8)]
        loader.may.set()
        assert len({id(one.result()) for one in asked}) == 1
    assert loader.loaded == [1]


def test_loading_one_version_holds_up_nobody_who_asks_for_another() -> None:
    loader = Loader()
    shelf = VersionCache(loader)
    old = shelf.get(1)
    loader.may.clear()
    with ThreadPoolExecutor(1) as pool:
        new = pool.submit(shelf.get, 2)
        assert shelf.get(1) is old
        assert shelf.newest is old
        assert not new.done()
        loader.may.set()
        assert new.result().version == 2
        assert shelf.newest.version == 2


def test_what_is_not_held_any_more_is_let_go_of() -> None:
    shelf = VersionCache(Loader())
    old = weakref.ref(shelf.get(1))
    assert shelf.hold([1, 2]) == {}
    assert old() is not None
    assert shelf.hold([2]) == {}
    assert old() is None


def test_a_version_that_cannot_be_loaded_leaves_the_others_and_can_be_tried_again() -> None:
    loader = Loader()
    shelf = VersionCache(loader)
    shelf.get(1)
    assert shelf.hold([1, 13]) == {13: "damaged"}
    assert shelf.get(1).version == 1
    with pytest.raises(ValueError, match="damaged"):
        shelf.get(13)
    assert loader.loaded == [1, 13, 13]


# Libraries


@pytest.fixture
def changing(index: str, tmp_path: Path) -> Index:
    return copy_of(index, tmp_path / "index")


def fewer(index: Index, leave_out: int = 1) -> int:
    return publish(index, index.features().slice(leave_out), files=2)


async def version_of(library: Library, version: int | None = None) -> int:
    async with library.lend(version) as backend:
        await backend.probe()
        return backend.edition.version


def test_the_newest_version_is_served_once_it_is_looked_for(changing: Index) -> None:
    async def check() -> None:
        fleet = LocalFleet(changing.uri, parts=2)
        library = Library(changing.uri, fleet)
        first = changing.version()
        assert await version_of(library) == first
        old = weakref.ref(fleet.searchers[0].get(first))
        second = fewer(changing)
        assert await version_of(library) == first
        await library.refresh()
        assert await version_of(library) == second
        assert library.edition.images == len(changing.features())
        assert library.versions == [second]
        gc.collect()
        assert old() is None  # memory returns

    asyncio.run(check())


def test_thresholds_that_are_stored_after_their_version_are_taken(changing: Index) -> None:
    async def check() -> None:
        library = Library(changing.uri, LocalFleet(changing.uri))
        version = fewer(changing)
        await library.refresh()
        before = library.edition.no_match
        assert library.edition.version == version and before is not None and before.distance != 0.25
        put_no_match(writer_of(changing), version, before._replace(distance=0.25))
        async with library.lend(None) as under_way:
            await library.refresh()
            assert under_way.edition.no_match == before
        assert library.edition.no_match == before._replace(distance=0.25)
        async with library.lend(None) as backend:
            assert backend.edition.no_match == library.edition.no_match

    asyncio.run(check())


def test_a_query_under_way_keeps_its_version(changing: Index) -> None:
    async def check() -> None:
        library = Library(changing.uri, LocalFleet(changing.uri))
        async with library.lend(None) as backend:
            second = fewer(changing)
            await library.refresh()
            assert library.versions == [backend.edition.version, second]
            (found,) = await backend.stored([ONE], [])
            assert found.image_id == ONE
            assert await version_of(library) == second
        await library.refresh()
        assert library.versions == [second]

    asyncio.run(check())


def test_an_older_version_is_loaded_for_who_asks_and_goes_when_nobody_does(
    changing: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        first, second, third = changing.version(), fewer(changing), fewer(changing)
        library = Library(changing.uri, LocalFleet(changing.uri))
        assert await asyncio.gather(*(version_of(library, first) for _ in range(5))) == [first] * 5
        assert library.versions == [first, third]
        with pytest.raises(QueryError, match="another is in use") as refused:
            await version_of(library, second)
        assert refused.value.status == 503
        await library.refresh()
        assert library.versions == [first, third]
        monkeypatch.setattr(library_room, "KEEP", 0.0)
        await library.refresh()
        assert library.versions == [third]
        assert await version_of(library, second) == second

    asyncio.run(check())


def test_a_version_stays_for_who_has_just_asked_for_it(changing: Index) -> None:
    async def check() -> None:
        first = changing.version()
        library = Library(changing.uri, LocalFleet(changing.uri))
        assert await version_of(library, first) == first  # by its number, as a page does
        second = fewer(changing)
        await library.refresh()
        assert library.versions == [first, second]
        assert await version_of(library, first) == first

    asyncio.run(check())


@pytest.mark.parametrize("version", [5, 2**70])
def test_a_version_that_never_was_is_not_found(changing: Index, version: int) -> None:
    library = Library(changing.uri, LocalFleet(changing.uri))
    with pytest.raises(QueryError, match=f"no version {version}") as refused:
        asyncio.run(version_of(library, version))
    assert refused.value.status == 404
    assert library.versions == [changing.version()]


def test_a_version_that_was_vacuumed_is_not_found(changing: Index) -> None:
    first = changing.version()
    files = changing.feature_files(first)
    fewer(changing)
    for file in files:
        (Path(changing.table_uri("features")) / file.name).unlink()
    library = Library(changing.uri, LocalFleet(changing.uri))
    with pytest.raises(QueryError, match="is gone") as refused:
        asyncio.run(version_of(library, first))
    assert refused.value.status == 404


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
    (found,) = SearcherReplica(changing.uri, 0, 1).call([(good, "stored", ([ONE], []))])
    assert list(found) == [ONE]
    for file in whole:
        file.write_bytes(b"")
    with pytest.raises(TableError, match="damaged"):  # as the newest
        SearcherReplica(changing.uri, 0, 1)


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
        library = Library(changing.uri, LocalFleet(changing.uri))
        first, broken = changing.version(), fewer(changing)
        harm(changing)
        await library.refresh()
        assert await version_of(library) == first
        assert library.versions == [first]
        assert library.problem is not None
        assert f"version {broken} cannot be loaded" in library.problem
        assert words in library.problem
        monkeypatch.setattr(library_room, "RETRY", 0.0)
        await library.refresh()
        assert await version_of(library) == first

    asyncio.run(check())


def test_a_replica_that_cannot_load_a_version_keeps_all_at_the_old_one(changing: Index) -> None:
    async def check() -> None:
        fleet = LocalFleet(changing.uri, parts=2)
        library = Library(changing.uri, fleet)
        first, second = changing.version(), fewer(changing)
        searcher, fleet.searchers[1] = fleet.searchers[1], VersionCache(no_memory)
        await library.refresh()
        assert library.problem == f"version {second} cannot be loaded: no memory"
        fleet.searchers[1] = searcher
        assert await version_of(library) == first
        third = fewer(changing)
        await library.refresh()
        assert await version_of(library) == third
        assert library.problem is None

    def no_memory(version: int) -> Any:
        raise MemoryError("no memory")

    asyncio.run(check())


def test_another_pca_swaps_describer_and_searchers_together(changing: Index) -> None:
    """A describer with the old PCA would not find an upload at distance 0, or not at all in fewer dimensions."""

    async def check() -> None:
        library = Library(changing.uri, LocalFleet(changing.uri, parts=2))
        data = Path(changing.features()[schemas.URI][0].as_py()).read_bytes()
        async with library.lend(None) as old:
            publish_by_other_pca(changing, dimensions=5)
            await library.refresh()
            async with library.lend(None) as new:
                for backend, dimensions in ((old, 8), (new, 5)):
                    described = await backend.recognised(await backend.describe(data, None, False))
                    assert len(described.feature) == backend.edition.dimensions == dimensions
                    assert described.feature.tolist() in backend_features(backend.edition.version)

    def backend_features(version: int) -> list[list[float]]:
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
        while not done.is_set():
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
