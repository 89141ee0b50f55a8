"""Several regions of each image on real Ray: described, published, searched, kept up to date, and refused where not."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import rsir_core as rsir
from jobs.finetune_classifier import finetune
from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from jobs.indexing.publishing import as_features
from jobs.indexing.refitting import with_probabilities
from jobs.training.options import FinetuneClassifierConfig
from rsir_core import schemas
from rsir_core.errors import BundleError, ConfigError
from rsir_core.imagery.decode import read_picture
from rsir_core.index.embedding_files import by_file, stored_keys, stored_rows
from rsir_core.index.index import Index
from rsir_core.index.object_rows import ObjectLists
from rsir_core.index.stored_objects import read_objects
from rsir_core.models.bundle import write_detector
from rsir_core.models.describe import Describer
from rsir_core.models.head import Head
from rsir_core.models.regions import Box, object_region
from tests.indexing.test_index import draw, table_of
from tests.support.models import write_bundle
from tests.support.options import replaced

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
REGIONS = 4


def config_in(folder: Path, models: Path, regions: int | None) -> IndexConfig:
    return IndexConfig(
        archive=str(folder / "archive"), models=str(models), index=str(folder / f"index{regions}"), components=3,
        batch_size=4, commit_every=8, actors=1, regions=regions, max_gone_rate=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> IndexConfig:
    folder = tmp_path_factory.mktemp("regions")
    write_bundle(folder / "models")
    draw(folder / "archive", 0, 12)
    (folder / "archive" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a JPEG")
    for regions in (None, REGIONS):
        index_archive(config_in(folder, folder / "models", regions))
    return config_in(folder, folder / "models", REGIONS)


@pytest.fixture
def copied(tmp_path: Path, indexed: IndexConfig) -> IndexConfig:
    for folder in (indexed.archive, indexed.index):
        shutil.copytree(folder, tmp_path / Path(folder).name)
    archive, index = (str(tmp_path / Path(folder).name) for folder in (indexed.archive, indexed.index))
    return replaced(indexed, archive=archive, index=index)


def objects_of(index: Index) -> dict[str, list[dict[str, Any]]]:
    table = table_of(index, "features")
    return dict(zip(table[schemas.IMAGE_ID].to_pylist(), table[schemas.OBJECTS].to_pylist(), strict=True))


def test_key_regions_are_those_of_an_index_without_further_regions(indexed: IndexConfig) -> None:
    without, with_them = Index(str(Path(indexed.index).with_name("indexNone"))), Index(indexed.index)
    of_models = (schemas.BUNDLE, schemas.PCA, schemas.FEATURE)  # the PCA is fitted to all regions
    for name in ("features", "embeddings"):
        tables = [table_of(index, name) for index in (without, with_them)]
        assert schemas.OBJECTS not in tables[0].column_names and schemas.OBJECTS in tables[1].column_names
        of_images = [name for name in tables[0].column_names if name not in of_models]
        for column in of_images:
            one, other = (table[column].to_pylist() for table in tables)
            if column in (schemas.EMBEDDING, schemas.CLASS_PROBABILITIES):
                np.testing.assert_allclose(one, other, rtol=0.01, atol=0.01)
            elif column != schemas.OBJECT_SCORE:
                assert one == other


def test_objects_are_what_the_detector_finds_described_by_themselves(indexed: IndexConfig) -> None:
    index = Index(indexed.index)
    describer, table = Describer(index.bundle()), table_of(index, "embeddings")
    assert sum(map(len, table[schemas.OBJECTS].to_pylist())) > len(table)  # else nothing is tested
    for row in table.to_pylist():
        pixels, objects = read_picture(row[schemas.URI]).pixels, row[schemas.OBJECTS]
        found = sorted(describer.all_objects([pixels], rule="confidence")[0], key=lambda o: -o.score)[: REGIONS - 1]
        assert [o[schemas.OBJECT_SCORE] for o in objects] == pytest.approx([o.score for o in found], rel=1e-3)
        regions = [object_region(pixels.shape[0], pixels.shape[1], Box(**o[schemas.OBJECT_BOX])) for o in objects]
        assert [o[schemas.REGION] for o in objects] == [region._asdict() for region in regions]
        described = describer.describe_regions([pixels] * len(regions), regions)
        stored = np.array([o[schemas.EMBEDDING] for o in objects])
        np.testing.assert_allclose(stored, described.embedding.astype(np.float32), rtol=0.01, atol=0.01)


def test_the_pca_is_of_all_regions_and_its_error_is_theirs(indexed: IndexConfig) -> None:
    index = Index(indexed.index)
    table = table_of(index, "embeddings")
    of_images = schemas.to_matrix(table[schemas.EMBEDDING])
    of_objects = np.array([o[schemas.EMBEDDING] for row in table[schemas.OBJECTS].to_pylist() for o in row])
    pca = index.pca(table_of(index, "features")[schemas.PCA][0].as_py())
    embedding = np.concatenate([of_images, of_objects])
    assert pca.moments.count == len(embedding)
    errors = pca.errors(embedding, pca.transform(embedding))
    assert errors.mean() == pytest.approx(pca.mean_error, rel=1e-3, abs=1e-6)
    names = pa.array(index.bundle_settings().classes)
    found = as_features(index.open_table("embeddings").to_pyarrow_table(), pca, names)
    assert len(found) == len(table) and found["error"].to_numpy().mean() == pytest.approx(pca.mean_error, rel=0.3)


def test_a_head_classifies_the_stored_embeddings_of_objects_too(indexed: IndexConfig) -> None:
    index = Index(indexed.index)
    (part,), bundle = by_file(stored_keys(index), 99), index.bundle()
    rows = pa.concat_tables(stored_rows(index, part, schemas.EMBEDDINGS_WITH_OBJECTS.names))
    found = with_probabilities(rows, Head.of(bundle.classifier, bundle.classifier_state), "other")
    before, after = (ObjectLists.of(table[schemas.OBJECTS]) for table in (rows, found))
    for name in (schemas.REGION, schemas.EMBEDDING, schemas.OBJECT_BOX):
        assert before.column(name).equals(after.column(name))
    p = [schemas.to_matrix(lists.column(schemas.CLASS_PROBABILITIES)) for lists in (before, after)]
    np.testing.assert_allclose(p[0], p[1], atol=0.05)  # it is the same head, on embeddings that were rounded
    empty = {**bundle.classifier_state, "head.weight": 0 * bundle.classifier_state["head.weight"]}
    lists = ObjectLists.of(with_probabilities(rows, Head.of(bundle.classifier, empty), "other")[schemas.OBJECTS])
    assert np.ptp(schemas.to_matrix(lists.column(schemas.CLASS_PROBABILITIES)), axis=0).max() == 0


def test_a_head_replaces_no_other_detector_whatever_its_settings(indexed: IndexConfig, tmp_path: Path) -> None:
    """A detector that was trained again has the settings of the one before, and other weights."""
    bundle, models = Index(indexed.index).bundle(), str(tmp_path / "models")
    assert bundle.detector is not None
    write_detector(models, bundle.detector, {name: tensor + 1 for name, tensor in bundle.detector_state.items()})
    before = {path.name: path.read_bytes() for path in Path(models).iterdir()}
    with pytest.raises(BundleError, match="another detector"):
        finetune(FinetuneClassifierConfig(embeddings=indexed.index, models=models))
    assert {path.name: path.read_bytes() for path in Path(models).iterdir()} == before
    write_detector(models, bundle.detector, bundle.detector_state)
    assert finetune(FinetuneClassifierConfig(embeddings=indexed.index, models=models))["classes"] > 1


def test_a_box_finds_the_object_it_was_drawn_around(indexed: IndexConfig) -> None:
    opened = rsir.open(indexed.index)
    for image_id, objects in objects_of(Index(indexed.index)).items():
        for number, found in enumerate(objects, 1):
            box = [float(found["object_box"][edge]) for edge in ("x0", "y0", "x1", "y1")]
            height, width = opened.search(image_id, 1)[0].height, opened.search(image_id, 1)[0].width
            box = [max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)]
            hits = opened.search(image_id, 5, box=box, distance="plain")
            assert len({hit.image_id for hit in hits}) == len(hits)
            assert hits[0].image_id == image_id and hits[0].distance == pytest.approx(0, abs=0.02)
            assert hits[0].region_number > 0 or hits[0].region._asdict() == found["region"], number
            assert hits.no_match is None


def test_later_runs_keep_the_objects_in_step(copied: IndexConfig, tmp_path: Path) -> None:
    index, before = Index(copied.index), objects_of(Index(copied.index))
    assert index_archive(replaced(copied, regions=REGIONS))["version"] == index.version()  # nothing to do
    gone, changed = sorted(before)[:2]
    (tmp_path / "archive" / gone).unlink()
    shutil.copy(tmp_path / "archive" / sorted(before)[5], tmp_path / "archive" / changed)
    draw(tmp_path / "archive", 40, 2)
    summary = index_archive(copied)
    assert (summary["new"], summary["changed"], summary["gone"], summary["rows"]) == (2, 1, 1, 13)
    after = objects_of(index)
    assert summary["objects"] == sum(map(len, after.values()))
    for image_id in before.keys() - {gone, changed}:
        assert without_place(after[image_id]) == without_place(before[image_id])
    assert len(after[changed]) == len(after[sorted(before)[5]])
    index_archive(replaced(copied, refit_pca=True, compact=True))
    (file,) = index.feature_files()
    rows = read_objects(index, file)
    assert rows is not None and len(rows.table) == summary["objects"]
    assert sorted(objects_of(index)) == sorted(after)
    stored = table_of(index, "embeddings")
    assert sum(map(len, stored[schemas.OBJECTS].to_pylist())) == summary["objects"]  # of images that are gone, no more
    fresh = config_in(tmp_path, Path(copied.models), REGIONS).model_copy(update={"index": str(tmp_path / "fresh")})
    index_archive(fresh)
    one, other = objects_of(index), objects_of(Index(fresh.index))
    for image_id, objects in one.items():
        features = [[o["feature"] for o in found] for found in (objects, other[image_id])]
        np.testing.assert_allclose(np.abs(features[0]), np.abs(features[1]), atol=0.02)


def without_place(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name != schemas.PLACE} for one in objects]


def test_another_number_of_regions_wants_another_index(copied: IndexConfig) -> None:
    for regions in (None, 2):
        with pytest.raises(BundleError, match=f"--regions {REGIONS}"):
            index_archive(replaced(copied, regions=regions))


def test_objects_are_not_averaged_whoever_says_how_many(copied: IndexConfig) -> None:
    """The index's own bundle says how many regions there are, so the option need not."""
    own = replaced(copied, models=f"{copied.index}/bundle", regions=None, average_neighbours=3)
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=rf"--average-neighbours 3: the index has up to {REGIONS} regions"):
            index_archive(replaced(own, dry_run=dry_run))
        fresh = replaced(own, index=f"{copied.index}-{dry_run}", dry_run=dry_run)
        with pytest.raises(ConfigError, match="--average-neighbours 3"):
            index_archive(fresh)
        assert not Path(fresh.index, "bundle").exists()  # nothing is begun that another command would stumble over


def test_without_a_detector_there_are_no_further_regions(tmp_path: Path, indexed: IndexConfig) -> None:
    write_bundle(tmp_path / "models", detector=False)
    for models in (str(tmp_path / "models"), "frozen:efficientnet_lite0"):
        with pytest.raises(BundleError, match="no detector"):
            index_archive(replaced(indexed, models=models, index=str(tmp_path / "index"), weights=None))
    one = replaced(indexed, models=str(tmp_path / "models"), index=str(tmp_path / "one"), regions=1)
    assert index_archive(one)["rows"] == 12
