"""The bundle that an index job describes with: the one that is named, or one made of a backbone without training."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from jobs.indexing.options import FROZEN_PREFIX, IndexConfig
from rsir_core.errors import BundleError
from rsir_core.index.index import Index
from rsir_core.index.layout import bundle_uri


@contextmanager
def bundle_for(index: Index, config: IndexConfig) -> Iterator[str]:
    """Yield the URI of the bundle, which for `--models frozen:…` lasts for the body.

    An index keeps what it was first described with: later runs of the same options take its own copy, so that they need
    neither torch nor the backbone's weights.

    Raises:
        WeightsError: the backbone or its weights cannot be read, or do not fit.
    """
    if not config.is_frozen:
        yield config.models
        return
    source = _source(config)
    if _own_source(index) == source:
        yield bundle_uri(index.uri)
        return
    from rsir_core.models.bundle import write_classifier  # noqa: PLC0415 -- what follows brings torch
    from rsir_core.models.frozen import IMAGE_SIZE, frozen_bundle  # noqa: PLC0415

    backbone = config.models.removeprefix(FROZEN_PREFIX)
    made = frozen_bundle(backbone, config.weights, config.image_size or IMAGE_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        write_classifier(folder, replace(made.classifier, source=source), made.classifier_state, made.tau, None)
        yield folder


def _source(config: IndexConfig) -> str:
    """Hash what the bundle is made from; a hash, as a URI may hold a secret."""
    content = repr((config.models, config.weights, config.image_size))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _own_source(index: Index) -> str | None:
    try:
        return index.bundle_settings().classifier.source
    except BundleError:  # there is none yet
        return None
