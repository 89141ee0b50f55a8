"""Labels in named collections: nothing that anybody saves is lost, and nothing else of the index is touched."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsir_core import schemas
from rsir_core.errors import QueryError, ReadOnlyError, StorageError
from rsir_core.index.index import Index
from rsir_core.index.labels import SMALL_FILES, merge_label_files, read_collections, read_labels, save_labels
from rsir_core.index.vacuum import vacuum
from tests.support.made_up import write_index
from tests.support.writing import writer_of

IDS = [f"a/{i:02}.png" for i in range(9)]
URIS = {image_id: f"/imagery/2019/{image_id}" for image_id in IDS}
SAVE = (
    "import sys; from rsir_core.index.index import Index; from rsir_core.index.labels import save_labels\n"
    "for name in sys.argv[2:]: save_labels(Index(sys.argv[1]), 'c', {name: 'x'}, {name: 'u'}, None)"
)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(write_index(tmp_path, IDS))


def labels_of(index: Index, collection: str) -> dict[str, str]:
    rows = read_labels(index, collection).to_pylist()
    return {row[schemas.IMAGE_ID]: row[schemas.LABEL] for row in rows}


def test_an_index_without_the_table_has_no_labels(index: Index) -> None:
    assert read_collections(index) == []
    empty = read_labels(index, "tanks")
    assert len(empty) == 0 and empty.schema.names == schemas.LABELS.names
    merge_label_files(index)
    assert not index.has_table("labels")


@pytest.mark.slow
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["tanks", "ships é"]),
            st.dictionaries(st.sampled_from(IDS), st.sampled_from(["good", "bad", None]), min_size=1, max_size=3),
        ),
        max_size=6,
    )
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_newest_label_of_an_image_counts(index: Index, changes: list[tuple[str, dict[str, str | None]]]) -> None:
    shutil.rmtree(index.table_uri("labels"), ignore_errors=True)
    expected: dict[str, dict[str, str]] = {}
    for collection, labels in changes:
        save_labels(index, collection, labels, URIS, "alice")
        mine = expected.setdefault(collection, {})
        for image_id, label in labels.items():
            mine.pop(image_id, None)
            if label is not None:
                mine[image_id] = label
    for collection in ("tanks", "ships é"):
        assert labels_of(index, collection) == expected.get(collection, {})
    found = {one.name: one.labels for one in read_collections(index)}
    assert found == {name: dict(Counter(mine.values())) for name, mine in expected.items() if mine}


def test_a_row_says_who_and_when_and_no_row_is_ever_lost(index: Index) -> None:
    for label, by in (("good", "alice"), ("bad", None), (None, "bob")):
        save_labels(index, "tanks", {IDS[0]: label}, URIS, by)
    rows = index.rows("labels", schemas.LABELS.names).sort_by(schemas.TIME).to_pylist()
    assert [(row[schemas.LABEL], row[schemas.BY]) for row in rows] == [("good", "alice"), ("bad", None), (None, "bob")]
    assert {row[schemas.URI] for row in rows} == {URIS[IDS[0]]}


@pytest.mark.slow
def test_many_at_once_lose_nothing(index: Index) -> None:
    by_process = [[f"process{n}-{i}" for i in range(5)] for n in range(3)]
    by_thread = [f"thread-{i}" for i in range(40)]
    command = [sys.executable, "-c", SAVE, index.uri]
    processes = [subprocess.Popen([*command, *names], cwd=Path(__file__).parents[2]) for names in by_process]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: save_labels(index, "c", {name: "x"}, {name: "u"}, None), by_thread))
    assert [process.wait(120) for process in processes] == [0] * 3
    assert labels_of(index, "c").keys() == {name for names in (*by_process, by_thread) for name in names}


@pytest.mark.slow
def test_labels_are_saved_while_the_table_s_metadata_change_as_by_another_that_creates_it(index: Index) -> None:
    save_labels(index, "c", {"first": "x"}, {"first": "u"}, None)

    def change(times: int) -> None:
        for i in range(times):
            index.open_table("labels").alter.set_table_properties({"rsir.test": str(i)}, raise_if_not_exists=False)

    names = [f"during-{i}" for i in range(30)]
    with ThreadPoolExecutor(4) as pool:
        changed = pool.submit(change, 5)
        list(pool.map(lambda name: save_labels(index, "c", {name: "x"}, {name: "u"}, None), names))
        changed.result()
    assert labels_of(index, "c").keys() == {"first", *names}


@pytest.mark.slow
def test_merging_files_while_others_save_keeps_every_row(index: Index) -> None:
    for i in range(SMALL_FILES):
        save_labels(index, "c", {f"before-{i}": "x"}, {f"before-{i}": "u"}, None)
    with ThreadPoolExecutor(4) as pool:
        merged = pool.submit(merge_label_files, index)
        list(pool.map(lambda i: save_labels(index, "c", {f"during-{i}": "x"}, {f"during-{i}": "u"}, None), range(8)))
        merged.result()
    assert len(labels_of(index, "c")) == SMALL_FILES + 8
    merge_label_files(index)
    assert len(index.table_files("labels")) < SMALL_FILES


def test_vacuum_and_new_versions_leave_labels_and_labels_leave_versions(index: Index) -> None:
    save_labels(index, "tanks", {IDS[0]: "good"}, URIS, None)
    assert index.version() == index.table_version("features")
    version = index.version()
    begun = Path(index.table_uri("labels")) / "part-of-a-label-that-is-being-saved.parquet"
    begun.write_bytes(b"x")
    files = index.feature_files()
    writer_of(index).commit("features", [], "append", files[:1])
    assert index.version() == version + 1
    vacuum(writer_of(index), 0)
    assert begun.exists() and labels_of(index, "tanks") == {IDS[0]: "good"}


@pytest.mark.parametrize("name", ["", " a", "a ", "a/b", ".", "..", ".hidden", "a\nb", "x" * 65])
def test_names_that_no_address_can_have_are_refused(index: Index, name: str) -> None:
    with pytest.raises(QueryError, match="collection"):
        save_labels(index, name, {IDS[0]: "good"}, URIS, None)
    assert not index.has_table("labels")


@pytest.mark.parametrize("label", ["", " ", "a\nb", "x" * 65])
def test_labels_that_a_csv_could_not_give_back_are_refused(index: Index, label: str) -> None:
    with pytest.raises(QueryError, match="label"):
        save_labels(index, "tanks", {IDS[0]: label}, URIS, None)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user who may read and not write; root may always."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("with_table", [False, True])
def test_an_index_that_may_not_be_written_says_so(with_table: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which nobody else may read
        index = Index(write_index(Path(folder), IDS))
        if with_table:
            save_labels(index, "tanks", {IDS[0]: "good"}, URIS, None)
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            with unprivileged():
                with pytest.raises(ReadOnlyError, match="labels cannot be saved"):
                    save_labels(index, "tanks", {IDS[1]: "good"}, URIS, None)
                assert len(read_labels(index, "tanks")) == int(with_table)
        finally:
            for path in (Path(folder), *Path(folder).rglob("*")):
                path.chmod(0o755)


def test_a_store_that_fails_is_not_one_that_refuses(index: Index) -> None:
    Path(index.table_uri("labels")).write_text("a file where the table should be")
    with pytest.raises(StorageError, match="cannot be written") as failed:
        save_labels(index, "tanks", {IDS[0]: "good"}, URIS, None)
    assert not isinstance(failed.value, ReadOnlyError)


def test_strangers_read_the_table(index: Index) -> None:
    import duckdb  # noqa: PLC0415

    save_labels(index, "tanks", {IDS[0]: "good", IDS[1]: "bad"}, URIS, "alice")
    table = index.rows("labels", schemas.LABELS.names)
    assert pc.count_distinct(table[schemas.TIME]).as_py() == 1  # one request, one time
    file = index.table_files("labels")[0].name
    found = duckdb.sql(
        f"SELECT label, count(*) FROM '{index.table_uri('labels')}/{file}' GROUP BY label ORDER BY label"
    )
    assert found is not None and found.fetchall() == [("bad", 1), ("good", 1)]
