"""Face recognition data sets, verification packs, figures and embeddings, from NumPy and PyTorch.

>>> import pfc
>>> ds = pfc.Dataset("work/glint360k.pfc")      # what `pfc-ingest pack` wrote
>>> image, label = ds[0]                        # (H, W, 3) uint8, int
>>> images = ds.batch([3, 1, 4])                # (3, H, W, 3) uint8, decoded in threads
>>> for images, labels in ds.batches(128, seed=1, epoch=0, drop_last=True):
...     ...

Images are arrays of uint8, red first; embeddings are arrays of float32 with a row a face; rates are
shares from 0 to 1; similarities are cosines from -1 to 1. Everything that pfc raises is a PfcError,
and an OSError, ValueError or IndexError as well where it is one. Long calls end with Ctrl-C and let
other Python threads run. `pfc.torch` has helpers for PyTorch, which is imported with it and not before.
"""

from ._errors import (
    DecisionsWarning,
    ModelWarning,
    PfcError,
    PfcFileNotFoundError,
    PfcIndexError,
    PfcOSError,
    PfcValueError,
)
from ._metrics import ijb, nn, verification
from ._open import open_bin, open_rec
from ._pfc import Batches, Bin, Dataset, Embedder, Rec
from ._results import (
    Figure,
    IjbResult,
    IjbTar,
    Interval,
    NnGroup,
    TarAtFar,
    Val,
    VerificationResult,
)

__version__ = "0.1.0"

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
