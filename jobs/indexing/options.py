"""Options of the index job."""

import dataclasses
import math
from typing import Final

from jobs.command import option
from jobs.options import DescribingConfig, check_views, parse_bounds, parse_time
from rsir_core.archive.stac import ItemSelection, is_catalogue
from rsir_core.errors import ConfigError
from rsir_core.imagery.tiling import Tiling

GUARDED_FROM: Final = 20  # published images from which on --max-gone-rate holds


@dataclasses.dataclass(frozen=True)
class IndexConfig(DescribingConfig):
    """Index an archive, or bring its index up to date: only what is new, changed or gone is worked on."""

    archive: str = option(
        "URI of the images (folder, s3://, gs://, az://, …), or of a STAC catalogue (.json); required, but for "
        "--versions and --restore", None,
    )  # fmt: skip
    models: str = option("URI of the model bundle; required, but for --versions and --restore", None)
    index: str = option("URI of the index to make or update")
    versions: bool = option("list the index's versions (time, rows, run, bundle, PCA) and do nothing else", False)
    restore: int | None = option(
        "publish this older version again, as a new one; the next ordinary run brings the index to the archive's state",
        None,
    )
    components: int = option("dimensions of the features (K of the PCA)", 19, least=1)
    views: int | None = option(
        "instead of the bundle's: turned views of each key region that are averaged, of queries' too; 1, 2 or 4", None
    )
    tile: int | None = option("read TIFFs and JPEG 2000s that are larger by tiles of so many pixels a side", None)
    tile_metres: float | None = option("side of a tile on the ground, read at --tile pixels (256) at most", None)
    overlap: float = option("share of a tile that the next one has as well", 0.25)
    start: str | None = option("of a catalogue: only items taken at this time (ISO 8601) or later", None)
    end: str | None = option("of a catalogue: only items taken at this time or earlier", None)
    bbox: str | None = option("of a catalogue: only items that meet west,south,east,north (degrees)", None)
    collections: str | None = option("of a catalogue, comma-separated: only items of these collections", None)
    asset: str | None = option("of a catalogue: key of each item's asset to read; default: the one to see", None)
    bands: str | None = option("of scenes: three or one, by number or name; default: red, green, blue", None)
    refit_pca: bool = option("fit the PCA again, from the stored embeddings of all rows", False)
    compact: bool = option("merge small files, which many small runs leave, and drop embeddings of gone images", False)
    vacuum: bool = option(
        "remove files that only versions older than --keep-days refer to, unused PCAs, and reports of older runs", False
    )
    keep_days: float = option("days for which --vacuum keeps every version readable, at most 30", 7.0)
    dry_run: bool = option("say what would be done, by folder, and write nothing", False)
    retry_failed: bool = option("try files again that failed before and have not changed", False)
    commit_every: int = option("described images per commit; a kill costs at most so many", 10_000, least=1)
    commit_minutes: float = option("minutes after which a commit is made in any case", 10.0, least=0)
    max_failure_rate: float = option(
        "share of the images not published yet that may fail; with more the run does all it can and exits 3, or, where "
        "the store refuses so many, ends before it publishes; one may always fail, unless this is 0",
        0.05,
        least=0,
        most=1,
    )
    max_gone_rate: float = option(
        f"share of the published images that may be gone from the archive, where {GUARDED_FROM} or more are published; "
        "with more the run ends before it changes anything",
        0.2,
        least=0,
        most=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_what_is_asked()
        if not 0 <= self.keep_days <= 30:
            raise ConfigError(f"--keep-days {self.keep_days}: give 0 to 30; Delta's own log goes back no further")
        check_views(self.views)
        _ = self.wanted, self.tiling  # options that are not what they should be

    def _check_what_is_asked(self) -> None:
        """Check that one thing is asked for: an ordinary run, --versions or --restore, which take nothing besides."""
        alone = [name for name in ("versions", "restore") if getattr(self, name) not in (None, False)]
        if not alone:
            if missing := [f"--{name}" for name in ("archive", "models") if getattr(self, name) is None]:
                raise ConfigError(f"missing: {', '.join(missing)}")
            return
        for field in dataclasses.fields(self):
            if field.name not in ("index", "json", alone[0]) and getattr(self, field.name) != field.default:
                raise ConfigError(
                    f"--{field.name.replace('_', '-')} has no effect with --{alone[0]}, which takes --index alone"
                )

    @property
    def wanted(self) -> ItemSelection | None:
        """Select items of a catalogue; None: the archive is no catalogue.

        Raises:
            ConfigError: an option that is not what it should be, or that is not about this archive.
        """
        given = [name for name in ("start", "end", "bbox", "collections", "asset") if getattr(self, name) is not None]
        if self.archive is None or not is_catalogue(self.archive):
            if given:
                raise ConfigError(
                    f"--{given[0]}: it is about STAC catalogues; --archive {self.archive} is none (.json)"
                )
            return None
        names = None if self.collections is None else tuple(name.strip() for name in self.collections.split(","))
        return ItemSelection(
            parse_time("start", self.start), parse_time("end", self.end), parse_bounds(self.bbox), names, self.asset
        )

    @property
    def tiling(self) -> Tiling | None:
        """Say how scenes are cut; None: they are not cut.

        Raises:
            ConfigError: an option out of its range, or without the one that it is about.
        """
        if self.tile is None and self.tile_metres is None:
            if self.bands is not None:
                raise ConfigError(f"--bands {self.bands}: it is about tiles; give --tile or --tile-metres as well")
            return None
        side = 256 if self.tile is None else self.tile
        if side < 1:
            raise ConfigError(f"--tile {side}: it takes pixels, 1 or more")
        if self.tile_metres is not None and not 0 < self.tile_metres < math.inf:
            raise ConfigError(f"--tile-metres {self.tile_metres}: it takes metres, more than 0")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"--overlap {self.overlap}: it takes a share, 0 to less than 1")
        if self.bands is not None and len(self.bands.split(",")) not in (1, 3):
            raise ConfigError(f"--bands {self.bands}: give three, separated by commas, or one")
        return Tiling(side, self.overlap, self.tile_metres, self.bands)
