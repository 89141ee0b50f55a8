"""Options of the index job."""

from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import FiniteFloat, model_validator

from jobs.command import option
from jobs.options import DescribingConfig, NumberOfViews
from rsir_core.archive.kinds import BandChoice, SignerName, is_band_pattern, kind_of
from rsir_core.archive.vector_columns import parse_columns
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.search.filter_options import Bounds, JsonText, Names, Time

if TYPE_CHECKING:
    from rsir_core.archive.items import ItemSelection
    from rsir_core.imagery.tile_grid import Tiling
    from rsir_core.models.bundle import DescribingWays

OF_IMAGES: Final = (
    "regions", "views", "tile", "tile_metres", "grid", "bands", "band_files", "stretch", "asset", "start", "end",
    "bbox", "collections", "cql2", "max_items", "sign",
)  # fmt: skip
Range = tuple[FiniteFloat, FiniteFloat]
FROZEN_PREFIX: Final = "frozen:"  # before a backbone, in place of a bundle's URI
OVERLAP: Final = 0.25  # default
GUARDED_FROM: Final = 20  # published images from which on --max-gone-rate holds
ROUNDING: Final = 1e-6  # images: 0.29 of 100 is a little less than 29


class IndexConfig(DescribingConfig):
    """Index an archive, or bring its index up to date: only what is new, changed or gone is worked on."""

    archive: str = option(
        "URI of the images (folder, s3://, gs://, az://, …), of a STAC catalogue: a document (.json), a collection "
        "or search of an API (https://…/collections/ID, https://…/search), or stac-geoparquet (.parquet); or of "
        "vectors (--vectors); required, but for --versions and --restore",
        None,
    )
    models: str = option(
        "URI of the model bundle, or frozen:BACKBONE for one without training and classes: efficientnet_lite0, "
        "_lite1 or _lite2, a torchvision model, timm/NAME, or the URI of a TorchScript file; required, but for "
        "--vectors, --versions and --restore",
        None,
    )
    vectors: str | None = option(
        "the archive is a Parquet or GeoParquet file, or a folder of them, of embeddings that were made elsewhere: "
        "their column, or auto to guess it; no image is read",
        None,
    )
    columns: str | None = option(
        "of --vectors: id=COLUMN,uri=COLUMN,geometry=COLUMN,time=COLUMN, or none for a COLUMN; default: guessed", None
    )
    weights: str | None = option(
        "with frozen: URI of the backbone's state dict (.safetensors, .pth); default: those it ships", None
    )
    image_size: int | None = option(
        "with frozen: side in pixels to which images are resized; default: the backbone's own, such as 224", None, ge=1
    )
    index: str = option("URI of the index to make or update")
    versions: bool = option("list the index's versions (time, rows, run, bundle, PCA) and do nothing else", False)
    restore: int | None = option(
        "publish this older version again, as a new one; the next ordinary run brings the index to the archive's state",
        None,
    )
    components: int | None = option(
        "dimensions of the features (K of the PCA); default: as the index is; of a new one 19, more for more than 21 "
        "classes, fewer for fewer images",
        None,
        ge=1,
    )
    views: NumberOfViews | None = option(
        "rotated views averaged per key region, for rows and queries: 1, 2 or 4; default: the bundle's", None
    )
    regions: int | None = option(
        "regions described of each image, at most: the key region, and those around its most confident objects, which "
        "a search inside a drawn box finds; needs a detector; default: the bundle's, which is 1", None, ge=1, le=100,
    )  # fmt: skip
    tile: int | None = option(
        "cut TIFFs and JPEG 2000s larger than this many pixels a side into tiles of that side", None, ge=1
    )
    tile_metres: FiniteFloat | None = option(
        "side of a tile in metres on the ground; each tile is read at no more than --tile pixels (default 256)",
        None,
        gt=0,
    )
    grid: int | None = option(
        "cut TIFFs and JPEG 2000s along one global grid instead: Web Mercator tiles of this zoom, each read at --tile "
        "pixels a side (default 256), so that the tiles of all scenes cover the same ground",
        None,
        ge=1,
        le=24,
    )
    overlap: float = option("share of a tile that the next tile covers too", OVERLAP, ge=0, lt=1)
    start: Time | None = option("of a catalogue: only items taken at this time (ISO 8601) or later", None)
    end: Time | None = option("of a catalogue: only items taken at this time or earlier", None)
    bbox: Bounds | None = option("of a catalogue: only items that meet west,south,east,north (degrees)", None)
    collections: Names | None = option("of a catalogue, comma-separated: only items of these collections", None)
    asset: str | None = option(
        "of a catalogue: key of each item's asset to read; default: visual, else the only image of the best role", None
    )
    cql2: str | None = option("of a STAC API: only items that match this filter in CQL2, as text or as JSON", None)
    max_items: int | None = option("of a catalogue: only so many items, the first that it gives", None, ge=1)
    sign: SignerName | None = option(
        "of a catalogue: sign the assets' URLs by planetary-computer when they are opened; the index has them unsigned",
        None,
    )
    bands: str | None = option(
        "three or one, to show as red, green and blue or as grey: of a catalogue, by common name, name or asset key; "
        "with --band-files, as the files' names say; of scenes that are cut, by number or name; default: red, green, "
        "blue",
        None,
    )
    band_files: str | None = option(
        "the archive has a file per band: pattern of their paths below it, such as {scene}_B{band}.TIF (* is anything "
        "within a name); --bands chooses the bands",
        None,
    )
    stretch: Annotated[Range, JsonText] | None = option(
        "with --bands of a catalogue or of --band-files: the values, low,high, that become black and white; default: "
        "percentiles 2 and 98 of each scene",
        None,
    )
    refit: str | None = option(
        "URI of an index whose bundle differs in the classifier's head alone: take its stored embeddings in place of "
        "describing the same images again; the PCA is fitted as ever",
        None,
    )
    average_neighbours: int | None = option(
        "average each feature with those of its N nearest images, and a query's likewise (database-side feature "
        "augmentation): 3 helps features that are not fine-tuned; 0: do not; default: as the index is, or 0",
        None,
        ge=0,
        le=100,
    )
    refit_pca: bool = option("fit the PCA again, from the stored embeddings of all rows", False)
    compact: bool = option(
        "merge the small files that many small runs leave, and drop embeddings of images that are gone", False
    )
    vacuum: bool = option(
        "remove files that only versions older than --keep-days refer to, unused PCAs, and reports of older runs", False
    )
    keep_days: float = option(
        "days for which --vacuum keeps every version readable; Delta's own log goes back no further than 30",
        7.0,
        ge=0,
        le=30,
    )
    dry_run: bool = option("report what would be done, by folder, and write nothing", False)
    retry_failed: bool = option("retry files that failed before, even if they have not changed", False)
    commit_every: int = option("described images per commit; a kill loses at most this many", 10_000, ge=1)
    commit_minutes: float = option("minutes after which rows are committed in any case", 10.0, ge=0)
    max_failure_rate: float = option(
        "share of the unpublished images that may fail; above it the rest is published and the exit status is 3, but "
        "if the store refused them nothing is published; one failure is always allowed, unless this is 0",
        0.05,
        ge=0,
        le=1,
    )
    max_gone_rate: float = option(
        f"share of the published images that may be gone from the archive, where {GUARDED_FROM} or more are published; "
        "with more the run ends before it changes anything",
        0.2,
        ge=0,
        le=1,
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check that one thing is asked for: an ordinary run, --versions or --restore, which take nothing besides."""
        alone = [name for name in ("versions", "restore") if getattr(self, name) not in (None, False)]
        if not alone:
            self._check_ordinary()
            return self
        for name, field in type(self).model_fields.items():
            if name not in ("index", "as_json", alone[0]) and getattr(self, name) != field.default:
                raise ValueError(
                    f"--{name.replace('_', '-')} has no effect with --{alone[0]}, which takes --index alone"
                )
        return self

    def _check_ordinary(self) -> None:
        needed = ("archive", "models") if self.vectors is None else ("archive",)
        if missing := [f"--{name}" for name in needed if getattr(self, name) is None]:
            raise ValueError(f"missing: {', '.join(missing)}")
        self._check_vectors()
        if not self.is_frozen and (of := [n for n in ("weights", "image_size") if getattr(self, n) is not None]):
            raise ValueError(f"--{of[0].replace('_', '-')}: --models {self.models} is no frozen:BACKBONE")
        given = [
            name
            for name in ("start", "end", "bbox", "collections", "asset", "cql2", "max_items", "sign")
            if getattr(self, name) is not None
        ]
        if given and not self.is_catalogue:
            name = given[0].replace("_", "-")
            what = "is none (.json, .parquet, https://…/collections/ID or https://…/search)"
            raise ValueError(f"--{name}: it is about STAC catalogues; --archive {self.archive} {what}")
        if self.cql2 is not None and kind_of(self.archive) != "api":
            raise ValueError(f"--cql2: it is about STAC APIs; --archive {self.archive} is none")
        if self.average_neighbours and (self.regions or 1) > 1:
            raise ValueError(f"--average-neighbours: not with --regions {self.regions}, whose objects are not averaged")
        if self.grid is not None and (self.tile_metres is not None or self.overlap != OVERLAP):
            raise ValueError("--grid: its cells have a size and do not overlap; omit --tile-metres and --overlap")
        self._check_bands()

    def _check_bands(self) -> None:
        apart = self.is_catalogue or self.band_files is not None
        if self.bands is not None and not apart and self.tiling is None:
            what = "it is about tiles, catalogues and --band-files; give --tile or --tile-metres or --grid as well"
            raise ValueError(f"--bands {self.bands}: {what}")
        if self.bands is not None and len(self.bands.split(",")) not in (1, 3):
            raise ValueError(f"--bands {self.bands}: give three, separated by commas, or one")
        if self.band_files is not None and self.is_catalogue:
            raise ValueError(f"--band-files: --archive {self.archive} is a catalogue; its items say where each band is")
        if self.band_files is not None and not is_band_pattern(self.band_files):
            raise ValueError(f"--band-files {self.band_files}: give a pattern with {{scene}} and {{band}}")
        for name in ("band_files", "stretch"):
            if getattr(self, name) is not None and (self.bands is None or not apart):
                what = "give --bands as well" if apart else "it is about --bands of a catalogue or of --band-files"
                raise ValueError(f"--{name.replace('_', '-')}: {what}")
        if self.stretch is not None and not self.stretch[0] < self.stretch[1]:
            raise ValueError("--stretch: give the smaller value first")

    def _check_vectors(self) -> None:
        if self.vectors is None:
            if self.columns is not None:
                raise ValueError(f"--columns {self.columns}: it is about embeddings; give --vectors as well")
            return
        parse_columns(self.columns)
        if self.is_frozen:
            raise ValueError(f"--vectors {self.vectors}: no image is described; leave out --models {self.models}")
        if given := [name for name in OF_IMAGES if getattr(self, name) is not None]:
            raise ValueError(f"--{given[0].replace('_', '-')} has no effect with --vectors, which reads no image")

    @property
    def named_columns(self) -> dict[str, str]:
        """The columns of an archive of embeddings that are named, by role."""
        return parse_columns(self.columns)

    @property
    def ways(self) -> "DescribingWays":
        """Say what is done with the bundle otherwise than it says."""
        from rsir_core.models.bundle import DescribingWays  # noqa: PLC0415 -- options are read without it

        return DescribingWays(self.views, self.regions)

    @property
    def is_frozen(self) -> bool:
        """Tell whether the bundle is to be made of a backbone that is not trained."""
        return self.models is not None and self.models.startswith(FROZEN_PREFIX)

    @property
    def is_catalogue(self) -> bool:
        """Tell whether the archive is a STAC catalogue."""
        return self.archive is not None and self.vectors is None and kind_of(self.archive) != "files"

    @property
    def item_selection(self) -> "ItemSelection | None":
        """Select items of a catalogue; None: the archive is no catalogue."""
        from rsir_core.archive.items import ItemSelection  # noqa: PLC0415 -- options are read without it

        if not self.is_catalogue:
            return None
        bbox = None if self.bbox is None else BoundingBox(*self.bbox)
        return ItemSelection(
            self.start, self.end, bbox, self.collections, self.asset, self.band_choice, self.cql2, self.max_items,
            self.sign, self.tiling is not None,
        )  # fmt: skip

    @property
    def band_choice(self) -> BandChoice | None:
        """Say which bands make an image where they lie apart; None: images are read as they are."""
        if self.bands is None:
            return None
        return BandChoice(tuple(name.strip() for name in self.bands.split(",")), self.stretch)

    @property
    def tiling(self) -> "Tiling | None":
        """Say how scenes are cut; None: they are not cut."""
        from rsir_core.imagery.tile_grid import Tiling  # noqa: PLC0415 -- as above

        if self.tile is None and self.tile_metres is None and self.grid is None:
            return None
        return Tiling(self.tile or 256, self.overlap, self.tile_metres, self.bands, self.grid)
