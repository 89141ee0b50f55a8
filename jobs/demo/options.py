"""Options of the demo."""

from typing import Final

from jobs.command import option
from jobs.options import RayJobConfig, Seed

EPOCHS: Final = 4  # of the classifier: enough for drawn scenes


class DemoConfig(RayJobConfig):
    """Go the whole way on an archive drawn for it, or on your own folder of class folders."""

    archive: str | None = option("your folder of class folders; default: an archive drawn for the demo", None)
    out: str = option("folder for everything that is made", "demo")
    backbone: str = option("classifier backbone", "efficientnet_lite0")
    epochs: int | None = option(
        f"classifier epochs; default: {EPOCHS} for the drawn archive; for yours, as many as suit its size",
        None,
        ge=1,
    )
    detector_epochs: int = option("detector epochs (drawn archive only: yours has no boxes)", 16, ge=1)
    port: int = option("port of the endpoint on 127.0.0.1; 0: any free one", 0, ge=0, le=65_535)
    seed: Seed = option("seed of the drawn archive, the split and both trainings", 0)

    @property
    def classifier_epochs(self) -> int | None:
        """Return the classifier's epochs; None: training chooses them by the number of images."""
        return EPOCHS if self.epochs is None and self.archive is None else self.epochs
