"""Audits of PyTorch modules: every layer equals brute force on activations that were captured by
hand or by ordinary hooks, and the module stays as it was."""

from __future__ import annotations

import copy
import re
import runpy
import subprocess
import sys

import brute_force
import numpy as np
import pytest
from conftest import ROOT

import cbundles
from cbundles.auditing import batches

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch")

from torch_models import (  # noqa: E402
    IMAGES,
    LABELS,
    SAMPLES,
    VECTORS,
    ResNet,
    assert_same,
    drawn,
    encoder,
    normal,
    state_of,
)

nn = torch.nn
F = nn.functional


RATE = 1e-5  # so low that some samples meet and others do not


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Several of them, of which the last overlaps the one before it."""
    monkeypatch.setattr(batches, "AT_ONCE", 16)


def captured(forward, inputs):
    """The values that ``forward(batch)`` returns by their names, of all samples, computed in the
    batches in which an audit computes them."""
    cut = batches.CutArrays(inputs, SAMPLES, batches.AT_ONCE)
    parts = {}
    with torch.no_grad():
        for _, batch in cut:
            for name, value in forward(torch.tensor(batch)).items():
                parts.setdefault(name, []).append(value.float().numpy().copy())
    return {name: brute_force.joined(values, 0, SAMPLES)[0] for name, values in parts.items()}


def by_hooks(model, names, *, of_inputs=()):
    """A forward pass that returns what these modules give, or are given, by ordinary hooks."""

    def forward(batch):
        seen = {}
        hooks = []
        for name in names:
            module = model.get_submodule(name)
            hooks.append(
                module.register_forward_hook(
                    lambda module, given, made, name=name: seen.__setitem__(
                        name, (given[0] if name in of_inputs else made).clone()
                    )
                )
            )
        model(batch)
        for hook in hooks:
            hook.remove()
        return seen

    return forward


def audit_and_compare(model, inputs, expected, *, rate=RATE, **how):
    """An audit of which all these sites, and no others, equal brute force on these values."""
    audit = cbundles.audit(model, inputs, LABELS, learning_rate=rate, **how)
    assert [layer.name for layer in audit.layers] == list(expected)
    partly = [
        brute_force.compare(layer, value, value, LABELS, rate)
        for layer, value in zip(audit.layers, expected.values(), strict=True)
    ]
    assert any(partly), "layers in which nothing or everything meets show little"
    return audit


# What works in place


def resnet_by_hand(model):
    """Every value on its own, nothing in place."""

    def forward(x):
        seen = {"relu": torch.relu(model.stem(x))}
        x = seen["relu"]
        for number, block in enumerate(model.blocks):
            path = f"blocks/{number}"
            hidden = seen[f"{path}/relu/relu"] = torch.relu(block.bn1(block.conv1(x)))
            branch = seen[f"{path}/branch"] = block.bn2(block.conv2(hidden))
            skip = x if block.downsample is None else block.downsample(x)
            total = seen[f"{path}/sum"] = branch + skip
            x = seen[f"{path}/relu/relu#2"] = torch.relu(total)
        return seen

    return forward


BY_DEFAULT_AND_BRANCHES = ["activation", "sum", "branch"]


def test_relus_and_sums_in_place():
    model = drawn(ResNet()).eval()
    expected = captured(resnet_by_hand(model), IMAGES)
    model.train()
    state, images = state_of(model), IMAGES.copy()
    audit = audit_and_compare(model, images, expected, layers=BY_DEFAULT_AND_BRANCHES, rate=1e-6)
    assert_same(state, state_of(model))
    np.testing.assert_array_equal(images, IMAGES)
    kinds = [layer.kind for layer in audit.layers]
    assert kinds[1:6] == ["activation", "branch", "sum", "activation", "activation"]
    default = cbundles.audit(model, images, LABELS, headroom=False)
    assert [layer.name for layer in default.layers] == [
        name for name in expected if not name.endswith("branch")
    ]
    left = {one.name: one.reason for one in default.skipped}
    assert "makes the output" in left["fc/linear"] and "blocks/1/downsample/0/convolution" in left


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.ReLU(inplace=True), nn.Softmax(-1)], ids=repr)
def test_a_nonlinearity_of_the_output_is_no_hidden_layer(last):
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(IMAGES[0].size, 6), nn.Tanh(), nn.Linear(6, 3), last
    )
    audit = cbundles.audit(model, IMAGES, LABELS, headroom=False)
    assert [layer.name for layer in audit.layers] == ["2/tanh"]


def test_convolutions_by_ordinary_hooks():
    model = drawn(ResNet()).eval()
    names = [name for name, one in model.named_modules() if isinstance(one, nn.Conv2d)]
    by_name = captured(by_hooks(model, names), IMAGES)
    # In the order in which they are called: the shortcut first.
    order = ["stem", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.downsample.0"]
    order += ["blocks.1.conv1", "blocks.1.conv2"]
    expected = {f"{name.replace('.', '/')}/convolution": by_name[name] for name in order}
    audit_and_compare(model, IMAGES, expected, layers="convolution", rate=1e-6)


def test_outputs_have_the_same_bits_while_a_model_is_watched():
    model, outputs = drawn(ResNet()).eval(), []

    def call(model, batch):
        outputs.append((batch.clone(), model(batch)))

    cbundles.audit(model, IMAGES, LABELS, call=call, headroom=False)
    with torch.no_grad():
        for batch, output in outputs:
            assert torch.equal(model(batch), output) and output.std() > 0
    outside = cbundles.audit(model, IMAGES, LABELS).to_dict()
    with torch.inference_mode():
        assert cbundles.audit(model, IMAGES, LABELS).to_dict() == outside


class Checkpointed(nn.Module):
    """A block that is run again when gradients come back, in the mode of the model then."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def block(self, x):
        return x + F.relu(self.norm(self.first(x)))

    def forward(self, x):
        return self.head(torch.utils.checkpoint.checkpoint(self.block, x, use_reentrant=False))


