"""Turns a YAML file of captions into prototypes, by the run's own text tower.

FairDeDup (Slyman et al. 2024) section 3.2. Captions are embedded once a run; the vectors are then a prototypes file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fairdedup.core.prototypes import ABSENT
from fairdedup.encoders import EncoderSpec, load_encoder
from fairdedup.errors import UserError
from fairdedup.storage.plain_files import read_plain_text
from fairdedup.yaml_files import MOST_BYTES, RepeatedKeyError, TooLargeError, parse_yaml

BLANK = "{}"


class AttributeCaptions(BaseModel):
    """The captions of one attribute.

    Attributes
    ----------
    concepts : dict of str to list of str
        The words for each concept that fill the blank of a template.
    templates : list of str or None
        Templates of this attribute; None: those of the file.
    absent : list of str
        Whole captions of pictures that the attribute does not apply to.
    """

    model_config = ConfigDict(extra="forbid")

    concepts: dict[str, list[str]]
    templates: list[str] | None = None
    absent: list[str] = []


class CaptionFile(BaseModel):
    """A file of captions: templates with a blank, and the words that fill it for each concept.

    Attributes
    ----------
    templates : list of str
        Captions with the blank ``{}``.
    attributes : dict of str to AttributeCaptions
        The attributes, in the order of the file.
    """

    model_config = ConfigDict(extra="forbid")

    templates: list[str] = ["a photo of a {}"]
    attributes: dict[str, AttributeCaptions]


def read_captions(file: Path) -> CaptionFile:
    """Read and check a YAML file of captions.

    Parameters
    ----------
    file : Path
        A file written like configs/prototypes/people.yaml.

    Raises
    ------
    UserError
        If it cannot be read, or does not have the form of configs/prototypes/people.yaml.
    """
    try:
        text = read_plain_text(file, f"prototypes {str(file)!r}", most=MOST_BYTES)
        captions = CaptionFile.model_validate(parse_yaml(text))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"prototypes {str(file)!r}: {error.strerror}; give a .yaml, .parquet, .npz or .npy") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"prototypes {str(file)!r}, {place}: {first['msg'].lower()}; `fairdedup init prototypes` writes an example"
        ) from None
    except RepeatedKeyError as error:
        raise UserError(f"prototypes {str(file)!r} {error}: remove one of them") from None
    except TooLargeError as error:
        raise UserError(f"prototypes {str(file)!r} {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: wrong bytes, or a 13th month
        raise UserError(
            f"prototypes {str(file)!r} is not valid YAML: correct it; `fairdedup init prototypes` writes an example"
        ) from None
    _check_captions(captions, file)
    return captions


def _check_captions(captions: CaptionFile, file: Path) -> None:
    where = f"prototypes {str(file)!r}"
    if not captions.attributes:
        raise UserError(f"{where} has no attributes: add one; `fairdedup init prototypes` writes an example")
    for name, attribute in captions.attributes.items():
        if ABSENT in attribute.concepts:
            raise UserError(f"{where}: {name!r} has a concept {ABSENT!r}: move it out of `concepts`, next to it")
        for template in attribute.templates or captions.templates:
            if BLANK not in template:
                raise UserError(f"{where}: template {template!r} of {name!r} has no blank: add {{}}")
        if not attribute.concepts or not all(attribute.concepts.values()):
            raise UserError(f"{where}: attribute {name!r} has a concept without words: add some")


def embed_captions(captions: CaptionFile, spec: EncoderSpec) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Embed every caption and return the prototypes.

    Parameters
    ----------
    captions : CaptionFile
        The captions, as `read_captions` returns them.
    spec : EncoderSpec
        The encoder whose text tower embeds them: the one that embedded the images.

    Returns
    -------
    dict of str to dict of str to ndarray, float64
        For each attribute, a vector (d,) for each concept: the mean of the unit embeddings of its captions. The
        concept ``absent`` has a vector for each of its a captions: (a, d).
    """
    encoder = load_encoder(spec)

    def embed(texts: list[str]) -> NDArray[np.float64]:
        vectors = encoder.encode_texts(texts).astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    out: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, attribute in captions.attributes.items():
        templates = attribute.templates or captions.templates
        out[name] = {
            concept: embed([t.replace(BLANK, w) for t in templates for w in words]).mean(axis=0)
            for concept, words in attribute.concepts.items()
        }
        if attribute.absent:
            out[name][ABSENT] = embed(attribute.absent)
    return out
