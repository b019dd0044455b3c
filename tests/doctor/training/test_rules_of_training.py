"""The rules about gradients, activations and inputs, on real networks and at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normwright.doctor.diagnose import examine
from normwright.doctor.rule import all_rules
from normwright.doctor.subject import Subject
from normwright.lab.data import load
from normwright.lab.networks import build_network
from normwright.lab.recipe import DataRecipe, NetworkRecipe
from normwright.nn import weight_norm

NAMES = (
    "collapsed_scale", "dead_channels", "dead_units", "exploding_gradient", "gradient_imbalance",
    "internal_covariate_shift", "nonfinite_values", "saturated_activation", "unnormalised_input",
    "vanishing_gradient",
)  # fmt: skip
RULES = [all_rules()[name] for name in NAMES]
CROSS_ENTROPY = nn.functional.cross_entropy


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def digits():
    return load(DataRecipe(name="digits"))


def batches_of(digits, count, *, first=0, samples=32):
    some = slice(first * samples, (first + count) * samples)
    return tuple(zip(digits.train_x[some].split(samples), digits.train_y[some].split(samples), strict=True))


def in_lab(name, norm="batch", activation="relu", **options):
    recipe = NetworkRecipe(name=name, activation=activation, **options)
    return lambda: build_network(recipe, norm, (1, 8, 8), 10).module


class OfTransformers(nn.Module):
    """A small ResNet of Transformers, on grey images."""

    def __init__(self):
        super().__init__()
        transformers = pytest.importorskip("transformers")
        config = transformers.ResNetConfig(
            num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic",
            num_labels=10,
        )  # fmt: skip
        self.network = transformers.ResNetForImageClassification(config)

    def forward(self, x):
        return self.network(x).logits


HEALTHY = {
    "lenet": in_lab("lenet"),
    "lenet of sigmoids": in_lab("lenet", activation="sigmoid"),
    "resnet20": in_lab("resnet20"),
    "lstm": in_lab("lstm", depth=2),
    "lstm with layer norm": in_lab("lstm", "layer", depth=2),
    "transformers": OfTransformers,
}
OPTIMISERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "Adam": torch.optim.Adam,
}


def found_in(network, batches, optimiser=None, *, loss=CROSS_ENTROPY):
    diagnosis = examine(Subject(network, tuple(batches), loss, optimiser), RULES)
    return {finding.rule: finding for finding in diagnosis.findings}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_networks_have_no_more_than_notes(name, optimiser, digits):
    """Fresh, and after thirty steps of training."""
    network = HEALTHY[name]()
    steps = OPTIMISERS[optimiser](network.parameters())
    for trained in (0, 30):
        for x, y in batches_of(digits, trained):
            steps.zero_grad()
            CROSS_ENTROPY(network(x), y).backward()
            steps.step()
        found = found_in(network, batches_of(digits, 4, first=36), steps)
        assert {finding.severity for finding in found.values()} <= {"note"}, found


SICK = {
    "vanishing_gradient": in_lab("mlp", "none", "sigmoid", depth=10),
    "exploding_gradient": in_lab("mlp", "none", "relu", depth=10, initialisation="normal", init_std=1.0),
    "gradient_imbalance": in_lab("lenet", "none", "sigmoid"),
    "saturated_activation": in_lab("lenet", "none", "tanh", initialisation="normal", init_std=1.0),
    "internal_covariate_shift": in_lab("mlp", "none", "sigmoid", depth=10),
}


@pytest.mark.parametrize("rule", SICK)
def test_sick_networks_are_found_out(rule, digits):
    network = SICK[rule]()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    assert found_in(network, batches_of(digits, 4), optimiser)[rule].severity == "warning"


def test_a_network_whose_weights_get_no_gradient():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(network[0].bias, -100.0)
    nn.init.zeros_(network[2].weight)
    found = found_in(network, [(torch.randn(64, 4), torch.randint(2, (64,)))])
    assert found["vanishing_gradient"].value == 0
    assert found["dead_units"].value == 1


class Logarithm(nn.Module):
    """NaN of negative numbers."""

    def forward(self, x):
        return x.log()


def test_the_first_layer_with_nan_is_named_and_its_step():
    network = nn.Sequential(nn.Linear(4, 4, bias=False), Logarithm(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    nn.init.ones_(network[0].weight)
    x, y = torch.rand(16, 4) + 1, torch.randint(2, (16,))
    finding = found_in(network, [(x, y), (-x, y), (x, y)])["nonfinite_values"]
    assert (finding.layer, finding.value, finding.severity) == ("1", 64, "error")
    assert "mini-batch 2" in finding.message


def test_infinity_that_the_loss_does_not_see_is_a_note():
    class Masked(nn.Module):
        def forward(self, x):
            return x.masked_fill(torch.eye(4, dtype=torch.bool), -math.inf)

    network = nn.Sequential(nn.Linear(4, 4), Masked(), nn.Softmax(-1))
    finding = found_in(network, [(torch.randn(4, 4), torch.randint(4, (4,)))])["nonfinite_values"]
    assert (finding.layer, finding.severity) == ("1", "note")


def test_infinity_in_a_mask_that_comes_as_an_input_is_a_note():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x, mask):
            h = self.linear(x)
            return ((h @ h.T + mask).softmax(-1) @ h).relu()

    mask = torch.zeros(8, 8).index_fill(1, torch.arange(4, 8), -math.inf)
    batch = torch.randn(8, 4), torch.randint(4, (8,))
    subject = Subject(
        Attention(), (batch,), CROSS_ENTROPY, forward_fn=lambda network, batch: network(batch[0], mask)
    )
    [finding] = examine(subject, [all_rules()["nonfinite_values"]]).findings
    assert (finding.layer, finding.value, finding.severity) == ("", 32, "note")
    assert finding.message.endswith("though the loss is finite")


def test_a_layer_is_not_blamed_for_what_came_in():
    x = torch.randn(16, 4)
    x[3, 1] = math.nan
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    subject = Subject(network, ((x, torch.randint(2, (16,))),), CROSS_ENTROPY)
    at_input, at_layer = examine(subject, [all_rules()["nonfinite_values"]]).findings
    assert (at_input.value, at_input.severity, at_layer.layer) == (1, "error", "0")
    assert at_layer.message.endswith("here first; mend the input before this layer")


def test_a_mask_is_not_taken_for_the_cause():
    class Masked(nn.Module):
        def forward(self, x):
            return x.masked_fill(torch.eye(4, dtype=torch.bool), -math.inf)

    # the logarithm comes after the mask, and is right until the second batch
    network = nn.Sequential(Masked(), nn.Softmax(-1), nn.Linear(4, 4), Logarithm())
    nn.init.constant_(network[2].weight, 1.0)
    nn.init.constant_(network[2].bias, 1.0)
    x, y = torch.rand(4, 4), torch.randint(4, (4,))
    good, bad = (x, y), (torch.full((4, 4), math.inf), y)  # softmax of infinities is NaN
    (at_input, finding) = examine(
        Subject(network, (good, bad), CROSS_ENTROPY), [all_rules()["nonfinite_values"]]
    ).findings
    assert "input 0" in at_input.message
    assert (finding.layer, finding.severity) == ("1", "error")
    assert "mini-batch 2" in finding.message


def test_a_gradient_alone_that_is_not_finite():
    class Root(nn.Module):
        def forward(self, x):
            return (x * 0).sqrt()  # whose derivative at 0 is infinite

    network = nn.Sequential(nn.Linear(4, 4), Root(), nn.Linear(4, 2))
    finding = found_in(network, [(torch.randn(8, 4), torch.randint(2, (8,)))])["nonfinite_values"]
    assert (finding.layer, finding.severity) == ("0", "error")
    assert "the loss is finite" in finding.message


def test_a_loss_alone_that_is_not_finite():
    network = nn.Linear(4, 2)
    batches = [(torch.randn(8, 4), torch.randint(2, (8,)))]
    finding = found_in(network, batches, loss=lambda y, t: y.sum() * math.inf)["nonfinite_values"]
    assert (finding.layer, finding.severity) == ("", "error")


def test_a_network_that_is_meant_to_be_sure_may_saturate_at_its_end():
    network = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid(), nn.Flatten(0))
    nn.init.constant_(network[0].weight, 50.0)
    batch = torch.randn(32, 4), torch.rand(32)
    loss = nn.functional.binary_cross_entropy
    assert "saturated_activation" not in found_in(network, [batch], loss=loss)
    network.insert(2, nn.Linear(1, 1))
    network.insert(3, nn.Sigmoid())
    assert found_in(network, [batch], loss=loss)["saturated_activation"].layer == "1"


@pytest.mark.parametrize(
    ("x", "severity"),
    [
        (torch.rand(64, 1, 6, 6), None),
        (torch.rand(64, 1, 6, 6) * 255, "warning"),
        (torch.randn(64, 1, 6, 6) / 100, "warning"),
        (torch.randn(64, 1, 6, 6) + 5, "warning"),
        (torch.ones(64, 1, 6, 6), None),
    ],
)
def test_inputs(x, severity):
    y = torch.randint(2, (64,))
    for norm, expected in ((None, severity), (nn.BatchNorm2d(4), severity and "note")):
        layers = [nn.Conv2d(1, 4, 3), *([norm] if norm else []), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)]
        finding = found_in(nn.Sequential(*layers), [(x, y)]).get("unnormalised_input")
        assert (finding and finding.severity) == expected
    first = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    assert "unnormalised_input" not in found_in(first, [(x, y)])


@pytest.mark.parametrize(("dead", "severity"), [(0, None), (1, "note"), (4, "warning"), (8, "warning")])
def test_how_many_channels_are_dead_decides(dead, severity):
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    nn.init.constant_(network[0].bias[:dead].detach(), -100.0)
    finding = found_in(network, [(torch.randn(8, 1, 6, 6), torch.randint(2, (8,)))]).get("dead_channels")
    assert (finding and finding.severity) == severity


def test_few_samples_say_nothing_of_dead_units():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    subject = Subject(network, ((torch.randn(8, 4), torch.randint(2, (8,))),), CROSS_ENTROPY)
    (outcome,) = examine(subject, [all_rules()["dead_units"]]).outcomes
    assert (outcome.outcome, outcome.because) == (
        "skipped", "it takes 60 elements of each of the units, but at most 8 came",
    )  # fmt: skip


def test_a_residual_branch_may_start_at_0():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
            nn.init.zeros_(self.norm.weight)

        def forward(self, x):
            return x + self.norm(self.linear(x))

    network = nn.Sequential(Residual(), nn.Linear(4, 2))
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    batches = [(torch.randn(32, 4), torch.randint(2, (32,))) for _ in range(4)]
    finding = found_in(network, batches, optimiser)["collapsed_scale"]
    assert (finding.severity, finding.layer) == ("note", "0.norm")
    nn.init.constant_(network[0].norm.weight, 1e-5)
    assert found_in(network, batches, optimiser)["collapsed_scale"].severity == "warning"


@pytest.mark.parametrize("samples", [2, 32])
def test_a_batch_of_two_is_not_mended_by_another_normaliser(samples):
    layers = [
        part
        for width in (16, 32, 32)
        for part in (nn.Linear(width, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU())
    ]
    # a gradient that small batches do not explain is there too
    layers += [part for _ in range(6) for part in (nn.Linear(32, 32), nn.Sigmoid())] if samples > 2 else []
    batches = tuple((torch.randn(samples, 16), torch.randint(4, (samples,))) for _ in range(8))
    subject = Subject(nn.Sequential(*layers, nn.Linear(32, 4)), batches, CROSS_ENTROPY)
    advice = {finding.rule: finding.advice for finding in examine(subject, RULES).findings}
    first = "Mend the size of the batch first (see batch_too_small)"
    assert advice["gradient_imbalance"].startswith(first) == (samples == 2)
    assert ("normaliser after each" in advice["gradient_imbalance"]) == (samples != 2)


@pytest.mark.parametrize(
    "normed", [weight_norm, nn.utils.parametrizations.weight_norm], ids=["ours", "torch"]
)
def test_a_length_that_a_normaliser_takes_away_is_no_starved_layer(normed):
    layers = [
        part
        for width in (16, 32)
        for part in (normed(nn.Linear(width, 32, bias=False)), nn.BatchNorm1d(32), nn.ReLU())
    ]
    batches = tuple((torch.randn(32, 16), torch.randint(4, (32,))) for _ in range(8))
    subject = Subject(nn.Sequential(*layers, nn.Linear(32, 4)), batches, CROSS_ENTROPY)
    found = {finding.rule for finding in examine(subject, RULES).findings}
    assert not found & {"vanishing_gradient", "gradient_imbalance", "exploding_gradient"}


class Attention(nn.Module):
    """Of one head, after a norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        y = self.norm(x)
        return self.out(F.scaled_dot_product_attention(self.query(y), self.key(y), self.value(y)))


