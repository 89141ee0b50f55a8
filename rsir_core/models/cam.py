"""Class activation maps: where in an image a classifier sees a class (Zhou et al. 2016, equation 2).

With global average pooling, a class's logit is the spatial mean of the last feature map times the class's weights;
without taking the mean, the product is a map of the class.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from rsir_core.arrays import Floats, Pixels
from rsir_core.errors import WeightsError
from rsir_core.models.classifier import CPU_IMAGES, Classifier, State, to_input
from rsir_core.models.regions import Box
from rsir_core.models.settings import ClassifierSettings


class ActivationMaps(Classifier):
    """Map where a trained classifier sees a class; its backbone must end in global average pooling.

    Raises:
        WeightsError: it does not, or the tensors do not fit the settings.
    """

    def __init__(self, settings: ClassifierSettings, state: State, device: str = "cpu") -> None:
        super().__init__(settings, state, device, torch.float32)  # by which the layer is recognised
        self._layer = self._last_map_layer()

    def maps(self, images: Sequence[Pixels], classes: Sequence[int]) -> Floats:
        """Compute the map of one class for each image, (N, h, w): its mean is the class's logit without the bias."""
        features = self._features(images)
        weights = self._model.head.weight[list(classes)].detach()  # N × D
        found: Floats = torch.einsum("ndhw,nd->nhw", features, weights).cpu().numpy()
        return found

    def logit_maps(self, images: Sequence[Pixels]) -> Floats:
        """Compute the maps of all classes, (N, C, h, w): the mean of each is the class's logit."""
        head = self._model.head
        found = torch.einsum("ndhw,cd->nchw", self._features(images), head.weight.detach())
        logits: Floats = (found + head.bias.detach()[:, None, None]).cpu().numpy()
        return logits

    @torch.inference_mode()
    def _features(self, images: Sequence[Pixels]) -> Tensor:
        """Compute the last feature maps, N × D × h × w."""
        x = to_input(images, self.settings, self.device)
        outputs: list[Tensor] = []
        with _forward_hooks([self._layer], lambda _, output: outputs.append(output)):
            for part in x.split(CPU_IMAGES if self.device.type == "cpu" else len(x)):
                self._model(part)
        return torch.cat(outputs).float()

    @torch.inference_mode()
    def _last_map_layer(self) -> nn.Module:
        """Find the last layer whose spatial mean is the embedding, by a forward pass over noise."""
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        outputs: list[tuple[nn.Module, Tensor]] = []
        layers = [layer for layer in self._model.backbone.modules() if layer is not self._model.backbone]
        with _forward_hooks(layers, lambda layer, output: outputs.append((layer, output))):
            embedding, _ = self._model(to_input([noise], self.settings, self.device))
        for layer, output in reversed(outputs):
            is_map = output.dim() == 4 and output.shape[1] == embedding.shape[1] and output[0, 0].numel() > 1
            if is_map and torch.allclose(output.mean(dim=(2, 3)), embedding, rtol=1e-3, atol=1e-4):
                return layer
        raise WeightsError(
            f"the backbone {self.settings.backbone} does not end in global average pooling, so its classes have no "
            "activation maps; fine-tune one that does (efficientnet_lite0, resnet50, mobilenet_v2)"
        )


@contextlib.contextmanager
def _forward_hooks(layers: Iterable[nn.Module], call: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    """Call a function with each output of these layers while the body runs."""

    def hook(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            call(layer, output)

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def boxes_of(activation: Floats, height: int, width: int, threshold: float, peak: float) -> list[Box]:
    """Find boxes around the active parts of a map, h × w, in pixels of an image of height × width.

    The map is first resized to the image. A connected part above `threshold` of the maximum is an object if it reaches
    `peak` of the maximum somewhere, so the strongest part always is one.

    Args:
        activation: the map; only positive values are active.
        height: of the image.
        width: of the image.
        threshold: share of the maximum.
        peak: share of the maximum, at least `threshold`.
    """
    if activation.max() <= 0:
        return []
    source = torch.from_numpy(activation)[None, None]
    whole = nn.functional.interpolate(source, (height, width), mode="bicubic", align_corners=False)[0, 0].numpy()
    whole /= whole.max()
    labels, _ = ndimage.label(whole >= threshold)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        if whole[rows, columns][labels[rows, columns] == number].max() >= peak:
            found.append(Box(columns.start, rows.start, columns.stop, rows.stop))
    return found
