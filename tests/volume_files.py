"""DICOM files and NIfTI volumes for the tests, of a patient who must not be found again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest


def dicom(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, "1.2.3"
    header.PatientName, header.PatientID = "Doe^Jane", "secret-1"
    frames = pixels if pixels.ndim == 3 else pixels[None]
    header.Rows, header.Columns = frames.shape[1:]
    if pixels.ndim == 3:
        header.NumberOfFrames = len(frames)
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    header.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)
    return path


def nifti(path: Path, volume: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4) if affine is None else affine), path)
    return path