def test_queries_and_keys_that_weigh_one_place_explode_nothing():
    below = (nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.ReLU()) for _ in range(8))
    network = nn.Sequential(*below, nn.Unflatten(1, (1, 16)), Attention(), nn.Flatten())
    batches = tuple((torch.randn(32, 16), torch.randint(4, (32,))) for _ in range(2))
    found = {finding.rule for finding in examine(Subject(network, batches, CROSS_ENTROPY), RULES).findings}
    assert not found & {"gradient_imbalance", "exploding_gradient"}


class Reader(nn.Module):
    """Attention above an embedding, its weights as small as a recipe for wide layers has them."""

    def __init__(self, *above):
        super().__init__()
        self.embedding, self.attention = nn.Embedding(8, 16), Attention()
        self.above = nn.Sequential(*above, nn.Linear(16, 8))
        for name in ("query", "key", "value", "out"):
            nn.init.normal_(self.attention.get_submodule(name).weight, std=0.005)

    def forward(self, x):
        y = self.embedding(x)
        return self.above(y + self.attention(y)).mean(1)


def vanishing_in(network, x, classes, steps=1, **optimiser):
    batches = tuple((x, torch.randint(classes, (len(x),))) for _ in range(steps))
    sgd = torch.optim.SGD(network.parameters(), **optimiser) if optimiser else None
    subject = Subject(network, batches, CROSS_ENTROPY, sgd)
    return [
        finding.layer for finding in examine(subject, RULES).findings if finding.rule == "vanishing_gradient"
    ]


