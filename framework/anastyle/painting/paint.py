"""``anastyle sample``: prompts to images, a folder of them, again and again the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from anastyle.data.images import picture_of, unsigned
from anastyle.devices import device, use_all_cores
from anastyle.errors import ConfigError, DataError, NumericalError
from anastyle.interfaces import Sample
from anastyle.painting.chain import Chain, Guidance
from anastyle.painting.finished import FinishedRun
from anastyle.painting.painted import GRID, MASKS, NOTE, same_picture, sheet, versions, write_image, write_list
from anastyle.painting.prompts import Prompt
from anastyle.progress import Progress

LARGEST_SHEET = 256  # images
GUIDE = 2  # version of guidance by factor: 1 halved what each factor says, pictures of it are painted anew


@dataclass(frozen=True)
class Wish:
    """How the prompts are to be painted; what is None is as in the run's own generate stage."""

    prompts: list[Prompt]
    seeds: list[int]
    steps: int | None = None
    guidance: float | None = None
    guidance_anatomy: float | None = None
    guidance_style: float | None = None
    batch_size: int = 8
    precision: str = "no"
    grid: bool = False

    def __post_init__(self) -> None:
        for option, value, least in (
            ("steps", self.steps, 1),
            ("batch-size", self.batch_size, 1),
            ("guidance", self.guidance, 0),
            ("guidance-anatomy", self.guidance_anatomy, 0),
            ("guidance-style", self.guidance_style, 0),
        ):
            if value is not None and not value >= least:
                raise ConfigError(f"--{option} {value}: must be at least {least}.")

    @property
    def apart(self) -> bool:
        """Whether a factor has a weight of its own."""
        return self.guidance_anatomy is not None or self.guidance_style is not None

    def jobs(self) -> list[tuple[Prompt, int]]:
        """Return every image that is wanted, once: prompts by seeds; a prompt with a seed of its own has that one."""
        pairs = [(p, seed) for p in self.prompts for seed in (self.seeds if p.seed is None else [p.seed])]
        return list({(p.label, p.name, seed): (p, seed) for p, seed in pairs}.values())


def sample_run(folder: Path, wish: Wish, out: Path | None = None) -> str:
    """Paint what is wished into ``out`` (by default the run's ``samples``) and return what was done, in a line.

    An image that is there, whole and of the same origin, is left as it is.

    Raises:
        AnastyleError: the run, the words or the place cannot be used.
    """
    run = FinishedRun.open(folder)
    out = out or run.folder / "samples"
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file. Name a folder: --out DIR")
    use_all_cores()
    chain = run.chain()
    asked = {out / place(p, seed): (p, seed, provenance_of(run, chain, wish, p, seed)) for p, seed in wish.jobs()}
    left = [path for path, (_, _, about) in asked.items() if not same_picture(path, about)]
    if left:
        chain.to(device()).backbone.merge()
    progress = Progress(len(left))
    bar = progress.stage(run.folder.parent.name, run.seed, "sample", len(left))
    for start in range(0, len(left), wish.batch_size):
        paths = left[start : start + wish.batch_size]
        prompts, seeds, abouts = zip(*(asked[path] for path in paths), strict=True)
        store(out, paint(chain, wish, prompts, seeds), abouts)
        bar.advance(len(paths), len(paths))
    progress.close()
    listed = write_list(out)
    if wish.grid:
        write_sheet(out, list(asked), len(wish.seeds))
    return f"{out}: {len(left)} images painted, {len(asked) - len(left)} were there; samples.csv lists {listed}. {NOTE}"


def place(prompt: Prompt, seed: int) -> str:
    """Return where an image goes, below the folder: ``[LABEL/]ID-sSEED.png``."""
    name = f"{prompt.name}-s{seed}.png"
    return f"{prompt.label}/{name}" if prompt.label else name


def provenance_of(run: FinishedRun, chain: Chain, wish: Wish, prompt: Prompt, seed: int) -> dict[str, Any]:
    """Return all that decides an image, and under what it was painted."""
    return {
        "image": place(prompt, seed),
        "run": run.name,
        "run_folder": str(run.folder),
        "diffuse": run.stages["diffuse"],
        "text": prompt.text,
        "anatomy": prompt.anatomy,
        "style": prompt.style,
        "label": prompt.label,
        "seed": seed,
        "steps": wish.steps or chain.steps,
        "guidance": chain.guidance if wish.guidance is None else wish.guidance,
        "guidance_anatomy": wish.guidance_anatomy,
        "guidance_style": wish.guidance_style,
        **({"guide": GUIDE} if wish.apart else {}),
        "precision": wish.precision,
        "note": NOTE,
        "versions": versions(),
    }


def paint(chain: Chain, wish: Wish, prompts: Any, seeds: Any) -> Sample:
    """Return one batch of images.

    Raises:
        NumericalError: an image is not finite.
    """
    scale = chain.guidance if wish.guidance is None else wish.guidance
    guidance = Guidance(scale, wish.guidance_anatomy, wish.guidance_style)
    found = chain.paint(prompts, seeds, steps=wish.steps, guidance=guidance, bf16=wish.precision == "bf16")
    bad = [p.name for p, image in zip(prompts, found.image, strict=True) if not image.isfinite().all()]
    if bad:
        raise NumericalError(f"{bad[0]}: the painted image is not finite. Try --precision no, or a lower --guidance.")
    return found


def store(out: Path, found: Sample, abouts: Any) -> None:
    """Write a batch of images and, where the backbone makes them, their masks: 0 or 255, cut at one half."""
    for i, (image, about) in enumerate(zip(unsigned(found.image), abouts, strict=True)):
        if found.mask is not None:
            about = {**about, "mask": f"{MASKS}/{about['image']}"}
            pixels = (found.mask[i, 0] >= 0.5).to(torch.uint8).mul(255).cpu().numpy()
            write_image(out / about["mask"], Image.fromarray(pixels), about)
        write_image(out / about["image"], picture_of(image), about)


def write_sheet(out: Path, paths: list[Path], seeds: int) -> None:
    """Write the first images as one picture: a row for each prompt, or rows of eight where there is one seed."""
    columns = min(len(paths), seeds if seeds > 1 else 8)
    shown = paths[:LARGEST_SHEET]
    write_image(out / GRID, sheet(shown, columns), {"images": [path.relative_to(out).as_posix() for path in shown]})
