"""Do the tests notice mistakes? Twenty-two faults, one at a time in a copy of the tree.

A fault counts as caught when a test of the default set, `make test`, fails on it. The tests that
should notice it are tried first; when they pass, all others are run, up to the first
failure. Before that, the whole set must pass on a copy without any fault, so that it is the fault
which a test fails on. Run it before a release: python scripts/mutants.py
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# Read by tests, too large to copy; and what has been compiled before need not be compiled again.
LINKED = ("results", ".programs")
NO_TEST_FAILED, A_TEST_FAILED = 0, 1  # pytest's exit codes


class Edit(NamedTuple):
    """Text that stands exactly once in a file, and what is put in its place."""

    file: str
    old: str
    new: str


class Fault(NamedTuple):
    """A mistake that somebody could make. tests: names of tests that should notice it."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "q: learning rate and batch size are folded into one factor",
        (
            Edit(
                "cbundles/bundles/equality.py",
                "step = rows * scale.learning_rate * scale.inverse_batch_size",
                "step = rows * (scale.learning_rate * scale.inverse_batch_size)",
            ),
        ),
        ("tests/test_bundles.py::test_compiled_weight_update_has_the_bits_of_numpy",),
    ),
    Fault(
        "entropy: the floor at 0 is dropped",
        (
            Edit(
                "cbundles/bundles/entropy.py",
                "surprise = jnp.where(same_class == size, 0.0, -jnp.log(",
                "surprise = jnp.where(same_class < 0, 0.0, -jnp.log(",
            ),
            Edit(
                "cbundles/bundles/entropy.py",
                "entropy=jnp.maximum(surprise.mean(), 0.0)",
                "entropy=surprise.mean()",
            ),
        ),
        ("tests/test_bundles.py::test_extremes",),
    ),
    Fault(
        "equality: -0.0 is another number than 0.0",
        (
            Edit(
                "cbundles/bundles/equality.py",
                "return _bits(jnp.where(stored == 0, jnp.zeros_like(stored), stored))",
                "return _bits(stored)",
            ),
        ),
        ("tests/test_bundles.py::test_weight_update_bits_on_many_values",),
    ),
    Fault(
        "equality: a row with a NaN has the hash of a row of zeros",
        (
            Edit(
                "cbundles/bundles/entropy.py",
                "same_row &= ~(nan[1:] | nan[:-1])",
                "same_row &= True",
            ),
            Edit(
                "cbundles/bundles/entropy.py",
                "NAN_MARK = np.uint32(0x9E3779B9)",
                "NAN_MARK = np.uint32(0)",
            ),
        ),
        ("tests/test_bundles.py::test_a_nan_row_is_bundled_with_no_row_wherever_it_stands",),
    ),
    Fault(
        "amplitude: the largest weight, not the largest absolute weight",
        (
            Edit(
                "cbundles/networks/network.py",
                "return jnp.max(jnp.abs(params))",
                "return jnp.max(params)",
            ),
        ),
        ("tests/test_measure.py::test_the_amplitude_is_the_largest_absolute_weight",),
    ),
    Fault(
        "batch normalisation: the moving variance is the biased one",
        (
            Edit(
                "cbundles/networks/conv.py",
                "unbiased = variance * (count / max(count - 1, 1))",
                "unbiased = variance",
            ),
        ),
        ("tests/test_conv.py::test_golden_forward_pass",),
    ),
    Fault(
        "relu: its derivative at 0 is one half",
        (
            Edit(
                "cbundles/networks/fc.py",
                '"relu": jax.nn.relu,',
                '"relu": lambda x: jnp.maximum(x, 0.0),',
            ),
        ),
        ("tests/test_insertion.py",),
    ),
    Fault(
        "Lookahead: slow and fast weights meet one step late",
        (Edit("cbundles/optim.py", "sync_period=sync_period", "sync_period=sync_period + 1"),),
        ("tests/test_optim.py",),
    ),
    Fault(
        "RAdam: the adaptive step begins one step early",
        (Edit("cbundles/optim.py", "threshold: float = 5.0", "threshold: float = 4.0"),),
        ("tests/test_optim.py",),
    ),
    Fault(
        "images: bytes are divided by 256",
        (Edit("cbundles/data/augment.py", "np.float32(1 / 255)", "np.float32(1 / 256)"),),
        ("tests/test_augment.py::test_pixels_have_the_bits_of_a_multiplication",),
    ),
    Fault(
        "probe set: drawn from the test images",
        (
            Edit(
                "cbundles/data/device.py",
                "images = jnp.asarray(dataset.train_images[rows])",
                "images = jnp.asarray(dataset.test_images[rows % len(dataset.test_images)])",
            ),
        ),
        ("tests/test_data.py::test_the_probe_set_is_drawn_from_the_training_images",),
    ),
    Fault(
        "training: every epoch sees the images in the same order",
        (
            Edit(
                "cbundles/train.py",
                "generator(seed, EPOCH, number)",
                "generator(seed, EPOCH)",
            ),
        ),
        ("tests/test_train.py::test_plans_depend_on_seed_and_epoch_only",),
    ),
    Fault(
        "accuracy: the last image of the test set is left out",
        (
            Edit(
                "cbundles/measure.py",
                "return jnp.mean(predicted == test.labels, dtype=jnp.float32)",
                "return jnp.mean((predicted == test.labels)[:-1], dtype=jnp.float32)",
            ),
        ),
        ("tests/test_measure.py::test_accuracy_counts_every_test_image",),
    ),
    Fault(
        "resume: an interrupted epoch begins again",
        (
            Edit(
                "cbundles/population.py",
                'epoch, step = int(content["epoch"]), int(content["step"])',
                'epoch, step = int(content["epoch"]), 0',
            ),
        ),
        ("tests/test_train.py::test_pauses_within_an_epoch_change_no_bit",),
    ),
    Fault(
        "readings: the weights outside the output layer are all weights",
        (Edit("cbundles/networks/network.py", "if over == ALL or", "if over or"),),
        ("tests/test_measure.py::test_which_weights_the_amplitude_is_taken_over",),
    ),
    Fault(
        "readings: those of another normalisation are taken from the same pass",
        (
            Edit(
                "cbundles/measure.py",
                "seen = watched.visit(shape, subject, x, see, norm)",
                "seen = watched.visit(shape, subject, x, see, BATCH)",
            ),
        ),
        ("tests/test_measure.py::test_paper_e2e",),
    ),
    Fault(
        "records: written in place, so that half of one can be there",
        (
            Edit(
                "cbundles/files.py",
                "    staging = staging_path(path)\n",
                '    staging = staging_path(path)\n    path.write_bytes(b"")\n',
            ),
        ),
        ("tests/test_store.py::test_a_failed_write_leaves_the_old_file_and_no_litter",),
    ),
    Fault(
        "checkpoints: their checksum is not looked at",
        (
            Edit(
                "cbundles/formats.py",
                "if hashlib.sha256(content).digest() != digest:",
                "if False:",
            ),
        ),
        ("tests/test_formats.py::test_every_flipped_bit_of_a_checkpoint_is_noticed",),
    ),
    Fault(
        "identity: a setting that a record lacks means today's default of another value",
        (Edit("cbundles/identity.py", '"batch_norm": "batch"', '"batch_norm": "running"'),),
        ("tests/test_identity.py",),
    ),
    Fault(
        "auto-tuning: the first conflicting block stays",
        (
            Edit(
                "cbundles/decisions/autotune.py",
                "left[stage] = first + (",
                "left[stage] = first + 1 + (",
            ),
        ),
        ("tests/test_autotune.py::test_prune",),
    ),
    Fault(
        "insertion: gradients are squared first and averaged then",
        (
            Edit(
                "cbundles/networks/insertion.py",
                "lambda a, b: a + b / len(x), total, found",
                "lambda a, b: jnp.sqrt(a**2 + b**2 / len(x)), total, found",
            ),
        ),
        (
            "tests/test_insertion.py::test_scores_average_gradients_before_squaring_when_an_insertion_is_scored",
        ),
    ),
    Fault(
        "lesions: McNemar's test is one-sided",
        (
            Edit(
                "cbundles/decisions/paired.py",
                "min(1.0, 2 * float(uneven))",
                "min(1.0, float(uneven))",
            ),
        ),
        ("tests/test_lesion.py::test_mcnemar",),
    ),
)


