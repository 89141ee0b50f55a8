import json
from collections.abc import Callable
from pathlib import Path

import deltalake
import duckdb
import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rsir_core import schemas
from rsir_core.archive.listing import ImageFile
from rsir_core.arrays import Floats
from rsir_core.errors import ConflictError, LeaseError, StorageError, TableError
from rsir_core.index.delta import Mode, TableFile, WrittenFile, commit_files, table_at
from rsir_core.index.diff import listing_table, make_plan
from rsir_core.index.embedding_files import by_file, stored_keys, stored_rows
from rsir_core.index.index import Index
from rsir_core.index.layout import TableName
from rsir_core.index.lease import Holder, Lease
from rsir_core.index.no_match import NoMatchThreshold, put_no_match_threshold
from rsir_core.index.replace import without_rows
from rsir_core.index.vacuum import vacuum
from rsir_core.index.writer import IndexWriter, write_rows
from rsir_core.models.pca import Moments
from rsir_core.retrieval.partition import Partition, in_runs
from tests.support.writing import writer_of

D, K, C = 8, 2, 3


def embedding_rows(ids: list[str], etag: str = "1", seed: int = 0) -> pa.Table:
    rng, n = np.random.default_rng(seed), len(ids)
    return _cast(
        {
            **keys(ids, etag),
            "height": [256] * n,
            "width": [256] * n,
            "region": [{"x": 1, "y": 2, "width": 3, "height": 4}] * n,
            "class_probabilities": schemas.to_vectors(rng.random((n, C))),
            "embedding": schemas.to_vectors(rng.random((n, D)).astype(np.float16)),
        },
        schemas.EMBEDDINGS,
    )


def feature_rows(ids: list[str], etag: str = "1", seed: int = 0) -> pa.Table:
    n = len(ids)
    return _cast(
        {
            **{name: embedding_rows(ids, etag, seed)[name] for name in ("height", "width", "region")},
            **keys(ids, etag),
            "class_probabilities": schemas.to_vectors(np.eye(C)[[i % C for i in range(n)]]),
            "pca": ["p"] * n,
            "class": ["x"] * n,
            "feature": schemas.to_vectors(np.random.default_rng(seed).random((n, K))),
        },
        schemas.FEATURES,
    )


def failure_rows(ids: list[str], etag: str = "1") -> pa.Table:
    n = len(ids)
    columns = {"stage": ["read"] * n, "kind": ["corrupt"] * n, "message": ["bad"] * n}
    return _cast({**keys(ids, etag), **columns}, schemas.FAILURES)


def keys(ids: list[str], etag: str) -> dict[str, list[str]]:
    n = len(ids)
    return {"image_id": ids, "uri": [f"/a/{i}" for i in ids], "etag": [etag] * n, "bundle": ["b"] * n}


def _cast(columns: dict[str, object], schema: pa.Schema) -> pa.Table:
    n = len(columns["image_id"])  # type: ignore[arg-type]
    return pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in schema], schema=schema)


def store(index: Index, name: TableName, table: pa.Table) -> int:
    return writer_of(index).commit(name, [write_rows(index.uri, name, table)], "append")


def ids_of(index: Index, version: int | None = None) -> list[str]:
    return list(index.features(version)["image_id"].to_pylist())


def listed(**etags: str) -> pa.Table:
    return listing_table(ImageFile(i, f"/a/{i}", etag, 1) for i, etag in etags.items())


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(-1, 1, width=32)))
def test_vectors_go_in_and_out_of_a_column(matrix: Floats) -> None:
    column = pa.chunked_array([schemas.to_vectors(matrix[:2]), schemas.to_vectors(matrix[2:])])
    np.testing.assert_array_equal(schemas.to_matrix(column), matrix)
    np.testing.assert_array_equal(schemas.to_matrix(schemas.to_vectors(matrix).slice(len(matrix) - 1)), matrix[-1:])


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        schemas.to_matrix(pa.array([[1.0], [1.0, 2.0, 3.0]], schemas.VECTOR))


@pytest.mark.parametrize("uri", ["/a%20b", "memory://a/b#c", "memory://a?b", "memory://a%2Fb/index"])
def test_an_index_that_delta_lake_would_write_elsewhere_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="Delta Lake reads"):
        Index(uri)


