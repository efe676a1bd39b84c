"""Types of pfc; the docstrings of the items themselves describe them."""

import builtins
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, SupportsIndex, final

import numpy as np
import numpy.typing as npt

from ._errors import DecisionsWarning as DecisionsWarning
from ._errors import ModelWarning as ModelWarning
from ._errors import PfcError as PfcError
from ._errors import PfcFileNotFoundError as PfcFileNotFoundError
from ._errors import PfcIndexError as PfcIndexError
from ._errors import PfcOSError as PfcOSError
from ._errors import PfcValueError as PfcValueError
from ._results import Figure as Figure
from ._results import IjbResult as IjbResult
from ._results import IjbTar as IjbTar
from ._results import Interval as Interval
from ._results import NnGroup as NnGroup
from ._results import TarAtFar as TarAtFar
from ._results import Val as Val
from ._results import VerificationResult as VerificationResult

_Path = str | os.PathLike[str]
_Layout = Literal["nhwc", "nchw"]
_Bytes = npt.NDArray[np.uint8]
_Labels = npt.NDArray[np.int64]
# A list, an array or a tensor of whole numbers.
_Indices = Sequence[SupportsIndex] | npt.ArrayLike

__version__: str

class Dataset:
    """A data set that `pfc-ingest pack` wrote; a map-style dataset of (image, label)."""

    def __new__(
        cls, path: _Path, as_packed: bool = False, *, threads: int | None = None
    ) -> Dataset: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: SupportsIndex, /) -> tuple[_Bytes, int]: ...
    def __getitems__(self, indices: _Indices, /) -> list[tuple[_Bytes, int]]: ...
    @property
    def labels(self) -> _Labels: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def path(self) -> pathlib.Path: ...
    @property
    def as_packed(self) -> bool: ...
    def bytes(self, index: SupportsIndex) -> builtins.bytes: ...
    def source(self, index: SupportsIndex) -> str: ...
    def row(self, index: SupportsIndex) -> int: ...
    def batch(
        self,
        indices: _Indices,
        out: _Bytes | None = None,
        *,
        layout: _Layout = "nhwc",
        mirror: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    ) -> _Bytes: ...
    def order(
        self,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> _Labels: ...
    def mirrors(
        self,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> npt.NDArray[np.bool_]: ...
    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        mirror: bool = False,
        layout: _Layout = "nhwc",
        start: int = 0,
        ahead: int = 4,
    ) -> Batches: ...

@final
class Batches(Iterator[tuple[_Bytes, _Labels]]):
    """Batches of (images, labels) that threads make ahead; `Dataset.batches` makes it."""

    def __iter__(self) -> Batches: ...
    def __next__(self) -> tuple[_Bytes, _Labels]: ...
    def __len__(self) -> int: ...

class Rec:
    """The face images of a RecordIO file; `open_rec` opens one."""

    def __new__(cls, path: _Path, *, threads: int | None = None) -> Rec: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: SupportsIndex, /) -> tuple[_Bytes, int]: ...
    @property
    def labels(self) -> _Labels: ...
    @property
    def path(self) -> pathlib.Path: ...
    @property
    def num_records(self) -> int: ...
    @property
    def notes(self) -> list[str]: ...
    def bytes(self, index: SupportsIndex) -> builtins.bytes: ...
    def key(self, index: SupportsIndex) -> int: ...
    def record(self, position: SupportsIndex) -> tuple[int, list[float], builtins.bytes]: ...
    def batch(
        self, indices: _Indices, out: _Bytes | None = None, *, layout: _Layout = "nhwc"
    ) -> _Bytes: ...

class Bin:
    """A verification pack; `open_bin` opens one."""

    def __new__(cls, path: _Path, *, threads: int | None = None) -> Bin: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: SupportsIndex, /) -> _Bytes: ...
    @property
    def issame(self) -> npt.NDArray[np.bool_]: ...
    @property
    def path(self) -> pathlib.Path: ...
    def bytes(self, index: SupportsIndex) -> builtins.bytes: ...
    def batch(
        self, indices: _Indices, out: _Bytes | None = None, *, layout: _Layout = "nhwc"
    ) -> _Bytes: ...
    def images(self, out: _Bytes | None = None, *, layout: _Layout = "nhwc") -> _Bytes: ...

class Embedder:
    """An ONNX model that turns aligned faces into embeddings."""

    def __new__(
        cls,
        path: _Path,
        *,
        size: tuple[int, int] | None = None,
        channels: Literal["rgb", "bgr"] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        output: str | None = None,
        threads: int | None = None,
        gpu: int | None = None,
    ) -> Embedder: ...
    @property
    def dim(self) -> int: ...
    @property
    def path(self) -> pathlib.Path: ...
    @property
    def account(self) -> str: ...
    @property
    def evidence(self) -> list[str]: ...
    def embed(self, images: _Bytes, *, mirrored: bool = False) -> npt.NDArray[np.float32]: ...

def open_rec(path: _Path, *, threads: int | None = None) -> Rec: ...
def open_bin(path: _Path, *, threads: int | None = None) -> Bin: ...
def verification(
    embeddings_a: npt.ArrayLike,
    embeddings_b: npt.ArrayLike | None = None,
    issame: npt.ArrayLike | None = None,
    folds: int = 10,
    *,
    fars: Iterable[float] = (1e-1, 1e-2, 1e-3),
    people: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> VerificationResult: ...
def nn(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    fars: Iterable[float] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4),
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[NnGroup]: ...
def ijb(
    embeddings: npt.ArrayLike,
    templates: npt.ArrayLike,
    media: npt.ArrayLike,
    pairs: npt.ArrayLike,
    issame: npt.ArrayLike,
    *,
    mirrored: npt.ArrayLike | None = None,
    detector_scores: npt.ArrayLike | None = None,
    unit_norm_faces: bool = False,
    unit_norm_media: bool = False,
    people: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    order: npt.ArrayLike | None = None,
    fars: Iterable[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> IjbResult: ...

__all__ = [
    "Batches",
    "Bin",
    "Dataset",
    "DecisionsWarning",
    "Embedder",
    "Figure",
    "IjbResult",
    "IjbTar",
    "Interval",
    "ModelWarning",
    "NnGroup",
    "PfcError",
    "PfcFileNotFoundError",
    "PfcIndexError",
    "PfcOSError",
    "PfcValueError",
    "Rec",
    "TarAtFar",
    "Val",
    "VerificationResult",
    "ijb",
    "nn",
    "open_bin",
    "open_rec",
    "verification",
]
