"""Folders and zips of pictures, and CelebA: exact pixels, and one message for each way to be broken."""

import io

import numpy as np
import pytest
import torch
from data_files import COLOUR, GREY, NCHW, RNG, TRAIN, png, refuses, write, write_zip
from PIL import Image

from langevin_ext.data import common, folder, open_dataset

# Folders and zips


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_pictures_in_the_order_of_names(tmp_path, container):
    files = {f"{i:02}.png": png(COLOUR[i]) for i in reversed(range(23))}
    files |= {".hidden.png": b"x", "__MACOSX/00.png": b"x", "notes.txt": b"x"}
    path = write(tmp_path / "faces", files) if container == "folder" else write_zip(tmp_path / "faces.zip", files)
    data = open_dataset(path)
    assert torch.equal(data.images, NCHW[TRAIN]) and data.labels is None
    assert torch.equal(data.split("test").images, NCHW[[9, 19]])
    assert torch.equal(data.split("all").images, NCHW)
    assert torch.equal(open_dataset(f"{container}:{path}", limit=3).images, NCHW[:3])
    assert data.name == f"{container}:{path.name}"


def test_every_lossless_format_and_mode(tmp_path):
    grey, colour = GREY[0], COLOUR[0]
    Image.fromarray(colour).save(tmp_path / "a.bmp")
    Image.fromarray(colour).save(tmp_path / "b.TIFF")
    Image.fromarray(colour).save(tmp_path / "c.webp", lossless=True)
    Image.fromarray(grey).save(tmp_path / "d.tif")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "e.png")  # 16 bits: v 257 is v in 8 bits
    Image.fromarray(grey > 127).save(tmp_path / "f.png")  # 1 bit
    palette = Image.fromarray(grey).convert("P")
    palette.putpalette(bytes(range(256)) * 3)
    palette.save(tmp_path / "g.png")
    images = open_dataset(tmp_path, split="all").images.numpy().transpose(0, 2, 3, 1)
    for i in range(3):
        assert (images[i] == colour).all()
    for i in (3, 4):
        assert (images[i] == grey[..., None]).all()
    assert (images[5] == 255 * (grey > 127)[..., None]).all()
    assert (images[6] == np.asarray(palette.convert("RGB"))).all()


def test_16_bit_grey_is_rounded_to_the_nearest_byte(tmp_path):
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(16, 64)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (open_dataset(tmp_path).images[0, 0].numpy() == np.rint(values / 257)).all()


def test_transparency_becomes_white(tmp_path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0], pixels[0, :, 3] = 200, (0, 255, 51)
    write(tmp_path, {"a.png": png(pixels)})
    assert open_dataset(tmp_path).images[0].tolist() == [[[255, 200, 244]], [[255, 0, 204]], [[255, 0, 204]]]


def test_exif_orientation_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    write(tmp_path, {"a.png": png(GREY[0], exif=exif)})
    assert (open_dataset(tmp_path).images[0, 0].numpy() == np.rot90(GREY[0], -1)).all()


def test_jpeg_is_near_its_source(tmp_path):
    ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(open_dataset(tmp_path).images[0, 0].numpy().astype(int) - ramp).max() <= 4


def test_subfolders_are_labels_and_shared_folders_are_not(tmp_path):
    files = {f"photos/{c}/{i}.png": png(GREY[i]) for i, c in enumerate(["dog", "cat", "dog", "ant"])}
    data = open_dataset(write_zip(tmp_path / "a.zip", files))
    assert data.labels.tolist() == [0, 1, 2, 2]
    assert (data.images[:, 0].numpy() == GREY[[3, 1, 0, 2]]).all()
    one_class = {name: content for name, content in files.items() if "dog" in name}
    assert open_dataset(write(tmp_path / "b", one_class)).labels is None


