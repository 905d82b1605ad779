"""The table of odd tars, each with its expected result; wrong ones with their messages, and the remedies applied."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from inputs import GOOD, HTML, OTHER, Maker, downloaded, encoded, plain, special, tar
from odd_inputs import Case, fails
from runs import picture

THIRD = picture(20)
JPEG = encoded(plain(), "JPEG")
SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE

Member = tuple[str | tarfile.TarInfo, bytes]
Change = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def in_two(compress: Change) -> Change:
    """Return a compressor that makes two streams, as those that run in parallel do."""
    return lambda data: compress(data[:700]) + compress(data[700:])


def tar_bytes(*members: Member, form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name) if isinstance(name, str) else name
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def named(name: str, change: Change, *members: Member) -> Maker:
    """Make one tar of another name, compressed or changed."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(change(tar_bytes(*(members or PAIR))))
        return folder / name

    return make


def shards(*contents: bytes) -> Maker:
    """Make a folder of tars."""

    def make(folder: Path) -> Path:
        for number, data in enumerate(contents):
            (folder / f"{number}.tar").write_bytes(data)
        return folder

    return make


def pictures(first: int, count: int) -> list[Member]:
    return [(f"{k:03d}.png", picture(10 * k)) for k in range(first, first + count)]


PAIR: tuple[Member, ...] = (("a.png", GOOD), ("a.txt", b"one"), ("b.png", OTHER), ("b.txt", b"two"))
FRAMES: tuple[Member, ...] = (
    ("frame_0.1.jpg", GOOD), ("frame_0.1.txt", b"one"), ("frame_0.2.jpg", OTHER), ("frame_0.2.txt", b"two"),
    ("frame_0.json", b'{"video": 7}'), ("frame_1.1.jpg", THIRD),
)  # fmt: skip
DEPTH: tuple[Member, ...] = tuple(
    (f"{key}.{kind}.png", data)
    for key, images in {"a": (GOOD, OTHER), "b": (THIRD, GOOD)}.items()
    for kind, data in zip(("depth", "rgb"), images, strict=True)
)
TWO_PLAIN: tuple[Member, ...] = (("k.jpg", GOOD), ("k.png", OTHER), ("k.txt", b"both"))
WHOLE = tar_bytes(*pictures(0, 6))
CUT = WHOLE[: WHOLE.index(b"004.png") + 700]

