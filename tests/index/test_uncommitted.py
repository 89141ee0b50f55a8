"""What a run wrote and did not commit: all that is wanted of it is taken over, once, and nothing else."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.pipeline.stage import MAX_ROWS, ROWS_PER_FILE, rows_per_file
from rsir_core import schemas
from rsir_core.index.index import Index
from rsir_core.index.uncommitted import commit_rows, uncommitted_rows
from rsir_core.index.writer import write_rows
from tests.index.test_tables import embedding_rows, failure_rows, listed, store
from tests.support.writing import writer_of

FILES = st.lists(st.lists(st.integers(0, 9), unique=True, min_size=1, max_size=5), max_size=5)


def take_over(index: Index, wanted: pa.Table) -> list[str]:
    """The image ids that were."""
    left = uncommitted_rows(index, wanted, "b")
    commit_rows(writer_of(index), left)
    found: list[str] = left["image_id"].to_pylist()
    return sorted(found)


def stored(index: Index) -> list[str]:
    ids: list[str] = index.keys("embeddings")["image_id"].to_pylist()
    return sorted(ids)


@pytest.mark.slow
@settings(max_examples=15)
@given(FILES, st.sets(st.integers(0, 9)), st.booleans())
def test_what_is_wanted_is_taken_over_once(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[int]], wanted: set[int], committed: bool
) -> None:
    index = Index(str(tmp_path_factory.mktemp("index")))
    if committed:
        store(index, "embeddings", embedding_rows(["10", "11"]))
    for i, file in enumerate(files):  # an actor that dies can leave a file that another one writes again
        write_rows(index.uri, "embeddings", embedding_rows([str(n) for n in file], seed=i))
    listing = listed(**{str(n): "1" for n in wanted})
    there = {n for file in files for n in file}
    assert take_over(index, listing) == sorted(str(n) for n in there & wanted)
    assert stored(index) == sorted([str(n) for n in there & wanted] + ["10", "11"] * committed)
    again = listed(**{str(n): "1" for n in wanted - there})
    assert take_over(index, again) == []


def test_the_rows_are_those_that_were_written(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    written = embedding_rows(["a", "b", "c"])
    write_rows(index.uri, "embeddings", written)
    assert take_over(index, listed(a="1", c="1", d="1")) == ["a", "c"]
    features = listed(a="1", c="1")
    assert (index.embeddings(features) == schemas.to_matrix(written["embedding"])[[0, 2]]).all()


def test_what_is_of_other_content_or_another_bundle_or_was_let_go_of_is_left(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    store(index, "embeddings", embedding_rows(["gone"]))
    (old,) = index.table_files("embeddings")
    writer_of(index).commit(
        "embeddings", [write_rows(index.uri, "embeddings", embedding_rows(["new"]))], "append", [old]
    )
    write_rows(index.uri, "embeddings", embedding_rows(["changed"], etag="0"))
    write_rows(index.uri, "failures", failure_rows(["failed"]))
    other = embedding_rows(["foreign"])
    write_rows(index.uri, "embeddings", other.set_column(3, schemas.EMBEDDINGS.field("bundle"), pa.array(["another"])))
    wanted = listed(**dict.fromkeys(("gone", "changed", "failed", "foreign"), "1"))
    assert take_over(index, wanted) == []
    assert stored(index) == ["new"]


def test_files_without_their_content_are_passed_over(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    write_rows(index.uri, "embeddings", embedding_rows(["a"]))
    whole = write_rows(index.uri, "embeddings", embedding_rows(["b"]))
    (tmp_path / "embeddings" / f"part-{'0' * 32}.parquet").write_bytes(b"")
    data = (tmp_path / "embeddings" / whole.name).read_bytes()
    (tmp_path / "embeddings" / f"part-{'1' * 32}.parquet").write_bytes(data[:-9])
    (tmp_path / "embeddings" / "notes.parquet").write_bytes(b"somebody's")
    assert take_over(index, listed(a="1", b="1")) == ["a", "b"]


@given(st.integers(0, 10**8), st.integers(1, 999), st.integers(1, 999), st.integers(1, 10**5), st.integers(1, 10**4))
def test_actors_hold_no_more_than_a_commit_together_nor_than_they_have_room_for(
    images: int, actors: int, batch_size: int, at_risk: int, rows_each: int
) -> None:
    held = rows_per_file(images, actors, batch_size, at_risk, rows_each)
    assert 1 <= held <= ROWS_PER_FILE
    assert held == 1 or (actors * held <= at_risk and held * rows_each <= MAX_ROWS)