def test_fresh_queries_and_keys_above_an_embedding_that_learns_are_no_vanishing_gradient():
    tokens = torch.randint(8, (32, 6))
    assert vanishing_in(Reader(), tokens, 8) == []
    sigmoids = [layer for _ in range(8) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
    assert vanishing_in(Reader(*sigmoids), tokens, 8) != []
    tied = Reader(*sigmoids)
    tied.above[-1].weight = tied.embedding.weight  # gets its gradient at the loss
    assert vanishing_in(tied, tokens, 8) != []


class Timed(nn.Module):
    """A branch that is called first and opens late, into what `closed` makes 0."""

    def __init__(self, closed):
        super().__init__()
        self.time, self.closed = nn.Sequential(nn.Linear(4, 16), nn.ReLU()), closed
        self.stem, self.head = nn.Linear(4, 16), nn.Linear(16, 2)

    def forward(self, x):
        time = self.closed(self.time(x))
        return self.head(torch.relu(self.stem(x)) + time)


@pytest.mark.parametrize("inner", [0.1, 0.0])
@pytest.mark.parametrize("steps", [{}, {"lr": 0.0}, {"steps": 2, "lr": 0.1}, {"steps": 4, "lr": 0.1}])
def test_a_branch_that_starts_at_zero_is_no_vanishing_gradient(steps, inner):
    closed = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    nn.init.constant_(closed[0].weight, inner)
    nn.init.zeros_(closed[1].weight)
    assert vanishing_in(Timed(closed), torch.randn(64, 4), 2, **steps) == []


def test_a_branch_that_stays_shut_is_a_vanishing_gradient():
    network = Timed(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)))
    nn.init.constant_(network.closed[0].bias, -100.0)
    nn.init.zeros_(network.closed[2].weight)
    assert vanishing_in(network, torch.randn(64, 4), 2, 4, lr=1e-3) == ["time.0"]


