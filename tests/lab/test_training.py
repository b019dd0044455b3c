"""One run, on the real digits: what it measures, and that it can be repeated to the bit."""

from __future__ import annotations

import dataclasses
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from normwright.errors import OptionError, UserCodeError
from normwright.lab import normalisers
from normwright.lab.grid import make_base
from normwright.lab.recipe import ACTIVATIONS, DataRecipe
from normwright.lab.store import Store
from normwright.lab.testing import take_test
from normwright.lab.training import (
    build,
    check_batch,
    evaluate,
    load_once,
    predict,
    run_recipe,
    steps_per_epoch,
    train,
    used_samples,
)


def recipe_for(norm="batch", **options):
    defaults = {"batch_size": 128, "lr": 0.5, "epochs": 2, "depth": 2, "width": 16, "records": 4}
    return make_base("mlp", "digits", norm=norm, **{**defaults, **options})


def arrays_of(result):
    trace = result.trace
    plain = (result.loss, result.validation, result.evaluation_steps)
    return *plain, trace.steps, trace.input, trace.output, trace.gradient, trace.update


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"optimiser": "adamw", "schedule": "cosine"}])
def test_equal_recipes_give_equal_bits(options):
    first, second = (run_recipe(recipe_for(**options)) for _ in range(2))
    for a, b in zip(arrays_of(first.result), arrays_of(second.result), strict=True):
        assert np.array_equal(a, b)
    assert first.weights.keys() == second.weights.keys()
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_the_seed_changes_the_run():
    first, second = (run_recipe(recipe_for(seed=seed)).result for seed in (0, 1))
    assert not np.array_equal(first.loss, second.loss)


def test_recording_does_not_change_a_run():
    recorded, bare = (run_recipe(recipe_for(records=records, dropout=0.2)) for records in (7, 0))
    assert np.array_equal(recorded.result.loss, bare.result.loss)
    assert all(torch.equal(recorded.weights[name], bare.weights[name]) for name in bare.weights)
    assert len(recorded.result.trace.steps) == 7
    assert len(bare.result.trace.steps) == 0


