"""Decides which image of a key is a sample, with which captions and metadata, and which files are exported with it."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from fairdedup.datasets.dataset import Metadata
from fairdedup.datasets.filesystem import to_valid_text
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.reserved_columns import rename_reserved
from fairdedup.datasets.sidecars import CAPTION_ENDINGS, combine_sidecars, parse_class, parse_json
from fairdedup.datasets.tar_members import EVERY_IMAGE, Group, GroupMember
from fairdedup.errors import UserError, format_count

LISTED_ENDINGS = 6  # endings that a message lists


@dataclass(frozen=True)
class TarSample:
    """A sample of a tar.

    Attributes
    ----------
    key : str
        Its key.
    image : GroupMember or None
        Its image.
    error : str or None
        Why the image cannot be used.
    text, cls : GroupMember or None
        Its caption, and its class.
    json : tuple of GroupMember
        Its metadata, the closest to the image first.
    files : tuple of (str, GroupMember)
        Everything that belongs to it, each with the suffix that it gets after the key.
    """

    key: str
    image: GroupMember | None
    error: str | None
    text: GroupMember | None
    cls: GroupMember | None
    json: tuple[GroupMember, ...]
    files: tuple[tuple[str, GroupMember], ...]

    def read_sidecars(self) -> tuple[str | None, Metadata]:
        """Return the caption and the metadata."""
        notes: Metadata = {}
        text = _read(self.text, "caption_error", notes)
        columns: Metadata = {}
        for member in self.json:
            data = _read(member, "json_error", notes)
            columns = _merge(columns, parse_json(data) if data is not None else {})
        data = _read(self.cls, "cls_error", notes)
        return combine_sidecars(text, columns, (parse_class(data) if data is not None else {}) | notes)


def _read(member: GroupMember | None, note: str, notes: Metadata) -> bytes | None:
    if member is None:
        return None
    if member.content is None or member.fault is not None:
        notes[note] = member.fault
        return None
    return member.content.read()


def _merge(columns: Metadata, shared: Metadata) -> Metadata:
    """Add the metadata that several images share; a column that the image has with another value gets another name."""
    new = {name: value for name, value in shared.items() if columns.get(name, not value) != value}
    names = rename_reserved(new, columns.keys(), prefix="key_")
    return columns | {names[name]: value for name, value in new.items()}


def split_group(group: Group, column: str | None, shard: str) -> list[TarSample]:
    """Return the samples of a key, in the order of its members.

    Parameters
    ----------
    group : Group
        The members of the key.
    column : str or None
        As in `read_groups`.
    shard : str
        The tar, for messages.

    Raises
    ------
    UserError
        If several images could be meant.
    """
    images = [m for m in group.members if m.kind == "image"] or [m for m in group.members if m.kind == "lookalike"]
    if column == EVERY_IMAGE:
        return _several(group, _stems(images)) or [_whole(group, None)]
    if column is not None:
        images = [m for m in images if m.ending == column] or images
        if not images:
            return [
                _whole(
                    group,
                    None,
                    f"no member of the key ends in .{column} (--column), but {_list_endings(group.members)}",
                )
            ]
        if len(images) > 1:
            return _several(group, [(image, image.suffix[: -len(column) - 1]) for image in images])
    plain = [image for image in images if "." not in image.suffix]
    if len(images) < 2 or len(plain) == 1:
        return [_whole(group, next(iter(plain or images), None))]
    found = _stems(images)
    if plain or not all(_is_numbered(image, stem) for image, stem in found):
        raise UserError(
            f"key {to_valid_text(group.key)!r} in {shard} has several images, {_list_endings(images)}: choose one with "
            f"--column {to_valid_text(images[0].ending) or 'ENDING'}, or take each image as a sample of its own with "
            f"--column '{EVERY_IMAGE}'"
        )
    return _several(group, found)


def _list_endings(members: Sequence[GroupMember]) -> str:
    names = [f".{to_valid_text(m.ending)}" if m.suffix else "one without ending" for m in members]
    more = f" and {format_count(len(names) - LISTED_ENDINGS, 'other')}" if len(names) > LISTED_ENDINGS else ""
    return ", ".join(names[:LISTED_ENDINGS]) + more


def _is_numbered(image: GroupMember, stem: str) -> bool:
    return stem[:1].isdigit() and stem != image.suffix


def _stems(images: Sequence[GroupMember]) -> list[tuple[GroupMember, str]]:
    """Return each image with what tells it from the others: its suffix up to the last dot, else all of it."""
    stems = [posixpath.splitext(f"_.{image.suffix}")[0][2:] for image in images]
    lowered = [stem.lower() for stem in stems]
    repeated = {stem for stem in lowered if lowered.count(stem) > 1} if len(set(lowered)) < len(lowered) else set()
    return [(image, image.suffix if own.lower() in repeated else own) for image, own in zip(images, stems, strict=True)]


def _whole(group: Group, image: GroupMember | None, error: str | None = None) -> TarSample:
    """Return the sample to which all members of a key belong."""
    files = [(member.suffix, member) for member in group.members]
    return _make(group, group.key, image, files, ["", *_prefixes(image)], error)


def _several(group: Group, stems: Sequence[tuple[GroupMember, str]]) -> list[TarSample]:
    """Return a sample for each image; a member without a dot in its suffix belongs to all of them."""
    owners: dict[str, list[int]] = {}
    for number, (image, stem) in enumerate(stems):
        for prefix in {stem.lower(), *_prefixes(image)} - {""}:
            owners.setdefault(prefix, []).append(number)
    files: list[list[tuple[str, GroupMember]]] = [[] for _ in stems]
    images = {id(image): number for number, (image, _) in enumerate(stems)}
    for member in group.members:
        if id(member) in images:
            own = member.suffix[len(stems[images[id(member)]][1]) :].lstrip(".")
            files[images[id(member)]].append((own or posixpath.splitext(member.name)[1][1:], member))
            continue
        parts = member.suffix.split(".")
        leading = [".".join(parts[:k]) for k in range(len(parts), 0, -1)]
        found = next((prefix for prefix in leading if prefix.lower() in owners), None)
        if found is not None:
            for number in owners[found.lower()]:
                files[number].append((member.suffix[len(found) + 1 :] or member.suffix, member))
        elif len(parts) == 1:
            for own_files in files:
                own_files.append((member.suffix, member))
    return [
        _make(group, f"{group.key}.{stem}" if stem else group.key, image, own, [stem.lower(), *_prefixes(image), ""])
        for (image, stem), own in zip(stems, files, strict=True)
    ]


def _prefixes(image: GroupMember | None) -> list[str]:
    """Return what may stand before the ending of a file that belongs to an image: ``1`` and ``1.jpg`` for ``1.jpg``."""
    return [] if image is None else [posixpath.splitext(f"_.{image.ending}")[0][2:], image.ending]


def _make(
    group: Group,
    key: str,
    image: GroupMember | None,
    files: Sequence[tuple[str, GroupMember]],
    prefixes: Sequence[str],
    error: str | None = None,
) -> TarSample:
    by_ending = {
        ending: [m for m in (group.find(f"{p}.{ending}" if p else ending) for p in dict.fromkeys(prefixes)) if m]
        for ending in (*CAPTION_ENDINGS, "json", "cls")
    }
    texts = [member for ending in CAPTION_ENDINGS for member in by_ending[ending] if member.kind == "sidecar"]
    endings = {member.ending for _, member in files}
    repeated = next((member for member in reversed(group.repeated) if member.ending in endings), None)
    if repeated is not None:  # WebDataset refuses this, since it would lose one of the two
        error = f"two members named {to_valid_text(repeated.name)}"
    elif image is None:
        error = error or f"no image member for key {to_valid_text(group.key)}"
    return TarSample(
        key=key,
        image=image,
        error=error or (image.fault if image is not None else None),
        text=next(iter(texts), None),
        cls=next(iter(by_ending["cls"]), None),
        json=tuple(by_ending["json"]),
        files=tuple(_rename_clashes(files)),
    )


def _rename_clashes(files: Sequence[tuple[str, GroupMember]]) -> list[tuple[str, GroupMember]]:
    """Return files whose suffixes all differ: one that several samples share comes after those of the sample."""
    taken: set[str] = set()
    renamed = []
    for suffix, member in files:
        while suffix.lower() in taken:
            suffix = f"key.{suffix}"
        taken.add(suffix.lower())
        renamed.append((suffix, member))
    return renamed


def choose_certain(
    group: Group, samples: list[TarSample], column: str | None
) -> tuple[list[TarSample], TarSample | None]:
    """Return the samples of the last key before a damage that are certain, and one that is lost.

    A sample is lost if its image is, or if a better image may have been behind the damage.

    Parameters
    ----------
    group : Group
        The key.
    samples : list of TarSample
        What `split_group` returned for it.
    column : str or None
        As in `read_groups`.
    """
    sure = len(samples) > 1 or column is not None  # else a plain image, as k.jpg, is chosen before k.mask.png
    certain = [
        sample
        for sample in samples
        if (image := sample.image) is not None
        and image.fault is None
        and (sure or (image.kind == "image" and "." not in image.suffix))
    ]
    return certain, next((sample for sample in samples if sample not in certain), None)


def count_unused(group: Group, samples: Sequence[TarSample], findings: Findings) -> None:
    """Count the members that no sample reads."""
    used = {id(member) for s in samples for member in (s.image, s.text, s.cls, *s.json) if member is not None}
    for member in group.members:
        if id(member) not in used:
            findings.add_unused(member.name)
