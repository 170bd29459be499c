"""The conductor: an experiment's runs, each through its stages, each stage once.

A finished stage is found again by its fingerprint, so the variants of an ablation share what they have in common, and
the same command after a stop goes on where it was.
"""

import os
import shutil
import time

from PIL import Image

from anastyle.check import check
from anastyle.checkpoint import remove_folder
from anastyle.data.prepare import prepared
from anastyle.data.split import PreparedSet
from anastyle.devices import agreed, together, use_all_cores
from anastyle.environment import environment
from anastyle.errors import PROBLEMS, AnastyleError, LostError, Pruned
from anastyle.evaluation.study import finish_study, finished, summary
from anastyle.experiment import Experiment, Run
from anastyle.jsonlines import update_status, write_json
from anastyle.locks import claimed, turn
from anastyle.passwords import without_password
from anastyle.plan import Node, forget, nodes, weight, working
from anastyle.progress import Progress
from anastyle.signals import terminable
from anastyle.speaker import is_main, say
from anastyle.tracking import Study, Tracker
from anastyle.work import Work


def run_experiment(experiment: Experiment, *, fresh: bool = False, dry_run: bool = False) -> int:
    """Bring every run of an experiment to its end and write the table; returns the exit code.

    Raises:
        AnastyleError: no run could be brought to its end; the first reason.
    """
    check(experiment)
    use_all_cores()
    conductor = Conductor(experiment)
    if dry_run:
        say(conductor.outline())
        return 0
    with terminable():
        return conductor.conduct(fresh=fresh)


