"""Options that several jobs share."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from jobs.command import JobConfig, option
from jobs.pipeline.resources import Needs
from rsir_core.models.regions import Views

NumberOfViews = Annotated[Views, BeforeValidator(lambda text: int(text) if str(text).isdigit() else text)]

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what NumPy's and scikit-learn's older generators take


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
    verbose: bool = option("also print what Ray says of its own working, with its progress bars", False)


class DescribingConfig(RayJobConfig):
    """Hold the options that every job takes that describes a folder of images."""

    actors: int = option("describing actors; 0: one per GPU, or per CPU where --num-gpus is 0", 0, ge=0)
    num_gpus: float = option("GPUs per actor; 0 describes on CPUs, one thread each", 0.0, ge=0)
    batch_size: int = option("images per forward pass", 32, ge=1)
    max_pixels: int = option("pixels per image above which it is refused", 100_000_000, ge=1)
    image_seconds: float = option("seconds after which an image that is not read has failed", 120.0, ge=0.1, le=86_400)
