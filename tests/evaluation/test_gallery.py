import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from rsir_core.evaluation.gallery import INK, OBJECT, RIGHT, THUMBNAIL, WRONG, draw_strips, thumbnail
from tests.support.pictures import HEIGHT, WIDTH, some_strip


def test_frames_say_right_and_wrong_in_the_order_of_ranks(tmp_path: Path) -> None:
    strips = [some_strip(tmp_path, "river", [True, False, False]), some_strip(tmp_path, r"$\fo{rest", [False, True])]
    figure = draw_strips(strips, ["one line", "another"])
    frames = [to_hex(axes.spines["left"].get_edgecolor()) for axes in figure.axes]
    assert frames == [INK, RIGHT, WRONG, WRONG, INK, WRONG, RIGHT]
    assert [axes.get_title() for axes in figure.axes] == ["query", "1", "2", "3", "", "", ""]
    assert [axes.get_xlabel() for axes in figure.axes][:3] == [
        "river\nthe method", "river 0.75\nWD 0.01", "not river 0.75\nWD 0.02",
    ]  # fmt: skip
    outlined = [OBJECT in {to_hex(patch.get_edgecolor()) for patch in axes.patches} for axes in figure.axes]
    assert outlined == [False, True, False, True, False, True, False]
    figure.savefig(io.BytesIO(), format="png", dpi=40)  # that label is no formula
    assert {"one line", "another"} <= {text.get_text() for text in figure.texts}


def test_a_thumbnail_is_small_and_tells_the_size_of_the_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.full((300, 500, 3), (200, 30, 60), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    data, height, width = thumbnail(str(tmp_path / "large.png"))
    found = Image.open(io.BytesIO(data))
    assert (found.format, found.size, height, width) == ("JPEG", (THUMBNAIL, round(THUMBNAIL * 3 / 5)), 300, 500)
    assert np.abs(np.asarray(found).astype(int) - pixels[0, 0]).max() < 8
    strip = some_strip(tmp_path, "river", [True])
    assert thumbnail(strip.query.uri)[1:] == (HEIGHT, WIDTH)
    grey, *_ = thumbnail(str(tmp_path / "none.png"))
    assert "none.png is gone" in caplog.text
    with Image.open(io.BytesIO(grey)) as shown:
        assert len(np.unique(np.asarray(shown))) == 1