def test_train_and_test_folders_are_the_splits(tmp_path):
    places = ["train/b/0", "train/a/1", "test/a/2", "train/b/3"]
    data = open_dataset(write(tmp_path, {f"{p}.png": png(GREY[i]) for i, p in enumerate(places)}))
    assert (data.images[:, 0].numpy() == GREY[[1, 0, 3]]).all() and data.labels.tolist() == [0, 1, 1]
    test = data.split("test")
    assert (test.images[:, 0].numpy() == GREY[[2]]).all() and test.labels.tolist() == [0]
    assert (data.split("all").images[:, 0].numpy() == GREY[[2, 1, 0, 3]]).all()


def test_size_crops_the_centre_and_averages_blocks(tmp_path):
    wide = RNG.integers(0, 256, (4, 11), dtype=np.uint8)
    write(tmp_path, {"a.png": png(wide)})
    square = wide[:, 3:7].astype(int).reshape(2, 2, 2, 2).sum((1, 3))
    assert (open_dataset(tmp_path, 2).images[0, 0].numpy() == (square + 2) // 4).all()
    pair = wide[:, 1:9].astype(int).reshape(2, 2, 4, 2).sum((1, 3))
    assert (open_dataset(tmp_path, (2, 4)).images[0, 0].numpy() == (pair + 2) // 4).all()
    assert (open_dataset(tmp_path, (4, 11)).images[0, 0].numpy() == wide).all()


def test_other_ratios_are_antialiased_and_enlargements_interpolate(tmp_path):
    """Stripes of one pixel average to grey when shrunk by 2.5; a ramp stays a ramp when enlarged."""
    stripes = np.tile(np.array([0, 255], np.uint8), (40, 20))
    write(tmp_path / "stripes", {"a.png": png(stripes)})
    # The triangle filter passes sinc(1.25)^2 = 3.2% of the stripes, 4.1 grey values, and rounds twice by up to 1/2;
    # at the first and last column half of it is cut off.
    shrunk = open_dataset(tmp_path / "stripes", 16).images[0, 0, :, 1:-1].float()
    assert (shrunk - 127.5).abs().max() < 6
    write(tmp_path / "ramp", {"a.png": png(np.tile(np.arange(8, dtype=np.uint8) * 20, (8, 1)))})
    inner = open_dataset(tmp_path / "ramp", 16).images[0, 0, 5, 4:12].diff()
    assert inner.tolist() == [10] * 7


def test_channels_convert(tmp_path):
    write(tmp_path, {"a.png": png(COLOUR[0]), "b.png": png(GREY[1])})
    both = open_dataset(tmp_path).images
    assert torch.equal(both[0], NCHW[0]) and (both[1].numpy() == GREY[1]).all()
    grey = open_dataset(tmp_path, channels=1).images
    luma = COLOUR[0] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[0, 0].numpy() - luma).max() <= 0.51 and (grey[1, 0].numpy() == GREY[1]).all()
    array = tmp_path / "a.npy"
    np.save(array, COLOUR[:1])
    assert torch.equal(open_dataset(array, channels=1).images[0], grey[0])


def test_pictures_refused(tmp_path, monkeypatch):
    good, other = png(COLOUR[0]), png(GREY[0])
    case = iter(range(99))

    def files(**content):
        return write(tmp_path / str(next(case)), {name.replace("_", "."): data for name, data in content.items()})

    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", r"empty: expected pictures \(png jpg .*\), got none")
    refuses(files(a_png=good, b_png=good[:60]), r"b\.png: expected a readable picture, got .*truncated")
    refuses(files(a_png=b"hello"), r"a\.png: expected a readable picture, got no known picture format")
    refuses(files(a_png=b""), r"a\.png: expected a readable picture, got")
    refuses(files(a_png=good, b_png=png(COLOUR[0][:5])), r"b\.png: expected 6 x 4 .*give size=\), got 5 x 4")
    refuses(files(a_png=other, b_png=good), r"b\.png: expected a grey picture .*channels=3\), got a coloured one")
    refuses(files(a_png=good), r"expected images in the 'test' split, got none", split="test")
    tiff = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tiff, "TIFF")
    refuses(files(a_tif=tiff.getvalue()), r"a\.tif: .*floating-point pixels")
    monkeypatch.setattr(common, "MAX_BYTES", 100)
    refuses(files(a_png=good, b_png=good), r"expected at most .* GiB of pixels \(give limit=.*\), got 144 bytes")
    assert len(open_dataset(files(a_png=good, b_png=good), limit=1)) == 1


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    write(tmp_path, {"a.png": png(GREY[0])})
    for limit in (23, 11):  # Pillow warns above its limit, and raises above twice its limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        refuses(tmp_path, r"a\.png: expected a readable picture, got too many pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24)
    assert len(open_dataset(tmp_path)) == 1