def test_a_model_that_checkpoints_stays_as_it_was():
    torch.manual_seed(0)
    model = Checkpointed().train()
    before, vectors = state_of(model), normal(SAMPLES, 6)
    audit = cbundles.audit(model, vectors, LABELS, lesion=True, insert=True, peers=True)
    assert_same(before, state_of(model))
    assert audit.lesions.branches[0].scores["first_order"] > 0
    plain = copy.deepcopy(model)
    plain.forward = lambda x: plain.head(plain.block(x))
    by_hand = cbundles.audit(plain, vectors, LABELS, lesion=True, insert=True)
    assert audit.lesions.branches[0].scores == by_hand.lesions.branches[0].scores


def test_probabilities_in_bfloat16_are_no_logits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(torch.bfloat16)
    vectors = torch.tensor(normal(SAMPLES, 6)).to(torch.bfloat16)
    told = [
        cbundles.audit(one, vectors, LABELS, peers=True).peers[0].gradient_norm
        for one in (model, nn.Sequential(model, nn.Softmax(-1)))
    ]
    assert told[1] == pytest.approx(told[0], rel=0.05)


def test_the_statistics_of_the_batch():
    """All samples are one batch, and nothing is written."""
    model = drawn(ResNet())
    alone = copy.deepcopy(model).train()
    with torch.no_grad():
        expected = resnet_by_hand(alone)(torch.tensor(IMAGES))
    names = [name for name in expected if not name.endswith("branch")]
    for mode in (True, False):
        model.train(mode)
        state = state_of(model)
        values = {name: expected[name].flatten(1).numpy() for name in names}
        by_batch = audit_and_compare(model, IMAGES, values, batch_norm="batch", rate=1e-6)
        assert_same(state, state_of(model))
    running = cbundles.audit(model, IMAGES, LABELS, learning_rate=1e-6, headroom=False)
    assert running.layers[-1].num_bundles != by_batch.layers[-1].num_bundles


