"""Guard against a wrong archive: end a run if more published images are gone than `--max-gone-rate` allows."""

import logging
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from jobs.indexing.options import GUARDED_FROM, ROUNDING, IndexConfig
from jobs.indexing.run_report import by_folder
from rsir_core import schemas
from rsir_core.archive.listing import root_of
from rsir_core.errors import ArchiveError
from rsir_core.index.diff import Plan
from rsir_core.index.index import Index

NAMED_FOLDERS: Final = 5  # largest folders, named in the message

log = logging.getLogger(__name__)


def check_gone(index: Index, plan: Plan, config: IndexConfig) -> str | None:
    """End a run, or warn in a dry run, if more published images are gone than `--max-gone-rate` allows.

    Tiles of a scene that is still listed do not count as gone: it may be tiled differently, or unreadable this time.

    Returns:
        The warning of a dry run; None if there is none.

    Raises:
        ArchiveError: too many images are gone; the message gives folders, counts and the option that allows it.
    """
    published, most = plan.published, config.max_gone_rate * plan.published + ROUNDING
    if published < GUARDED_FROM or len(plan.gone) <= most:  # avoids reading all ids of the listing
        return None
    ids = _of_unlisted_files(plan)
    gone = len(ids)
    if gone <= most:
        return None
    folders = by_folder(ids)
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
    return message


def _of_unlisted_files(plan: Plan) -> pa.Array:
    """Drop ids of tiles whose scene is still listed, whole or by other tiles, from the ids that are gone."""
    files = _files_of(plan.gone)
    listed = _files_of(plan.listing[schemas.IMAGE_ID])
    still = listed.filter(pc.is_in(listed, files.unique())).unique()
    return plan.gone.filter(pc.invert(pc.is_in(files, still)))


def _files_of(image_ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Map each image to its file: a tile to its scene, others to themselves."""
    return pc.replace_substring_regex(image_ids, pattern="#(xywh|cell)=[0-9,]*$", replacement="")


def _place(index: Index) -> str:
    """Find the root URI of the published images; for a catalogue, the URI of one image."""
    first = index.first_row(next(file for file in index.feature_files() if file.row_count))
    uri, image_id = (str(first[name][0]) for name in (schemas.URI, schemas.IMAGE_ID))
    root = root_of(uri, image_id)
    return uri if root is None else f"{root.before}{root.chained and '::' + root.chained}"


def _rate(gone: int, published: int) -> str:
    """Format the smallest rate, in hundredths, that allows so many to be gone."""
    return f"{-(-100 * gone // published) / 100:g}"
