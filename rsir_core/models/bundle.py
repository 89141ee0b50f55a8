"""The model bundle: one folder with everything needed to describe an image, and its fingerprint. No pickle in it.

`bundle.json` names the weight files by their content's hash and is written last, so a reader sees the old bundle or the
new one, never a mixture; `split.csv` is put just before it.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rsir_core.errors import BundleError
from rsir_core.models.regions import TAU
from rsir_core.models.settings import BundleSettings, ClassifierSettings, DetectorSettings
from rsir_core.storage.filesystem import file_system, opened, put_file, reading_from

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "bundle.json"
SPLIT = "split.csv"
State = Mapping[str, "Tensor"]


class DescribingWays(NamedTuple):
    """Say what an index does with a bundle otherwise than the bundle says; None: as it says.

    Attributes:
        views: how many rotations of each region are averaged.
        regions: how many regions of each image are described at most: the key region, and those of its objects.
    """

    views: int | None = None
    regions: int | None = None


AS_IT_IS: Final = DescribingWays()


@dataclass(frozen=True)
class Bundle(BundleSettings):
    """Hold a loaded model bundle.

    Attributes:
        classifier_state: the classifier's tensors.
        detector_state: the detector's; empty without a detector.
    """

    classifier_state: State
    detector_state: State


def load_bundle(uri: str, fingerprint: str | None = None) -> Bundle:
    """Load a bundle and check every byte of it against its manifest.

    Args:
        uri: the bundle's folder.
        fingerprint: what it must be, when an index asks for it.

    Raises:
        BundleError: missing, incomplete, damaged, of another format, or not the bundle asked for.
        StorageError: the store does not answer, or refuses.
    """
    manifest = _whole_manifest(uri, fingerprint)
    detector = manifest["detector"]
    states = _load_weights(uri, manifest["classifier"]), {} if detector is None else _load_weights(uri, detector)
    settings = _settings(manifest)
    return Bundle(
        settings.classifier, settings.detector, settings.tau, settings.fingerprint, *states, regions=settings.regions
    )


def read_settings(uri: str, fingerprint: str | None = None, check_weights: bool = False) -> BundleSettings:
    """Read what a bundle is besides its weights, without torch.

    Args:
        uri: the bundle's folder.
        fingerprint: what it must be, when an index asks for it.
        check_weights: read the weights too, and check every byte of them against the manifest.

    Raises:
        BundleError: missing, incomplete, of another format, or not the bundle asked for; or its weights are damaged.
    """
    return _settings((_checked_manifest if check_weights else _whole_manifest)(uri, fingerprint))


def read_detector(uri: str) -> tuple[DetectorSettings, State] | None:
    """Read the detector alone, of a bundle that may still lack its classifier; None: there is none.

    Raises:
        BundleError: as `load_bundle`.
    """
    manifest = _read_manifest(uri)
    if manifest is None or manifest["detector"] is None:
        return None
    return DetectorSettings(**_tuples(manifest["detector"]["settings"])), _load_weights(uri, manifest["detector"])


def have_equal(one: State, other: State) -> bool:
    """Tell whether two sets of weights are the same, bit by bit."""
    return one.keys() == other.keys() and all(tensor.equal(other[name]) for name, tensor in one.items())


def write_classifier(uri: str, settings: ClassifierSettings, state: State, tau: float, split_csv: str | None) -> str:
    """Put a classifier, its key regions' tau and its split (CSV text; None: it was not trained) into a bundle.

    Returns the bundle's new fingerprint.
    """
    return _write_part(uri, "classifier", settings, state, {"tau": tau}, split_csv)


def write_detector(uri: str, settings: DetectorSettings, state: State) -> str:
    """Put a detector into a bundle; returns the new fingerprint."""
    return _write_part(uri, "detector", settings, state, {}, None)


def check_bundle(source: str, target: str, ways: DescribingWays = AS_IT_IS, used: str | None = None) -> str:
    """Check a bundle; returns its fingerprint as it is, or would be, at `target`. Arguments: see `copy_bundle`."""
    return str(_checked(source, target, ways, used)[0]["fingerprint"])


def copy_bundle(source: str, target: str, ways: DescribingWays = AS_IT_IS, used: str | None = None) -> str:
    """Copy a bundle, checked as a whole, and return its fingerprint there; nothing is done where it is already.

    Args:
        source: its folder.
        target: the folder to make.
        ways: what is done with it from now on, with which it has a fingerprint of its own.
        used: the fingerprint of the one that was at `target` and must be there again; None: any may be.

    Raises:
        BundleError: as `load_bundle`; or another one is there, or was.
    """
    manifest, is_there = _checked(source, target, ways, used)
    if not is_there:
        (from_fs, from_path), (to_fs, to_path) = opened(source), opened(target)
        with reading_from(source):
            names = [p.rsplit("/", 1)[1] for p in from_fs.ls(from_path, detail=False)]
            for name in (n for n in names if n.endswith((".safetensors", ".csv"))):
                put_file(to_fs.unstrip_protocol(f"{to_path}/{name}"), from_fs.cat_file(f"{from_path}/{name}"))
        _put_manifest(target, manifest)  # last
    return str(manifest["fingerprint"])


def _checked(source: str, target: str, ways: DescribingWays, used: str | None) -> tuple[dict[str, Any], bool]:
    """Check that a bundle is sound; returns its manifest for these ways, and whether it is at `target` already."""
    manifest = _adapted(_checked_manifest(source, None), ways)
    if manifest.get("regions", 1) > 1 and manifest["detector"] is None:
        raise BundleError(
            f"--regions {manifest['regions']}: the bundle {source} has no detector that would find further objects; "
            "train one with jobs.finetune_detector, or leave --regions out"
        )
    there = _read_manifest(target)
    if there is not None and there["fingerprint"] != manifest["fingerprint"]:
        theirs, ours = _ways(there), _ways(manifest)
        if _adapted(manifest, theirs)["fingerprint"] == there["fingerprint"]:
            differ = [f"--{n} {v}" for n, v in theirs._asdict().items() if v != getattr(ours, n)]
            raise BundleError(f"the index was described with {' '.join(differ)}; pass that, or make a new index")
        raise BundleError(
            f"the bundle {source} is {manifest['fingerprint']}, but {target} holds {there['fingerprint']}, with which "
            "the index was described; use that bundle, or make a new index for this one"
        )
    if used not in (None, manifest["fingerprint"]):
        raise BundleError(
            f"{target} is gone: the index was described with bundle {used}, and {source}, with these --views "
            f"and --regions, is {manifest['fingerprint']}; copy the one of then back, or make a new index"
        )
    return manifest, there is not None


def _write_part(uri: str, part: str, settings: Any, state: State, more: dict[str, Any], split_csv: str | None) -> str:
    from safetensors.torch import save  # noqa: PLC0415 -- brings torch, which no reader of settings needs

    uri = uri.rstrip("/")
    data = save({k: v.detach().cpu().contiguous() for k, v in state.items()})
    digest = hashlib.sha256(data).hexdigest()
    file = f"{part}-{digest[:16]}.safetensors"
    put_file(f"{uri}/{file}", data)
    manifest = _read_manifest(uri) or {"classifier": None, "detector": None, "tau": TAU}
    before = manifest[part]
    manifest |= {part: {"settings": dataclasses.asdict(settings), "file": file, "sha256": digest}, **more}
    manifest = {"format": FORMAT, **manifest}
    manifest["classes"] = manifest["classifier"]["settings"]["classes"] if manifest["classifier"] else None
    manifest["versions"] = {n: version(n) for n in ("torch", "torchvision", "ultralytics-opencv-headless")}
    manifest = _with_fingerprint(manifest)
    if split_csv is not None:
        put_file(f"{uri}/{SPLIT}", split_csv.encode())  # small, and next to last: it is of this classifier
    _put_manifest(uri, manifest)
    if before is not None and before["file"] != file:
        fs, path = opened(uri)
        try:
            fs.rm_file(f"{path}/{before['file']}")
        except Exception as error:  # gone already, or a store that forbids it; stores each raise their own
            log.warning("%s/%s, which the bundle no longer needs, was not removed: %s", uri, before["file"], error)
    return str(manifest["fingerprint"])


def _with_fingerprint(manifest: Mapping[str, Any]) -> dict[str, Any]:
    content = json.dumps({**manifest, "fingerprint": ""}, sort_keys=True, ensure_ascii=True)
    return {**manifest, "fingerprint": hashlib.sha256(content.encode()).hexdigest()[:16]}


def _ways(manifest: Mapping[str, Any]) -> DescribingWays:
    return DescribingWays(manifest["classifier"]["settings"].get("views", 1), manifest.get("regions", 1))


def _adapted(manifest: Mapping[str, Any], ways: DescribingWays) -> dict[str, Any]:
    """Put ways into a manifest; it stays as it is where it says so already, or is of a version that knew no others."""
    classifier, adapted, now = manifest["classifier"], dict(manifest), _ways(manifest)
    if ways.views not in (None, now.views):
        adapted["classifier"] = {**classifier, "settings": {**classifier["settings"], "views": ways.views}}
    if ways.regions not in (None, now.regions):
        adapted["regions"] = ways.regions
        if ways.regions == 1:
            del adapted["regions"]  # as a bundle without has it
    return dict(manifest) if adapted == manifest else _with_fingerprint(adapted)


def _put_manifest(uri: str, manifest: Mapping[str, Any]) -> None:
    put_file(f"{uri.rstrip('/')}/{MANIFEST}", json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def _whole_manifest(uri: str, fingerprint: str | None) -> dict[str, Any]:
    manifest = _read_manifest(uri)
    if manifest is None:
        raise BundleError(f"no model bundle at {uri} ({MANIFEST} is missing); make one with jobs.finetune_classifier")
    if manifest["classifier"] is None:
        raise BundleError(f"the bundle {uri} has no classifier yet; add it with jobs.finetune_classifier")
    if fingerprint not in (None, manifest["fingerprint"]):
        raise BundleError(
            f"the bundle {uri} is {manifest['fingerprint']}, but the index was described with {fingerprint}; use that "
            "bundle, or make a new index for this one"
        )
    return manifest


def _checked_manifest(uri: str, fingerprint: str | None) -> dict[str, Any]:
    """Read the manifest of a bundle whose weights are there and whole."""
    manifest = _whole_manifest(uri, fingerprint)
    for part in filter(None, (manifest["classifier"], manifest["detector"])):
        _read_weights(uri, part)
    return manifest


def _settings(manifest: Mapping[str, Any]) -> BundleSettings:
    classifier = ClassifierSettings(**_tuples(manifest["classifier"]["settings"]))
    detector = manifest["detector"] and DetectorSettings(**_tuples(manifest["detector"]["settings"]))
    return BundleSettings(
        classifier, detector, manifest["tau"], manifest["fingerprint"], regions=manifest.get("regions", 1)
    )


def _read_manifest(uri: str) -> dict[str, Any] | None:
    fs, path = file_system(uri.rstrip("/"))
    try:
        with reading_from(f"{uri}/{MANIFEST}"):
            data: bytes = fs.cat_file(f"{path}/{MANIFEST}")
        manifest = json.loads(data)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BundleError(f"{uri}/{MANIFEST} is no JSON ({error}); write the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{uri}/{MANIFEST} is not of format {FORMAT}; write the bundle again with this version")
    return manifest


def _load_weights(uri: str, part: Mapping[str, Any]) -> dict[str, "Tensor"]:
    from safetensors.torch import load  # noqa: PLC0415 -- as above

    return dict(load(_read_weights(uri, part)))


def _read_weights(uri: str, part: Mapping[str, Any]) -> bytes:
    """Read a file of weights and check it against its hash in the manifest."""
    fs, path = opened(uri.rstrip("/"))
    try:
        with reading_from(f"{uri}/{part['file']}"):
            data: bytes = fs.cat_file(f"{path}/{part['file']}")
    except FileNotFoundError as error:
        raise BundleError(f"the bundle {uri} lacks {part['file']}; copy it again or write the bundle again") from error
    if hashlib.sha256(data).hexdigest() != part["sha256"]:
        raise BundleError(f"{uri}/{part['file']} is damaged (its hash differs from {MANIFEST}); copy it again")
    return data


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert lists to tuples: JSON knows lists only, and settings are frozen."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
