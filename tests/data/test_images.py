"""A picture of any kind becomes the right pixels, or is refused by the name of its file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxdistill.data import images, sources
from jaxdistill.data.images import decode_image

# Bright at the right, dark at the left, and nothing alike under a turn.
GREY = np.array([[6, 70, 135, 200], [0, 1, 254, 255], [9, 8, 7, 6]], np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def saved(path, image, **settings):
    image.save(path, **settings)
    return path


def png_of_16_bits(path, pixels):
    """RGB of 16 bits, which Pillow does not write."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "grey.pgm"])
def test_sixteen_bits_become_eight(tmp_path, name):
    wide = GREY.astype(np.uint16) * 257
    path = tmp_path / name
    if name.endswith("pgm"):
        path.write_bytes(b"P5 4 3 65535\n" + wide.astype(">u2").tobytes())
    else:
        saved(path, Image.fromarray(wide))
    np.testing.assert_array_equal(decode_image(path, None, channels=1)[..., 0], GREY)
    np.testing.assert_array_equal(decode_image(path, None)[..., 2], GREY)
    assert images.look(path) == ""


def test_colours_of_sixteen_bits_become_eight(tmp_path):
    path = png_of_16_bits(tmp_path / "wide.png", COLOURS.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode_image(path, None), COLOURS)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_white_are_refused_by_name(tmp_path, mode):
    path = saved(tmp_path / "one.tif", Image.fromarray(GREY).convert(mode))
    with pytest.raises(ValueError, match=r"one\.tif cannot be decoded .* white is not known"):
        decode_image(path, 3)
    assert "white is not known" in images.look(path)


@pytest.mark.parametrize("name", ["palette.png", "palette.gif", "palette.bmp"])
def test_a_palette_is_looked_up(tmp_path, name):
    picture = Image.fromarray(COLOURS).quantize(24)
    path = saved(tmp_path / name, picture)
    np.testing.assert_array_equal(decode_image(path, None), np.asarray(picture.convert("RGB")))


