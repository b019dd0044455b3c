"""`nw.shift_test` on every kind of data, with a network, and on what it must refuse."""

from __future__ import annotations

import datetime
import random
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas
import polars
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import normwright as nw
from normwright.errors import DataError, MissingExtraError, OptionError, UserCodeError
from normwright.lab.data.corruptions import corrupted
from normwright.lab.data.digits import read_digits

sys.path.append(str(Path(__file__).parents[1] / "statistics"))

from whole_state import same_state, state_of  # found by the line above


def columns(rows, *, shift=0.0, seed=0):
    generator = np.random.default_rng(seed)
    age = generator.normal(40 + shift, 10, rows)
    age[:3] = np.nan
    return {
        "age": age,
        "height": generator.normal(size=rows),
        "colour": generator.choice(["red", "green"], rows).tolist(),
        "day": np.datetime64("2020-01-01", "us") + np.arange(rows) * 37 % 50 * np.timedelta64(1, "D"),
        "same": [1] * rows,
        "name": [f"n{place}" for place in range(rows)],
    }


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The same two tables in every form."""
    folder = tmp_path_factory.mktemp("tables")
    frames = [polars.DataFrame(columns(120)), polars.DataFrame(columns(90, shift=15.0, seed=1))]
    for name, frame in zip(("a", "b"), frames, strict=True):
        frame.write_csv(folder / f"{name}.csv")
        frame.write_parquet(folder / f"{name}.parquet")
    pairs = {
        "polars": tuple(frames),
        "lazy": tuple(frame.lazy() for frame in frames),
        "pandas": (pandas.DataFrame(columns(120)), pandas.DataFrame(columns(90, shift=15.0, seed=1))),
        "csv": (folder / "a.csv", folder / "b.csv"),
        "parquet": (str(folder / "a.parquet"), folder / "b.csv"),
    }
    return {kind: nw.shift_test(*pair) for kind, pair in pairs.items()}


def test_every_form_of_a_table_gives_the_same_figures(tables):
    wanted = tables["polars"]
    assert wanted.verdict == "shift"
    assert wanted.features[0].name == "age"
    assert [column.name for column in wanted.left_out] == ["same", "name"]
    for kind, report in tables.items():
        assert (report.mcc, report.auc, report.p_value) == (wanted.mcc, wanted.auc, wanted.p_value), kind


def test_missing_values_are_told_of(tables):
    assert tables["csv"].features[0].reference.endswith("2.5% missing")


X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
Y = X + np.float32([3, 0, 0])


def test_arrays_tensors_data_sets_and_loaders_are_alike(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    labels = torch.arange(80) % 2
    (tmp_path / "own.py").write_text(
        "import numpy as np\nimport torch\n"
        f"def y(): return iter(torch.from_numpy(np.load({str(tmp_path / 'y.npy')!r})).split(16))\n"
    )
    y = torch.from_numpy(Y)
    wanted = nw.shift_test(X, Y)
    assert wanted.features[0].name == "x[0]"
    for current in (
        y,
        tmp_path / "y.npy",
        (y, labels),
        TensorDataset(y, labels),
        DataLoader(TensorDataset(y, labels), 16),
        y.split(16),
        y.split(40),  # two batches are no (x, y)
        f"{tmp_path / 'own.py'}:y",
    ):
        assert nw.shift_test(tmp_path / "x.npy", current).p_value == wanted.p_value, current


def test_mappings_and_tuples_of_inputs():
    batch = {"a": torch.from_numpy(X), "b": torch.arange(80.0), "labels": torch.arange(80) % 2}
    other = batch | {"a": torch.from_numpy(Y)}
    report = nw.shift_test([batch], [other])
    assert report.features[0].name == "a[0]"
    assert (
        nw.shift_test([((X_ := batch["a"], batch["b"]), None)], [((other["a"], batch["b"]), None)]).columns
        == 4
    )
    assert len(X_) == 80


def test_named_data_and_images(tmp_path):
    from PIL import Image

    report = nw.shift_test("digits", "digits")
    assert (report.reference, report.current) == ("digits (reference)", "digits (current)")
    assert report.reference_rows > report.current_rows
    assert report.verdict == "no shift"
    generator = np.random.default_rng(0)
    for folder, light in (("day", 150), ("night", 60)):
        for place in range(24):
            path = tmp_path / folder / "ab"[place % 2]
            path.mkdir(parents=True, exist_ok=True)
            pixels = generator.normal(light, 20, (8, 8)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path / f"{place}.png")
    report = nw.shift_test(f"images:{tmp_path / 'day'}", f"images:{tmp_path / 'night'}", image_size=8)
    assert report.verdict == "shift"
    assert report.features[0].name.startswith("pixel[")


def test_the_labels_are_compared_where_asked():
    x, y = torch.from_numpy(X), torch.arange(80) % 4
    other = torch.from_numpy(np.random.default_rng(1).normal(size=(80, 3)).astype(np.float32))
    assert nw.shift_test((x, y), (other, y % 2)).verdict == "no shift"
    report = nw.shift_test((x, y), (other, y % 2), with_labels=True)
    assert report.features[0].name == "label"
    with pytest.raises(OptionError, match="must have labels to compare"):
        nw.shift_test(x, x, with_labels=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [(3, 7), (True, False), (pandas.Timestamp("2020-01-01"), pandas.Timestamp("2021-01-01")),
     (pandas.Interval(0, 1), pandas.Interval(1, 2)), (0.5, "half")],
)  # fmt: skip
def test_categories_of_pandas_are_values_whatever_they_hold(one, other):
    frames = [
        pandas.DataFrame({"k": pandas.Categorical([one] * often + [other] * (75 - often) + [None] * 5)})
        for often in (60, 15)
    ]
    report = nw.shift_test(*frames)
    assert report.verdict == "shift"
    assert report.features[0].reference.endswith("6.2% missing")


def test_labels_that_are_compared_leave_the_networks_columns_in_order():
    frame = polars.DataFrame({"a": X[:, 0], "b": X[:, 1] + 3, "y": np.arange(80) % 2})
    network = nn.Linear(2, 2)
    there, turned = (
        nw.shift_test(frame, other, network=network, label="y", with_labels=True).network
        for other in (frame, frame.select("b", "y", "a"))
    )
    assert there == turned


def test_large_sets_are_drawn_from():
    x = np.random.default_rng(0).normal(size=(500, 2))
    x[250:] += 5.0  # a draw of the first rows alone would see another distribution
    report = nw.shift_test(x, x.copy(), samples=100)
    assert (report.reference_rows, report.current_rows) == (100, 100)
    assert report.notes[0] == "100 of the 500 rows of reference were drawn at random."


def test_an_endless_stream_is_read_as_far_as_needed():
    def endless():
        generator = torch.Generator().manual_seed(0)
        while True:
            yield torch.randn(30, 2, generator=generator)

    report = nw.shift_test(endless(), endless(), samples=60)
    assert report.reference_rows == 60
    assert "only the first 60 samples of reference were read." in report.notes


def test_the_same_seed_gives_the_same_report_and_leaves_random_states():
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    one, other = nw.shift_test(X, Y, seed=2), nw.shift_test(X, Y, seed=2)
    assert one == other
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_figure(threads):
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads):
        found = nw.shift_test(X, Y)
    assert found == nw.shift_test(X, Y)


# what is wrong -> reference, current, options, error, words
BAD = {
    "empty array": (X[:0], X, {}, DataError, "reference must hold at least one row, but is empty"),
    "empty stream": ([], X, {}, DataError, "reference must hold at least one sample, but gave no batch"),
    "empty frame": (X, polars.DataFrame({"x[0]": []}), {}, DataError, "current must hold at least one row"),
    "few rows": (X[:19], X, {}, DataError, "at least 20 rows to be judged, but has 19"),
    "columns": (
        polars.DataFrame({"a": X[:, 0]}),
        polars.DataFrame({"b": X[:, 0]}),
        {},
        DataError,
        "lacks 'b'",
    ),
    "widths": (X, X[:, :2], {}, DataError, "current lacks 'x[2]'"),
    "kinds": (
        polars.DataFrame({"a": X[:, 0]}),
        polars.DataFrame({"a": ["u"] * 80}),
        {},
        DataError,
        "'a' is a number in reference and text in current",
    ),
    "shapes": (np.zeros((30, 1, 4, 4)), np.zeros((30, 1, 5, 5)), {}, DataError, "(1, 4, 4)"),
    "large shapes": (np.zeros((30, 1, 64, 64)), np.zeros((30, 1, 32, 32)), {}, DataError, "(1, 64, 64)"),
    "constant": (np.ones((30, 2)), np.ones((30, 2)), {}, DataError, "'x[0]': constant; 'x[1]': constant"),
    "objects": (np.array([["a"]] * 30, dtype=object), X, {}, DataError, "must hold numbers"),
    "sparse": (torch.eye(30).to_sparse(), X, {}, DataError, "is torch.sparse_coo: give .to_dense()"),
    "two of a name": (pandas.DataFrame(X, columns=["a", "b", "a"]), X, {}, DataError, "names of their own"),
    "1 and '1'": (pandas.DataFrame(X, columns=[1, "1", "a"]), X, {}, DataError, "names of their own"),
    "of no kind": (
        pandas.DataFrame({"a": [Decimal(1), Decimal(2)] * 40}),
        X,
        {},
        DataError,
        "reference must have a column that can be compared, but each is left out: 'a': values of type Object",
    ),
    "of a kind in one": (
        pandas.DataFrame({"a": ["u", "v"] * 40, "b": X[:, 0]}),
        pandas.DataFrame({"a": ["u", 3] * 40, "b": X[:, 0]}),
        {},
        DataError,
        "only one can be compared of 'a' of current: values of type Object",
    ),
    "two called label": (
        polars.DataFrame({"label": X[:, 0], "y": np.arange(80) % 2}),
        polars.DataFrame({"label": X[:, 0], "y": np.arange(80) % 2}),
        {"label": "y", "with_labels": True},
        DataError,
        "must have no other column called 'label'",
    ),
    "complex": (
        torch.zeros(30, 2, dtype=torch.complex64),
        X,
        {},
        DataError,
        "samples of reference must be real numbers",
    ),
    "scalar": (torch.tensor(1.0), X, {}, DataError, "one row each"),
    "ragged": ([torch.zeros(2, 3), torch.zeros(2, 4)], X, {}, DataError, "must have one shape"),
    "number": (3, X, {}, OptionError, "must be a path, the name of a data set"),
    "batch": ([3], X, {}, OptionError, "a batch of reference must be a tensor"),
    "no file": ("none.csv", X, {}, DataError, "none.csv must be a file, but there is none"),
    "ending": ("table.xlsx", X, {}, DataError, "must end in .csv, .parquet or .npy"),
    "name": ("digit", X, {}, OptionError, "did you mean 'digits'?"),
    "function": ("none.py:f", X, {}, UserCodeError, "none.py"),
    "level": (X, X, {"level": 1.0}, OptionError, "level must be between 0 and 1"),
    "split": (X, X, {"split": "test", "image_size": 8}, OptionError, "split=, image_size= must go with"),
    "samples": (X, X, {"samples": 0}, OptionError, "samples must be at least 1"),
    "label": (polars.DataFrame({"a": X[:, 0]}), X, {"label": "b"}, OptionError, "it has no 'b'"),
    "label's values": (
        polars.DataFrame({"a": X[:, 0]}),
        X,
        {"label": "a"},
        DataError,
        "class numbers from 0 on",
    ),
    "label of dates": (
        polars.DataFrame({"a": X[:, 0], "day": [datetime.date(2020, 1, 1)] * len(X)}),
        X,
        {"label": "day"},
        DataError,
        "class numbers from 0 on",
    ),
    "network": (X, X, {"network": "lenet"}, OptionError, "must be a torch.nn.Module"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_tested_is_named(case):
    reference, current, options, kind, words = BAD[case]
    with pytest.raises(kind) as error:
        nw.shift_test(reference, current, **options)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "is empty"),
        ("head.csv", b"a,b\n", "at least one row"),
        ("ragged.csv", b"a,b\n1,2\n3,4,5\n", "cannot be read as one (found more fields"),
        ("ragged.csv", b"a,b\n1,2\n3,4,5\n", "commas between values and as many in every row"),
        ("image.csv", b"\x89PNG\r\n\x1a\n\x00\x00", "must be a csv table in UTF-8"),
        ("excel.csv", "a,b\n1,2\n".encode("utf-16"), "must be a csv table in UTF-8"),
        ("latin.csv", "größe,b\n1,2\n".encode("latin-1"), "must be a csv table in UTF-8"),
        ("half.parquet", b"PAR1", "cannot be read as one"),
        ("half.npy", b"\x93NUMPY", "must be an .npy file of numbers"),
        ("pickled.npy", None, "must be an .npy file of numbers"),
    ],
)
def test_broken_files(tmp_path, name, content, words):
    if content is None:
        np.save(tmp_path / name, np.array([{}], dtype=object), allow_pickle=True)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        nw.shift_test(tmp_path / name, X)
    assert words in str(error.value)


def test_a_ragged_table_does_not_speak_of_polars_arguments(tmp_path):
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3,4,5\n")
    with pytest.raises(DataError) as error:
        nw.shift_test(tmp_path / "ragged.csv", X)
    assert "truncate" not in str(error.value)


def test_values_beyond_float32_are_compared_without_a_warning():
    table = polars.DataFrame({"a": X[:, 0].astype(np.float64) * 1e300, "b": X[:, 1]})
    assert nw.shift_test(table, table).verdict == "no shift"


def test_without_polars_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingExtraError, match=r"normwright\[tables\]"):
        nw.shift_test(tmp_path / "a.csv", X)


@pytest.fixture(scope="module")
def trained():
    """A network with batch norm and layer norm, trained on digits."""
    raw = read_digits()
    x, y = raw.train_x.float() / raw.top, raw.train_y
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2),
        nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.LayerNorm(288), nn.Linear(288, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        rows = torch.randint(len(x), (128,))
        optimiser.zero_grad()
        F.cross_entropy(network(x[rows]), y[rows]).backward()
        optimiser.step()
    network.eval()
    nw.recalibrate(network, x.split(128))
    return network, (x, y), (raw.test_x.float() / raw.top, raw.test_y)


def test_a_network_says_where_the_shift_begins_and_whether_adapt_helps(trained):
    network, reference, (x, y) = trained
    network.train()
    before = state_of(network)
    try:
        report = nw.shift_test(reference, (corrupted("brightness", x), y), network=network)
        assert same_state(before, state_of(network))
    finally:
        network.eval()
    inside = report.network
    assert [layer.name for layer in inside.layers] == ["1", "4", "7"]
    assert all(layer.moved for layer in inside.layers)
    assert inside.first_moved == "1"
    found = inside.recovery
    assert found.reference > 0.95
    assert found.current < found.reference - 0.2
    assert found.gain_interval[0] > 0.1
    with nw.adapt(network, corrupted("brightness", x).split(64)):
        again = (network(corrupted("brightness", x)).argmax(1) == y).float().mean()
    assert found.adapted == pytest.approx(
        float(again), abs=0.02
    )  # other batches: each is normalised by its own
    assert "run adapt on the current set" in report.advice
    assert "Accuracy:" in str(report)


def test_a_network_on_data_that_did_not_shift(trained):
    network, reference, test = trained
    report = nw.shift_test(reference, test, network=network)
    assert report.network.first_moved is None
    low, high = report.network.recovery.gain_interval
    assert low <= 0 <= high
    assert report.advice.startswith("Next: nothing")


def test_a_network_without_labels_or_scores(trained):
    network, (x, _), (other, _) = trained
    assert "has no labels" in nw.shift_test(x, other, network=network).network.recovery.reason
    images = (x, torch.zeros(len(x), dtype=torch.int64))
    report = nw.shift_test(images, images, network=nn.BatchNorm2d(1))
    assert "no class scores" in report.network.recovery.reason


def test_a_network_without_batch_norm_cannot_adapt():
    network = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2))
    y = torch.arange(80) % 2
    report = nw.shift_test((X, y), (Y, y), network=network)
    assert report.network.recovery.current is not None
    assert report.network.recovery.adapted is None
    assert "adapt was not tried to the end" in report.network.recovery.reason


def test_more_classes_than_outputs():
    with pytest.raises(DataError, match="the network has 2 outputs, but reference has 40 others, such as"):
        nw.shift_test((X, torch.arange(80) % 4), (Y, torch.arange(80) % 2), network=nn.Linear(3, 2))


def test_a_network_that_fails_raises_what_it_raises_and_stays():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.calls = 0

        def forward(self, x):
            if bool((x[:, 0] > 3).any()):
                raise LookupError("no such layer")
            return self.norm(x)

    network = Fails()
    before = state_of(network)
    with pytest.raises(LookupError, match="no such layer"):
        nw.shift_test(X, Y + 3, network=network)
    with pytest.raises(RuntimeError):
        nw.shift_test(X, Y, network=nn.Linear(7, 2))
    assert same_state(before, state_of(network))


def test_a_network_needs_numbers():
    frame = polars.DataFrame({"a": X[:, 0], "b": ["u", "v"] * 40})
    with pytest.raises(OptionError, match="a network must be given numbers"):
        nw.shift_test(frame, frame, network=nn.Linear(1, 2))


def test_the_label_column_of_a_table_is_the_class():
    frame = polars.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": np.arange(80) % 2})
    report = nw.shift_test(frame, frame, network=nn.Linear(2, 2), label="y")
    assert report.columns == 2
    assert report.network.recovery.reference is not None


def test_a_network_is_given_the_columns_in_the_order_of_the_reference():
    network = nn.Linear(2, 2)
    frame = polars.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": np.arange(80) % 2})
    there = nw.shift_test(frame, frame, network=network, label="y")
    turned = nw.shift_test(frame, frame.select("b", "y", "a"), network=network, label="y")
    assert there.network == turned.network


def test_large_images_are_compared_small():
    generator = np.random.default_rng(0)
    images = generator.random((40, 1, 96, 64)).astype(np.float32)
    report = nw.shift_test(images[:20], images[20:] + np.float32(0.5))
    assert report.columns == 32 * 32
    assert "images of reference are compared at 32 × 32 pixels, each the mean of a block." in report.notes
    assert report.verdict == "shift"


def test_a_lone_text_beside_missing_ones_is_seen_whichever_set_is_the_reference():
    frames = [
        pandas.DataFrame({"x": X[:, 0], "t": ["a"] * often + [None] * (80 - often)}) for often in (70, 10)
    ]
    for pair in (frames, frames[::-1]):
        report = nw.shift_test(*pair)
        assert (report.verdict, report.features[0].name) == ("shift", "t")