def test_what_a_call_of_ones_own_writes_is_given_up():
    model = drawn(ResNet()).eval()
    state = state_of(model)

    def call(model, batch):
        model.train()
        return model(batch)

    cbundles.audit(model, IMAGES, LABELS, call=call, headroom=False)
    assert_same(state, state_of(model))


# Names, functions and operators


class Shared(nn.Module):
    """A module that is used twice, functions, and activations that are written out."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.out = nn.Linear(6, 6)
        self.mixing = nn.Parameter(torch.zeros(6, 6))

    def forward(self, x):
        x = self.inner(self.inner(x))
        x = torch.add(x, F.silu(x @ self.mixing))
        h = self.out(x)
        x = x + h * torch.sigmoid(1.702 * h)
        return {"logits": (self.out(F.gelu(x)),), "hidden": x}


def shared_by_hand(model):
    def forward(x):
        first = model.inner(x)
        second = model.inner(first)
        silu = F.silu(second @ model.mixing)
        total = second + silu
        h = model.out(total)
        quick = h * torch.sigmoid(1.702 * h)
        return {
            "inner/1/tanh": first,
            "inner/1/tanh#2": second,
            "silu": silu,
            "sum": total,
            "silu#2": quick,
            "sum#2": total + quick,
            "gelu": F.gelu(total + quick),
        }

    return forward


def test_a_module_that_is_used_twice_and_functions():
    model = drawn(Shared())
    audit = audit_and_compare(model, VECTORS, captured(shared_by_hand(model), VECTORS))
    left = {one.name: one.kind for one in audit.skipped}
    assert left["linear"] == "linear" and left["branch#2"] == "branch"
    assert "out/linear#2" in left


def test_the_largest_weight_of_the_reader():
    model = drawn(Shared())
    audit = audit_and_compare(
        model, VECTORS, captured(shared_by_hand(model), VECTORS), amplitude="consumer"
    )
    weights = (model.inner[0].weight, model.mixing, model.out.weight)
    inner, mixing, out = (float(weight.detach().abs().max()) for weight in weights)
    readers = [inner, max(mixing, out), out, out, out, out, out]
    assert [layer.amplitude for layer in audit.layers] == pytest.approx(readers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_point(dtype):
    model = drawn(Shared()).to(dtype)
    inputs = torch.tensor(VECTORS).to(dtype)
    cut = batches.CutArrays(inputs, SAMPLES, batches.AT_ONCE)
    parts = {}
    with torch.no_grad():
        for _, batch in cut:
            for name, value in shared_by_hand(model)(batch).items():
                parts.setdefault(name, []).append(value.float().numpy())
    expected = {name: brute_force.joined(values, 0, SAMPLES)[0] for name, values in parts.items()}
    audit_and_compare(model, inputs, expected)


# Transformers


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_fast_path_of_a_transformer_hides_nothing(batch_first):
    """Also where the samples are the second axis."""
    model, texts = encoder(batch_first=batch_first).eval(), normal(SAMPLES, 5, 8)
    turned = (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))
    seen = {}

    def forward(batch):
        inputs = [f"layers.{n}.{name}" for n in range(2) for name in ("norm1", "linear2", "norm2")]
        given = by_hooks(model, inputs, of_inputs=inputs)(turned(batch))
        for number in range(2):
            path = f"layers.{number}"
            seen[f"layers/{number}/sum"] = turned(given[f"{path}.norm1"])
            seen[f"layers/{number}/gelu"] = turned(given[f"{path}.linear2"])
            seen[f"layers/{number}/sum#2"] = turned(given[f"{path}.norm2"])
        return seen

    audit = audit_and_compare(
        model, texts, captured(forward, texts), call=lambda model, x: model(turned(x)), rate=5e-6
    )
    assert audit.layers[0].shape == (5, 8)
    (attention, _) = [one for one in audit.skipped if "attention" in one.name]
    assert attention.name == "layers/0/self_attn/multi_head_attention_forward"
    assert "which PyTorch computes as a whole" in attention.reason


def test_attention_reads_by_its_first_projection():
    model = encoder(batch_first=True)
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.out_proj.weight.fill_(50.0)
    audit = cbundles.audit(
        model, normal(SAMPLES, 5, 8), LABELS, amplitude="consumer", headroom=False
    )
    by_name = {layer.name: layer.amplitude for layer in audit.layers}
    weight = model.layers[1].self_attn.in_proj_weight.detach()
    assert by_name["layers/0/sum#2"] == float(weight.abs().max())


def test_tokens_are_rows():
    model, texts = encoder(batch_first=True), normal(SAMPLES, 5, 8)
    audit = cbundles.audit(model, texts, LABELS, rows="tokens", headroom=False)
    assert len(audit.input.bundles.labels) == SAMPLES * 5 and audit.layers[0].shape == (8,)


# Compiled modules


@pytest.mark.filterwarnings("ignore")  # of PyTorch, while it compiles
def test_a_compiled_module_is_seen_as_it_was_before():
    model = drawn(ResNet()).eval()
    expected = captured(resnet_by_hand(model), IMAGES)
    try:
        compiled = torch.compile(model, backend="eager")
        compiled(torch.tensor(IMAGES))  # hooks that come later than this are not called
    except RuntimeError as error:
        pytest.skip(f"nothing can be compiled here: {error}")
    partly = drawn(ResNet()).eval()
    partly.blocks[1] = torch.compile(partly.blocks[1], backend="eager")
    partly(torch.tensor(IMAGES))
    for one in (compiled, partly):
        audit_and_compare(one, IMAGES, expected, layers=BY_DEFAULT_AND_BRANCHES, rate=1e-6)


# Inputs and outputs


def test_pytorch_is_imported_by_whoever_has_a_module():
    code = "import sys, cbundles; cbundles.audit; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.hidden = nn.Embedding(9, 6), nn.Linear(6, 6)

    def forward(self, ids, mask):
        x = torch.tanh(self.hidden(self.table(ids))) * mask[..., None]
        return x.mean(1), {"hidden": x}


TEXTS = {
    "ids": np.random.default_rng(0).integers(0, 9, (SAMPLES, 5)),
    "mask": np.ones((SAMPLES, 5), np.float32),
}


def test_dictionaries_tensors_and_batches_as_they_come():
    model = drawn(TwoInputs())

    def audited(inputs, labels=LABELS):
        return cbundles.audit(model, inputs, labels, call=lambda model, x: model(**x)).to_dict()

    whole = audited(TEXTS)
    assert [layer["name"] for layer in whole["layers"]] == ["tanh"]
    tensors = {key: torch.tensor(value) for key, value in TEXTS.items()}
    assert audited(tensors, torch.tensor(LABELS)) == whole
    loader = torch.utils.data.DataLoader(
        [{key: value[number] for key, value in tensors.items()} for number in range(SAMPLES)],
        batch_size=14,
    )
    coming = audited(loader)
    assert coming["layers"][0]["num_bundles"] == whole["layers"][0]["num_bundles"]


def test_duplicates_in_the_data():
    model = drawn(Shared())
    inputs = VECTORS.copy()
    inputs[1::3] = inputs[::3][: len(inputs[1::3])]  # with another label
    audit = cbundles.audit(model, torch.tensor(inputs), LABELS)
    assert audit.input.num_bundles == SAMPLES - 13
    assert audit.input.conflict_rate > 0 and audit.first_conflict is None


class Hashed(nn.Module):
    """Of numbers in 64 bits."""

    def __init__(self, dtype):
        super().__init__()
        self.table = nn.Embedding(97, 8).to(dtype)
        self.out = nn.Linear(8, 3).to(dtype)

    def forward(self, numbers):
        rows = numbers if numbers.dtype == torch.int64 else (numbers * 2.0**40).to(torch.int64)
        return self.out(F.relu(self.table(rows % 97).mean(1)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_inputs_differ_by_all_of_their_bits(dtype):
    """64 of them, of which a module of PyTorch sees every one."""
    far = torch.arange(4 * SAMPLES).reshape(SAMPLES, 4)
    numbers = far * 2**33 if dtype == torch.int64 else 1 + far.to(dtype) * 1e-12
    model = drawn(Hashed(torch.float32))
    audit = cbundles.audit(model, numbers, LABELS)
    assert audit.input.num_bundles == SAMPLES and not audit.input.conflict_rate
    again = cbundles.audit(model, torch.cat([numbers[:-1], numbers[:1]]), LABELS)
    assert again.input.num_bundles == SAMPLES - 1
    if dtype == torch.float64:
        numbers[0, 0] = torch.nan
        assert cbundles.audit(model, numbers, LABELS).input.diverged


def test_which_parameters_are_trained():
    model = drawn(Shared())
    with torch.no_grad():
        model.mixing[0, 0] = 9
    model.mixing.requires_grad_(False)
    assert cbundles.audit(model, VECTORS, LABELS).amplitude.value < 9
    every = cbundles.audit(model, VECTORS, LABELS, trainable=["mixing", "out/*"])
    assert every.amplitude.parameter == "mixing"
    model.requires_grad_(False)
    assert cbundles.audit(model, VECTORS, LABELS).amplitude.parameter == "mixing"


# What cannot be measured


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 6, batch_first=True)
        self.scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))

    def forward(self, x):
        return self.scripted(torch.relu(self.lstm(x[:, None])[0]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_skipped_has_a_reason():
    audit = cbundles.audit(Recurrent(), VECTORS, LABELS, headroom=False)
    assert [layer.name for layer in audit.layers] == ["relu"]
    reasons = {one.name: one.reason for one in audit.skipped}
    assert reasons["lstm/lstm"] == "inside lstm, which PyTorch computes as a whole"
    assert reasons["scripted"] == "inside a scripted module, which runs outside of Python"
    whole = cbundles.audit(torch.jit.script(nn.Linear(6, 6)), VECTORS, LABELS)
    assert "1: inside a scripted module" in whole.verdict[0]


class WritesOut(nn.Module):
    """A sum that is written into a tensor that is there."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        h = torch.relu(x)
        total = torch.empty_like(h)
        torch.add(h, self.linear(torch.tanh(h)), out=total)
        return total