TABLE: dict[str, Case] = {
    # Compression is recognised by the bytes
    "tar.bz2": Case(named("t.tar.bz2", bz2.compress), 2),
    "tbz2": Case(named("t.tbz2", bz2.compress), 2),
    "tar.xz": Case(named("t.tar.xz", lzma.compress), 2),
    "txz": Case(named("t.txz", lzma.compress), 2),
    "tar.zst": Case(named("t.tar.zst", zstd), 2),
    "tzst": Case(named("t.tzst", zstd), 2),
    "gzip of two streams": Case(named("t.tar.gz", in_two(gzip.compress)), 2),
    "bzip2 of two streams": Case(named("t.tar.bz2", in_two(bz2.compress)), 2),
    "xz of two streams": Case(named("t.tar.xz", in_two(lzma.compress)), 2),
    "zstd of two streams": Case(named("t.tar.zst", in_two(zstd)), 2),
    "zstd after a frame to be skipped": Case(named("t.tzst", lambda b: b"\x50\x2a\x4d\x18\x01\0\0\0x" + zstd(b)), 2),
    "zstd that is called .tar": Case(named("t.tar", zstd), 2),
    "plain that is called .tar.xz": Case(named("t.tar.xz", bytes), 2),
    "a tar without its mark": Case(named("t.tar", lambda b: b.replace(b"ustar  \0", bytes(8))), 0, error=("damaged",)),
    # Members
    "no ending": Case(tar(("a", GOOD), ("a.txt", b"x"), ("b.png", OTHER), ("README", b"no picture")), 2),
    "an unknown ending": Case(tar(("a.picture", GOOD), ("b.png", OTHER), ("b.copy", GOOD)), 2),
    "upper case": Case(tar(("a.PNG", GOOD), ("a.TXT", b"x"), ("b.JPE", JPEG)), 2),
    "members that are not used": Case(tar(("a.png", GOOD), ("a.npy", b"x"), ("a.mp4", b"x"), ("b.png", OTHER)), 2),
    "a video and no image": Case(tar(("a.png", GOOD), ("b.mp4", b"x")), 1, {"no image member for key b": 1}),
    "an ending alone": Case(tar(("a.png", GOOD), ("b.", b"x")), 1, {"no image member for key b": 1}),
    "an empty image": Case(tar(("a.png", GOOD), ("b.png", b"")), 1, {"empty file": 1}),
    "HTML with no ending": Case(tar(("a.png", GOOD), ("page", HTML)), 1),
    # Links
    "a link before its target": Case(tar(special("a.png", SYM, "z/b.png"), ("z/b.png", GOOD)), 2),
    "a link relative to its folder": Case(tar(("z/b.png", GOOD), special("y/a.png", SYM, "../z/b.png")), 2),
    "a link to a link": Case(tar(("a.png", GOOD), special("b.png", SYM, "a.png"), special("c.png", HARD, "b.png")), 3),
    "a link of ./names": Case(tar(("./a.png", GOOD), special("./b.png", HARD, "a.png")), 2),
    "a link in a circle": Case(
        tar(("a.png", GOOD), special("b.png", SYM, "c.png"), special("c.png", SYM, "b.png")),
        1, {"symbolic link to c.png, which leads in a circle": 1, "symbolic link to b.png": 1},
    ),
    "a link to a folder": Case(
        tar(("d/a.png", GOOD), special("d", tarfile.DIRTYPE), special("b.png", SYM, "d")), 1, {"is not a file": 1}
    ),
    "a link out of the tar": Case(
        tar(("a.png", GOOD), special("b.png", HARD, "../../etc/passwd")), 1, {"hard link to ../../etc/passwd": 1}
    ),
    "a caption that is a link": Case(
        tar(("a.png", GOOD), ("a.txt", b"x"), ("b.png", OTHER), special("b.txt", SYM, "a.txt")), 2
    ),
    "links in a compressed tar": Case(
        named("t.tar.zst", zstd, ("a.png", GOOD), special("b.png", SYM, "a.png"), special("c.png", SYM, "no.png")),
        2, {"symbolic link to no.png": 1},
    ),
    "a link with no ending": Case(tar(("a.png", GOOD), special("b", SYM, "a.png"), special("latest", SYM, "x")), 2),
    # Several images under one key
    "a plain image beside a mask": Case(tar(("a.mask.png", GOOD), ("a.png", OTHER), ("b.png", GOOD)), 2),
    "frames": Case(tar(*FRAMES), 3),
    "one frame": Case(tar(("frame_0.1.jpg", GOOD), ("frame_0.1.txt", b"x")), 1),
    "frames with one twice": Case(
        tar(("f.1.png", GOOD), ("f.2.png", OTHER), ("f.2.png", GOOD)), 1, {"two members named f.2.png": 1}
    ),
    "frames in two formats": fails(tar(("f.1.png", GOOD), ("f.1.jpg", JPEG)), "key 'f' in t.tar", ".1.png, .1.jpg"),
    "depth maps and pictures": fails(tar(*DEPTH), "key 'a' in t.tar has several images, .depth.png, .rgb.png"),
    "two plain images": fails(tar(*TWO_PLAIN), "key 'k' in t.tar", ".jpg, .png", "--column jpg"),
    "two unknown images": fails(tar(("k.left", GOOD), ("k.right", OTHER)), ".left, .right", "--column left"),
    "a choice that some keys lack": Case(
        tar(*DEPTH, ("c.png", GOOD)), 2, {"no member of the key ends in .rgb.png (--column), but .png": 1},
        options={"column": "rgb.png"},
    ),
    "a choice in a dotted key": Case(
        tar(("v.1.rgb.png", GOOD), ("v.1.depth.png", GOOD), ("v.2.rgb.png", OTHER)), 2, options={"column": "rgb.png"}
    ),
    "a choice of no ending": fails(tar(*PAIR), "--column '.' is empty", column="."),
    "every image of frames": Case(tar(*FRAMES), 3, options={"column": "*"}),
    "every image, and a key without": Case(
        tar(("a.png", GOOD), ("b.txt", b"x")), 1, {"no image member for key b": 1}, options={"column": "*"}
    ),
    # Members that do not follow each other
    "captions after all images": fails(
        tar(("a.png", GOOD), ("b.png", OTHER), ("a.txt", b"x"), ("b.txt", b"y")), "members of key 'a' in", "'a.txt'"
    ),
    "a key between folders": Case(tar(("x/a.png", GOOD), ("y/a.png", OTHER)), 2),
    # Captions and metadata
    "captions of all kinds": Case(
        tar(("a.png", GOOD), ("a.caption", b"x"), ("b.png", OTHER), ("b.json", b'["x", "y"]'), ("c.png", THIRD),
            ("c.png.txt", b"z")), 3,
    ),
    "classes of two kinds": Case(tar(("a.png", GOOD), ("a.cls", b"3"), ("b.png", OTHER), ("b.cls", b"cat")), 2),
    "a JSON list of numbers": Case(tar(("a.png", GOOD), ("a.json", b"[1]")), 1),
    # Damage
    "a cut tar, skipped": Case(
        named("t.tar", lambda _: CUT), 4, {"damaged tar, in or after member 004.png": 1}, options={"skip_damaged": True}
    ),
    "a cut tar.gz, skipped": Case(
        named("t.tgz", lambda _: gzip.compress(WHOLE)[:-9]), 6, {"unexpected end of data": 1},
        options={"skip_damaged": True},
    ),
    "a broken tar.bz2": fails(named("t.tbz", lambda b: bz2.compress(b)[:99]), "is damaged", "not a tar file"),
    "a mask before the cut": fails(
        named("t.tar", lambda _: tar_bytes(("a.mask.png", GOOD), ("a.png", OTHER))[: 1024 + len(GOOD)]),
        "the only sample is rejected", skip_damaged=True,
    ),
    "a tar with a chunk of zeros": fails(
        named("t.tar", lambda _: WHOLE[: WHOLE.index(b"003.png")] + bytes(2048) + WHOLE[WHOLE.index(b"004.png") :]),
        "is damaged", "in or after member 002.png", "3 samples before it can be read",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Remedy:
    """A wrong input, its message, and what the message advises, with its result: options, or another input."""

    wrong: Maker
    message: tuple[str, ...]
    make: Maker | None  # None: the same file
    valid: int
    rejected: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)  # options of the wrong input


SKIP = {"skip_damaged": True}
SCATTERED: tuple[Member, ...] = (("b.png", OTHER), ("a.png", GOOD), ("b.txt", b"two"), ("a.txt", b"one"))

REMEDIES: dict[str, Remedy] = {
    "--column for a member": Remedy(
        tar(*DEPTH), ("--column depth.png",), None, 2, options={"column": "depth.png"}
    ),
    "--column with a dot": Remedy(tar(*DEPTH), ("--column",), None, 2, options={"column": ".RGB.png"}),
    "--column '*'": Remedy(tar(*DEPTH), ("--column '*'",), None, 4, options={"column": "*"}),
    "--column '*' of one stem": Remedy(tar(*TWO_PLAIN), ("--column '*'",), None, 2, options={"column": "*"}),
    "--column of one stem": Remedy(tar(*TWO_PLAIN), ("--column jpg",), None, 1, options={"column": "jpg"}),
    "another --column": Remedy(
        tar(*PAIR), ("--column 'jpg' fits none of the first 2 keys of t.tar", "but .png, .txt"), None, 2,
        options={"column": "png"},
        first={"column": "jpg"},
    ),
    "--column of a later tar": Remedy(
        shards(tar_bytes(*PAIR), tar_bytes(*DEPTH)), ("--column depth.png",), None, 2, 2,
        options={"column": "depth.png"},
    ),
    "an empty --column": Remedy(
        tar(*DEPTH), ("such as --column rgb.png",), None, 2, options={"column": "rgb.png"}, first={"column": "."}
    ),
    "tar --sort=name": Remedy(
        tar(*SCATTERED), ("do not follow each other", "`tar --sort=name`"), tar(*sorted(SCATTERED)), 2
    ),
    "--skip-damaged": Remedy(
        named("t.tar", lambda _: CUT),
        ("t.tar' is damaged: in or after member 004.png, at byte", "4 samples before it", "--skip-damaged"),
        None, 4, 1, options=SKIP,
    ),
    "copy the shard again": Remedy(
        named("t.tar", lambda _: CUT), ("Copy or write it again",), named("t.tar", lambda _: WHOLE), 6
    ),
    "tar -A": Remedy(
        named("t.tar", lambda _: tar_bytes(*pictures(0, 2)) + tar_bytes(*pictures(2, 2))),
        ("`tar -A` joins tars",), named("t.tar", lambda _: tar_bytes(*pictures(0, 4))), 4,
    ),
    "the table of img2dataset": Remedy(
        downloaded(table=b"PAR1 cut"), ("00000.parquet' is damaged", "--skip-damaged"), downloaded(), 2, 2
    ),
    "the table of img2dataset, skipped": Remedy(
        downloaded(table=b"PAR1 cut"), ("Copy or write it again",), None, 2, 1, options=SKIP
    ),
}  # fmt: skip
