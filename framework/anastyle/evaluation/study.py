"""A study's end: its runs' stored outcomes gathered into the table and the report."""

from pathlib import Path

import yaml

from anastyle.checkpoint import load_tensors
from anastyle.data.images import unsigned
from anastyle.data.shards import LOST
from anastyle.data.split import PreparedSet, Split
from anastyle.evaluation.difference_tables import TITLE, compact, differences, write_differences
from anastyle.evaluation.differences import Paired
from anastyle.evaluation.fairness import FILE, WARNINGS, Card, card, completed
from anastyle.evaluation.formats import write_seeds, write_tables
from anastyle.evaluation.measure import values_of
from anastyle.evaluation.memorisation.record import read
from anastyle.evaluation.overview import all_tables
from anastyle.evaluation.report import Cloud, Curve, Grid, Picture, Row, Scatter, Strip, StudyReport, tsne, write_report
from anastyle.evaluation.samples import samples_of
from anastyle.evaluation.tables import EXCHANGED, Ranking
from anastyle.experiment import Experiment
from anastyle.jsonlines import JsonLines, read_json, write_json
from anastyle.plan import Node
from anastyle.stages import PLANS
from anastyle.stages.choice import Choice

POINTS = 200  # of each kind of code in a t-SNE map

Plan = dict[str, Node]
Plans = dict[tuple[str, int], Plan]  # of the runs that came to their end, by variant and seed


def finish_study(experiment: Experiment, plans: Plans, data: PreparedSet) -> list[Path]:
    """Write table and report of the runs that are finished; return the files."""
    rows = [row_of(variant, seed, plan["evaluate"].folder) for (variant, seed), plan in plans.items()]
    references = experiment.references
    paired = Paired(rows)
    ranking, told = Ranking(paired, references), differences(rows, paired, references)
    files = write_tables(all_tables(rows, ranking), experiment.folder, under=[compact(told)])
    files += [*write_differences(told, experiment.folder), write_seeds(rows, experiment.folder)]
    fair = compared(experiment, plans, rows, data)
    files.append(write_terms(fair, experiment))
    first = experiment.seeds[0]
    shown = {variant: plan for (variant, seed), plan in plans.items() if seed == first}
    report = StudyReport(
        name=experiment.name,
        description=experiment.description,
        rows=rows,
        references=experiment.references,
        terms=fair,
        curves=curves(shown),
        copies=copies(plans),
        grids=[samples(shown, data, experiment), *maps(shown)],
        tsne=scatters(shown, data.classes),
        notes=[*notes(data, first), *skipped(plans), *chosen(plans)],
        ranking=ranking,
        differences=told,
        config_yaml=yaml.safe_dump(experiment.document(), sort_keys=False),
    )
    files.append(write_report(report, experiment.folder))
    write_json(experiment.folder / "finished.json", endings(plans))
    return files


def row_of(variant: str, seed: int, measured: Path) -> Row:
    """Read what an evaluate stage left."""
    return Row(variant, seed, values_of(measured), samples_of(measured))


def finished(experiment: Experiment, plans: Plans) -> bool:
    """Say whether table and report stand for just these runs."""
    record = read_json(experiment.folder / "finished.json")
    return record == endings(plans) and (experiment.folder / "report.html").is_file()


def endings(plans: Plans) -> dict[str, str]:
    """Return the fingerprint that each run ended with."""
    return {f"{variant}/seed-{seed}": plan["evaluate"].fingerprint for (variant, seed), plan in plans.items()}


def summary(experiment: Experiment) -> str:
    """Return what a finished study prints: its first tables, without their protocols, and where everything lies."""
    first, *titled = (experiment.folder / "table.md").read_text(encoding="utf-8").split("### ")
    shown = [first, *(f"\n{table}" for table in titled if table.startswith((EXCHANGED, TITLE, WARNINGS)))]
    lines = [line for line in "".join(shown).splitlines() if not line.startswith("- ")]
    return "\n".join(lines).strip() + f"\n\nReport: {experiment.folder / 'report.html'}"


def compared(experiment: Experiment, plans: Plans, rows: list[Row], data: PreparedSet) -> Card:
    """Return on what terms the rows of a finished study were compared."""
    before = card(experiment, examples=data.manifest.count("train"))
    return completed(before, rows, choices(plans), experiment.references)


def choices(plans: Plans) -> dict[tuple[str, int], Choice]:
    """Return what each run with a validate stage chose."""
    return {run: Choice.read(plan["validate"].folder) for run, plan in plans.items() if "validate" in plan}


def chosen(plans: Plans) -> list[str]:
    """Say with what guidance each run painted, and why."""
    return [f"{variant}, seed {seed}: {choice.words}." for (variant, seed), choice in choices(plans).items()]


def write_terms(fair: Card, experiment: Experiment) -> Path:
    """Write the card beside the tables, and below them; return its file."""
    text = fair.markdown()
    (experiment.folder / FILE).write_text(f"## {experiment.name}\n\n{text}\n", encoding="utf-8")
    with (experiment.folder / "table.md").open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    return experiment.folder / FILE