def test_an_output_layer_that_starts_at_zero_is_no_vanishing_gradient():
    network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    nn.init.zeros_(network[2].weight)
    assert vanishing_in(network, torch.randn(64, 4), 2) == []


@pytest.mark.parametrize(
    ("kind", "severity"), [(torch.optim.SGD, "warning"), (torch.optim.Adam, "note"), (None, "warning")]
)
def test_an_imbalance_that_the_optimiser_makes_up_for_is_a_note(kind, severity, digits):
    network = SICK["gradient_imbalance"]()
    optimiser = kind and kind(network.parameters(), lr=1e-3)
    finding = found_in(network, batches_of(digits, 4), optimiser)["gradient_imbalance"]
    assert (finding.severity, "Adam's steps differ by" in finding.message) == (severity, severity == "note")


def test_a_constant_feature_of_float64_has_no_deviation():
    """31 times 0.1 is not 3.1 to the bit, and the mean not 0.1."""
    x = torch.randn(31, 6, dtype=torch.float64)
    x[:, 4:] = 0.1
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    batches = [(x, torch.randint(2, (31,)))] * 3
    assert "unnormalised_input" not in found_in(network, batches)
    x[:, 4:] += 1e-4 * torch.randn(31, 2)
    assert "deviations of its features" in found_in(network, batches)["unnormalised_input"].message


