"""One worked study: which blocks of a PyTorch ResNet, trained on CIFAR-10, can go?

    python scripts/study_torch_resnet.py [--data NAME] [--data-dir DIR] [--work DIR] [--to DIR]

A ResNet of 12 blocks is trained on all images of training. Its blocks are ranked on 2,048 of these,
by every score that `cbundles.audit` knows; each ranking is judged on all test images, beside orders
that know nothing of the network; and what `cbundles.remove` leaves is measured. Each part is kept
in --work and not done again. `cbundles report` shows the record. One core, an hour and a half.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_training
from study_orders import Part, orders_of
from torch_networks import StagedResNet
from torch_training import Images, Recipe

import cbundles
from cbundles import auditing, data, provenance
from cbundles.auditing.lesion_findings import WORDS
from cbundles.bundles import evenly_spread
from cbundles.files import write_atomically
from cbundles.records import worked

STAGES, BLOCKS, FILTERS = 3, 4, 16
RECIPE = Recipe(epochs=12, seed=0)
AUDITED = 2048  # images of training, evenly spread; also for statistics that are taken anew
RATE = RECIPE.learning_rate * RECIPE.rate(RECIPE.epochs - 0.5)  # the mean of the last epoch
REMOVED = (1, 2, 3, 5, 8)  # blocks, of the order that is called so:
REMOVED_BY = "greedy"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="cifar10", help="a data set, or folder:PATH")
    parser.add_argument("--data-dir", type=Path, help="where TensorFlow Datasets keeps what it has")
    parser.add_argument("--call-it", help="the name of the data in the record")
    parser.add_argument("--work", type=Path, default=Path("study-torch-resnet"))
    parser.add_argument("--to", type=Path, default=Path("results/torch_resnet"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    dataset = data.load(options.data, data_dir=options.data_dir)
    images = torch_training.standardized(dataset)
    torch.manual_seed(RECIPE.seed)
    model = StagedResNet(STAGES, BLOCKS, FILTERS, dataset.num_classes)
    checkpoint = options.work / "network.pt"
    seconds = torch_training.train(model, images.train, images.train_labels, RECIPE, checkpoint)
    accuracy = torch_training.accuracy(model, images.test, images.test_labels)
    print(f"trained: {accuracy:.2%} of the test images", flush=True)

    def part(name: str, compute: Callable[..., Part], *what: Any) -> Part:
        return kept(options.work / f"{name}.json", functools.partial(compute, model, images, *what))

    audited = part("audit", audit_network)
    judged = {
        name: part(f"judged-{name}", judge, orders) for name, orders in orders_of(audited).items()
    }
    greedy = audited["lesions"]["curves"][REMOVED_BY]["order"]
    smaller = [part(f"without-{k}", remove_blocks, greedy[:k]) for k in REMOVED]
    study = worked.WorkedStudy(
        network=worked.StudiedNetwork(
            description=(
                f"a PyTorch ResNet of {STAGES} x {BLOCKS} blocks ({FILTERS} to "
                f"{FILTERS * 2 ** (STAGES - 1)} filters, identity and projection shortcuts)"
            ),
            data=options.call_it or dataset.name,
            fingerprint=dataset.fingerprint,
            train=len(images.train),
            epochs=RECIPE.epochs,
            seed=RECIPE.seed,
            batch_size=RECIPE.batch_size,
            rates=RECIPE.in_words,
            seconds=round(seconds),
        ),
        audited=AUDITED,
        rate=RATE,
        images=len(images.test),
        recalibrated=AUDITED,
        correct=judged["scores"]["correct"],
        correct_anew=judged["scores"]["correct_anew"],
        orders=[worked.JudgedOrder(**one) for some in judged.values() for one in some["orders"]],
        no_order={WORDS[by]: why for by, why in audited["lesions"]["no_curve"].items()},
        removed_by=REMOVED_BY,
        smaller=[smaller_network(one) for one in smaller],
        batch=smaller[0]["batch"],
        threads=torch.get_num_threads(),
        processor=provenance.processor(),
        versions=provenance.versions() | {"torch": importlib.metadata.version("torch")},
        audit=audited,
    )
    print(f"written: {worked.write_study(study, options.to)}")


def kept(path: Path, compute: Callable[[], Part]) -> Part:
    """A part of the study, which is computed where its file is not there yet."""
    if not path.exists():
        print(f"{path.stem} ...", flush=True)
        write_atomically(path, json.dumps(compute(), indent=1, allow_nan=False))
    part: Part = json.loads(path.read_text())
    return part


def audited_images(images: Images) -> np.ndarray:
    """The numbers of images of training, as many of each class: a folder has them in order."""
    return evenly_spread(len(images.train), AUDITED)


def audit_network(model: torch.nn.Module, images: Images) -> Part:
    """All that is known of the blocks from images of training."""
    picked = audited_images(images)
    audit = cbundles.audit(
        model,
        images.train[picked],
        images.train_labels[picked].numpy(),
        learning_rate=RATE,
        batch_size=RECIPE.batch_size,
        lesion=True,
        peers=True,
    )
    print(audit, flush=True)
    told = audit.to_dict()
    return {key: told[key] for key in ("first_conflict", "layers", "peers", "lesions")}


def judge(model: torch.nn.Module, images: Images, orders: list[Part]) -> Part:
    """What each order is worth on the test images."""
    judged = auditing.judge_orders(
        model,
        {one["by"]: one["order"] for one in orders},
        images.test,
        images.test_labels.numpy(),
        recalibrate=images.train[audited_images(images)],
    )
    assert judged.accuracy_anew is not None
    counts = []
    for one in orders:
        as_it_is = judged.curves[one["by"]].differences
        anew = judged.curves_anew[one["by"]].differences
        counts.append(
            one
            | {
                "lost": [difference.lost for difference in as_it_is],
                "gained": [difference.gained for difference in as_it_is],
                "lost_anew": [difference.lost for difference in anew],
                "gained_anew": [difference.gained for difference in anew],
            }
        )
    return {
        "correct": round(judged.accuracy * judged.samples),
        "correct_anew": round(judged.accuracy_anew * judged.samples),
        "orders": counts,
    }


def remove_blocks(model: torch.nn.Module, images: Images, blocks: list[str]) -> Part:
    """What is left without these blocks, for good, and what it costs."""
    removed = cbundles.remove(
        model.eval(),
        blocks,
        inputs=images.test,
        labels=images.test_labels.numpy(),
        recalibrate=images.train[audited_images(images)],
    )
    print(removed, flush=True)
    told: Part = removed.report.to_dict()
    return told


def smaller_network(told: Part) -> worked.SmallerNetwork:
    before, after = (
        worked.NetworkCost(**{name: cost[name] for name in worked.NetworkCost.__struct_fields__})
        for cost in (told["before"], told["after"])
    )
    return worked.SmallerNetwork(
        blocks=list(told["blocks"]),
        correct=told["after"]["correct"],
        correct_anew=told["recalibrated"],
        before=before,
        after=after,
    )


if __name__ == "__main__":
    main()
