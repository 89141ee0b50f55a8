"""What a search relies on: every row of a run, and of a group of runs, keeps within what is said of it."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rsir_core import schemas
from rsir_core.arrays import Floats, Ints
from rsir_core.search.clusters import Clusters, Ranges, make_clusters
from rsir_core.search.kernel import ClusterTree, candidates


class Stored(NamedTuple):
    """Rows in their order, of which the arrays are (n, …)."""

    feature: Floats
    of_class: Ints
    complement: Floats
    ranges: Ranges
    clusters: Clusters

    def part(self, chosen: npt.NDArray[Any], clusters: Clusters) -> "Stored":
        more = self.complement[chosen], Ranges(self.ranges.time[chosen], self.ranges.bbox[chosen])
        return Stored(self.feature[chosen], self.of_class[chosen], *more, clusters)


@st.composite
def stored(draw: st.DrawFn, most: int = 500) -> Stored:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, K, C = draw(st.integers(1, most)), draw(st.integers(1, 20)), draw(st.integers(1, 4))
    scale = draw(st.sampled_from([1e-12, 1.0, 1e12]))
    centres = rng.normal(size=(8, K))
    feature = (scale * (centres[rng.integers(8, size=n)] + 0.2 * rng.normal(size=(n, K)))).astype(np.float32)
    complement = np.exp(-rng.uniform(0, 60, size=(n, C))).astype(np.float32)
    of_class = rng.integers(C, size=n)
    ranges = Ranges.of(placed(rng, n))
    order, clusters = make_clusters(feature, of_class, complement, ranges)
    assert sorted(order.tolist()) == list(range(n))
    return Stored(feature[order], of_class[order], complement[order], ranges.take(order), clusters)


def placed(rng: np.random.Generator, n: int) -> pa.Table:
    """A time and a footprint of each row; some have none, some cross the antimeridian."""
    began = datetime(2020, 1, 1, tzinfo=UTC)
    times = [None if rng.random() < 0.3 else began + timedelta(seconds=int(rng.integers(10**8))) for _ in range(n)]
    boxes = []
    for west, south in rng.uniform((-180, -90), (180, 80), size=(n, 2)).tolist():
        edges = west, south, (west + 200) % 360 - 180, south + 10
        boxes.append(None if rng.random() < 0.3 else dict(zip(schemas.BBOX_FIELDS, edges, strict=True)))
    return pa.table({name: pa.array(c, schemas.FEATURES.field(name).type) for name, c in
                     ((schemas.TIME, times), (schemas.BBOX, boxes))})  # fmt: skip


def check(found: Stored, clusters: Clusters) -> None:
    """Each cluster's statements against each of its rows, in float64."""
    count = clusters.count
    assert count.sum() == len(found.feature) and (count > 0).all()
    run = np.repeat(np.arange(len(count)), count)
    assert np.array_equal(clusters.of_class[run], found.of_class)
    distance = np.linalg.norm(found.feature.astype(np.float64) - clusters.centre[run], axis=1)
    assert (distance <= clusters.radius[run]).all()
    assert (found.complement >= clusters.min_complement[run]).all()
    for inner, outer in ((found.ranges.time, clusters.time[run]), (found.ranges.bbox, clusters.bbox[run])):
        half = inner.shape[1] // 2
        assert (inner[:, :half] >= outer[:, :half]).all() and (inner[:, half:] <= outer[:, half:]).all()


def check_all(found: Stored) -> None:
    """Clusters, and groups of them that together have all rows and no others."""
    clusters, groups = found.clusters, found.clusters.groups()
    check(found, clusters)
    check(found, groups)
    assert len(clusters.group_size) == len(groups.count) and clusters.group_size.sum() == len(clusters.count)
    assert np.array_equal(clusters.group[clusters.group_start], groups.group)


@given(stored())
def test_each_row_keeps_within_its_cluster_and_its_group(found: Stored) -> None:
    check_all(found)


@given(stored(most=120), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2, 0.9]))
def test_so_do_those_that_stay_when_others_go(found: Stored, seed: int, share: float) -> None:
    stays = np.random.default_rng(seed).random(len(found.feature)) < share
    check_all(found.part(stays, found.clusters.keep(stays)))


@given(stored(), st.integers(1, 5))
def test_so_do_those_of_several_files(found: Stored, files: int) -> None:
    pieces, clusters = [], []
    for part in np.array_split(np.arange(len(found.feature)), files):
        one = found.part(part, found.clusters)
        order, own = make_clusters(one.feature, one.of_class, one.complement, one.ranges)
        pieces.append(part[order])
        clusters.append(own)
    joined = Clusters.join(clusters)
    check_all(found.part(np.concatenate(pieces), joined))
    assert len(joined.groups().count) == sum(len(own.groups().count) for own in clusters)


@given(stored(most=120))
def test_the_footer_of_a_file_gives_them_back(found: Stored) -> None:
    again = Clusters.from_bytes(found.clusters.to_bytes())
    check_all(found._replace(clusters=again))
    assert again.to_bytes() == found.clusters.to_bytes()


@given(stored(most=120))
def test_the_tree_has_each_row_once(found: Stored) -> None:
    away = found.clusters.from_centres(found.feature)
    tree = ClusterTree.of(found.clusters, found.feature, np.ascontiguousarray(found.complement.T), away)
    for balls, below in ((tree.groups, len(found.clusters.count)), (tree.clusters, len(found.feature))):
        assert np.array_equal(balls.start, np.append(0, balls.stop[:-1])) and balls.stop[-1] == below
    assert tree.most_rows == found.clusters.count.max()
    assert tree.in_order


@given(stored(most=120), st.integers(0, 99), st.integers(1, 9))
def test_rows_of_a_cluster_in_any_order_are_searched_alike(found: Stored, seed: int, k: int) -> None:
    run = np.repeat(np.arange(len(found.clusters.count)), found.clusters.count)
    order = np.lexsort((np.random.default_rng(seed).random(len(run)), run))
    query = found.feature[seed % len(run)], found.complement[seed % len(run)], int(found.of_class[seed % len(run)])
    answers = []
    for at in (np.arange(len(run)), order):
        feature, complement = found.feature[at], np.ascontiguousarray(found.complement[at].T)
        tree = ClusterTree.of(found.clusters, feature, complement, found.clusters.from_centres(feature))
        (_, weighted, *_), _ = candidates(tree, query, k, None, 0)
        answers.append(weighted[:k])
    assert np.array_equal(answers[0], answers[1])