def copies(plans: Plans) -> list[str]:
    """Return what the memorisation gate says of each run that was measured."""
    found = {f"{variant}, seed {seed}": read(plan["evaluate"].folder) for (variant, seed), plan in plans.items()}
    return [f"{run}: {record.verdict}; {record.reason}" for run, record in found.items() if record]


def skipped(plans: Plans) -> list[str]:
    """Say which trainings left steps out because they were not finite."""
    counts: dict[Path, tuple[str, int]] = {}
    for (variant, seed), plan in plans.items():
        for stage, node in plan.items():
            lines = [line for line, _ in JsonLines(node.folder / "metrics.jsonl").read()]
            steps = max((line.get(f"train/{stage}/skipped", 0) for line in lines), default=0)
            counts.setdefault(node.folder, (f"{variant}, seed {seed}: {stage}", steps))
    return [f"{where} skipped {steps} steps that were not finite." for where, steps in counts.values() if steps]


def curves(shown: dict[str, Plan]) -> list[Curve]:
    """Return every training stage's loss, by variant."""
    found = []
    for variant, plan in shown.items():
        for stage, node in plan.items():
            if not PLANS[stage].trained:
                continue
            key = f"train/{stage}/loss"
            lines = [line for line, _ in JsonLines(node.folder / "metrics.jsonl").read()]
            points = [(line["step"], line[key]) for line in lines if key in line]
            if points:
                steps, values = zip(*points, strict=True)
                found.append(Curve(stage, variant, steps, values))
    return found


def samples(shown: dict[str, Plan], data: PreparedSet, experiment: Experiment) -> Grid:
    """Return the same held-out captions in every variant, the real images first."""
    run = next(iter(experiment.variants.values()))
    count = run["stages"]["generate"]["grid"]
    kinds = [config["data"]["captions"] for config in experiment.variants.values()]
    told = next((kind for kind in kinds if kind != "class_label"), "attributes")
    asked = run["stages"]["generate"].get("split", "test")
    split: Split = data.split(asked, image_size=run["data"]["image_size"], captions=told)
    count = min(count, len(split))
    captions = [split.captions[i].text for i in range(count)]
    real = [Picture(unsigned(split.image(i)), captions[i]) for i in range(count)]
    strips = [Strip("real", real, "held-out images that the captions describe")]
    for variant, plan in shown.items():
        images = load_tensors(plan["generate"].folder / "images.safetensors")["images"]
        pictures = [Picture(image, text) for image, text in zip(images[:count], captions, strict=False)]
        strips.append(Strip(variant, pictures))
    return Grid("Samples", strips, "One caption and one noise per column. Hover over an image to read its caption.")


def maps(shown: dict[str, Plan]) -> list[Grid]:
    """Return what the visual encoder makes of held-out images, where there is one."""
    plan = next((plan for plan in shown.values() if "disentangle" in plan), None)
    if plan is None:
        return []
    sheets = load_tensors(plan["disentangle"].folder / "maps.safetensors")
    names = [name for name in ("image", "maps", "reconstruction") if name in sheets]
    strips = [Strip(name, [Picture(image) for image in sheets[name]]) for name in names]
    note = "Held-out images, their one-hot anatomy maps, and the image rebuilt from maps and style code."
    return [Grid("What the visual encoder sees", strips, note)]


def scatters(shown: dict[str, Plan], classes: list[str]) -> list[Scatter]:
    """Return t-SNE maps of visual and textual codes before and after alignment (after the paper's Fig. 3)."""
    plan = next((plan for plan in shown.values() if "align" in plan), None)
    if plan is None:
        return []
    codes = load_tensors(plan["align"].folder / "codes.safetensors")
    found = []
    for factor in ("anatomy", "style"):
        for when in ("before", "after"):
            pair = {kind: codes[f"{when}/{kind}_{factor}"][:POINTS].numpy() for kind in ("visual", "text")}
            if len({points.shape[1] for points in pair.values()}) > 1:
                continue  # captions are read in other numbers than images: there is no one map of both
            names = [classes[label] for label in codes[f"{when}/label"][:POINTS].tolist()]
            clouds = [Cloud(kind, points, names) for kind, points in tsne(pair).items()]
            found.append(Scatter(f"{factor}, {when} alignment", clouds))
    return found


def notes(data: PreparedSet, seed: int) -> list[str]:
    """Return what a reader must know about the data and the pictures."""
    count = data.manifest.count
    about = f"Data {data.fingerprint[:12]}: {count('train')} training and {count('test')} test images"
    split = {
        "leaky": "; random split, stamped leaky: near-identical images may lie on both sides",
        "group": "; split by group, none on both sides",
        "given": "; split as its publisher gave it",
    }.get(data.manifest.split_kind, "")
    lost = data.manifest.notes.get(LOST)
    missed = [f"{lost} of the set's records were lost with damaged shards, which were skipped."] if lost else []
    shown = f"Curves, pictures and t-SNE maps are of seed {seed}; the numbers are over all seeds."
    return [about + split + ".", *missed, shown]
