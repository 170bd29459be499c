"""The command line: ``anastyle VERB``, from ``anastyle list`` to ``anastyle export``.

Each verb wakes only what it needs; ``list`` and ``--help`` wake no torch.
"""

import argparse
import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anastyle import __version__
from anastyle.errors import PROBLEMS, AnastyleError, ConfigError, LostError, did_you_mean
from anastyle.speaker import is_main, say
from anastyle.verbs import add_verbs

Args = argparse.Namespace
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*=")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; faults a person can mend come without a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    args, rest = parser.parse_known_args(words)
    if unknown := [word for word in rest if word.startswith("-")]:
        known = [option for word in words[:1] for option in options_of(parser, word)]
        parser.error(f"{unknown[0]}: no such option.{did_you_mean(unknown[0], known)}")
    if rest and not hasattr(args, "words"):
        parser.error(f"{rest[0]}: one word too many.")
    if rest:
        args.words += rest  # words after an option: `run FILE --fresh seeds=[43]`
    try:
        return args.verb(args)
    except AnastyleError as error:
        report(error, debug=args.debug)
        return error.exit_code
    except KeyboardInterrupt:
        if is_main():
            print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `anastyle list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        report(AnastyleError(f"{error}\n  Make room; the same command continues."), debug=args.debug)
        return 1


def report(error: AnastyleError, *, debug: bool) -> None:
    """Print an error in at most five lines, from the first rank only, unless it may be the one that is gone."""
    if not (is_main() or isinstance(error, LostError)):
        return
    if debug:
        traceback.print_exception(error)
    lines = f"error: {error}".splitlines()
    print("\n".join(lines[:5]), file=sys.stderr)


def list_plugins(args: Args) -> int:
    """``anastyle list [KIND]``."""
    from anastyle.describe import plugin_list

    say(plugin_list(args.kind))
    return 0


def describe(args: Args) -> int:
    """``anastyle describe NAME``."""
    from anastyle.describe import description

    say(description(args.name))
    return 0


def check(args: Args) -> int:
    """``anastyle check FILE [a.b=c ...]``."""
    from anastyle.check import check
    from anastyle.experiment import read

    say(check(read(args.file, args.words), fair=True))
    return 0


def params(args: Args) -> int:
    """``anastyle params FILE [a.b=c ...] [--card CARD]``."""
    from anastyle.accounting.params import report
    from anastyle.experiment import read

    say(report(read(args.file, args.words), args.card))
    return 0


def fetch(args: Args) -> int:
    """``anastyle fetch FILE|NAME [a.b=c ...] [--to DIR]``."""
    from anastyle.fetch import fetch, of_plugin, wanted

    if Path(args.file).suffix in (".yaml", ".yml"):
        from anastyle.experiment import read

        checkpoints = wanted(read(args.file, args.words))
    else:
        checkpoints = of_plugin(args.file, args.words)
    say(fetch(checkpoints, None if args.to is None else Path(args.to)))
    return 0


def prepare(args: Args) -> int:
    """``anastyle prepare NAME [SOURCE] OUT [key=value ...]``."""
    from anastyle.config import parse_word
    from anastyle.data.prepare import prepare

    places = [word for word in args.words if not OPTION.match(word)]
    if not 1 <= len(places) <= 2:
        raise ConfigError(
            f"prepare takes NAME [SOURCE] OUT, and {len(places)} places came after {args.name}.\n"
            "  anastyle prepare folder photos/ data/photos      anastyle prepare phantom data/phantom train=512"
        )
    options: dict[str, Any] = dict(parse_word(word) for word in args.words if OPTION.match(word))
    if len(places) == 2:
        options["source"] = places[0]
    prepare(args.name, options, Path(places[-1]))
    say(f"{places[-1]}: ready. Use it: data: {{root: {places[-1]}}}")
    return 0


def caption(args: Args) -> int:
    """``anastyle caption SET [CAPTIONER] [key=value ...]``."""
    from anastyle.captioning.sheet import write_sheet
    from anastyle.captioning.write import caption_set, report
    from anastyle.config import parse_word
    from anastyle.data.split import PreparedSet

    places = [word for word in args.words if not OPTION.match(word)]
    if len(places) > 1:
        raise ConfigError(
            f"caption takes SET [CAPTIONER], and '{places[1]}' came after. Options are written key=value."
        )
    options: dict[str, Any] = dict(parse_word(word) for word in args.words if OPTION.match(word))
    name, instead, sheet = (str(options.pop(word, "")) for word in ("name", "instead", "sheet"))
    captioner = places[0] if places else "template"
    written = caption_set(args.set, captioner, options, name=name, instead=instead, fresh=args.fresh)
    say(report(written, args.set))
    if sheet:
        write_sheet(PreparedSet.open(args.set), written.path, Path(sheet))
        say(f"{sheet}: images beside their captions; look at them before you train.")
    return PROBLEMS if written.rejected else 0


def evaluate(args: Args) -> int:
    """``anastyle evaluate REAL GENERATED [features=NAME|[a,b]] [feature.path=...] [train=FOLDER] [output=DIR]``."""
    from anastyle.evaluation.choices import read_choices
    from anastyle.evaluation.folders import evaluate_folders

    return evaluate_folders(Path(args.real), Path(args.generated), read_choices(args.words))


def run(args: Args) -> int:
    """``anastyle run FILE [a.b=c ...]``, and behind ``launch/run.py``."""
    from anastyle.check import check
    from anastyle.experiment import read

    experiment = read(args.file, args.words)
    if args.print_config:
        from omegaconf import OmegaConf

        say(OmegaConf.to_yaml(experiment.document()).rstrip())
        return 0
    summary = check(experiment, fair=args.check)
    if args.check:
        say(summary)
        return 0
    if experiment.sweep is not None:
        words = " ".join([args.file, *args.words])
        raise ConfigError(
            f"{args.file}: asks for a sweep: anastyle sweep {words}\n  To run it once, as it is: sweep=null"
        )
    from anastyle.run import run_experiment

    return run_experiment(experiment, fresh=args.fresh, dry_run=args.dry_run)


def sweep(args: Args) -> int:
    """``anastyle sweep FILE [a.b=c ...]``, and behind ``launch/sweep.py``."""
    from anastyle.check import check
    from anastyle.experiment import read

    experiment = read(args.file, args.words)
    if args.check:
        say(check(experiment, fair=True))
        return 0
    from anastyle.sweeps.sweep import run_sweep

    return run_sweep(experiment, fresh=args.fresh, dry_run=args.dry_run)


def build_parser() -> argparse.ArgumentParser:
    """Describe the verbs."""
    parser = argparse.ArgumentParser(
        prog="anastyle",
        description="Controllable medical image generation, anatomy and style apart.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"anastyle {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = add_verb(verbs, "list", list_plugins, "plugins by kind")
    verb.add_argument("kind", metavar="KIND", nargs="?", help="encoder, aligner, fuser, backbone, ...")
    verb = add_verb(verbs, "describe", describe, "a plugin: what it is, its options and their defaults")
    verb.add_argument("name", metavar="NAME")
    add_file(add_verb(verbs, "check", check, "an experiment file, before anything is built"))
    verb = add_file(add_verb(verbs, "params", params, "what each part counts, computes and needs, without weights"))
    verb.add_argument("--card", default="A30", help="A30, A100-40, A100-80, H100, H200, or GiB (default: A30)")
    verb = add_file(add_verb(verbs, "fetch", fetch, "download the pretrained weights of an experiment or a plugin"))
    verb.add_argument("--to", metavar="DIR", help="a plain folder to carry along (default: the hub's cache)")
    verb = add_verb(verbs, "prepare", prepare, "a dataset, written as shards")
    verb.add_argument("name", metavar="NAME", help="a dataset: anastyle list datasets")
    verb.add_argument("words", metavar="[SOURCE] OUT [key=value ...]", nargs="*", help="where from, where to, options")
    verb = add_verb(verbs, "caption", caption, "captions by field for a prepared set; the same command again continues")
    verb.add_argument("set", metavar="SET", help="a folder that `anastyle prepare` wrote")
    words = "a captioner (default: template), its options, and: name= of the table, sheet=FILE.png, instead=TABLE"
    verb.add_argument("words", metavar="[CAPTIONER] [key=value ...]", nargs="*", help=words)
    verb.add_argument("--fresh", action="store_true", help="replace a table that other options wrote")
    verb = add_verb(verbs, "evaluate", evaluate, "generated images against real ones, two folders")
    verb.add_argument("real", metavar="REAL")
    verb.add_argument("generated", metavar="GENERATED")
    words = "features=NAME or [a,b] (default: those that need no weights), feature.path= of their weights, resize="
    words += "antialiased|legacy_tf, train= (a folder: search for copies of it, exit 6 where there are many), "
    words += "output= (default: evaluation), cache=, draws=, max_side=, floor=false"
    verb.add_argument("words", metavar="option=value", nargs="*", help=words)
    verb = add_file(add_verb(verbs, "run", run, "an experiment; the same command again continues"))
    verb.add_argument("--check", action="store_true", help="only check the file")
    verb.add_argument("--dry-run", action="store_true", help="say what would be trained and what reused")
    verb.add_argument("--fresh", action="store_true", help="start over instead of continuing")
    verb.add_argument("--print-config", action="store_true", help="print the file, every default spelled out")
    verb = add_file(add_verb(verbs, "sweep", sweep, "an experiment's sweep; the same command again adds a worker"))
    verb.add_argument("--check", action="store_true", help="only check the file")
    verb.add_argument("--dry-run", action="store_true", help="say how many trials have ended, and what they share")
    verb.add_argument("--fresh", action="store_true", help="drop all trials and start over")
    add_verbs(verbs, add_verb)
    return parser


def add_verb(verbs: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    """Add one verb; ``--debug`` is understood on either side of it."""
    verb = verbs.add_parser(
        name, help=text, description=function.__doc__.strip("`.").replace("``", ""), allow_abbrev=False
    )
    verb.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    verb.set_defaults(verb=function)
    return verb


def add_file(verb: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Give a verb an experiment file and words that override it."""
    verb.add_argument("file", metavar="FILE", help="an experiment file")
    verb.add_argument("words", metavar="a.b=c", nargs="*", help="options that override the file")
    return verb


def options_of(parser: argparse.ArgumentParser, verb: str) -> list[str]:
    """Return the options of a verb, or of the program."""
    actions = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    chosen = actions.choices.get(verb, parser)
    return [option for action in chosen._actions for option in action.option_strings]


if __name__ == "__main__":
    sys.exit(main())
