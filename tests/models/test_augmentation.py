"""Views of training images: everything that a view shows is in its image."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.models.augmentation import turned_views


def test_a_view_of_one_colour_is_that_colour() -> None:
    flat = torch.full((16, 3, 40, 40), 0.25)
    torch.testing.assert_close(
        turned_views(flat, 32, 0.9, 1.25, freely=True), torch.full((16, 3, 32, 32), 0.25)
    )  # no black corners


@given(share=st.floats(0.3, 1), zoom=st.floats(1.05, 2), seed=st.integers(0, 1000))
def test_views_lie_inside_have_the_right_scale_and_are_turned(share: float, zoom: float, seed: int) -> None:
    torch.manual_seed(seed)
    ramp = torch.linspace(0, 1, 200).expand(32, 1, 200, 200)  # brightness is x
    x = torch.cat([ramp, ramp.mT, torch.zeros_like(ramp)], 1)
    views = turned_views(x, 64, share, zoom, freely=True)
    assert views.min() >= 0 and views.max() <= 1
    middle = views[:, :2, 24:40, 24:40]  # far from reflected edges
    slopes = torch.stack([middle.diff(dim=3).mean((2, 3)), middle.diff(dim=2).mean((2, 3))], 2)  # N×2×2
    scale = slopes.norm(dim=1) * 64
    assert (scale < share * 1.02).all() and (scale > share / zoom * 0.98).all()
    assert scale.max() / scale.min() > zoom**0.5
    turns = torch.linalg.det(slopes).sign()
    assert {-1.0, 1.0} <= set(turns.tolist())  # mirrored and not
    angles = torch.atan2(slopes[:, 1, 0], slopes[:, 0, 0])
    assert (angles > 1).any() and (angles < -1).any()


def test_views_turned_by_quarters_keep_rows_and_columns_straight() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 200).expand(32, 1, 200, 200)
    views = turned_views(torch.cat([ramp, ramp, ramp], 1), 64, 0.9, 1.25, freely=False)[:, 0]
    across, down = views.diff(dim=2).abs().amax((1, 2)), views.diff(dim=1).abs().amax((1, 2))
    assert ((across < 1e-6) ^ (down < 1e-6)).all()
    assert (across < 1e-6).any() and (down < 1e-6).any()
