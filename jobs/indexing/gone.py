"""Whether so many published images are gone that the archive is probably not the one that the index was made of."""

import logging
from typing import Final

from jobs.config import GUARDED_FROM, IndexConfig
from jobs.indexing.run_report import by_folder
from rsir_core import rows
from rsir_core.archive import root_of
from rsir_core.errors import ArchiveError
from rsir_core.plan import Plan
from rsir_core.table import Index

NAMED_FOLDERS: Final = 5  # the largest, in the message

log = logging.getLogger(__name__)


def check_gone(index: Index, plan: Plan, config: IndexConfig) -> None:
    """End a run, or warn in a dry run, where more published images are gone than `--max-gone-rate` allows.

    Raises:
        ArchiveError: so many are gone; the message says how many of which folders, and what allows it.
    """
    gone, published = len(plan.gone), plan.published
    if published < GUARDED_FROM or gone <= config.max_gone_rate * published:
        return
    folders = by_folder(plan.gone)
    named = ", ".join(f"{found['count']} of {name}" for name, found in list(folders.items())[:NAMED_FOLDERS])
    more = ", …" if len(folders) > NAMED_FOLDERS else ""
    shared = "it shares no image with the published ones" if gone == published else f"it has {published - gone} of them"
    message = (
        f"{gone} of {published} published images are not in --archive {config.archive} ({named}{more}), more than "
        f"--max-gone-rate {config.max_gone_rate:g} allows: {shared}, which lie in {_place(index)}. Nothing was "
        "published. Give the archive that the index was made of, or, to remove them, "
        f"--max-gone-rate {_rate(gone, published)}"
    )
    if not config.dry_run:
        raise ArchiveError(message)
    log.warning("a real run would end here: %s", message)


def _place(index: Index) -> str:
    """The URI that published images lie below; of a catalogue, that of one of them."""
    first = index.first_row(next(file for file in index.feature_files() if file.row_count))
    uri, image_id = (str(first[name][0]) for name in (rows.URI, rows.IMAGE_ID))
    root = root_of(uri, image_id)
    return uri if root is None else f"{root.before}{root.chained and '::' + root.chained}"


def _rate(gone: int, published: int) -> str:
    """The smallest rate of two digits that allows it."""
    return f"{-(-100 * gone // published) / 100:g}"
