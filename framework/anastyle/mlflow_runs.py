"""MLflow runs, told what run folders hold: each thing once, whoever sends it.

``outbox.json`` in a run's folder says what MLflow is to know besides the numbers in its ``metrics.jsonl``;
``mlflow.json`` says what each server was told. The run itself and ``anastyle sync`` read both, so an outage or a kill
loses nothing, and what a server took without its answer coming back is not sent twice.
"""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from anastyle.jsonlines import JsonLines, read_json, write_json
from anastyle.mlflow_link import Link
from anastyle.outbox import LONGEST, Outbox, plain_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

Row = tuple[str, float, int, int]  # metric, value, milliseconds, step

CHUNK = 1000  # metrics in one request, MLflow's limit
PARAMS_CHUNK = 100  # likewise
FEEDS = ("metrics.jsonl", "system.jsonl")
WORDS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
LOCK = ".mlflow.lock"  # who holds it sends
KEY_TAG = "anastyle.key"  # by which a run is found whose creation was not answered


def push(folder: Path, link: Link, *, patience: float = 0.0) -> Counter[str] | None:
    """Tell MLflow what a run's folder holds and it does not know yet.

    Arguments:
        patience: seconds to wait for another process that is sending.

    Returns:
        What was sent, counted; None if MLflow failed, or another process is sending.
    """

    def send(client: "MlflowClient", experiment: str) -> Counter[str]:
        with FileLock(folder / LOCK, timeout=patience):
            return _Told(folder, link, client, experiment).push()

    return link.attempt(folder, send)


