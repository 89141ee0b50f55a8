"""Images in which an object is a small part: mosaics of labelled images, one of which shows the object."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from rsir_core.arrays import Pixels
from rsir_core.models.regions import Box

# Classes of UC Merced that are named after one thing on the ground; a detector of NWPU VHR-10 knows all but overpasses,
# and calls those bridges.
OBJECTS: Final = ("airplane", "baseballdiamond", "harbor", "overpass", "storagetanks", "tenniscourt")
BACKGROUNDS: Final = ("agricultural", "beach", "chaparral", "forest", "river")  # without any of these things
TILE: Final = 256  # pixels of a side


class ObjectScene(NamedTuple):
    """Hold an image, the class to find it by, and the objects of this class, the largest first; none: not known."""

    pixels: Pixels
    label: str
    boxes: list[Box]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_pixels(uri: str) -> Pixels:
    """Read an image."""
    return np.asarray(Image.open(uri).convert("RGB"))


def read_tile(uri: str) -> Pixels:
    """Read an image at the size of a tile, TILE × TILE."""
    return np.asarray(Image.open(uri).convert("RGB").resize((TILE, TILE), Image.Resampling.BILINEAR))


def make_mosaics(
    objects: Mapping[str, Sequence[str]], backgrounds: Sequence[str], side: int, per_class: int, seed: int
) -> list[ObjectScene]:
    """Make mosaics of side × side tiles: at a random place one that shows an object, the others of backgrounds.

    Args:
        objects: images by the class of their object; each is used once at most.
        backgrounds: images, each of which may be in several mosaics, but once in each.
        side: tiles of a row and of a column.
        per_class: mosaics of each class of objects, fewer where there are fewer images.
        seed: of all choices.
    """
    rng, scenes = np.random.default_rng((seed, side)), []
    for label, uris in objects.items():
        for chosen in rng.permutation(len(uris))[:per_class]:
            around = [backgrounds[i] for i in rng.permutation(len(backgrounds))[: side**2 - 1]]
            place = int(rng.integers(side**2))
            tiles = [read_tile(uri) for uri in (*around[:place], uris[chosen], *around[place:])]
            rows = [np.concatenate(tiles[i : i + side], axis=1) for i in range(0, side**2, side)]
            y, x = (TILE * v for v in divmod(place, side))
            scenes.append(ObjectScene(np.concatenate(rows), label, [Box(x, y, x + TILE, y + TILE)]))
    return scenes
