"""Bring an index up to date on Ray: describe, publish, compact and measure, for runs that have something to do."""

import logging
from typing import Final, NamedTuple

from jobs.indexing.committing import Committer
from jobs.indexing.compacting import compact
from jobs.indexing.describing import describe_files
from jobs.indexing.no_match import measure_no_match_threshold
from jobs.indexing.options import IndexConfig
from jobs.indexing.progress import Progress
from jobs.indexing.publishing import publish
from jobs.indexing.run_report import RunReport
from jobs.indexing.scenes import Scenes
from jobs.indexing.vectors import VectorSource, take_vectors
from jobs.pipeline.cluster import joined
from jobs.pipeline.rows import rows_of
from jobs.pipeline.stage import actor_count
from rsir_core import schemas
from rsir_core.index.diff import Plan
from rsir_core.index.writer import IndexWriter

NAMED_FILES: Final = 10  # failed files named on the terminal

log = logging.getLogger("jobs.index")


class Work(NamedTuple):
    """Hold what a run has to do.

    Attributes:
        plan: what is to be described.
        scenes: those that could not be read.
        vectors: the archive, where it has embeddings in place of images.
    """

    plan: Plan
    scenes: Scenes
    vectors: VectorSource | None


def update(writer: IndexWriter, config: IndexConfig, work: Work, report: RunReport) -> None:
    """Describe what the plan lists, publish it, compact if asked for, and measure the no-match threshold."""
    plan, index = work.plan, writer.index
    report.begin("start Ray")
    with joined(config.address, config.needs, config.verbose):
        if config.refit is not None:
            from jobs.indexing.refitting import refit  # noqa: PLC0415 -- brings torch

            report.begin("take embeddings")
            plan = refit(writer, config.refit, plan)
            work = work._replace(plan=plan)
        report.begin("describe")
        _describe(writer, config, work, report)
        _name_failed_files(report)
        report.begin("publish")
        before = index.table_version("features")
        report.drift, changed = publish(writer, plan, index.bundle_settings().classes, config)
        if report.drift is not None and report.drift.suggests_refit:
            log.warning("%d new images: %s; fit it again by --refit-pca", report.drift.new.count, report.drift.summary)
        if config.compact:
            report.begin("compact")
            compact(writer)
        report.begin("measure the no-match threshold")
        measure_no_match_threshold(writer, before, changed)


def _describe(writer: IndexWriter, config: IndexConfig, work: Work, report: RunReport) -> None:
    plan, scenes, vectors = work
    total = len(plan.to_describe) + len(scenes.unreadable)
    report.progress = Progress(total, config.actors or actor_count(config.num_gpus))
    # The failure rate also counts images that earlier runs described but did not publish. Otherwise, each run that the
    # store's refusals end would leave fewer good images to weigh against the refused ones.
    committer = Committer(writer, config, report.progress, max(total, plan.new + plan.changed))
    with report.progress.meter:
        for written in scenes.failures:
            committer.take(written)
        if len(plan.to_describe):
            found = (
                describe_files(config, plan.to_describe)
                if vectors is None
                else take_vectors(vectors, config, plan.to_describe)
            )
            for written in rows_of(found):
                committer.take(written)
    committer.finish(plan.stale_failures)
    report.problem = committer.problem


def _name_failed_files(report: RunReport) -> None:
    """Log the first files that failed; all are in the run's report and in the table `failures`."""
    failed = report.progress.failed_files if report.progress else []
    for file in failed[:NAMED_FILES]:
        log.warning("failed (%s): %s", file[schemas.KIND], file[schemas.MESSAGE])
    if len(failed) > NAMED_FILES:
        log.warning("and %d more; all are in the report of this run, in runs/ of the index", len(failed) - NAMED_FILES)
