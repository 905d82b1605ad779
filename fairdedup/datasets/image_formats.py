"""Which image files are read, and how one is recognised: by its extension or its first bytes. Nothing is decoded here.

Pillow knows about forty formats. Those below are common for photographs and decoded within the process by libraries
that are fuzzed and kept up: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIF, JPEG 2000, PNM, ICO and TGA. Never read are
formats that start other programs or are programs themselves (EPS and PDF: Ghostscript), that only pass data on to
plug-ins (WMF, GRIB, HDF5, BUFR, MPEG, FITS), and rare ones whose decoders have had many faults (PSD, FLI, PCX, DDS).
"""

from __future__ import annotations

import re

IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "jpe", "jfif", "jif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"),
    *("avif", "avifs", "heic", "heics", "heif", "heifs", "hif", "jp2", "j2k", "jpf", "jpx", "jpc", "j2c"),
    *("ppm", "pgm", "pbm", "pnm", "pfm", "ico", "tga"),
)
"""Extensions of image files, in lower case and without the dot; what a file is, its bytes decide."""

HEAD = 64
"""Number of first bytes by which a file is recognised."""

HEIF_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"))
"""Brands of HEIF files; those of AVIF files that name a general brand are decoded as AVIF."""

_BEGINNINGS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF, BigTIFF
    b"\xff\x4f\xff\x51\0",  # JPEG 2000, its code stream alone
    b"\0\0\0\x0cjP  \r\n\x87\n",  # JPEG 2000
)
_PNM = re.compile(rb"P(?:[1-6]|[fF])(?:\s|#)\s*(?:#|[0-9])")
_ICON = re.compile(rb"\x00\x00\x01\x00[\x01-\x40]\x00..[\x00-\xff]\x00[\x00\x01]\x00[\x00-\x20]\x00", re.DOTALL)
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of the second header of a BMP file


def find_brand(head: bytes) -> bytes | None:
    """Return the brand of an ISO media file, such as AVIF, HEIF and MP4; None for other files."""
    return head[8:12] if head[4:8] == b"ftyp" else None


def looks_like_image(head: bytes) -> bool:
    """Tell whether a file begins as an image does that can be read; TGA has no mark and is known by its name only.

    Parameters
    ----------
    head : bytes
        The first 64 bytes (`HEAD`), or all of a shorter file.
    """
    if head.startswith(_BEGINNINGS):
        return True
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head.startswith(b"BM"):
        return int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS and len(head) >= 26
    brand = find_brand(head)
    if brand is not None:
        return brand in (b"avif", b"avis") or brand in HEIF_BRANDS
    return _PNM.match(head) is not None or _ICON.match(head) is not None