def test_zips_refused(tmp_path, monkeypatch):
    good = write_zip(tmp_path / "good.zip", {"a.png": png(COLOUR[0])}).read_bytes()
    broken = bytearray(good)
    broken[60] ^= 0xFF
    write(tmp_path, {"cut.zip": good[:-30], "text.zip": b"hello", "crc.zip": bytes(broken)})
    refuses(tmp_path / "cut.zip", r"cut\.zip: expected a folder or a zip archive of pictures, got .*not a zip")
    refuses(tmp_path / "text.zip", r"text\.zip: expected a folder or a zip archive of pictures")
    refuses(tmp_path / "crc.zip", r"crc\.zip/a\.png: expected an intact, unencrypted archive member")
    refuses(write_zip(tmp_path / "none.zip", {"a.txt": b"x"}), r"none\.zip: expected pictures")
    monkeypatch.setattr(folder, "MAX_PICTURE_BYTES", 10)
    refuses(tmp_path / "good.zip", r"good\.zip/a\.png: expected a picture file of at most 10 bytes, got \d+ bytes")


# CelebA


def celeba_faces(n):
    return RNG.integers(0, 256, (n, 218, 178, 3), dtype=np.uint8)


def test_celeba_crops_140_and_follows_its_partition(tmp_path):
    faces = celeba_faces(4)
    files = {f"img_align_celeba/{i:06}.png": png(face) for i, face in enumerate(faces)}
    parts = "".join(f"{i:06}.png {part}\n" for i, part in enumerate([2, 0, 1, 0]))
    write(tmp_path, files | {"list_eval_partition.txt": parts.encode()})
    crop = faces[:, 39:179, 19:159].astype(int)
    data = open_dataset(f"celeba:{tmp_path}", 140)
    assert (data.images.numpy() == crop[[1, 3]].transpose(0, 3, 1, 2)).all()
    assert (data.split("test").images.numpy() == crop[[0]].transpose(0, 3, 1, 2)).all()
    assert len(data.split("all")) == 4
    small = open_dataset(f"celeba:{tmp_path}")
    face = Image.fromarray(faces[1]).crop((19, 39, 159, 179)).resize((64, 64), Image.Resampling.BILINEAR)
    assert (small.images[0].numpy() == np.asarray(face).transpose(2, 0, 1)).all()


def test_celeba_zip_without_partition(tmp_path):
    faces = celeba_faces(10)
    write_zip(tmp_path / "img_align_celeba.zip", {f"{i}.png": png(face) for i, face in enumerate(faces)})
    test = open_dataset(f"celeba:{tmp_path}", 140, split="test")
    assert (test.images.numpy() == faces[[9], 39:179, 19:159].transpose(0, 3, 1, 2)).all()


def test_celeba_refused(tmp_path):
    write(tmp_path, {"a.png": png(np.zeros((218, 139), np.uint8))})
    refuses(f"celeba:{tmp_path}", r"a\.png: expected at least 140 x 140 pixels, got 218 x 139")
    write(tmp_path, {"list_eval_partition.txt": b"a.png 0\nb.png train\n"})
    refuses(f"celeba:{tmp_path}", r"list_eval_partition\.txt: expected lines like .*, got line 2: 'b.png train'")