def test_a_run_leaves_no_trace_in_the_process():
    torch.manual_seed(11)
    threads, expected = torch.get_num_threads(), torch.rand(3)
    torch.manual_seed(11)
    run_recipe(recipe_for(epochs=1, threads=threads + 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_ragged_last_batch_is_trained_on():
    recipe = recipe_for(epochs=3)
    samples = len(load_once(recipe.data, None).train_y)
    assert samples % 128 != 0
    assert steps_per_epoch(recipe.training, samples) == samples // 128 + 1
    result = run_recipe(recipe).result
    assert len(result.loss) == 3 * (samples // 128 + 1)
    assert result.evaluation_steps[-1] == len(result.loss)
    assert len(result.validation) == 3 * recipe.training.evaluations


def test_without_shuffling_the_first_order_comes_back_every_epoch():
    # At a rate that changes no weight, the same batch has the same loss.
    again, anew = (
        run_recipe(recipe_for("none", lr=1e-30, epochs=3, shuffle=shuffle)).result.loss.reshape(3, -1)
        for shuffle in (False, True)
    )
    assert np.array_equal(again[0], anew[0])
    assert np.array_equal(again[1:], again[:2])
    assert not (anew[1] == anew[0]).any()


def test_a_run_takes_as_many_samples_as_it_is_told():
    recipe = recipe_for(epochs=1, samples=300)
    data = load_once(recipe.data, None)
    used = used_samples(recipe.training, data)
    assert used.train_x.shape == (300, *data.sample_shape)
    fewer = used_samples(recipe_for(samples=100, seed=5).training, data)
    rows = {x.numpy().tobytes() for x in used.train_x}
    assert len(rows & {x.numpy().tobytes() for x in fewer.train_x}) == 100
    assert torch.equal(used.test_x, data.test_x)
    assert len(run_recipe(recipe).result.loss) == 3
    assert used_samples(recipe_for().training, data) is data


def test_a_share_of_the_labels_is_wrong_the_same_ones_in_every_run():
    recipe = recipe_for(epochs=1, samples=300, label_noise=0.2)
    data = load_once(recipe.data, None)
    other_seed = recipe_for(samples=300, label_noise=0.2, seed=7)
    right, wrong = (used_samples(r.training, data) for r in (recipe_for(samples=300), recipe))
    assert torch.equal(wrong.train_x, right.train_x)
    assert int((wrong.train_y != right.train_y).sum()) == 60
    assert set(wrong.train_y.tolist()) == set(range(10))
    assert torch.equal(used_samples(other_seed.training, data).train_y, wrong.train_y)
    assert torch.equal(wrong.validation_y, data.validation_y)
    assert torch.equal(wrong.test_y, data.test_y)
    plain = recipe_for(epochs=1, samples=300)
    assert not np.array_equal(run_recipe(recipe).result.loss, run_recipe(plain).result.loss)


def test_a_run_ends_after_its_most_steps():
    options = {"epochs": 9, "max_steps": 15, "records": 3, "schedule": "cosine"}
    result = run_recipe(recipe_for(**options)).result
    assert len(result.loss) == 15
    # Eleven steps are an epoch, with four evaluations: fifteen have six.
    assert result.evaluation_steps.tolist() == [3, 5, 8, 10, 13, 15]
    assert result.trace.steps.tolist() == [0, 7, 14]
    whole = run_recipe(recipe_for(epochs=2, max_steps=15, records=3, schedule="cosine")).result
    assert np.array_equal(result.loss, whole.loss)
    assert len(run_recipe(recipe_for(epochs=1, max_steps=15)).result.loss) == 11


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged():
    result = run_recipe(recipe_for("none", lr=1e30, activation="relu")).result
    assert result.diverged
    assert not np.isfinite(result.loss[-1])
    assert np.isfinite(result.loss[:-1]).all()
    assert len(result.loss) < 20


def test_the_weights_are_those_of_the_last_evaluation():
    recipe = recipe_for()
    trained = run_recipe(recipe)
    data = load_once(recipe.data, None)
    network = build(recipe, data).module
    network.load_state_dict(trained.weights)
    assert (
        evaluate(network, data.validation_x, data.validation_y, "accuracy") == trained.result.validation[-1]
    )


def test_evaluation_is_in_inference_mode_and_puts_the_mode_back():
    recipe = recipe_for(dropout=0.5)
    data = load_once(recipe.data, None)
    network = build(recipe, data).module
    before = {name: value.clone() for name, value in network.state_dict().items()}
    values = {evaluate(network, data.test_x, data.test_y, "accuracy") for _ in range(3)}
    assert len(values) == 1
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_trace_holds_what_the_layers_did():
    recipe = recipe_for("none", epochs=1, records=1, batch_size=1000)
    trained = run_recipe(recipe)
    trace = trained.result.trace
    assert trace.places == ("hidden1.norm", "hidden2.norm")
    assert trace.layers == ("hidden1.linear", "hidden2.linear", "output")
    # The first step, by hand.
    data = load_once(recipe.data, None)
    network = build(recipe, data).module
    order = torch.randperm(len(data.train_y), generator=torch.Generator().manual_seed(0))[:1000]
    hidden = network.hidden1.linear(data.train_x[order].flatten(1))
    expected = torch.quantile(hidden.flatten(), torch.tensor([0.15, 0.5, 0.85]))
    # 4,096 of 16,000 elements: the standard error of the 15th percentile of a Gaussian is 0.024
    # deviations, that of the median less; four of them.
    assert np.abs(trace.input[0, 0] - expected.detach().numpy()).max() < 4 * 0.024 * float(
        hidden.detach().std()
    )
    assert np.array_equal(trace.input, trace.output)
    torch.nn.functional.cross_entropy(network(data.train_x[order]), data.train_y[order]).backward()
    gradients = [network.get_submodule(layer).weight.grad for layer in trace.layers]
    norms = [float(gradient.norm()) for gradient in gradients]
    assert trace.gradient[0] == pytest.approx(norms, rel=1e-5)
    ratios = [
        0.5 * norm / float(network.get_submodule(layer).weight.detach().norm())
        for norm, layer in zip(norms, trace.layers, strict=True)
    ]
    # w - (w - lr·g) loses up to half an ulp of w per element: an update of 1e-4 w keeps 3 digits.
    assert trace.update[0] == pytest.approx(ratios, rel=1e-3)


@pytest.mark.parametrize(
    ("norm", "size", "message"),
    [
        ("none", 1294, "at most the 1,293 samples"),
        ("batch", 1, "leaves one of the 1,293 samples for the last batch"),
        ("batch", 4, "leaves one of the 1,293 samples for the last batch: take 3 or 5"),
        ("batch", 1292, "for the last batch: take 1291 or 1293, or leave batch norm out"),
        ("batch", 1292, "leaves one of the 1,293 samples for the last batch"),
        ("renorm", 1292, "renorm norm needs at least two samples"),
        ("whitening", 1292, "whitening norm needs at least two samples"),
        ("ghost", 48, "batch size 48 is no multiple of the ghost_size 32: take a ghost_size that divides it"),
        ("ghost", 16, "no multiple of the ghost_size 32"),
        ("ghost", 323 * 4, "no multiple"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(norm, size, message):
    with pytest.raises(OptionError, match=message):
        check_batch(recipe_for(norm, batch_size=size), 1293)


def test_the_sizes_to_take_instead_may_lie_further_off():
    # One more than a multiple of 2, 3, 4, 5 and 6.
    with pytest.raises(OptionError, match="for the last batch: take 7 or 11, or leave batch norm out"):
        check_batch(recipe_for("batch", batch_size=4), 5401)
    with pytest.raises(OptionError, match="for the last batch: take 2, or leave batch norm out"):
        check_batch(recipe_for("batch", batch_size=1), 2)
    with pytest.raises(OptionError, match="one of the 1 samples for the last batch: leave batch norm out"):
        check_batch(recipe_for("batch", batch_size=1), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1294}, "samples must be at most the 1,293 samples .* but is 1,294: 0 takes all"),
        ({"samples": 100}, "at most the 100 samples .* but is 128"),
        ({"samples": 257}, "leaves one of the 257 samples for the last batch"),
        ({"samples": 257, "max_steps": 3}, "leaves one of the 257 samples for the last batch"),
    ],
)
def test_samples_that_do_not_fit_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        check_batch(recipe_for(**options), 1293)


@pytest.mark.parametrize(
    ("samples", "message"),
    [(97, "in every virtual batch"), (129, "virtual batch, .* take another ghost_size")],
)
def test_a_virtual_batch_of_one_is_refused(samples, message):
    with pytest.raises(OptionError, match=message):
        check_batch(recipe_for("ghost", batch_size=64, samples=samples), 1293)
    check_batch(recipe_for("ghost", batch_size=64, samples=98), 1293)


def test_a_run_that_ends_before_the_last_batch_does_not_meet_it():
    check_batch(recipe_for(samples=257, max_steps=2), 1293)


@pytest.mark.parametrize(("norm", "size"), [("layer", 1), ("none", 4), ("batch", 1293), ("batch", 3)])
def test_a_batch_that_fits_is_taken(norm, size):
    check_batch(recipe_for(norm, batch_size=size), 1293)


FAMILY = [("mlp", norm) for norm in ("renorm", "ghost", "whitening", "dyt", "weight", "ws")]
FAMILY += [("lenet", "frn"), ("lstm", "recurrent-batch"), ("lstm", "recurrent-layer")]


@pytest.mark.parametrize(("network", "norm"), FAMILY)
def test_every_member_of_the_family_trains_and_is_built_again(network, norm):
    options = {"width": 8, "depth": 1, "epochs": 2, "samples": 256, "batch_size": 64, "records": 2}
    recipe = make_base(network, "digits", norm=norm, lr=1e-2, optimiser="adamw", **options)
    trained = run_recipe(recipe)
    assert not trained.result.diverged
    assert trained.result.loss[-1] < trained.result.loss[0]
    assert np.isfinite(trained.result.trace.gradient).all()
    assert any("conv" in name or "linear" in name or "lstm" in name for name in trained.result.trace.layers)
    data = load_once(recipe.data, None)
    again = build(recipe, data).module
    again.load_state_dict(trained.weights)
    score = evaluate(again, data.validation_x, data.validation_y, "accuracy")
    assert score == trained.result.validation[-1]


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "rms"])
def test_normalisers_without_weight_and_bias(norm):
    recipe = recipe_for(norm, affine=False)
    built = build(recipe, load_once(recipe.data, None))
    assert len(built.placement.places) == 2
    assert not [name for name, _ in built.module.named_parameters() if ".norm." in name]


OWN = """
import torch

def network():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(12), torch.nn.BatchNorm1d(12),
                               torch.nn.Linear(12, 10))

def loss(outputs, labels):
    return torch.nn.functional.cross_entropy(outputs, labels)

def number(outputs, labels):
    return 1.0

def detached(outputs, labels):
    return torch.nn.functional.cross_entropy(outputs, labels).detach()

def top3(outputs, labels):
    return (outputs.topk(3).indices == labels[:, None]).any(1).float().mean()
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return str(path)


def test_network_loss_and_metric_of_the_users_own(own):
    recipe = recipe_for("group", loss=f"{own}:loss", metric=f"{own}:top3", initialisation="own")
    recipe = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, name=f"{own}:network"))
    result = run_recipe(recipe).result
    assert result.trace.places == ("2",)
    assert result.validation[-1] > 0.3
    same = run_recipe(
        dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, metric="accuracy"))
    )
    assert same.result.validation[-1] <= result.validation[-1]


@pytest.mark.parametrize(("loss", "message"), [("number", "float 1.0"), ("detached", "no gradient")])
def test_a_loss_that_returns_the_wrong_thing(own, loss, message):
    with pytest.raises(UserCodeError, match=message):
        run_recipe(recipe_for(loss=f"{own}:{loss}"))


@pytest.mark.parametrize("network", ["lenet", "vgg", "resnet20", "lstm"])
def test_every_network_learns_the_digits(network):
    options = {"width": 16, "depth": 1, "epochs": 6, "batch_size": 64, "records": 2}
    options |= {"lr": 3e-3, "optimiser": "adamw", "activation": "relu"}
    recipe = make_base(network, "digits", norm="batch", **options)
    assert run_recipe(recipe).result.validation[-1] > 0.5  # chance is 0.1


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_every_activation_and_place_learns(activation, place):
    recipe = recipe_for("batch", activation=activation, place=place, epochs=5, records=0)
    assert run_recipe(recipe).result.validation[-1] > 0.5


def test_mse_and_weight_decay_change_the_run():
    plain = run_recipe(recipe_for()).result.loss
    assert not np.array_equal(plain, run_recipe(recipe_for(loss="mse")).result.loss)
    decayed = run_recipe(recipe_for(weight_decay=0.1)).result.loss
    assert plain[0] == decayed[0]
    assert not np.array_equal(plain, decayed)


RANDOM = """
import random
import numpy as np
import torch

class Random(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(64, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.output = torch.nn.Linear(8, 10)

    def forward(self, x):
        x = self.norm(input=self.body(x.flatten(1)))
        return self.output(x) * (1 + 0.1 * random.random() + 0.1 * np.random.random())

def undefined(outputs, labels):
    return float("nan")
"""


def test_python_and_numpy_are_seeded_and_put_back_and_keywords_are_recorded(tmp_path):
    (tmp_path / "chance.py").write_text(RANDOM)
    recipe = recipe_for("layer", initialisation="own")
    recipe = dataclasses.replace(
        recipe, network=dataclasses.replace(recipe.network, name=f"{tmp_path}/chance.py:Random")
    )
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    first, second = (run_recipe(recipe).result for _ in range(2))
    assert np.array_equal(first.loss, second.loss)
    assert (random.random(), np.random.random()) == expected
    assert np.isfinite(first.trace.input).all()


def test_a_metric_that_is_not_finite_is_refused(tmp_path):
    (tmp_path / "chance.py").write_text(RANDOM)
    with pytest.raises(UserCodeError, match="must return a finite number"):
        run_recipe(recipe_for(metric=f"{tmp_path}/chance.py:undefined"))


def test_a_last_update_that_ruins_the_weights_is_a_divergence():
    result = run_recipe(recipe_for("none", lr=1e38, epochs=1, batch_size=1293, activation="relu")).result
    assert np.isfinite(result.loss).all()
    assert result.diverged
    assert not len(result.validation)


WAITS = """
import time
from torch import nn

class Waits(nn.Sequential):
    def forward(self, x):
        time.sleep(0.02)
        return super().forward(x)

def waits():
    return Waits(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
"""


@pytest.mark.parametrize(("threads", "counts"), [(1, False), (2, True)])
def test_a_step_of_one_thread_is_timed_without_what_else_the_machine_does(tmp_path, threads, counts):
    (tmp_path / "waits.py").write_text(WAITS)
    recipe = make_base(
        f"{tmp_path}/waits.py:waits",
        "digits",
        norm="batch",
        batch_size=128,
        lr=0.5,
        threads=threads,
        max_steps=5,
    )
    assert (run_recipe(recipe).result.milliseconds >= 20) is counts


def test_peak_memory_counts_the_optimisers_state():
    plain, momentum, adamw = (
        run_recipe(recipe_for(width=256, epochs=1, **options)).result.peak_bytes
        for options in ({}, {"momentum": 0.9}, {"optimiser": "adamw"})
    )
    weights = 4 * (64 * 256 + 256 * 256 + 256 * 10)
    assert momentum - plain >= weights
    assert adamw - plain >= 2 * weights


def test_peak_memory_grows_with_the_batch_and_the_normaliser():
    small, large = (run_recipe(recipe_for(batch_size=size, epochs=1)).result for size in (64, 512))
    bare = run_recipe(recipe_for("none", batch_size=512, epochs=1)).result
    assert small.peak_bytes < large.peak_bytes
    assert bare.peak_bytes < large.peak_bytes
    assert bare.peak_bytes > 512 * 64 * 4  # the batch alone


@pytest.mark.parametrize(
    ("device", "module"), [("cpu", "normwright.nn.batch_norm"), ("meta", "torch.nn.modules.batchnorm")]
)
def test_a_network_is_accelerated_on_the_cpu(monkeypatch, device, module):
    # Whatever the lab builds its normalisers of, torch's stand for a network of the user's own.
    kinds = (torch.nn.BatchNorm1d,) * 3
    monkeypatch.setitem(vars(normalisers)["_BY_AXES"], "batch", kinds)
    recipe = recipe_for()
    data = load_once(recipe.data, None)
    names = list(build(recipe, data).module.state_dict())
    elsewhere = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, device=device))
    network = build(elsewhere, data).module
    assert type(network.hidden1.norm).__module__ == module
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_accelerating_changes_a_run_by_roundings_alone(monkeypatch, activation):
    recipe = recipe_for(epochs=1, activation=activation)
    fast = run_recipe(recipe)
    monkeypatch.setattr("normwright.lab.training.accelerate", lambda network, *, inplace: network)
    plain = run_recipe(recipe)
    assert fast.weights.keys() == plain.weights.keys()
    # The first step differs by roundings of float32 (a few 2^-24), which training then spreads.
    assert fast.result.loss[0] == pytest.approx(plain.result.loss[0], rel=1e-6)
    assert fast.result.loss == pytest.approx(plain.result.loss, rel=1e-3)
    for side in ("input", "output"):
        one, other = getattr(fast.result.trace, side)[0], getattr(plain.result.trace, side)[0]
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


def test_data_that_were_loaded_are_those_of_another_recipe_only_if_it_splits_them_alike():
    tenth = load_once(DataRecipe(name="digits"), None)
    known = DataRecipe(name="digits", digest=tenth.digest)
    assert load_once(known, None) is tenth
    half = load_once(dataclasses.replace(known, validation=0.5), None)
    assert len(half.validation_y) > 4 * len(tenth.validation_y)


CHANGES = """
import torch

class Plain(torch.nn.Sequential):
    def __init__(self):
        hidden = torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8)
        super().__init__(torch.nn.Flatten(), *hidden, torch.nn.Linear(8, 10))

    def forward(self, x):
        return super().forward((x - 0.3) / 0.5)

class InPlace(Plain):
    def forward(self, x):
        return super().forward(x.add_(1.0))

class Remembers(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", None)
        self.register_buffer("widths", torch.zeros(1))
        self.register_buffer("expanded", torch.zeros(1).expand(5))

    def forward(self, x):
        self.last, self.widths = x.detach().mean((1, 2, 3)), x.new_ones(len(x))
        return super().forward(x)
"""


@pytest.fixture
def named(tmp_path):
    """A recipe of a network of the file above, by its class."""
    (tmp_path / "changes.py").write_text(CHANGES)

    def recipe(name, **options):
        base = recipe_for("batch", epochs=1, initialisation="own", **options)
        network = dataclasses.replace(base.network, name=f"{tmp_path / 'changes.py'}:{name}")
        return dataclasses.replace(base, network=network)

    return recipe


def test_a_network_that_changes_its_input_in_place_changes_no_sample(named):
    recipe = named("InPlace")
    data = load_once(recipe.data, None)
    before = [getattr(data, f"{split}_x").clone() for split in ("train", "validation", "test")]
    first, second = (train(recipe, data).result for _ in range(2))
    assert np.array_equal(first.validation, second.validation)
    predict(build(recipe, data).module, data.test_x)
    after = (data.train_x, data.validation_x, data.test_x)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@contextmanager
def in_float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, lambda: torch.device("meta"), in_float64]
)
def test_a_run_is_that_of_a_fresh_process_whatever_is_set_in_this_one(named, mode):
    recipe = named("Plain")
    with mode():
        before = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
        run = run_recipe(recipe)
        assert (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()) == before
    assert np.array_equal(run.result.loss, run_recipe(recipe).result.loss)
    assert run.weights["1.weight"].dtype == torch.float32


def test_buffers_that_training_filled_or_reshaped_are_there_when_the_run_is_tested(named, tmp_path):
    recipe = named("Remembers")
    data = load_once(recipe.data, None)
    run = train(recipe, data)
    assert run.weights["last"].shape == run.weights["widths"].shape == data.validation_y.shape
    with Store.open(tmp_path / "out") as store:
        store.add([recipe])
        store.save_checkpoint(recipe.hash, run.weights)
        store.finish(recipe, run.result)
        # The remembered plays no part in the answers: they are those of the network without it.
        plain = named("Plain")
        expected = build(plain, data).module
        expected.load_state_dict({key: run.weights[key] for key in expected.state_dict()})
        assert take_test(store, recipe, data).metric == evaluate(
            expected, data.test_x, data.test_y, "accuracy"
        )
