"""Reads members of zip archives, and tells damage of an archive from a fault of the disk or the network."""

from __future__ import annotations

import errno
import lzma
import struct
import zipfile
import zlib

from fairdedup.datasets.filesystem import Unreadable

ENCRYPTED = 1  # flag of a member
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, IndexError, NotImplementedError),
)


def is_zip_damage(error: BaseException) -> bool:
    """Tell whether an exception of zipfile means that the archive is damaged; a lack of data otherwise is no such."""
    if type(error) is OSError:  # of bz2, and of a seek to before the file's first byte
        return error.errno == errno.EINVAL or (error.errno is None and "data stream" in str(error))
    return isinstance(error, _DAMAGE) or type(error) is RuntimeError  # of a member that needs a password


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return the bytes of a member of a zip archive.

    Parameters
    ----------
    archive : ZipFile
        The archive.
    name : str
        The member.
    limit : int
        Largest number of bytes to read.

    Raises
    ------
    Unreadable
        If the member is missing, too large, encrypted, damaged, or compressed by a method that Python does not know.
    """
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise Unreadable("file is missing in the zip archive") from None
    if member.file_size > limit:
        raise Unreadable(f"file larger than {limit >> 20} MiB")
    if member.flag_bits & ENCRYPTED:
        raise Unreadable("encrypted in the zip archive")
    if member.compress_type not in METHODS:
        raise Unreadable(f"compressed by method {member.compress_type} of zip, which cannot be read")
    try:
        return archive.read(member)
    except Exception as error:
        if not is_zip_damage(error):
            raise
        raise Unreadable("damaged in the zip archive") from None


def read_first_bytes(archive: zipfile.ZipFile, name: str, count: int) -> bytes:
    """Return the first bytes of a member; none of a member that is damaged or that Python cannot read."""
    try:
        with archive.open(name) as file:
            return file.read(count)
    except Exception as error:
        if not is_zip_damage(error):
            raise
        return b""
