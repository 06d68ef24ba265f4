"""Everything that only a GPU can show, in the order of its worth, in pieces of at most ten minutes.

    python scripts/gpu_table1.py --plan
    python scripts/gpu_table1.py --out FOLDER --minutes 9
    python scripts/gpu_table1.py --out FOLDER --tiny        # a dry run on a CPU, seconds an item

Each item is an ordinary command that resumes: run the same line again until it says that all is
done. Records appear under FOLDER, ready to be committed. An item whose data is not there is skipped
and says so. A machine without TensorFlow needs the decoded arrays (the folder that $CBUNDLES_CACHE
names on one that has it), or a folder of images: --images cifar10=PATH --images imagenette=PATH.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLI = ("-m", "cbundles.cli")
INPUT_ERROR = 2


@dataclass(frozen=True)
class Item:
    """arguments: of Python; seconds: predicted on one large GPU, see SUSTAINED; dataset: what it
    needs; small: what makes it a dry run."""

    name: str
    arguments: tuple[str, ...]
    seconds: int
    dataset: str
    small: tuple[str, ...]


def tuned(dataset: str, resnet: int, seconds: int, *settings: str) -> Item:
    """settings: that differ from the paper's, the run's name first."""
    sets = [word for setting in settings for word in ("--set", setting)]
    baseline = f"resnet-{resnet}"
    arguments = (*CLI, "autotune", "--dataset", dataset, "--baseline", baseline, *sets)
    small = (
        "--set", "model.base_filters=2", "--set", "training.epochs=1", "--blocks", "1,1,1,1",
        "--set", "probe.samples=256", "--seeds", "1", "--baseline", "resnet-10",
        "--set", "training.batch_size=500",
    )  # fmt: skip
    name = settings[0].removeprefix("name=") if settings else f"autotune_{dataset}"
    return Item(name, arguments, seconds, dataset, small)


def swept(config: str, dataset: str, seconds: int, *small: str) -> Item:
    name = Path(config).stem
    tiny = ("training.epochs=1", "training.batch_size=500", "probe.samples=256", *small)
    sets = [word for setting in tiny for word in ("--set", setting)]
    return Item(name, (*CLI, "sweep", config), seconds, dataset, tuple(sets))


def lesioned(dataset: str, seconds: int) -> Item:
    """ResNet-120, trained, and without every number of its blocks."""
    arguments = (*CLI, "lesion", "--dataset", dataset)
    small = (
        "--depth", "10", "--draws", "2", "--set", "model.base_filters=2", "--set",
        "training.epochs=1", "--set", "training.batch_size=500", "--set", "probe.samples=256",
    )  # fmt: skip
    return Item(f"lesion_{dataset}", arguments, seconds, dataset, small)


NARROW = ("model.depth=10", "model.base_filters=2", "training.seed=0")
# FLOP/s that an H200 sustained in float32 on the networks of Imagenette's row (docs/scale.md). Most
# predictions are FLOPs of training over this; that of fully connected networks is a guess.
SUSTAINED = 15.8e12
ITEMS = (
    Item("metric", ("scripts/bench_metric.py",), 120, "mnist_mini", ()),
    swept("configs/imagenette_vgg100.yaml", "imagenette", 75, *NARROW),
    tuned("imagenette", 50, 660, "name=table1_wide_imagenette", "training.epochs=20"),
    tuned("mnist", 50, 950, "name=table1_wide_mnist", "training.epochs=20"),
    tuned("cifar10", 76, 1400, "name=table1_wide_cifar10", "training.epochs=20"),
    tuned("imagenette", 50, 3200),
    tuned("mnist", 50, 4700),
    tuned("cifar10", 76, 7300),
    lesioned("cifar10", 3300),
    swept("configs/mnist_fc.yaml", "mnist", 600, "model.depth=5", "model.width=10"),
    swept("configs/cifar10_vgg.yaml", "cifar10", 25_000, *NARROW),
    swept("configs/cifar10_resnet.yaml", "cifar10", 25_000, *NARROW),
    swept("configs/imagenette_vgg.yaml", "imagenette", 16_000, *NARROW),
    swept("configs/imagenette_resnet.yaml", "imagenette", 16_000, *NARROW),
)


def command(item: Item, out: Path, tiny: bool, images: dict[str, str]) -> list[str]:
    dataset = "mnist_mini" if tiny else item.dataset
    words = [sys.executable, *item.arguments]
    if item.name == "metric":
        quick = ["--quick"] if tiny else []
        return [*words, *quick, "--json", str(out / "metric.json")]
    if tiny:
        words += item.small
    source = f"folder:{images[dataset]}" if dataset in images else dataset
    words = [source if word == item.dataset else word for word in words]
    if dataset in images:
        words += ["--set", f"data.pipeline={dataset}"]
    if "sweep" in words:
        words += ["--set", f"data.name={source}"]
    return [*words, "--out", str(out / item.name)]


def is_done(out: Path, item: Item) -> bool:
    return (out / f".done-{item.name}").exists()


def run(item: Item, words: list[str], out: Path, limit: float) -> str:
    """Run one item for at most `limit` seconds; what became of it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, cwd=ROOT, env=environment)
    try:
        code = process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it keeps what it has; the next call goes on
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
            return "goes on next time"
        process.kill()
        process.wait()
        return "killed, as it did not stop; goes on next time from its last checkpoint"
    if code == 0:
        (out / f".done-{item.name}").touch()
        return "done"
    return "skipped, see above" if code == INPUT_ERROR else f"failed, exit code {code}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for records")
    parser.add_argument("--plan", action="store_true", help="print the list; run nothing")
    parser.add_argument("--tiny", action="store_true", help="every item in miniature")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for this call [9]")
    parser.add_argument("--only", help="items by name, separated by commas")
    parser.add_argument(
        "--images", action="append", default=[], metavar="DATASET=FOLDER",
        help="a folder of images instead of TensorFlow Datasets",
    )  # fmt: skip
    options = parser.parse_args()
    images = dict(text.split("=", 1) for text in options.images if "=" in text)
    if len(images) < len(options.images):
        parser.error("--images: expected DATASET=FOLDER")
    unknown = set((options.only or "").split(",")) - {item.name for item in ITEMS} - {""}
    if unknown:
        parser.error(f"--only: unknown {sorted(unknown)}; valid: {[i.name for i in ITEMS]}")
    items = [i for i in ITEMS if not options.only or i.name in options.only.split(",")]
    if options.plan or options.out is None:
        for item in items:
            words = " ".join(command(item, Path("OUT"), options.tiny, images)[1:])
            print(f"{item.name:20} predicted {item.seconds:5} s, needs {item.dataset}: {words}")
        rate = f"{SUSTAINED / 1e12:.1f} TFLOP/s"
        print(f"predictions: FLOPs over {rate}, what an H200 sustained")
        if options.out is None and not options.plan:
            parser.error("--out: name a folder for the records")
        return 0
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    failed = False
    for item in items:
        left = deadline - time.monotonic()
        if is_done(out, item):
            print(f"--- {item.name}: done before", flush=True)
            continue
        if left < 5:
            print(f"--- {item.name}: no time left in this call", flush=True)
            continue
        print(f"--- {item.name}", flush=True)
        verdict = run(item, command(item, out, options.tiny, images), out, left)
        failed |= verdict.startswith("failed")
        print(f"--- {item.name}: {verdict}", flush=True)
    print("all done" if all(is_done(out, i) for i in items) else "the same command goes on")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
