"""Data sets: the embedded one, storage, folders of images, and missing archives."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pixels
import pytest
from PIL import Image

from cbundles import config, data
from cbundles.config import Data, Probe
from cbundles.data import dataset, decoding, device, pipelines, sources, tfds
from cbundles.errors import InputError


def test_mnist_mini_is_class_balanced_and_real(shared):
    mini = data.load("mnist_mini")
    assert mini.facts == sources.PUBLISHED["mnist_mini"]
    assert np.bincount(mini.train_labels).tolist() == [1000] * 10
    assert np.bincount(mini.test_labels).tolist() == [200] * 10
    archive = shared / "data" / "mnist" / "train-images-idx3-ubyte.gz"
    pixels = np.frombuffer(gzip.decompress(archive.read_bytes()), np.uint8, offset=16)
    original = {image.tobytes() for image in pixels.reshape(-1, 784)}
    assert all(np.ravel(image).tobytes() in original for image in mini.train_images)


def test_every_named_data_set_is_known_everywhere():
    names = set(config.DATASETS)
    assert set(sources.PUBLISHED) == names
    assert set(pipelines.ORIGINAL) == set(config.PIPELINES)
    assert {config.own_pipeline(name) for name in names} == set(config.PIPELINES)
    assert set(tfds.TEST_SPLIT) == names - {"mnist_mini", "spirals"}
    for name in names:
        square = sources.PUBLISHED[name].image_shape
        pipelines.require_square(config.Data(name=name), square)


def test_spirals_are_two_mirrored_arms():
    """phi = 2 pi i / n, r = 0.5 + i / n: an angle tells the radius, and the classes mirror it."""
    spirals = data.load("spirals")
    points = np.concatenate([spirals.train_images, spirals.test_images]).reshape(-1, 2)
    labels = np.concatenate([spirals.train_labels, spirals.test_labels])
    assert len(spirals.test_labels) == 150 and np.bincount(labels).tolist() == [300, 300]
    radius = np.hypot(*points.T)
    sign = np.where(labels == 1, 1.0, -1.0)
    angle = np.arctan2(*(sign[:, None] * points).T[::-1]) % (2 * np.pi)
    angle[np.isclose(angle, 2 * np.pi)] = 0.0
    assert np.allclose(radius, 0.5 + angle / (2 * np.pi), atol=1e-6)
    assert 0.4 < spirals.test_labels.mean() < 0.6


def test_loading_maps_files_and_is_repeatable():
    first, second = data.load("mnist_mini"), data.load("mnist_mini")
    assert isinstance(first.train_images, np.memmap)
    assert first.fingerprint == second.fingerprint


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not write")
def test_a_prepared_copy_is_read_where_nothing_can_be_written():
    code = """
