"""``anastyle evaluate REAL GENERATED``: how far one folder of images is from another.

Without any weights it looks at the upper spectrum (``highfreq``) and at colour by place (``colour``): they see wrong
colours, blur and grain, not wrong anatomy. With ``features=inception`` and the like it measures on those networks. With
``train=FOLDER`` it looks for copies of training images. A study measures more (see ``evaluate``).
"""

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from anastyle.data.images import SUFFIXES, ImageError, open_image, pixels_of, resize
from anastyle.devices import device
from anastyle.errors import DataError, GateError, listing
from anastyle.evaluation.choices import SHIPPED, Wish
from anastyle.evaluation.folder_report import Comparison, Side, as_text, write
from anastyle.evaluation.measures import distance_values
from anastyle.evaluation.memorisation.gate import gate
from anastyle.evaluation.memorisation.record import SHEET, Memorisation
from anastyle.evaluation.memorisation.search import Pictured
from anastyle.evaluation.neighbours import FEWEST as FEWEST_NEIGHBOURS
from anastyle.evaluation.reference import FEWEST, Reference, Settings
from anastyle.files import sha256_of
from anastyle.interfaces import Feature

SIDECARS = frozenset({".csv", ".json", ".jsonl", ".txt", ".yaml", ".yml", ".md"})  # may lie beside images
SMALLEST = 16  # pixels a side; a smaller image has no spectrum
ENOUGH = 128  # images a side, from which on a Fréchet distance on few features can be read alone


class Folder(NamedTuple):
    """The images of a folder, as they were stored."""

    path: Path
    files: list[Path]
    sizes: Counter[tuple[int, int]]  # (width, height) -> images

    def names(self) -> list[str]:
        """Name the files within the folder."""
        return [str(file.relative_to(self.path)) for file in self.files]


def evaluate_folders(real: Path, generated: Path, wish: Wish) -> int:
    """Print, and write to the output folder, the distances between two folders of images. Returns 0.

    Folders are read with everything below them. Images of several sizes are brought to one, and a note says so. Where
    the training images are named, the real ones say how near to them an image comes that is no copy.

    Raises:
        DataError: a folder is missing, holds fewer than ten images or files that are no images, or one picture alone.
        ConfigError, MissingError: features that do not exist, or whose weights are not here.
        GateError: too many generated images are copies of training images; everything is written.
    """
    networks = {name: network.to(device()) for name, network in wish.networks().items()}
    folders = [read_folder(path) for path in paths(real, generated, wish.choices.train)]
    side, notes = common_side(folders, wish.choices.max_side)
    true, fake, *trained = (load(folder, side) for folder in folders)
    chosen = split(true, len(fake), side, wish)
    settings = Settings(draws=wish.choices.draws)
    values = distance_values(fake, chosen, networks, settings)
    notes += [note for note in (*folder_notes(folders, chosen), *network_notes(networks, chosen, len(fake))) if note]
    real_side, generated_side = (Side(folder.path, len(folder.files)) for folder in folders[:2])
    copied = copies(folders, true, fake, trained[0], networks) if trained else None
    found = Comparison(real_side, generated_side, list(networks), values, notes, copied)
    sys.stdout.write(as_text(found) + "\n")
    for file in write(found, wish.choices.output):
        sys.stdout.write(f"{file}: written\n")
    if copied and copied.verdict == "failed":
        raise GateError(
            f"{generated}: its images copy those of {wish.choices.train}: {copied.reason}.\n"
            f"  {wish.choices.output / SHEET} shows the pairs that look most like copies."
        )
    return 0


def paths(real: Path, generated: Path, train: Path | None) -> list[Path]:
    """Return the folders to read, that of the training images last.

    Raises:
        DataError: the real images are the training images, which cannot say how near to them a new image comes.
    """
    if train is not None and train.resolve() == Path(real).resolve():
        raise DataError(
            f"train={train}: is the real folder too. Copies are told by real images that no training has seen:\n"
            "  give held-out images as REAL."
        )
    return [Path(path) for path in (real, generated, train) if path is not None]


