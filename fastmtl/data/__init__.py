"""Data sets: file formats, splits, standardisation, and synthetic sets to try things on."""

from __future__ import annotations

from fastmtl.data import synthetic
from fastmtl.data.arff import load_arff
from fastmtl.data.arrow import load_arrow
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.hdf5 import load_hdf5
from fastmtl.data.loading import load
from fastmtl.data.npy import load_npy
from fastmtl.data.npz import load_npz
from fastmtl.data.samples import from_samples
from fastmtl.data.standardize import Standardizer
from fastmtl.data.stored import StoredFeatures
from fastmtl.data.table import load_table
from fastmtl.data.tasks import Tasks
from fastmtl.data.writing import h5_writer, write_h5

__all__ = [
    "DataError",
    "MultiTaskData",
    "Standardizer",
    "StoredFeatures",
    "Tasks",
    "from_samples",
    "h5_writer",
    "load",
    "load_arff",
    "load_arrow",
    "load_hdf5",
    "load_npy",
    "load_npz",
    "load_table",
    "synthetic",
    "write_h5",
]
