"""An index that version 0.1.0 wrote is read, searched and continued by every later version.

`python -m tests.index.test_old_index FILE.zip` writes such an index by the version that runs it.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

from rsir_core import schemas
from rsir_core.archive.listing import ImageFile
from rsir_core.index.diff import listing_table, make_plan
from rsir_core.index.index import Index
from rsir_core.index.no_match import NoMatchThreshold, get_no_match_threshold, put_no_match_threshold
from rsir_core.index.versions import versions_of
from rsir_core.index.writer import write_rows
from rsir_core.retrieval.partition import Partition
from tests.support import stored_index
from tests.support.models import CLASSES, write_bundle
from tests.support.writing import writer_of

DATA = Path(__file__).parents[1] / "data"
IMAGES = 24
COMPONENTS = 5


def files() -> list[ImageFile]:
    return [ImageFile(f"a/{i:02}.png", f"s3://archive/a/{i:02}.png", str(i), 1000 + i) for i in range(IMAGES)]


@pytest.fixture(params=["index-0.1.0.zip"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Index:
    shutil.unpack_archive(DATA / request.param, tmp_path)
    return Index(str(tmp_path / "index"))


def test_rows_and_what_they_refer_to_are_read(old: Index) -> None:
    features = old.features()
    assert features[schemas.IMAGE_ID].to_pylist() == [file.image_id for file in files()]
    assert features.schema.names == schemas.FEATURES.names
    (bundle, pca), *others = old.models()
    assert not others and old.bundle_settings(bundle).classes == CLASSES
    projected = old.pca(pca).transform(old.embeddings(features))
    np.testing.assert_allclose(schemas.to_matrix(features[schemas.FEATURE]), projected, atol=0.1)  # noise was added
    assert [(v.version, v.rows, v.readable) for v in versions_of(old)] == [(1, IMAGES, True)]
    known = get_no_match_threshold(old, 1, bundle, pca)
    assert known is not None and known.distance == 0.01


def test_each_row_finds_itself(old: Index) -> None:
    features = old.features()
    partition = Partition(old, old.version())
    for row, feature, probabilities in zip(
        features.to_pylist(),
        schemas.to_matrix(features[schemas.FEATURE]),
        schemas.to_matrix(features[schemas.CLASS_PROBABILITIES]),
        strict=True,
    ):
        hits = partition.search(feature, probabilities, 1, None, euclidean=True)
        (found,) = partition.take(hits.rows).to_pylist()
        assert found[schemas.IMAGE_ID] == row[schemas.IMAGE_ID] and hits.distance[0] == pytest.approx(0, abs=1e-5)


def test_a_run_goes_on_from_it(old: Index) -> None:
    changed = [*files()[2:], ImageFile("b/new.png", "s3://archive/b/new.png", "1", 5)]
    plan = make_plan(old, listing_table(changed), retry_failed=False)
    assert (plan.new, plan.changed, len(plan.gone), len(plan.to_describe)) == (1, 0, 2, 1)
    more = old.features().slice(0, 3)
    writer_of(old).commit("features", [write_rows(old.uri, "features", more)], "overwrite")
    assert old.features().equals(more) and old.version() == 3  # the second has the columns that it lacks


def write(archive: str) -> None:
    """Write such an index, without the weights of its bundle, as a zip file."""
    with tempfile.TemporaryDirectory() as folder:
        index = Index(f"{folder}/index")
        bundle = write_bundle(f"{folder}/index/bundle")
        for weights in Path(folder).rglob("*.safetensors"):
            weights.unlink()
        listing: pa.Table = listing_table(files())
        with patch.object(stored_index, "DIMENSIONS", 32):  # a PCA holds the square of it
            stored_index.store_embeddings(index, listing, bundle, len(CLASSES), IMAGES)
            stored_index.publish_features(index, listing, bundle, CLASSES, COMPONENTS)
        (_, pca), *_ = index.models()
        put_no_match_threshold(writer_of(index), 1, NoMatchThreshold(bundle, pca, IMAGES, IMAGES, 0.01, 0.01))
        shutil.make_archive(archive.removesuffix(".zip"), "zip", folder)


if __name__ == "__main__":
    write(sys.argv[1])
