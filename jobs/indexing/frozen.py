"""The bundle that an index job describes with: the one that is named, or one made without training."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from jobs.indexing.options import FROZEN_PREFIX, IndexConfig
from rsir_core.errors import BundleError
from rsir_core.index.index import Index
from rsir_core.index.layout import bundle_uri
from rsir_core.models.bundle import read_settings
from rsir_core.models.settings import ClassifierSettings


@contextmanager
def bundle_for(index: Index, config: IndexConfig, dimensions: int | None = None) -> Iterator[str]:
    """Yield the URI of the bundle, which for `--models frozen:…` lasts for the body.

    An index keeps what it was first described with: later runs of the same options take its own copy, so that they need
    neither torch nor the backbone's weights.

    Args:
        index: the index.
        config: the job's options.
        dimensions: of embeddings that were made elsewhere; None: images are described.

    Raises:
        WeightsError: the backbone or its weights cannot be read, or do not fit.
        BundleError: the index holds embeddings of other dimensions.
    """
    own = _own_classifier(index)
    if dimensions is not None:
        with _external(index, config, dimensions, own) as models:
            yield models
        return
    if not config.is_frozen:
        yield config.models
        return
    source = _source(config)
    if own is not None and own.source == source:
        yield bundle_uri(index.uri)
        return
    from rsir_core.models.bundle import write_classifier  # noqa: PLC0415 -- what follows brings torch
    from rsir_core.models.frozen import frozen_bundle  # noqa: PLC0415

    backbone = config.models.removeprefix(FROZEN_PREFIX)
    made = frozen_bundle(backbone, config.weights, config.image_size)
    with tempfile.TemporaryDirectory() as folder:
        write_classifier(folder, replace(made.classifier, source=source), made.classifier_state, made.tau, None)
        yield folder


def _source(config: IndexConfig) -> str:
    """Hash what the bundle is made from; a hash, as a URI may hold a secret."""
    content = repr((config.models, config.weights, config.image_size))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@contextmanager
def _external(index: Index, config: IndexConfig, dimensions: int, own: ClassifierSettings | None) -> Iterator[str]:
    """Yield the URI of a bundle for embeddings that were made elsewhere: named, the index's own, or made here.

    Raises:
        BundleError: it is for images, or for other dimensions.
    """
    uri = config.models or (None if own is None else bundle_uri(index.uri))
    if uri is None:
        from rsir_core.models.bundle import write_classifier  # noqa: PLC0415 -- brings torch
        from rsir_core.models.external import external_bundle  # noqa: PLC0415

        made = external_bundle(dimensions)
        with tempfile.TemporaryDirectory() as folder:
            write_classifier(folder, made.classifier, made.classifier_state, made.tau, None)
            yield folder
        return
    settings = read_settings(uri)
    if settings.has_backbone:
        raise BundleError(f"the bundle {uri} describes images; --vectors takes one that was trained on such vectors, "
                          "or an index of its own")  # fmt: skip
    if settings.classifier.dimensions != dimensions:
        raise BundleError(
            f"{config.archive} has vectors of {dimensions} numbers, and the bundle {uri} is for vectors of "
            f"{settings.classifier.dimensions}; make a new index, or name the right column by --vectors"
        )
    yield uri


def _own_classifier(index: Index) -> ClassifierSettings | None:
    try:
        return index.bundle_settings().classifier
    except BundleError:  # there is none yet
        return None
