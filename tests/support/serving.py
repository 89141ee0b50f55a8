"""A small real index without Ray, and the endpoint's app over it in this process, for tests of both."""

import io
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image
from rasterio.windows import Window

from jobs.demo.scenes import CLASSES, OBJECT_CLASSES, write_archive
from jobs.indexing.describing import DescribeRead
from jobs.indexing.publishing import as_features
from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.backend.describer_worker import DescriberWorker
from rsir_core.backend.router import Router
from rsir_core.backend.searcher_worker import SearcherWorker
from rsir_core.backend.versions import LoadedVersions
from rsir_core.endpoint.access_log import Record
from rsir_core.endpoint.app import build_app
from rsir_core.endpoint.page_files import ALONE, PageSettings
from rsir_core.endpoint.reading import Limits
from rsir_core.endpoint.tokens import Tokens
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.reading import Reading, read_files
from rsir_core.imagery.tile_uri import fragment
from rsir_core.index.drift import ERROR
from rsir_core.index.index import Index
from rsir_core.index.no_match import NoMatchThreshold, put_no_match_threshold
from rsir_core.index.writer import write_rows
from rsir_core.models.bundle import DescribingWays, write_classifier, write_detector
from rsir_core.models.classifier import Classifier, build_classifier, load_start_weights, settings_for
from rsir_core.models.detector import build_detector
from rsir_core.models.pca import Moments
from rsir_core.models.settings import DetectorSettings
from rsir_core.retrieval.partition import in_runs
from tests.support.mosaics import CELL, write_mosaic
from tests.support.writing import writer_of

Rows = list[dict[str, Any]]

ONE = "beach/beach001.jpg"
FARTHEST = 0.5  # as if the rows had said so: the distance from which on nothing matches
LIMITS = Limits(max_k=50, max_bytes=200_000, max_pixels=512 * 512)


def build_index(folder: Path, per_class: int, scene_side: int = 0, regions: int = 1) -> str:
    """Draw an archive and index it, with the tiles of a scene of so many pixels a side; returns the index's URI."""
    torch.set_num_threads(1)
    write_archive(folder / "archive", per_class, seed=0)
    files = list(list_images(str(folder / "archive")))
    write_models(str(folder / "models"), [file.uri for file in files])
    index = Index(str(folder / "index"))
    writer_of(index).adopt_bundle(str(folder / "models"), DescribingWays(regions=regions))
    rows = [file._asdict() for file in files] + tiles_of_scene(folder / "scene.tif", [f.uri for f in files], scene_side)
    listing = pa.Table.from_pylist(rows, schemas.LISTING)
    read = read_files(listing, Reading(LIMITS.max_pixels, 120))
    described = DescribeRead(index.uri, "cpu")(read).select(schemas.EMBEDDINGS_WITH_OBJECTS.names)
    writer_of(index).commit("embeddings", [write_rows(index.uri, "embeddings", described)], "append")
    embedding = schemas.to_matrix(described[schemas.EMBEDDING])
    pca = Moments.of(embedding).fit(8)
    writer_of(index).put_pca(pca)
    features = as_features(described, pca, pa.array(CLASSES)).drop_columns([ERROR])
    version = writer_of(index).commit("features", [write_rows(index.uri, "features", *in_runs(features))], "overwrite")
    put_no_match_threshold(
        writer_of(index),
        version,
        NoMatchThreshold(
            features[schemas.BUNDLE][0].as_py(), pca.fingerprint, 99, 99, 0.01, FARTHEST, false_rejection_rate=0.13
        ),
    )
    return index.uri


def tiles_of_scene(file: Path, images: list[str], side: int) -> Rows:
    """Rows of a listing: the tiles of a georeferenced scene, made of pictures side by side, in UTM zone 33."""
    if side:
        write_mosaic(file, images, side, (500_000, 5_300_000))
    places = [Window(x, y, CELL, CELL) for y in range(0, side, CELL) for x in range(0, side, CELL)]
    of_all: dict[str, Any] = {schemas.ETAG: "1", schemas.SIZE: 1, schemas.TIME: None}
    return [
        {schemas.IMAGE_ID: f"{file.name}{fragment(place)}", schemas.URI: f"{file}{fragment(place)}", **of_all}
        for place in places
    ]


