"""One frozen dataclass per job: what it can be told, each option with its line in `--help`."""

import dataclasses
import math
from datetime import UTC, datetime
from typing import Literal

from jobs.command import JobConfig, option
from jobs.resources import Needs
from jobs.training.recipe import Recipe, recipe_without
from rsir_core.archive.stac import ItemSelection, is_catalogue
from rsir_core.errors import ConfigError
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.imagery.tiling import Tiling
from rsir_core.models.regions import VIEWS, ObjectRule
from rsir_core.search.filters import Filter

GUARDED_FROM = 20  # published images from which on --max-gone-rate holds


@dataclasses.dataclass(frozen=True)
class RayJobConfig(JobConfig):
    """What every job on Ray takes."""

    @property
    def needs(self) -> Needs:
        """What a cluster must have for the job to begin: a GPU for one actor, where it is asked for."""
        gpus: float = getattr(self, "num_gpus", 0.0)
        return Needs(f"--num-gpus {gpus:g}", gpus)

    address: str | None = option(
        "Ray cluster to join (`auto`, `ray://…`); default: the job's own, else a local one", None
    )


def _check_views(views: int | None) -> None:
    if views not in (None, *VIEWS):
        raise ConfigError(f"--views {views}: it takes {', '.join(map(str, VIEWS))}")


@dataclasses.dataclass(frozen=True)
class FinetuneClassifierConfig(RayJobConfig):
    """Fine-tune the classifier on turned crops of the key region's size and write it into a model bundle."""

    archive: str = option("URI of the labelled images; labels are folder names unless --labels is given")
    models: str = option("URI of the bundle to write; an existing one keeps its detector")
    labels: str | None = option("CSV with `uri,label`, for archives without class folders", None)
    train_fraction: float = option("share of each class that trains; the rest is the test split", 0.5)
    calibration_fraction: float = option(
        "share of the training images that only calibrates the probabilities; 0: they are not calibrated", 0.04
    )
    unseen: str | None = option(
        "comma-separated labels that are not trained on: all their images test, and evaluate tells them apart", None
    )
    seed: int = option(
        "seed of the random split, the initial head, and the order and augmentation of images", 0, least=0
    )
    backbone: str = option("resnet50, vgg16, any torchvision classifier, or efficientnet_lite0", "resnet50")
    weights: str | None = option(
        "URI of the state dict to start from (.safetensors, .pth); default: those the backbone ships", None
    )
    tau: float = option("key region's share of height and width (paper eq. 5)", 0.9)
    views: int = option(
        "turned views of each key region that are averaged when it is described: 1, 2 or 4; each costs a forward pass",
        2,
    )
    epochs: int = option("passes over the training images", 30, least=1)
    batch_size: int = option("images per step and worker", 32, least=1)
    learning_rate: float = option("peak, for AdamW", 1e-3)
    image_size: int = option("side in pixels to which key regions are resized", 224, least=1)
    without: str | None = option(
        "comma-separated parts of the recipe to leave out, to see what each brings: "
        "smoothing, smaller, turning", None,
    )  # fmt: skip
    workers: int = option("Ray Train workers", 1, least=1)
    num_gpus: float = option("GPUs per worker; 0 trains on CPUs", 0.0, least=0)
    num_cpus: int = option("CPUs (threads) per worker", 2, least=1)
    max_pixels: int = option("pixels per image above which it is refused", 100_000_000, least=1)
    image_seconds: float = option(
        "seconds after which an image that is not read is left out", 120.0, least=0.1, most=86_400
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau <= 1:
            raise ConfigError(f"--tau {self.tau}: it takes more than 0 and at most 1")
        if not 0 < self.train_fraction < 1:
            raise ConfigError(f"--train-fraction {self.train_fraction}: it takes more than 0 and less than 1")
        if not 0 <= self.calibration_fraction < 1:
            raise ConfigError(f"--calibration-fraction {self.calibration_fraction}: it takes 0 and more, less than 1")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"--learning-rate {self.learning_rate}: it takes more than 0")
        if self.workers > 1 and self.num_gpus != int(self.num_gpus):
            raise ConfigError(
                f"--num-gpus {self.num_gpus:g} with --workers {self.workers}: NCCL takes one worker per GPU; give 1"
            )
        _check_views(self.views)
        _ = self.recipe  # a part that it does not have

    @property
    def needs(self) -> Needs:
        """What all workers take together."""
        options = f"--workers {self.workers} --num-cpus {self.num_cpus} --num-gpus {self.num_gpus:g}"
        return Needs(options, self.workers * self.num_gpus, self.workers * self.num_cpus)

    @property
    def recipe(self) -> Recipe:
        """What is left of it."""
        return recipe_without(split_list(self.without))


