"""The arms of an evaluation: how images are described, what of that is compared, and by which distance.

Arms are named in sets, each of which is a table or figure of the paper, or one region by every distance. An arm that
belongs to several sets is scored once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from rsir_core.errors import ConfigError
from rsir_core.models.frozen import FROZEN
from rsir_core.models.regions import VIEWS, ObjectRule
from rsir_core.search.ranking_options import DistanceName

ArmSet = Literal[
    "key_region", "whole_image", "table3", "table4", "table5", "figure4", "figure5", "objects", "views", "frozen"
]
ARM_SETS: Final[tuple[ArmSet, ...]] = get_args(ArmSet)

TAUS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of table 3
CentreRule = ObjectRule | Literal["image"]  # `image`: no object, the image's own centre
CENTRES: Final[tuple[CentreRule, ...]] = (*get_args(ObjectRule), "image")
FIXED: Final[tuple[DistanceName, ...]] = ("plain", "weighted")  # the same for all queries
DIMENSIONS: Final = (8, 16, 32, 64, 128, 256)  # of figure 4


class Variation(NamedTuple):
    """Vary how images are described; only `jobs/evaluating/describing.py` must know of a further field."""

    tau: float  # key region's share of height and width; 1: the whole image
    backbone: str
    peer: str | None = None  # URI of another bundle, with `{seed}` where seeds have their own; None: the index's
    centre: CentreRule | None = None  # which object the key region is centred on; None: that of the index's rows
    views: int | None = None  # of each key region that are averaged; None: as the bundle says

    @property
    def region(self) -> str:
        """Name the described part of an image."""
        return "whole_image" if self.tau == 1 else "key_region"

    def __str__(self) -> str:
        """Describe the variation in words, as for a log."""
        parts = ["whole image" if self.tau == 1 else f"key region {self.tau:g}"]
        parts += [] if self.peer is None else [f"{self.backbone} of {self.peer}"]
        parts += [] if self.centre is None else [f"centred by {self.centre}"]
        parts += [] if self.views is None else [f"views: {self.views}"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Arm:
    """Define one way to rank."""

    variation: Variation
    components: int | None  # of the PCA; None: the embeddings at unit length
    distance: DistanceName  # weighted: paper eq. 8; plain: the distance alone; auto: of stored features only

    def __str__(self) -> str:
        """Describe the arm in words, as for a log."""
        return f"{self.variation}, {self.distance} distance"


class IndexSetup(NamedTuple):
    """Define what the arms of an index start from.

    Attributes:
        variation: as its rows are stored.
        components: dimensions of its features.
        most: components that can be fitted to its embeddings.
        peers: of the other bundles.
        detector: whether objects are known at all.
    """

    variation: Variation
    components: int
    most: int
    peers: tuple[Variation, ...] = ()
    detector: bool = False

    @property
    def main(self) -> Arm:
        """The method itself: the stored features by the weighted distance."""
        return Arm(self.variation, self.components, "weighted")

    @property
    def default(self) -> Arm:
        """The stored features in the order that queries get unless they ask for another."""
        return Arm(self.variation, self.components, "auto")

    @property
    def whole(self) -> Variation:
        """The whole image, by the index's own bundle."""
        return self.variation._replace(tau=1.0)


def parse_arms(names: Collection[str]) -> list[ArmSet]:
    """Check the names of sets, and return each once, in the order of `ARM_SETS`.

    Raises:
        ConfigError: an unknown one.
    """
    if unknown := sorted(set(names) - set(ARM_SETS)):
        raise ConfigError(f"--arms {','.join(names)}: {unknown[0]!r} is none; known are {', '.join(ARM_SETS)}")
    return [name for name in ARM_SETS if name in names]


def plan_arms(sets: Sequence[ArmSet], own: IndexSetup) -> list[Arm]:
    """List the arms of several sets, each once."""
    return list(dict.fromkeys(arm for name in sets for arm in _arms(name, own)))


def main_arm(arms: Sequence[Arm], own: IndexSetup) -> Arm:
    """Choose the method itself; else the first by weighted features among the arms that were asked for, or the last."""
    if own.main in arms:
        return own.main
    return next((arm for arm in arms if arm.components is not None and arm.distance == "weighted"), arms[-1])


def _arms(name: ArmSet, own: IndexSetup) -> list[Arm]:
    K = own.components
    match name:
        case "key_region" | "whole_image":
            variation = own.variation if name == "key_region" else own.whole
            arms = [Arm(variation, k, distance) for k in (None, K) for distance in FIXED]
            return [*arms, *([own.default] if name == "key_region" else ())]
        case "table3" | "objects" | "views":
            ways = {"table3": _cut, "objects": _centred, "views": _turned}[name](own)
            return [arm for v in ways for arm in (Arm(v, None, "plain"), Arm(v, K, "weighted"))]
        case "table4" | "figure5":  # Org_pic's average in table 4 is that of table 3 at 1.0: plain, all dimensions
            whole = [Arm(own.whole, None, "plain"), Arm(own.whole, K, "weighted")]
            return [*(whole if name == "table4" else whole[:1]), own.main]
        case "table5":
            ours = [Arm(own.variation, None, "plain"), *(Arm(own.variation, K, distance) for distance in FIXED)]
            return [*ours, *(Arm(peer, None, "weighted") for peer in own.peers)]
        case "frozen":  # its head was never trained, so there is nothing to weight with
            frozen = own.whole._replace(peer=FROZEN)
            return [Arm(frozen, k, "plain") for k in (None, K)]
        case "figure4":
            sizes = [k for k in sorted({*DIMENSIONS, K}) if k <= own.most]
            return [Arm(own.variation, k, distance) for k in (*sizes, None) for distance in FIXED]


def _cut(own: IndexSetup) -> list[Variation]:
    """Vary the size of the key region."""
    return [own.variation._replace(tau=tau) for tau in sorted({*TAUS, own.variation.tau})]


def _centred(own: IndexSetup) -> list[Variation]:
    """Vary the rule for the representative object; all are described again, for PCAs fitted to the same images."""
    return [own.variation._replace(centre=centre) for centre in CENTRES if own.detector or centre == "image"]


def _turned(own: IndexSetup) -> list[Variation]:
    """Vary the number of views; all are described again for the same reason."""
    return [own.variation._replace(views=views) for views in VIEWS]
