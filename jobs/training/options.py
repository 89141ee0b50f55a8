"""Options of the jobs that train."""

from typing import Annotated, Final, Literal, Self

from pydantic import FiniteFloat, model_validator

from jobs.command import JobConfig, option
from jobs.options import NumberOfViews, RayJobConfig, Seed
from jobs.pipeline.resources import Needs
from rsir_core.models.regions import ObjectRule
from rsir_core.models.settings import RANDOM
from rsir_core.search.filter_options import JsonText, Names
from rsir_core.training.recipe import Part

# Options that training a head on stored embeddings takes.
WITH_EMBEDDINGS: Final = (
    "as_json", "embeddings", "models", "labels", "train_fraction", "calibration_fraction", "unseen", "seed",
)  # fmt: skip


class FinetuneClassifierConfig(RayJobConfig):
    """Fine-tune the classifier on rotated crops of the key region's size and write it into a model bundle."""

    archive: str = option("URI of the labelled images; labels are folder names unless --labels is given", None)
    embeddings: str | None = option(
        "in place of --archive, the URI of an index: train the head alone on its stored embeddings and read no image; "
        "its rows are then renewed by jobs.index --refit",
        None,
    )
    models: str = option("URI of the bundle to write; an existing one keeps its detector")
    labels: str | None = option("CSV with `uri,label`, for archives without class folders", None)
    train_fraction: float = option("share of each class that trains; the rest is the test split", 0.5, gt=0, lt=1)
    calibration_fraction: float = option(
        "share of the training images kept for calibrating the probabilities; 0: no calibration",
        0.04,
        ge=0,
        lt=1,
    )
    unseen: Names | None = option(
        "comma-separated labels to leave out of training; all their images test, and evaluate reports them apart", None
    )
    seed: Seed = option("seed of the random split, the initial head, and the order and augmentation of images", 0)
    backbone: str = option(
        "efficientnet_lite0, _lite1 or _lite2, which ship their weights; resnet50, vgg16 or any torchvision "
        "classifier; or timm/NAME",
        "resnet50",
    )
    weights: str | None = option(
        "URI of the state dict to start from (.safetensors, .pth); default: those the backbone ships", None
    )
    tau: float = option("key region's share of height and width (paper eq. 5)", 0.9, gt=0, le=1)
    views: NumberOfViews = option(
        "rotated views averaged per key region when images are described: 1, 2 or 4; each costs a forward pass",
        2,
    )
    epochs: int | None = option(
        "passes over the training images; default: 30 for 1,000 to 4,000 images, more for fewer, fewer for more",
        None,
        ge=1,
    )
    trainings: int | None = option(
        "trainings from the same start, of which each has another head and order of images, and whose weights are "
        "averaged (a model soup): describing takes no longer, training so many times as long; default: 2, or 1 with "
        "--weights random",
        None,
        ge=1,
    )
    students: int = option(
        "further trainings from the same start, which learn from the average of the first ones as well as from the "
        "labels (distillation), and whose weights are averaged in turn; each takes 1.3 times as long",
        0,
        ge=0,
    )
    batch_size: int = option("images per step and worker", 32, ge=1)
    learning_rate: FiniteFloat = option("peak, for AdamW", 1e-3, gt=0)
    image_size: int | None = option(
        "side in pixels to which key regions are resized; default: the backbone's own (224 for efficientnet_lite0 and "
        "resnet50, 240 for _lite1, 260 for _lite2)",
        None,
        ge=1,
    )
    without: Annotated[tuple[Part, ...], JsonText] = option(
        "comma-separated parts of the recipe to leave out, to see what each brings: smoothing, smaller, turning", ()
    )
    workers: int = option("Ray Train workers", 1, ge=1)
    num_gpus: float = option("GPUs per worker; 0 trains on CPUs", 0.0, ge=0)
    num_cpus: int = option("CPUs (threads) per worker", 2, ge=1)
    max_pixels: int = option("pixels per image above which it is refused", 100_000_000, ge=1)
    image_seconds: float = option("seconds after which an image that is not read is left out", 120.0, ge=0.1, le=86_400)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if not any(getattr(self, name) for name in ("archive", "embeddings")):
            raise ValueError("missing: --archive, or --embeddings")
        if self.embeddings is not None:
            for name, field in type(self).model_fields.items():
                if name not in WITH_EMBEDDINGS and getattr(self, name) != field.default:
                    raise ValueError(f"--{name.replace('_', '-')} has no effect with --embeddings, which trains a head")
        return self

    @model_validator(mode="after")
    def _check_trainings(self) -> Self:
        for name in ("trainings", "students"):
            if (count := getattr(self, name) or 0) > 1 and self.weights == RANDOM:
                raise ValueError(
                    f"--{name} {count} with --weights {RANDOM}: the mean of weights that began at random means "
                    "nothing; leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _check_gpus(self) -> Self:
        if self.workers > 1 and self.num_gpus != int(self.num_gpus):
            raise ValueError(
                f"--num-gpus {self.num_gpus:g} with --workers {self.workers}: NCCL takes one worker per GPU; give 1"
            )
        return self

    @property
    def number_of_trainings(self) -> int:
        """Say how many trainings are averaged; the mean of weights that began at random means nothing."""
        return self.trainings or (1 if self.weights == RANDOM else 2)

    @property
    def needs(self) -> Needs:
        """Add up what all workers need."""
        options = f"--workers {self.workers} --num-cpus {self.num_cpus} --num-gpus {self.num_gpus:g}"
        return Needs(options, self.workers * self.num_gpus, self.workers * self.num_cpus)


class FinetuneDetectorConfig(JobConfig):
    """Fine-tune YOLOv5 on a data.yaml as ultralytics defines it and write it into a model bundle."""

    data: str = option("data.yaml with `train`, `val`, `names` and, for a score at the end, `test`")
    models: str = option("URI of the bundle to write; an existing one keeps its classifier")
    model: Literal["yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x"] = option("size of the detector", "yolov5x")
    weights: str | None = option("weights to start from (.safetensors, or a .pt of your own); default: random", None)
    epochs: int = option("passes over the training images", 100, ge=1)
    batch_size: int = option("images per step", 16, ge=1)
    image_size: int = option("side in pixels to which images are letterboxed", 640, ge=1)
    seed: Seed = option("seed of the initial weights, order and augmentation", 0)
    num_gpus: int = option("GPUs to train on; 0 trains on CPUs", 0, ge=0)
    threads: int = option("CPU threads", 2, ge=1)
    min_score: float = option("confidence from which a detection counts as an object", 0.25, ge=0, le=1)
    rule: ObjectRule = option(
        "the object that the key region is centred on: the most confident, the one whose key region agrees best with "
        "the scene's class (up to 6 more forward passes), the largest, or the centre of all",
        "confidence",
    )
    trained_side: int | None = option(
        "pixels of the longer side of the images that the classifier is trained on; with it, the key region of a "
        "larger image takes the size of its object, but at least that of a training image's key region; default: "
        "always tau",
        None,
        ge=1,
    )
