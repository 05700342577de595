"""What lies in a target folder and is no image, or is one that asks for too much."""

import logging
import os
import socket
import stat

import numpy as np
import pytest
from image_files import png16, tiff
from image_folders import png, write
from PIL import Image, ImageFile

from transferscope.data import decoding
from transferscope.data.images import image_rgb
from transferscope.data.pixel_bound import check_pixels, reduction
from transferscope.data.reading import Reading
from transferscope.data.target import load_target
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.runtime.marker import mark

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n0 0 10 10 rectfill\nshowpage\n%%EOF\n"


@pytest.fixture
def no_programs(monkeypatch):
    """Fail where a program is started."""

    def start(*arguments, **options):
        raise AssertionError(f"a program was started: {arguments}")

    monkeypatch.setattr("subprocess.Popen.__init__", start)
    monkeypatch.setattr("os.system", start)


@pytest.mark.parametrize("data", [POSTSCRIPT, b"%PDF-1.4\n", b"\xd7\xcd\xc6\x9a" + bytes(60)])
def test_a_picture_that_is_a_program_is_no_image(data, no_programs):
    for read in (Reading().decode, decoding.look_at, decoding.read_raster):
        with pytest.raises(InputError, match="no image in a format that is read: JPEG, PNG"):
            read(data)


def test_a_program_opened_by_someone_else_is_not_run(tmp_path, no_programs):
    (tmp_path / "a.eps").write_bytes(POSTSCRIPT)
    with Image.open(tmp_path / "a.eps") as image:
        for read in (image_rgb, decoding.image_raster):
            with pytest.raises(InputError, match="PostScript"):
                read(image)


def test_pipes_devices_and_sockets_are_never_opened(tmp_path, caplog, monkeypatch):
    root = write(tmp_path / "root", "a*3", "b*3")
    os.mkfifo(root / "a" / "pipe.png")
    os.mkfifo(tmp_path / "outside")
    (root / "a" / "link.png").symlink_to(tmp_path / "outside")
    (root / "a" / "zeros.png").symlink_to("/dev/zero")
    monkeypatch.chdir(root / "b")  # for a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        opened = []
        real = os.open
        monkeypatch.setattr("os.open", lambda path, *rest, **more: opened.append(path) or real(path, *rest, **more))
        with caplog.at_level(logging.INFO):
            target = load_target(root)
    assert len(target) == 6
    assert "left out: 4" in caplog.text
    assert opened
    assert all(stat.S_ISREG(os.stat(path).st_mode) for path in opened)


def test_folders_of_results_are_no_classes(tmp_path):
    root = write(tmp_path / "root", "a*3", "b*3", "x/deep*2", "c/old/pictures*4", "c*2")
    mark(root / "x")
    mark(root / "c" / "old")
    mark(root)  # written with -o . it stays a target
    with pytest.warns(TransferscopeWarning, match=r"c/old, x of .* are left out, for they hold results"):
        target = load_target(root)
    assert target.classes == ("a", "b", "c")
    assert np.bincount(target.labels).tolist() == [3, 3, 2]


def test_folders_too_deep_are_an_error(tmp_path):
    root = write(tmp_path / "root", "a*3", "b*3")
    here = os.getcwd()
    os.chdir(root)
    try:
        for _ in range(150):  # not more, for pytest cleans up by recursion
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    with pytest.raises(InputError, match=r"more than 100 deep, such as d/d/d/…; move them away"):
        load_target(root)


@pytest.mark.parametrize(
    ("size", "held", "divisor"),
    [((6000, 5000), False, 1), ((6001, 5000), False, 2), ((13000, 13000), False, 4), ((30000, 30000), False, 8),
     ((7000, 7000), True, 2), ((8000, 8000), True, 1)],
)  # fmt: skip
def test_a_large_jpeg_is_decoded_smaller(size, held, divisor):
    assert reduction(*size, held=held) == divisor


def saved(image, kind, **options):
    import io

    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_large_jpeg_shows_the_same(monkeypatch):
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 200, dtype=np.uint8), (160, 1))).convert("RGB")
    data = saved(ramp, "JPEG", quality=95)
    whole = Reading().decode(data)
    monkeypatch.setenv("TRANSFERSCOPE_MAX_MEGAPIXELS", "0.03")
    small = Reading().decode(data)
    assert whole.size == (200, 160)
    assert small.size == (100, 80)
    expected = np.asarray(whole.resize(small.size, Image.Resampling.BOX), int)
    assert np.abs(np.asarray(small, int) - expected).max() <= 3


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.new("RGB", (40, 40)), "PNG"), saved(Image.new("RGB", (40, 40)), "WEBP"),
        saved(Image.new("L", (40, 40)), "BMP"), saved(Image.new("P", (40, 40)), "GIF"),
        saved(Image.new("RGB", (40, 40)), "PPM"), saved(Image.new("RGB", (20, 20)), "JPEG2000"),
        saved(Image.new("RGB", (60, 60)), "JPEG", progressive=True),
        png16(np.zeros((26, 26, 4), int)), tiff(np.zeros((20, 20, 9), "<u2")), tiff(np.zeros((40, 40, 3), "u1")),
    ],
)  # fmt: skip
def test_other_large_images_are_refused_before_they_are_decoded(data, monkeypatch):
    Reading().decode(data) if b"II*" not in data[:3] else decoding.read_raster(data)
    monkeypatch.setenv("TRANSFERSCOPE_MAX_MEGAPIXELS", "0.0008")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(InputError, match=r"are more than the 0\.000\d+ megapixels that are read; .*MAX_MEGAPIXELS"):
        decoding.read_raster(data)


def test_the_bound_is_a_number(monkeypatch):
    for text in ("many", "0", "-3", "nan", "1e9"):
        monkeypatch.setenv("TRANSFERSCOPE_MAX_MEGAPIXELS", text)
        with pytest.raises(InputError, match=f"must be a number above 0 and below a million, but is '{text}'"):
            check_pixels(1, 1)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    root = write(tmp_path / "root", "a*30", "b*30")
    with open(root / "a" / "huge.png", "wb") as file:
        file.write(png(3))
        file.truncate(2**40)
    with pytest.warns(TransferscopeWarning, match=r"huge\.png \(.*cannot be read: its 1099511627776 bytes are more"):
        assert len(load_target(root)) == 60
