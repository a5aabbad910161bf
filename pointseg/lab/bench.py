"""The label bench: what labellers make of the points on tune images, scored object by object.

A row is a chain whose last stage labels and teaches no student. Rows of one bed look at the same
images with the same points; what their networks see of an image is computed once for all of them.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pointseg.data.files import read_gzip, shown, write_bytes
from pointseg.data.gauge import covered_tokens
from pointseg.data.supervision import PointDataset
from pointseg.lab.carry import carried_to
from pointseg.lab.chain import Chain, StageTraining, code_of
from pointseg.lab.key_points import path_scores
from pointseg.lab.labels import autocast, batches, masks_of, nearest, resized
from pointseg.lab.layer_scores import layer_scores
from pointseg.lab.methods import method_class
from pointseg.lab.plan import Bed, beds, rows
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_data import Corpus, open_corpus
from pointseg.lab.run_record import RUNS, Run, strict
from pointseg.metrics.by_object import contacts, mask_scores, pieces
from pointseg.metrics.pseudo import point_depth
from pointseg.metrics.scores import panoptic_scores
from pointseg.ops.processes import row_draws
from pointseg.papers.attentionshift.labeller import Labels as LabelPath
from pointseg.papers.epld.method import EstimatedLabels
from pointseg.papers.method import Method, targets_of
from pointseg.structures import Batch, InputError, Panoptic, Truth

OBJECTS = "objects.csv.gz"
# of an object, whoever labels
FACTS = ("image", "target", "label", "contact", "area", "pieces", "depth", "tokens")
BY_CONTACT = {"iou", "owned"}
DIGITS = 3
AT_A_TIME = 8  # images
STRIDE = 8  # of tokens that objects are counted in, where the labeller has none


def bench(
    paper: str,
    chosen: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    runs: Path = RUNS,
    force: bool = False,
    **changes: Any,
) -> Iterator[str]:
    """Scores the rows of a paper's beds, or of one bed; a line for each as it ends."""
    for bed, picked in picks_of(beds_of(paper), chosen):
        for seed in bed.seeds if seeds is None else seeds:
            recipes = {row: bed.recipe(rows()[row], seed, **changes) for row in picked}
            known = known_to(bed, recipes)
            records = {row: Run(runs / bed.folder(row, r)) for row, r in known.items()}
            for row, recipe in known.items():
                refuse_early_look(bed, row, recipe, runs)
            missing = [r for r in picked if force or not finished(records[r], known[r])]
            if missing:
                score_rows(bed.name, {r: recipes[r] for r in missing}, records, known, force)
            yield from (line(records[row]) for row in picked)


def beds_of(paper: str) -> list[Bed]:
    """One bed by its name, or all of a paper by its folder or by what its beds' names begin
    with."""
    known = beds()
    if paper in known:
        return [known[paper]]
    mine = [b for b in known.values() if paper in (b.paper, b.name.split("-")[0])]
    if not mine:
        papers = dict.fromkeys(bed.paper for bed in known.values())
        there = ", ".join([*papers, *known]) or "none"
        raise InputError(f"bench: there is no paper or bed '{paper}'; there are {there}")
    return mine


def picks_of(benches: Sequence[Bed], chosen: Sequence[str]) -> Iterator[tuple[Bed, list[str]]]:
    """Each bed with its rows that are chosen, or with all; beds without any are left out."""
    there = list(dict.fromkeys(row for bed in benches for row in bed.rows))
    for name in chosen:
        if name not in there:
            raise InputError(f"bench: there is no row '{name}'; there are {', '.join(there)}")
    for bed in benches:
        picked = [name for name in bed.rows if not chosen or name in chosen]
        if picked:
            yield bed, picked


def known_to(bed: Bed, recipes: dict[str, Recipe]) -> dict[str, Recipe]:
    """The recipes, under the bed's name for its data where these are the bed's by their content;
    under a name of their own where other data lie at the bed's place."""
    row, given = next(iter(recipes.items()))
    usual, here = (
        replace(r, scored_on="tune") for r in (bed.recipe(rows()[row], given.seed), given)
    )
    if bed.content is None or not Path(here.data).is_dir():
        return recipes
    name = here.data
    if open_corpus(here).scored.content_hash() == bed.content:
        name = usual.data
    elif here == usual:
        name = str(Path(here.data).resolve())
    return {row: replace(recipe, data=name) for row, recipe in recipes.items()}


def refuse_early_look(bed: Bed, row: str, recipe: Recipe, runs: Path) -> None:
    """Val is for rows that have nothing left to choose: they are finished on tune."""
    chosen_on = replace(recipe, scored_on="tune")
    if recipe.scored_on == "val" and not finished(
        Run(runs / bed.folder(row, chosen_on)), chosen_on
    ):
        raise InputError(f"bench: {row} s{recipe.seed} is not finished on tune; val comes after it")


