"""The database of each arm: the index's own rows, or its images described again in other ways, all in one pass."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from jobs.evaluating.evaluated_index import EvaluatedIndex
from jobs.evaluating.options import EvaluateConfig
from jobs.meter import Meter
from jobs.pipeline.rows import tables_of
from jobs.pipeline.stage import Stage, build_dataset
from rsir_core import schemas
from rsir_core.arrays import Floats, Pixels
from rsir_core.errors import ImageError
from rsir_core.evaluation.arms import Variation
from rsir_core.imagery.reading import Reading, images_of
from rsir_core.index.index import Index
from rsir_core.models.bundle import Bundle, load_bundle
from rsir_core.models.describe import Describer, Descriptions
from rsir_core.models.frozen import FROZEN
from rsir_core.models.pca import Moments, unit_length
from rsir_core.models.regions import Box

POSITION: Final = "position"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Described:
    """Hold n images, described in one way."""

    embedding: Floats  # (n, D)
    class_probabilities: Floats  # (n, C)
    moments: Moments  # for fitting a PCA
    feature: Floats | None = None  # (n, K), as the index stores them
    unaveraged: Floats | None = None  # (n, K), before they were averaged with their neighbours; None: they were not

    def vectors(self, components: int | None) -> Floats:
        """Return the vectors to compare: features (n, components), or unit-length embeddings if `components` is None.

        A database with fewer rows than components gets as many components as can be fitted.
        """
        if components is None:
            return unit_length(self.embedding).astype(np.float32)
        if self.feature is not None and self.feature.shape[1] == components:
            return self.feature
        most = min(self.moments.count - 1, self.embedding.shape[1])
        return self.moments.fit(min(components, most)).transform(self.embedding)


def stored(index: Index, features: pa.Table) -> Described:
    """Take rows as the index stores them; PCAs are fitted to all images of the index, as its own was."""
    pca = index.pca(features[schemas.PCA][0].as_py())
    return Described(
        index.embeddings(features),
        schemas.to_matrix(features[schemas.CLASS_PROBABILITIES]),
        pca.moments,
        schemas.to_matrix(features[schemas.FEATURE]),
        schemas.unaveraged_features(features) if pca.neighbours else None,
    )


def reading_of(config: EvaluateConfig, features: pa.Table) -> Reading:
    """Choose the limits for reading an index's images again: at least the pixels of its largest image."""
    largest = pc.max(
        pc.multiply(features[schemas.HEIGHT].cast(pa.int64()), features[schemas.WIDTH].cast(pa.int64()))
    ).as_py()
    return Reading(max(config.max_pixels, largest or 0), config.image_seconds)


class DescribeAgain:
    """Stage work: describe images by every variation; each image is decoded once.

    Args:
        index: URI of the index.
        fingerprint: of the index's bundle.
        variations: the variations, with URIs of other bundles resolved for this index.
        frozen: object reference of the bundle for the variation `frozen`.
        device: `cpu`, `cuda`, …
    """

    def __init__(self, index: str, fingerprint: str, variations: Sequence[Variation], frozen: Any, device: str) -> None:
        torch.set_num_threads(1)
        self.variations = variations
        own, peers = Index(index).bundle(fingerprint), {variation.peer for variation in variations}
        self.describers = {peer: Describer(_bundle_of(peer, own, frozen), device) for peer in peers}

    def __call__(self, read: pa.Table) -> pa.Table:
        """Describe read rows with `object_box`; columns `position`, `message` (null: read), and two per variation."""
        good, bad = read.filter(read["pixels"].is_valid()), read.filter(read["pixels"].is_null())
        columns = {POSITION: good[POSITION], schemas.MESSAGE: pa.nulls(len(good), pa.string())}
        images = images_of(good)
        boxes = [None if box is None else Box(**box) for box in good[schemas.OBJECT_BOX].to_pylist()]
        for i, variation in enumerate(self.variations):
            found = self._describe(images, boxes, variation)
            columns[f"{schemas.EMBEDDING} {i}"] = schemas.to_vectors(found.embedding)
            columns[f"{schemas.CLASS_PROBABILITIES} {i}"] = schemas.to_vectors(found.class_probabilities)
        failed = pa.table({POSITION: bad[POSITION], schemas.MESSAGE: bad[schemas.MESSAGE]})
        return pa.concat_tables([pa.table(columns), failed], promote_options="default")

    def _describe(self, images: list[Pixels], boxes: list[Box | None], variation: Variation) -> Descriptions:
        describer = self.describers[variation.peer]
        if variation.centre == "image":
            return describer.describe(images, [None] * len(images), variation.tau, views=variation.views)
        if variation.centre is not None or variation.peer is not None:
            return describer.describe(images, None, variation.tau, variation.centre, variation.views)
        # the objects that the index's detector found
        return describer.describe(images, boxes, variation.tau, views=variation.views)


def _bundle_of(peer: str | None, own: Bundle, frozen: Any) -> Bundle:
    if peer == FROZEN:
        found: Bundle = ray.get(frozen)
        return found
    return own if peer is None else load_bundle(peer)


def describe_again(subject: EvaluatedIndex, config: EvaluateConfig, gpu: str = "cuda") -> dict[Variation, Described]:
    """Describe an index's images again in the ways that its arms need; PCAs are fitted to these images alone.

    Args:
        subject: the index.
        config: the job's options.
        gpu: device of actors with a GPU.

    Raises:
        ImageError: an image cannot be read any more.
    """
    variations, features = subject.again, subject.features
    if not variations:
        return {}
    names = [*(schemas.IMAGE_ID, schemas.URI, schemas.ETAG, schemas.TIME), schemas.OBJECT_BOX]
    images = features.select(names).append_column(POSITION, pa.array(np.arange(len(features))))
    # Sent by reference, because its weights may exist on this machine only.
    frozen = ray.put(subject.frozen)
    models = subject.index.uri, features[schemas.BUNDLE][0].as_py(), list(variations.values()), frozen
    stage = Stage(reading_of(config, features), DescribeAgain, models, gpu=gpu)
    tables, done = list[pa.Table](), 0
    with Meter(len(images), log) as meter:
        for table in tables_of(build_dataset(stage, config, images)):
            tables.append(table)
            done += len(table)
            meter.mark(done)
            meter.show(f"{done} of {len(images)} described again, {meter.rate:.1f} images/s, {meter.time_left}")
    found = pa.concat_tables(tables, promote_options="default").sort_by(POSITION)
    if len(unread := found[schemas.MESSAGE].drop_null()):
        raise ImageError(
            f"{len(unread)} images cannot be read again to describe them in other ways, for example: {unread[0]}; "
            "raise --image-seconds, bring the index up to date with jobs.index, or pass --arms key_region",
            "read",
            "error",
        )
    return {variation: _described(found, i) for i, variation in enumerate(variations)}


def _described(found: pa.Table, i: int) -> Described:
    columns: dict[str, Any] = {
        name: schemas.to_matrix(found[f"{name} {i}"]) for name in (schemas.EMBEDDING, schemas.CLASS_PROBABILITIES)
    }
    return Described(**columns, moments=Moments.of(columns[schemas.EMBEDDING]))
