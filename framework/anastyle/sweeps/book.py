"""The trials of a study, as one or more workers write them down: taken, given back, ended, each counted once.

A trial whose worker died is taken up again, once, under its own number with its own options; so there are never more
trials than were asked for.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from anastyle.errors import ConfigError, MissingError, listing
from anastyle.jsonlines import write_json
from anastyle.sweeps.methods import Method
from anastyle.sweeps.records import Sweep
from anastyle.sweeps.space import Choice, Parameter, Scalar, applies, grid, in_order
from anastyle.sweeps.storage import FAILURES, Say, Storage, reason
from anastyle.sweeps.workers import Watch, beating, name

LIVES = 2  # workers that may die at one trial before it counts as failed
BUSY = (TrialState.RUNNING, TrialState.WAITING)
T = TypeVar("T")


@dataclass(frozen=True)
class Taken:
    """A trial this worker is at."""

    number: int
    params: dict[str, Any]
    trial: Trial

    @property
    def variant(self) -> str:
        """What the trial's run is called."""
        return variant(self.number)


def variant(number: int) -> str:
    """Return what a trial's run is called."""
    return f"trial-{number:04d}"


class Book:
    """One study's trials.

    Arguments:
        about: what must not change from one command to the next, as a flat mapping; None: take the study as it is.
        steps: of the stage that a pruner watches; its bounds hang on it.

    Raises:
        ConfigError: the study was begun with another experiment.
        MissingError: the storage is gone or away.
    """

    def __init__(
        self, sweep: Sweep, study: str, folder: Path, about: Mapping[str, Any] | None, say: Say, *,
        steps: int = 0,
    ) -> None:  # fmt: skip
        self.sweep, self.folder, self.say, self.steps = sweep, folder, say, steps
        self.name, self.record = study, folder / "sweep.json"
        self.watch = Watch()
        self.place = Storage(sweep.storage, folder, study, say)
        self.storage = self.place.connect()
        self.points = grid(sweep.space, sweep.sampler.options.seed) if sweep.sampler.name == "grid" else []
        self.study = self.patiently(lambda: self._study(about))
        if not self.record.exists():
            write_json(self.record, {"study": study, "storage": self.place.where})

    def patiently(self, call: Callable[[], T]) -> T:
        """Return what a call under the study's lock gives, trying again while the storage is busy or away."""

        def locked() -> T:
            with self.place.locked():
                return call()

        return self.place.patiently(locked)

    def _study(self, about: Mapping[str, Any] | None) -> optuna.Study:
        known = {one.study_name for one in optuna.get_all_study_summaries(self.storage, include_best_trial=False)}
        if about is not None and self.name not in known and self.record.exists():
            raise MissingError(
                f"{self.place.where}: holds no study '{self.name}', though trials of it were run in {self.folder}.\n"
                "  Put the storage back, or start over: --fresh (finished stages are found again)."
            )
        chosen = pruner(self.sweep.pruner, self.steps)
        if self.name in known:
            study = optuna.load_study(study_name=self.name, storage=self.storage, pruner=chosen)
        else:
            directions: list[Any] = list(self.sweep.objective.values())
            study = optuna.create_study(
                study_name=self.name, storage=self.storage, pruner=chosen, directions=directions
            )
        before = study.user_attrs.get("about")
        if about is None:
            return study
        if before is None:
            study.set_user_attr("about", dict(about))
            return study
        if differing := [key for key in {**before, **about} if before.get(key) != about.get(key)]:
            lines = [f"{key}: {before.get(key)} there, {about.get(key)} here" for key in differing]
            raise ConfigError(
                f"{self.folder}: holds trials of another experiment\n{listing(lines)}\n"
                "Choose another name=..., or start over: --fresh"
            )
        return study

    # Taking

    def take(self) -> Taken | None:
        """Return the next trial, or None if all are taken; those of dead workers come first."""
        return self.patiently(self._take)

    def _take(self) -> Taken | None:
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and self.watch.is_dead(trial.number, trial.user_attrs):
                self._bury(trial)
        trials = self.trials()
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        if not waiting and len(trials) >= self.sweep.trials:
            return None
        number = waiting[0].number if waiting else len(trials)
        if self.points and not waiting:
            self.study.enqueue_trial(self.points[number])
        self.study.sampler = sampler(self.sweep, number)
        trial = self.study.ask()
        trial.set_user_attr("worker", self.watch.me)
        return Taken(number, suggest(trial, self.sweep.space), trial)

    def _bury(self, trial: FrozenTrial) -> None:
        """Queue a trial again whose worker died; the second time it has failed."""
        worker = trial.user_attrs.get("worker")
        deaths = trial.user_attrs.get("deaths", 0) + (worker is not None and worker != self.watch.me)
        self._mark(trial, deaths=deaths, worker=None)
        if deaths < LIVES:
            self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            self.say(f"{variant(trial.number)}: {name(worker or {})} is gone; its trial is taken up again")
        else:
            self._mark(trial, reason=f"its worker died, {deaths} times")
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            self.say(f"{variant(trial.number)}: its worker died, {deaths} times; it counts as failed")

    def _mark(self, trial: FrozenTrial, **about: Any) -> None:
        for key, value in about.items():
            self.storage.set_trial_user_attr(trial._trial_id, key, value)

    def alive(self, taken: Taken) -> AbstractContextManager[None]:
        """Show, while the block runs, that this worker lives."""
        return beating(lambda beat: self.storage.set_trial_user_attr(taken.trial._trial_id, "beat", beat))

    def report(self, taken: Taken, step: int, loss: float) -> bool:
        """Tell a trial's loss so far; say whether the trial should end. A storage that is away prunes nothing."""
        worth = loss if next(iter(self.sweep.objective.values())) == "minimize" else -loss  # one direction for both
        try:
            if step not in self.storage.get_trial(taken.trial._trial_id).intermediate_values:  # of an earlier worker
                taken.trial.report(worth, step)
            return taken.trial.should_prune()
        except FAILURES as error:
            self.say(
                f"{taken.variant}: not compared at step {step}, {self.place.where} does not answer ({reason(error)})"
            )
            return False

    # Ending

    def give_back(self, taken: Taken) -> None:
        """Put a trial back in the queue, for the same command to take it up."""
        with suppress(*FAILURES), self.place.locked():  # or who finds this worker gone puts it back
            trial = self.storage.get_trial(taken.trial._trial_id)
            if trial.state == TrialState.RUNNING and self._mine(trial):
                self._mark(trial, worker=None)
                self.storage.set_trial_state_values(taken.trial._trial_id, TrialState.WAITING)

    def tell(self, taken: Taken, state: TrialState, values: list[float] | None = None, why: str = "") -> bool:
        """End a trial; False if another worker has it by now, because this one was taken for dead."""
        return self.patiently(lambda: self._tell(taken, state, values, why))

    def _tell(self, taken: Taken, state: TrialState, values: list[float] | None, why: str) -> bool:
        trial = self.storage.get_trial(taken.trial._trial_id)
        if trial.state.is_finished() and self._mine(trial):  # told, and the answer did not come back
            return True
        if trial.state != TrialState.RUNNING or not self._mine(trial):
            self.say(f"{taken.variant}: was taken up by another worker; what this one found is not counted")
            return False
        if why:
            taken.trial.set_user_attr("reason", why)
        self.study.sampler = sampler(self.sweep, taken.number)
        self.study.tell(taken.number, values, state)
        return True

    def _mine(self, trial: FrozenTrial) -> bool:
        return trial.user_attrs.get("worker") == self.watch.me

    # Reading

    def trials(self) -> list[FrozenTrial]:
        """Return all trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def all(self) -> list[FrozenTrial]:
        """Return all trials, waiting for the storage if need be."""
        return self.place.patiently(self.trials)

    def over(self, trials: list[FrozenTrial]) -> bool:
        """Say whether as many trials have ended as were asked for."""
        return len(trials) >= self.sweep.trials and not any(trial.state in BUSY for trial in trials)

    def forget(self) -> list[FrozenTrial]:
        """Drop the study from its storage; return the trials it had.

        Raises:
            ConfigError: a worker is at one of its trials.
        """

        def drop() -> list[FrozenTrial]:
            trials = self.trials()
            busy = [trial for trial in trials if trial.state == TrialState.RUNNING]
            if alive := [one for one in busy if not self.watch.is_dead(one.number, one.user_attrs)]:
                worker = name(alive[0].user_attrs["worker"])
                raise ConfigError(f"--fresh: {worker} is at {variant(alive[0].number)}. Stop it first.")
            optuna.delete_study(study_name=self.name, storage=self.storage)
            return trials

        trials = self.patiently(drop)
        self.place.close()
        return trials


def suggest(trial: Trial, space: list[Parameter]) -> dict[str, Any]:
    """Draw a trial's options; an option that its parts do not have is left out."""
    drawn: dict[str, Any] = {}
    for parameter in in_order(space):
        if applies(parameter.path, drawn):
            drawn[parameter.path] = draw(trial, parameter)
    return drawn


