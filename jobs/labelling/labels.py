"""Export the labels of a collection, or list the collections."""

import logging
import sys
from collections import Counter

from jobs.command import Summary
from jobs.labelling.options import LabelsConfig
from rsir_core import schemas
from rsir_core.archive.labels import labels_to_csv
from rsir_core.errors import ConfigError, LabelError
from rsir_core.export.rows import training_pairs
from rsir_core.index.index import Index
from rsir_core.index.labels import read_collections, read_labels
from rsir_core.storage.filesystem import put_file

log = logging.getLogger("jobs.labels")


def labels(config: LabelsConfig) -> Summary:
    """Run the job once; with --json nothing but the summary is printed.

    Raises:
        ConfigError: --out without --collection.
        LabelError: the collection has no labels.
        TableError: there is no index.
    """
    index = Index(config.index)
    index.version()
    collections = read_collections(index)
    if config.collection is None:
        if config.out is not None:
            raise ConfigError("--out: name the collection that goes there by --collection")
        if not config.as_json:
            for one in collections:
                counts = ", ".join(f"{count} {label}" for label, count in one.labels.items())
                print(f"{one.name}: {counts}; changed {one.time:%Y-%m-%d %H:%M} UTC")
            return {}
        return {"collections": {one.name: one.labels for one in collections}}
    counts_of = {one.name: one.labels for one in collections}
    if config.collection not in counts_of:
        known = f"it has {', '.join(counts_of)}" if counts_of else "it has no collection"
        raise LabelError(f"{config.index} has no labels of {config.collection!r}; {known}")
    rows = read_labels(index, config.collection)
    pairs = training_pairs(rows, index.features(columns=[schemas.IMAGE_ID, schemas.URI]))
    if gone := len(rows) - len(pairs):
        log.warning("%d of %d labelled images are no longer in the index; they are left out", gone, len(rows))
    text = labels_to_csv(pairs)
    if config.out is not None:
        put_file(config.out, text.encode())
    elif not config.as_json:
        sys.stdout.write(text)
        return {}
    return {"images": len(pairs), "labels": dict(sorted(Counter(label for _, label in pairs).items()))}