def test_a_sum_that_is_written_elsewhere_is_seen():
    audit = cbundles.audit(WritesOut(), VECTORS, LABELS)
    assert audit.layers[-1].kind == "sum" and audit.layers[-1].shape == (6,)


def test_the_command_gives_images_with_their_channels_first(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_torch.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    stem = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten()\n"
        "    return nn.Sequential(*stem, nn.Linear(4 * 26 * 26, 10))\n"
    )
    done = cli("audit", "my_torch:build", "--dataset", "mnist_mini", "--samples", "50")
    assert done.returncode == 0, done.stderr
    assert "1x28x28" in done.stdout and "4x26x26" in done.stdout


class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return torch.relu(self.first(x) if len(x) < 4 else self.second(x))


def test_wrong_input_is_a_sentence():
    model = Shared()

    def refused(model=model, inputs=VECTORS, **wrong):
        with pytest.raises(ValueError) as error:
            cbundles.audit(model, inputs, LABELS, **wrong)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "float32[14, 5]: RuntimeError: mat1 and mat2 shapes" in refused(inputs=VECTORS[:, :5])
    assert "float64[14, 6]: RuntimeError" in refused(inputs=VECTORS.astype(np.float64))
    assert "a PyTorch module holds its own weights" in refused(params={})
    assert "no parameter 'ou/*': did you mean 'out/" in refused(trainable="ou/*")
    assert "has no weights yet, such as weight" in refused(nn.LazyLinear(3))
    assert "comes second/linear where first/linear came before" in refused(Undecided())
    state = state_of(model)
    refused(inputs=VECTORS[:, :5])
    assert_same(state, state_of(model))


