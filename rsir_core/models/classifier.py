"""The classifier: pooled embedding and class logits of key regions in one forward pass (paper section 2.2)."""

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from rsir_core.arrays import Pixels
from rsir_core.errors import WeightsError
from rsir_core.models.backbones import (
    PROGRAM,
    TIMM,
    TORCHSCRIPT,
    Program,
    build_backbone,
    normalisation,
    shipped_weights,
)
from rsir_core.models.fusion import fold_batch_norms
from rsir_core.models.precision import describing_type
from rsir_core.models.settings import RANDOM, ClassifierSettings
from rsir_core.models.transfer import to_device
from rsir_core.storage.filesystem import file_system

State = Mapping[str, Tensor]

# Images per forward pass on a CPU. With more, activations exceed 32 MB and are mapped and unmapped at every layer; for
# 32 images of 224 pixels these page faults cost more than efficientnet_lite0 itself (32 against 27 ms each).
CPU_IMAGES = 4
RESIZED_PIXELS = 1 << 26  # resized at once; on GPUs they are floats then, 0.8 GB


class BackboneWithHead(nn.Module):
    """Join a backbone, up to its pooled embedding, and a linear layer to the classes."""

    def __init__(self, backbone: nn.Module, dimensions: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(dimensions, max(classes, 1))
        if not classes:  # made from one row, since PyTorch warns of drawing initial values for none
            self.head.weight, self.head.bias = (nn.Parameter(p[:0].detach()) for p in self.head.parameters())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the embedding N×D and the logits N×C of normalised images N×3×S×S."""
        embedding = self.backbone(x)
        return embedding, self.head(embedding)


def settings_for(backbone: str, classes: Sequence[str], image_size: int) -> ClassifierSettings:
    """Build settings with the normalisation of the backbone's ImageNet weights."""
    return ClassifierSettings(backbone, tuple(classes), image_size, *normalisation(backbone))


def build_classifier(backbone: str, classes: int) -> BackboneWithHead:
    """Build an untrained classifier; the embedding is the input of the backbone's last linear layer.

    That is pool5 (2048) for resnet50, fc7 (4096) for vgg16 and the pooled map (1280) for efficientnet_lite0 to 2.

    Args:
        backbone: `efficientnet_lite0` to `2`, any of `torchvision.models.list_models(module=torchvision.models)`, or
            `timm/` and the name of one of timm's models.
        classes: number of classes C; 0: it only embeds.

    Raises:
        WeightsError: an unknown backbone, or one without a linear layer at its end.
        ConfigError: timm is asked for, and is not installed.
    """
    return BackboneWithHead(*build_backbone(backbone), classes)


def check_sides(backbone: str, sides: Iterable[int]) -> None:
    """Check that a backbone takes images of these sides, in pixels; uses meta tensors, so nothing is computed.

    Raises:
        WeightsError: it does not take one of them.
    """
    with torch.device("meta"):
        model = build_classifier(backbone, 2).eval()
        for side in sides:
            try:
                model(torch.empty(1, 3, side, side))
            except Exception as error:  # each architecture raises its own
                raise WeightsError(
                    f"backbone {backbone} does not take images of {side}×{side} pixels ({error}); pass --image-size "
                    "N that it takes"
                ) from error


def load_start_weights(model: BackboneWithHead, backbone: str, weights: str | None) -> str:
    """Fill the backbone (not the head) with ImageNet or given weights; returns where they came from.

    Args:
        model: made by `build_classifier(backbone, ...)`; changed in place.
        backbone: its name.
        weights: URI of a state dict (.safetensors, or .pth without pickled code) of the same architecture with any
            head, `random` to keep the initial values, or None for the weights that the backbone ships.

    Raises:
        WeightsError: the file cannot be read or does not fit, or the backbone's own weights cannot be downloaded.
    """
    if weights == RANDOM:
        return RANDOM
    if weights is not None:
        _fill(model.backbone, _read_state(weights), weights)
        return weights
    shipped, source = shipped_weights(backbone)
    _fill(model.backbone, shipped, source)
    return source


def start_weights(backbone: str, weights: str | None) -> State | None:
    """Load the tensors that training starts from, see `load_start_weights`; None: random initial values."""
    model = build_classifier(backbone, 1)
    return None if load_start_weights(model, backbone, weights) == RANDOM else model.backbone.state_dict()


def _read_state(uri: str) -> dict[str, Tensor]:
    try:
        fs, path = file_system(uri)
        data = fs.cat_file(path)
        state = load(data) if uri.endswith(".safetensors") else torch.load(io.BytesIO(data), "cpu", weights_only=True)
    except Exception as error:  # stores, safetensors, pickle, zip and torch each raise their own
        raise WeightsError(f"--weights {uri}: not a readable state dict: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"--weights {uri}: expected a state dict (name to tensor)")
    return {k.removeprefix("module.").removeprefix("backbone."): v for k, v in state.items()}


def _fill(module: nn.Module, state: State, source: str) -> None:
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [k for k, v in wanted.items() if k in state and state[k].shape != v.shape]
    if missing or wrong:
        raise WeightsError(
            f"weights from {source} do not fit: {len(missing)} of {len(wanted)} tensors are missing "
            f"({', '.join(missing[:3])} …), {len(wrong)} have another shape; pass weights of the same architecture"
        )
    module.load_state_dict({k: state[k] for k in wanted if k in state}, strict=False)


def to_input(
    images: Sequence[Pixels], settings: ClassifierSettings, device: torch.device, size: int | None = None
) -> Tensor:
    """Resize and normalise images of any sizes to N×3×S×S float32, channels last; S is `size` or the settings' size."""
    side = settings.image_size if size is None else size
    shape = (len(images), 3, side, side)
    batch = torch.empty(shape, dtype=torch.uint8, device=device, memory_format=torch.channels_last)
    for rows in _by_shape(images):
        same = to_device([images[i] for i in rows], device).permute(0, 3, 1, 2)
        batch[rows if len(rows) < len(images) else slice(None)] = _resized(same, side)  # a GPU waits for a list
    offset, factor = _normalisation(settings.mean, settings.std, device)
    normalised = torch.empty_like(batch, dtype=torch.float32)
    return torch.addcmul(offset, batch, factor, out=normalised)  # one pass over memory, not four


@lru_cache(maxsize=8)  # a GPU waits whenever numbers are copied to it
@torch.inference_mode(mode=False)  # trainings use them too
def _normalisation(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Compute what to add to a byte times what to normalise it, 3×1×1 each."""
    means, stds = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))
    return -means / stds, 1 / (255 * stds)


def _resized(pixels: Tensor, side: int) -> Tensor:
    """Resize N×3×H×W uint8 to N×3×S×S, rounded to whole grey levels."""
    on_cpu = pixels.device.type == "cpu"
    return resize_bytes(pixels, (side, side)) if on_cpu else resize_floats(pixels, (side, side))


def resize_bytes(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize N×3×H×W uint8 to a height and width, in whole grey levels; the fastest way on CPUs."""
    return functional.interpolate(pixels, size, mode="bilinear", antialias=True)


def resize_floats(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize on GPUs, which have no kernel for bytes; a few grey levels differ by one from `resize_bytes`."""
    return functional.interpolate(pixels.float(), size, mode="bilinear", antialias=True).round_().to(torch.uint8)


def _by_shape(images: Sequence[Pixels]) -> Iterator[list[int]]:
    """Group positions of images of one shape, at most `RESIZED_PIXELS` at a time."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, image in enumerate(images):
        groups[image.shape].append(i)
    for (height, width, _), places in groups.items():
        size = max(1, RESIZED_PIXELS // (height * width))
        yield from (places[start : start + size] for start in range(0, len(places), size))


def _loaded(settings: ClassifierSettings, state: State) -> BackboneWithHead:
    """Build a classifier for inference from a bundle's tensors."""
    if settings.backbone == TORCHSCRIPT:
        program = Program(state[PROGRAM].numpy().tobytes(), "the bundle's program")
        model = BackboneWithHead(program, state["head.weight"].shape[1], len(settings.classes))
        _fill(model.head, {k.removeprefix("head."): v for k, v in state.items() if k != PROGRAM}, "the bundle")
    else:
        model = build_classifier(settings.backbone, len(settings.classes))
        _fill(model, state, "the bundle")
    if settings.backbone == TORCHSCRIPT or settings.backbone.startswith(TIMM):  # in any order, see `fold_batch_norms`
        return model.eval().requires_grad_(False)
    return fold_batch_norms(model)


class Classifier:
    """Run a trained classifier on one device.

    Args:
        settings: those it was trained with.
        state: tensors of `build_classifier(settings.backbone, len(settings.classes))`.
        device: `cpu`, `cuda`, `cuda:1`, …
        dtype: of the backbone's weights and activations; None: see `describing_type`. The head is of float32.

    Raises:
        WeightsError: the tensors do not fit the settings.
    """

    def __init__(
        self, settings: ClassifierSettings, state: State, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self._dtype = dtype or describing_type(self.device)
        model = _loaded(settings, state)
        self._model = model.to(self.device).to(memory_format=torch.channels_last)
        self._model.backbone.to(self._dtype)

    @property
    def dimensions(self) -> int:
        """D of the embedding."""
        return int(self._model.head.in_features)

    @torch.inference_mode()
    def embed(self, images: Sequence[Pixels], views: int | None = None) -> tuple[Tensor, Tensor]:
        """Compute embeddings (N, D) and logits (N, C) of images of any sizes, float32 on the CPU.

        Both are means over rotations, since imagery from above has no upright; each rotation costs a forward pass.
        Logits are linear in the embedding, so the mean logits are those of the mean embedding.

        Args:
            images: H×W×3 each.
            views: number of rotations, one of `VIEWS`; None: the settings'.
        """
        if not images:
            return torch.empty(0, self.dimensions), torch.empty(0, len(self.settings.classes))
        size = CPU_IMAGES if self.device.type == "cpu" else len(images)
        parts = [
            self._mean(to_input(images[i : i + size], self.settings, self.device), views or self.settings.views)
            for i in range(0, len(images), size)
        ]
        embedding, logits = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        return embedding, logits

    def _mean(self, x: Tensor, views: int) -> tuple[Tensor, Tensor]:
        rotated = list(_rotations(x, views))
        if self.device.type != "cpu":
            rotated = [torch.cat(rotated)]  # one pass, of which a GPU has half the kernels to start
        found = [self._forward(batch) for batch in rotated]
        columns = (torch.cat(column).unflatten(0, (-1, len(x))) for column in zip(*found, strict=True))
        embedding, logits = (column.mean(dim=0) for column in columns)  # views × n × …
        return embedding, logits

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embeddings and logits, float32 both, of normalised images N×3×S×S."""
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            embedding = self._model.backbone(x)
        return embedding.float(), self._model.head(embedding.float())


def _rotations(x: Tensor, count: int) -> Iterator[Tensor]:
    """Rotate N×3×S×S by 0°, 180°, 90° and 270°, the first `count` of these; mirroring as well would bring nothing."""
    for quarters in (0, 2, 1, 3)[:count]:
        yield x.rot90(quarters, (2, 3)).contiguous(memory_format=torch.channels_last)
