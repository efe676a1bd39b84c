"""Where onnxruntime's library is."""

from __future__ import annotations

import importlib.util
import pathlib


def library() -> pathlib.Path | None:
    """The library in the Python package onnxruntime, which is looked at and not imported.

    None where there is no such package; then the library is looked for as `pfc-eval` does.
    """
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec and spec.submodule_search_locations) or []:
        for path in sorted(pathlib.Path(folder, "capi").glob("libonnxruntime.so*")):
            return path
    return None
