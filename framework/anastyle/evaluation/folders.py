"""``anastyle evaluate REAL GENERATED``: how far one folder of images is from another, without any weights.

Two kinds of features, neither of them trained: the upper spectrum (``highfreq``), and colour by place. They see wrong
colours, blur and grain; they do not see wrong anatomy. A study measures more (see ``evaluate``).
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anastyle.data.images import SUFFIXES, ImageError, open_image, pixels_of, resize
from anastyle.errors import DataError, listing
from anastyle.evaluation.evaluate import FEWEST, Reference, Settings, Value, distance_values
from anastyle.interfaces import Feature
from anastyle.registry import FEATURES

SIDECARS = frozenset({".csv", ".json", ".jsonl", ".txt", ".yaml", ".yml", ".md"})  # may lie beside images
LARGEST = 256  # pixels a side; larger images are brought down to it
OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))  # lightness, red-green, yellow-blue
TITLES = {
    "fd_highfreq": "Fréchet, upper spectrum",
    "fd_colour": "Fréchet, colour by place",
    "kid": "kernel, colour by place",
}


class Folder(NamedTuple):
    """The images of a folder, as they were stored."""

    path: Path
    files: list[Path]
    sizes: Counter[tuple[int, int]]  # (width, height) -> images


class Colour(Feature):
    """Mean and log spread of three opponent colours in each cell of a grid, (B, 6 * cells^2)."""

    @dataclass
    class Config(Feature.Config):
        """How fine the grid is."""

        cells: int = 3

    def __init__(self, config: Config, *, classes: int = 0) -> None:
        super().__init__(config)
        self.register_buffer("opponent", torch.tensor(OPPONENT), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        colour = torch.einsum("oc,bchw->bohw", self.opponent, image.float())
        mean = F.adaptive_avg_pool2d(colour, self.config.cells)
        square = F.adaptive_avg_pool2d(colour**2, self.config.cells)
        spread = (square - mean**2).clamp(min=1e-6).log() / 8  # of the order of the means
        return torch.cat([mean.flatten(1), spread.flatten(1)], dim=1)

    def fingerprint(self) -> str:
        return f"colour-1-{self.config.cells}x{self.config.cells}"


def evaluate_folders(real: Path, generated: Path, output: Path | None = None) -> int:
    """Print, and write to ``output``/evaluation.json, the distances between two folders of images. Returns 0.

    Folders are read with everything below them. Images of several sizes are brought to one, and a note says so.

    Raises:
        DataError: a folder is missing, holds fewer than ten images, or holds files that are no images.
    """
    folders = [read_folder(Path(real)), read_folder(Path(generated))]
    side, notes = common_side(folders)
    true, fake = (load(folder, side) for folder in folders)
    values = compare(true, fake, side)
    notes += [note for note in [small(len(fake), len(true))] if note]
    say(table(folders, values, notes))
    if output is not None:
        output = Path(output)
        output.mkdir(parents=True, exist_ok=True)
        file = output / "evaluation.json"
        text = json.dumps(as_json(folders, values, notes), indent=2, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")
        say(f"\n{file}: written, with the protocol of every number")
    return 0


def say(text: str) -> None:
    """Print to standard output: this is what the command was asked for."""
    sys.stdout.write(text + "\n")


def compare(real: Tensor, generated: Tensor, side: int) -> dict[str, Value]:
    """Return the distances of uint8 images (n, 3, side, side) from real ones (m, 3, side, side)."""
    kept = min(len(generated), len(real) // 2)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(real)))
    words = f"{len(real) - kept} images of the real folder; floor: {kept} others of it against the same"
    chosen = Reference(real[order[kept:]], real[order[:kept]], side, words)
    highfreq = FEATURES.get("highfreq")
    networks = {"highfreq": highfreq(highfreq.Config()), "colour": Colour(Colour.Config())}
    return distance_values(generated, chosen, networks, Settings(), kernel="colour")


def read_folder(path: Path) -> Folder:
    """Return every image below a folder; hidden files and text files beside them are passed over."""
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder.")
    found = sorted(file for file in path.rglob("*") if file.is_file() and not hidden(file, path))
    files = [file for file in found if file.suffix.lower() in SUFFIXES]
    sizes: Counter[tuple[int, int]] = Counter()
    problems = [
        f"{file.relative_to(path)}: not an image" for file in found if file.suffix.lower() not in SUFFIXES | SIDECARS
    ]
    for file in files:
        try:
            sizes[open_image(file).image.size] += 1
        except ImageError as problem:
            problems.append(f"{file.relative_to(path)}: {problem.reason}")
    if problems:
        raise DataError(f"{path}: {len(problems)} files cannot be taken as images. Remove them:\n{listing(problems)}")
    if len(files) < FEWEST:
        raise DataError(f"{path}: holds {len(files)} images; a distance needs {FEWEST} or more.")
    return Folder(path, files, sizes)


def hidden(file: Path, root: Path) -> bool:
    """Say whether a file, or a folder it lies in below the root, begins with a dot."""
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def common_side(folders: list[Folder]) -> tuple[int, list[str]]:
    """Return the side that all images are brought to, and a note when that changes any of them."""
    sizes = sum((folder.sizes for folder in folders), Counter())
    side = min(LARGEST, *(min(size) for size in sizes))
    if set(sizes) == {(side, side)}:
        return side, []
    seen = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3]) + (" ..." if len(sizes) > 3 else "")
    return side, [
        f"images are {seen}: all were brought to {side} x {side} (short side, antialiased bicubic, centre crop); "
        "resizing one folder more than the other changes fine detail"
    ]


def load(folder: Folder, side: int) -> Tensor:
    """Return a folder's images, uint8 (n, 3, side, side)."""
    images = (open_image(file).image for file in folder.files)
    return torch.stack([pixels_of(image if image.size == (side, side) else resize(image, side)) for image in images])


def small(generated: int, real: int) -> str:
    """Return a warning when there are too few images for a Fréchet distance to be read without its floor."""
    count = min(generated, real // 2)
    if count >= 128:
        return ""
    return f"only {count} images a side: read the Fréchet distances against their floor, never alone"


def table(folders: list[Folder], values: dict[str, Value], notes: list[str]) -> str:
    """Return what the command prints."""
    real, generated = folders
    lines = [f"{len(generated.files)} images of {generated.path} against {len(real.files)} of {real.path}", ""]
    lines.append(f"  {'distance (lower is better)':<28}{'value':>10}{'95 % interval':>24}{'floor':>10}")
    for key, value in values.items():
        span = "—" if value.low is None else f"{value.low:.4f} to {value.high:.4f}"
        lines.append(f"  {TITLES[key]:<28}{value.value:>10.4f}{span:>24}{value.floor:>10.4f}")
    lines += ["", "  floor: real images against other real images"]
    return "\n".join([*lines, *(f"  note: {note}" for note in notes)])


def as_json(folders: list[Folder], values: dict[str, Value], notes: list[str]) -> dict[str, object]:
    """Return what the command writes."""
    real, generated = ({"folder": str(folder.path), "images": len(folder.files)} for folder in folders)
    numbers = {key: value.to_json() for key, value in values.items()}
    return {"real": real, "generated": generated, "notes": notes, "values": numbers}
