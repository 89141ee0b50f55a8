"""The layout of an index on storage: its folders, the schema of each table, and the metadata in file footers.

features/     what is published: one row per image of the archive, changed in one atomic commit
embeddings/   append-only cache of described images, keyed by image id and etag
failures/     files that should be images but cannot be read or described
scenes/       how large rasters are cut into tiles
labels/       labels of images in named collections, which people append at any time
pca/          fitted PCAs by fingerprint
no_match/     no-match thresholds, by version of features
scorers/      what was learned from the labels of collections
bundle/       the model bundle that described all rows
lease/        the run that may change the index
runs/         a report of each run
last_run.json outcome of the newest run, for monitoring
"""

from typing import Final, Literal

import pyarrow as pa

from rsir_core import schemas

TableName = Literal["features", "embeddings", "failures", "scenes", "labels"]
SCHEMAS: Final[dict[TableName, pa.Schema]] = {
    "features": schemas.FEATURES,
    "embeddings": schemas.EMBEDDINGS,
    "failures": schemas.FAILURES,
    "scenes": schemas.SCENES,
    "labels": schemas.LABELS,
}
WITH_OBJECTS: Final[dict[TableName, pa.Schema]] = {  # of an index of several regions per image
    "features": schemas.FEATURES_WITH_OBJECTS,
    "embeddings": schemas.EMBEDDINGS_WITH_OBJECTS,
}
KEY: Final = [schemas.IMAGE_ID, schemas.ETAG]  # what identifies a row of every table but `labels`

CLUSTERS: Final = b"rsir.clusters"  # key in the footer of files of `features`; its value is `Clusters.to_bytes`, base64
OBJECT_CLUSTERS: Final = b"rsir.object_clusters"  # likewise of the objects of the file's images
GEO: Final = {  # value of `geo` in the same footers, which makes them GeoParquet; lon/lat is its default
    "version": "1.1.0",
    "primary_column": schemas.GEOMETRY,
    "columns": {
        schemas.GEOMETRY: {
            "encoding": "WKB",
            "geometry_types": ["Point", "Polygon", "MultiPolygon"],
            "orientation": "counterclockwise",
            "covering": {"bbox": {name: [schemas.BBOX, name] for name in schemas.BBOX_FIELDS}},
        }
    },
}


def bundle_uri(index: str) -> str:
    """Return the URI of an index's model bundle."""
    return f"{index}/bundle"


def no_match_uri(index: str) -> str:
    """Return the URI of an index's no-match thresholds, one file per version."""
    return f"{index}/no_match"


def scorer_uri(index: str, name: str) -> str:
    """Return the URI of a scorer of an index."""
    return f"{index}/scorers/{name}.json"


def pca_uri(index: str, fingerprint: str) -> str:
    """Return the URI of a PCA of an index."""
    return f"{index}/pca/{fingerprint}.safetensors"
