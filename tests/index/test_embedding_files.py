"""Stored rows by their files: those asked for, once each, from the files that hold them; what is old enough goes."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir_core.errors import TableError
from rsir_core.index.diff import semi
from rsir_core.index.embedding_files import FILE, KEYS, by_file, first_of, stored_keys, stored_rows
from rsir_core.index.index import Index
from rsir_core.index.no_match import NoMatchThreshold, has_no_match_threshold, put_no_match_threshold
from rsir_core.index.vacuum import vacuum
from rsir_core.index.writer import write_rows
from rsir_core.models.pca import Moments
from tests.index.test_tables import D, K, embedding_rows, feature_rows, ids_of, store
from tests.support.writing import writer_of

NO_MATCH = NoMatchThreshold("bundle", "pca", 1000, 1000, 0.01, 0.5)

files = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True), max_size=4)


@settings(max_examples=20, deadline=None)
@given(files, st.sets(st.sampled_from("abcdefgh")), st.integers(1, 5))
def test_rows_are_read_once_each_from_the_files_that_hold_them(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[str]], wanted: set[str], size: int
) -> None:
    index = Index(str(tmp_path_factory.mktemp("index")))
    for ids in written:
        store(index, "embeddings", embedding_rows(ids))
    stored = stored_keys(index)
    assert sorted(stored["image_id"].to_pylist()) == sorted({i for ids in written for i in ids})
    asked = semi(stored, embedding_rows(sorted(wanted))) if wanted else stored.slice(0, 0)
    parts = by_file(asked, size) if len(asked) else []
    assert all(len(part) <= size for part in parts)
    order = [name for part in parts for name in part[FILE].to_pylist()]
    assert order == sorted(order, key=order.index)  # those of a file lie together
    pieces = [piece for part in parts for piece in stored_rows(index, part, ["uri", "image_id"])]
    assert all(piece.column_names == ["uri", "image_id"] for piece in pieces)
    assert sorted(i for piece in pieces for i in piece["image_id"].to_pylist()) == sorted(
        wanted & set(stored["image_id"].to_pylist())
    )


def test_parts_are_the_same_in_whatever_order_the_files_were_written(tmp_path: Path) -> None:
    written = [["c", "d"], ["a", "b", "e"], ["f"]]
    found = []
    for name, order in (("one", (0, 1, 2)), ("other", (2, 0, 1))):
        index = Index(str(tmp_path / name))
        for place in order:
            store(index, "embeddings", embedding_rows(written[place]))
        found.append([part["image_id"].to_pylist() for part in by_file(stored_keys(index), 4)])
    assert found == [[["a", "b", "e", "c"], ["d", "f"]]] * 2


@pytest.mark.slow
def test_more_than_2_gib_of_ids_are_parted() -> None:
    """Which `take` refuses of texts with offsets of 32 bits."""
    name = "x" * 1_000_000
    ids = pa.chunked_array([[f"{chunk:03}{i:02}{name}" for i in range(20)] for chunk in range(110)])
    file = pa.chunked_array([pa.array([f"{chunk % 2}.parquet"] * 20).dictionary_encode() for chunk in range(110)])
    keys = pa.table([ids, pa.chunked_array([["1"] * 20] * 110), file], KEYS).unify_dictionaries()
    parts = by_file(keys, 500)
    assert [len(part) for part in parts] == [500, 500, 500, 500, 200]
    found = [i[:5] for part in parts for i in part["image_id"].to_pylist()]
    wanted = [f"{chunk:03}{i:02}" for half in (0, 1) for chunk in range(half, 110, 2) for i in range(20)]
    assert found == wanted


@pytest.mark.slow
def test_a_part_of_many_files_gives_the_rows_that_are_asked_for_in_its_order(tmp_path: Path) -> None:
    """Arrow's groups come in the order of their first rows only most of the time, the more of them the less often."""
    index = Index(str(tmp_path))
    written = [write_rows(index.uri, "embeddings", embedding_rows([f"{i:03}a", f"{i:03}b"])) for i in range(200)]
    writer_of(index).commit("embeddings", written, "append")
    asked = [f"{i:03}{half}" for i in range(200) for half in ("ab" if i % 3 else "a")]
    (part,) = by_file(semi(stored_keys(index), embedding_rows(asked)), 400)
    pieces = stored_rows(index, part, ["image_id"])
    assert [image_id for piece in pieces for image_id in piece["image_id"].to_pylist()] == asked


