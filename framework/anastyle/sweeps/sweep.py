"""A sweep: trials taken from the study's book, each a run through the stages, until as many have ended as were wanted.

Only the first rank reads and writes the book; what it finds, every rank is told. Start the same command again, here or
on a machine that shares the folder, and there are two workers.
"""

import math
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from anastyle.check import check
from anastyle.checkpoint import remove_folder
from anastyle.config import typed
from anastyle.devices import agreed, use_all_cores
from anastyle.environment import environment
from anastyle.errors import PROBLEMS, AnastyleError, ConfigError, NumericalError, Pruned
from anastyle.evaluation.measure import values_of
from anastyle.experiment import Experiment, Run
from anastyle.jsonlines import write_json
from anastyle.locks import alone, turn
from anastyle.plan import CADENCE, active, forget, weight, working
from anastyle.progress import Progress
from anastyle.run import Conductor
from anastyle.signals import terminable
from anastyle.speaker import is_main, say
from anastyle.stages import PLANS
from anastyle.stages.settings import schema
from anastyle.sweeps.book import Book, Taken, every, variant
from anastyle.sweeps.pruning import Pruning
from anastyle.sweeps.records import PRUNED, Sweep
from anastyle.sweeps.report import finish_sweep, finished, progress_line, summary
from anastyle.sweeps.settings import leaves, read_sweep, trial_experiment
from anastyle.tracking import Study

LOOK_AGAIN = 5.0  # seconds between two looks at what other workers are doing
T = TypeVar("T")


def run_sweep(experiment: Experiment, *, fresh: bool = False, dry_run: bool = False) -> int:
    """Bring a sweep to its end, together with other workers on it, and write its report; returns the exit code.

    Raises:
        AnastyleError: the storage is gone, the study is another experiment's, or no trial could be brought to its end.
    """
    if experiment.sweep is None:
        raise ConfigError(f"{experiment.file}: has no section 'sweep'. To run it as it is: anastyle run ...")
    check(experiment)
    sweep, _ = read_sweep(experiment)
    assert sweep is not None  # checked a moment ago
    use_all_cores()
    worker = Worker(experiment, sweep)
    if dry_run:
        worker.agree(worker.outline)
        return 0
    with terminable():
        return worker.work(fresh=fresh)


@dataclass(frozen=True)
class Next:
    """What a worker does next: a trial by its number and options, nothing but wait, or neither: the sweep is over."""

    number: int = -1
    params: dict[str, Any] | None = None
    wait: bool = False


