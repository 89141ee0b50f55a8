import json
import pickletools
from pathlib import Path

import pytest
import torch

from rsir_core.errors import BundleError
from rsir_core.models import bundle
from tests.support.models import CLASSES, write_bundle


def test_loads_what_was_saved(tmp_path: Path) -> None:
    fingerprint = write_bundle(tmp_path / "models")
    loaded = bundle.load_bundle(str(tmp_path / "models"), fingerprint)
    assert loaded.fingerprint == fingerprint
    assert loaded.classes == CLASSES
    assert loaded.detector is not None and loaded.detector.classes == ("plane", "ship")
    assert loaded.tau == 0.9
    assert json.loads((tmp_path / "models" / "bundle.json").read_text())["classes"] == list(CLASSES)


def test_fingerprint_follows_the_content_only(tmp_path: Path) -> None:
    one, again, other = (write_bundle(tmp_path / n, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert one == again != other
    assert write_bundle(tmp_path / "d", detector=False) != one


def test_each_half_keeps_the_other_and_leaves_no_old_weights(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    before = bundle.load_bundle(str(tmp_path))
    state = {k: v + 1 for k, v in before.classifier_state.items()}
    bundle.write_classifier(str(tmp_path), before.classifier, state, 0.8, "uri,label,split\n")
    after = bundle.load_bundle(str(tmp_path))
    assert after.detector == before.detector and after.tau == 0.8
    assert all(torch.equal(before.detector_state[k], after.detector_state[k]) for k in before.detector_state)
    assert after.fingerprint != before.fingerprint
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_bundle_that_has_lost_its_weights_can_be_written_again(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    before = bundle.load_bundle(str(tmp_path))
    (lost,) = tmp_path.glob("classifier-*.safetensors")
    lost.unlink()
    with pytest.raises(BundleError, match="write the bundle again"):
        bundle.load_bundle(str(tmp_path))
    state = {k: v + 1 for k, v in before.classifier_state.items()}
    fingerprint = bundle.write_classifier(str(tmp_path), before.classifier, state, 0.8, "uri,label,split\n")
    assert bundle.load_bundle(str(tmp_path)).fingerprint == fingerprint


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    for file in tmp_path.iterdir():
        assert file.suffix in {".json", ".csv", ".safetensors"}
        with pytest.raises(ValueError, match=r"opcode|exhausted|STOP"):
            list(pickletools.genops(file.read_bytes()))


def test_refuses_a_missing_an_unfinished_a_damaged_and_a_foreign_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model bundle"):
        bundle.load_bundle(str(tmp_path / "none"))
    fingerprint = write_bundle(tmp_path / "models")
    with pytest.raises(BundleError, match=f"{fingerprint}.*0123"):
        bundle.load_bundle(str(tmp_path / "models"), "0123")
    weights = next((tmp_path / "models").glob("classifier-*"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match="damaged"):
        bundle.load_bundle(str(tmp_path / "models"))
    weights.unlink()
    with pytest.raises(BundleError, match="lacks classifier"):
        bundle.load_bundle(str(tmp_path / "models"))
    (tmp_path / "models" / "bundle.json").write_text("{}")
    with pytest.raises(BundleError, match="format"):
        bundle.load_bundle(str(tmp_path / "models"))


def test_a_detector_alone_is_no_bundle_yet(tmp_path: Path) -> None:
    write_bundle(tmp_path / "both")
    found = bundle.read_detector(str(tmp_path / "both"))
    assert found is not None
    bundle.write_detector(str(tmp_path / "half"), *found)
    with pytest.raises(BundleError, match="finetune_classifier"):
        bundle.load_bundle(str(tmp_path / "half"))


def test_copy_is_the_same_bundle_and_another_one_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a")
    write_bundle(tmp_path / "b", seed=1)
    fingerprint = bundle.copy_bundle(str(tmp_path / "a"), str(tmp_path / "index" / "bundle"))
    assert bundle.copy_bundle(str(tmp_path / "a"), str(tmp_path / "index" / "bundle")) == fingerprint
    assert bundle.load_bundle(str(tmp_path / "index" / "bundle")).fingerprint == fingerprint
    with pytest.raises(BundleError, match=fingerprint):
        bundle.copy_bundle(str(tmp_path / "b"), str(tmp_path / "index" / "bundle"))


def test_views_are_the_copys_own_and_part_of_what_it_is(tmp_path: Path) -> None:
    own, source = write_bundle(tmp_path / "a"), str(tmp_path / "a")
    assert bundle.copy_bundle(source, str(tmp_path / "one"), bundle.DescribingWays(views=1)) == own
    fingerprint = bundle.copy_bundle(source, str(tmp_path / "four"), bundle.DescribingWays(views=4))
    copied = bundle.load_bundle(str(tmp_path / "four"))
    assert copied.fingerprint == fingerprint != own
    assert (copied.classifier.views, bundle.load_bundle(source).classifier.views) == (4, 1)
    assert bundle.copy_bundle(source, str(tmp_path / "four"), bundle.DescribingWays(views=4)) == fingerprint
    assert bundle.copy_bundle(str(tmp_path / "four"), str(tmp_path / "back"), bundle.DescribingWays(views=1)) == own
    with pytest.raises(BundleError, match="with --views 4; pass that"):
        bundle.check_bundle(source, str(tmp_path / "four"), bundle.DescribingWays(views=1))


@pytest.mark.slow
def test_regions_are_the_copys_own_and_one_is_as_none_were_named(tmp_path: Path) -> None:
    own, source = write_bundle(tmp_path / "a"), str(tmp_path / "a")
    three = bundle.DescribingWays(regions=3)
    assert bundle.copy_bundle(source, str(tmp_path / "one"), bundle.DescribingWays(regions=1)) == own
    fingerprint = bundle.copy_bundle(source, str(tmp_path / "three"), three)
    assert bundle.read_settings(str(tmp_path / "three")).regions == 3 and fingerprint != own
    back = bundle.copy_bundle(str(tmp_path / "three"), str(tmp_path / "back"), bundle.DescribingWays(regions=1))
    assert back == own and bundle.load_bundle(str(tmp_path / "back")).regions == 1
    with pytest.raises(BundleError, match="with --regions 3; pass that"):
        bundle.check_bundle(source, str(tmp_path / "three"))
    write_bundle(tmp_path / "blind", detector=False)
    with pytest.raises(BundleError, match=r"--regions 3.*no detector"):
        bundle.copy_bundle(str(tmp_path / "blind"), str(tmp_path / "four"), three)


def test_works_on_other_storage_too() -> None:
    fingerprint = write_bundle("memory://models")
    assert bundle.load_bundle("memory://models").fingerprint == fingerprint
