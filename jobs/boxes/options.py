"""Options of the jobs that make boxes."""

from typing import Literal

from jobs.command import JobConfig, option
from jobs.options import DescribingConfig


class ConvertBoxesConfig(JobConfig):
    """Convert boxes of a common format to a data.yaml for jobs.finetune_detector; images are linked, not copied."""

    format: Literal["yolo", "coco", "voc", "dota", "nwpu"] = option("what the boxes are written in")
    images: str = option("folder of the images, at any depth")
    boxes: str = option("folder of the label files, which are named like the images; coco: JSON files, comma-separated")
    out: str = option("folder to make: data.yaml, lists, labels and links to the images")
    classes: str | None = option(
        "object classes, comma-separated or a file with one per line; for yolo and nwpu in the order of their numbers; "
        "default: those of the boxes (yolo: required)",
        None,
    )
    train: str | None = option(
        "list of image names, folder of images or (coco) JSON; default: all images in neither --val nor --test", None
    )
    val: str | None = option("as --train; default: --val-fraction of the training images, by the seed", None)
    test: str | None = option("as --train; default, where nothing else is given: --test-fraction of the images", None)
    val_fraction: float = option("share of the training images that the epochs are judged on", 0.1, ge=0, le=1)
    test_fraction: float = option("share of the images that the detector is scored on; 0: none", 0.1, ge=0, le=1)
    seed: int = option("seed of the random split", 0, ge=0)
    difficult: Literal["keep", "drop"] = option("what to do with objects that voc and dota mark as difficult", "keep")
    clip: bool = option("cut boxes off at the image's edge; default: a box over it is an error", False)
    unmatched: Literal["error", "drop"] = option(
        "what to do with label files, or entries of a COCO file, that match no image", "error"
    )


class ProposeBoxesConfig(DescribingConfig):
    """Propose boxes for the training images of an archive without any, where the classifier sees their classes."""

    archive: str = option("URI of the labelled images that the classifier was trained on")
    models: str = option("URI of the bundle; its classifier and split.csv are used")
    out: str = option("folder to make: data.yaml for jobs.finetune_detector, and proposals.jpg to look at")
    threshold: float = option(
        "share of the strongest activation above which a place belongs to an object", 0.4, ge=0, le=1
    )
    val_fraction: float = option("share of the images that the detector's epochs are judged on", 0.1, ge=0, le=1)
    seed: int = option("seed of the random choice of val images", 0, ge=0)