def draw(trial: Trial, parameter: Parameter) -> Scalar:
    """Draw one option."""
    if isinstance(parameter, Choice):
        return trial.suggest_categorical(parameter.path, parameter.values)
    low, high, log = parameter.low, parameter.high, parameter.log
    if parameter.whole:
        return trial.suggest_int(parameter.path, int(low), int(high), step=int(parameter.step or 1), log=log)
    return trial.suggest_float(parameter.path, low, high, step=parameter.step, log=log)


def sampler(sweep: Sweep, number: int) -> BaseSampler:
    """Return the sampler of one trial.

    Its seed hangs on the trial's number, so that two workers do not draw the same, and that a trial is the same whoever
    takes it; but the sequence of ``qmc`` is one for all.
    """
    name, options = sweep.sampler.name, sweep.sampler.own("seed")
    root = sweep.sampler.options.seed
    digest = hashlib.sha256(json.dumps([root, "trial", number]).encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    if name == "qmc":
        return QMCSampler(**options, seed=root)
    makers: dict[str, Callable[..., BaseSampler]] = {
        "tpe": TPESampler, "gp": GPSampler, "cmaes": CmaEsSampler, "nsga2": NSGAIISampler,
        "random": RandomSampler, "grid": RandomSampler,
    }  # fmt: skip
    return makers[name](**options, seed=seed)


def every(chosen: Method, steps: int, log_every: int = 1) -> int:
    """Return the steps between two comparisons of a pruner."""
    return max(chosen.options.every or steps // 10, log_every, 1)


def pruner(chosen: Method | None, steps: int) -> BasePruner:
    """Return Optuna's pruner."""
    if chosen is None:
        return optuna.pruners.NopPruner()
    options = chosen.own("term", "every")
    if chosen.name in ("asha", "hyperband") and options["min_resource"] is None:
        options["min_resource"] = every(chosen, steps)
    if chosen.name == "hyperband" and options["max_resource"] is None:
        options["max_resource"] = max(steps, options["min_resource"])
    makers: dict[str, Callable[..., BasePruner]] = {
        "median": MedianPruner, "percentile": PercentilePruner, "asha": SuccessiveHalvingPruner,
        "hyperband": HyperbandPruner,
    }  # fmt: skip
    return makers[chosen.name](**options)