def test_an_index_where_nothing_can_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="foo://x"):
        Index("foo://x")
    (tmp_path / "features/_delta_log").mkdir(parents=True)
    (tmp_path / "features/_delta_log/00000000000000000000.json").write_text("no JSON")
    with pytest.raises(TableError, match="cannot be read: "):
        Index(str(tmp_path)).version()


def test_a_table_that_has_lost_a_file_says_so(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    tables: dict[TableName, pa.Table] = {"features": feature_rows(["a"]), "embeddings": embedding_rows(["a"])}
    for name, table in tables.items():
        store(index, name, table)
        (file,) = (tmp_path / name).glob("*.parquet")
        content = file.read_bytes()
        for damaged in (None, content[: len(content) // 2], content[:-4] + b"none"):
            file.unlink()
            if damaged is not None:
                file.write_bytes(damaged)
            with pytest.raises(TableError, match=f"{name} has lost a file"):
                index.keys(name)
            if name == "embeddings":
                with pytest.raises(TableError, match="embeddings has lost a file"):
                    stored_keys(index)
            else:
                (stored,) = index.feature_files()
                for read in (
                    index.features,
                    index.models,
                    lambda stored=stored: index.first_row(stored),
                    lambda stored=stored: index.read_features(stored),
                ):
                    with pytest.raises(TableError, match="features has lost a file"):
                        read()
            file.write_bytes(content)


def replace(index: Index, files: list[WrittenFile], leaving: list[str]) -> int:
    """As `jobs.indexing.replacing`, in this process."""
    found = [without_rows(index, file, pa.array(leaving, pa.string())) for file in index.feature_files()]
    replaced = [one for one in found if one is not None]
    kept = [one.kept for one in replaced if one.kept is not None]
    return writer_of(index).commit("features", [*files, *kept], "append", [one.removed for one in replaced])


def test_written_rows_are_seen_when_they_are_committed(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    with pytest.raises(TableError, match=r"jobs\.index"):
        index.version()
    written = write_rows(index.uri, "features", feature_rows(["b", "a"]))
    with pytest.raises(TableError):
        index.features()
    version = writer_of(index).commit("features", [written], "append")
    assert index.version() == version and ids_of(index) == ["a", "b"]
    assert index.features().schema == schemas.FEATURES


def test_every_version_stays_as_it_was(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    first = store(index, "features", feature_rows(["a", "b"]))
    second = store(index, "features", feature_rows(["c"]))
    files = [write_rows(index.uri, "features", feature_rows(["b", "d"], etag="2"))]
    third = replace(index, files, ["a", "b", "d"])
    fourth = writer_of(index).commit("features", [write_rows(index.uri, "features", feature_rows(["z"]))], "overwrite")
    assert first < second < third < fourth
    assert [ids_of(index, v) for v in (first, second, third, fourth)] == [
        ["a", "b"], ["a", "b", "c"], ["b", "c", "d"], ["z"],
    ]  # fmt: skip
    assert index.features(third, ["etag"])["etag"].to_pylist() == ["2", "1", "2"]
    with pytest.raises(TableError, match="no version 99"):
        index.features(99)


def test_replacing_nothing_but_gone_rows(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    store(index, "features", feature_rows(["a", "b"]))
    replace(index, [], ["b"])
    assert ids_of(index) == ["a"]


def test_a_file_without_a_leaving_row_stays_and_one_of_leaving_rows_only_goes(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    for ids in (["a", "b"], ["c"], ["d"]):
        store(index, "features", feature_rows(ids))
    before = {tuple(index.read_columns(f, ["image_id"])["image_id"].to_pylist()): f for f in index.feature_files()}
    on_disk = len(list((tmp_path / "features").glob("*.parquet")))
    leaving = pa.array(["a", "c", "x"])
    found = {ids: without_rows(index, file, leaving) for ids, file in before.items()}
    partly, wholly = found["a", "b"], found["c",]
    assert found["d",] is None and wholly is not None and wholly.kept is None and partly is not None
    assert partly.removed == before["a", "b"] and partly.kept is not None and partly.kept.row_count == 1
    assert len(list((tmp_path / "features").glob("*.parquet"))) == on_disk + 1
    assert ids_of(index) == list("abcd")  # until it is committed


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 59)), st.sets(st.integers(40, 79)), st.sampled_from([10, 25, 60]))
def test_replaced_rows_are_what_every_reader_sees_in_clusters_that_hold(
    tmp_path_factory: pytest.TempPathFactory, gone: set[int], new: set[int], per_file: int
) -> None:
    index = Index(str(tmp_path_factory.mktemp("index")))
    old = feature_rows([f"{i:02}" for i in range(60)])
    starts = range(0, 60, per_file)
    files = [write_rows(index.uri, "features", *in_runs(old.slice(start, per_file))) for start in starts]
    writer_of(index).commit("features", files, "append")
    changed = feature_rows([f"{i:02}" for i in sorted(new)], etag="2", seed=1)
    added = [write_rows(index.uri, "features", *in_runs(changed))] if new else []
    version = replace(index, added, [f"{i:02}" for i in sorted(gone | new)])
    stay = old.filter(pa.array([i not in gone | new for i in range(60)]))
    expected = pa.concat_tables([stay, changed]).sort_by("image_id").combine_chunks()
    assert index.features().combine_chunks() == expected
    names = [f"{index.table_uri('features')}/{file.name}" for file in index.feature_files()]
    plain = pa.concat_tables([pa.parquet.read_table(name) for name in names]) if names else expected.slice(0, 0)
    delta = deltalake.DeltaTable(index.table_uri("features")).to_pyarrow_table()
    for read in (plain, delta):
        assert read.sort_by("image_id")["etag"].to_pylist() == expected["etag"].to_pylist()
        assert sorted(read["image_id"].to_pylist()) == expected["image_id"].to_pylist()
    for file in index.feature_files():
        table, clusters = index.read_features(file)
        assert clusters is not None and clusters.count.sum() == len(table) and (clusters.count > 0).all()
        classes = schemas.to_matrix(table["class_probabilities"]).argmax(axis=1)
        assert (np.repeat(clusters.of_class, clusters.count) == classes).all()
        away = clusters.from_centres(schemas.to_matrix(table["feature"]))
        assert (away <= np.repeat(clusters.radius, clusters.count)).all()
    assert len(Partition(index, version)) == len(expected)


def test_embeddings_are_float16_and_small_and_come_in_the_rows_order(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    stored = embedding_rows(list("dcba"))
    store(index, "embeddings", stored)
    store(index, "features", feature_rows(list("abcd")))
    got = index.embeddings(index.features())
    np.testing.assert_array_equal(got, schemas.to_matrix(stored["embedding"])[::-1])
    np.testing.assert_array_equal(got, got.astype(np.float16))
    with pytest.raises(TableError, match="no embedding of x"):
        index.embeddings(feature_rows(["x"]))


def test_a_file_of_embeddings_is_no_larger_than_float16(tmp_path: Path) -> None:
    index, n, d = Index(str(tmp_path)), 500, 1280
    pooled = np.random.default_rng(0).gamma(0.5, 0.4, (n, d)).astype(np.float16)
    table = embedding_rows([f"class/{i:05}.jpg" for i in range(n)])
    table = table.set_column(table.column_names.index("embedding"), schemas.EMBEDDINGS.field("embedding"),
                             schemas.to_vectors(pooled))  # fmt: skip
    written = write_rows(index.uri, "embeddings", table)
    assert written.size / n < 2 * d + 100  # bytes per image, everything included
    np.testing.assert_array_equal(schemas.to_matrix(table["embedding"]), pooled)


def test_plain_parquet_tools_read_it(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    store(index, "features", feature_rows(["a", "b"]))
    query = f"select image_id, feature[1], region.width from '{tmp_path}/features/*.parquet' order by 1"
    found = duckdb.connect().execute(query).fetchall()
    assert [row[0] for row in found] == ["a", "b"]
    assert found[0][1] == pytest.approx(schemas.to_matrix(index.features()["feature"])[0, 0])
    assert found[0][2] == 3


def old_index(folder: Path) -> Index:
    """One of before there were scenes: its tables end before `geometry`."""
    index = Index(str(folder))
    for name, table in (("embeddings", embedding_rows(["a", "b"])), ("features", feature_rows(["a", "b"]))):
        old = table.drop_columns([field.name for field in schemas.ADDED_COLUMNS])
        deltalake.DeltaTable.create(f"{folder}/{name}", old.schema)  # version 0, as every index begins
        deltalake.write_deltalake(f"{folder}/{name}", old, mode="append")
    return index


def test_an_index_of_before_there_were_scenes_opens_and_grows(tmp_path: Path) -> None:
    index = old_index(tmp_path / "old")
    before = index.features()
    assert before.schema == schemas.FEATURES and before["geometry"].null_count == 2
    assert len(Partition(index, index.version())) == 2 and index.read_features(index.feature_files()[0])[0] == before
    old = index.version()
    writer_of(index)
    store(index, "embeddings", embedding_rows(["c"]))
    version = replace(index, [write_rows(index.uri, "features", feature_rows(["c"]))], ["b"])
    assert ids_of(index) == ["a", "c"] and index.features().schema == schemas.FEATURES
    assert index.features(old) == before and len(Partition(index, version)) == 2
    parts = by_file(stored_keys(index), 10)
    described = pa.concat_tables([t for part in parts for t in stored_rows(index, part, schemas.EMBEDDINGS.names)])
    assert sorted(described["image_id"].to_pylist()) == ["a", "b", "c"] and described["crs"].null_count == 3
    grown = deltalake.DeltaTable(index.table_uri("embeddings")).to_pyarrow_table()
    assert grown.column_names == schemas.EMBEDDINGS.names and grown["window"].null_count == 3


def test_features_are_geoparquet(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    table = feature_rows(["a", "b"])
    place = pa.array([shapely.to_wkb(shapely.box(10, 40, 11, 41)), None], pa.binary())
    table = table.set_column(table.column_names.index("geometry"), table.schema.field("geometry"), place)
    file = write_rows(index.uri, "features", table)
    geo = json.loads(pa.parquet.read_metadata(f"{tmp_path}/features/{file.name}").metadata[b"geo"])
    assert geo["columns"][geo["primary_column"]]["encoding"] == "WKB"
    assert set(geo["columns"]["geometry"]["covering"]["bbox"]) == set(schemas.BBOX_FIELDS)
    assert index.read_features(TableFile(file.name, 2))[0]["geometry"][0].as_py() == place[0].as_py()
    assert b"geo" not in (pa.parquet.read_metadata(f"{tmp_path}/embeddings/{stored_name(index)}").metadata or {})


def stored_name(index: Index) -> str:
    return write_rows(index.uri, "embeddings", embedding_rows(["a"])).name


def test_a_commit_is_made_onto_the_version_it_was_made_for_or_not_at_all(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    assert index.table_version("features") == 0
    writer, other = writer_of(index), writer_of(index)  # both have seen version 0
    first = writer.commit("features", [write_rows(index.uri, "features", feature_rows(["a"]))], "append")
    late = [write_rows(index.uri, "features", feature_rows(["b"]))]
    modes: tuple[Mode, ...] = ("append", "overwrite")
    for mode in modes:
        with pytest.raises(ConflictError, match=r"features .*version 0"):
            other.commit("features", late, mode)
    assert ids_of(index) == ["a"] and index.version() == index.table_version("features") == first
    assert writer.commit("features", late, "append") == first + 1


def test_nothing_is_changed_without_the_lease(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    with Lease.take(index.uri, ttl=0.05, beat=10) as lost:
        writer = IndexWriter(index, lost)
        writer.commit("failures", [write_rows(index.uri, "failures", failure_rows(["a"]))], "append")
        files = [write_rows(index.uri, "failures", failure_rows(["b"]))]
        taken = Path(tmp_path, "lease", "00000002.json")
        taken.write_bytes(Holder.this().to_bytes())  # another run has taken it over
        pca = Moments.of(np.random.default_rng(0).normal(size=(9, 4))).fit(2)
        changes: list[Callable[[], object]] = [
            lambda: writer.commit("failures", files, "append"),
            lambda: writer.drop_failures(index.keys("failures")),
            lambda: writer.put_pca(pca),
            lambda: put_no_match_threshold(writer, 1, NoMatchThreshold("b", "p", 1, 1, 0.01, None)),
            lambda: vacuum(writer, 0),
        ]
        for change in changes:
            with pytest.raises(LeaseError, match="has lost its lease"):
                change()
    assert (
        index.keys("failures")["image_id"].to_pylist() == ["a"] and Path(tmp_path, "failures", files[0].name).exists()
    )
    assert {path.name for path in tmp_path.iterdir()} == {"failures", "lease"}


def test_of_commits_at_once_one_is_made_and_the_others_know(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    first = store(index, "failures", failure_rows(["a", "b"]))
    tables = [
        table_at(index.table_uri("failures"), schemas.FAILURES, first) for _ in range(2)
    ]  # both as they were read
    files = [write_rows(index.uri, "failures", failure_rows([i])) for i in "cd"]
    assert commit_files(tables[0], files[:1], "append", []) == first + 1
    with pytest.raises(ConflictError):
        commit_files(tables[1], files[1:], "append", [])
    assert commit_files(tables[1], files[:1], "append", []) == first + 1  # its own, whose answer the store had lost
    assert sorted(index.keys("failures")["image_id"].to_pylist()) == ["a", "b", "c"]


def test_pca_is_found_by_its_fingerprint(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    pca = Moments.of(np.random.default_rng(0).random((20, D))).fit(K)
    writer_of(index).put_pca(pca)
    assert index.pca(pca.fingerprint).fingerprint == pca.fingerprint
    with pytest.raises(TableError, match="refit-pca"):
        index.pca("0")


def test_plan_of_a_first_a_second_and_a_changed_run(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    first = make_plan(index, listed(a="1", b="1", c="1"), False)
    assert (first.new, first.changed, len(first.gone), len(first.to_describe)) == (3, 0, 0, 3)
    store(index, "embeddings", embedding_rows(["a", "b"]))
    store(index, "failures", failure_rows(["c"]))
    store(index, "features", feature_rows(["a", "b"]))
    second = make_plan(index, listed(a="1", b="1", c="1"), False)
    assert (second.new, second.changed, len(second.gone), len(second.to_describe)) == (0, 0, 0, 0)
    assert (first.left_out, second.left_out) == (0, 1)
    assert len(second.stale_failures) == 0
    third = make_plan(index, listed(b="2", c="2", d="1"), False)
    assert (third.new, third.changed, third.gone.to_pylist()) == (1, 2, ["a"])
    assert third.to_describe["image_id"].to_pylist() == ["b", "c", "d"]
    assert third.stale_failures["image_id"].to_pylist() == ["c"]
    retry = make_plan(index, listed(a="1", b="1", c="1"), True)
    assert retry.to_describe["image_id"].to_pylist() == retry.stale_failures["image_id"].to_pylist() == ["c"]


def test_a_failure_of_what_was_described_since_no_longer_holds(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    store(index, "failures", failure_rows(["a", "b"]))
    store(index, "embeddings", embedding_rows(["a"]))  # tried again, by a run that was killed before its end
    plan = make_plan(index, listed(a="1", b="1"), False)
    assert plan.stale_failures["image_id"].to_pylist() == ["a"]
    assert len(plan.to_describe) == 0


def test_a_killed_run_is_not_described_again(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    store(index, "embeddings", embedding_rows(["a"]))  # committed, then killed before anything was published
    plan = make_plan(index, listed(a="1", b="1"), False)
    assert plan.new == 2 and plan.to_describe["image_id"].to_pylist() == ["b"]


versions = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("12"))


@given(versions, versions)
@settings(max_examples=25, deadline=None)
def test_plan_equals_set_arithmetic(
    tmp_path_factory: pytest.TempPathFactory, old: dict[str, str], new: dict[str, str]
) -> None:
    index = Index(str(tmp_path_factory.mktemp("index")))
    for etag in "12":
        ids = [i for i in old if old[i] == etag]
        store(index, "embeddings", embedding_rows(ids, etag))
        store(index, "features", feature_rows(ids, etag))
    plan = make_plan(index, listed(**new), False)
    assert plan.new == len(new.keys() - old.keys())
    assert plan.changed == len([i for i in new.keys() & old.keys() if new[i] != old[i]])
    assert sorted(plan.gone.to_pylist()) == sorted(old.keys() - new.keys())
    assert set(plan.to_describe["image_id"].to_pylist()) == {i for i in new if old.get(i) != new[i]}


def test_failures_that_no_longer_hold_are_dropped(tmp_path: Path) -> None:
    index = Index(str(tmp_path))
    store(index, "failures", failure_rows(["a", "b"]))
    writer, late = writer_of(index), writer_of(index)
    writer.drop_failures(index.keys("failures").slice(0, 1))
    assert index.keys("failures")["image_id"].to_pylist() == ["b"]
    version = index.table_version("failures")
    writer.drop_failures(index.keys("failures").slice(0, 0))
    assert index.table_version("failures") == version
    with pytest.raises(ConflictError):
        late.drop_failures(index.keys("failures"))
