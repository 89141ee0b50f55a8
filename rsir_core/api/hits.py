"""The ranked results of a search: iterated, as a table, or as pictures in a notebook."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, overload

import pyarrow as pa
import shapely

from rsir_core import schemas
from rsir_core.api.gallery import gallery_html
from rsir_core.api.hit import FOOTPRINT, Hit
from rsir_core.export.formats import export_rows
from rsir_core.export.rows import ranked_rows
from rsir_core.extras import require
from rsir_core.retrieval.query import Descriptor, Ranked, RankedBy, Ranking, no_match_of
from rsir_core.retrieval.served_version import ServedVersion
from rsir_core.search.distance import most_probable

if TYPE_CHECKING:
    import geopandas
    import pandas as pd


class SearchHits(Sequence[Hit]):
    """Hold the results of one search, best first: iterate over them, or take `hits[0]`, `hits[:5]`.

    Attributes:
        query: what the query was taken for: its class probabilities, key region and objects.
        served: the version that was searched.
        ranking: what was asked for.
    """

    def __init__(self, served: ServedVersion, ranking: Ranking, ranked: Ranked, thumbnail: bytes = b"") -> None:
        self.served, self.ranking, self.ranked = served, ranking, ranked
        self.query: Descriptor = ranked.query
        self._thumbnail = thumbnail  # JPEG of the query; empty: it is an indexed image, or was never read

    @property
    def ranked_by(self) -> RankedBy:
        """Name the column that orders the results."""
        return self.ranked.ranked_by

    @property
    def least_weight(self) -> float:
        """Return what both weights are at least: 0, and more where `auto` weights."""
        return self.ranked.least_weight

    @property
    def no_match(self) -> bool | None:
        """Tell whether nothing in the index is like the query; None: the index cannot say."""
        return no_match_of(self.served, self.ranking, self.ranked)

    @property
    def class_name(self) -> str:
        """Return the most probable class of the query; empty: the index has no classes."""
        return most_probable(self.query.class_probabilities, self.served.classes)[0]

    @property
    def class_words(self) -> str:
        """Return the most probable class of the query and its probability in words."""
        name, probability = most_probable(self.query.class_probabilities, self.served.classes)
        return f"{name} {probability:.1%}" if name else "no classes"

    def to_arrow(self) -> pa.Table:
        """Return one row per result: rank, the distances and their factors, class, region and footprint (WKB)."""
        rows = self.ranked.rows
        ranks = pa.array(range(1, len(rows) + 1), pa.int32())
        names = [FOOTPRINT if name == schemas.GEOMETRY else name for name in rows.column_names]
        found = rows.rename_columns(names).add_column(0, schemas.RANK, ranks)
        if schemas.SAME_PICTURE not in names:
            found = found.append_column(schemas.SAME_PICTURE, pa.nulls(len(rows), pa.string()))
        return found

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row per result; structs are columns such as `region.x`, footprints are shapely geometries.

        Raises:
            ConfigError: pandas is not installed.
        """
        require("pandas")
        frame: pd.DataFrame = self.to_arrow().flatten().to_pandas()
        frame[FOOTPRINT] = [None if wkb is None else shapely.from_wkb(wkb) for wkb in frame[FOOTPRINT]]
        return frame

    def to_geopandas(self) -> "geopandas.GeoDataFrame":
        """Return the same with `footprint` as its geometry, in degrees of longitude and latitude (EPSG:4326).

        Raises:
            ConfigError: geopandas is not installed.
        """
        require("geopandas")
        import geopandas  # noqa: PLC0415 -- an extra

        return geopandas.GeoDataFrame(self.to_pandas(), geometry=FOOTPRINT, crs="EPSG:4326")

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the results as a file for GIS and tables, with ranks, scores, times and footprints.

        Args:
            path: path or URI; its suffix says the format: `.csv`, `.geojson`, `.gpkg` or `.parquet` (GeoParquet).

        Raises:
            ConfigError: another suffix.
            StorageError: it cannot be written.
        """
        export_rows(ranked_rows(self.ranked.rows), os.fspath(path))

    @property
    def _caption(self) -> str:
        no_match = "; nothing in the index is like it" if self.no_match else ""
        return f"{self.class_words}{no_match}"

    @cached_property
    def _hits(self) -> list[Hit]:
        return [Hit.of(row) for row in self.to_arrow().to_pylist()]

    def __len__(self) -> int:
        return len(self.ranked.rows)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> list[Hit]: ...

    def __getitem__(self, place: int | slice) -> Hit | list[Hit]:
        return self._hits[place]

    def __repr__(self) -> str:
        best = ", ".join(hit.image_id for hit in self._hits[:3]) + (", …" if len(self) > 3 else "")
        of_class = f" of class {self.class_name}" if self.class_name else ""
        return f"<{len(self)} hits in {self.served.index} for an image{of_class}: {best or 'none'}>"

    def to_html(self) -> str:
        """Return the query and the results as pictures with their ranks, in HTML without scripts.

        Reads the images from where they lie.
        """
        return gallery_html(self._hits, self.query, self._caption, self._thumbnail)

    _repr_html_ = to_html
