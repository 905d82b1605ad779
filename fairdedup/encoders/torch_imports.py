"""Imports torch and open_clip without torch's compiler, which takes a third of the time and is never used here.

torchvision and timm import it to ask one question of it and to exempt functions from it. They get stand-ins: one that
imports the compiler when it is asked, and one that leaves functions as they are.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

COMPILER = ("torch._dynamo", "torch._dynamo.utils")
IMPORTERS = ("open_clip", "timm", "torchvision")


def _is_compile_supported(*arguments: Any) -> Any:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(*arguments)


def _disable(function: Any = None, *_: Any, **__: Any) -> Any:
    return (lambda own: own) if function is None else function


def _import_open_clip() -> Any:
    """Import open_clip with stand-ins for the compiler, or as usual if a version of a library needs more of it."""
    if any(name in sys.modules for name in (*COMPILER, *IMPORTERS)):
        return importlib.import_module("open_clip")
    modules = [ModuleType(name) for name in COMPILER]
    vars(modules[0]).update(disable=_disable, utils=modules[1])
    vars(modules[1]).update(is_compile_supported=_is_compile_supported)
    sys.modules.update(zip(COMPILER, modules, strict=True))
    try:
        return importlib.import_module("open_clip")
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] in IMPORTERS]:
            del sys.modules[name]
    finally:
        for name in COMPILER:
            sys.modules.pop(name, None)
        vars(torch).pop("_dynamo", None)
    return importlib.import_module("open_clip")


open_clip: Any = _import_open_clip()

__all__ = ["open_clip", "torch"]
