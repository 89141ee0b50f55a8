"""Options of the demo."""

from jobs.command import option
from jobs.options import RayJobConfig


class DemoConfig(RayJobConfig):
    """Go the whole way on an archive drawn for it, or on your own folder of class folders."""

    archive: str | None = option("your folder of class folders; default: an archive drawn for the demo", None)
    out: str = option("folder for everything that is made", "demo")
    backbone: str = option("classifier backbone", "efficientnet_lite0")
    epochs: int = option("classifier epochs", 4, ge=1)
    detector_epochs: int = option("detector epochs (drawn archive only: yours has no boxes)", 16, ge=1)
    port: int = option("port of the endpoint on 127.0.0.1; 0: any free one", 0, ge=0, le=65_535)
    seed: int = option("seed of the drawn archive, the split and both trainings", 0, ge=0)
