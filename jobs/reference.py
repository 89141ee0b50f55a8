"""List every job with its purpose and its options, for `docs/reference/command-line.md`."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from jobs.boxes.options import ConvertBoxesConfig, ProposeBoxesConfig
from jobs.command import JobConfig, Option, options_of
from jobs.demo.options import DemoConfig
from jobs.evaluating.options import EvaluateConfig
from jobs.indexing.options import IndexConfig
from jobs.querying.options import QueryConfig
from jobs.serving.options import ServeConfig
from jobs.training.options import FinetuneClassifierConfig, FinetuneDetectorConfig

JOBS: Final[dict[str, type[JobConfig]]] = {
    "demo": DemoConfig,
    "convert_boxes": ConvertBoxesConfig,
    "propose_boxes": ProposeBoxesConfig,
    "finetune_detector": FinetuneDetectorConfig,
    "finetune_classifier": FinetuneClassifierConfig,
    "index": IndexConfig,
    "evaluate": EvaluateConfig,
    "query": QueryConfig,
    "serve": ServeConfig,
}


class JobReference(NamedTuple):
    """Describe one job, `python -m jobs.NAME`; `--config FILE`, which every job takes, is not among its options."""

    name: str
    purpose: str
    options: list[Option]


def command_reference() -> Iterator[JobReference]:
    """Describe every job that takes options, in the order in which an archive meets them."""
    for name, config in JOBS.items():
        yield JobReference(name, (config.__doc__ or "").strip(), options_of(config))
