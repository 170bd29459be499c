"""Pictures, masks, captions and classes that cannot be used: refused at ingest, all at once, cheaply."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anastyle import DATASETS, DataError, Record
from anastyle.config import section
from anastyle.data.prepare import prepare
from anastyle.data.split import PreparedSet

HUGE = """
import resource, struct, sys, time, zlib
from anastyle.data.images import ImageError, open_image

def bomb(side):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side + 1) * 1000), 9)
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

for side in (10_000, 14_000):
    content = bomb(side)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        open_image(content, "huge.png")
    except ImageError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(len(content), time.process_time() - began, grown / 1024, error)
"""


def records(source: Path, **options: object) -> list[Record]:
    cls, config = section(DATASETS, {"name": "folder", "source": str(source), **options}, "data")
    return list(cls(config).records())


def paint(path: Path, seed: int, kind: str = "PNG", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(path, kind, **options)
    return path


def test_a_huge_image_is_refused_by_its_header_alone() -> None:
    done = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)

    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        size, seconds, grown, *words = line.split()
        assert int(size) < 20_000
        assert float(seconds) < 1
        assert float(grown) < 50
        assert "over 64 megapixels" in " ".join(words)


def test_every_broken_jpeg_is_named_at_once(tmp_path: Path) -> None:
    for n in range(6):
        paint(tmp_path / f"nv/{n}.jpg", n, "JPEG")
    (tmp_path / "nv/1.jpg").write_bytes((tmp_path / "nv/1.jpg").read_bytes()[:900])
    (tmp_path / "nv/3.jpg").write_text("words, renamed")
    (tmp_path / "nv/5.jpg").write_bytes(np.random.default_rng(0).bytes(3000))

    with pytest.raises(DataError) as caught:
        records(tmp_path)

    assert "3 problems" in str(caught.value)
    assert all(f"nv/{n}.jpg" in str(caught.value) for n in (1, 3, 5))


def test_bytes_that_change_after_ingest_are_noticed(tmp_path: Path) -> None:
    """A JPEG's decoder takes most garbled bytes without a word; from ingest on, every byte is hashed."""
    for n in range(10):
        paint(tmp_path / f"raw/nv/{n}.jpg", n, "JPEG")
    prepare("folder", {"source": str(tmp_path / "raw")}, tmp_path / "set")
    shard = next((tmp_path / "set").glob("train-*.tar"))
    content = bytearray(shard.read_bytes())
    content[900:920] = bytes(20)
    shard.write_bytes(content)

    with pytest.raises(DataError, match="its bytes have changed"):
        PreparedSet.open(tmp_path / "set", hashed=tmp_path / "hashed")


def test_every_mask_that_cannot_be_one_is_named_by_kind(tmp_path: Path) -> None:
    outline = np.zeros((40, 48), np.uint8)
    outline[8:30, 10:40] = 255
    for n in range(4):
        paint(tmp_path / f"nv/{n}.png", n)
        Image.fromarray(outline).save(tmp_path / f"nv/{n}_mask.png")
    Image.fromarray(np.tile(np.arange(48, dtype=np.uint8) * 5, (40, 1))).save(tmp_path / "nv/0_mask.png")
    Image.fromarray(outline[:20]).save(tmp_path / "nv/1_mask.png")
    Image.fromarray(np.stack([outline, outline * 0, outline * 0], 2)).save(tmp_path / "nv/2_mask.png")  # red on black
    (tmp_path / "nv/3_mask.png").rename(tmp_path / "nv/4_mask.png")  # shifted by one

    with pytest.raises(DataError) as caught:
        records(tmp_path)

    message = str(caught.value)
    assert "a mask without its image: nv/4_mask.png" in message
    assert "not binary; it should hold 0 and one other value: nv/0_mask.png" in message
    assert "of another size than its image (48x20, not 48x40): nv/1_mask.png" in message
    assert "2_mask.png" not in message, "any colour is foreground"


@pytest.mark.parametrize("name", ["mel", "mel/more"])
def test_a_class_folder_without_an_image_is_refused(tmp_path: Path, name: str) -> None:
    paint(tmp_path / "nv/a.png", 1)
    (tmp_path / name).mkdir(parents=True)

    with pytest.raises(DataError, match="a folder without an image; remove it, or fill it: mel"):
        records(tmp_path)


def test_a_class_of_one_image_is_trained_on_and_counted_as_untested(tmp_path: Path) -> None:
    for n in range(12):
        paint(tmp_path / "raw" / ("mel" if n == 0 else "nv") / f"{n}.png", n)

    manifest = prepare("folder", {"source": str(tmp_path / "raw")}, tmp_path / "set")

    assert manifest.notes["classes too small to be tested"] == 1
    split = PreparedSet.open(tmp_path / "set").split("train", image_size=16)
    assert split.class_names == ["mel", "nv"]
    assert (split.labels == 0).sum() == 1
