"""Groups the members of a tar by their keys, and decides which image belongs to which sample.

Reading and exporting use this one code, so that they agree on every sample and its position. WebDataset's rule holds: a
key ends at the first dot of the base name, and its members follow each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import xxhash
from fsspec import AbstractFileSystem

from fairdedup.datasets.filesystem import Unreadable, get_extension, to_valid_text
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.image_formats import HEAD, IMAGE_EXTENSIONS, looks_like_image
from fairdedup.datasets.images import MAX_IMAGE_BYTES
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES, SIDECAR_ENDINGS, TEXT_UNREAD
from fairdedup.datasets.tar import DamagedTar, TarMember, open_tar
from fairdedup.datasets.tar_contents import Content, FilePart, Spool
from fairdedup.datasets.tar_links import TarLinks
from fairdedup.errors import UserError

EVERY_IMAGE = "*"
"""The value of --column by which every image of a tar is a sample, and its key ends at the last dot."""

# Hidden names belong to no sample, and names without a dot only if they are images.
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)(?:\.([^/]*))?", re.DOTALL)


@dataclass(frozen=True, eq=False)
class GroupMember:
    """A member of a key.

    Attributes
    ----------
    name : str
        Its whole name.
    suffix : str
        What follows the key and its dot.
    kind : {"image", "lookalike", "sidecar", "other"}
        An image by its ending; by its first bytes alone; a caption or other file that is read; any other.
    content : InMemory, FilePart or None
        Its bytes; None if they are not needed or cannot be read.
    fault : str or None
        Why they cannot be read.
    is_cut : bool
        Whether damage of the tar is the reason.
    """

    name: str
    suffix: str
    kind: str
    content: Content | None = None
    fault: str | None = None
    is_cut: bool = False

    @property
    def ending(self) -> str:
        """The suffix in lower case."""
        return self.suffix.lower()


@dataclass
class Group:
    """The members of one key, in their order.

    Attributes
    ----------
    key : str
    members : list of GroupMember
    repeated : list of GroupMember
        Members whose suffix another member of the key has already: WebDataset refuses them.
    complete : bool
        False for the last key before a damage, which may have more members.
    """

    key: str
    members: list[GroupMember] = field(default_factory=list)
    repeated: list[GroupMember] = field(default_factory=list)
    complete: bool = True

    def __post_init__(self) -> None:
        self._by_ending: dict[str, GroupMember] = {}

    def add(self, member: GroupMember) -> None:
        """Add a member."""
        known = self._by_ending.setdefault(member.ending, member)
        (self.members if known is member else self.repeated).append(member)

    def find(self, ending: str) -> GroupMember | None:
        """Return the member with a suffix, which is given in lower case."""
        return self._by_ending.get(ending)


def read_groups(
    fs: AbstractFileSystem,
    path: str,
    column: str | None = None,
    *,
    everything: bool = False,
    findings: Findings | None = None,
) -> Iterator[Group]:
    """Yield the keys of a tar with their members, in order; the bytes of one key can be read until the next one.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The tar's path on it.
    column : str or None
        The ending of the images, in lower case and without a dot before it; `EVERY_IMAGE` for all that are known; None
        for these as well.
    everything : bool
        Whether the bytes of all members are needed, not only of images and what is read with them.
    findings : Findings or None
        Where members are counted that can belong to no key.

    Raises
    ------
    DamagedTar
        If the rest of the tar cannot be read; the key before it has been yielded.
    UserError
        If a key returns after another one.
    """
    spool, seen = Spool(), set()
    group: Group | None = None
    damage: DamagedTar | None = None
    with open_tar(fs, path) as tar, closing(spool), closing(TarLinks(tar, fs, path)) as links:
        try:
            for member in tar.members():
                names = _MEMBER.fullmatch(member.name)
                if names is None or member.kind == "folder":
                    continue
                found = _Found(member, links, column)
                if found.kind == "none" or (names[2] is None and found.kind != "lookalike"):
                    if findings is not None:
                        findings.add_unused(member.name)
                    continue
                if group is None or group.key != names[1]:
                    if group is not None:
                        yield group
                        spool.clear()
                    group = Group(names[1])
                    digest = xxhash.xxh3_128_intdigest(group.key.encode("utf-8", "surrogateescape"))
                    if digest in seen:
                        raise _explain_return(group.key, member.name, path)
                    seen.add(digest)
                group.add(found.load(spool, names[2] or "", group, everything))
        except DamagedTar as error:
            damage = error
        if group is not None:
            group.complete = damage is None
            yield group
        if damage is not None:
            raise damage


def _explain_return(key: str, name: str, path: str) -> UserError:
    return UserError(
        f"the members of key {to_valid_text(key)!r} in {path!r} do not follow each other (after another key comes "
        f"{to_valid_text(name)!r}): unpack the tar and write it again with `tar --sort=name`"
    )


class _Found:
    """A member of a tar: what it is, and where its bytes are."""

    def __init__(self, member: TarMember, links: TarLinks, column: str | None) -> None:
        self.member, self.fault = member, None
        self.part: FilePart | None = None  # the bytes behind a link
        extension = get_extension(member.name)
        self.kind = "other"
        if member.kind == "special file":
            self.kind = "none"
            return
        if member.kind != "file":
            try:
                self.part = links.find(member)
            except Unreadable as fault:
                self.fault = str(fault)
        if column not in (None, EVERY_IMAGE):
            if has_ending(member.name, column):
                self.kind = "image"
        elif extension in IMAGE_EXTENSIONS:
            self.kind = "image"
        elif extension not in SIDECAR_ENDINGS and self.fault is None and looks_like_image(self._read_head()):
            self.kind = "lookalike"
        if self.kind == "other" and extension in SIDECAR_ENDINGS:
            self.kind = "sidecar"

    def _read_head(self) -> bytes:
        return self.part.read(HEAD) if self.part is not None else self.member.read_head()

    def load(self, spool: Spool, suffix: str, group: Group, everything: bool) -> GroupMember:
        """Return the member with its bytes, if they are needed."""
        name, kind, fault = self.member.name, self.kind, self.fault
        unneeded = kind == "other" or (kind == "lookalike" and any(m.kind == "image" for m in group.members))
        if fault is not None or (unneeded and not everything):
            return GroupMember(name, suffix, kind, None, fault)
        size = self.member.size if self.part is None else self.part.size
        if kind == "sidecar":
            fault = TEXT_UNREAD if size > MAX_TEXT_BYTES else None
        elif size > MAX_IMAGE_BYTES:
            fault = f"image larger than {MAX_IMAGE_BYTES >> 20} MiB"
        place = self.part or self.member.place
        if place is not None:
            return GroupMember(name, suffix, kind, place, fault)
        if size > (MAX_IMAGE_BYTES if everything else MAX_TEXT_BYTES if kind == "sidecar" else MAX_IMAGE_BYTES):
            return GroupMember(name, suffix, kind, None, fault)  # a sparse member can claim any size at no cost
        try:
            content = self.member.load(spool)
        except Unreadable as full:
            return GroupMember(name, suffix, kind, None, str(full))
        if content is None:
            return GroupMember(name, suffix, kind, None, TEXT_UNREAD if kind == "sidecar" else "cut off", is_cut=True)
        return GroupMember(name, suffix, kind, content, fault)


def has_ending(name: str, ending: str | None) -> bool:
    """Tell whether a member's name ends in a dot and an ending, in any case."""
    return ending is not None and name.lower().endswith(f".{ending}")
