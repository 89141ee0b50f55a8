"""List images whose bands are files of their own, told apart by their names: `{scene}_B{band}.TIF`."""

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Final

from rsir_core.archive.kinds import BandChoice
from rsir_core.archive.listing import ImageFile, list_images
from rsir_core.errors import ArchiveError
from rsir_core.imagery.composite import Channel, Composite, missing_channel

_PARTS: Final = re.compile(r"(\{scene\}|\{band\}|\*)")
_ABSENT: Final = ("missing", -1)  # etag and size

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
    yield from (_scene(bands, wanted) for bands in scenes.values())


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


def _scene(bands: dict[str, ImageFile], wanted: BandChoice) -> ImageFile:
    def of(part: str) -> list[Channel]:
        found = [bands.get(name) for name in wanted.names]
        return [
            missing_channel(name) if file is None else Channel(getattr(file, part))
            for name, file in zip(wanted.names, found, strict=True)
        ]

    files = [bands.get(name) for name in wanted.names]
    stored = [(file.etag, file.size) if file else _ABSENT for file in files]
    image_id = Composite(tuple(of("image_id"))).template
    return composite_file(image_id, of("uri"), stored, wanted)
