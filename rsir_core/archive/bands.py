"""List images whose bands are files of their own, told apart by their names: `{scene}_B{band}.TIF`."""

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Final

from rsir_core.archive.kinds import BandChoice
from rsir_core.archive.listing import ImageFile, list_images, root_of
from rsir_core.errors import ArchiveError
from rsir_core.imagery.composite import Channel, Composite

_PARTS: Final = re.compile(r"(\{scene\}|\{band\}|\*)")

log = logging.getLogger(__name__)


def list_band_files(archive: str, pattern: str, wanted: BandChoice) -> Iterator[ImageFile]:
    """List the scenes of an archive as composites of their bands' files; other files are left out.

    A scene that lacks some of the bands is listed too, and fails when it is read.

    Args:
        archive: URI of a folder.
        pattern: of the files' paths below the archive. `{scene}` is what the bands of a scene have in common and may
            contain folders; `{band}` is the name of the band; `*` is anything within a name.
        wanted: the bands.

    Raises:
        ArchiveError: as `list_images`; or no file has such a name; or two files are the same band of a scene.
    """
    matches = _compiled(pattern)
    scenes: dict[str, dict[str, ImageFile]] = {}
    others = 0
    for file in list_images(archive):
        found = matches.fullmatch(file.image_id)
        if found is None or found["band"] not in wanted.names:
            others += 1
            example = file.image_id
            continue
        bands = scenes.setdefault(found["scene"], {})
        if (other := bands.setdefault(found["band"], file)) is not file:
            both = f"{other.image_id} and {file.image_id} are both band {found['band']} of scene {found['scene']}"
            raise ArchiveError(f"{both}; write more of the names into --band-files {pattern}")
    if not scenes:
        names = ", ".join(wanted.names)
        what = f"no file of a band {names} by --band-files {pattern}; it has, for example, {example}"
        raise ArchiveError(f"{archive} has {what}")
    if others:
        log.info("%d files are none of the bands and are left out, for example %s", others, example)
    yield from (_scene(bands, matches, wanted) for bands in scenes.values())


def composite_file(
    image_id: str, channels: Sequence[Channel], stored: Sequence[tuple[str, int]], wanted: BandChoice | None
) -> ImageFile:
    """Make the listed file of a composite, whose etag changes when that of any band does, or how they are read.

    Args:
        image_id: of the image.
        channels: its bands.
        stored: etag and size in bytes (-1: unknown) of each file.
        wanted: gives the stretch.

    Raises:
        ArchiveError: a file's name contains `{band}`.
    """
    if any("{band}" in channel.uri for channel in channels):
        raise ArchiveError(f"{image_id}: a file of it has {{band}} in its name, which no band may have; rename it")
    composite = Composite(tuple(channels), wanted and wanted.stretch)
    sizes = [size for _, size in stored]
    etag = "+".join(etag for etag, _ in stored) + composite.fragment
    return ImageFile(image_id, str(composite), etag, -1 if min(sizes) < 0 else sum(sizes))


def _compiled(pattern: str) -> re.Pattern[str]:
    groups = {"*": "[^/]*", "{band}": "(?P<band>[^/]+?)"}
    text = ""
    for part in _PARTS.split(pattern):
        if part == "{scene}":  # wherever else it stands, it is the same
            text += "(?P=scene)" if "(?P<scene>" in text else "(?P<scene>.+)"
        else:
            text += groups.get(part, re.escape(part))
    return re.compile(text)


def _scene(bands: dict[str, ImageFile], matches: re.Pattern[str], wanted: BandChoice) -> ImageFile:
    files = [bands.get(name) or _absent(name, next(iter(bands.values())), matches) for name in wanted.names]
    image_id = Composite(tuple(Channel(file.image_id) for file in files)).template
    return composite_file(
        image_id, [Channel(file.uri) for file in files], [(file.etag, file.size) for file in files], wanted
    )


def _absent(name: str, other: ImageFile, matches: re.Pattern[str]) -> ImageFile:
    """Name the file that a band would have beside another band's; it becomes a failure when it is read."""
    found = matches.fullmatch(other.image_id)
    start, end = found.span("band") if found else (0, 0)
    image_id = other.image_id[:start] + name + other.image_id[end:]
    root = root_of(other.uri, other.image_id)
    uri = f"{root.before}{image_id}{root.chained}" if root else image_id
    return ImageFile(image_id, uri, "missing", -1)