def test_other_colours_are_those_of_pillow(tmp_path):
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    cmyk = saved(tmp_path / "ink.tif", Image.fromarray(smooth).convert("CMYK"))
    assert np.abs(decode_image(cmyk, None).astype(int) - smooth).max() <= 1
    black = saved(tmp_path / "bits.png", Image.fromarray(GREY > 100))
    np.testing.assert_array_equal(decode_image(black, None, channels=1)[..., 0], (GREY > 100) * 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_is_transparent_lies_over_white(tmp_path, mode):
    path = tmp_path / "clear.png"
    grey = np.full((3, 3), 100, np.uint8)
    alpha = np.array([[255, 0, 128]] * 3, np.uint8)
    if mode in ("RGBA", "LA"):
        channels = [grey] * (len(mode) - 1) + [alpha]
        saved(path, Image.fromarray(np.stack(channels, -1), mode=None))
        expected = [100, 255, round(100 * 128 / 255 + 255 * 127 / 255)]
    else:
        picture = Image.fromarray(np.array([[0, 1, 2]] * 3, np.uint8)).convert("P")
        picture.putpalette([100] * 3 + [7] * 3 + [200] * 3)
        saved(path, picture, transparency=1)
        expected = [100, 255, 200]
    found = decode_image(path, None)
    assert np.abs(found[0, :, 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["turned.png", "turned.jpg", "turned.tif"])
def test_pictures_are_turned_as_they_say(tmp_path, orientation, name):
    large = np.kron(GREY, np.ones((16, 16), np.uint8))
    stored = Image.fromarray(large)
    # What a camera stores so that this orientation puts it upright.
    ways = [None, 0, 3, 1, 5, 2, 6, 4]
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(ways[orientation - 1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / name, stored, exif=exif.tobytes())
    found = decode_image(path, None, channels=1)[..., 0]
    assert found.shape == large.shape
    assert np.abs(found.astype(int) - large).mean() < 3
    square = decode_image(path, 24, channels=1)[..., 0]
    assert square[:, -1].mean() > square[:, 0].mean() + 60


BROKEN = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "cut at its end": lambda whole: whole[:-6],
    "a header alone": lambda whole: whole[:40],
    "something else": lambda whole: b"no image at all",
    "zeros": lambda whole: bytes(len(whole)),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize(
    "suffix", sorted({".bmp", ".gif", ".jpg", ".png", ".ppm", ".tif", ".webp"})
)
def test_damaged_files_are_found_before_they_are_read(tmp_path, how, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"one{suffix}"
    Image.fromarray(noise).save(path)
    assert images.look(path) == ""
    path.write_bytes(BROKEN[how](path.read_bytes()))
    fault = images.look(path)
    if how == "cut at its end" and not fault:
        assert decode_image(path, 8).shape == (8, 8, 3)  # an end mark on which no pixel depends
        return
    with pytest.raises(ValueError, match="cannot be decoded as an image: ") as caught:
        decode_image(path, 8)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert fault


def test_a_picture_of_196_megapixels_is_refused(tmp_path):
    path = tmp_path / "large.png"
    line = zlib.compress(b"\0" * 14001)
    header = struct.pack(">IIBBBBB", 14000, 14000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", line), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
            for k, d in chunks
        )
    )
    for size in (8, None):
        with pytest.raises(ValueError, match=r"large\.png cannot be decoded.*196000000 pixels"):
            decode_image(path, size)
    assert "196000000 pixels" in images.look(path)


def test_a_picture_above_what_pillow_allows_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "large.png", Image.fromarray(COLOURS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match=r"large\.png cannot be decoded.*(exceeds limit|6 x 4)"):
        decode_image(path, 8)


def folder(root, names, count=1):
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(COLOURS).save(root / name / f"{i}.png")


def test_classes_are_those_of_the_training_set(tmp_path):
    folder(tmp_path / "train", "abc")
    folder(tmp_path / "test", "ac")
    found = sources.image_folders(dir=tmp_path, image_size=4)
    assert found["train"].labels().tolist() == [0, 1, 2]
    assert found["test"].labels().tolist() == [0, 2]
    assert found["test"].info == found["train"].info
    folder(tmp_path / "validation", "bd")
    with pytest.raises(ValueError, match=r"validation has folders of classes .* not: 'd'"):
        sources.image_folders(dir=tmp_path, image_size=4)


def test_folders_without_images_and_hidden_files(tmp_path):
    folder(tmp_path, "ab")
    (tmp_path / "a" / "._0.png").write_bytes(b"of another system")
    folder(tmp_path / "b" / ".checkpoints", "x")
    folder(tmp_path / ".hidden", "x")
    source = sources.image_folder(tmp_path, image_size=4, name="set")
    assert list(source.ids) == ["set/a/0.png", "set/b/0.png"]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "0.heic").write_bytes(b"unknown")
    with pytest.raises(ValueError, match="folders of classes without images: 'c'"):
        sources.image_folder(tmp_path, image_size=4)
    sources.image_folder(tmp_path, image_size=4, class_names=tuple("abc"))


def test_a_folder_names_all_that_cannot_be_read(tmp_path):
    folder(tmp_path, "ab", 20)
    source = sources.image_folder(tmp_path, image_size=4)
    source.check()
    bad = [tmp_path / "b" / f"{i}.png" for i in range(13)]
    for path in bad:
        path.write_bytes(path.read_bytes()[:50])
    part = sources.subset(source, np.arange(4))
    with pytest.raises(ValueError, match="13 of 40 image files cannot be read") as caught:
        part.check()
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (12, "and 3 more")
    assert all(line.startswith(str(tmp_path / "b")) for line in lines[1:11])
    for path in bad:
        path.write_bytes((tmp_path / "a" / "0.png").read_bytes())
    source.check()


def test_records_of_a_stream_name_their_file(tmp_path):
    folder(tmp_path, "a", 2)
    source = sources.image_folder(tmp_path, image_size=4)
    (tmp_path / "a" / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1\.png cannot be decoded as an image"):
        source.gather(np.array([0, 1]))


def test_bytes_are_decoded_like_files():
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "PNG")
    np.testing.assert_array_equal(decode_image(file, None), COLOURS)
    with pytest.raises(ValueError, match="what was given cannot be decoded"):
        decode_image(io.BytesIO(b"x"), None)