@dataclasses.dataclass(frozen=True)
class FinetuneDetectorConfig(JobConfig):
    """Fine-tune YOLOv5 on a data.yaml as ultralytics defines it and write it into a model bundle."""

    data: str = option("data.yaml with `train`, `val`, `names` and, for a score at the end, `test`")
    models: str = option("URI of the bundle to write; an existing one keeps its classifier")
    model: Literal["yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x"] = option("size of the detector", "yolov5x")
    weights: str | None = option("weights to start from (.safetensors, or a .pt of your own); default: random", None)
    epochs: int = option("passes over the training images", 100, least=1)
    batch_size: int = option("images per step", 16, least=1)
    image_size: int = option("side in pixels to which images are letterboxed", 640, least=1)
    seed: int = option("seed of the initial weights, order and augmentation", 0, least=0)
    num_gpus: int = option("GPUs to train on; 0 trains on CPUs", 0, least=0)
    threads: int = option("CPU threads", 2, least=1)
    min_score: float = option("confidence from which a detection counts as an object", 0.25, least=0, most=1)
    rule: ObjectRule = option(  # noqa: RUF009 -- ruff does not see that the alias is a Literal
        "the object that the key region is centred on: the surest, that whose key region agrees best with the scene's "
        "class (up to 6 forward passes more), the largest, or the centre of all", "confidence",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ConvertBoxesConfig(JobConfig):
    """Convert boxes of a common format to a data.yaml for jobs.finetune_detector; images are linked, not copied."""

    format: Literal["yolo", "coco", "voc", "dota", "nwpu"] = option("what the boxes are written in")
    images: str = option("folder of the images, at any depth")
    boxes: str = option("folder of the label files, which are named like the images; coco: JSON files, comma-separated")
    out: str = option("folder to make: data.yaml, lists, labels and links to the images")
    classes: str | None = option(
        "object classes, comma-separated or a file with one per line; for yolo and nwpu in the order of their numbers; "
        "default: those of the boxes (yolo: required)", None,
    )  # fmt: skip
    train: str | None = option(
        "list of image names, folder of images or (coco) JSON; default: what is in no other", None
    )
    val: str | None = option("as --train; default: --val-fraction of the training images, by the seed", None)
    test: str | None = option("as --train; default, where nothing else is given: --test-fraction of the images", None)
    val_fraction: float = option("share of the training images that the epochs are judged on", 0.1, least=0, most=1)
    test_fraction: float = option("share of the images that the detector is scored on; 0: none", 0.1, least=0, most=1)
    seed: int = option("seed of the random split", 0, least=0)
    difficult: Literal["keep", "drop"] = option("objects that voc and dota mark as difficult", "keep")
    clip: bool = option("cut boxes off at the image's edge; default: a box over it is an error", False)
    unmatched: Literal["error", "drop"] = option(
        "label files, and images that a COCO file lists, of which there is no image", "error"
    )


@dataclasses.dataclass(frozen=True)
class DescribingConfig(RayJobConfig):
    """What every job takes that describes a folder of images."""

    actors: int = option("describing actors; 0: one per GPU, or per CPU where --num-gpus is 0", 0, least=0)
    num_gpus: float = option("GPUs per actor; 0 describes on CPUs, one thread each", 0.0, least=0)
    batch_size: int = option("images per forward pass", 32, least=1)
    max_pixels: int = option("pixels per image above which it is refused", 100_000_000, least=1)
    image_seconds: float = option(
        "seconds after which an image that is not read has failed", 120.0, least=0.1, most=86_400
    )


@dataclasses.dataclass(frozen=True)
class ProposeBoxesConfig(DescribingConfig):
    """Propose boxes for the training images of an archive without any, where the classifier sees their classes."""

    archive: str = option("URI of the labelled images that the classifier was trained on")
    models: str = option("URI of the bundle; its classifier and split.csv are used")
    out: str = option("folder to make: data.yaml for jobs.finetune_detector, and proposals.jpg to look at")
    threshold: float = option(
        "share of the strongest activation above which a place belongs to an object", 0.4, least=0, most=1
    )
    val_fraction: float = option("share of the images that the detector's epochs are judged on", 0.1, least=0, most=1)
    seed: int = option("seed of the random choice of val images", 0, least=0)


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
        _check_views(self.views)
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
        """Which items of a catalogue; None: the archive is none.

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
        return ItemSelection(_time("start", self.start), _time("end", self.end), _bounds(self.bbox), names, self.asset)

    @property
    def tiling(self) -> Tiling | None:
        """How scenes are cut; None: they are not.

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


def split_list(text: str | None) -> list[str]:
    """Split a comma-separated list; each part is returned once."""
    return list(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def _time(name: str, text: str | None) -> datetime | None:
    try:
        time = None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"--{name} {text}: it takes a time in ISO 8601, as 2024-01-15 or 2024-01-15T10:00Z"
        ) from error
    return time and (time if time.tzinfo else time.replace(tzinfo=UTC))


def _bounds(text: str | None) -> BoundingBox | None:
    try:
        bounds = None if text is None else BoundingBox(*(float(edge) for edge in text.split(",")))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--bbox {text}: it takes west,south,east,north in degrees") from error
    if bounds is not None:
        meridians, parallels = (bounds.west, bounds.east), (bounds.south, bounds.north)
        if not (all(-180 <= x <= 180 for x in meridians) and -90 <= parallels[0] <= parallels[1] <= 90):
            raise ConfigError(f"--bbox {text}: no degrees, or its south lies north of its north")
    return bounds


@dataclasses.dataclass(frozen=True)
class QueryConfig(DescribingConfig):
    """Rank an index against each image of a folder, into Parquet."""

    queries: str = option("URI of the images to ask with (folder, s3://, gs://, az://, …)")
    index: str = option("URI of the index")
    out: str = option("URI of the folder to make: results/ and failures/, Parquet")
    k: int = option("results per query, at most 10,000", 50)
    classes: str | None = option("comma-separated: only results of these classes", None)
    start: str | None = option("only results taken at this time (ISO 8601) or later", None)
    end: str | None = option("only results taken at this time or earlier", None)
    bbox: str | None = option("west,south,east,north in degrees: only results whose footprint meets it", None)
    near_duplicates: bool = option(
        "only images as near as a copy encoded or scaled anew (0.2), by the plain distance; as look-alikes can be, "
        "column same_picture tells of the first 20 by their pixels",
        False,
    )
    distance: Literal["weighted", "plain", "auto"] = option(
        "what ranks; auto: the weighted distance where the query's class is sure, else the plain one", "weighted"
    )

    @property
    def filter(self) -> Filter:
        """What results must pass.

        Raises:
            ConfigError: a time or a box that is none.
        """
        return Filter(
            tuple(split_list(self.classes)) or None,
            _time("start", self.start),
            _time("end", self.end),
            _bounds(self.bbox),
        )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(DescribingConfig):
    """Score retrieval over an index, or over one per seed: mAP and ANMRR per arm and class."""

    index: str = option("URI of the index; with --seeds, `{seed}` in it stands for each")
    report: str = option("folder for metrics.json, tables, plots and report.html")
    split: str | None = option(
        "CSV `uri,label,split`: only `test` rows are queries and database; may hold {seed}", None
    )
    arms: str = option(
        "comma-separated: key_region, whole_image, the paper's table3, table4, table5, figure4, figure5, objects (the "
        "rules for the representative object), views (how many are averaged) and frozen (what ImageNet alone gives); "
        "all but key_region and figure4 describe the images again, and what may be one picture twice is read",
        "key_region,whole_image",
    )
    peers: str | None = option("for table5: comma-separated URIs of bundles to compare with; may hold {seed}", None)
    weights: str | None = option(
        "for frozen: URI of a state dict (.safetensors, .pth) to start from; default: what the backbone ships", None
    )
    seeds: str | None = option("comma-separated: evaluate the index of each, and give means and deviations", None)


@dataclasses.dataclass(frozen=True)
class ServeConfig(RayJobConfig):
    """Answer queries over an index by HTTP until interrupted."""

    index: str = option("URI of the index")
    host: str = option("address to listen on", "127.0.0.1")
    port: int = option("port to listen on; 0: any free one", 8000, least=0, most=65_535)
    num_gpus: float = option("GPUs of the describer; 0 describes on one CPU", 0.0, least=0)
    partitions: int = option("searchers, each over a share of the index's files", 1, least=1)
    max_replicas: int = option("most replicas of each searcher, which come and go with the load", 1, least=1)
    max_describers: int = option("most replicas of the describer", 1, least=1)
    refresh: float = option("seconds between looks for a newer version of the index", 10.0, least=0.1)
    tokens: str | None = option(
        "file of `name:sha256` lines: who may ask (python -m jobs.serve_tokens makes them); read when the endpoint is "
        "deployed, so to revoke one deploy with a file of another name; default: everybody",
        None,
    )
    max_k: int = option("most results per query, over all of its pages", 10_000, least=1)
    max_bytes: int = option("most bytes per upload", 32_000_000, least=1)
    max_pixels: int = option("most pixels per upload", 100_000_000, least=1)
    max_concurrency: int = option(
        "queries under way at once; as many again may wait, more are answered 503", 64, least=1
    )


@dataclasses.dataclass(frozen=True)
class DemoConfig(RayJobConfig):
    """The whole way on an archive drawn for it, or on your own folder of class folders."""

    archive: str | None = option("your folder of class folders; default: an archive drawn for the demo", None)
    out: str = option("folder for everything that is made", "demo")
    backbone: str = option("classifier backbone", "efficientnet_lite0")
    epochs: int = option("classifier epochs", 4, least=1)
    detector_epochs: int = option("detector epochs (drawn archive only: yours has no boxes)", 16, least=1)
    port: int = option("port of the endpoint on 127.0.0.1; 0: any free one", 0, least=0, most=65_535)
    seed: int = option("seed of the drawn archive, the split and both trainings", 0, least=0)
