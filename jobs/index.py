"""Index an archive, or bring its index up to date: list, diff, describe, commit, fit, project, publish."""

import logging
import sys
import time
from dataclasses import replace
from typing import Final

from jobs.command import Summary, run
from jobs.indexing.committing import Committer
from jobs.indexing.compacting import compact
from jobs.indexing.describing import describe_files
from jobs.indexing.gone import check_gone
from jobs.indexing.no_match import measure_no_match_threshold
from jobs.indexing.options import IndexConfig
from jobs.indexing.progress import Progress
from jobs.indexing.publishing import is_published, publish
from jobs.indexing.restoring import list_versions, restore_version
from jobs.indexing.run_report import RunReport, by_folder, counts_of
from jobs.indexing.surveying import Scenes, cut_scenes
from jobs.pipeline.cluster import joined, rows_of
from jobs.pipeline.stage import actor_count
from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.archive.stac import list_items
from rsir_core.index.diff import Plan, anti, listing_table, make_plan
from rsir_core.index.index import Index
from rsir_core.index.lease import Lease
from rsir_core.index.uncommitted import commit_rows, uncommitted_rows
from rsir_core.index.vacuum import vacuum
from rsir_core.index.writer import IndexWriter

NAMED_FILES: Final = 10  # failed files named on the terminal

log = logging.getLogger(__name__)


def index_archive(config: IndexConfig) -> Summary:
    """Run the job once."""
    if config.versions:
        return list_versions(config)
    if config.restore is not None:
        return restore_version(config, config.restore)
    began = time.monotonic()
    index = Index(config.index)
    if config.dry_run:
        bundle = index.check_bundle(config.models, config.views)
        plan, scenes = _plan(index, config, None)
        would_end = check_gone(index, plan, config)
        plan = _without_uncommitted(index, plan, bundle, None)
        folders = {"to_describe": by_folder(plan.to_describe[schemas.IMAGE_ID]), "gone_from": by_folder(plan.gone)}
        for what, found in folders.items():
            for folder, images in found.items():
                log.info("%s: %d in %s, for example %s", what, images["count"], folder, images["example"])
        return {**_summary(index, plan, scenes, None, began), **folders, "dry_run": True, "would_end": would_end}
    with Lease.take(index.uri) as lease, RunReport(index, config) as report:
        plan, scenes = bring_up_to_date(IndexWriter(index, lease), config, report)
        return {**_summary(index, plan, scenes, report.progress, began), "problem": report.problem}


def bring_up_to_date(writer: IndexWriter, config: IndexConfig, report: RunReport) -> tuple[Plan, Scenes]:
    """Make the index match the archive, and do what else the options ask for; returns the plan and the scenes."""
    index = writer.index
    bundle = index.bundle(writer.adopt_bundle(config.models, config.views))
    if bundle.detector is None:
        log.warning("the bundle has no detector: every key region is centred on its image")
    report.begin("list and compare")
    plan, scenes = _plan(index, config, writer)
    report.planned(plan)
    check_gone(index, plan, config)
    plan = _without_uncommitted(index, plan, bundle.fingerprint, writer)
    lacks = len(plan.to_describe) or scenes.failures or len(plan.stale_failures)
    if lacks or config.compact or not is_published(index, plan, config):
        report.begin("start Ray")
        with joined(config.address, config.needs):
            report.begin("describe")
            _describe(writer, config, (plan, scenes), report)
            _name_failed_files(report)
            report.begin("publish")
            before = index.table_version("features")
            report.drift, changed = publish(writer, plan, bundle.classes, config)
            if report.drift is not None and report.drift.suggests_refit:
                log.warning(
                    "%d new images: %s; fit it again by --refit-pca", report.drift.new.count, report.drift.summary
                )
            if config.compact:
                report.begin("compact")
                compact(writer)
            report.begin("measure the no-match threshold")
            measure_no_match_threshold(writer, before, changed)
    if config.vacuum:
        report.begin("vacuum")
        log.info("%d files removed that no version of %g days refers to", vacuum(writer, config.keep_days),
                 config.keep_days)  # fmt: skip
    return plan, scenes


def _plan(index: Index, config: IndexConfig, writer: IndexWriter | None) -> tuple[Plan, Scenes]:
    """List the archive, cut its scenes and compare the listing with the index.

    Args:
        index: the index.
        config: the job's options.
        writer: the run's writer; None in a dry run, which writes nothing.
    """
    wanted = config.item_selection
    files = list_images(config.archive) if wanted is None else list_items(config.archive, wanted)
    scenes = cut_scenes(index, writer, listing_table(files), config)
    plan = make_plan(index, scenes.listing, config.retry_failed)
    plan = replace(plan, to_describe=anti(plan.to_describe, scenes.unreadable))
    log.info("%d listed: %d new, %d changed, %d gone; %d to describe", *counts_of(plan).values(), len(plan.to_describe))
    if plan.left_out:
        log.warning(
            "%d files that failed before are left out; --retry-failed tries them again, for example after a change of "
            "--tile, --bands, --max-pixels or --image-seconds", plan.left_out,
        )  # fmt: skip
    return plan, scenes


def _without_uncommitted(index: Index, plan: Plan, bundle: str, writer: IndexWriter | None) -> Plan:
    """Commit what an earlier run described but did not commit, and remove it from the plan.

    Args:
        index: the index.
        plan: this run's plan.
        bundle: fingerprint of its model bundle.
        writer: the run's writer; None in a dry run, which writes nothing.
    """
    uncommitted = uncommitted_rows(index, plan.to_describe, bundle)
    if len(uncommitted) == 0:
        return plan
    log.info("%d of these were described by a run that ended before it committed them", len(uncommitted))
    if writer is not None:
        commit_rows(writer, uncommitted)
    return replace(plan, to_describe=anti(plan.to_describe, uncommitted))


def _describe(writer: IndexWriter, config: IndexConfig, todo: tuple[Plan, Scenes], report: RunReport) -> None:
    plan, scenes = todo
    total = len(plan.to_describe) + len(scenes.unreadable)
    report.progress = Progress(total, config.actors or actor_count(config.num_gpus))
    # The failure rate also counts images that earlier runs described but did not publish. Otherwise, each run that the
    # store's refusals end would leave fewer good images to weigh against the refused ones.
    committer = Committer(writer, config, report.progress, max(total, plan.new + plan.changed))
    with report.progress.meter:
        for written in scenes.failures:
            committer.take(written)
        if len(plan.to_describe):
            for written in rows_of(describe_files(config, plan.to_describe)):
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


def _summary(index: Index, plan: Plan, scenes: Scenes, progress: Progress | None, began: float) -> Summary:
    version = index.table_version("features")
    return {
        **counts_of(plan),
        "described": progress.described if progress else 0,
        "failed": progress.failed if progress else 0,
        "skipped": scenes.skipped,
        "rows": sum(file.row_count for file in index.feature_files()) if version else 0,
        "seconds": round(time.monotonic() - began, 1),
        "images_per_second": round(progress.rate, 1) if progress else 0.0,
        "version": version,
    }


if __name__ == "__main__":
    sys.exit(run(index_archive, IndexConfig, "index"))
