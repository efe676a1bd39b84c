"""Opens files of other programs."""

from __future__ import annotations

import os

from ._pfc import Bin, Rec


def open_rec(path: str | os.PathLike[str], *, threads: int | None = None) -> Rec:
    """Opens RecordIO as MXNet and InsightFace write it: a file train.rec, or the folder that holds it.

    The index train.idx beside it is used where it is; without it the file is gone through once.

    Args:
        path: the .rec file, or the folder with train.rec.
        threads: that decode a batch; by default as in Dataset.

    Raises:
        PfcFileNotFoundError: there is no such file.
        PfcValueError: its bytes are not records; the message names the offset.
    """
    return Rec(path, threads=threads)


def open_bin(path: str | os.PathLike[str], *, threads: int | None = None) -> Bin:
    """Reads a verification pack as InsightFace publishes them (lfw.bin): pairs of faces.

    Nothing in the pickle is run.

    Args:
        path: the .bin file.
        threads: that decode a batch; by default as in Dataset.

    Raises:
        PfcFileNotFoundError: there is no such file.
        PfcValueError: it is no verification pack.
    """
    return Bin(path, threads=threads)
