"""Rows drawn like those of a real index, as many as wanted, for what is measured at archive scale."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rsir_core import schemas
from rsir_core.arrays import Floats
from rsir_core.index.index import Index
from rsir_core.models.pca import Moments
from rsir_core.search.distance import classes
from tests.support.writing import writer_of

CLASSES = 21
DIMENSIONS = 19
EMBEDDING = 1280  # dimensions before the PCA
NAMES = tuple(f"class{c:02}" for c in range(CLASSES))
SPREAD = 0.5  # of its class's, by which a drawn row is moved


def made_up(
    rng: np.random.Generator, dimensions: int = DIMENSIONS, class_count: int = CLASSES
) -> tuple[Floats, Floats]:
    """Rows of an index that nobody made: features of overlapping classes, and Bayes' classifier of these."""
    label = rng.integers(class_count, size=100 * class_count)
    centre = rng.normal(size=(class_count, dimensions)) * 0.25
    feature = centre[label] + rng.normal(size=(len(label), dimensions)) * 0.1
    logits = (feature @ centre.T - 0.5 * (centre**2).sum(axis=1)) / 0.02
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return feature.astype(np.float32), (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def rows_of(index: str) -> tuple[Floats, Floats]:
    """Those of an index: features (n, K) and class probabilities (n, C)."""
    table = Index(index).features(columns=[schemas.FEATURE, schemas.CLASS_PROBABILITIES])
    return schemas.to_matrix(table[schemas.FEATURE]), schemas.to_matrix(table[schemas.CLASS_PROBABILITIES])


def drawn(like: tuple[Floats, Floats], n: int, uniform: bool, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """n rows: each one of `like`, moved by half of its class's spread, with its confidence changed a little."""
    feature, p = like
    of_class = classes(p)
    kinds, kind = np.unique(of_class, return_inverse=True)
    spread = np.stack([feature[of_class == c].std(axis=0) for c in kinds])[kind]
    source = rng.integers(len(feature), size=n)
    moved = feature[source] + SPREAD * spread[source] * rng.standard_normal((n, feature.shape[1]), np.float32)
    if uniform:
        return moved.astype(np.float32), np.full((n, p.shape[1]), 1 / p.shape[1], np.float32)
    odds = p[source] * np.exp(0.3 * rng.standard_normal((n, p.shape[1]), np.float32))
    return moved.astype(np.float32), (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def drawn_version(index: Index, n: int, rng: np.random.Generator) -> pa.Table:
    """Give an index that has a bundle a PCA, and draw n rows as a version by these models has them."""
    pca = Moments.of(rng.normal(size=(2000, EMBEDDING)).astype(np.float32)).fit(DIMENSIONS)
    writer_of(index).put_pca(pca)
    feature, p = drawn(made_up(rng), n, False, rng)
    return feature_rows(np.arange(n), feature, p, (index.bundle_settings().fingerprint, pca.fingerprint))


def feature_rows(at: npt.NDArray[np.int64], feature: Floats, p: Floats, models: tuple[str, str]) -> pa.Table:
    """Rows of `schemas.FEATURES` with these numbers in their names; the rest is the same in all of them."""
    n, (bundle, pca) = len(at), models
    ids = [f"tiles/{i:09}.jpg" for i in at]
    region = {"x": 13, "y": 13, "width": 230, "height": 230}
    columns = {
        schemas.IMAGE_ID: ids,
        schemas.URI: [f"/archive/{name}" for name in ids],
        schemas.ETAG: pa.repeat("1", n),
        schemas.BUNDLE: pa.repeat(bundle, n),
        schemas.PCA: pa.repeat(pca, n),
        schemas.HEIGHT: pa.repeat(pa.scalar(256, pa.int32()), n),
        schemas.WIDTH: pa.repeat(pa.scalar(256, pa.int32()), n),
        schemas.REGION: pa.repeat(pa.scalar(region, schemas.FEATURES.field(schemas.REGION).type), n),
        schemas.OBJECT_CLASS: pa.repeat("plane", n),
        schemas.OBJECT_SCORE: pa.repeat(pa.scalar(0.5, pa.float32()), n),
        schemas.OBJECT_BOX: pa.repeat(
            pa.scalar({"x0": 1, "y0": 1, "x1": 9, "y1": 9}, schemas.FEATURES.field(schemas.OBJECT_BOX).type), n
        ),
        schemas.CLASS_PROBABILITIES: schemas.to_vectors(p),
        schemas.CLASS: pa.array(NAMES).take(pa.array(classes(p))),
        schemas.FEATURE: schemas.to_vectors(feature),
    }
    nothing = {f.name: pa.nulls(n, f.type) for f in schemas.FEATURES}
    return pa.table(nothing | columns, schemas.FEATURES)