def copies(
    folders: list[Folder], real: Tensor, generated: Tensor, train: Tensor, networks: dict[str, Feature]
) -> Memorisation:
    """Return what the gate says of generated images beside training images; ``folders`` are in that order."""
    held, trained = (Pictured(folders[at].names(), images) for at, images in ((0, real), (2, train)))
    return gate(generated, trained, held, {name: made for name, made in networks.items() if name not in SHIPPED})


def split(real: Tensor, generated: int, side: int, wish: Wish) -> Reference:
    """Return real images uint8 (m, 3, side, side) in two parts: as many for the floor as there are generated ones."""
    kept = min(generated, len(real) // 2) if wish.choices.floor else 0
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(real)))
    floor = f"floor: {kept} others of it against the same" if kept else "no floor"
    words = f"{len(real) - kept} images of the real folder; {floor}"
    cache = wish.choices.cache or wish.choices.output / "cache"
    return Reference(real[order[kept:]], real[order[:kept]], side, words, cache)


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


def common_side(folders: list[Folder], largest: int) -> tuple[int, list[str]]:
    """Return the side that all images are brought to, and a note when that changes any of them."""
    sizes = sum((folder.sizes for folder in folders), Counter())
    side = min(largest, *(min(size) for size in sizes))
    if side < SMALLEST:
        small = next(folder.path for folder in folders if side in map(min, folder.sizes))
        raise DataError(f"{small}: holds images of {side} pixels a side; {SMALLEST} is the least that can be measured.")
    if set(sizes) == {(side, side)}:
        return side, []
    seen = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3]) + (" ..." if len(sizes) > 3 else "")
    return side, [
        f"images are {seen}: all were brought to {side} x {side} (short side, antialiased bicubic, centre crop); "
        "resizing one folder more than the other changes fine detail"
    ]


def load(folder: Folder, side: int) -> Tensor:
    """Return a folder's images, uint8 (n, 3, side, side).

    Raises:
        DataError: they are all the same.
    """
    images = (open_image(file).image for file in folder.files)
    found = torch.stack([pixels_of(image if image.size == (side, side) else resize(image, side)) for image in images])
    if bool((found == found[0]).all()):
        raise DataError(
            f"{folder.path}: its {len(found)} images are all the same picture. A distance between two sets of images "
            "is not defined where nothing differs."
        )
    return found


def folder_notes(folders: list[Folder], real: Reference) -> list[str]:
    """Return what a reader must know of the images: copies in both folders, too few of them."""
    count, generated = len(real.held), len(folders[1].files)
    notes = [shared(folders)]
    if min(generated, len(real.against)) < ENOUGH:
        notes.append(
            f"only {min(generated, len(real.against))} images a side: read the Fréchet distances against their floor, "
            "never alone"
        )
    if 0 < count < generated:
        notes.append(
            f"the floor is of {count} images, the values of {generated}: a Fréchet distance falls with more images, "
            "and may come to lie below its floor"
        )
    if min(generated, len(real.against)) < FEWEST_NEIGHBOURS:
        notes.append(f"precision, recall, density and coverage are not defined below {FEWEST_NEIGHBOURS} images a side")
    return notes


def shared(folders: list[Folder]) -> str:
    """Say how many of the generated files lie in the real folder too, byte for byte."""
    sizes = {file.stat().st_size for file in folders[0].files}
    suspects = [file for file in folders[1].files if file.stat().st_size in sizes]
    known = {sha256_of(file) for file in folders[0].files} if suspects else set()
    count = sum(sha256_of(file) in known for file in suspects)
    if not count:
        return ""
    return (
        f"{count} of the {len(folders[1].files)} generated files are byte-for-byte in both folders: "
        "these numbers say how well they were copied, not how well images are generated"
    )


def network_notes(networks: dict[str, Feature], real: Reference, generated: int) -> list[str]:
    """Return what a reader must know of the features: none was asked for, or more numbers than images."""
    notes = []
    if list(networks) == SHIPPED:
        notes.append(
            "no pretrained network was named; highfreq and colour see blur, grain and wrong colours, not wrong "
            "anatomy. With weights at hand: features=inception feature.path=..."
        )
    count = min(generated, len(real.against))
    for name, network in networks.items():
        width = real.features(network).against.shape[1]
        if count <= width:
            notes.append(
                f"{name} gives {width} numbers an image, and there are {count} images a side: their covariance is "
                "singular, and a Fréchet distance on them tells little beside its floor"
            )
    return notes