def copied(into: Path) -> Path:
    """A copy of the tree as it is now, without what git ignores; returns its folder."""
    tree = into / "tree"
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split():
        if Path(name).parts[0] not in LINKED and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    for name in LINKED:
        (ROOT / name).mkdir(exist_ok=True)
        (tree / name).symlink_to(ROOT / name)
    if (ROOT.parent / "shared").is_dir():
        (into / "shared").symlink_to(ROOT.parent / "shared")
    return tree


def run_tests(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run some or all tests of the default set in a copy, up to the first that fails."""
    default = ("-m", "pytest", "-m", "not slow", "-p", "no:cacheprovider", "--exitfirst")
    return subprocess.run(
        [sys.executable, *default, *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


def what_failed(done: subprocess.CompletedProcess[str]) -> str:
    """The name of the test that failed; nothing when none did."""
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found.group(1) if found and "::" in found.group(1) else ""


def stale(faults: Sequence[Fault]) -> list[str]:
    """What cannot be put into the tree as it is now, each in a sentence."""
    return [
        f"{fault.name}: {edit.old!r} stands {times} times in {edit.file}, not once"
        for fault in faults
        for edit in fault.edits
        if (times := (ROOT / edit.file).read_text().count(edit.old)) != 1
    ]


def catch(fault: Fault) -> str:
    """The name of a test that notices the fault; nothing when none does."""
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        for edit in fault.edits:
            text = (tree / edit.file).read_text()
            (tree / edit.file).write_text(text.replace(edit.old, edit.new))
        done = run_tests(tree, *fault.tests)
        if done.returncode == A_TEST_FAILED:
            return what_failed(done)
        # Small portions, since a process that has got some finishes them after a failure elsewhere.
        everything = run_tests(tree, "-n", "auto", "--dist", "load", "--maxschedchunk", "1")
        return what_failed(everything) if everything.returncode != NO_TEST_FAILED else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name contains this text")
    only = parser.parse_args().only
    faults = [fault for fault in FAULTS if only in fault.name]
    if outdated := stale(faults):
        sys.exit("\n".join([*outdated, f"mend these faults in {__file__}"]))
    with tempfile.TemporaryDirectory() as folder:
        done = run_tests(copied(Path(folder)), "-n", "auto", "--dist", "worksteal")
        if done.returncode != NO_TEST_FAILED:
            sys.exit(f"{done.stdout}\nThese tests fail without any fault.")
    caught = 0
    for number, fault in enumerate(faults, start=1):
        started = time.monotonic()
        name = catch(fault)
        caught += bool(name)
        verdict = f"caught by {name}" if name else "NOT CAUGHT"
        seconds = time.monotonic() - started
        print(f"{number:2d}. {fault.name}: {verdict} ({seconds:.0f} s)", flush=True)
    print(f"{caught} of {len(faults)} caught")
    sys.exit(caught < len(faults))


if __name__ == "__main__":
    main()
