"""The verbs that take finished runs, and those that look after runs and machine; torch wakes only when called."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anastyle.errors import ConfigError

Args = argparse.Namespace
FORMATS = ("adapter", "peft", "pipeline")


def add_verbs(verbs: Any, add_verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Describe the verbs to the command line."""
    verb = add_verb(verbs, "sample", sample, "images of a finished run, from words")
    verb.add_argument("run", metavar="RUN", help="a run's folder: runs/STUDY/VARIANT/seed-N")
    verb.add_argument("--prompts", metavar="CSV", help="columns: prompt, or anatomy and style; also id, label, seed")
    verb.add_argument("--prompt", metavar="WORDS", help="one whole caption")
    verb.add_argument("--anatomy", metavar="WORDS", help="what anatomy is read off; left out, it is left open")
    verb.add_argument("--style", metavar="WORDS", help="what style is read off; left out, it is left open")
    verb.add_argument("--seeds", metavar="0-31", default="0", help="of the noise: numbers and ranges (default: 0)")
    verb.add_argument("--steps", type=int, metavar="N", help="sampling steps (default: the run's own)")
    verb.add_argument("--guidance", type=float, metavar="G", help="weight of the words (default: the run's own)")
    verb.add_argument("--guidance-anatomy", type=float, metavar="A", help="weight of anatomy (default: --guidance)")
    verb.add_argument(
        "--guidance-style", type=float, metavar="S", help="weight of style; both at G are as --guidance G"
    )
    verb.add_argument("--batch-size", type=int, metavar="B", default=8, help="images at once (default: 8)")
    verb.add_argument("--precision", choices=("no", "bf16"), default="no", help="of the backbone (default: no)")
    verb.add_argument("--out", metavar="DIR", help="where to write (default: RUN/samples)")
    verb.add_argument("--grid", action="store_true", help="write a contact sheet, grid.png")
    verb = add_verb(verbs, "export", export, "a finished run, for diffusers and peft")
    verb.add_argument("run", metavar="RUN", help="a run's folder: runs/STUDY/VARIANT/seed-N")
    verb.add_argument("out", metavar="OUT", help="a folder that is not there yet")
    verb.add_argument("--format", choices=FORMATS, help="one of them (default: all that the run has)")
    verb.add_argument("--accept-risk", metavar="REASON", help="export a model that copies its training images")
    verb = add_verb(verbs, "compare", compare, "finished runs in one table")
    verb.add_argument("runs", metavar="RUN", nargs="+", help="runs, or studies: every finished run below")
    verb.add_argument("--out", metavar="DIR", help="write table.md, table.csv and table.tex there")
    verb.add_argument(
        "--published", metavar="TABLE", action="append", default=[], help="a table of the paper to put under ours"
    )
    verb = add_verb(verbs, "diagnose", diagnose, "where a run loses the factors asked of it, and which code has them")
    verb.add_argument("run", metavar="RUN", help="a run's folder; diagnosis.md and diagnosis.csv are written there")
    verb.add_argument("--images", type=int, metavar="N", default=320, help="held-out images to judge (default: 320)")
    verb = add_verb(verbs, "curve", curve, "studies of the same rows trained for different times, as one figure")
    verb.add_argument("studies", metavar="STUDY", nargs="+", help="studies' folders: runs/STUDY")
    verb.add_argument("--metric", metavar="KEY", default="factor_mean", help="a value's key (default: factor_mean)")
    verb.add_argument("--rows", metavar="A,B", default="", help="rows to show (default: all)")
    verb.add_argument("--out", metavar="FILE.png", help="the figure, its table beside it (default: STUDY/curve.png)")
    verb = add_verb(verbs, "sync", sync, "tell MLflow what it was not told, after an outage or a kill")
    places = "runs, studies, or the folder of studies (default: runs)"
    verb.add_argument("places", metavar="RUN|STUDY|OUTPUT", nargs="*", default=["runs"], help=places)
    verb = add_verb(verbs, "verify", verify, "hash again every sealed folder of runs, and the shards they read")
    verb.add_argument("places", metavar="RUN|STUDY|OUTPUT", nargs="+", help="runs, studies, outputs, prepared sets")
    verb = add_verb(verbs, "doctor", doctor, "is this machine fit: packages, GPU, memory, disks, MLflow; no network")
    verb.add_argument("--output", metavar="DIR", default="runs", help="where runs are to go (default: runs)")


def sample(args: Args) -> int:
    """``anastyle sample RUN --prompts CSV | --prompt WORDS | --anatomy WORDS --style WORDS``."""
    from anastyle.painting.prompts import read_prompts, read_seeds, typed_prompt

    parted = args.anatomy is not None or args.style is not None
    ways = (args.prompts is not None) + (args.prompt is not None) + parted
    if ways != 1:
        raise ConfigError("sample takes one of --prompts CSV, --prompt WORDS, and --anatomy WORDS with --style WORDS.")
    seeds = read_seeds(args.seeds)
    if args.prompts is not None:
        prompts = read_prompts(Path(args.prompts))
    else:
        prompts = [typed_prompt(args.prompt, args.anatomy, args.style)]
    from anastyle.painting.paint import Wish, sample_run

    options = ("steps", "guidance", "guidance_anatomy", "guidance_style", "batch_size", "precision", "grid")
    wish = Wish(prompts, seeds, **{name: getattr(args, name) for name in options})
    print(sample_run(Path(args.run), wish, Path(args.out) if args.out else None))
    return 0


def export(args: Args) -> int:
    """``anastyle export RUN OUT [--format adapter|peft|pipeline] [--accept-risk REASON]``."""
    from anastyle.painting.export import export_run

    print(export_run(Path(args.run), Path(args.out), args.format, accept_risk=args.accept_risk))
    return 0


def compare(args: Args) -> int:
    """``anastyle compare RUN... [--out DIR] [--published TABLE]``."""
    from anastyle.evaluation.compare import compare as compare_runs

    out = Path(args.out) if args.out else None
    print(compare_runs([Path(run) for run in args.runs], out, args.published))
    return 0


def diagnose(args: Args) -> int:
    """``anastyle diagnose RUN [--images N]``."""
    from anastyle.evaluation.diagnose import diagnose as diagnose_run

    print(diagnose_run(Path(args.run), args.images))
    return 0


def curve(args: Args) -> int:
    """``anastyle curve STUDY... [--metric KEY] [--rows A,B] [--out FILE.png]``."""
    from anastyle.evaluation.curve import curve as curve_of

    studies, out = [Path(study) for study in args.studies], Path(args.out) if args.out else None
    print(curve_of(studies, args.metric, out, [row for row in args.rows.split(",") if row]))
    return 0


def sync(args: Args) -> int:
    """``anastyle sync [RUN|STUDY|OUTPUT ...]``."""
    from anastyle.sync import sync as send

    send([Path(place) for place in args.places], print)
    return 0


def verify(args: Args) -> int:
    """``anastyle verify RUN|STUDY|OUTPUT ...``."""
    from anastyle.verify import look

    return look([Path(place) for place in args.places], print)


def doctor(args: Args) -> int:
    """``anastyle doctor [--output DIR]``."""
    from anastyle.doctor import examine

    return examine(Path(args.output), print)
