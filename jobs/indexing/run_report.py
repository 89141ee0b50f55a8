"""Run reports: what a run did and how long it took, as `runs/TIME.json` and `.md` in the index, also for failures."""

import json
import logging
import re
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from jobs.indexing.options import IndexConfig
from rsir_core import schemas
from rsir_core.index.diff import Plan
from rsir_core.index.drift import Drift
from rsir_core.index.index import Index
from rsir_core.index.last_run import LastRun, put_last_run
from rsir_core.storage.filesystem import put_file

if TYPE_CHECKING:
    from jobs.indexing.progress import Progress  # which brings Ray

log = logging.getLogger(__name__)

MAX_FOLDERS: Final = 20  # largest folders that are reported by name
PIECE: Final = 100_000  # image ids counted at a time
_SECRET: Final = re.compile(r"(?<=//)[^/@\s]*@|(?<=\w)\?[^\s'\",;)]+")  # user, password and signed query of a URI


def counts_of(plan: Plan) -> dict[str, int]:
    """Count a plan's images, by the names that the job's summary uses."""
    return {"listed": len(plan.listing), "new": plan.new, "changed": plan.changed, "gone": len(plan.gone)}


def by_folder(image_ids: pa.Array | pa.ChunkedArray) -> dict[str, dict[str, Any]]:
    """Count images by folder, with one of them as an example."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for start in range(0, len(image_ids), PIECE):  # avoids a second copy of all ids
        ids = image_ids.slice(start, PIECE)
        folders = pc.replace_substring_regex(ids, pattern="[^/]*$", replacement="")
        grouped = pa.table([folders, ids], ["folder", "id"]).group_by("folder", use_threads=False)
        for row in grouped.aggregate([("id", "count"), ("id", "first")]).to_pylist():
            folder = row["folder"] or "./"
            counts[folder] += row["id_count"]
            examples.setdefault(folder, row["id_first"])
    largest = sorted(counts.items(), key=lambda folder: (-folder[1], folder[0]))[:MAX_FOLDERS]
    return {name: {"count": count, "example": examples[name]} for name, count in largest}


class RunReport:
    """Collect the facts of a run and write them at the end of the `with` block, even if it fails.

    Attributes:
        drift: how new images differ from earlier ones; None: there are none.
        problem: what went wrong in a run that is done; None: nothing.
        progress: progress of describing; None: there was nothing to describe.
    """

    def __init__(self, index: Index, config: IndexConfig) -> None:
        self._index, self._config = index, config
        self._began, self._mark = time.time(), time.monotonic()
        self._stage: str | None = None
        self._seconds: dict[str, float] = {}
        self._plan: dict[str, Any] = {}
        self._before = index.table_version("features")
        self.drift: Drift | None = None
        self.problem: str | None = None
        self.progress: Progress | None = None

    def begin(self, stage: str | None) -> None:
        """End the current stage and begin another; None begins none."""
        now = time.monotonic()
        if self._stage is not None:
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._mark
        self._stage, self._mark = stage, now

    def planned(self, plan: Plan) -> None:
        """Record the plan."""
        self._plan = {
            **counts_of(plan),
            "to_describe": by_folder(plan.to_describe[schemas.IMAGE_ID]),
            "gone_from": by_folder(plan.gone),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.begin(None)
        try:
            self._write(self.problem or "done" if kind is None else f"{kind.__name__}: {error}")
        except Exception as problem:
            if kind is None:
                raise
            log.warning("the report of this run is not written: %s", problem)  # this must not hide why the run failed

    def _write(self, outcome: str) -> None:
        content = self.to_dict(outcome)
        name = f"{datetime.fromtimestamp(self._began, UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:6]}"
        put_file(f"{self._index.uri}/runs/{name}.json", json.dumps(content, indent=1).encode())
        put_file(f"{self._index.uri}/runs/{name}.md", readable(content).encode())
        if self._config.restore is None:  # a restored index does not match its archive
            put_last_run(self._index, self._last_run(content["outcome"]))

    def _last_run(self, outcome: str) -> LastRun:
        """Summarise the run for monitoring."""
        failed, drift = dict(self.progress.failures) if self.progress else {}, self.drift
        known = (None, None, False) if drift is None else (drift.error_ratio, drift.class_shift, drift.suggests_refit)
        return LastRun(time.time(), outcome, None, failed, *known)

    def to_dict(self, outcome: str) -> dict[str, Any]:
        """Return the whole report, without secrets."""
        options = self._config.model_dump(mode="json")
        config = {k: _SECRET.sub("", v) if isinstance(v, str) else v for k, v in options.items()}
        progress = self.progress
        return {
            "outcome": _SECRET.sub("", outcome),
            "began": datetime.fromtimestamp(self._began, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self._began, 1),
            "seconds_by_stage": {stage: round(seconds, 2) for stage, seconds in self._seconds.items()},
            "version_before": self._before,
            "version_after": self._index.table_version("features"),
            "plan": self._plan,
            "described": progress.described if progress else 0,
            "images_per_second": round(progress.rate, 1) if progress else 0.0,
            "workers": progress.workers if progress else 0,
            "share_of_workers_time": {k: round(v, 3) for k, v in progress.shares().items()} if progress else {},
            "failed": progress.failed if progress else 0,
            "failures": {
                kind: {"count": count, "example": _SECRET.sub("", progress.examples[kind])}
                for kind, count in progress.failures.most_common()
            }
            if progress
            else {},
            "failed_files": [
                {name: _SECRET.sub("", value) for name, value in file.items()}
                for file in (progress.failed_files if progress else ())
            ],
            "drift": self.drift and self.drift.to_dict(),
            "config": config,
        }


def readable(content: dict[str, Any]) -> str:
    """Format a report as Markdown."""
    plan, drift = content["plan"], content["drift"]
    lines = [
        f"# Index run of {content['began']}: {content['outcome']}",
        "",
        f"Version {content['version_before']} → {content['version_after']} in {content['seconds']} s.",
        ", ".join(f"{plan[name]} {name}" for name in ("listed", "new", "changed", "gone") if name in plan) + ".",
        f"{content['described']} described at {content['images_per_second']} images/s, {content['failed']} failed.",
        "",
        "| stage | seconds |",
        "| --- | --- |",
        *(f"| {stage} | {seconds} |" for stage, seconds in content["seconds_by_stage"].items()),
    ]
    if content["workers"]:
        lines += ["", f"| share of the time of {content['workers']} workers | |", "| --- | --- |"]
        lines += [f"| {stage} | {100 * share:.0f} % |" for stage, share in content["share_of_workers_time"].items()]
    for title, folders in (("to describe", plan.get("to_describe")), ("gone", plan.get("gone_from"))):
        if folders:
            lines += ["", f"| folder, {title} | images | for example |", "| --- | --- | --- |"]
            lines += [f"| {_cell(name)} | {f['count']} | {_cell(f['example'])} |" for name, f in folders.items()]
    if content["failures"]:
        lines += ["", "| failure | files | for example |", "| --- | --- | --- |"]
        lines += [f"| {kind} | {f['count']} | {_cell(f['example'])} |" for kind, f in content["failures"].items()]
    if content["failed_files"]:
        lines += ["", "| failed file | kind | why |", "| --- | --- | --- |"]
        lines += [" | ".join(["", *(_cell(f[n]) for n in ("uri", "kind", "message")), ""]).strip()
                  for f in content["failed_files"]]  # fmt: skip
    if drift:
        shifts = ", ".join(f"{_cell(name)} {100 * shift:+.0f} %" for name, shift in drift["largest_shifts"].items())
        advice = "Fit the PCA again: --refit-pca." if drift["suggests_refit_pca"] else "The PCA can stay."
        lines += [
            "",
            f"Drift of {drift['new_rows']} new rows: {drift['told']}; the class mix has moved by "
            f"{100 * drift['class_shift']:.0f} % ({shifts}); "
            f"{100 * drift['without_object']:.0f} % are without an object, "
            f"{100 * drift['without_object_before']:.0f} % before. {advice}",
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
