"""Configuration: grids, overrides, identity, and the answer to every mistake."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from cbundles import config
from cbundles.config.strict_yaml import parse_yaml
from cbundles.errors import InputError

PROFILES = set(
    (ROOT / "configs/reproduce").glob("*.yaml")
)  # lists of experiments, see test_reproduce
CONFIGS = sorted(set((ROOT / "configs").glob("**/*.yaml")) - PROFILES)


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_shipped_configs_are_valid(path):
    experiment = config.load(path, [])
    assert experiment.name == ("cpu_" if path.parent.name == "cpu" else "") + path.stem
    one = path.stem == "imagenette_vgg100"  # figure 6b is of one network
    assert len(experiment.cells) == 1 if one else len(experiment.cells) >= 3


def test_the_quickstart_shows_a_boundary_on_the_embedded_images():
    cells = config.load(ROOT / "configs" / "quickstart.yaml", []).cells
    assert len(cells) >= 12 and {c.data.name for c in cells} == {"mnist_mini"}


def test_mnist_fc_is_figure_1_with_the_papers_settings():
    cells = config.load(ROOT / "configs" / "mnist_fc.yaml", []).cells
    assert len(cells) == 176
    assert len({c.model.width for c in cells}) == 11 and len({c.model.depth for c in cells}) == 16
    assert {c.model.depth for c in cells} >= {5, 150}
    assert {c.model.width for c in cells} >= {10, 25, 100}
    training = cells[0].training
    assert (training.epochs, training.batch_size) == (50, 64)
    assert (training.learning_rate, training.weight_decay) == (1e-3, 1e-2)
    assert (training.accuracy_epochs, cells[0].probe.samples) == (5, 2048)
    assert cells[0].data == config.Data(name="mnist", augmentation="original")


def test_lists_are_axes_and_scalars_are_not(written):
    text = "model: {depth: [2, 3], width: 4}\ntraining: {seed: [0, 1, 2], learning_rate: 1e-3}\n"
    experiment = config.load(written(text), [])
    points = [(c.model.depth, c.model.width, c.training.seed) for c in experiment.cells]
    assert points == [(d, 4, s) for d in (2, 3) for s in (0, 1, 2)]
    assert experiment.cells[0].training.learning_rate == 1e-3  # text in YAML 1.1
    expected = {"family": "fc", "depth": [2, 3], "width": 4}
    assert expected.items() <= experiment.grid["model"].items()


def test_overrides_win_and_may_be_axes(written):
    path = written("model: {depth: 2, width: 4}\n")
    experiment = config.load(path, ["model.depth=[5, 6]", "training.epochs=3"])
    assert [c.model.depth for c in experiment.cells] == [5, 6]
    assert {c.training.epochs for c in experiment.cells} == {3}


def test_identity_is_the_content(written):
    path = written("model: {depth: 2, width: 4}\n")
    (cell,) = config.load(path, []).cells
    (same,) = config.load(path, ["training.learning_rate=0.001"]).cells
    assert same.id == cell.id
    for override in ("model.depth=3", "training.seed=1", "probe.samples=64", "data.name=mnist"):
        (other,) = config.load(path, [override]).cells
        assert other.id != cell.id
    assert config.Cell.fromdict(cell.asdict()) == cell


def test_mappings_are_not_merged():
    with pytest.raises(InputError, match="x:2: not valid YAML: << merges mappings"):
        parse_yaml("a: &a {epochs: 2}\nb: {<<: *a, epochs: 3}", "x")


def test_a_build_that_is_left_empty_is_none():
    (cell,) = config.override(
        {"model": {"depth": 2, "width": 4}}, ["model.build="], default_name="x", file="x"
    ).cells
    assert not cell.model.is_own


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.widht=3", "model.widht = 3: unknown key; did you mean 'width'?"),
        ("model.source=abc", "model.source = 'abc': unknown key; it is made of model.build"),
        ("modle.width=3", "modle = {'width': 3}: unknown key; did you mean 'model'?"),
        ("model.family=fcc", "model.family = 'fcc': did you mean 'fc'?"),
        ("model.width=0", "must be at least 1; nearest valid: 1"),
        ("model.width=2.5", "must be a whole number"),
        ("training.epochs=true", "training.epochs = True: must be a whole number"),
        ("training.learning_rate=fast", "must be a number"),
        ("training.learning_rate=.inf", "must be finite"),
        ("training.learning_rate=0", "must be greater than 0.0"),
        ("training.learning_rate=11", "must be at most 10.0; nearest valid: 10.0"),
        ("data.name=mnits", "did you mean 'mnist'?"),
        ("data.name=cifar", "did you mean 'cifar10'?"),
        ("data.pipeline=svhn", "did you mean 'svhn_cropped'?"),
        ("data.name=7", "must be text"),
        ("probe.samples=some", "probe.samples = 'some': must be a whole number or all"),
        ("probe.samples=0", "nearest valid: 1"),
        ("probe.equality=gama", "did you mean 'gamma'?"),
        ("probe.resolution=float23", "did you mean 'float32'?"),
        ("probe.gamma=1e-7", "has no effect unless probe.equality is gamma"),
        ("model.depth=[]", "at least one value"),
        ("model.depth=[5, 5]", "must not repeat"),
        ("model.depth=[5, x]", "must be a whole number"),
        ("model=5", "must be a section"),
        ("model.depth", "expected section.key=value"),
        ("model.depth=[5", "not valid YAML"),
        ("name=a/b", "plain name"),
        ("name=2024-13-01", "not valid YAML"),
        ("training.epochs=012", "octal number in YAML 1.1 and a decimal one in YAML 1.2; nearest"),
        ("training.epochs=-012", "nearest valid: -12"),
        ("training.epochs=1:30", "to the base of 60"),
        ("training.learning_rate=1:30.5", "to the base of 60"),
        ("training.epochs=!!bool abc", "'abc' is no bool"),
        ("training.epochs=!!int ''", "'' is no int"),
        ("model=!!map [a]", "expected a mapping"),
        ("model=&a {b: *a}", "contains itself"),
        ("training.epochs=4294967296", "must be at most 2147483647; nearest valid: 2147483647"),
        ("training.learning_rate=1e-46", "must be at least 1.2e-38"),
        ('name="\\0"', "plain name"),
        ('name="\\ud800"', "plain name"),
        ('data.name="folder:a\\0b"', "without control characters"),
    ],
)
def test_mistakes_name_the_place_and_the_way_out(written, override, message):
    with pytest.raises(InputError) as error:
        config.load(written("model: {depth: 2, width: 4}\n"), [override])
    assert message in str(error.value)
    assert f"--set {override}" in str(error.value)


def test_gamma_and_the_whole_training_set_exclude_each_other(written):
    probe = "probe: {samples: [64, all], equality: gamma, resolution: float16}\n"
    path = written("model: {depth: 2, width: 4}\n" + probe)
    with pytest.raises(InputError, match="no effect unless"):
        config.load(path, [])
    with pytest.raises(InputError, match="nearest valid: a number"):
        config.load(path, ["probe.equality=[gamma, weight_amplitude]"])
    cells = config.load(path, ["probe.equality=weight_amplitude"]).cells
    assert [cell.probe.count(10_000) for cell in cells] == [64, 10_000]


def test_settings_that_do_not_apply_to_a_cell_do_not_multiply_it(written):
    probe = "probe: {equality: [gamma, weight_amplitude], resolution: [float32, float16]}\n"
    cells = config.load(written("model: {depth: 2, width: 4}\n" + probe), []).cells
    assert [(c.probe.equality, c.probe.resolution) for c in cells] == [
        ("gamma", "float32"),
        ("weight_amplitude", "float32"),
        ("weight_amplitude", "float16"),
    ]


def test_the_whole_training_set_is_the_same_whatever_the_draw(written):
    probe = "probe: {samples: all, seed: [0, 1], selection: [uniform, first]}\n"
    path = written("model: {depth: 2, width: 4}\n" + probe)
    assert len(config.load(path, []).cells) == 1
    assert len(config.load(path, ["probe.samples=64"]).cells) == 4
    assert len(config.load(path, ["probe.images=augmented"]).cells) == 2


def test_a_data_sets_own_pipeline_needs_no_name(written):
    path = written("model: {depth: 2, width: 4}\n")
    own = {"mnist_mini": "mnist", "mnist": "mnist", "cifar10": "cifar10", "folder:x": "plain"}
    for name, pipeline in own.items():
        named = [f"data.name={name}", f"data.pipeline=[auto, {pipeline}]"]
        (cell,) = config.load(path, named).cells
        assert cell.data.pipeline == "auto"
        others = config.load(path, [f"data.name={name}", "data.pipeline=[auto, svhn_cropped]"])
        assert len({cell.id for cell in others.cells}) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {depth: 2}\n", "model.width: missing"),
        (
            "model: {depth: 2, width: 4, width: 5}\n",
            "experiment.yaml:1: not valid YAML: key 'width'",
        ),
        ("model:\n  depth: 2\n width: 4\n", "experiment.yaml:3"),
        ("- 1\n", "expected sections"),
        ("", "expected sections"),
        ("model: {depth: 2, width: 4}\ntraning: {}\n", "did you mean 'training'?"),
        ("model: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_mistakes_in_a_file(written, text, message):
    with pytest.raises(InputError) as error:
        config.load(written(text), [])
    assert message in str(error.value)


def test_a_missing_file_suggests_its_neighbour(written):
    path = written("model: {depth: 2, width: 4}\n")
    with pytest.raises(InputError, match=r"did you mean '.*experiment\.yaml'"):
        config.load(path.with_name("experimnet.yaml"), [])


def test_every_setting_says_why():
    for section in (config.Data, config.Model, config.Training, config.Probe):
        for field in dataclasses.fields(section):
            assert len(field.metadata["why"]) > 10


def test_depth_and_blocks_of_a_convolutional_network_agree(written):
    by_depth = config.load(written("model: {family: vgg, depth: 50}"), []).cells[0]
    by_blocks = config.load(written('model: {family: vgg, blocks: "3, 6, 12,3"}'), []).cells[0]
    assert by_depth == by_blocks and by_depth.blocks == (3, 6, 12, 3)
    assert by_depth.model.depth == 50 and by_depth.model.width is None
    both = config.load(written("model: {family: [vgg, resnet], depth: [10, 20]}"), []).cells
    assert len({cell.id for cell in both}) == 4


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{family: vgg}", "model.depth: missing"),
        ("{family: vgg, depth: 51}", "nearest valid: 50"),
        ('{family: vgg, depth: 10, blocks: "1,1,1,2"}', "makes 12 layers"),
        ("{family: vgg, blocks: 3}", "must be text"),
        ('{family: vgg, blocks: "0,0,0,0"}', "1 to 5000 blocks"),
        ('{family: vgg, blocks: "1,1,1"}', "4 whole numbers"),
        ("{family: vgg, depth: 10, width: 25}", "no effect for model.family = vgg"),
        ("{depth: 3, width: 4, base_filters: 8}", "no effect for model.family = fc"),
        ("{depth: 3}", "model.width: missing"),
        ("{family: vgg, depth: 10, base_filters: }", "must be a whole number"),
    ],
)
def test_impossible_networks_are_refused(written, model, message):
    with pytest.raises(InputError, match=message):
        config.load(written(f"model: {model}"), [])


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "0x" + "f" * 5000, "-" + "9" * 400])
def test_endless_numbers_are_refused_in_few_words(written, number):
    path = written("model: {depth: 2, width: 4}\n")
    for setting in ("training.epochs", "training.learning_rate", "model.depth", "name"):
        with pytest.raises(InputError) as error:
            config.load(path, [f"{setting}={number}"])
        assert len(str(error.value)) < 1500


def test_aliases_that_grow_without_bound_are_refused(written):
    """Nine lists of nine lists of ...: nobody can write down what they hold."""
    lines = ["model: {depth: 2, width: 4}", "l0: &l0 [x]"]
    lines += [f"l{i + 1}: &l{i + 1} [{', '.join(9 * [f'*l{i}'])}]" for i in range(9)]
    with pytest.raises(InputError, match="more than 1,000,000 values"):
        config.load(written("\n".join(lines)), [])


@pytest.mark.parametrize("name", ["/dev/zero", "."])
def test_what_is_no_file_of_a_configuration_is_refused(name):
    with pytest.raises(InputError, match=r"no configuration|cannot be read"):
        config.load(Path(name), [])


def test_zero_has_no_sign(written):
    path = written("model: {depth: 2, width: 4}\n")
    ids = {
        config.load(path, [f"training.weight_decay={zero}"]).cells[0].id
        for zero in ("0", "0.0", "-0.0")
    }
    assert len(ids) == 1


def test_a_grid_is_counted_before_it_is_made(written):
    million = ["model.depth=[" + ", ".join(map(str, range(1, 1001))) + "]"]
    million += ["training.seed=[" + ", ".join(map(str, range(1000))) + "]"]
    started = time.monotonic()
    with pytest.raises(InputError, match=r"a grid of 1,000,000 networks .* at most 100,000"):
        config.load(written("model: {width: 4}\n"), million)
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_the_largest_grid_is_planned_in_seconds(written, tmp_path):
    """5 seconds of a core and 500 MB; twice that here, since the machine may be busy."""
    sizes, seeds = list(range(1, 11)), list(range(1000))
    text = f"data: {{name: spirals}}\nmodel: {{width: {sizes}, depth: {sizes}}}\n"
    path = written(f"{text}training: {{seed: {seeds}}}\nprobe: {{samples: 300}}\n")
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom cbundles import cli\n"
        f"sys.argv = ['cbundles', 'sweep', {str(path)!r}, '--plan']\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        # ru_maxrss is at least what the parent held, which may have been a lot.
        "status = Path('/proc/self/status').read_text()\n"
        "print(used.ru_utime + used.ru_stime, status.split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "100000 networks" in done.stdout and "99,500 more" in done.stdout
    seconds, kilobytes = map(float, done.stdout.split()[-2:])
    assert seconds < 10 and kilobytes < 500_000
