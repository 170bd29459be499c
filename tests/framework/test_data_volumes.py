"""DICOM and NIfTI: windowed to 8 bits at the last step, slice by slice; without their readers, the way out."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anastyle import ConfigError
from anastyle.data.images import ImageError
from anastyle.data.volumes import Window, is_volume, open_slice, open_slice_mask, patient, slices, stem_of
from volume_files import dicom, nifti

FREE = Window(None, (0.0, 100.0))
RAMP = np.tile(np.linspace(0, 4095, 256).astype(np.uint16), (8, 1))


def grey(path: Path, number: int = 0, axis: int = 2, window: Window = FREE) -> np.ndarray:
    image = open_slice(path, path.name, number, axis, window).image
    assert image.mode == "RGB"
    return np.asarray(image)[..., 0]


def test_sixteen_bits_keep_their_levels_until_the_last_cast(tmp_path: Path) -> None:
    shown = grey(dicom(tmp_path / "a.dcm", RAMP))

    assert len(np.unique(shown)) >= 250
    assert (np.diff(shown[0].astype(int)) >= 0).all()


def test_the_rescaled_values_meet_the_files_own_window(tmp_path: Path) -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": [40, 300], "WindowWidth": [400, 1500]}
    shown = grey(dicom(tmp_path / "a.dcm", RAMP, **tags))[0].astype(float)

    hounsfield = RAMP[0] * 2.0 - 1024
    expected = np.clip((hounsfield - (40 - 0.5)) / (400 - 1) + 0.5, 0, 1) * 255  # PS3.3, C.11.2.1.2
    assert np.abs(shown - expected).max() <= 0.51


def test_a_given_window_goes_before_the_files_own(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", RAMP, WindowCenter=40, WindowWidth=400)

    shown = grey(path, window=Window((1000, 2000), (0, 100)))[0]

    assert shown[RAMP[0] <= 1000].max() == 0
    assert shown[RAMP[0] >= 2000].min() == 255


@pytest.mark.parametrize("how", ["SIGMOID", "LINEAR_EXACT"])
def test_other_window_functions(tmp_path: Path, how: str) -> None:
    shown = grey(dicom(tmp_path / "a.dcm", RAMP, WindowCenter=2048, WindowWidth=1000, VOILUTFunction=how))[0]

    middle = int(np.abs(RAMP[0].astype(int) - 2048).argmin())
    assert abs(int(shown[middle]) - 127) <= 3
    assert (shown[0] == 0) == (how == "LINEAR_EXACT" or shown[0] < 1)


def test_a_lookup_table_is_followed(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 8], np.array([0, 200, 100, 255], np.uint16).tobytes()
    table.add_new("LUTData", "OW", np.array([0, 200, 100, 255], np.uint16).tobytes())
    pixels = np.array([[0, 1], [2, 9]], np.uint16)

    shown = grey(dicom(tmp_path / "a.dcm", pixels, VOILUTSequence=[table]))

    assert shown.tolist() == [[0, 200], [100, 255]]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain = grey(dicom(tmp_path / "a.dcm", RAMP))
    turned = grey(dicom(tmp_path / "b.dcm", RAMP, PhotometricInterpretation="MONOCHROME1"))

    assert np.abs(255 - turned.astype(int) - plain).max() <= 1
    assert plain[0, 0] == 0


def test_signed_values_are_read_as_such(tmp_path: Path) -> None:
    shown = grey(dicom(tmp_path / "a.dcm", np.array([[-1000, 0, 1000]], np.int16)))

    assert shown.tolist() == [[0, 128, 255]]


def test_frames_are_chosen(tmp_path: Path) -> None:
    frames = np.stack([np.full((4, 6), 100 * n, np.uint16) for n in range(7)])
    path = dicom(tmp_path / "a.dcm", frames)

    assert slices(path, "a", 0, 2) == ([3], 7)
    assert slices(path, "a", 1, 2) == (list(range(7)), 7)
    assert slices(path, "a", 3, 2) == ([0, 3, 6], 7)
    assert grey(path, 5, window=Window((0, 600), (0, 100)))[0, 0] == round(500 / 600 * 255)


def test_a_burned_in_text_is_told_and_the_patient_only_compared(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", RAMP, BurnedInAnnotation="YES")

    assert "burned-in text" in open_slice(path, "a", 0, 2, FREE).converted
    assert patient(path, "a") == "secret-1"


def test_a_dicom_file_is_known_by_suffix_or_first_bytes(tmp_path: Path) -> None:
    dicom(tmp_path / "IM0001", RAMP)
    (tmp_path / "README").write_text("no")

    assert is_volume(tmp_path / "IM0001")
    assert not is_volume(tmp_path / "README")
    assert is_volume(Path("brain.NII.gz"))
    assert not is_volume(Path("a.png"))
    assert [stem_of(Path(name)) for name in ("brain.nii.gz", "a.dcm")] == ["brain", "a"]


def test_nifti_slices_are_turned_upright_along_each_axis(tmp_path: Path) -> None:
    volume = np.zeros((4, 6, 8), np.float32)
    volume[3, 5, 7] = 1  # right, anterior, superior
    path = nifti(tmp_path / "a.nii.gz", volume)

    for axis, last in ((0, 3), (1, 5), (2, 7)):
        shown = grey(path, last, axis)
        assert np.argwhere(shown == 255).tolist() == [[0, shown.shape[1] - 1]]
    assert slices(path, "a", 0, 1) == ([3], 6)


def test_nifti_axes_are_brought_to_the_anatomical_ones(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((4, 6, 8)).astype(np.float32)
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])
    flipped = nifti(tmp_path / "lps.nii", volume[::-1, ::-1].copy(), turned)

    assert np.array_equal(grey(flipped, 2), grey(nifti(tmp_path / "ras.nii", volume), 2))


def test_the_window_of_a_volume_is_one_for_all_its_slices(tmp_path: Path) -> None:
    volume = np.stack([np.full((5, 5), 10.0 * n, np.float32) for n in range(11)], axis=2)
    volume[0, 0, 0] = np.nan
    path = nifti(tmp_path / "a.nii.gz", volume)

    assert [grey(path, n)[2, 2] for n in (0, 5, 10)] == [0, 128, 255]
    assert grey(path, 5, window=Window((0, 100), (0, 100)))[2, 2] == 128
    assert grey(path, 5, window=Window((50, 60), (0, 100)))[2, 2] == 0


def test_a_mask_volume_is_cut_as_its_image(tmp_path: Path) -> None:
    volume = np.zeros((4, 6, 8), np.int16)
    volume[1, 2, 3] = 2
    image = nifti(tmp_path / "a.nii.gz", volume.astype(np.float32))
    of = open_slice(image, "a", 3, 2, FREE)

    mask = open_slice_mask(nifti(tmp_path / "m.nii.gz", volume), "m", 3, 2, of)

    assert np.array_equal(np.asarray(mask), np.asarray(of.image)[..., 0])
    with pytest.raises(ImageError, match="another size"):
        open_slice_mask(nifti(tmp_path / "n.nii.gz", volume[:3]), "n", 3, 2, of)


@pytest.mark.parametrize(("name", "reader"), [("a.dcm", "pydicom"), ("a.nii.gz", "nibabel")])
def test_broken_volumes_say_so(tmp_path: Path, name: str, reader: str) -> None:
    pytest.importorskip(reader)
    (tmp_path / name).write_bytes(b"nothing of the kind" * 30)

    with pytest.raises(ImageError, match="not a readable"):
        slices(tmp_path / name, name, 0, 2)
    with pytest.raises(ImageError, match="no such file"):
        slices(tmp_path / f"b{name}", name, 0, 2)


def test_a_cut_dicom_file_says_that_its_pixels_are_gone(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ImageError, match=r"cannot be decoded|not a readable"):
        grey(path)


def test_a_nifti_file_of_four_axes_is_refused(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", np.zeros((3, 3, 3, 2), np.float32))

    with pytest.raises(ImageError, match=r"a\.nii: a NIfTI file of 4 axes"):
        slices(path, "a.nii", 0, 2)


@pytest.mark.parametrize("name", ["scan.dcm", "brain.nii.gz"])
def test_without_the_extra_the_way_out_is_told(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in ("pydicom", "nibabel"):
        monkeypatch.setitem(sys.modules, reader, None)
    (tmp_path / name).write_bytes(b"anything")

    with pytest.raises(ImageError, match=r"not installed; install the extra 'dicom'.*anastyle\[dicom\].*8-bit PNG"):
        slices(tmp_path / name, name, 0, 2)


@pytest.mark.parametrize("pair", [[1.0], [5.0, 5.0], [9.0, 2.0]])
def test_a_window_is_two_rising_numbers(pair: list[float]) -> None:
    with pytest.raises(ConfigError, match="two rising numbers"):
        Window.of(pair, [0.5, 99.5])


def test_colour_frames_stay_as_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 5, 3), np.uint8)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    depth = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": pixels.tobytes() + b"", "Rows": 4}
    blank = np.zeros((4, 5), np.uint16)
    path = dicom(tmp_path / "a.dcm", blank, **tags, **depth)

    assert np.array_equal(np.asarray(open_slice(path, "a", 0, 2, FREE).image), pixels)
    assert isinstance(open_slice(path, "a", 0, 2, FREE).image, Image.Image)