class _Told:
    """One run's folder, and what one server knows of it."""

    def __init__(self, folder: Path, link: Link, client: "MlflowClient", experiment: str) -> None:
        self.folder, self.link, self.client, self.experiment = folder, link, client, experiment
        self.wanted = Outbox(folder).read()
        self.file = folder / "mlflow.json"
        known = read_json(self.file).get(link.address, {})
        self.known: dict[str, Any] = known if known.get("key") == self.wanted.get("key") else self._nothing()
        self.sent: Counter[str] = Counter()

    def push(self) -> Counter[str]:
        """Send what is new, the way it ended last."""
        if not self.wanted:
            return self.sent
        self.run_id = self.opened()
        self.params()
        self.dataset()
        for feed in FEEDS:
            self.metrics(feed)
        self.images()
        self.files()
        self.ending()
        return self.sent

    def save(self) -> None:
        """Write down what the server knows."""
        write_json(self.file, {**read_json(self.file), self.link.address: self.known})

    def opened(self) -> str:
        """Return the run's id, of a run that is there."""
        run_id = self.known.get("run_id")
        if run_id in self.link.open:
            return run_id
        if run_id is not None and not self.alive(run_id):
            self.known, run_id = self._nothing(), None
        if run_id is None and self.known.get("creating"):  # asked for, and never answered
            query = f"tags.`{KEY_TAG}` = '{self.wanted['key']}'"
            found = self.link.ask(lambda: self.client.search_runs([self.experiment], query))
            run_id = found[0].info.run_id if found else None
        if run_id is None:
            run_id = self.created()
        self.known.update(run_id=run_id, creating=False)
        self.save()
        self.link.open.add(run_id)
        return run_id

    def created(self) -> str:
        """Create the run, below its parent."""
        name = self.wanted["name"]
        tags = {**self.wanted["tags"], KEY_TAG: self.wanted["key"], "mlflow.runName": name}
        if self.wanted.get("child"):
            study = self.folder.parent.parent
            with FileLock(study / LOCK, timeout=30):  # another child may be at it too
                tags["mlflow.parentRunId"] = _Told(study, self.link, self.client, self.experiment).opened()
        self.known["creating"] = True
        self.save()
        made = self.link.ask(
            lambda: self.client.create_run(self.experiment, self.wanted["began"], tags=tags, run_name=name)
        )
        self.known["status"] = "running"
        return made.info.run_id

    def alive(self, run_id: str) -> bool:
        """Say whether a run is there, and was not deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return self.link.ask(lambda: self.client.get_run(run_id)).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def params(self) -> None:
        """Send parameters that are new or others than before; MLflow lets none change."""
        known = self.known.setdefault("params", {})
        new = [(name, value) for name, value in self.wanted.get("params", {}).items() if known.get(name) != value]
        for start in range(0, len(new), PARAMS_CHUNK):
            part = new[start : start + PARAMS_CHUNK]
            self.link.offer(self.folder, lambda part=part: self.client.log_batch(self.run_id, params=_params(part)))
            known.update(part)
            self.save()

    def dataset(self) -> None:
        """Name the data the run reads."""
        wanted = self.wanted.get("dataset")
        if wanted and wanted != self.known.get("dataset"):
            self.link.offer(self.folder, lambda: self.client.log_inputs(self.run_id, datasets=[_dataset(wanted)]))
            self.known["dataset"] = wanted
            self.save()

    def metrics(self, feed: str) -> None:
        """Send the lines of a file that were not sent, a chunk at a time, and remember how far it got."""
        rows: list[Row] = []
        offsets = self.known.setdefault("sent", {})
        end = sent = offsets.get(feed, 0)
        for line, end in JsonLines(self.folder / feed).read(sent):
            rows += [(name, value, line["time"], line["step"]) for name, value in line.items()
                     if name not in ("step", "time") and value is not None]  # fmt: skip
            if len(rows) >= CHUNK:
                self.chunks(feed, rows, end)
                rows, sent = [], end
        if end > sent:
            self.chunks(feed, rows, end)

    def chunks(self, feed: str, rows: list[Row], end: int) -> None:
        """Send rows; a run that takes none any more is opened anew the next time."""
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            try:
                self.link.ask(lambda part=part: self.client.log_batch(self.run_id, metrics=_metrics(part)))
            except Exception:
                self.link.open.discard(self.run_id)
                raise
            self.sent["metrics"] += len(part)
        self.known["sent"][feed] = end
        self.save()

    def images(self) -> None:
        """Send pictures that are new; one whose sending was not answered only if it did not arrive."""
        from PIL import Image

        known, tried = self.known.setdefault("images", {}), self.known.setdefault("tried", [])
        for name, entry in self.wanted.get("images", {}).items():
            file, digest = self.inside(entry["file"]), entry["sha256"]
            if known.get(name) == digest or file is None:
                continue
            if name not in tried or not self.arrived(entry["key"], entry["step"]):
                tried.append(name)
                self.save()
                with Image.open(file) as image:
                    self.picture(image, entry["key"], entry["step"])
            known[name] = digest
            tried[:] = [other for other in tried if other != name]
            self.save()

    def picture(self, image: Any, key: str, step: int) -> None:
        """Send one picture."""
        self.link.offer(self.folder, lambda: self.client.log_image(self.run_id, image, key=key, step=step))
        self.sent["pictures"] += 1

    def arrived(self, key: str, step: int) -> bool:
        """Say whether both files of a picture are there, by the names MLflow gives them."""
        start = f"images/{key.replace('/', '~')}+step+{step}+"
        listed = self.link.ask(lambda: self.client.list_artifacts(self.run_id, "images"))
        return {Path(file.path).suffix for file in listed if file.path.startswith(start)} >= {".png", ".webp"}

    def files(self) -> None:
        """Send files that are new or were written since."""
        known = self.known.setdefault("files", {})
        for name in self.wanted.get("files", []):
            file = self.inside(name)
            if file is None:
                continue
            signature = [file.stat().st_size, file.stat().st_mtime_ns]
            if known.get(name) != signature:
                self.link.offer(self.folder, lambda file=file: self.client.log_artifact(self.run_id, str(file)))
                known[name] = signature
                self.sent["files"] += 1
                self.save()

    def inside(self, name: str) -> Path | None:
        """Return a file of the output folder; None: it is gone, or lies outside and is nobody's business."""
        file = (self.folder / name).resolve()
        return file if file.is_relative_to(self.link.output.resolve()) and file.is_file() else None

    def ending(self) -> None:
        """Say that the run goes on, or how it ended and when."""
        status = self.wanted["status"]
        if status == self.known.get("status"):
            return
        if status == "running":
            self.link.ask(lambda: self.client.update_run(self.run_id, status=WORDS[status]))
        else:
            self.link.ask(lambda: self.client.set_terminated(self.run_id, WORDS[status], self.wanted["ended"]))
        self.known["status"] = status
        self.save()

    def _nothing(self) -> dict[str, Any]:
        return {"key": self.wanted.get("key")}


def _metrics(rows: list[Row]) -> list:
    from mlflow.entities import Metric

    return [Metric(plain_name(name)[:LONGEST], value, milliseconds, step) for name, value, milliseconds, step in rows]


def _params(rows: list[tuple[str, str]]) -> list:
    from mlflow.entities import Param

    return [Param(name, value) for name, value in rows]


def _dataset(about: dict[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source, profile = json.dumps({"uri": about["source"]}), json.dumps(about["profile"])
    made = Dataset(about["name"], about["digest"], "local", source, profile=profile)
    return DatasetInput(made, [InputTag("mlflow.data.context", "training")])
