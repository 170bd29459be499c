"""What a sweep leaves: a table of its trials, the best as an experiment file, and one page of HTML."""

import csv
import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from anastyle.evaluation.charts import Curve, curve_plot
from anastyle.evaluation.formats import in_full, piped
from anastyle.evaluation.report import document, framed, plots, section
from anastyle.evaluation.tables import DASH, column
from anastyle.experiment import Experiment, command_line
from anastyle.files import write_whole
from anastyle.jsonlines import read_json, write_json
from anastyle.merge import SECTIONS
from anastyle.sweeps.book import BUSY, variant
from anastyle.sweeps.charts import Drawing, Point, bars, draw
from anastyle.sweeps.records import PRUNED, Sweep
from anastyle.sweeps.space import Choice, Parameter, word, words

ENDINGS = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
FEWEST = 4  # finished trials from which on the importance of an option can be told


def finish_sweep(experiment: Experiment, sweep: Sweep, study: optuna.Study, trials: list[FrozenTrial]) -> list[Path]:
    """Write table, best experiment and report; return the files."""
    folder = experiment.folder
    chosen = best(trials, sweep)
    texts = {
        "trials.csv": comma_separated(trials, sweep),
        "trials.md": markdown(trials, sweep, experiment.name),
        "best.yaml": best_yaml(experiment, chosen) if chosen else "",
        "report.html": page(experiment, sweep, study, trials),
    }
    files = []
    for name, text in texts.items():
        if text:
            write_whole(folder / name, text.encode())
            files.append(folder / name)
    write_json(folder / "finished.json", endings(trials))
    return files


def finished(folder: Path, trials: list[FrozenTrial]) -> bool:
    """Say whether the report stands for just these trials."""
    return read_json(folder / "finished.json") == endings(trials) and (folder / "report.html").is_file()


def endings(trials: list[FrozenTrial]) -> dict[str, Any]:
    """Return how each trial ended."""
    return {variant(trial.number): [ENDINGS[trial.state], *(trial.values or ())] for trial in trials}


def summary(folder: Path) -> str:
    """Return what a finished sweep prints."""
    text = (folder / "trials.md").read_text(encoding="utf-8").rstrip()
    again = f"\nBest: anastyle run {folder / 'best.yaml'}" if (folder / "best.yaml").exists() else ""
    return f"{text}\n\nReport: {folder / 'report.html'}{again}"


# Which trials


