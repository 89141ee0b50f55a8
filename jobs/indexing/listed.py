"""List an archive of any kind, as the options say."""

from collections.abc import Iterator

from jobs.indexing.options import IndexConfig
from rsir_core.archive.bands import list_band_files
from rsir_core.archive.listing import ImageFile, list_images
from rsir_core.archive.stac import list_items
from rsir_core.extras import require


def list_archive(config: IndexConfig) -> Iterator[ImageFile]:
    """Yield the images of the archive as they are found: files, composites of files, or what a catalogue names.

    Raises:
        ArchiveError: see `list_images`, `list_band_files` and `list_items`.
        ConfigError: the signer's package is not installed.
    """
    if config.sign is not None:
        require("planetary_computer")  # the package of the only signer
    wanted = config.item_selection
    if wanted is not None:
        return list_items(config.archive, wanted)
    if config.band_files is not None and config.band_choice is not None:
        return list_band_files(config.archive, config.band_files, config.band_choice)
    return list_images(config.archive)
