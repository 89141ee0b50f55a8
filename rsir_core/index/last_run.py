"""Outcome of the last index run, in one small file of the index (`last_run.json`), for monitoring.

A job's own metrics end with the job; the endpoint, which stays, reads this file and exports them.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from rsir_core.index.index import Index
from rsir_core.storage.filesystem import get_file, put_file

NAME: Final = "last_run.json"


@dataclass(frozen=True)
class LastRun:
    """Hold the outcome of the newest run of the index job.

    Attributes:
        time: Unix seconds at which it ended.
        outcome: as its report says it; begins with `done` where the run did what it was asked to.
        good_time: Unix seconds at which the newest run that was done ended; None: there has been none.
        failed: images that could not be described, by kind of failure.
        drift: error of the PCA on new images as a multiple of that on the images it was fitted to; None: no new images.
        class_shift: share of the new images whose class would have to change to give the class mix of before; None: as
            above.
        suggests_refit: whether the new images advise to fit the PCA again (`--refit-pca`).
    """

    time: float
    outcome: str
    good_time: float | None
    failed: dict[str, int] = field(default_factory=dict)
    drift: float | None = None
    class_shift: float | None = None
    suggests_refit: bool = False

    @property
    def is_done(self) -> bool:
        """Tell whether the run did what it was asked to."""
        return self.outcome.startswith("done")


def put_last_run(index: Index, run: LastRun) -> None:
    """Store the outcome of a run; one that was not done keeps the time of the last one that was.

    Raises:
        StorageError: the store does not take it.
    """
    before = None if run.is_done else get_last_run(index)
    content = asdict(run) | {"good_time": run.time if run.is_done else before and before.good_time}
    put_file(f"{index.uri}/{NAME}", json.dumps(content, indent=1).encode())


def get_last_run(index: Index) -> LastRun | None:
    """Read the outcome of the newest run; None: no run has stored one, or it was written by another version.

    Raises:
        StorageError: the store does not answer, or refuses.
    """
    try:
        content: dict[str, Any] = json.loads(get_file(f"{index.uri}/{NAME}"))
        return LastRun(**{f.name: content[f.name] for f in fields(LastRun)})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