def best(trials: Sequence[FrozenTrial], sweep: Sweep) -> list[FrozenTrial]:
    """Return the best finished trial, or of several objectives those that no other one beats, by number."""
    found = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    signs = [1 if how == "minimize" else -1 for how in sweep.objective.values()]
    worth = {trial.number: [sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in found}
    if len(signs) == 1:
        return sorted(found, key=lambda trial: worth[trial.number])[:1]
    return [one for one in found if not any(_beats(worth[other.number], worth[one.number]) for other in found)]


def _beats(one: list[float], other: list[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def progress_line(trials: list[FrozenTrial], sweep: Sweep, number: int | None = None, why: str = "") -> str:
    """Say how far a sweep is, and what a trial that just ended came to."""
    ended = sum(trial.state not in BUSY for trial in trials)
    count = f"{ended} of {sweep.trials} trials have ended"
    chosen = best(trials, sweep)
    if len(sweep.objective) > 1:
        so_far = f"; {len(chosen)} in the Pareto set" if chosen else ""
    else:
        so_far = f"; best {_values(chosen[0], sweep)} ({variant(chosen[0].number)})" if chosen else ""
    if number is None:
        return f"{count}{so_far}"
    trial = trials[number]
    came_to = _values(trial, sweep) if trial.state == TrialState.COMPLETE else f"{ENDINGS[trial.state]}, {why}"
    return f"{variant(number)}: {came_to}; {count}{so_far}"


def _values(trial: FrozenTrial, sweep: Sweep) -> str:
    return ", ".join(f"{metric} {_shown(metric, value)}" for metric, value in zip(sweep.objective, trial.values or ()))


def _shown(metric: str, value: float) -> str:
    return column(metric).show(value)


# Files


def comma_separated(trials: list[FrozenTrial], sweep: Sweep) -> str:
    """Return one line a trial, numbers in full."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    paths = [one.path for one in sweep.space]
    writer.writerow(["trial", "ending", *sweep.objective, *paths, "seconds", "reason"])
    for trial in trials:
        values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(sweep.objective)
        params = [word(trial.params[path]) if path in trial.params else "" for path in paths]
        reason = trial.user_attrs.get("reason", "")
        seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.1f}"
        writer.writerow([trial.number, ENDINGS[trial.state], *in_full(*values), *params, seconds, reason])
    return out.getvalue()


def markdown(trials: list[FrozenTrial], sweep: Sweep, name: str) -> str:
    """Return a table of the trials, the best first."""
    marked = {trial.number for trial in best(trials, sweep)}
    heads = ["trial", "ending", *(_title(metric) for metric in sweep.objective), *(one.path for one in sweep.space)]
    lines = [f"### {name}: {counted(trials)}\n", piped(heads), "|---|---|" + "--:|" * (len(heads) - 2)]
    for trial in ranked(trials, sweep):
        cells = cells_of(trial, sweep)
        cells = [f"**{cell}**" for cell in cells] if trial.number in marked else cells
        lines.append(piped([str(trial.number), ENDINGS[trial.state], *cells, *options_of(trial, sweep)]))
    return "\n".join([*lines, ""])


def counted(trials: list[FrozenTrial]) -> str:
    """Return how many trials ended how."""
    words = [ENDINGS[trial.state] for trial in trials]
    return ", ".join(f"{words.count(ending)} {ending}" for ending in dict.fromkeys(ENDINGS.values()) if ending in words)


def ranked(trials: list[FrozenTrial], sweep: Sweep) -> list[FrozenTrial]:
    """Return the trials by their first objective; what has none comes last."""
    sign = 1 if next(iter(sweep.objective.values())) == "minimize" else -1

    def place(trial: FrozenTrial) -> tuple[float, int]:
        done = trial.state == TrialState.COMPLETE
        return (sign * trial.values[0] if done else math.inf), trial.number

    return sorted(trials, key=place)


def _title(metric: str) -> str:
    return f"{column(metric).title} {column(metric).arrow}"


def cells_of(trial: FrozenTrial, sweep: Sweep) -> list[str]:
    """Return a trial's objectives as the table writes them."""
    if trial.state != TrialState.COMPLETE:
        return [DASH] * len(sweep.objective)
    return [_shown(metric, value) for metric, value in zip(sweep.objective, trial.values, strict=True)]


def options_of(trial: FrozenTrial, sweep: Sweep) -> list[str]:
    """Return a trial's options as the table writes them."""
    return [option(trial.params[one.path]) if one.path in trial.params else DASH for one in sweep.space]


def option(value: Any) -> str:
    """Return an option for a table: numbers to four digits."""
    return f"{value:.4g}" if type(value) is float else word(value)


def best_yaml(experiment: Experiment, chosen: list[FrozenTrial]) -> str:
    """Return the best trial as an experiment file, every option spelled out; a Pareto set as its variants."""
    config = next(iter(experiment.variants.values()))
    head = {"name": f"{experiment.name}-best", "output": str(experiment.output), "seeds": experiment.seeds}
    head["description"] = f"{', '.join(variant(trial.number) for trial in chosen)} of the sweep {experiment.name}."
    variants = {variant(trial.number): _layer(trial) for trial in chosen}
    body = {key: config[key] for key in SECTIONS}
    written = yaml.safe_dump({**head, **body, "variants": variants}, sort_keys=False, allow_unicode=True)
    return f"# What the sweep {experiment.name} found best; its trainings are found again.\n{written}"


def _layer(trial: FrozenTrial) -> dict[str, Any]:
    return command_line(words(trial.params))


# The page


def page(experiment: Experiment, sweep: Sweep, study: optuna.Study, trials: list[FrozenTrial]) -> str:
    """Return the report."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    goals = ", ".join(f"{how} {column(metric).title}" for metric, how in sweep.objective.items())
    lead = f"{counted(trials)}; {goals}, by {sweep.sampler.name}. The best in bold."
    sections = [
        section("Trials", table(trials, sweep), lead),
        section("How the best was found", plots([history(finished, sweep, metric) for metric in sweep.objective])),
        section("The Pareto set", plots(fronts(finished, sweep)),
                "Trials that no other one beats in every objective are marked.") if len(sweep.objective) > 1 else "",
        importances(study, sweep, finished),
        section("Option by option", plots(slices(finished, sweep)), "Each finished trial by one option's value."),
        losses(trials, sweep),
        section("How it was searched", fine_print(experiment)),
    ]  # fmt: skip
    return document(experiment.name, experiment.description, "Anastyle sweep", "".join(sections))


def table(trials: list[FrozenTrial], sweep: Sweep) -> str:
    """Return the trials as HTML, the best first."""
    marked = {trial.number for trial in best(trials, sweep)}
    heads = [*(_title(metric) for metric in sweep.objective), *(one.path for one in sweep.space), "ending"]
    lines = []
    for trial in ranked(trials, sweep):
        cells = [escape(cell) for cell in cells_of(trial, sweep)]
        cells = [f"<b>{cell}</b>" for cell in cells] if trial.number in marked else cells
        why = escape(str(trial.user_attrs.get("reason", "")).partition("\n")[0][:120])
        cells += [*map(escape, options_of(trial, sweep)), f'{ENDINGS[trial.state]}<span class="spread">{why}</span>']
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{variant(trial.number)}</th>{row}</tr>')
    return framed("".join(f'<th scope="col">{escape(head)}</th>' for head in heads), lines, [], first="trial")


def _scaled(trial: FrozenTrial, sweep: Sweep, metric: str) -> float:
    return trial.values[list(sweep.objective).index(metric)] * column(metric).scale


def _share(metric: str) -> bool:
    return not column(metric).lower_is_better


def history(finished: list[FrozenTrial], sweep: Sweep, metric: str) -> str:
    """Return every trial's value, and the best so far."""
    better = min if sweep.objective[metric] == "minimize" else max
    points, line = [], list[tuple[float, float]]()
    for trial in finished:
        value = _scaled(trial, sweep, metric)
        held = better(value, line[-1][1]) if line else value
        line += [*([(float(trial.number), line[-1][1])] if line else []), (float(trial.number), held)]
        points.append(Point(trial.number, value, f"{variant(trial.number)}: {value:.4g}", held == value))
    return draw(Drawing(_title(metric), "trials; the line is the best so far", points, line, share=_share(metric)))


def fronts(finished: list[FrozenTrial], sweep: Sweep) -> list[str]:
    """Return a drawing for each pair of objectives."""
    marked = {trial.number for trial in best(finished, sweep)}
    metrics = list(sweep.objective)
    pairs = [(one, other) for at, one in enumerate(metrics) for other in metrics[at + 1 :]]
    drawings = []
    for across, up in pairs:
        points = [Point(_scaled(trial, sweep, across), _scaled(trial, sweep, up), variant(trial.number),
                        trial.number in marked) for trial in finished]  # fmt: skip
        drawings.append(draw(Drawing(_title(up), _title(across), points, share=_share(up))))
    return drawings


def importances(study: optuna.Study, sweep: Sweep, finished: list[FrozenTrial]) -> str:
    """Return how much of the objectives' spread each option explains."""
    if len(finished) < FEWEST:
        return ""
    figures = []
    for at, (metric, how) in enumerate(sweep.objective.items()):
        sign = 1 if how == "minimize" else -1  # what is measured is what matters for low values
        with warnings.catch_warnings(), suppress(ValueError, RuntimeError):  # nothing varies
            warnings.simplefilter("ignore")
            found = get_param_importances(study, target=lambda trial, at=at, sign=sign: sign * trial.values[at])
            if found and all(map(math.isfinite, found.values())):
                figures.append(f"<figure><h3>{escape(_title(metric))}</h3>{bars(found)}</figure>")
    lead = f"PED-ANOVA (Watanabe 2023) over {len(finished)} finished trials; few trials tell little."
    return section("What matters", plots(figures) if figures else "", lead)


def slices(finished: list[FrozenTrial], sweep: Sweep) -> list[str]:
    """Return a drawing for each option and objective."""
    marked = {trial.number for trial in best(finished, sweep)}
    return [_slice(finished, sweep, one, metric, marked) for metric in sweep.objective for one in sweep.space]


def _slice(finished: list[FrozenTrial], sweep: Sweep, one: Parameter, metric: str, marked: set[int]) -> str:
    having = [trial for trial in finished if one.path in trial.params]
    names = [option(value) for value in one.values] if isinstance(one, Choice) else []

    def place(trial: FrozenTrial) -> float:
        value = trial.params[one.path]
        return float(one.values.index(value)) if isinstance(one, Choice) else float(value)

    points = [Point(place(trial), _scaled(trial, sweep, metric), variant(trial.number), trial.number in marked)
              for trial in having]  # fmt: skip
    log_x = not isinstance(one, Choice) and one.log
    return draw(Drawing(_title(metric), one.path, points, names=names, log_x=log_x, share=_share(metric)))


def losses(trials: list[FrozenTrial], sweep: Sweep) -> str:
    """Return the losses that a pruner compared."""
    if sweep.pruner is None:
        return ""
    sign = 1 if next(iter(sweep.objective.values())) == "minimize" else -1
    shown = [trial for trial in trials if trial.intermediate_values]
    curves = []
    for trial in shown:
        told = sorted(trial.intermediate_values.items())
        steps, values = zip(*(told * 2 if len(told) == 1 else told), strict=True)  # a line of one point is drawn as one
        curves.append(Curve(PRUNED, variant(trial.number), steps, [sign * value for value in values]))
    colours = {curve.variant: 0 if trial.state == TrialState.COMPLETE else 1 for curve, trial in zip(curves, shown)}
    plot = curve_plot(PRUNED, curves, colours) if curves else ""
    lead = (
        f"The {sweep.pruner.options.term} loss that {sweep.pruner.name} compared; pruned trials in the second colour."
    )
    return section(
        "Ended early", plots([f"<figure>{plot}<figcaption>steps</figcaption></figure>"]) if plot else "", lead
    )


def fine_print(experiment: Experiment) -> str:
    """Return the configuration."""
    text = yaml.safe_dump(experiment.document(), sort_keys=False)
    return f"<details><summary>Configuration</summary><pre>{escape(text)}</pre></details>"
