"""The few chunks and headers of image files that are read here, before Pillow: text in PNG files, sizes in icons."""

from __future__ import annotations

from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
ICON = b"\0\0\1\0"
_SMALL = 64 << 10  # bytes of text that may hold the orientation of a picture
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def list_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yield name, contents and all bytes of each chunk of a PNG file, up to the first that is cut off."""
    view, at = memoryview(data), len(PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 4 : at + 8], view[at + 8 : end - 4], view[at:end]
        at = end


def drop_large_text(data: bytes) -> bytes:
    """Return a PNG file without colour profiles, compressed texts, and texts of more than 64 KiB.

    Nothing is decompressed, so a bomb in a text costs nothing. None of it changes the pixels; an orientation in a small
    plain text is kept.

    Parameters
    ----------
    data : bytes
        A PNG file, perhaps a damaged one.
    """
    kept = [memoryview(PNG)]
    end = len(PNG)
    for name, contents, whole in list_chunks(data):
        end += len(whole)
        small = name in (b"tEXt", b"iTXt") and len(contents) <= _SMALL and not _is_compressed(name, bytes(contents))
        if name not in _TEXTS or small:
            kept.append(whole)
    return b"".join([*kept, memoryview(data)[end:]])


def _is_compressed(name: bytes, contents: bytes) -> bool:
    return name == b"iTXt" and contents.partition(b"\0")[2][:1] != b"\0"


def list_icon_sizes(data: bytes) -> list[tuple[int, int]]:
    """Return the sizes that the pictures in an icon file (ICO) claim; Pillow decodes the first one to open it."""
    if not data.startswith(ICON):
        return []
    sizes = []
    for k in range(min(int.from_bytes(data[4:6], "little"), 1024)):
        at = int.from_bytes(data[18 + 16 * k : 22 + 16 * k], "little")
        head = data[at : at + 24]
        if head.startswith(PNG):
            sizes.append((int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")))
        else:
            width = int.from_bytes(head[4:8], "little", signed=True)
            height = int.from_bytes(head[8:12], "little", signed=True)
            sizes.append((abs(width), abs(height) // 2))
    return sizes