# Examples


def test_examples_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "audit.md").read_text()
    first, *others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (of_torch,) = [example for example in others if "torch" in example]
    names: dict[str, object] = {}
    for example in (first, of_torch):  # the first has the images
        exec(compile(example, "docs/audit.md", "exec"), names)


def test_the_page_for_users_of_torch(capsys):
    page = (ROOT / "docs" / "torch.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(example, "docs/torch.md", "exec"), {})
    said = capsys.readouterr().out
    shown = re.findall(r"^    (\S.*)$", page.partition("it says:")[2], re.MULTILINE)
    assert len(shown) == 2 and all(sentence in said for sentence in shown)


def test_the_example_ends_with_a_picture(tmp_path, monkeypatch, capsys):
    path = ROOT / "examples" / "torch_resnet.py"
    assert len(path.read_text().splitlines()) < 80
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert "layers conflicts: " in capsys.readouterr().out
    assert (tmp_path / "torch_resnet.png").stat().st_size > 10_000


class Changing(nn.Module):
    """Exchanges its weights for smaller ones in each call, and keeps a state for the next one."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.seen = torch.zeros(8)

    def forward(self, x):
        self.layer.weight.data = torch.renorm(self.layer.weight.data, 2, 0, 0.1)
        h = F.relu(self.layer(x) + self.seen.mean(0))
        self.seen = h.detach()
        return self.head(h)


class WrittenOut(nn.Module):
    """Activations as somebody may write them."""

    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.maps[0](x)
        x = self.maps[1](torch.maximum(x, torch.zeros_like(x)))
        x = self.maps[2](torch.where(x > 0, x, torch.zeros_like(x)))
        return self.head(torch.maximum(x, torch.zeros(x.shape)))


def test_activations_that_are_written_out():
    audit = cbundles.audit(WrittenOut(), VECTORS, LABELS, headroom=False, amplitude="consumer")
    assert [layer.name for layer in audit.layers] == ["maximum", "where", "maximum#2"]


def test_what_depends_on_the_batch_or_has_no_numbers_is_refused():
    keeps_none = nn.Sequential(
        nn.Flatten(),
        nn.LazyLinear(6),
        nn.BatchNorm1d(6, track_running_stats=False),
        nn.ReLU(),
        nn.Linear(6, 3),
    )
    keeps_none(torch.tensor(VECTORS[:4]))
    with pytest.raises(ValueError, match="2 keeps no running statistics"):
        cbundles.audit(keeps_none, VECTORS, LABELS)
    assert cbundles.audit(keeps_none, VECTORS, LABELS, batch_norm="batch").layers
    with pytest.raises(ValueError, match="on the device meta"):
        cbundles.audit(WrittenOut().to("meta"), VECTORS, LABELS)


def test_the_largest_weight_of_complex_ones_is_that_of_their_parts():
    from cbundles.auditing.weights import largest_weights

    found = largest_weights({"a": np.array([1 - 9j, 2j]), "b": np.array([[-3.0]], np.float32)})
    assert found == {"a": 9.0, "b": 3.0}


def test_what_a_call_puts_into_a_module_is_given_up():
    model = drawn(Changing())
    seen, weight = model.seen, model.layer.weight.detach().clone()
    cbundles.audit(model, VECTORS, LABELS)
    assert model.seen is seen
    assert torch.equal(model.layer.weight, weight)


class Bayesian(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.rho = (nn.Parameter(torch.randn(14, 4)) for _ in range(2))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(F.relu(x @ (self.mean + F.softplus(self.rho))))


def test_a_value_as_long_as_the_batch_is_no_activation_of_it():
    audit = cbundles.audit(drawn(Bayesian()), normal(SAMPLES, 14), LABELS)
    assert [layer.name for layer in audit.layers] == ["relu"]
    (skipped,) = [one for one in audit.skipped if one.name == "softplus"]
    assert skipped.reason.startswith("no batch axis: its shape is (14, 4) for 14 samples")
