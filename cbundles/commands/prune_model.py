"""`cbundles prune PACKAGE.MODULE:FUNCTION`: somebody's model without some residual blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console

from cbundles.commands import models
from cbundles.commands.models import DATASET_IS_MISSING
from cbundles.commands.output import list_files, say, say_beside_results
from cbundles.commands.running import Options, use_device
from cbundles.config import Data, Images
from cbundles.decisions.removal import CONFLICTING
from cbundles.errors import InputError, did_you_mean
from cbundles.report.table import Row, Table
from cbundles.user_functions import FORM, is_name_of_function

if TYPE_CHECKING:
    from cbundles.arrays import Numbers
    from cbundles.auditing.lesion_findings import Lesions
    from cbundles.removing import Removed, Report

SAMPLES = 2048
LEARNING_RATE, BATCH_SIZE = 1e-3, 64  # at which conflicts are looked for
JUDGED_AT = (
    f"judged at a learning rate of {LEARNING_RATE} and batches of {BATCH_SIZE}; cbundles audit "
    "takes others, and --blocks the names that it finds"
)
RANKED = re.compile(r"([a-z_-]+):(\d+)")
COMMA = re.compile(r",(?![^\[]*\])")  # not that in ``stack/sum[3, 1]``


class _Samples(NamedTuple):
    """Some images of a data set, prepared for the model."""

    images: Numbers
    labels: np.ndarray


@dataclass(frozen=True)
class PruneModel:
    """A model that a function returns, on a data set.

    blocks: which ones go, as typed: `CONFLICTING`; a ranking and a count, as ``greedy:5``; or
        names, patterns and numbers with commas.
    samples: at most so many images of training, and of the test.
    output: which part of the model's output are the class scores; None: the only one that fits.
    recalibrate: whether statistics of batch normalisations are taken anew, on images of training.
    """

    target: str
    images: Images
    blocks: str
    samples: int
    output: str | None
    recalibrate: bool

    @classmethod
    def of_name(
        cls,
        target: str,
        dataset: str | None,
        image_size: int | None,
        blocks: str,
        samples: int,
        output: str | None,
        recalibrate: bool,
    ) -> PruneModel:
        """Raises InputError for what names no function."""
        if not is_name_of_function(target):
            raise InputError(f"prune {target}: neither the folder of a run nor {FORM}")
        if dataset is None:
            raise InputError(f"prune {target}: {DATASET_IS_MISSING}")
        return cls(target, Images(dataset, image_size), blocks, samples, output, recalibrate)

    @property
    def name(self) -> str:
        return "prune"

    def execute(self, options: Options, console: Console) -> int:
        """Write the smaller model and a table, and say what changed. Returns the exit code."""
        use_device(options.device)
        settings = models.checked_data(self.images, self.name)
        dataset = models.load_named(self.images, options, console)
        model, params = models.built_model(self.target, self.name)
        suffix = ".pt2" if models.is_of_pytorch(model) else ".stablehlo"
        file, table = options.out / f"model{suffix}", options.out / "pruned.csv"
        for earlier in (file, table):
            if earlier.exists():
                raise InputError(f"{earlier}: is there already; nearest valid: another --out")
        # Those that an audit draws, so that the blocks that conflict here do so there.
        training = _Samples(*models.probe_set(dataset, settings, model, self.samples))
        test = self._some(dataset.test_images, dataset.test_labels, settings, model)
        try:
            blocks = self._blocks_that_go(model, params, training, dataset.num_classes)
            if not blocks:
                nothing = f"{self.target}: no residual branch conflicts, so none is removed"
                say_beside_results(f"{nothing} ({JUDGED_AT})", options, console)
                if options.as_json:
                    self._print_as_data(options, [])
                return 0
            removed = self._removed(model, params, blocks, training, test)
            row = _row_of(removed.report)
            if not options.as_json:
                say(console, f"{self.target}\n\n{removed}\n")
            row["model_batch"] = removed.export(file).batch
        except ValueError as error:
            raise InputError(f"prune {self.target}: {error}") from error
        if row["model_batch"] is not None:
            only = f"{file} takes batches of {row['model_batch']} alone"
            why = "JAX cannot trace this model for any number of samples"
            say_beside_results(f"{only}: {why}", options, console)
        Table([row]).write_csv(table)
        if options.as_json:
            self._print_as_data(options, [row])
            return 0
        list_files(console, "model", [file])
        list_files(console, "table", [table])
        return 0

    def _print_as_data(self, options: Options, rows: list[Row]) -> None:
        print(json.dumps({"event": "done", "folder": str(options.out), "rows": rows}))

    def _some(self, stored: np.ndarray, labels: np.ndarray, settings: Data, model: Any) -> _Samples:
        """Evenly spread, as many as wanted."""
        from cbundles.bundles import evenly_spread

        rows = evenly_spread(len(labels), self.samples)
        return _Samples(models.prepared_images(stored[rows], settings, model), labels[rows])

    def _blocks_that_go(
        self, model: Any, params: Any, training: _Samples, num_classes: int
    ) -> list[str | int]:
        """Names and numbers. Raises ValueError where a model has nothing that could go."""
        from cbundles.auditing import audit
        from cbundles.auditing.lesion_findings import GREEDY, RANKINGS

        ranked = RANKED.fullmatch(self.blocks)
        if self.blocks.replace("-", "_") in (*RANKINGS, GREEDY):
            raise ValueError(f"--blocks {self.blocks}: say how many, such as {self.blocks}:3")
        if self.blocks != CONFLICTING and ranked is None:
            typed = [text.strip() for text in COMMA.split(self.blocks)]
            return [int(text) if text.isdecimal() else text for text in typed]
        found = audit(
            model,
            training.images,
            training.labels,
            params=params,
            num_classes=num_classes,
            layers="branch",
            learning_rate=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            output=self.output,
            headroom=ranked is not None and ranked[1] == "headroom",
            lesion=ranked is not None,
        )
        if ranked is not None:
            return self._first_of_ranking(found.lesions, ranked[1], int(ranked[2]))
        if not found.layers:
            raise ValueError("this model has no residual branches, so nothing can be removed")
        if not np.isfinite(found.amplitude.value):  # then all layers count as diverged
            raise ValueError(found.verdict[0])
        return [layer.name for layer in found.layers if layer.conflicting or layer.diverged]

    def _first_of_ranking(self, lesions: Lesions, typed: str, count: int) -> list[str | int]:
        ranking = typed.replace("-", "_")
        if ranking in lesions.no_curve:
            raise ValueError(f"--blocks {self.blocks}: {typed}: {lesions.no_curve[ranking]}")
        if ranking not in lesions.curves:
            near = did_you_mean(ranking, list(lesions.curves))
            raise ValueError(f"--blocks {self.blocks}: no ranking is {typed}: {near}")
        order = lesions.curves[ranking].order
        if not 1 <= count <= len(order):
            raise ValueError(f"--blocks {self.blocks}: the model has 1 to {len(order)} blocks")
        return list(order[:count])

    def _removed(
        self,
        model: Any,
        params: Any,
        blocks: Sequence[str | int],
        training: _Samples,
        test: _Samples,
    ) -> Removed:
        from cbundles.removing import remove

        return remove(
            model,
            blocks,
            params=params,
            inputs=test.images,
            labels=test.labels,
            output=self.output,
            recalibrate=training.images if self.recalibrate else False,
        )


def _row_of(report: Report) -> Row:
    """What was removed, in a line: before, after, with statistics taken anew."""
    before, after = report.before, report.after
    row: Row = {"blocks": " ".join(report.blocks), "removed": len(report.blocks)}
    if report.accuracy is not None:
        row["accuracy"], row["accuracy_pruned"] = report.accuracy
    right = report.recalibrated
    row["accuracy_recalibrated"] = None if right is None else right / report.judged
    costs = {
        "parameters": (before.parameters, after.parameters),
        "bytes": (before.bytes, after.bytes),
        "flops": (before.flops, after.flops),
        "latency_seconds": (before.seconds, after.seconds),
    }
    for key, (whole, pruned) in costs.items():
        row[key], row[f"{key}_pruned"] = whole, pruned
    row["batch"] = report.batch
    return row
