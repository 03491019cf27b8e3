"""TIFF images against Pillow, in both directions, and by the bytes of the specification."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from sciml_hpc.benchmarks.optical_damage import tiff


def grey(dtype: type, shape: tuple[int, int] = (49, 65)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(492, 656), (49, 65), (1, 1), (3, 9001)])
def test_what_is_written_is_read(tmp_path: Path, dtype: type, shape: tuple[int, int]) -> None:
    image = grey(dtype, shape)
    tiff.write(tmp_path / "a.TIFF", image)
    found = tiff.read(tmp_path / "a.TIFF")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.TIFF"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pillow_reads_what_we_write(tmp_path: Path, dtype: type) -> None:
    Image = pytest.importorskip("PIL.Image")
    image = grey(dtype, (492, 656))
    tiff.write(tmp_path / "a.TIFF", image)
    with Image.open(tmp_path / "a.TIFF") as opened:
        assert opened.mode == ("L" if dtype is np.uint8 else "I;16")
        np.testing.assert_array_equal(np.array(opened), image)


@pytest.mark.parametrize("mode", ["L", "I;16", "I;16B", "RGB"])
def test_we_read_what_pillow_writes(tmp_path: Path, mode: str) -> None:
    Image = pytest.importorskip("PIL.Image")
    if mode == "RGB":
        image = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "a.tif")
    else:
        image = grey(np.uint8 if mode == "L" else np.uint16)
        stored = image.astype(">u2") if mode == "I;16B" else image
        Image.frombytes(mode, (65, 49), stored.tobytes()).save(tmp_path / "a.tif")
    found = tiff.read(tmp_path / "a.tif")
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, image)


def test_compressed_images_are_refused_by_name(tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    Image.fromarray(grey(np.uint8)).save(tmp_path / "a.tif", compression="packbits")
    with pytest.raises(ValueError, match=r"a\.tif: Compression: 32773; it must be 1"):
        tiff.read(tmp_path / "a.tif")


def by_hand(order: str, changed: dict[int, tuple[int, int, int]] | None = None) -> bytes:
    """A 2 × 3 image of 16 bits in one strip, as section 2 of the specification lays it out; fields may be changed."""
    pixels = struct.pack(f"{order}6H", 1, 2, 3, 40000, 5, 65535)
    fields = {256: (3, 1, 3), 257: (3, 1, 2), 258: (3, 1, 16), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8)}
    fields |= {278: (3, 1, 2), 279: (4, 1, 12), **(changed or {})}
    header = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(pixels))
    directory = struct.pack(f"{order}H", len(fields))
    for tag, (kind, count, value) in sorted(fields.items()):
        short = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
        directory += struct.pack(f"{order}HHI", tag, kind, count) + short
    return header + pixels + directory + struct.pack(f"{order}I", 0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_bytes_of_the_specification_in_either_order(tmp_path: Path, order: str) -> None:
    (tmp_path / "a.tif").write_bytes(by_hand(order))
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif"), [[1, 2, 3], [40000, 5, 65535]])


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({258: (3, 1, 32)}, "BitsPerSample: 32; it must be 8 or 16"),
        ({262: (3, 1, 0)}, "PhotometricInterpretation: 0; it must be 1"),
        ({277: (3, 1, 4)}, "SamplesPerPixel: 4; it must be 1 or 3"),
        ({339: (3, 1, 3)}, "SampleFormat: 3; it must be 1"),
        ({257: (3, 1, 3)}, "strips: 12 bytes; 3 × 3 pixels have 18"),
        ({273: (4, 1, 1000)}, "strips: 0 bytes; 2 × 3 pixels have 12"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, field: dict[int, tuple[int, int, int]], message: str) -> None:
    (tmp_path / "a.tif").write_bytes(by_hand("<", field))
    with pytest.raises(ValueError, match=rf"a\.tif: {message}"):
        tiff.read(tmp_path / "a.tif")


@pytest.mark.parametrize("content", [b"", b"II*", b"P5 2 2 255", by_hand("<")[:30], by_hand("<")[:-60]])
def test_no_tiff_or_cut_short(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tif: (header: not a TIFF file|directory: the file is cut short)"):
        tiff.read(tmp_path / "a.tif")


def test_other_arrays_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.tif: an image of float32; it must be uint8 or uint16"):
        tiff.write(tmp_path / "a.tif", np.zeros((2, 2), np.float32))