class Worker:
    """One process, or the ranks launched together, at work on a sweep."""

    def __init__(self, experiment: Experiment, sweep: Sweep) -> None:
        self.experiment, self.sweep = experiment, sweep
        self.conductor = Conductor(experiment)
        self.base = experiment.runs[0]
        self.taken: Taken | None = None  # the trial under way, as the first rank has it
        self._book: Book | None = None

    @property
    def book(self) -> Book:
        """The trials; for the first rank alone."""
        if self._book is None:
            config = leaves(self.base.config)
            about = {path: str(value) for path, value in config.items() if not path.endswith(CADENCE)}
            about |= {"seeds": str(self.experiment.seeds)}
            about |= {f"sweep.objective.{metric}": how for metric, how in self.sweep.objective.items()}
            about |= {f"sweep.space.{one.path}": str(one) for one in self.sweep.space}
            self._book = self.opened(about)
        return self._book

    def opened(self, about: dict[str, str] | None) -> Book:
        """Return the book of a study that says this of itself; None: whatever it says."""
        return Book(self.sweep, self.experiment.name, self.experiment.folder, about, say, steps=self.steps)

    @property
    def steps(self) -> int:
        """The steps of the stage that a pruner watches, as the file has them; 0 without a pruner."""
        if self.sweep.pruner is None:
            return 0
        settings = typed(schema(PRUNED), self.base.config["stages"][PRUNED], f"stages.{PRUNED}")
        return settings.total(self.conductor.data(self.base).manifest.count("train"))

    def agree(self, find: Callable[[], T]) -> T:
        """Return what the first rank finds, on every rank; what it raises for a person, all raise."""
        found: Any = None
        if is_main():
            try:
                found = find(), None
            except AnastyleError as error:
                found = None, error
        value, error = agreed(found)
        if error is not None:
            raise error
        return value

    # The sweep

    def outline(self) -> None:
        """Say how far the sweep is, and what its trials share."""
        begun = (self.experiment.folder / "sweep.json").exists()
        say(progress_line(self.book.all() if begun else [], self.sweep))
        say(self.sharing())

    def sharing(self) -> str:
        """Say which stages each trial goes through for itself, and which are gone through once for all."""
        paths = [one.path for one in self.sweep.space]
        changed = {path.partition(".")[0] for path in paths} - {"stages"}
        own: list[str] = []
        for stage in active(self.base):
            plan = PLANS[stage]
            itself = any(path.startswith(f"stages.{stage}.") for path in paths)
            if itself or "data" in changed or changed & set(plan.sections) or set(own) & set(plan.after):
                own.append(stage)
        shared = [stage for stage in active(self.base) if stage not in own]
        return f"each trial: {', '.join(own)}; once for all: {', '.join(shared) or 'nothing'}"

    def work(self, *, fresh: bool = False) -> int:
        """Take trials until all have ended."""
        if fresh:
            self.agree(self.forget)
        if self.agree(self.is_finished):
            return 0
        self.agree(lambda: say(self.sharing()))
        study = self.open_study()
        try:
            self.take_all(study)
        except BaseException as error:
            study.close("stopped" if isinstance(error, SystemExit | KeyboardInterrupt) else "failed")
            raise
        return self.finish(study)

    def take_all(self, study: Study) -> None:
        """Attempt one trial after the other, until there is none to take and none under way elsewhere."""
        told = False
        while True:
            following = self.agree(self.decide)
            if following.params is not None:
                self.attempt(following.number, following.params, study)
            elif following.wait:
                if not told:
                    say("every trial is taken; waits for the other workers (this one can be stopped, nothing is lost)")
                time.sleep(LOOK_AGAIN)
            else:
                return
            told = following.wait

    def is_finished(self) -> bool:
        """Say whether there is nothing left to do, and if so print what was found."""
        trials = self.book.all()
        if not self.book.over(trials) or not finished(self.experiment.folder, trials):
            say(progress_line(trials, self.sweep))
            return False
        say(f"{self.experiment.name}: all {self.sweep.trials} trials have ended; nothing to do.")
        say(summary(self.experiment.folder))
        return True

    def open_study(self) -> Study:
        """Return the sweep's parent run; two workers would both open one."""
        folder = self.experiment.folder
        with FileLock(folder / ".study.lock") if is_main() else nullcontext():
            study = Study(self.experiment.output, self.experiment.name, self.experiment.document())
        if is_main():
            write_json(folder / "environment.json", environment())
            study.artifact(folder / "environment.json")
        return study

    def decide(self) -> Next:
        """Take a trial, or find that there is none to take."""
        self.taken = self.book.take()
        if self.taken is not None:
            return Next(self.taken.number, self.taken.params)
        return Next(wait=not self.book.over(self.book.all()))

    def finish(self, study: Study) -> int:
        """Write the report, unless another worker has; return the exit code."""

        def write() -> int:
            trials = self.book.all()
            with FileLock(self.experiment.folder / ".study.lock"):
                if not finished(self.experiment.folder, trials):
                    for file in finish_sweep(self.experiment, self.sweep, self.book.study, trials):
                        study.artifact(file)
            failed = [trial for trial in trials if trial.state == TrialState.FAIL]
            study.close("failed" if failed else "finished")
            if not any(trial.state == TrialState.COMPLETE for trial in trials):
                first = next((trial.user_attrs.get("reason") for trial in trials), "")
                raise AnastyleError(f"{self.experiment.name}: no trial came to its end. The first: {first}")
            say(summary(self.experiment.folder))
            return PROBLEMS if failed else 0

        return self.agree(write)

    def forget(self) -> None:
        """Remove what earlier workers left of this sweep, the stages of its trials with it."""
        if (self.experiment.folder / "sweep.json").exists():
            for trial in self.opened(None).forget():
                with suppress(AnastyleError):  # of a space that was another then
                    self.forget_stages(trial)
        shutil.rmtree(self.experiment.folder, ignore_errors=True)
        self._book, self.conductor = None, Conductor(self.experiment)  # which knows of no trial yet

    def forget_stages(self, trial: FrozenTrial) -> None:
        """Remove the stages of a trial."""
        for run in self.runs(trial.number, trial.params):
            for node in self.conductor.plan(run).values():
                with alone(self.experiment.output, node.folder):
                    forget(node)

    # One trial

    def runs(self, number: int, params: dict[str, Any]) -> list[Run]:
        """Return a trial's runs, one a seed."""
        config = next(iter(trial_experiment(self.experiment, params).variants.values()))
        runs = [Run(self.experiment.name, variant(number), seed, deepcopy(config)) for seed in self.experiment.seeds]
        for run in runs:
            if "validation" in self.conductor.data(run).manifest.splits:  # the test is for the best, once
                run.config["stages"]["generate"]["split"] = "validation"
        return runs

    def attempt(self, number: int, params: dict[str, Any], study: Study) -> None:
        """Bring one trial to its end, and write down what came of it."""
        say(f"{variant(number)}: {', '.join(f'{path}={value}' for path, value in params.items())}")
        try:
            with self.book.alive(self.taken) if self.taken else nullcontext():
                values = self.run(number, params, study)
        except Pruned as error:
            self.end(TrialState.PRUNED, reason=str(error))
        except NumericalError as error:  # a bad choice, of which the sampler should know
            self.end(TrialState.FAIL if len(self.sweep.objective) > 1 else TrialState.PRUNED, reason=str(error))
        except (AnastyleError, torch.OutOfMemoryError) as error:
            agreed(True)  # raises where another rank is gone: no fault of the trial's
            self.end(TrialState.FAIL, reason=str(error))
        except (SystemExit, KeyboardInterrupt):
            if self.taken is not None:
                self.book.give_back(self.taken)
            raise
        except Exception as error:  # a fault of ours; the next worker shall not meet it again
            self.end(TrialState.FAIL, reason=f"{type(error).__name__}: {error}")
            raise
        else:
            self.judge(values)

    def run(self, number: int, params: dict[str, Any], study: Study) -> dict[str, float]:
        """Run a trial under every seed; return its metrics, means over the seeds."""
        runs = self.runs(number, params)
        progress = self.progress(runs)
        try:
            for run in runs:
                self.conductor.run(run, study, progress)
        except Pruned:
            self.clear(runs[0])
            raise
        finally:
            progress.close()
        found = [values_of(self.conductor.plan(run)["evaluate"].folder) for run in runs]
        return {key: sum(values[key].value for values in found) / len(found)
                for key in found[0] if all(key in values for values in found)}  # fmt: skip

    def progress(self, runs: list[Run]) -> Progress:
        """Return the bar of a trial, which prunes if the sweep does."""
        left = {node.fingerprint: (node, run) for run in runs for node in self.conductor.plan(run).values()}
        steps = sum(weight(node, self.conductor.data(run).manifest.count("train")) for node, run in left.values()
                    if not node.done)  # fmt: skip
        chosen, first = self.sweep.pruner, runs[0]
        if chosen is None:
            return Progress(steps, whole="trial")
        stage, taken = first.config["stages"][PRUNED], self.taken
        return Pruning(
            steps, seed=first.seed, lines=working(self.conductor.plan(first)[PRUNED]) / "metrics.jsonl",
            term=chosen.options.term, every=every(chosen, self.steps, stage["log_every"]),
            report=None if taken is None else lambda step, loss: self.book.report(taken, step, loss),
        )  # fmt: skip

    def clear(self, run: Run) -> None:
        """Remove the checkpoints of a training that nobody will go on with."""
        node = self.conductor.plan(run)[PRUNED]
        with turn(self.experiment.output, node.folder, say):
            if is_main():
                remove_folder(working(node))

    def judge(self, metrics: dict[str, float]) -> None:
        """Write down what a finished trial was worth.

        Raises:
            ConfigError: it was not measured what the sweep is for.
        """
        if missing := [metric for metric in self.sweep.objective if metric not in metrics]:
            text = f"sweep.objective.{missing[0]}: is not measured on this set. Measured: {', '.join(sorted(metrics))}"
            self.end(TrialState.FAIL, reason=text)
            raise ConfigError(text)
        values = [metrics[metric] for metric in self.sweep.objective]
        if all(map(math.isfinite, values)):
            self.end(TrialState.COMPLETE, values)
        else:
            self.end(TrialState.FAIL if len(values) > 1 else TrialState.PRUNED, reason="not finite")

    def end(self, state: TrialState, values: list[float] | None = None, reason: str = "") -> None:
        """End the trial under way."""

        def tell() -> None:
            if self.taken is not None and self.book.tell(self.taken, state, values, reason):
                text = reason.splitlines()[0] if reason else ""
                say(progress_line(self.book.all(), self.sweep, self.taken.number, text))

        self.agree(tell)
        self.taken = None
