"""`cbundles audit`: the layers of somebody's model, or of the networks that a run has kept."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rich.console import Console

from cbundles.commands import models
from cbundles.commands.models import DATASET_IS_MISSING
from cbundles.commands.output import list_files, say
from cbundles.commands.running import Options, use_device
from cbundles.config import Cell, Data, Images
from cbundles.data.dataset import Dataset
from cbundles.errors import InputError, did_you_mean
from cbundles.records import SweepRecord
from cbundles.report import runs
from cbundles.store import Store
from cbundles.user_functions import FORM, is_name_of_function

if TYPE_CHECKING:
    from cbundles.auditing import Audit

LEARNING_RATE, BATCH_SIZE = 1e-3, 64
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Choices:
    """What was typed; see `cbundles.audit`. None: as the networks of a run were trained."""

    samples: int
    layers: tuple[str, ...] | None
    amplitude: str | float
    learning_rate: float | None
    batch_size: int | None
    headroom: bool
    lesion: bool
    insert: bool
    peers: bool
    output: str | None
    plot: Path | None

    def __post_init__(self) -> None:
        """InputError for a picture that nothing can write, before anything is computed."""
        if self.plot is None:
            return
        if self.plot.is_dir():
            raise InputError(f"--plot {self.plot}: is a folder; name a file in it, as audit.png")
        from matplotlib.backend_bases import FigureCanvasBase

        known = {*FigureCanvasBase.get_supported_filetypes()} - {"pgf"}  # which needs LaTeX
        ending = self.plot.suffix[1:].lower()
        if ending and ending not in known:
            raise InputError(f"--plot {self.plot}: {did_you_mean(ending, known)}")


def names_in(typed: str) -> tuple[str, ...]:
    """Names that were typed with commas between them."""
    return tuple(name.strip() for name in typed.split(","))


def number_or_word(typed: str) -> str | float:
    """A number, where it is one; which words are known is checked where they are used."""
    with contextlib.suppress(ValueError):
        return float(typed)
    return typed


class Named(NamedTuple):
    """A model, ready to be audited, and what it is called."""

    name: str
    model: Any
    params: Any
    dataset: Dataset
    settings: Data
    choices: Choices


@dataclass(frozen=True)
class AuditModel:
    """A model that a function returns, on a data set."""

    target: str
    images: Images
    choices: Choices

    @classmethod
    def of_name(
        cls, target: str, dataset: str | None, image_size: int | None, choices: Choices
    ) -> AuditModel:
        """Raises InputError for what names no function."""
        if not is_name_of_function(target):
            raise InputError(f"audit {target}: neither the folder of a run nor {FORM}")
        if dataset is None:
            raise InputError(f"audit {target}: {DATASET_IS_MISSING}")
        return cls(target, Images(dataset, image_size), choices)

    @property
    def name(self) -> str:
        return "audit"

    def execute(self, options: Options, console: Console) -> int:
        """Audit the model and say what was found. Returns the exit code."""
        use_device(options.device)
        _show(self._models(options, console), options, console)
        return 0

    def _models(self, options: Options, console: Console) -> Iterator[Named]:
        settings = models.checked_data(self.images, self.name)
        dataset = models.load_named(self.images, options, console)
        model, params = models.built_model(self.target, self.name)
        yield Named(self.target, model, params, dataset, settings, self.choices)


@dataclass(frozen=True)
class AuditRun:
    """The networks that a run has kept, each on its own data."""

    cells: tuple[Cell, ...]
    store: Store
    choices: Choices

    @classmethod
    def of_folder(cls, folder: Path, choices: Choices) -> AuditRun:
        """Raises InputError where no network was kept."""
        run = runs.read(folder)
        cells = [r.cell for r in run.records if isinstance(r, SweepRecord)]
        kept = [cell for cell in cells if run.store.kept_epochs(cell.id)]
        if not kept:
            raise InputError(
                f"{folder}: no network was kept; train with cbundles sweep CONFIG.yaml "
                f"--keep-weights last --out {folder}"
            )
        return cls(tuple(kept), run.store, choices)

    @property
    def name(self) -> str:
        return "audit"

    def execute(self, options: Options, console: Console) -> int:
        """Audit each network and say what was found. Returns the exit code."""
        use_device(options.device)
        _show(self._models(options), options, console)
        return 0

    def _models(self, options: Options) -> Iterator[Named]:
        from cbundles.networks import saved
        from cbundles.networks.network import module_of, variables_of

        for cell in self.cells:
            dataset = models.load_dataset(cell.data.images, options)
            # What a run itself measures.
            choices = replace(
                self.choices,
                layers=self.choices.layers or _outputs_of(cell),
                learning_rate=_given(self.choices.learning_rate, cell.training.learning_rate),
                batch_size=_given(self.choices.batch_size, cell.training.batch_size),
            )
            for epoch in self.store.kept_epochs(cell.id):
                path = self.store.weights_path(cell.id, epoch)
                one = saved.read_of_cell(path, cell.id, dataset.fingerprint, or_diverged=True)
                variables = variables_of(one.shape, one.network)
                name = f"{cell.label}, epoch {epoch}"
                yield Named(name, module_of(one.shape), variables, dataset, cell.data, choices)


def _given(choice: Number | None, default: Number) -> Number:
    """What was typed, also a 0, which `cbundles.audit` refuses in words of its own."""
    return default if choice is None else choice


def _outputs_of(cell: Cell) -> tuple[str, ...] | None:
    """The outputs of layers, or of blocks, by their names; None: what any audit measures."""
    if cell.model.is_own:
        return None
    return ("*/block",) if cell.model.is_convolutional else ("*/layer",)


def _show(audited: Iterator[Named], options: Options, console: Console) -> None:
    """Audit models and print what was found; a picture is written for each."""
    for number, one in enumerate(audited, start=1):
        audit = _audited(one)
        if options.as_json:
            print(json.dumps({"model": one.name, **audit.to_dict()}))
        else:
            if number > 1:
                console.print()
            say(console, f"{one.name}\n\n{audit}")
        if one.choices.plot is not None:
            path = _numbered(one.choices.plot, number)
            audit.plot(path)
            pictures = [path]
            if one.choices.lesion:
                pictures.append(path.with_stem(f"{path.stem}-lesions"))
                audit.plot_lesions(pictures[-1])
            if not options.as_json:
                list_files(console, "figure", pictures)


def _audited(one: Named) -> Audit:
    from cbundles.auditing import audit

    images, labels = models.probe_set(one.dataset, one.settings, one.model, one.choices.samples)
    try:
        return audit(
            one.model,
            images,
            labels,
            params=one.params,
            learning_rate=_given(one.choices.learning_rate, LEARNING_RATE),
            batch_size=_given(one.choices.batch_size, BATCH_SIZE),
            num_classes=one.dataset.num_classes,
            layers=one.choices.layers,
            amplitude=one.choices.amplitude,
            headroom=one.choices.headroom,
            lesion=one.choices.lesion,
            insert=one.choices.insert,
            peers=one.choices.peers,
            output=one.choices.output,
        )
    except ValueError as error:
        raise InputError(f"audit {one.name}: {error}") from error


def _numbered(path: Path, number: int) -> Path:
    """The first file has the name that was given, each further one a number."""
    return path if number == 1 else path.with_stem(f"{path.stem}-{number}")
