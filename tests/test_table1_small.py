"""Table 1 in small: its rows and captions, its profiles, and folders in place of data sets."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image
from records import changed, record, with_settings

from cbundles.commands.autotune import Autotune
from cbundles.commands.profiles import Profile, folders_of
from cbundles.errors import InputError
from cbundles.report import fixed_depths, page, table1, table1_small
from cbundles.report.gathering import Gathered
from cbundles.report.runs import Run
from cbundles.store import Store

SMALL = ROOT / "configs/reproduce/table1-small.yaml"
SMALL_16 = ROOT / "configs/reproduce/table1-small-16.yaml"
WIDE = ROOT / "configs/reproduce/table1-wide.yaml"


def network(family, depth, seed, *, filters=8, epochs=20, data):
    blocks = "3,6,25,3" if depth == 76 else None
    made = record(depth, filters, seed, family=family, epochs=epochs, blocks=blocks)
    made = with_settings(made, data=data, training={"accuracy_epochs": 5})
    return changed(made, latency_seconds=0.02, steps_per_epoch=781)


def tuning(data, *, filters=8, restarts=(1, 2, 2), ended=3, **tuned):
    """An auto-tuning of three seeds beside ResNet-76, of which so many have come to an end."""
    chains = [
        [
            *(network("vgg", 120 - n, seed, filters=filters, data=data) for n in range(number)),
            network("vgg", 20 + seed, seed, filters=filters, data=data),
        ]
        for seed, number in enumerate(restarts)
    ]
    baseline = [network("resnet", 76, seed, filters=filters, data=data) for seed in range(3)]
    description = {
        "name": "made_up",
        "kind": "autotune",
        "attempts": [[made.id for made in chain] for chain in chains],
        "tuned": [chain[-1].id for chain in chains[:ended]],
        "given_up": [],
        "baseline": [made.id for made in baseline],
        **tuned,
    }
    return Run(Store(Path("made_up")), description, [*baseline, *(m for c in chains for m in c)])


def test_tiny_networks_have_sizes_that_tell():
    made = network("vgg", 10, 0, data={"name": "mnist_mini"})
    tiny = changed(made, parameters=1_706, bytes=6_824)
    row = table1.our_row([tiny])
    assert (row["parameters"], row["MB"]) == ("1.7 k", "0.007")
    row = table1.our_row([changed(tiny, parameters=310_042, bytes=1_245_000)])
    assert (row["parameters"], row["MB"]) == ("0.31 M", "1.25")


def ours(table, dataset):
    rows = [row for row in table.table.rows if row["source"] == "ours"]
    return [row for row in rows if row["data set"] == dataset]


def test_rows_stand_beside_the_papers_and_say_what_they_are():
    (table,) = table1_small.small_tables([tuning({"name": "cifar10"})])
    rows = table.table.rows
    assert [row["source"] for row in rows] == ["paper", "ours"] * 8
    resnet, tuned = ours(table, "cifar10")
    assert resnet["layers"] == "76.0 ± 0.0" and resnet["restarts"] == ""
    assert tuned["layers"] == "21.0 ± 1.0" and tuned["restarts"] == "1.7 ± 0.6"
    assert tuned["n"] == "3" and tuned["ms/step"] == "20.0 ± 0.0"
    assert "8 filters, 20 epochs" in tuned["how"]
    assert "781 steps of 64 images an epoch" in tuned["how"]
    papers = rows[[row["source"] for row in rows].index("ours", 6) - 1]
    assert papers["layers"] == "19 ± 0.9" and papers["restarts"] == "at most 3"
    for said in ("not the paper's Table 1", "8 filters in the first stage instead of 64",
                 "20 epochs instead of 120", "3 seeds", "smaller networks"):  # fmt: skip
        assert said in table.caption


def test_networks_of_the_papers_width_are_not_called_smaller():
    (table,) = table1_small.small_tables([tuning({"name": "cifar10"}, filters=64)])
    assert "64 filters in the first stage as in the paper, trained for 20 epochs instead" in (
        table.caption
    )
    assert "smaller" not in table.caption and "Layers and sizes can be compared" in table.caption


def test_what_was_not_run_says_so():
    (table,) = table1_small.small_tables([tuning({"name": "cifar10"})])
    assert {row["accuracy [%]"] for row in ours(table, "mnist")} == {"not run"}
    assert {row["accuracy [%]"] for row in ours(table, "svhn_cropped")} == {"not run"}
    assert "SVHN comes through TensorFlow Datasets alone" in table.caption
    (with_svhn,) = table1_small.small_tables(
        [tuning({"name": "cifar10"}), tuning({"name": "svhn_cropped"})]
    )
    # ResNet-76 is not the paper's network for SVHN, so that its row is still missing.
    missing, tuned = ours(with_svhn, "svhn_cropped")
    assert missing["accuracy [%]"] == "not run" and tuned["layers"] == "21.0 ± 1.0"
    assert table1_small.small_tables([]) == []


def test_what_began_shallower_belongs_to_no_row():
    whole = tuning({"name": "cifar10"})
    shorter = whole.description["attempts"]
    shorter = [[chain[-1]] for chain in shorter]  # as if tuning had begun at 20 layers
    begun = Run(whole.store, {**whole.description, "attempts": shorter}, whole.records)
    assert table1_small.small_tables([begun]) == []
    assert len(table1_small.left_for_table1([begun])) == 2


def test_images_of_a_folder_are_named():
    data = {"name": "folder:here/cifar10-jpeg", "pipeline": "cifar10"}
    (table,) = table1_small.small_tables([tuning(data)])
    assert all("folder:here/cifar10-jpeg" in row["how"] for row in ours(table, "cifar10"))
    assert "where the last column names a folder they are copies" in table.caption
    plain = {"name": "folder:here/cats", "pipeline": "auto"}
    assert table1_small.small_tables([tuning(plain)]) == []


def test_seeds_that_are_not_ready_are_counted():
    (table,) = table1_small.small_tables([tuning({"name": "cifar10"}, ended=2)])
    assert ours(table, "cifar10")[1]["restarts"] == "1.5 ± 0.7; 1 seed under way"
    given_up = tuning({"name": "cifar10"}, ended=2)
    last = given_up.description["attempts"][2][-1]
    given_up.description["given_up"] = [last]
    (table,) = table1_small.small_tables([given_up])
    assert ours(table, "cifar10")[1]["restarts"] == "1.5 ± 0.7; 1 seed given up"


def test_a_tuning_without_an_end_says_how_far_it_is():
    sweep = Run(Store(Path("sweep")), {"kind": "sweep"}, [network("vgg", 10, 0, data={})])
    (table,) = table1_small.small_tables([tuning({"name": "cifar10"}, ended=0), sweep])
    tuned = ours(table, "cifar10")[1]
    assert tuned["layers"] == "20, 21 and 22 so far" and tuned["accuracy [%]"] == "under way"
    assert tuned["restarts"] == "1, 2 and 2 so far" and tuned["n"] == ""


def test_each_scale_has_a_table_and_table_1_holds_neither(tmp_path):
    runs = [tuning({"name": "cifar10"}, filters=16), tuning({"name": "cifar10"})]
    assert [table.scale.filters for table in table1_small.small_tables(runs)] == [8, 16]
    assert table1_small.left_for_table1(runs) == []
    mini = tuning({"name": "mnist_mini"})
    assert len(table1_small.left_for_table1([*runs, mini])) == 2
    paths = table1_small.write_small_tables(runs, tmp_path)
    assert {path.name for path in paths} == {
        f"table1_small.{kind}" for kind in ("md", "csv", "tex")
    }
    text = (tmp_path / "table1_small.md").read_text()
    assert text.count("# Table 1 in small: ") == text.count("This is not the paper's") == 2
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table1_small.csv").read_text())))
    assert [row["filters"] for row in rows] == ["8"] * 16 + ["16"] * 16
    nothing = tmp_path / "nothing"
    assert table1_small.write_small_tables([mini], nothing) == [] and not nothing.exists()
    shown = page.page_of([], [], [], Gathered(runs, runs, [], []), {"made_up": []})
    assert shown.count("Table 1 in small: 16 filters, 20 epochs") == 2  # title, name of the region


def test_full_size_belongs_to_table_1():
    full = network("vgg", 20, 0, filters=64, epochs=120, data={"name": "cifar10"})
    assert table1.published(full) == table1.row_of(full.cell) is not None
    run = Run(Store(Path("full")), {"attempts": [[full.id]], "tuned": [full.id]}, [full])
    assert table1_small.small_tables([run]) == []
    data = {"name": "folder:cifar10-jpeg", "pipeline": "cifar10"}
    copied = network("vgg", 20, 0, filters=64, epochs=120, data=data)
    assert table1.published(copied) is None


@pytest.mark.parametrize(("path", "filters"), [(SMALL, 8), (SMALL_16, 16)])
def test_profiles_train_the_papers_networks(path, filters):
    steps = [step for step in Profile.of_file(path).steps if isinstance(step.command, Autotune)]
    names = [images.name for step in steps for images in step.data_sets]
    assert sorted(names) == sorted({row.dataset for row in table1.PAPER})
    assert not Profile.of_file(SMALL).run_names & Profile.of_file(SMALL_16).run_names
    for step in steps:
        tuned, baseline = step.command.experiment.cells, step.command.baseline
        assert len(tuned) == len(baseline) == 3
        assert {cell.model.base_filters for cell in (*tuned, *baseline)} == {filters}
        assert {cell.training.epochs for cell in (*tuned, *baseline)} == {20}
        rows = {table1.row_of(cell) for cell in (*tuned, *baseline)}
        assert len(rows) == 2 and None not in rows


def settings_of(cell):
    """Those in which hand-picked networks must agree with tuned ones."""
    return {
        f"{section}.{name}": value
        for section in ("data", "model", "training")
        for name, value in dataclasses.asdict(getattr(cell, section)).items()
        if f"{section}.{name}" not in fixed_depths.ACROSS
    }


@pytest.mark.parametrize(
    ("profile", "named", "data_sets"),
    [
        (SMALL, "table1_small", ("mnist", "cifar10", "imagenette")),
        (WIDE, "table1_wide", ("cifar10", "imagenette")),
    ],
)
def test_hand_picked_depths_are_trained_as_the_tuned_ones_are(profile, named, data_sets):
    steps = {step.folder_name: step.command for step in Profile.of_file(profile).steps}
    for name in data_sets:
        tuned = steps[f"{named}_{name}"].experiment.cells
        picked = steps[f"{named}_{name}_vgg"].experiment.cells
        assert {cell.model.depth for cell in picked} == {10, 20}
        assert {cell.training.epochs for cell in (*tuned, *picked)} == {20}
        assert {cell.training.seed for cell in picked} == {cell.training.seed for cell in tuned}
        for cell in picked:
            assert settings_of(cell) == settings_of(tuned[0])


def test_folders_stand_for_data_sets(tmp_path):
    profile = Profile.of_file(SMALL, {"cifar10": str(tmp_path)})
    assert profile.run_names == Profile.of_file(SMALL).run_names
    (step,) = [step for step in profile.steps if step.folder_name == "table1_small_cifar10"]
    for cell in step.command.cells:
        assert (cell.data.name, cell.data.pipeline) == (f"folder:{tmp_path}", "cifar10")
        assert table1.row_of(cell).dataset == "cifar10"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("cifar10", "expected DATASET=FOLDER"),
        ("cifr10=.", "did you mean 'cifar10'"),
        ("cifar10=nowhere", "nowhere is not a folder"),
    ],
)
def test_mistakes_in_folders(flag, said):
    with pytest.raises(InputError, match=said):
        folders_of([flag])
    with pytest.raises(InputError, match="trains on imagenette alone"):
        Profile.of_file(ROOT / "configs/reproduce/smoke.yaml", {"imagenette": "."})


def folder_of_images(path, classes):
    for split in ("train", "test"):
        for number in range(classes):
            folder = path / split / f"class{number}"
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(folder / "a.png")
    return path


def test_a_folder_with_other_classes_is_no_such_data_set(tmp_path):
    two = folder_of_images(tmp_path / "two", 2)
    with pytest.raises(InputError, match="has 2 classes, but cifar10 has 10"):
        folders_of([f"cifar10={two}"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        folders_of([f"cifar10={tmp_path / 'empty'}"])
    ten = folder_of_images(tmp_path / "ten", 10)
    with pytest.raises(InputError, match="given twice"):
        folders_of([f"cifar10={ten}", f"cifar10={ten}"])
    assert folders_of([f"cifar10={ten}"]) == {"cifar10": str(ten)}


def test_a_plan_says_whose_images_are_missing(cli, tmp_path):
    images = folder_of_images(tmp_path / "images", 10)
    done = cli("reproduce", str(SMALL), "--plan", "--images", f"cifar10={images}")
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if "not prepared yet" in line]
    assert "svhn_cropped" in said and "cifar10" not in said


def test_a_plan_says_why_a_step_cannot_run(cli, tmp_path):
    profile = tmp_path / "p.yaml"
    entry = "autotune: {dataset: 'folder:nowhere', set: [name=none]}"
    profile.write_text(f"results: results\nsteps:\n  - {entry}\n")
    done = cli("reproduce", str(profile), "--plan")
    assert done.returncode == 0, done.stderr
    assert "cannot run: " in done.stdout and "nowhere" in done.stdout
