"""The exceptions and warnings of pfc."""

from __future__ import annotations

import os


class PfcError(Exception):
    """What pfc raises. str() is the message and, after an empty line, the hint.

    Attributes:
        message: what is wrong, with the place and the value.
        hint: what to do about it, or None.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"


class PfcValueError(PfcError, ValueError):
    """A value, or the content of a file, that is not what it should be."""


class PfcIndexError(PfcError, IndexError):
    """A number beyond the last."""


class PfcOSError(PfcError, OSError):
    """What the operating system refused; errno and filename are set where they are known."""

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        code: int | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.strerror = message
        self.errno = code
        self.filename = None if path is None else os.fspath(path)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.hint, self.errno, self.filename)


class PfcFileNotFoundError(PfcOSError, FileNotFoundError):
    """A file, a folder or a data set that is not there."""


class DecisionsWarning(UserWarning):
    """A data set is read as the decisions beside it leave it; the text says what they change."""


class ModelWarning(UserWarning):
    """Something about a model is only assumed, or may be wrong."""
