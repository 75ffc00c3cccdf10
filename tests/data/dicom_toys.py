"""Whole-slide images in DICOM: VL Whole Slide Microscopy, one file a level, each tile a frame of JPEG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

TILE = 64
DAY = "20200101"


def write_dicom(folder: Path, levels: list[np.ndarray], micrometres: float = 0.25) -> list[Path]:
    """Levels (3, H, W) uint8, the finest first, as one series; `micrometres` per pixel of the first."""
    pytest.importorskip("openslide")
    series = {name: generate_uid() for name in ("Study", "Series", "Frame", "Pyramid", "Dimension", "Specimen")}
    return [_write_level(folder / f"level-{i}.dcm", levels, i, micrometres, series) for i in range(len(levels))]


def read_dicom(path: Path) -> np.ndarray:
    """(3, H, W): the frames as pydicom decodes them, put in their places."""
    file = dcmread(path)
    height, width = file.TotalPixelMatrixRows, file.TotalPixelMatrixColumns
    down, across = -(-height // TILE), -(-width // TILE)
    frames = file.pixel_array.reshape(down, across, TILE, TILE, 3)
    return frames.transpose(4, 0, 2, 1, 3).reshape(3, down * TILE, across * TILE)[:, :height, :width]


def _write_level(path: Path, levels: list[np.ndarray], index: int, micrometres: float, series: dict) -> Path:
    spacing = micrometres * 1e-3 * levels[0].shape[2] / levels[index].shape[2]
    frames = _jpeg_tiles(levels[index])
    file = Dataset()
    file.SOPClassUID, file.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, generate_uid()
    file.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if index else "NONE"]
    _describe_study(file, series, index)
    _describe_pixels(file, levels[index], len(frames), spacing)
    _describe_slide(file, series, spacing)
    file.LossyImageCompressionRatio = round(levels[index].size / sum(map(len, frames)), 2)
    file.PixelData = encapsulate(frames)
    file["PixelData"].VR = "OB"
    file.ensure_file_meta()
    file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    file.save_as(path, enforce_file_format=True)
    return path


def _jpeg_tiles(pixels: np.ndarray) -> list[bytes]:
    """Tiles in rows; those at the border are filled up by repeating the last pixels."""
    height, width = pixels.shape[1:]
    filled = np.pad(pixels, [(0, 0), (0, -height % TILE), (0, -width % TILE)], mode="edge").transpose(1, 2, 0)
    corners = [(top, left) for top in range(0, height, TILE) for left in range(0, width, TILE)]
    return [_jpeg(filled[top : top + TILE, left : left + TILE]) for top, left in corners]


def _jpeg(tile: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(tile)).save(stream, "JPEG", quality=95, subsampling="4:2:2")
    return stream.getvalue()


def _describe_study(file: Dataset, series: dict, index: int) -> None:
    file.StudyInstanceUID, file.SeriesInstanceUID = series["Study"], series["Series"]
    file.FrameOfReferenceUID, file.PyramidUID = series["Frame"], series["Pyramid"]
    file.PatientName, file.PatientID, file.PatientBirthDate, file.PatientSex = "Toy^Slide", "toy", "", ""
    file.StudyID, file.StudyDate, file.StudyTime, file.AccessionNumber = "1", DAY, "000000", ""
    file.ReferringPhysicianName, file.PositionReferenceIndicator = "", "SLIDE_CORNER"
    file.Modality, file.SeriesNumber, file.InstanceNumber = "SM", 1, index + 1
    file.ContentDate, file.ContentTime, file.AcquisitionDateTime = DAY, "000000", DAY
    file.Manufacturer, file.ManufacturerModelName = "Foveate", "Toy"
    file.DeviceSerialNumber, file.SoftwareVersions = "1", "1"


def _describe_pixels(file: Dataset, pixels: np.ndarray, frames: int, spacing: float) -> None:
    """`spacing` in millimetres."""
    file.Rows = file.Columns = TILE
    file.TotalPixelMatrixRows, file.TotalPixelMatrixColumns, file.NumberOfFrames = *pixels.shape[1:], frames
    file.ImagedVolumeHeight, file.ImagedVolumeWidth = (length * spacing for length in pixels.shape[1:])
    file.ImagedVolumeDepth, file.TotalPixelMatrixFocalPlanes, file.NumberOfOpticalPaths = 1.0, 1, 1
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "YBR_FULL_422", 0
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.LossyImageCompression, file.LossyImageCompressionMethod = "01", "ISO_10918_1"
    file.BurnedInAnnotation, file.FocusMethod, file.ExtendedDepthOfField = "NO", "AUTO", "NO"
    file.SpecimenLabelInImage, file.VolumetricProperties = "NO", "VOLUME"


def _describe_slide(file: Dataset, series: dict, spacing: float) -> None:
    file.DimensionOrganizationType = "TILED_FULL"
    file.DimensionOrganizationSequence = _item(DimensionOrganizationUID=series["Dimension"])
    file.TotalPixelMatrixOriginSequence = _item(XOffsetInSlideCoordinateSystem=0, YOffsetInSlideCoordinateSystem=0)
    file.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    file.SharedFunctionalGroupsSequence = _item(
        PixelMeasuresSequence=_item(PixelSpacing=[format_number_as_ds(spacing)] * 2, SliceThickness=1e-3),
        WholeSlideMicroscopyImageFrameTypeSequence=_item(FrameType=file.ImageType),
        OpticalPathIdentificationSequence=_item(OpticalPathIdentifier="1"),
    )
    file.OpticalPathSequence = _item(
        OpticalPathIdentifier="1",
        IlluminationTypeCodeSequence=_code("111744", "DCM", "Brightfield illumination"),
        IlluminationColorCodeSequence=_code("414298005", "SCT", "Full Spectrum"),
        ICCProfile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )
    file.ContainerIdentifier, file.IssuerOfTheContainerIdentifierSequence = "toy", []
    file.ContainerTypeCodeSequence = _code("433466003", "SCT", "Microscope slide")
    file.AcquisitionContextSequence = []
    file.SpecimenDescriptionSequence = _item(
        SpecimenIdentifier="toy",
        SpecimenUID=series["Specimen"],
        IssuerOfTheSpecimenIdentifierSequence=[],
        SpecimenPreparationSequence=[],
    )


def _item(**values) -> list[Dataset]:
    """A sequence of one."""
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return [item]


def _code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
