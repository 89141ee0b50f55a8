"""Regions of further objects: a list in the row of their image where they are stored, rows of their own when searched.

So an image is one row of every table, whatever is done with images; and its objects come and go with it.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas
from rsir_core.arrays import Ints
from rsir_core.search.clusters import Clusters, Ranges, make_clusters
from rsir_core.search.distance import classes, complements

OF_OBJECT = [field.name for field in schemas.OBJECT]  # columns that an object's row has of its own, not of its image


class ObjectLists(NamedTuple):
    """Hold the m objects of n images.

    Attributes:
        counts: (n,) of each image.
        objects: (m,) those of the first image first, in their order; structs.
    """

    counts: Ints
    objects: pa.StructArray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "ObjectLists":
        """Take a column of lists apart; null is no object."""
        lists = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        return cls(np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64), pc.list_flatten(lists))

    @property
    def image(self) -> Ints:
        """(m,) position of each object's image."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def number(self) -> Ints:
        """(m,) 1, 2, … within each image; 0 is its key region."""
        return np.arange(1, len(self.objects) + 1) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)

    def column(self, name: str) -> pa.Array:
        """Return a field of all objects, (m,)."""
        return self.objects.field(name)

    def to_column(self, fields: dict[str, pa.Array], kind: pa.ListType) -> pa.Array:
        """Put lists of other fields together, (n,); each is (m,)."""
        structs = pa.StructArray.from_arrays(
            [fields[f.name].cast(f.type) for f in kind.value_type], fields=list(kind.value_type)
        )
        offsets = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), structs, type=kind)


class ObjectRows(NamedTuple):
    """Hold the objects of a file of `features` as rows.

    Attributes:
        table: (m,) of schema `schemas.FEATURES` with `schemas.REGION_NUMBER`, in the order of their clusters.
        clusters: the runs that they lie in.
        image: (m,) position of each one's image in the file.
    """

    table: pa.Table
    clusters: Clusters
    image: Ints


def has_objects(table: pa.Table) -> bool:
    """Tell whether further objects are stored with rows; of an index of key regions alone they are not."""
    names = table.column_names
    return schemas.OBJECTS in names and table[schemas.OBJECTS].null_count < len(table)


def clustered(features: pa.Table) -> tuple[pa.Table, Clusters]:
    """Cluster the objects of rows of `features`, and note the place of each among all of them."""
    lists = ObjectLists.of(features[schemas.OBJECTS])
    feature, p = (schemas.to_matrix(lists.column(name)) for name in (schemas.FEATURE, schemas.CLASS_PROBABILITIES))
    order, clusters = make_clusters(feature, classes(p), complements(p), Ranges.of(features).take(lists.image))
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    fields = {f.name: lists.column(f.name) for f in schemas.FEATURE_OBJECTS.value_type}
    column = lists.to_column({**fields, schemas.PLACE: pa.array(place)}, schemas.FEATURE_OBJECTS)
    at = features.schema.get_field_index(schemas.OBJECTS)
    return features.set_column(at, schemas.FEATURES_WITH_OBJECTS.field(schemas.OBJECTS), column), clusters


def object_rows(features: pa.Table, clusters: Clusters) -> ObjectRows:
    """Give each object of rows of `features`, as `clustered` returned them, a row of its own."""
    lists = ObjectLists.of(features[schemas.OBJECTS])
    order = pa.array(np.argsort(lists.column(schemas.PLACE).to_numpy()))
    image = lists.image[order]
    table = features.select([f.name for f in schemas.FEATURES if f.name not in OF_OBJECT]).take(pa.array(image))
    for name in OF_OBJECT:
        table = table.append_column(schemas.FEATURES.field(name), lists.column(name).take(order))
    table = table.select(schemas.FEATURES.names)
    number = pa.array(lists.number[order], pa.int32())
    return ObjectRows(table.append_column(schemas.NUMBERED, number), clusters, image)
