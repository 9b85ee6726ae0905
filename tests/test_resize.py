"""Resize modes: each equals the reference package or the formula it is named after."""

import numpy as np
import pytest
import torch
from cleanfid.resize import make_resizer
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from benchmarks.parity.scripted_inception import ScriptedInception
from fact_metrics.features.resize import RESIZE_MODES, resize

# Smaller, larger, equal on one side, far smaller; source and target as height and width.
SHAPES = [
    ((17, 17), (40, 40)),
    ((40, 40), (17, 17)),
    ((33, 20), (33, 31)),
    ((90, 64), (24, 30)),
    ((9, 50), (50, 9)),
]


def noise(height, width, n=2, channels=3):
    rng = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (n, channels, height, width), generator=rng, dtype=torch.uint8)


def pillow(image, shape):
    """One uint8 [C, H, W] by Pillow, columns first as before version 13."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = picture.resize((shape[1], picture.height), Image.Resampling.BICUBIC)
    picture = picture.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_tf1_equals_torch_fidelity_to_the_bit(source, target):
    x = noise(*source).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(x, size=target, align_corners=False)
    assert torch.equal(resize(x, mode="tf1", size=target), expected)


@pytest.mark.parametrize("size", [32, 64, 299, 500])
def test_tf1_to_299_equals_torch_fidelity_to_the_bit(size):
    x = noise(size, size, n=1).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    assert torch.equal(resize(x, mode="tf1", size=299), expected)


@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_pil_u8_equals_pillow_to_the_bit(source, target):
    x = noise(*source)
    expected = torch.stack([pillow(image, target) for image in x])
    found = resize(x, mode="pil-u8", size=target)
    assert found.dtype == torch.float32 and torch.equal(found, expected.float())


@pytest.mark.parametrize("size", [28, 32, 224, 256, 337])
def test_pil_u8_of_square_images_equals_one_call_of_pillow(size):
    x = noise(size, size, n=1)
    expected = Image.fromarray(x[0].permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    found = resize(x, mode="pil-u8", size=224)[0].permute(1, 2, 0)
    assert torch.equal(found, torch.from_numpy(np.array(expected)).float())


@pytest.mark.parametrize("source", [(17, 17), (64, 64), (300, 300), (299, 200), (700, 650)])
def test_clean_equals_clean_fid_to_3e_5_grey_levels(source):
    x = noise(*source, n=1)
    expected = make_resizer("PIL", False, "bicubic", (299, 299))(x[0].permute(1, 2, 0).numpy())
    found = resize(x.float(), mode="clean", size=299)[0].permute(1, 2, 0)
    # Pillow stores float32 between its two passes, half a unit of 255 being 8e-6; torch's kernel is the same.
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=3e-5)
    assert found.min() >= 0 and found.max() <= 255


@pytest.mark.parametrize("size", [24, 80, 420])
def test_tf1_grid_is_tf1_with_rounded_positions(size):
    x = noise(size, size, n=1).float()
    found = resize(x, mode="tf1-grid", size=299)
    assert 0 < (found - resize(x, mode="tf1", size=299)).abs().max() < 0.03


class Recorder(torch.nn.Module):
    """Stands where the layers are and keeps what reaches them."""

    def forward(self, x):
        self.seen = x
        return x.new_zeros(len(x), 2048)


def test_tf1_grid_equals_the_resize_inside_the_torchscript():
    net = ScriptedInception()
    net.layers = Recorder()
    x = noise(50, 50)
    net(x, return_features=True)
    assert torch.equal((resize(x.float(), mode="tf1-grid", size=299) - 128) / 128, net.layers.seen)


def test_torch_resize_has_half_pixel_centres_and_no_antialias():
    row = torch.tensor([0.0, 10.0, 20.0, 30.0]).repeat(4, 1)[None, None]
    assert resize(row, mode="torch", size=2)[0, 0, 0].tolist() == [5.0, 25.0]
    stripes = torch.tensor([0.0, 0.0, 9.0, 9.0] * 4).repeat(16, 1)[None, None]
    assert resize(stripes, mode="torch", size=4)[0, 0, 0].tolist() == [4.5] * 4


@pytest.mark.parametrize("size", [10, 24, 40])
def test_torch_aa_resize_equals_pillow_bilinear(size):
    image = noise(32, 32)[0, 0].numpy().astype(np.float32)
    expected = np.asarray(Image.fromarray(image, mode="F").resize((size, size), Image.Resampling.BILINEAR))
    found = resize(torch.from_numpy(image)[None, None], mode="torch-aa", size=size)[0, 0].numpy()
    # Pillow keeps float32 between its two passes, as torch does.
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_torch_aa_enlarges_like_torch_and_none_keeps_the_image():
    x = noise(32, 32).float()
    torch.testing.assert_close(
        resize(x, mode="torch-aa", size=50), resize(x, mode="torch", size=50), rtol=1e-5, atol=1e-3
    )
    assert resize(x, mode="none") is x


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_no_mode_changes_an_image_that_has_the_size(mode):
    x = noise(24, 24)
    found = resize(x if mode == "pil-u8" else x.float(), mode=mode, size=24)
    assert torch.equal(found, x.float())


def test_modes_differ_where_an_image_shrinks():
    x = noise(64, 64, n=1)
    found = [resize(x if m == "pil-u8" else x.float(), mode=m, size=20) for m in RESIZE_MODES if m != "none"]
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_an_unknown_mode_and_another_type_are_refused():
    x = noise(8, 8)
    with pytest.raises(ValueError, match="unknown resize mode 'box'"):
        resize(x, mode="box", size=8)
    with pytest.raises(ValueError, match="pil-u8 takes uint8"):
        resize(x.float(), mode="pil-u8", size=8)
    with pytest.raises(ValueError, match="clean takes float"):
        resize(x, mode="clean", size=8)