def test_of_keys_that_are_stored_twice_the_first_is_taken_where_it_is() -> None:
    ids = [f"{i:03}" for i in range(300)]
    keys = pa.table({"image_id": ids, "etag": ["1"] * len(ids), FILE: ["one"] * len(ids)})
    assert first_of(pa.concat_tables([keys, keys.set_column(2, FILE, pa.array(["two"] * len(ids)))])) == keys


def age(folder: Path, days: float) -> None:
    """Make everything in a folder older, its Delta log's own times included."""
    before = time.time() - 86_400 * days
    for file in folder.rglob("*"):
        if file.suffix == ".json":
            now = int(time.time())
            text = file.read_text()
            for second in range(now - 60, now + 1):
                text = text.replace(f'Timestamp":{second}', f'Timestamp":{int(before)}')
                text = text.replace(f'timestamp":{second}', f'timestamp":{int(before)}')
            file.write_text(text)
        os.utime(file, (before, before))


def test_what_is_old_enough_goes_and_nothing_else(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    pcas = [Moments.of(np.random.default_rng(seed).random((20, D))).fit(K) for seed in range(3)]
    for pca in pcas:
        writer_of(index).put_pca(pca)
    made_by = [feature_rows(list(ids)) for ids in ("ab", "bc", "cd")]
    made_by = [t.set_column(t.schema.get_field_index("pca"), "pca", pa.array([p.fingerprint] * len(t)))
               for t, p in zip(made_by, pcas, strict=True)]  # fmt: skip
    first = store(index, "features", made_by[0])
    second = writer_of(index).commit("features", [write_rows(index.uri, "features", made_by[1])], "overwrite")
    never = write_rows(index.uri, "features", made_by[1])
    for version in (first, second):
        put_no_match_threshold(writer_of(index), version, NO_MATCH)
    age(tmp_path, 9)
    third = writer_of(index).commit("features", [write_rows(index.uri, "features", made_by[2])], "overwrite")
    put_no_match_threshold(writer_of(index), third, NO_MATCH)
    fresh = write_rows(index.uri, "features", made_by[1])
    # the first version's file, PCA and thresholds, and what was never committed
    assert vacuum(writer_of(index), 7) == 4
    assert [has_no_match_threshold(index, version) for version in (first, second, third)] == [False, True, True]
    assert index.version() == third and ids_of(index) == ["c", "d"]
    assert ids_of(index, second) == ["b", "c"]  # it was there until just now
    there = {file.name for file in (tmp_path / "features").glob("*.parquet")}
    assert never.name not in there and fresh.name in there
    with pytest.raises(TableError, match=r"gone.*--vacuum"):
        index.models(first)
    with pytest.raises(TableError, match="a file of version 1 "):
        index.features(first)
    assert {file.stem for file in (tmp_path / "pca").iterdir()} == {p.fingerprint for p in pcas[1:]}
    assert vacuum(writer_of(index), 7) == 0


def test_what_a_checkpoint_has_summed_up_is_kept_as_long_as_is_asked(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    store(index, "features", feature_rows(["a"]))
    (first,) = (tmp_path / "features").glob("*.parquet")
    writer_of(index).commit("features", [write_rows(index.uri, "features", feature_rows(["b"]))], "overwrite")
    age(tmp_path, 10)  # that long ago the first file was removed
    os.utime(first, (0, 0))  # and it was written long before
    DeltaTable(index.table_uri("features")).create_checkpoint()
    assert vacuum(writer_of(index), 30) == 0 and ids_of(index, 1) == ["a"]
    assert vacuum(writer_of(index), 9) == 1
