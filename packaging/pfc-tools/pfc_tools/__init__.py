"""The programs pfc-ingest, pfc-train and pfc-eval. They are used from a shell; for Python there is `pfc`."""

__version__ = "0.1.0"