import os, sys
from cbundles import data
data.load("spirals")
os.chmod(os.environ["CBUNDLES_CACHE"] + "/data", 0o555)
os.setuid(65534)
print(len(data.load("spirals").train_labels))
"""
    with tempfile.TemporaryDirectory() as folder:  # others may not even look into `tmp_path`
        Path(folder).chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "CBUNDLES_CACHE": f"{folder}/cache"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.strip() == "450", done.stderr


@pytest.mark.parametrize("selection", ["uniform", "first"])
def test_the_probe_set_is_drawn_from_the_training_images(selection):
    """With their labels, none twice; another seed draws others."""
    stored = data.load("mnist_mini")
    drawn = []
    for seed in (0, 1):
        placed = device.place(stored, Data(), Probe(samples=100, selection=selection, seed=seed))
        drawn.append(np.asarray(placed.probe.images))
        rows = [
            np.flatnonzero((stored.train_images == image).all((1, 2, 3))) for image in drawn[-1]
        ]
        assert all(len(found) for found in rows)
        assert len({int(found[0]) for found in rows}) == 100
        labels = [int(stored.train_labels[found[0]]) for found in rows]
        assert np.asarray(placed.probe.labels).tolist() == labels
    assert np.array_equal(*drawn) == (selection == "first")


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "meta", "class"])
def test_a_damaged_cache_is_rebuilt(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("CBUNDLES_CACHE", str(tmp_path))
    whole = data.load("mnist_mini").fingerprint
    storage = data.storage_of("mnist_mini")
    file = storage / ("meta.json" if damage in ("meta", "class") else "train_images.npy")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[5000] ^= 1
    elif damage == "meta":
        content = bytearray(json.dumps({"format": dataset.FORMAT_VERSION}).encode())
    elif damage == "class":
        content = content.replace(b'"7"', b'"9"')
    file.unlink()
    if damage != "remove":
        length = {"truncate": len(content) // 2, "empty": 0}.get(damage, len(content))
        file.write_bytes(content[:length])
    loaded = data.load("mnist_mini")
    assert loaded.fingerprint == whole and loaded.classes == tuple("0123456789")


def test_what_a_killed_process_prepared_is_cleared_away(tmp_path, monkeypatch):
    monkeypatch.setenv("CBUNDLES_CACHE", str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = data.storage_of("mnist_mini")
    left = left.with_name(f".{left.name}.{gone.pid}@{socket.gethostname()}.0a1b2c3d")
    left.mkdir(parents=True)
    (left / "train_images.npy").write_bytes(b"half of it")
    data.load("mnist_mini")
    assert not left.exists() and data.storage_of("mnist_mini").is_dir()


def make_folder(root, *, size=(6, 5), mode="RGB", held_out="test"):
    chance = np.random.default_rng(0)
    for split, count in (("train", 4), (held_out, 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                folder = root / split / name
                folder.mkdir(parents=True, exist_ok=True)
                shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
                pixels = chance.integers(0, 256, shape, np.uint8)
                Image.fromarray(pixels, mode).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize("held_out", ["test", "val"])
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_a_folder_of_images(tmp_path, mode, channels, held_out):
    root = make_folder(tmp_path / "pets", mode=mode, held_out=held_out)
    name = f"folder:{root}"
    loaded = data.load(name)
    assert loaded.classes == ("cat", "dog")
    assert loaded.train_images.shape == (8, 5, 6, channels)
    assert loaded.test_labels.tolist() == [0, 0, 1, 1]
    assert loaded.facts == data.describe(name)
    with Image.open(root / "train" / "dog" / "0.png") as image:
        pixels = np.asarray(image).reshape(5, 6, channels)
    np.testing.assert_array_equal(loaded.train_images[4], pixels)


def test_16_bit_greys_are_scaled_and_unbounded_ones_refused(tmp_path):
    """A conversion by Pillow would make every grey above 255 white."""
    root = make_folder(tmp_path / "scans", mode="L", size=(3, 1))
    greys = np.array([[0, 257 * 100 + 1, 65535]], np.uint16)
    Image.fromarray(greys).save(root / "train" / "cat" / "0.png")
    loaded = data.load(f"folder:{root}")
    assert loaded.facts == data.describe(f"folder:{root}") and loaded.facts.image_shape[2] == 1
    assert loaded.train_images[0].ravel().tolist() == [0, 100, 255]
    # Beside images in colour, greys become grey in colour.
    Image.fromarray(np.zeros((1, 3, 3), np.uint8)).save(root / "train" / "cat" / "1.png")
    assert data.load(f"folder:{root}").train_images[0].reshape(3, 3).T.tolist() == 3 * [
        [0, 100, 255]
    ]
    for mode, kind in (("I", np.int32), ("F", np.float32)):
        unbounded = Image.fromarray(greys.astype(kind))
        assert unbounded.mode == mode
        unbounded.save(root / "train" / "cat" / "0.png", "tiff")
        with pytest.raises(InputError, match=rf"0\.png: its pixels are 32-bit .*mode {mode}"):
            data.load(f"folder:{root}")


def test_a_changed_folder_is_decoded_again(tmp_path):
    root = make_folder(tmp_path / "pets")
    before = data.load(f"folder:{root}").fingerprint
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(root / "train" / "cat" / "new.png")
    assert data.load(f"folder:{root}").fingerprint != before


def test_mistakes_in_a_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder; expected ROOT/"):
        data.load(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="no train and test"):
        data.load(f"folder:{tmp_path}")
    root = make_folder(tmp_path / "pets")
    odd = root / "train" / "dog" / "9.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(odd)
    with pytest.raises(InputError, match=r"9\.png: is 9x9, the first image .* 6x5"):
        data.load(f"folder:{root}")
    odd.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"9\.png: cannot be read"):
        data.load(f"folder:{root}")
    odd.unlink()
    grey = make_folder(tmp_path / "grey", mode="L")
    (grey / "train" / "cat" / "0.png").write_bytes(b"not an image")
    for look in (data.load, data.describe):
        with pytest.raises(InputError, match=r"0\.png: cannot be read"):
            look(f"folder:{grey}")
    (root / "test" / "bird").mkdir()
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(root / "test" / "bird" / "0.png")
    for look in (data.load, data.describe, data.contents):
        with pytest.raises(InputError, match="class 'bird' has no training images"):
            look(f"folder:{root}")


def test_what_is_no_class_or_no_image_is_left_out_and_named(tmp_path):
    root = make_folder(tmp_path / "pets")
    (root / "train" / "empty").mkdir()
    (root / "test" / ".ipynb_checkpoints").mkdir()
    hidden = root / "train" / ".ipynb_checkpoints"
    hidden.mkdir()
    with Image.open(root / "train" / "cat" / "0.png") as image:
        image.save(hidden / "0-checkpoint.png")
        image.save(root / "train" / "cat" / "._0.png")
        image.save(root / "train" / "forgotten.png")
    (root / "test" / "dog" / "notes.txt").touch()
    (root / "train" / "dog" / "more.png").mkdir()
    name = f"folder:{root}"
    loaded = data.load(name)
    assert loaded.classes == ("cat", "dog") and loaded.facts == data.describe(name)
    assert loaded.facts.train == 8
    found, no_classes, no_images = data.contents(name)
    assert found == f"{name}: 8 training and 4 test images in 2 classes: cat 4, dog 4"
    for path in ("train/.ipynb_checkpoints", "train/empty", "test/.ipynb_checkpoints"):
        assert path in no_classes
    for path in ("cat/._0.png", "train/dog/more.png", "train/forgotten.png", "test/dog/notes.txt"):
        assert path in no_images
    assert "no images of a class: 4 (" in no_images


def test_what_lies_beside_both_splits_is_named(tmp_path):
    root = make_folder(tmp_path / "pets")
    shutil.copytree(root / "test", root / "val")
    (root / "README.txt").touch()
    _, beside = data.contents(f"folder:{root}")
    assert beside == "left out, neither train nor test: README.txt, val"


def test_images_in_one_folder_are_no_data_set(tmp_path):
    root = make_folder(tmp_path / "pets")
    for split in ("train", "test"):
        shutil.rmtree(root / split / "dog")
    for look in (data.load, data.describe, data.contents):
        with pytest.raises(
            InputError, match=r"all training images are of one class, cat; expected"
        ):
            look(f"folder:{root}")


def test_long_lists_of_classes_are_shortened(tmp_path):
    for split in ("train", "test"):
        for label in range(12):
            folder = tmp_path / split / f"{label:02}"
            folder.mkdir(parents=True)
            Image.new("L", (2, 2)).save(folder / "0.png")
    (found,) = data.contents(f"folder:{tmp_path}")
    assert found.endswith("in 12 classes: " + "".join(f"{i:02} 1, " for i in range(9))
                          + "09 1 and 2 more")  # fmt: skip


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".gif", ".tif", ".JPG", ".ppm", ".jp2"])
def test_every_format_that_can_be_read_counts(tmp_path, suffix):
    root = make_folder(tmp_path / "pets")
    with Image.open(root / "train" / "cat" / "0.png") as image:
        image.save(root / "train" / "cat" / f"more{suffix}")
    loaded = data.load(f"folder:{root}")
    assert loaded.facts == data.describe(f"folder:{root}") and loaded.facts.train == 9


def test_names_that_only_sound_like_images_do_not_count(tmp_path):
    root = make_folder(tmp_path / "pets")
    for suffix in (".pdf", ".h5", ".eps", ".mpg", ".npy", ""):
        (root / "train" / "cat" / f"more{suffix}").touch()
    assert data.load(f"folder:{root}").facts.train == 8


def test_a_folder_that_an_older_version_decoded_is_decoded_again(tmp_path):
    """Its classes may include folders without images."""
    name = f"folder:{make_folder(tmp_path / 'pets')}"
    before = data.load(name)
    meta = data.storage_of(name) / "meta.json"
    content = json.loads(meta.read_text())
    del content["meta_sha256"]
    older = {**content, "format": 2, "classes": [".ipynb_checkpoints", *content["classes"]]}
    older["meta_sha256"] = dataset._sha256_of_meta(older)
    meta.write_text(json.dumps(older))
    after = data.load(name)
    assert after.classes == ("cat", "dog") and after.fingerprint == before.fingerprint


ARCHIVES = {
    "mnist": [
        "train-images-idx3-ubyte.gz  (9,912,422 bytes, sha256 440fcabf73cc546f",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ],
    "cifar10": ["cifar-10-binary.tar.gz  (170,052,171 bytes, sha256 c4a38c50a1bc5f3a"],
    "svhn_cropped": [
        "train_32x32.mat  (182,040,794 bytes, sha256 435e94d69a87fde4",
        "test_32x32.mat",
        "extra_32x32.mat",
    ],
    "imagenette": ["imagenette2-160.tgz  (99,003,388 bytes, sha256 64d0c4859f35a461"],
}


@pytest.mark.parametrize("name", sorted(ARCHIVES))
def test_a_missing_data_set_names_the_archives(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tfds, "_reachable", lambda url: False)
    job = {"name": name, "storage": "", "data_dir": str(tmp_path), "manual_dir": None}
    with pytest.raises(InputError) as error:
        tfds._prepare_here(job)
    message = str(error.value)
    assert "--manual-dir" in message and message.count("sha256") == len(ARCHIVES[name])
    for archive in ARCHIVES[name]:
        assert archive in message
    for archive in ARCHIVES[name][1:]:
        (tmp_path / archive).touch()
    with pytest.raises(InputError) as error:
        tfds._prepare_here({**job, "manual_dir": str(tmp_path)})
    assert str(error.value).count("sha256") == 1 and ARCHIVES[name][0] in str(error.value)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (160, 160, (0, 128), (0, 128)),
        (160, 213, (15, 111), (0, 128)),
        (240, 160, (0, 128), (21, 106)),
        (200, 160, (0, 128), (12, 114)),
    ],
)
def test_an_image_of_any_shape_is_fitted_into_a_square(height, width, rows, columns):
    small = np.random.default_rng(0).integers(1, 256, (height // 8, width // 8, 3), np.uint8)
    image = np.asarray(Image.fromarray(small).resize((width, height)))
    fitted = tfds.resize_with_pad(image, 128)
    assert fitted.shape == (128, 128, 3) and fitted.dtype == np.uint8
    inside = (slice(*rows), slice(*columns))
    expected = pixels.resized(image.astype(np.float64), rows[1] - rows[0], columns[1] - columns[0])
    assert np.abs(fitted[inside] - expected).max() < 0.51
    fitted[inside] = 0
    assert not fitted.any()


def test_a_grey_image_among_coloured_ones_becomes_grey_in_colour():
    grey = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    for image in (grey, grey[..., None]):
        np.testing.assert_array_equal(tfds.resize_with_pad(image, 128), np.stack([grey] * 3, -1))


@pytest.mark.parametrize("size", [None, 128])
def test_examples_are_decoded_in_order(size):
    chance = np.random.default_rng(0)
    shape = (32, 32, 3) if size is None else (128, 128, 3)
    source = [{"image": chance.integers(0, 256, shape, np.uint8), "label": i} for i in (3, 1, 2)]
    images, labels = tfds._decode(source, size)
    assert labels.tolist() == [3, 1, 2] and labels.dtype == np.int32
    np.testing.assert_array_equal(images, np.stack([e["image"] for e in source]))


def test_an_unwritable_cache_is_named(monkeypatch):
    monkeypatch.setenv("CBUNDLES_CACHE", "/proc/nowhere")
    with pytest.raises(InputError, match="CBUNDLES_CACHE"):
        data.load("mnist_mini")


def test_manual_dir_must_exist(tmp_path):
    with pytest.raises(InputError, match=r"--manual-dir .* not a folder"):
        tfds.prepare("mnist", tmp_path / "storage", None, tmp_path / "nowhere")


def test_all_images_that_cannot_be_used_are_named_at_once(tmp_path):
    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(3):
                Image.new("L", (4, 4)).save(tmp_path / split / label / f"{number}.png")
    (tmp_path / "train/a/0.png").write_bytes(b"no image")
    (tmp_path / "train/b/1.png").write_bytes(b"no image")
    Image.new("L", (5, 3)).save(tmp_path / "train/b/2.png")
    with pytest.raises(InputError) as refused:
        data.load(f"folder:{tmp_path}")
    said = str(refused.value)
    assert said.startswith("3 of 6 images cannot be used:")
    for name in ("train/a/0.png", "train/b/1.png", "train/b/2.png: is 5x3"):
        assert str(tmp_path / name.split(":")[0]) in said and name in said


def test_of_many_broken_images_the_first_are_named(tmp_path):
    for split in ("train", "test"):
        for number in range(25):
            label = tmp_path / split / ("b" if number == 24 else "a")
            label.mkdir(parents=True, exist_ok=True)
            (label / f"{number:02}.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="25 of 25 images cannot be used") as refused:
        data.load(f"folder:{tmp_path}")
    assert str(refused.value).endswith("and 5 more")


def mixed_folder(root):
    """Landscapes, portraits and small ones; grey, transparent and coloured."""
    shapes = {"a": (40, 20), "b": (20, 60), "c": (10, 12)}
    for split in ("train", "test"):
        for label, (width, height) in shapes.items():
            (root / split / label).mkdir(parents=True)
            for mode in ("RGB", "L", "RGBA"):
                halves = Image.new(mode, (width, height))
                halves.paste(Image.new(mode, (width, height), 200), (width // 2, 0))
                halves.save(root / split / label / f"{mode}.png")
    return root


def test_images_of_mixed_sizes_are_scaled_and_cut_to_a_square(tmp_path):
    """Against Pillow's own steps, one after another; what was done is said."""
    name = f"folder:{mixed_folder(tmp_path / 'mixed')}"
    with pytest.raises(InputError, match=r"data\.image_size = 20, .* scales each") as refused:
        data.load(name)
    assert "6 of 9 images cannot be used" in str(refused.value)
    loaded = data.load(name, 16)
    assert loaded.facts == data.describe(name, 16)
    assert loaded.train_images.shape == (9, 16, 16, 3)
    assert data.load(name, 12).fingerprint != loaded.fingerprint
    for number, path in enumerate(sorted((tmp_path / "mixed/train").rglob("*.png"))):
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC, box=box))
        np.testing.assert_array_equal(loaded.train_images[number], expected)
    remarks = (decoding.COLOURED, decoding.ENLARGED, decoding.TRANSPARENT)
    assert data.remarks(name, 16) == tuple(f"6 images: {remark}" for remark in remarks)


def test_a_sweep_of_images_of_mixed_sizes(cli, tmp_path):
    """Size is an axis; what was done to the images is said, and how small the probe set is."""
    root = mixed_folder(tmp_path / "mixed")
    (tmp_path / "mixed.yaml").write_text(
        f"data: {{name: 'folder:{root}', image_size: [8, 16]}}\n"
        "model: {width: 4, depth: 2}\ntraining: {epochs: 1, batch_size: 4}\n"
    )
    done = cli("sweep", str(tmp_path / "mixed.yaml"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    for size in (8, 16):
        images = f"mixed, image_size {size}"
        assert f"{images}: 6 images: {decoding.TRANSPARENT}" in done.stdout
        assert f"{images}: the probe set is all 9 training images, not 2048" in done.stdout
    written = json.loads((tmp_path / "out/run.json").read_text())
    assert len(written["data"]) == 2 and written["finished"] == 2
    assert "at most 2048 samples" in (tmp_path / "out/table.md").read_text() + done.stdout
    again = cli("sweep", str(tmp_path / "mixed.yaml"), "--out", str(tmp_path / "out"))
    assert "[1/2]" in done.stdout + done.stderr and "[1/2]" not in again.stdout + again.stderr
