"""Remote-sensing image retrieval: `import rsir_core as rsir`, then `rsir.open("index").search("query.jpg")`.

Importing it loads nothing but this file. An index is searched without Ray and without a server; torch is loaded when
the first image has to be described.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rsir_core.api.collection import Collection
    from rsir_core.api.hit import Hit
    from rsir_core.api.hits import SearchHits
    from rsir_core.api.scoring import RetrievalScores
    from rsir_core.api.search_index import SearchIndex
    from rsir_core.errors import RsirError
    from rsir_core.models.regions import Box
    from rsir_core.retrieval.query import Descriptor

__all__ = [
    "Box",
    "Collection",
    "Descriptor",
    "Hit",
    "RetrievalScores",
    "RsirError",
    "SearchHits",
    "SearchIndex",
    "open",
]
_PLACES: Final = {
    "Box": "rsir_core.models.regions",
    "Collection": "rsir_core.api.collection",
    "Descriptor": "rsir_core.retrieval.query",
    "Hit": "rsir_core.api.hit",
    "RetrievalScores": "rsir_core.api.scoring",
    "RsirError": "rsir_core.errors",
    "SearchHits": "rsir_core.api.hits",
    "SearchIndex": "rsir_core.api.search_index",
}


def open(  # noqa: A001 -- as `gzip.open` and its like are named
    uri: str | os.PathLike[str], version: int | None = None, device: str = "cpu"
) -> "SearchIndex":
    """Open an index for searching; its rows and models are loaded when they are first needed.

    Args:
        uri: of the index, on any storage that fsspec opens.
        version: of its rows; None: the newest, which stays the same until the index is opened again.
        device: that describes images: `cpu`, `cuda`, …

    Raises:
        TableError: no index, no such version, or no rows.
        BundleError: the index's own model bundle is missing.
        StorageError: the store does not answer, or refuses.
    """
    from rsir_core.api.search_index import SearchIndex  # noqa: PLC0415 -- so that importing this package is quick
    from rsir_core.retrieval.served_version import read_version  # noqa: PLC0415

    return SearchIndex(read_version(os.fspath(uri), version), device)


def __getattr__(name: str) -> Any:
    """Import a class of the Python API when it is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
