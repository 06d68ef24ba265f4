"""Data sets: where images come from (`load`), how they are kept, how they are augmented."""

from cbundles.data.dataset import Dataset
from cbundles.data.sources import (
    contents,
    describe,
    load,
    must_be_fetched,
    remarks,
    storage_of,
)

__all__ = [
    "Dataset",
    "contents",
    "describe",
    "load",
    "must_be_fetched",
    "remarks",
    "storage_of",
]