@pytest.mark.parametrize("optimised", [False, True])
def test_a_scale_that_starts_at_0_is_left_there(optimised):
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    nn.init.zeros_(network[1].weight)
    batch = torch.randn(16, 4), torch.randint(2, (16,))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1) if optimised else None
    subject = Subject(network, (batch,), CROSS_ENTROPY, optimiser)
    [finding] = examine(subject, [all_rules()["collapsed_scale"]]).findings
    assert finding.severity == "note"
    assert not finding.treatable


def sigmoids(depth):
    layers = [layer for _ in range(depth) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(16, 2))


@pytest.mark.parametrize(("kind", "severity"), [(torch.optim.SGD, "warning"), (torch.optim.Adam, "note")])
def test_what_adam_makes_up_for_is_a_note(kind, severity):
    network = sigmoids(6)
    batches = tuple((torch.randn(32, 16), torch.randint(2, (32,))) for _ in range(8))
    subject = Subject(network, batches, CROSS_ENTROPY, kind(network.parameters(), lr=1e-3))
    found = examine(subject, [all_rules()[name] for name in ("vanishing_gradient", "gradient_imbalance")])
    assert {finding.rule: finding.severity for finding in found.findings} == {
        "vanishing_gradient": severity,
        "gradient_imbalance": severity,
    }


@pytest.mark.parametrize(
    ("optimise", "severity"),
    [(lambda p: None, "warning"), (lambda p: torch.optim.Adam(p, lr=1e-3), "note")],
)
def test_a_large_gradient_is_a_note_where_the_steps_are_small(optimise, severity):
    network = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 2))
    with torch.no_grad():
        network[
            0
        ].weight *= 0.01  # of what is normalised no size is left, but the gradient grows as it shrinks
        network[0].bias *= 0.0
    batches = ((100 * torch.randn(32, 16), torch.randint(2, (32,))),) * 8
    loss = lambda scores, y: 100 * CROSS_ENTROPY(scores, y)  # noqa: E731
    subject = Subject(network, batches, loss, optimise(network.parameters()))
    [finding] = examine(subject, [all_rules()["exploding_gradient"]]).findings
    assert finding.severity == severity
    assert ("Adam's steps are at most" in finding.message) is (severity == "note")


@pytest.mark.parametrize(
    ("x", "found"),
    [
        (lambda: F.one_hot(torch.arange(256) % 200, 200).float(), []),
        (lambda: 255.0 * F.one_hot(torch.arange(256) % 200, 200), ["unnormalised_input"]),
        (lambda: 0.02 * torch.randn(256, 200), ["unnormalised_input"]),
    ],
)
def test_the_scale_of_what_is_mostly_0_is_that_of_the_rest(x, found):
    network = nn.Sequential(nn.Linear(200, 8), nn.ReLU(), nn.Linear(8, 2))
    subject = Subject(network, ((x(), torch.randint(2, (256,))),), CROSS_ENTROPY)
    findings = examine(subject, [all_rules()["unnormalised_input"]]).findings
    assert [finding.rule for finding in findings] == found
