"""What the messages about a file of captions advise works."""

from __future__ import annotations

import re

import pytest
import yaml
from runs import done

from fairdedup.errors import UserError
from fairdedup.stages.caption_embedding import read_captions

EXAMPLE = "`fairdedup (?P<init>init prototypes)` writes an example"
SHIPPED = "what that command writes"
GOOD = "{templates: ['a photo of a {}'], attributes: {a: {concepts: {x: [cat], y: [dog]}}}}"

TABLE = {
    "no YAML": ("a: [", f"correct it; {EXAMPLE}", SHIPPED),
    "bytes": (b"\xff\xfe\x00", f"correct it; {EXAMPLE}", SHIPPED),
    "another form": ("{concepts: {}}", EXAMPLE, SHIPPED),
    "words that are none": ("{attributes: {a: {concepts: {x: 3}}}}", rf"a\.concepts\.x: .*; {EXAMPLE}", GOOD),
    "no attributes": ("{attributes: {}}", f"has no attributes: add one; {EXAMPLE}", SHIPPED),
    "absent in the concepts": (
        "{attributes: {a: {concepts: {x: [cat], absent: [a wall]}}}}", r"move it out of `concepts`, next to it",
        "{attributes: {a: {concepts: {x: [cat]}, absent: [a wall]}}}",
    ),
    "a template without a blank": (
        "{templates: [a photo], attributes: {a: {concepts: {x: [cat]}}}}", r"has no blank: add (?P<blank>\{\})",
        "{templates: ['a photo {blank}'], attributes: {a: {concepts: {x: [cat]}}}}",
    ),
    "a concept without words": (
        "{attributes: {a: {concepts: {x: []}}}}", r"a concept without words: add some",
        "{attributes: {a: {concepts: {x: [cat]}}}}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_what_a_message_advises_works(case, tmp_path):
    wrong, says, right = TABLE[case]
    file = tmp_path / "captions.yaml"
    file.write_bytes(wrong if isinstance(wrong, bytes) else wrong.encode())
    with pytest.raises(UserError) as caught:
        read_captions(file)
    found = re.search(says, str(caught.value))
    assert found, str(caught.value)
    groups = found.groupdict()
    if right == SHIPPED:
        done(*groups["init"].split(), "--dest", tmp_path / "shipped")
        right = (tmp_path / "shipped" / "people.yaml").read_text()
    file.write_text(right.replace("{blank}", groups.get("blank", "")))
    assert read_captions(file).attributes
    assert yaml.safe_load(file.read_text())


def test_a_file_that_is_missing_can_be_of_four_kinds(tmp_path):
    with pytest.raises(UserError, match=r"give a \.yaml, \.parquet, \.npz or \.npy"):
        read_captions(tmp_path / "none.yaml")
    (tmp_path / "none.yaml").write_text(GOOD)
    assert list(read_captions(tmp_path / "none.yaml").attributes) == ["a"]
