"""Published rows make way for others on a real Ray, and the threshold that they leave valid or not."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.indexing.no_match import measure_no_match_threshold
from jobs.indexing.replacing import Replacing
from rsir_core import schemas
from rsir_core.errors import ConflictError
from rsir_core.index.index import Index
from rsir_core.index.lease import Lease
from rsir_core.index.no_match import NoMatchThreshold, get_no_match_threshold, has_no_match_threshold
from rsir_core.index.writer import IndexWriter, write_rows
from rsir_core.retrieval.partition import in_runs
from rsir_core.search.distance import distances
from tests.index.test_tables import feature_rows, ids_of
from tests.support.writing import writer_of

COUNT = 400
pytestmark = pytest.mark.ray


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Of two files."""
    index = Index(str(tmp_path))
    table = feature_rows(names(0, COUNT))
    parts = (table.slice(start, COUNT // 2) for start in (0, COUNT // 2))
    writer_of(index).commit("features", [write_rows(index.uri, "features", *in_runs(part)) for part in parts], "append")
    return index


def names(start: int, end: int) -> list[str]:
    return [f"{i:04}" for i in range(start, end)]


def replace(index: Index, writer: IndexWriter, start: int, end: int, seed: int = 1) -> None:
    """These images by others of their names."""
    new = feature_rows(names(start, end), etag="2", seed=seed)
    replacing = Replacing(index, new[schemas.IMAGE_ID].combine_chunks())
    replacing.commit(writer, [write_rows(index.uri, "features", *in_runs(new))])


def test_changed_rows_take_the_place_of_published_ones_on_the_cluster(cluster: None, index: Index) -> None:
    before = index.feature_files()
    with Lease.take(index.uri) as lease:
        replace(index, IndexWriter(index, lease), 0, 3)
    found = index.features(columns=["image_id", "etag"])
    assert found["image_id"].to_pylist() == names(0, COUNT)
    assert found["etag"].to_pylist() == ["2"] * 3 + ["1"] * (COUNT - 3)
    assert len(set(before) & set(index.feature_files())) == 1  # the other file has none of them


def test_rows_are_not_replaced_in_what_somebody_else_has_changed_since(cluster: None, index: Index) -> None:
    with Lease.take(index.uri) as lease:
        writer = IndexWriter(index, lease)
        writer_of(index).commit("features", [write_rows(index.uri, "features", feature_rows(["z"]))], "append")
        with pytest.raises(ConflictError, match="features"):
            replace(index, writer, 0, 3)
    assert ids_of(index) == [*names(0, COUNT), "z"]


def test_a_threshold_is_kept_until_more_than_one_percent_of_the_rows_have_changed(cluster: None, index: Index) -> None:
    def known() -> NoMatchThreshold | None:
        return get_no_match_threshold(index, index.version(), "b", "p")

    measure_no_match_threshold(writer_of(index))
    first = known()
    assert first is not None and (first.rows, first.changed) == (COUNT, 0)
    with Lease.take(index.uri) as lease:
        writer = IndexWriter(index, lease)
        for changed, expected in ((2, first._replace(changed=2)), (2, first._replace(changed=4))):
            before = index.version()
            replace(index, writer, 0, 1)
            measure_no_match_threshold(writer, before, changed)
            assert known() == expected
        before = index.version()
        replace(index, writer, 1, 2)
        measure_no_match_threshold(writer, before, 2)  # 6 of 400 by now
        last = known()
        assert last is not None and (last.changed, last.rows) == (0, COUNT)
        replace(index, writer, 2, 3)
        measure_no_match_threshold(
            writer, before, 1
        )  # a run that ended before it had stated that of the version between
        assert has_no_match_threshold(index, index.version())


def test_rejected_falsely_are_rows_whose_nearest_other_rows_are_too_far(cluster: None, index: Index) -> None:
    measure_no_match_threshold(writer_of(index))
    found = get_no_match_threshold(index, index.version(), "b", "p")
    assert found is not None and found.queries == COUNT
    assert found.distance is not None and found.agreeing_distance is not None
    feature = schemas.to_matrix(index.features()[schemas.FEATURE])
    p = schemas.to_matrix(index.features()[schemas.CLASS_PROBABILITIES])
    between, assigned = distances(feature, feature), p.argmax(axis=1)
    np.fill_diagonal(between, np.inf)
    near = np.argsort(between, axis=1)[:, :5]
    distance = np.take_along_axis(between, near, axis=1)
    agrees = (distance.mean(axis=1) < found.agreeing_distance) & (p[near, assigned[:, None]].mean(axis=1) >= 0.5)
    expected = float(((distance[:, 0] >= found.distance) & ~agrees).mean())
    assert found.false_rejection_rate == pytest.approx(expected) and 0 < expected < 1
    agreeing = float((assigned[between.argmin(axis=1)] == assigned).mean())
    assert found.class_agreement == pytest.approx(agreeing) and 0 < agreeing < 1


def test_leaving_ids_that_are_nowhere_change_no_file(cluster: None, index: Index) -> None:
    before = index.feature_files()
    with Lease.take(index.uri) as lease:
        Replacing(index, pa.array(["x"])).commit(IndexWriter(index, lease), [])
    assert index.feature_files() == before
