"""List every job with its purpose and its options, for `docs/reference/command-line.md`."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from jobs.changes import changes
from jobs.command import Job, Option, options_of
from jobs.convert_boxes import convert_boxes
from jobs.demo.__main__ import demo
from jobs.doctor import doctor
from jobs.evaluate import evaluate
from jobs.finetune_classifier import finetune
from jobs.finetune_detector import finetune_detector
from jobs.index import index_archive
from jobs.labels import labels
from jobs.propose_boxes import propose_boxes
from jobs.query import answer_queries
from jobs.search import search
from jobs.serve import serve_index

# In the order in which an archive meets them.
_ALL: Final[tuple[Job[Any], ...]] = (
    demo, convert_boxes, propose_boxes, finetune_detector, finetune, index_archive, evaluate, search,
    answer_queries, serve_index, labels, changes, doctor,
)  # fmt: skip
JOBS: Final = {job.name: job for job in _ALL}


class JobReference(NamedTuple):
    """Describe one job, `python -m jobs.NAME`; `--config FILE`, which every job takes, is not among its options."""

    name: str
    purpose: str
    options: list[Option]


def command_reference() -> Iterator[JobReference]:
    """Describe every job that takes options, in the order in which an archive meets them."""
    for job in _ALL:
        yield JobReference(job.name, job.purpose, options_of(job.options))
