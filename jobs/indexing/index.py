"""Index an archive, or bring its index up to date: list, diff, describe, commit, fit, project, publish."""

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.command import Summary
from jobs.indexing.frozen import bundle_for
from jobs.indexing.gone import check_gone
from jobs.indexing.listed import list_archive
from jobs.indexing.options import IndexConfig
from jobs.indexing.published import is_published
from jobs.indexing.restoring import list_versions, restore_version
from jobs.indexing.run_report import RunReport, by_folder, counts_of
from jobs.indexing.scenes import Scenes, cut_scenes
from jobs.indexing.vectors import VectorSource, list_source, open_archive
from rsir_core import schemas
from rsir_core.errors import ConfigError
from rsir_core.index.diff import Plan, anti, listing_table, make_plan
from rsir_core.index.index import Index
from rsir_core.index.lease import Lease
from rsir_core.index.stored_objects import count_objects
from rsir_core.index.uncommitted import commit_rows, uncommitted_rows
from rsir_core.index.vacuum import vacuum
from rsir_core.index.writer import IndexWriter
from rsir_core.models.bundle import read_settings

if TYPE_CHECKING:
    from jobs.indexing.progress import Progress

log = logging.getLogger("jobs.index")


def index_archive(config: IndexConfig) -> Summary:
    """Run the job once."""
    if config.versions:
        return list_versions(config)
    if config.restore is not None:
        return restore_version(config, config.restore)
    began = time.monotonic()
    index = Index(config.index)
    if config.dry_run:
        archive = open_archive(config)
        with bundle_for(index, config, archive and archive.dimensions) as models:
            _check_averaging(config, models)
            bundle = index.check_bundle(models, config.ways)
        plan, scenes = _plan(index, config, None, list_source(archive))
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
    index, archive = writer.index, open_archive(config)
    with bundle_for(index, config, archive and archive.dimensions) as models:
        _check_averaging(config, models)
        bundle = index.bundle_settings(writer.adopt_bundle(models, config.ways), check_weights=True)
    if not bundle.classes:
        log.warning("the bundle has no classes: images are ranked by the Euclidean distance alone")
    if bundle.detector is None and bundle.has_backbone:
        log.warning("the bundle has no detector: every key region is centred on its image")
    report.begin("list and compare")
    vectors = list_source(archive)
    plan, scenes = _plan(index, config, writer, vectors)
    report.planned(plan)
    check_gone(index, plan, config)
    plan = _without_uncommitted(index, plan, bundle.fingerprint, writer)
    lacks = len(plan.to_describe) or scenes.failures or len(plan.stale_failures)
    if lacks or config.compact or not is_published(index, plan, config):
        from jobs.indexing.updating import Work, update  # noqa: PLC0415 -- brings Ray and torch

        update(writer, config, Work(plan, scenes, vectors), report)
    if config.vacuum:
        report.begin("vacuum")
        log.info("%d files removed that no version of %g days refers to", vacuum(writer, config.keep_days),
                 config.keep_days)  # fmt: skip
    return plan, scenes


def _check_averaging(config: IndexConfig, models: str) -> None:
    """Refuse to average the key regions alone; where no option says how many regions there are, the bundle does."""
    if config.average_neighbours and (regions := config.regions or read_settings(models).regions) > 1:
        raise ConfigError(
            f"--average-neighbours {config.average_neighbours}: the index has up to {regions} regions of each image, "
            "whose objects are not averaged; leave it out, or make a new index with --regions 1"
        )


def _plan(
    index: Index, config: IndexConfig, writer: IndexWriter | None, vectors: VectorSource | None
) -> tuple[Plan, Scenes]:
    """List the archive, cut its scenes and compare the listing with the index.

    Args:
        index: the index.
        config: the job's options.
        writer: the run's writer; None in a dry run, which writes nothing.
        vectors: an archive of embeddings; None: of images.
    """
    listing = listing_table(list_archive(config)) if vectors is None else vectors.listed.listing
    scenes = cut_scenes(index, writer, listing, config)
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


def _summary(index: Index, plan: Plan, scenes: Scenes, progress: "Progress | None", began: float) -> Summary:
    version = index.table_version("features")
    return {
        **counts_of(plan),
        "described": progress.described if progress else 0,
        "failed": progress.failed if progress else 0,
        "skipped": scenes.skipped,
        "rows": sum(file.row_count for file in index.feature_files()) if version else 0,
        "objects": count_objects(index, index.feature_files()) if version and _has_regions(index) else 0,
        "seconds": round(time.monotonic() - began, 1),
        "images_per_second": round(progress.rate, 1) if progress else 0.0,
        "version": version,
    }


def _has_regions(index: Index) -> bool:
    """Tell whether further regions of the images are rows of their own."""
    return index.bundle_settings().regions > 1
