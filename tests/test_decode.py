"""Files of all kinds → pixels."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.decode import decode


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_an_image_of_any_mode_is_decoded_to_its_colours(mode: str, tmp_path: Path):
    colours = [(255, 255, 255), (0, 0, 0)] if mode in ("1", "L", "LA") else [(250, 30, 60), (20, 200, 100)]
    picture = Image.new("RGB", (16, 16), colours[0])
    picture.paste(colours[1], (8, 0, 16, 16))
    picture.convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / "it.tif")
    shown = decode(tmp_path / "it.tif", 16, 3)
    assert shown[:, 5, [3, 12]].T.tolist() == [list(colour) for colour in colours]
    grey = decode(tmp_path / "it.tif", 16, 1)
    weights = torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(grey[0].float(), torch.einsum("chw,c->hw", shown.float(), weights), rtol=0, atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_16_bits_keeps_its_shades(channels: int, tmp_path: Path):
    shades = np.linspace(0, 65535, 16).astype(np.uint16)
    Image.fromarray(shades[None].repeat(16, 0)).save(tmp_path / "it.png")
    expected = torch.from_numpy(shades / 257).float().expand(channels, 16, 16)
    torch.testing.assert_close(decode(tmp_path / "it.png", 16, channels).float(), expected, rtol=0, atol=1)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("scale", [1, 3])
def test_what_is_not_square_is_cut_to_its_centre(upright: bool, scale: int, tmp_path: Path):
    band = 16 * scale
    picture = Image.new("RGB", (3 * band, band), (255, 0, 0))
    picture.paste((0, 255, 0), (band, 0, 2 * band, band))
    (picture.rotate(90, expand=True) if upright else picture).save(tmp_path / "it.png")
    inner = decode(tmp_path / "it.png", 16, 3)[:, 1:-1, 1:-1]
    assert torch.equal(inner, torch.tensor([0, 255, 0], dtype=torch.uint8).view(3, 1, 1).expand(3, 14, 14))


def test_a_sliver_costs_no_more_than_the_square_that_is_cut_from_it(tmp_path: Path):
    Image.new("L", (1, 20000), 77).save(tmp_path / "it.png")
    started = time.process_time()
    shown = decode(tmp_path / "it.png", 64, 3)
    assert time.process_time() - started < 0.2
    assert shown.unique().tolist() == [77]


@pytest.mark.parametrize(("name", "white"), [("it.pgm", 65535), ("ten_bits.pgm", 1023)])
def test_a_pgm_of_more_than_8_bits_keeps_its_shades(name: str, white: int, tmp_path: Path):
    shades = np.linspace(0, white, 16).astype(">u2")
    (tmp_path / name).write_bytes(f"P5 16 16 {white}\n".encode() + shades[None].repeat(16, 0).tobytes())
    expected = torch.from_numpy(np.linspace(0, 255, 16)).float().expand(1, 16, 16)
    torch.testing.assert_close(decode(tmp_path / name, 16, 1).float(), expected, rtol=0, atol=1)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_an_image_of_32_bits_is_refused_rather_than_clipped(kind: type, tmp_path: Path):
    Image.fromarray(np.full((16, 16), 3000, kind)).save(tmp_path / "it.tif")
    with pytest.raises(ValueError, match="32 bits for a pixel"):
        decode(tmp_path / "it.tif", 16, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_shown_upright_however_the_camera_was_held(orientation: int, tmp_path: Path):
    corners = np.array([[255, 170], [85, 0]], np.uint8).repeat(16, 0).repeat(16, 1)
    # what the sensor recorded, so that turning it as the tag says gives the corners (TIFF 6.0, Orientation)
    lay = {
        1: corners,
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.T,
        6: np.rot90(corners),
        7: corners[::-1, ::-1].T,
        8: np.rot90(corners, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(lay)).save(tmp_path / "it.jpg", exif=exif, quality=100)
    shown = decode(tmp_path / "it.jpg", 32, 1)[0]
    inner = shown.float().unflatten(0, (2, 16)).unflatten(2, (2, 16)).mean((1, 3))
    torch.testing.assert_close(inner, torch.tensor([[255.0, 170.0], [85.0, 0.0]]), rtol=0, atol=2)


@pytest.mark.parametrize("transparency", [0, b"\x00\x80"], ids=["one colour", "each colour"])
def test_transparent_colours_of_a_palette_are_shown_as_they_are_and_without_a_warning(
    transparency: int | bytes, tmp_path: Path, recwarn: pytest.WarningsRecorder
):
    picture = Image.new("P", (16, 16), 0)
    picture.putpalette([250, 30, 60, 20, 200, 100])
    picture.paste(1, (8, 0, 16, 16))
    picture.save(tmp_path / "it.png", transparency=transparency)
    assert decode(tmp_path / "it.png", 16, 3)[:, 5, [3, 12]].T.tolist() == [[250, 30, 60], [20, 200, 100]]
    assert not recwarn.list


def test_a_cmyk_photograph_is_as_bright_as_its_rgb_self(tmp_path: Path):
    picture = Image.new("RGB", (16, 16), (240, 120, 30))
    for mode in "RGB", "CMYK":
        picture.convert(mode).save(tmp_path / f"{mode}.jpg", quality=100)
    rgb, cmyk = (decode(tmp_path / f"{mode}.jpg", 16, 3).float() for mode in ("RGB", "CMYK"))
    torch.testing.assert_close(cmyk, rgb, rtol=0, atol=3)