def finished(run: Run, recipe: Recipe) -> bool:
    """Whether a run has the scores of a recipe by the present code, or by code that was proven to
    give the same numbers."""
    if run.status != "ok" or run.read("recipe.json") != as_kept(recipe):
        return False
    return run.result.get("code") in codes(recipe, run)


def as_kept(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a run's folder holds it."""
    return strict(json.loads(recipe.to_json()))


def codes(recipe: Recipe, run: Run) -> list[str]:
    """Hashes of code that trains a chain and scores its labels: today's, then those that the runs
    beside a run say are carried to it."""
    runs = run.folder.parents[2]
    now = {stage.method: code_of(stage.method, "bench") for stage in recipe.stages}
    known = [carried_to(f"bench {method}", code, runs) for method, code in now.items()]
    return [hashlib.sha256(" ".join(way).encode()).hexdigest()[:16] for way in product(*known)]


def state(run: Run) -> str:
    """What became of the code of a run: "current", "carried" or "stale"."""
    try:
        known = codes(Recipe.from_json(json.dumps(run.read("recipe.json"))), run)
    except InputError:  # it asks for what is no more
        return "stale"
    recorded = run.result.get("code")
    return {known[0]: "current"}.get(recorded, "carried" if recorded in known else "stale")


def line(run: Run) -> str:
    """A row's scores in percent, for the eye."""
    scores = run.metrics.get("bench", {})
    shown = [name for name in ("iou", "precision", "recall", "boundary", "proxy", "PQ")
             if scores.get(name) is not None]  # fmt: skip
    words = [f"{name} {scores[name]:5.1f}" for name in shown]
    return f"{run.id:44} {'  '.join(words)}  {run.metrics.get('seconds', 0):.1f} s"


@dataclass
class Entry:
    """One row while it is scored."""

    run: Run
    recipe: Recipe
    method: Method
    look: str = ""  # rows of one name share the features of an image
    weigh: str = ""  # and of this one the evidence too
    seconds: float = 0.0
    table: dict[str, list] = field(default_factory=dict)  # column -> values, one an object
    panoptic: list[Panoptic] = field(default_factory=list)

    def add(self, columns: dict[str, Sequence]) -> None:
        for name, values in columns.items():
            self.table.setdefault(name, []).extend(values)


def score_rows(
    bed: str, recipes: dict[str, Recipe], records: dict[str, Run], known: dict[str, Recipe],
    force: bool = False,
) -> None:  # fmt: skip
    """Records the scores of rows that share their images and points, under a bed's name, with the
    recipes by which the bed knows them."""
    corpus = open_corpus(next(iter(recipes.values())))
    with ExitStack() as stack:
        for row in recipes:
            stack.enter_context(records[row].alone(force))
        for row, recipe in recipes.items():
            facts = {
                "kind": "bench",
                "bed": bed,
                "row": row,
                "code": codes(recipe, records[row])[0],
            }
            stack.enter_context(records[row].recording(**facts))
        entries = [opened(recipe, records[row]) for row, recipe in recipes.items()]
        truths = scored(entries, corpus)
        for row, entry in zip(recipes, entries):
            keep(entry, corpus, truths)
            entry.run.write("recipe.json", json.loads(known[row].to_json()))


def opened(recipe: Recipe, run: Run) -> Entry:
    """A row with its labeller as its bed trains or starts it."""
    chain, last = Chain(open_corpus(recipe), run.stages), len(recipe.stages) - 1
    if recipe.stage.steps_for(1):
        method = chain.method(last)
    else:
        training = StageTraining(chain, last)
        looks_first = hasattr(method_class(recipe.stage.method), "prepare")
        method = training.started(training.dataset() if looks_first else chain.corpus.judged())
    entry = Entry(run, recipe, method.eval())
    if looks(method):
        config = method.labeller.config
        entry.look = f"{weights(method.student)} {config.student}"
        assigning = getattr(method.labeller, "ASSIGNING", ())
        read = {f.name: getattr(config, f.name) for f in fields(config)}
        evidence = {name: value for name, value in read.items() if name not in assigning}
        entry.weigh = f"{entry.look} {weights(method.labeller)} {evidence}"
    return entry


def looks(method: Method) -> bool:
    """Whether a method answers by the verbs of a labeller, on the features of a student."""
    return hasattr(method, "labeller") and hasattr(method.labeller, "evidence")


def weights(module: nn.Module) -> str:
    """Hash of all parameters and buffers."""
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def scored(entries: list[Entry], corpus: Corpus) -> list[Truth]:
    """The truths, after every entry has labelled every image once."""
    marked, truths = corpus.judged(), []
    for first, batch in enumerate(batches(marked, AT_A_TIME)):
        start = first * AT_A_TIME
        batch = with_draws(batch, corpus.recipe.seed, start)
        rows_here = marked.indices[start : start + len(batch)]
        images = [TrueImage.of(marked, row, batch, k) for k, row in enumerate(rows_here)]
        truths += [image.truth for image in images]
        memory: dict[str, Any] = {}
        for entry in entries:
            score_batch(entry, batch, images, memory)
    return truths


def with_draws(batch: Batch, seed: int, start: int) -> Batch:
    """Every row draws the same numbers for an image."""
    return replace(batch, draws=row_draws(seed, 0, start, len(batch)))


@dataclass(frozen=True)
class TrueImage:
    """The truth of one image, of its targets with points."""

    truth: Truth  # whole, at the file's size
    objects: Truth  # the targets with points, in the order of `targets_of`
    canvas: Tensor  # [n, H, W] their masks as the method sees them, padded
    parts: Tensor | None  # [n, H, W] likewise
    facts: dict[str, list]  # column -> values, whoever labels
    counted: dict[int, list[int]] = field(default_factory=dict)  # stride -> tokens of each target

    @classmethod
    def of(cls, marked: PointDataset, row: int, batch: Batch, k: int) -> TrueImage:
        truth, targets = marked.dataset.truth(row), targets_of(batch.points[k]).tolist()
        order = [truth.target.tolist().index(target) for target in targets]
        objects, shape = truth.pick(torch.tensor(order)), batch.images.shape[-2:]
        canvas = padded(nearest(objects.masks, batch.sizes[k]), shape)
        parts = truth.parts
        if parts is not None:
            part_map = padded(nearest(parts[None], batch.sizes[k]), shape)
            parts = part_map.long().expand(len(canvas), -1, -1)
        facts = {
            "image": [row] * len(targets),
            "target": targets,
            "label": objects.label.tolist(),
            "contact": contacts(objects),
            "area": objects.masks.flatten(1).sum(1).tolist(),
            "pieces": pieces(objects),
            "depth": point_depth(replace(objects, masks=canvas), batch.points[k]).tolist(),
        }
        return cls(truth, objects, canvas, parts, facts)

    def tokens(self, stride: int) -> list[int]:
        """Of each target; counted once for all rows."""
        if stride not in self.counted:
            masks = self.canvas.numpy()
            self.counted[stride] = [covered_tokens(mask, stride) for mask in masks]
        return self.counted[stride]


def padded(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Maps [n, h, w] on a canvas, below and to the right of which there is nothing."""
    canvas = maps.new_zeros(len(maps), *shape)
    canvas[:, : maps.shape[1], : maps.shape[2]] = maps
    return canvas


def score_batch(
    entry: Entry, batch: Batch, images: Sequence[TrueImage], memory: dict[str, Any]
) -> None:
    """Adds the objects of a batch to the table of a row."""
    labels, labellings, evidence = labelled(entry, batch, memory)
    began = time.perf_counter()
    stride = getattr(getattr(entry.method, "labeller", None), "stride", STRIDE)
    for image, labelling in zip(images, labellings, strict=True):
        fine = resized(labelling, image.truth.void.shape)
        whole = isinstance(labelling, Panoptic)
        picked = torch.ones_like(image.objects.is_thing) if whole else image.objects.is_thing
        facts = image.facts | {"tokens": image.tokens(stride)}
        chosen = picked.nonzero()[:, 0].tolist()
        entry.add({name: [values[k] for k in chosen] for name, values in facts.items()})
        entry.add(mask_scores(image.objects.pick(picked), masks_of(fine)))
        if whole:
            entry.panoptic.append(fine)
    if isinstance(labels, LabelPath):
        entry.add(on_path(labels, evidence.tokens, images))
    if isinstance(labels, EstimatedLabels):
        objects = [image.objects for image in images]
        entry.add(layer_scores(entry.method.labeller, evidence, batch, objects))
    entry.seconds += time.perf_counter() - began


def on_path(labels: LabelPath, tokens: Any, images: Sequence[TrueImage]) -> dict[str, list]:
    """Scores of AttentionShift's label path, whose objects are the things of all images."""
    things = [image.objects.is_thing for image in images]
    masks = torch.cat([image.canvas[kept] for image, kept in zip(images, things)])
    parts = [image.parts if image.parts is None else image.parts[kept]
             for image, kept in zip(images, things)]  # fmt: skip
    known = None if any(each is None for each in parts) else torch.cat(parts)
    return {name: values.tolist() for name, values in
            path_scores(labels, tokens, masks, known).items()}  # fmt: skip


def labelled(entry: Entry, batch: Batch, memory: dict[str, Any]) -> tuple:
    """Labels (None of a method that has no evidence), the labels of each image, and evidence."""
    method = entry.method
    with autocast(method, entry.recipe) as device:
        batch = batch.to(device)
        if not looks(method):
            return None, method.pseudo_labels(batch), None
        if entry.look not in memory:
            memory[entry.look] = method.evidence_features(batch)
        if entry.weigh not in memory:
            memory[entry.weigh] = method.labeller.evidence(memory[entry.look], batch)
        began = time.perf_counter()
        labels = method.labeller.assign(memory[entry.weigh], batch)
        labellings = labels.pseudo_labels()
        entry.seconds += time.perf_counter() - began
    return labels, labellings, memory[entry.weigh]


def keep(entry: Entry, corpus: Corpus, truths: Sequence[Truth]) -> None:
    """Writes what a reader needs to check a score, or to pair it with another row's."""
    scores = summary(entry.table)
    if entry.panoptic:
        quality = panoptic_scores(truths, entry.panoptic, corpus.categories)
        scores |= {name: quality[name] for name in ("PQ", "PQ_th", "PQ_st")}
    run, points = entry.run, corpus.judged().points.content_hash
    run.write("data.json", {"layout": corpus.scored.layout, "split": corpus.scored.split,
                            "images": len(truths), "objects": len(entry.table["image"]),
                            "sha256": corpus.scored.content_hash(), "points": points})  # fmt: skip
    write_bytes(run.folder / OBJECTS, packed(entry.table))
    stages = Chain(replace(corpus, recipe=entry.recipe), run.stages).record()
    run.write("metrics.json", {"bench": scores, "seconds": round(entry.seconds, 2),
                               "stages": stages})  # fmt: skip


def summary(table: dict[str, list]) -> dict[str, float]:
    """Means over things in percent, `iou_st` over stuff, IoU by contact, tokens an object."""
    contact = np.array(table["contact"])
    thing = contact != "stuff"
    values = {name: np.array(column, float) for name, column in table.items() if name not in FACTS}
    scores = {name: mean(v[thing]) for name, v in values.items()}
    scores["keypoints"] = scores.get("keypoints", np.nan) / 100
    scores["iou_st"] = mean(values["iou"][~thing])
    for name in ("apart", "other", "same"):
        of_these = {score: values[score][contact == name] for score in BY_CONTACT & values.keys()}
        scores |= {f"{score}_{name}": mean(each) for score, each in of_these.items()}
    split = thing & (np.array(table["pieces"]) > 1)
    scores |= {f"{name}_split": mean(values[name][split]) for name in ("iou", "recall")}
    tokens = np.array(table["tokens"])[thing]
    scores["tokens_median"] = float(np.median(tokens)) if len(tokens) else np.nan
    return {name: round(v, 3) for name, v in scores.items() if np.isfinite(v)}


def mean(values: np.ndarray) -> float:
    """In percent, of what is known."""
    known = values[np.isfinite(values)]
    return 100 * float(known.mean()) if len(known) else np.nan


def packed(table: dict[str, list]) -> bytes:
    """A table as compressed CSV with three digits; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*(map(written, column) for column in table.values()), strict=True))
    return gzip.compress(text.getvalue().encode(), 9, mtime=0)


def written(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.{DIGITS}f}".rstrip("0").rstrip(".") if np.isfinite(value) else ""


def objects_of(run: Run) -> dict[str, np.ndarray]:
    """Inverse of `packed`, from a run's folder: columns of numbers, `contact` of words."""
    path = run.folder / OBJECTS
    raw = read_gzip(path)
    try:
        head, *rows_ = csv.reader(io.StringIO(raw.decode()))
        columns = list(zip(*rows_, strict=True)) or [()] * len(head)
        unique = len(columns) == len(head) == len(set(head))
        if not unique or not {"image", "target", "contact"} <= set(head):
            raise ValueError("not one column for each name")
        return {name: column_of(name, values) for name, values in zip(head, columns)}
    except (ValueError, csv.Error) as problem:
        raise InputError(f"{path}: not readable ({shown(str(problem))})") from None


def column_of(name: str, values: Sequence[str]) -> np.ndarray:
    """Words of `contact`; numbers, NaN where there is none."""
    if name == "contact":
        return np.array(values, dtype=str)
    numbers = np.array([float(value or "nan") for value in values], dtype=np.float64)
    if np.isinf(numbers).any():
        raise ValueError(f"{name} without an end")
    return numbers