def write_models(uri: str, images: list[str]) -> None:
    """A bundle: ImageNet embeddings whose head knows each class by its mean, and an untrained detector."""
    torch.manual_seed(0)
    settings = settings_for("efficientnet_lite0", CLASSES, 64)
    model = build_classifier(settings.backbone, len(CLASSES))
    load_start_weights(model, settings.backbone, None)
    pixels = [read_picture(image).pixels for image in images]
    embedding, _ = Classifier(settings, model.state_dict()).embed(pixels)
    of_class = [CLASSES.index(Path(image).parent.name) for image in images]
    mean = torch.stack([embedding[torch.tensor(of_class) == c].mean(dim=0) for c in range(len(CLASSES))])
    with torch.no_grad():
        model.head.weight.copy_(mean / 40)
        model.head.bias.copy_(-mean.square().sum(dim=1) / 80)
    write_classifier(uri, settings, model.state_dict(), 0.9, "uri,label,split\n")
    detector = build_detector("yolov5n", len(OBJECT_CLASSES))
    write_detector(uri, DetectorSettings("yolov5n", OBJECT_CLASSES, 64, 1e-6), detector.state_dict())


class LocalBackend:
    """What Ray Serve's replicas run, in this process."""

    def __init__(self, index: str, parts: int = 1, refresh: float = 3600) -> None:
        self.searchers = [SearcherWorker(index, part, parts) for part in range(parts)]
        self.router = Router(DescriberWorker(index, LIMITS.max_pixels, "cpu"), self.searchers)
        self.versions = LoadedVersions(index, self.router, refresh)


def local_app(
    index: str,
    parts: int = 1,
    tokens: Tokens | None = None,
    record: Record = lambda _: None,
    refresh: float = 3600,
    page: PageSettings = ALONE,
) -> FastAPI:
    """The endpoint's app over an index, without Ray."""
    backend = LocalBackend(index, parts, refresh)
    return build_app(backend.router, backend.versions, LIMITS, record, tokens, page)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app's URL on a free port of this machine, while the body runs."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def upload(client: httpx.Client, data: bytes, **fields: Any) -> httpx.Response:
    """Query by an image file."""
    return client.post("/search", files={"image": data}, data=fields)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The pixels as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def check_finds_itself(client: httpx.Client, row: dict[str, Any]) -> None:
    answer = upload(client, Path(row["uri"]).read_bytes(), k=3).json()
    query, first = answer["query"], answer["results"][0]
    assert first["image_id"] == row["image_id"]
    assert first["distance"] == 0
    assert query["image_id"] is None
    assert query["feature"] == pytest.approx(row["feature"], abs=1e-4)
    assert list(query["class_probabilities"].values()) == pytest.approx(row["class_probabilities"], abs=1e-4)
    assert query["class"] == row["class"]
    assert query["region"] == row["region"]
    assert query["object"]["class"] == row["object_class"]


def copy_of(index: str, folder: Path) -> Index:
    """An index that a test may change; its rows' images stay where they are."""
    shutil.copytree(index, folder)
    return Index(str(folder))


def publish(index: Index, table: pa.Table, files: int = 1) -> int:
    """Make these the rows of an index, in so many files; returns the version."""
    shares = [table.take(pa.array(np.arange(i, len(table), files))) for i in range(files)]
    return writer_of(index).commit(
        "features", [write_rows(index.uri, "features", *in_runs(share)) for share in shares], "overwrite"
    )


def publish_by_other_pca(index: Index, dimensions: int) -> int:
    """Make an index's rows ones of another PCA, of so many dimensions; returns the version."""
    features = index.features()
    embedding = index.embeddings(features)
    pca = Moments.of(embedding).fit(dimensions)
    writer_of(index).put_pca(pca)
    names = features.schema.names
    for name, column in (
        (schemas.PCA, [pca.fingerprint] * len(features)),
        (schemas.FEATURE, schemas.to_vectors(pca.transform(embedding))),
    ):
        features = features.set_column(names.index(name), features.schema.field(name), [column])
    return publish(index, features, files=2)
