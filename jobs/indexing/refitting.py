"""Take stored embeddings from another index in place of describing its images again, where only the head differs."""

import logging
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
import torch

from jobs.indexing.publishing import parts_of
from jobs.pipeline.rows import rows_of
from rsir_core import schemas
from rsir_core.errors import BundleError
from rsir_core.index.delta import WrittenFile
from rsir_core.index.diff import Plan, anti, semi
from rsir_core.index.embedding_files import stored_keys, stored_rows
from rsir_core.index.index import Index
from rsir_core.index.layout import KEY
from rsir_core.index.object_rows import ObjectLists, has_objects
from rsir_core.index.writer import IndexWriter, write_rows
from rsir_core.models.bundle import Bundle, State
from rsir_core.models.head import PREFIX, Head
from rsir_core.models.settings import ClassifierSettings

log = logging.getLogger("jobs.index")


def refit(writer: IndexWriter, source: str, plan: Plan) -> Plan:
    """Classify stored embeddings of another index by this index's head, and remove their images from the plan.

    Args:
        writer: the run's writer.
        source: URI of the other index.
        plan: what has to be described.

    Raises:
        BundleError: the two indexes' bundles differ in more than the head.
        TableError: there is no such index.
    """
    other, index = Index(source), writer.index
    bundle = index.bundle()
    check_same_but_head(other.bundle(), bundle, source)
    wanted = semi(stored_keys(other), plan.to_describe)
    if len(wanted) == 0:
        return plan
    fingerprint = bundle.fingerprint
    head, target = ray.put(Head.of(bundle.classifier, bundle.classifier_state)), index.uri

    def classify(part: pa.Table) -> pa.Table:
        """Write the rows of one part as files of this index; returns what to commit."""
        layer: Head = ray.get(head)
        written: list[dict[str, Any]] = []
        for piece in stored_rows(Index(other.uri), part, schemas.EMBEDDINGS_WITH_OBJECTS.names):
            rows = with_probabilities(piece, layer, fingerprint)
            written.append(write_rows(target, "embeddings", rows)._asdict())
        return pa.Table.from_pylist(written)

    found = rows_of(parts_of(wanted).map_batches(classify, batch_size=None, batch_format="pyarrow"))
    writer.commit("embeddings", [WrittenFile(**row) for row in found], "append")
    log.info("%d embeddings taken from %s; no image of these is read", len(wanted), source)
    return replace(plan, to_describe=anti(plan.to_describe, wanted.select(KEY)))


def with_probabilities(rows: pa.Table, head: Head, fingerprint: str) -> pa.Table:
    """Replace the class probabilities of rows of `schemas.EMBEDDINGS` by those of a head.

    Args:
        rows: with their embeddings.
        head: C classes.
        fingerprint: of its bundle.
    """
    p = head.probabilities(schemas.to_matrix(rows[schemas.EMBEDDING]))
    columns = {schemas.CLASS_PROBABILITIES: schemas.to_vectors(p), schemas.BUNDLE: pa.repeat(fingerprint, len(rows))}
    if has_objects(rows):
        lists = ObjectLists.of(rows[schemas.OBJECTS])
        fields = {f.name: lists.column(f.name) for f in schemas.EMBEDDING_OBJECTS.value_type}
        embedding = schemas.to_matrix(fields[schemas.EMBEDDING]).reshape(len(lists.objects), head.weight.shape[1])
        fields[schemas.CLASS_PROBABILITIES] = schemas.to_vectors(head.probabilities(embedding))
        columns[schemas.OBJECTS] = lists.to_column(fields, schemas.EMBEDDING_OBJECTS)
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return rows


def check_same_but_head(old: Bundle, new: Bundle, source: str) -> None:
    """Check that two bundles embed alike, so that one's embeddings are the other's.

    Raises:
        BundleError: they do not; the message says in what they differ.
    """
    differences = {
        "tau": old.tau != new.tau,
        "number of regions": old.regions != new.regions,
        "detector": old.detector != new.detector or not _equal(old.detector_state, new.detector_state),
        "backbone, image size or views": _without_classes(old.classifier) != _without_classes(new.classifier),
        "backbone's weights": not _equal(_without_head(old.classifier_state), _without_head(new.classifier_state)),
    }
    if found := [name for name, differs in differences.items() if differs]:
        raise BundleError(
            f"--refit {source}: its embeddings were made with another {' and '.join(found)}; train the head on them by "
            f"jobs.finetune_classifier --embeddings {source}, or leave --refit out, which describes every image"
        )


def _without_classes(settings: ClassifierSettings) -> ClassifierSettings:
    return replace(settings, classes=(), temperature=1.0, source="")


def _without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
