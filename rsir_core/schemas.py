"""Column names and Arrow schemas of everything that is stored, and how vectors go in and out of columns.

Vectors are lists of float32 because Delta Lake knows neither float16 nor fixed-size lists. Embeddings are rounded to
float16 first; byte-stream-split and zstd then store the zeroed mantissa bits in next to nothing (see `index.writer`).
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rsir_core.arrays import Floats

IMAGE_ID: Final = "image_id"
URI: Final = "uri"
ETAG: Final = "etag"
SIZE: Final = "size"
BUNDLE: Final = "bundle"
PCA: Final = "pca"
HEIGHT: Final = "height"
WIDTH: Final = "width"
NOTES: Final = "notes"
TIME: Final = "time"
BBOX: Final = "bbox"
GEOMETRY: Final = "geometry"
CRS: Final = "crs"
WINDOW: Final = "window"
CELL: Final = "cell"
COVERED: Final = "covered"
EMBEDDING: Final = "embedding"
FEATURE: Final = "feature"
UNAVERAGED: Final = "unaveraged_feature"
CLASS: Final = "class"
CLASS_PROBABILITIES: Final = "class_probabilities"
REGION: Final = "region"
OBJECT_CLASS: Final = "object_class"
OBJECT_SCORE: Final = "object_score"
OBJECT_BOX: Final = "object_box"
OBJECTS: Final = "objects"
REGION_NUMBER: Final = "region_number"
PLACE: Final = "place"
STAGE: Final = "stage"
KIND: Final = "kind"
MESSAGE: Final = "message"
COLLECTION: Final = "collection"
LABEL: Final = "label"
BY: Final = "by"

FAILURE_COLUMNS: Final = (URI, STAGE, KIND, MESSAGE)  # what is told of a file that cannot be described
FAILURE: Final = [pa.field(name, pa.string()) for name in (STAGE, KIND, MESSAGE)]  # all null: no failure
BBOX_FIELDS: Final = ("xmin", "ymin", "xmax", "ymax")  # GeoParquet's names
UTC: Final = pa.timestamp("us", "UTC")
VECTOR: Final = pa.list_(pa.field("element", pa.float32()))  # the element name that Parquet and Delta prescribe

PIXELS: Final = pa.struct([(n, pa.int32()) for n in ("x", "y", "width", "height")])
SIZE_IN_PIXELS: Final = pa.struct([(n, pa.int32()) for n in ("width", "height")])

_KEY: Final = [
    pa.field(IMAGE_ID, pa.string(), nullable=False),  # path below the archive's root, '/'-separated
    pa.field(URI, pa.string(), nullable=False),
    pa.field(ETAG, pa.string(), nullable=False),  # changes when the content changes
]
_REGION: Final = [
    pa.field(REGION, PIXELS, nullable=False),
    pa.field(OBJECT_CLASS, pa.string()),  # null: no object found
    pa.field(OBJECT_SCORE, pa.float32()),
    pa.field(OBJECT_BOX, pa.struct([(n, pa.float32()) for n in ("x0", "y0", "x1", "y1")])),
    pa.field(CLASS_PROBABILITIES, VECTOR, nullable=False),  # C, softmax; empty: no classes
]
_PICTURE: Final = [
    pa.field(HEIGHT, pa.int32(), nullable=False),  # pixels, after orientation
    pa.field(WIDTH, pa.int32(), nullable=False),
    pa.field(NOTES, pa.string()),  # what reading had to decide (stretch, first page, ...); null: nothing
    pa.field(TIME, UTC),  # of acquisition; null: not known
    pa.field(BBOX, pa.struct([(n, pa.float64()) for n in BBOX_FIELDS])),  # lon/lat; null: not georeferenced
    *_REGION,
]
ADDED_COLUMNS: Final = [  # add new columns at the end of this list: older tables lack them, see `with_added_columns`
    pa.field(GEOMETRY, pa.binary()),  # WKB, lon/lat: the outline; null: not georeferenced
    pa.field(CRS, pa.string()),  # of the file: EPSG:… or WKT
    pa.field(WINDOW, PIXELS),  # of a tile: where in its scene it lies; null: it is a whole image
    pa.field(CELL, pa.string()),  # of a tile that is a cell of the global grid: its quadkey, see `geo.cells`
    pa.field(COVERED, pa.float32()),  # of such a tile: share of the cell that has data, 0 to 1
]
ADDED_TO_FEATURES: Final = [  # likewise, of `features` alone
    pa.field(UNAVERAGED, VECTOR),  # K, `feature` before it was averaged with its neighbours; null: it was not
]

LISTING: Final = pa.schema([*_KEY, pa.field(SIZE, pa.int64(), nullable=False), pa.field(TIME, UTC)])
EMBEDDINGS: Final = pa.schema(
    [
        *_KEY,
        pa.field(BUNDLE, pa.string(), nullable=False),
        *_PICTURE,
        pa.field(EMBEDDING, VECTOR, nullable=False),
        *ADDED_COLUMNS,
    ]
)
FEATURES: Final = pa.schema(
    [
        *_KEY,
        pa.field(BUNDLE, pa.string(), nullable=False),  # fingerprint of the model bundle
        pa.field(PCA, pa.string(), nullable=False),  # fingerprint of the PCA
        *_PICTURE,
        pa.field(CLASS, pa.string(), nullable=False),  # name of the most probable class; empty: no classes
        pa.field(FEATURE, VECTOR, nullable=False),  # K, PCA projection of the unit-length embedding; not of unit length
        *ADDED_COLUMNS,
        *ADDED_TO_FEATURES,
    ]
)
# With `--regions` above 1, `embeddings` and `features` have one more column: a list of the image's objects. What the
# image's own columns say of its key region, the fields say of the region around an object, see `object_region`.
OBJECT: Final = [*_REGION, FEATURES.field(CLASS), FEATURES.field(FEATURE)]
NUMBERED: Final = pa.field(REGION_NUMBER, pa.int32(), nullable=False)  # 0: the key region; 1, …: objects in their order
EMBEDDING_OBJECTS: Final = pa.list_(
    pa.field("element", pa.struct([*_REGION, EMBEDDINGS.field(EMBEDDING)]))
)  # most confident first
FEATURE_OBJECTS: Final = pa.list_(
    pa.field("element", pa.struct([*OBJECT, pa.field(PLACE, pa.int32())]))
)  # the last: of each among all objects of its file, in the order of their clusters
EMBEDDINGS_WITH_OBJECTS: Final = EMBEDDINGS.append(pa.field(OBJECTS, EMBEDDING_OBJECTS))
FEATURES_WITH_OBJECTS: Final = FEATURES.append(pa.field(OBJECTS, FEATURE_OBJECTS))
FAILURES: Final = pa.schema(
    [
        *_KEY,
        pa.field(BUNDLE, pa.string(), nullable=False),
        pa.field(STAGE, pa.string(), nullable=False),
        pa.field(KIND, pa.string(), nullable=False),
        pa.field(MESSAGE, pa.string(), nullable=False),
    ]
)
SCENES: Final = pa.schema(  # what the headers of large files said: how each is cut into tiles
    [
        *_KEY,
        pa.field("tiling", pa.string(), nullable=False),  # what was asked for
        pa.field("scene", SIZE_IN_PIXELS),  # null: it fits into one tile, and is an image
        pa.field("tile", SIZE_IN_PIXELS),
        pa.field("step", SIZE_IN_PIXELS),  # from one tile to the next
        pa.field("recipe", pa.string()),  # how each tile is read, see `tile_uri`
        pa.field("kept", pa.binary()),  # a bit per tile, row by row; null: all
        pa.field("skipped", pa.int32()),  # tiles that are mostly nodata
        pa.field("cells", pa.list_(pa.field("element", pa.string()))),  # the tiles, if cells of the global grid
    ]
)
LABELS: Final = pa.schema(  # append-only; of the rows of an image in a collection the newest counts
    [
        pa.field(COLLECTION, pa.string(), nullable=False),
        *_KEY[:2],
        pa.field(LABEL, pa.string()),  # null: the image's label is withdrawn
        pa.field(BY, pa.string()),  # who labelled it; null: unknown
        pa.field(TIME, UTC, nullable=False),  # of labelling
    ]
)
RANK: Final = "rank"
NO_MATCH: Final = "no_match"
RANKED_BY: Final = "ranked_by"
LEAST_WEIGHT: Final = "least_weight"
SAME_PICTURE: Final = "same_picture"
SCORE: Final = "score"
RESULTS: Final = pa.schema(  # of jobs.query: one row per query and rank
    [
        *(pa.field(f"query_{name}", kind) for name, kind in (
            (IMAGE_ID, pa.string()), (URI, pa.string()), (CLASS, pa.string()), ("probability", pa.float32()),
            (REGION, FEATURES.field(REGION).type),
        )),
        pa.field(RANK, pa.int32()),
        pa.field(IMAGE_ID, pa.string()),
        pa.field(URI, pa.string()),
        *(pa.field(name, pa.float64()) for name in (
            "weighted_distance", "distance", "query_weight", "candidate_weight",
        )),  # the first is the product of the others, paper eq. 6 to 8
        pa.field(CLASS, pa.string()),
        pa.field("probability", pa.float32()),
        pa.field(NO_MATCH, pa.bool_()),  # of the query: nothing is like it; null: the index cannot say so
        pa.field(SAME_PICTURE, pa.string()),  # of near duplicates, a `query.Likeness`; null: not looked at
        pa.field(RANKED_BY, pa.string()),  # of the query: the column that orders its rows
        pa.field(LEAST_WEIGHT, pa.float64()),  # what both weights are at least
        pa.field(SCORE, pa.float32()),  # probability by what was learned from a collection; null: none was named
        FEATURES.field(REGION).with_nullable(True),  # that was found
        NUMBERED.with_nullable(True),
    ]
)  # fmt: skip
QUERY_FAILURES: Final = pa.schema([FAILURES.field(name) for name in (IMAGE_ID, URI, STAGE, KIND, MESSAGE)])


def with_added_columns(table: pa.Table) -> pa.Table:
    """Add those of `ADDED_COLUMNS` and `ADDED_TO_FEATURES` that an older table lacks, as nulls."""
    return with_missing(table, (*ADDED_COLUMNS, *ADDED_TO_FEATURES))


def with_missing(table: pa.Table, fields: Iterable[pa.Field]) -> pa.Table:
    """Add those columns that a table lacks, as nulls."""
    for field in fields:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def to_matrix(column: pa.ChunkedArray | pa.Array) -> Floats:
    """Convert a list column of equal lengths to an n×d float32 matrix (no copy where it is one chunk).

    Raises:
        ValueError: lists of different lengths.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if len(array) == 0:
        return np.empty((0, 0), np.float32)
    values = np.asarray(array.flatten(), dtype=np.float32)
    d, rest = divmod(len(values), len(array))
    if rest or np.any(np.diff(np.asarray(array.offsets)) != d):
        raise ValueError(
            f"a vector column holds lists of different lengths ({len(values)} values in {len(array)} rows)"
        )
    return values.reshape(len(array), d)


def unaveraged_features(features: pa.Table) -> Floats:
    """Return the features (n, K) of rows with the columns `FEATURE` and `UNAVERAGED`, before they were averaged."""
    name = FEATURE if UNAVERAGED not in features.column_names or features[UNAVERAGED].null_count else UNAVERAGED
    return to_matrix(features[name])


def to_vectors(matrix: npt.NDArray[np.floating]) -> pa.Array:
    """Convert an n×d matrix to a list<float32> column: the inverse of `to_matrix`."""
    n, d = matrix.shape
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(d)
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(matrix, np.float32).reshape(-1), type=VECTOR)