class Conductor:
    """One experiment under way."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.store = experiment.output / "store"
        self._data: dict[str, PreparedSet] = {}
        self._plans: dict[tuple[str, int], dict[str, Node]] = {}

    def data(self, run: Run) -> PreparedSet:
        """Return the run's prepared set, preparing it on first use."""
        section = {key: value for key, value in run.config["data"].items() if key != "captions"}
        if str(section) not in self._data:
            self._data[str(section)] = prepared(run.config["data"], self.experiment.output)
        return self._data[str(section)]

    def plan(self, run: Run) -> dict[str, Node]:
        """Return the run's stages."""
        key = run.variant, run.seed
        if key not in self._plans:
            data = self.data(run)
            said = data.captions_identity(run.config["data"]["captions"])
            self._plans[key] = nodes(run, {"fingerprint": data.fingerprint}, self.store, captions=said)
        return self._plans[key]

    def distinct(self) -> dict[str, Node]:
        """Return every different stage of the study, by fingerprint."""
        return {n.fingerprint: n for run in self.experiment.runs for n in self.plan(run).values()}

    def measured(self) -> dict[tuple[str, int], dict[str, Node]]:
        """Return the runs that end in a measurement, hence in the table."""
        return {key: plan for key, plan in self._plans.items() if "evaluate" in plan}

    def sized(self, left: list[Node]) -> list[tuple[Node, int]]:
        """Pair each stage with the number of training images behind it."""
        sizes = {}
        for run in self.experiment.runs:
            count = self.data(run).manifest.count("train")
            sizes.update({node.fingerprint: count for node in self.plan(run).values()})
        return [(node, sizes[node.fingerprint]) for node in left]

    def ui(self) -> str:
        """Return where the MLflow pages are: a server, or the command that opens them on this machine."""
        if server := os.environ.get("MLFLOW_TRACKING_URI"):
            return without_password(server)
        return f"mlflow ui --backend-store-uri sqlite:///{self.experiment.output / 'mlflow.db'}"

    def outline(self) -> str:
        """Say, run by run, which stages would be trained and which are there or shared."""
        lines, seen = [], set()
        for run in self.experiment.runs:
            words = []
            for node in self.plan(run).values():
                state = "done" if node.done else "shared" if node.fingerprint in seen else "to do"
                seen.add(node.fingerprint)
                words.append(f"{node.stage} {node.fingerprint[:8]} {state}")
            lines.append(f"{run.variant} seed {run.seed}: {', '.join(words)}")
        return "\n".join(lines)

    def forget(self) -> None:
        """Remove what earlier runs of this experiment left."""
        for node in self.distinct().values():
            with turn(self.experiment.output, node.folder, say):
                if is_main():
                    forget(node)
        with together():
            if is_main():
                shutil.rmtree(self.experiment.folder, ignore_errors=True)

    def conduct(self, *, fresh: bool = False) -> int:
        """Run what is not done, or everything, then write table and report; returns the exit code.

        Raises:
            AnastyleError: another process is at one of these runs, or none could be brought to its end.
        """
        done = all(node.done for node in self.distinct().values())
        if agreed(done and finished(self.experiment, self.measured()) and not fresh):
            say(f"{self.experiment.name}: all {len(self.experiment.runs)} runs are finished; nothing to do.")
            say(summary(self.experiment))
            return 0
        with claimed(self.experiment.output, map(self.experiment.run_folder, self.experiment.runs)):
            if fresh:
                self.forget()
            return self.bring_to_end()

    def bring_to_end(self) -> int:
        """Run what is not done, then write table and report."""
        began = time.monotonic()
        left = [node for node in self.distinct().values() if not node.done]
        progress = Progress(sum(weight(node, size) for node, size in self.sized(left)))
        study = Study(self.experiment.output, self.experiment.name, self.experiment.document())
        if is_main():
            write_json(self.experiment.folder / "environment.json", environment())
            study.artifact(self.experiment.folder / "environment.json")
        failures: list[tuple[Run, AnastyleError]] = []
        try:
            for run in self.experiment.runs:
                try:
                    self.run(run, study, progress)
                except LostError:
                    raise
                except AnastyleError as error:
                    failures.append((run, error))
                    progress.note(f"{run.variant}/s{run.seed} failed: {error}")
        except BaseException as error:
            study.close("stopped" if isinstance(error, SystemExit | KeyboardInterrupt) else "failed")
            raise
        finally:
            progress.close()
        if len(failures) == len(self.experiment.runs):
            study.close("failed")
            raise failures[0][1]
        if is_main():
            failed = {(run.variant, run.seed) for run, _ in failures}
            plans = {key: plan for key, plan in self.measured().items() if key not in failed}
            if plans:
                for file in finish_study(self.experiment, plans, self.data(self.experiment.runs[0])):
                    study.artifact(file)
                say(summary(self.experiment))
            say(f"{len(left)} stages in {time.monotonic() - began:.0f} s. Compare the runs: {self.ui()}")
        study.close("failed" if failures else "finished")
        return PROBLEMS if failures else 0

    def stage(self, node: Node, work: Work, tracker: Tracker, progress: Progress) -> None:
        """Bring one stage to its end, or take over what there is of it when no other process is at it."""
        if not agreed(node.done):
            with turn(self.experiment.output, node.folder, progress.note):
                if not agreed(node.done):
                    work.do(node)
                    return
        tracker.replay(node.folder / "metrics.jsonl")
        if is_main():
            remove_folder(working(node))

    def run(self, run: Run, study: Study, progress: Progress) -> None:
        """Bring one run to its end."""
        folder = self.experiment.run_folder(run)
        tracker = study.run(run.variant, run.seed, run.config)
        data = self.data(run)
        counts = {split: data.manifest.count(split) for split in data.manifest.splits}
        tracker.dataset(data.manifest.dataset or data.root.name, data.fingerprint, str(data.root.resolve()), counts)
        plan = self.plan(run)
        reused = agreed([node.stage for node in plan.values() if node.done])
        if reused:
            progress.note(f"{run.variant}/s{run.seed}: reused {', '.join(reused)}")
        if is_main():
            update_status(folder, status="running")
        try:
            work = Work(run, data, self.experiment.output, plan, tracker, progress)
            for node in plan.values():
                self.stage(node, work, tracker, progress)
        except BaseException as error:
            stopped = isinstance(error, SystemExit | KeyboardInterrupt | Pruned)
            tracker.close("stopped" if stopped else "failed")
            if is_main():
                ending = "pruned" if isinstance(error, Pruned) else "stopped" if stopped else "failed"
                update_status(folder, status=ending, reason=str(error))
            raise
        if is_main():
            if "evaluate" in plan:
                tracker.image("samples", Image.open(plan["evaluate"].folder / "samples.png"))
            stages = {name: node.fingerprint for name, node in plan.items()}
            update_status(folder, status="finished", reason="", stages=stages)
        tracker.close("finished")
