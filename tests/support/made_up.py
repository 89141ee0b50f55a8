"""An index as jobs.index makes it, of made-up descriptors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rsir_core import schemas
from rsir_core.arrays import Floats
from rsir_core.index.index import Index
from rsir_core.index.layout import SCHEMAS, TableName
from rsir_core.index.writer import write_rows
from rsir_core.models.backbones import EFFICIENTNET_LITE0
from rsir_core.models.bundle import State, write_classifier
from rsir_core.models.pca import Moments
from rsir_core.models.settings import ClassifierSettings
from rsir_core.search.averaging import NeighbourSearcher, mean_of
from tests.support.writing import writer_of

CLASSES = ("forest", "harbor", "river")
ROOT = "/imagery/2019"
K = 3


def write_index(
    folder: Path,
    image_ids: list[str],
    root: str = ROOT,
    state: State | None = None,
    *,
    seed: int = 5,
    tau: float = 0.5,
    copies: Mapping[int, int] | None = None,
    described: tuple[Floats, Floats] | None = None,
    neighbours: int = 0,
) -> str:
    """Embeddings of 8 dimensions and classes that are right at times; `copies` are described as other rows are.

    `described` are other embeddings and class probabilities; features are averaged with so many `neighbours`.
    """
    models, index = str(folder / "models"), Index(str(folder / "index"))
    settings = ClassifierSettings(EFFICIENTNET_LITE0, CLASSES, 64, (0.5,) * 3, (0.5,) * 3)
    write_classifier(models, settings, state or {"weight": torch.zeros(1)}, tau, "uri,label,split\n")
    fingerprint = writer_of(index).adopt_bundle(models)
    rng, n = np.random.default_rng(seed), len(image_ids)
    embedding = rng.normal(size=(n, 8)).astype(np.float16).astype(np.float32)
    p = rng.dirichlet(np.full(3, 0.5), n).astype(np.float32)
    if described is not None:
        embedding, p = described
    for row, original in (copies or {}).items():
        embedding[row], p[row] = embedding[original], p[original]
    pca = Moments.of(embedding).fit(K) if n else Moments.of(rng.normal(size=(9, 8))).fit(K)
    pca = replace(pca, neighbours=neighbours)
    writer_of(index).put_pca(pca)
    first = feature = pca.transform(embedding)
    if neighbours:
        feature = mean_of(first, NeighbourSearcher(first).nearest(first, neighbours + 1))
    columns = {
        **{f.name: pa.nulls(n, f.type) for f in schemas.FEATURES},
        schemas.IMAGE_ID: pa.array(image_ids, pa.string()),
        schemas.URI: pa.array([f"{root}/{i}" for i in image_ids], pa.string()),
        schemas.ETAG: pa.array(["1"] * n, pa.string()),
        schemas.BUNDLE: pa.array([fingerprint] * n, pa.string()),
        schemas.PCA: pa.array([pca.fingerprint] * n, pa.string()),
        schemas.HEIGHT: pa.array([256] * n, pa.int32()),
        schemas.WIDTH: pa.array([256] * n, pa.int32()),
        schemas.REGION: pa.array([(64, 64, 128, 128)] * n, schemas.FEATURES.field(schemas.REGION).type),
        schemas.CLASS_PROBABILITIES: schemas.to_vectors(p),
        schemas.CLASS: pa.array([CLASSES[i] for i in p.argmax(axis=1)], pa.string()),
        schemas.FEATURE: schemas.to_vectors(feature),
        schemas.UNAVERAGED: schemas.to_vectors(first) if neighbours else pa.nulls(n, schemas.VECTOR),
        schemas.EMBEDDING: schemas.to_vectors(embedding),
    }
    names: tuple[TableName, ...] = ("embeddings", "features")
    for name in names:
        table = pa.table([columns[f.name] for f in SCHEMAS[name]], SCHEMAS[name])
        files = [write_rows(index.uri, name, table.slice(s, 7)) for s in range(0, n, 7)]
        writer_of(index).commit(name, files, "append")
    return index.uri


def write_split(path: Path, tests: Mapping[str, str], train: Mapping[str, str]) -> str:
    """A split file of these URIs and labels."""
    lines = [
        f"{uri},{label},{split}" for split, part in (("test", tests), ("train", train)) for uri, label in part.items()
    ]
    path.write_text("\n".join(["uri,label,split", *lines, ""]))
    return str(path)
