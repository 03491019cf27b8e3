"""Uncompressed TIFF images, written and read (Adobe, TIFF Revision 6.0, 1992; section numbers below).

What cameras write: one image, 8 or 16 bits, grey or RGB, in strips, in either byte order. Anything else is refused by
name. (8-bit grey and RGB are baseline TIFF; 16-bit samples are allowed by section 8, BitsPerSample.)
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, SAMPLE_FORMAT = 282, 283, 284, 296, 339
"""Tags (section 8; SampleFormat: section 19)."""
SHORT, LONG, RATIONAL = 3, 4, 5
"""Types of field values (section 2)."""
_STRUCT = {1: "B", SHORT: "H", LONG: "I"}
STRIP_TARGET = 8192
"""Bytes of a strip, about, as section 3 recommends."""


def write(path: Path, image: np.ndarray) -> None:
    """Write a grey image (rows, columns), uint8 or uint16, under its name only once it is complete.

    Little-endian: header, strips, directory, and the values that do not fit into it (section 2).
    """
    rows, columns = image.shape
    bits = 8 * image.dtype.itemsize
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path}: an image of {image.dtype}; it must be uint8 or uint16")
    per_strip = max(1, min(rows, STRIP_TARGET // (columns * bits // 8)))
    strips = [image[top : top + per_strip].astype(f"<u{bits // 8}").tobytes() for top in range(0, rows, per_strip)]
    offsets = np.cumsum([8, *map(len, strips)]).tolist()
    directory = offsets[-1] + offsets[-1] % 2  # on a word boundary
    fields = [
        (WIDTH, LONG, [columns]),
        (LENGTH, LONG, [rows]),
        (BITS, SHORT, [bits]),
        (COMPRESSION, SHORT, [1]),  # none
        (PHOTOMETRIC, SHORT, [1]),  # black is zero
        (STRIP_OFFSETS, LONG, offsets[:-1]),
        (SAMPLES, SHORT, [1]),
        (ROWS_PER_STRIP, LONG, [per_strip]),
        (STRIP_BYTES, LONG, [len(s) for s in strips]),
        (X_RESOLUTION, RATIONAL, [1, 1]),
        (Y_RESOLUTION, RATIONAL, [1, 1]),
        (RESOLUTION_UNIT, SHORT, [1]),  # none
    ]
    entries, values = b"", b""
    after = directory + 2 + 12 * len(fields) + 4
    for tag, kind, content in fields:
        packed = struct.pack(f"<{len(content)}{'H' if kind == SHORT else 'I'}", *content)
        count = len(content) // 2 if kind == RATIONAL else len(content)
        if len(packed) > 4:
            values, packed = values + packed, struct.pack("<I", after + len(values))
        entries += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(struct.pack("<2sHI", b"II", 42, directory) + b"".join(strips).ljust(directory - 8, b"\0"))
        file.write(struct.pack("<H", len(fields)) + entries + struct.pack("<I", 0) + values)
    os.replace(part, path)


def read(path: Path) -> np.ndarray:
    """The first image of a file: (rows, columns) or (rows, columns, 3), uint8 or uint16.

    Raises ValueError naming file and field if it is not what this module reads.
    """
    content = path.read_bytes()
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or len(content) < 8 or struct.unpack_from(f"{order}H", content, 2)[0] != 42:
        raise ValueError(f"{path}: header: not a TIFF file")
    try:
        fields = _directory(content, order)
    except struct.error:
        raise ValueError(f"{path}: directory: the file is cut short") from None

    def field(name: str, tag: int, *allowed: int, default: int | None = None) -> int:
        value = fields.get(tag, (default,))[0]
        if value is None:
            raise ValueError(f"{path}: {name}: missing")
        if allowed and value not in allowed:
            raise ValueError(f"{path}: {name}: {value}; it must be {' or '.join(map(str, allowed))}")
        return value

    columns, rows = field("ImageWidth", WIDTH), field("ImageLength", LENGTH)
    samples = field("SamplesPerPixel", SAMPLES, 1, 3, default=1)
    bits = field("BitsPerSample", BITS, 8, 16, default=1)
    field("Compression", COMPRESSION, 1, default=1)
    field("PhotometricInterpretation", PHOTOMETRIC, 1 if samples == 1 else 2)
    field("PlanarConfiguration", PLANAR, 1, default=1)
    field("SampleFormat", SAMPLE_FORMAT, 1, default=1)
    field("StripOffsets", STRIP_OFFSETS)
    field("StripByteCounts", STRIP_BYTES)
    strips = zip(fields[STRIP_OFFSETS], fields[STRIP_BYTES], strict=False)
    pixels = b"".join(content[at : at + size] for at, size in strips)
    expected = rows * columns * samples * bits // 8
    if len(pixels) != expected:
        raise ValueError(f"{path}: strips: {len(pixels)} bytes; {rows} × {columns} pixels have {expected}")
    image = np.frombuffer(pixels, f"{order}u{bits // 8}").astype(f"u{bits // 8}")
    return image.reshape((rows, columns) if samples == 1 else (rows, columns, samples))


def _directory(content: bytes, order: str) -> dict[int, tuple[int, ...]]:
    """Whole-number fields of the first directory, by tag (section 2); others are passed over."""
    at = struct.unpack_from(f"{order}I", content, 4)[0]
    fields = {}
    for entry in range(struct.unpack_from(f"{order}H", content, at)[0]):
        place = at + 2 + 12 * entry
        tag, kind, count = struct.unpack_from(f"{order}HHI", content, place)
        if kind in _STRUCT:
            form = f"{order}{count}{_STRUCT[kind]}"
            inside = struct.calcsize(form) <= 4
            fields[tag] = struct.unpack_from(
                form, content, place + 8 if inside else struct.unpack_from(f"{order}I", content, place + 8)[0]
            )
    return fields
