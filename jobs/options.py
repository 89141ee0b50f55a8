"""Options that several jobs share, and the texts that options are parsed from."""

import dataclasses
from datetime import UTC, datetime

from jobs.command import JobConfig, option
from jobs.pipeline.resources import Needs
from rsir_core.errors import ConfigError
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.models.regions import VIEWS


@dataclasses.dataclass(frozen=True)
class RayJobConfig(JobConfig):
    """Hold the options that every job on Ray takes."""

    @property
    def needs(self) -> Needs:
        """Say what a cluster must have for the job to begin: a GPU for one actor, where it is asked for."""
        gpus: float = getattr(self, "num_gpus", 0.0)
        return Needs(f"--num-gpus {gpus:g}", gpus)

    address: str | None = option(
        "Ray cluster to join (`auto`, `ray://…`); default: the job's own, else a local one", None
    )


@dataclasses.dataclass(frozen=True)
class DescribingConfig(RayJobConfig):
    """Hold the options that every job takes that describes a folder of images."""

    actors: int = option("describing actors; 0: one per GPU, or per CPU where --num-gpus is 0", 0, least=0)
    num_gpus: float = option("GPUs per actor; 0 describes on CPUs, one thread each", 0.0, least=0)
    batch_size: int = option("images per forward pass", 32, least=1)
    max_pixels: int = option("pixels per image above which it is refused", 100_000_000, least=1)
    image_seconds: float = option(
        "seconds after which an image that is not read has failed", 120.0, least=0.1, most=86_400
    )


def split_list(text: str | None) -> list[str]:
    """Split a comma-separated list; each part is returned once."""
    return list(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def parse_time(name: str, text: str | None) -> datetime | None:
    """Parse the ISO 8601 time of an option; without a zone it is UTC.

    Raises:
        ConfigError: it is no such time.
    """
    try:
        time = None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"--{name} {text}: it takes a time in ISO 8601, as 2024-01-15 or 2024-01-15T10:00Z"
        ) from error
    return time and (time if time.tzinfo else time.replace(tzinfo=UTC))


def parse_bounds(text: str | None) -> BoundingBox | None:
    """Parse `--bbox`: west,south,east,north in degrees; west > east crosses the antimeridian.

    Raises:
        ConfigError: these are no such degrees.
    """
    try:
        bounds = None if text is None else BoundingBox(*(float(edge) for edge in text.split(",")))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--bbox {text}: it takes west,south,east,north in degrees") from error
    if bounds is not None:
        meridians, parallels = (bounds.west, bounds.east), (bounds.south, bounds.north)
        if not (all(-180 <= x <= 180 for x in meridians) and -90 <= parallels[0] <= parallels[1] <= 90):
            raise ConfigError(f"--bbox {text}: no degrees, or its south lies north of its north")
    return bounds


def check_views(views: int | None) -> None:
    """Check that `--views` is a number of views that a classifier can average.

    Raises:
        ConfigError: it is not.
    """
    if views not in (None, *VIEWS):
        raise ConfigError(f"--views {views}: it takes {', '.join(map(str, VIEWS))}")
