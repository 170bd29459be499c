"""What is to be painted: words, whole or by factor, and the seeds of the noise they are painted from."""

import csv
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from anastyle.config import refuse
from anastyle.errors import ConfigError, DataError, MissingError, did_you_mean

LARGEST_SEED = 2**63 - 1
MOST_SEEDS = 100_000  # of one range
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")  # of an image or a class folder
RANGE = re.compile(r"(\d+)(?:-(\d+))?")
WHOLE = ("prompt", "text")  # columns that hold a whole caption, the first that is there
COLUMNS = ("id", "label", "seed", "anatomy", "style")


class Prompt(NamedTuple):
    """The words of one image. Given by factor, each factor is read off its own words; an absent one is left open."""

    text: str
    anatomy: str = ""
    style: str = ""
    id: str = ""
    label: str = ""
    seed: int | None = None

    @property
    def parted(self) -> bool:
        """Whether anatomy and style were given apart."""
        return bool(self.anatomy or self.style)

    @property
    def name(self) -> str:
        """The id, or a hash of the words: other words, another name."""
        words = "\0".join((self.text, self.anatomy, self.style, self.label))
        return self.id or hashlib.sha256(words.encode()).hexdigest()[:10]


def by_factor(anatomy: str, style: str, **more: object) -> Prompt:
    """Put the fields of a prompt together, as a caption reads."""
    anatomy, style = anatomy.strip(), style.strip()
    fields = [field.rstrip(" .;,") for field in (anatomy, style) if field]
    return Prompt("; ".join(fields) + "." if fields else "", anatomy, style, **more)  # type: ignore[arg-type]


def typed_prompt(prompt: str | None, anatomy: str | None, style: str | None) -> Prompt:
    """Return the one prompt of a command line.

    Raises:
        ConfigError: it has no words.
    """
    made = Prompt(prompt.strip()) if prompt is not None else by_factor(anatomy or "", style or "")
    if not made.text:
        raise ConfigError('the prompt is empty. Say what to paint: --prompt "...", or --anatomy "..." --style "..."')
    return made


def read_seeds(words: str) -> list[int]:
    """Return the seeds that ``0-31`` or ``1,5,8-9`` names, in that order, each once.

    Raises:
        ConfigError: it is something else, or a range that falls.
    """
    seeds: dict[int, None] = {}
    for word in words.split(","):
        match = RANGE.fullmatch(word.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if last < first or last > LARGEST_SEED or last - first >= MOST_SEEDS:
            raise ConfigError(f"--seeds {words}: '{word}' is no seed. Write numbers and rising ranges: 0-31 or 1,5,8-9")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def read_prompts(file: Path) -> list[Prompt]:
    """Read a CSV (UTF-8) with a column ``prompt`` (or ``text``), or ``anatomy`` and ``style``; in any case, as far as
    known, ``id``, ``label`` and ``seed``. A row with a whole prompt is read whole.

    Raises:
        MissingError: there is no such file.
        DataError: it lacks the column, or rows are empty or contradict each other; all of them at once.
    """
    if not file.is_file():
        near = did_you_mean(file.name, [other.name for other in file.parent.glob("*.csv")])
        raise MissingError(f"{file}: there is no such file of prompts.{near}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: is no CSV in UTF-8 ({error}). Save it as one.") from None
    whole = next((name for name in WHOLE if name in columns), None)
    if whole is None and not {"anatomy", "style"} & set(columns):
        found = ", ".join(filter(None, columns)) or "none"
        raise DataError(f"{file}: has no column 'prompt', nor 'anatomy' and 'style'.\n  columns: {found}")
    if not rows:
        raise DataError(f"{file}: has no rows. Write one prompt a line, below the names of the columns.")
    prompts, problems = [], []
    for line, row in rows:
        prompt, problem = _prompt({key: (row.get(key) or "").strip() for key in (*COLUMNS, *WHOLE)}, whole)
        problems += [f"line {line}: {problem}"] if problem else []
        prompts.append(prompt)
    refuse(problems + _twins(prompts), str(file), DataError)
    return prompts


def _prompt(row: Mapping[str, str], whole: str | None) -> tuple[Prompt, str]:
    """Return a row's prompt and what is wrong with it, if anything."""
    about = {"id": row["id"], "label": row["label"], "seed": None}
    text = row[whole] if whole else ""
    prompt = Prompt(text, **about) if text else by_factor(row["anatomy"], row["style"], **about)
    if not prompt.text:
        return prompt, "its prompt is empty"
    for key in ("id", "label"):
        if row[key] and not NAME.fullmatch(row[key]):
            return prompt, f"{key} '{row[key]}' becomes a name of a file: use letters, digits, '.', '_' and '-'"
    if not row["seed"]:
        return prompt, ""
    if not row["seed"].isdecimal() or int(row["seed"]) > LARGEST_SEED:
        return prompt, f"seed '{row['seed']}' is no whole number"
    return prompt._replace(seed=int(row["seed"])), ""


def _twins(prompts: list[Prompt]) -> list[str]:
    """Name ids that stand for several images."""
    seen: dict[tuple, Prompt] = {}
    problems = []
    for prompt in prompts:
        place = (prompt.label, prompt.name, prompt.seed)
        if prompt.id and place in seen:
            problems.append(f"id '{prompt.id}' is there twice; an id names one image file")
        seen[place] = prompt
    return problems
