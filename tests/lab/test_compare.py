"""A whole comparison on the real digits, small enough for a test."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import torch

from normwright.errors import DataError, OptionError, RunError, UserCodeError
from normwright.lab.compare import command_line, compare
from normwright.lab.grid import Grid, make_base
from normwright.lab.recipe import Recipe
from normwright.lab.store import Store

SMALL = {
    "norms": ("none", "batch"),
    "batch_sizes": (256,),
    "lrs": (0.5, 2.0),
    "seeds": 2,
    "epochs": 2,
    "target": 0.3,
    "depth": 1,
    "width": 8,
    "records": 2,
    "jobs": 1,
}
OWN = {name: value for name, value in SMALL.items() if name not in ("depth", "width")}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished comparison, its folder, and what it reported on the way."""
    out = tmp_path_factory.mktemp("compare")
    stages, progress = [], []
    comparison = compare(
        **SMALL, out=out, on_stage=stages.append, on_progress=lambda *told: progress.append(told)
    )
    return comparison, out, stages, progress


def runs_in(out):
    """Hash, test metric and validation of every run of an experiment."""
    with closing(sqlite3.connect(out / "experiment.sqlite")) as connection:
        recipes = [Recipe.from_json(text) for (text,) in connection.execute("SELECT recipe FROM run")]
    with Store.open(out) as store:
        return {
            recipe.hash: (recipe, store.test(recipe.hash), store.result(recipe.hash)) for recipe in recipes
        }


def test_it_compares_what_was_asked_for(done):
    comparison, _, stages, progress = done
    assert [(row.norm, row.batch_size) for row in comparison.rows] == [("none", 256), ("batch", 256)]
    assert comparison.runs == 8
    assert all(row.lr in (0.5, 2.0) and row.test.count == row.seeds == 2 for row in comparison.rows)
    assert comparison.rows[1].test.mean > 0.3  # chance is 0.1
    assert [size for size, _ in comparison.verdicts] == [256]
    (found,) = comparison.leads
    highest = max(comparison.rows, key=lambda row: row.test.mean)
    assert (found.batch_size, found.highest, found.winner, found.doubt) == (256, highest.norm, None, "seeds")
    assert comparison.verdicts[0][1].startswith("Two seeds: ")
    assert progress[-1][:2] == (8, 8)
    assert stages == [
        "reading digits",
        "training 8 runs, 1 at a time",
        "testing each normaliser at its best learning rate",
    ]
    assert {ribbon.layer for ribbon in comparison.ribbons} == {"hidden1.norm"}
    assert {profile.norm for profile in comparison.gradients} == {"none", "batch"}


def test_the_test_set_is_used_for_the_chosen_runs_alone(done):
    comparison, out, _, _ = done
    best = {row.norm: row.lr for row in comparison.rows}
    for recipe, test, _ in runs_in(out).values():
        assert (test is not None) == (recipe.training.lr == best[recipe.training.norm])


def test_the_same_call_trains_nothing_again_and_gives_the_same(done):
    comparison, out, _, _ = done
    before = {name: result.milliseconds for name, (_, _, result) in runs_in(out).items()}
    stages = []
    again = compare(**SMALL, out=out, on_stage=stages.append)
    assert "8 of them done already" in stages[1]
    assert again == comparison
    # A run that was trained again would hardly take the same time to the last digit.
    assert {name: result.milliseconds for name, (_, _, result) in runs_in(out).items()} == before


def test_more_seeds_add_to_what_is_there(done):
    _, out, _, _ = done
    stages = []
    wider = compare(**{**SMALL, "lrs": (0.5,), "seeds": 3}, out=out, on_stage=stages.append)
    assert stages[1].startswith("training 6 runs, 4 of them done already")
    assert wider.rows[0].seeds == 3


def test_a_lost_checkpoint_is_made_again_where_it_is_needed(done, tmp_path):
    recipe_lr = {**SMALL, "norms": ("none",), "lrs": (1.0,), "seeds": 1, "out": tmp_path}
    first = compare(**recipe_lr)
    (run,) = runs_in(tmp_path)
    with Store.open(tmp_path) as store:
        store.checkpoint_path(run).unlink()
    assert compare(**recipe_lr) == first  # the test is known: nothing to do
    with Store.open(tmp_path) as store:
        store.reopen(run)
    assert compare(**recipe_lr).rows[0].test == first.rows[0].test
    with Store.open(tmp_path) as store:
        assert store.checkpoint_path(run).exists()


def test_json_holds_the_table_and_on_request_the_curves(done):
    comparison, _, _, _ = done
    short, long = (json.loads(comparison.to_json(curves=curves)) for curves in (False, True))
    assert short["rows"][1]["norm"] == "batch"
    assert "learning" not in short
    assert len(long["learning"]) == 2


def test_several_processes_give_the_same_numbers(done, tmp_path):
    comparison, _, _, _ = done
    parallel = compare(**{**SMALL, "jobs": 2}, out=tmp_path)
    for ours, theirs in zip(parallel.rows, comparison.rows, strict=True):
        assert (ours.test, ours.validation, ours.steps) == (theirs.test, theirs.validation, theirs.steps)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"network": "lenett"}, OptionError, "did you mean 'lenet'"),
        ({"data": "digit"}, OptionError, "did you mean 'digits'"),
        ({"norms": ("batsh",)}, OptionError, "did you mean 'batch'"),
        ({"norms": ()}, OptionError, "norms must hold at least one value"),
        ({"norms": "batch"}, OptionError, "norms must be a sequence, such as"),
        ({"lrs": 0.1}, OptionError, "lrs must be a sequence, such as"),
        ({"epochs": 1.5}, OptionError, "epochs must be at least 1 and a whole number"),
        ({"target": "high"}, OptionError, "target must be a finite number"),
        ({"device": "meta"}, OptionError, "device must be auto, cpu or cuda"),
        ({"network": torch.nn.Flatten()}, UserCodeError, "must be a function that makes it, but came as a"),
        ({"norms": ("instance",)}, OptionError, "instance norm must be defined"),
        ({"batch_sizes": (100_000,)}, OptionError, "batch size must be at most"),
        ({"batch_sizes": (0,)}, OptionError, "batch_size must be at least 1"),
        ({"lrs": (0.0,)}, OptionError, "lr must be above zero"),
        ({"seeds": -1}, OptionError, "seeds must be at least 1"),
        ({"jobs": 0}, OptionError, "jobs must be at least 1"),
        ({"target": float("nan")}, OptionError, "target must be a finite number"),
        ({"device": "cuda:nonsense"}, OptionError, "device must be"),
        ({"loss": "cross"}, OptionError, "did you mean 'cross_entropy'"),
        ({"metric": "acc"}, OptionError, "unknown metric 'acc'"),
        ({"data": "fashion-mnist", "data_dir": "/nowhere"}, DataError, "/nowhere"),
        ({"lr": 0.1}, OptionError, "a comparison has no lr=: give lrs= instead"),
        ({"batch_size": 32}, OptionError, "give batch_sizes= instead"),
        ({"norm": "batch"}, OptionError, "give norms= instead"),
        ({"seed": 3}, OptionError, "give seeds= instead"),
        ({"depht": 3}, OptionError, "unknown option 'depht': did you mean 'depth'"),
        ({"lrx": 3}, OptionError, "unknown option 'lrx': did you mean 'lrs'"),
        ({"network": "missing.py:net", "depth": 2}, OptionError, "builds its network itself"),
        ({"network": "lenet"}, OptionError, "depth= is for mlp and lstm, but the network is lenet"),
        ({"norms": ("none", "grup"), "groups": 4}, OptionError, "did you mean 'group'"),
        ({"data": "images", "image_size": 8}, OptionError, "unknown data set 'images'"),
        ({"network": lambda: None}, UserCodeError, "top level of a file"),
        ({"norms": ("recurrent-batch",)}, OptionError, "must have an LSTM to act on"),
        ({"norms": ("ghost",), "ghost_size": 48}, OptionError, "no multiple of the ghost_size 48"),
        ({"norms": ("weight",), "affine": False}, OptionError, "affine must be True for weight norm"),
        # 1,293 samples leave a last batch of 5, and the groups are of 8 channels.
        (
            {"norms": ("whitening",), "batch_sizes": (1288,)},
            OptionError,
            "cannot take the smallest batch that batch size 1288 makes, of 5 samples: take another",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(tmp_path, changes, error, message):
    out = tmp_path / "out"
    with pytest.raises(error, match=message):
        compare(**{**SMALL, **changes}, out=out)
    assert not list(out.glob("checkpoints/*"))


def test_a_network_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserCodeError, match="does not exist"):
        compare("missing.py:net", **OWN, out=tmp_path / "out")


BREAKS = """
import torch

class Breaks(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(64)
        self.output = torch.nn.Linear(64, 10)
        self.calls = 0

    def forward(self, x):
        self.calls += x.shape[0] > 2
        if self.calls == 5 and isinstance(self.norm, torch.nn.LayerNorm):
            raise ArithmeticError("the fifth call")
        return self.output(self.norm(x.flatten(1)))
"""


def test_an_exception_in_a_users_network_names_the_run_and_loses_nothing(tmp_path):
    (tmp_path / "breaks.py").write_text(BREAKS)
    options = {**OWN, "norms": ("none", "layer"), "lrs": (0.5,), "seeds": 1, "out": tmp_path / "out"}
    with pytest.raises(RunError, match="the fifth call") as caught:
        compare(f"{tmp_path}/breaks.py:Breaks", **options)
    assert isinstance(caught.value.__cause__, ArithmeticError)
    assert "norm layer" in str(caught.value)
    runs = runs_in(tmp_path / "out").values()
    assert sum(result is not None for _, _, result in runs) == 1
    # A user's own network keeps the weights that its code gave it.
    assert {recipe.network.initialisation for recipe, _, _ in runs} == {"own"}


SCRIPT = """
import sys
import torch
from normwright.lab.compare import compare

def network(sample_shape, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, classes))

options = {{"norms": ("none", "batch"), "lrs": (0.5,), "seeds": 1, "epochs": 1, "records": 0, "jobs": 2}}
{guard}compare(network, **options, out=sys.argv[1])
"""


@pytest.mark.parametrize("guard", ['if __name__ == "__main__": ', ""])
def test_a_script_compares_its_own_function(tmp_path, guard):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard=guard))
    done = subprocess.run([sys.executable, script, tmp_path / "out"], capture_output=True, text=True)
    if guard:
        assert done.returncode == 0, done.stderr
        assert all(result is not None for _, _, result in runs_in(tmp_path / "out").values())
    else:
        assert done.returncode != 0
        assert 'if __name__ == "__main__":' in done.stderr


DATA = """
import torch

def load():
    x = torch.linspace(-1, 1, {count} * 6).view({count}, 6).sin()
    y = torch.arange({count}) % 2
    return x, y, x[:20], y[:20]
"""


def test_data_that_changed_are_other_data_within_one_process(tmp_path):
    path = tmp_path / "own.py"
    steps = []
    for count in (200, 100):
        path.write_text(DATA.format(count=count))
        compare(
            **{**SMALL, "norms": ("none",), "seeds": 1, "batch_sizes": (10,)},
            data=f"{path}:load",
            out=tmp_path,
        )
        steps.append({len(result.loss) for _, _, result in runs_in(tmp_path).values()})
    assert steps == [{36}, {36, 18}]  # 2 epochs of nine tenths of the samples


HELPED = """
import torch
from beside import width

def network():
    body = [torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.BatchNorm1d(width)]
    return torch.nn.Sequential(*body, torch.nn.Linear(width, 10))
"""


def test_a_changed_import_of_a_users_file_is_another_network(tmp_path):
    (tmp_path / "net.py").write_text(HELPED)
    settings = ("--norm=none", "--batch-size=512", "--lr=0.5", "--seeds=1", "--epochs=1", "--jobs=1")
    command = [sys.executable, "-m", "normwright", "compare", f"{tmp_path}/net.py:network", *settings]
    for width in (16, 3):
        (tmp_path / "beside.py").write_text(f"width = {width}\n")
        subprocess.run([*command, "--out", tmp_path / "out"], check=True, capture_output=True)
    assert len(runs_in(tmp_path / "out")) == 2


def test_runs_of_another_version_are_told(done, tmp_path):
    options = {**SMALL, "norms": ("none",), "lrs": (0.5,), "seeds": 1, "out": tmp_path}
    compare(**options)
    with Store.open(tmp_path) as store:
        store.set_meta("software", "PyTorch 1.0")
    stages = []
    compare(**options, on_stage=stages.append)
    assert any("were done with PyTorch 1.0" in stage for stage in stages)


def test_runs_from_before_the_clock_was_noted_are_told_and_give_no_time(done, tmp_path):
    options = {**SMALL, "norms": ("none",), "lrs": (0.5,), "seeds": 1, "out": tmp_path}
    assert compare(**options).rows[0].milliseconds is not None
    with closing(sqlite3.connect(tmp_path / "experiment.sqlite")) as file, file:
        file.execute("UPDATE result SET fields = json_remove(fields, '$.clock')")
    stages = []
    assert compare(**options, on_stage=stages.append).rows[0].milliseconds is None
    assert any("note: 1 of the 1 run at the best learning rates timed by" in stage for stage in stages)


@pytest.mark.parametrize("initialisation", ["own", "xavier"])
def test_the_command_makes_the_same_weights_of_a_users_network(tmp_path, initialisation):
    options = {"norm": "none", "batch_size": 8, "lr": 0.1, "initialisation": initialisation}
    base = make_base("nets.py:wide", "digits", **options)
    command = command_line(Grid(base, ("none",), (8,), (0.1,), 2), 0.5, tmp_path)
    assert ("--initialisation xavier" in command) == (initialisation == "xavier")
    assert "--initialisation own" not in command  # the default of a user's network


def test_the_command_says_everything_that_is_not_a_default(tmp_path):
    base = make_base(
        "lenet", "digits", norm="none", batch_size=8, lr=0.1, dropout=0.5, image_size=16, momentum=0.9
    )
    rates = (0.12345678, 3.0)
    command = command_line(Grid(base, ("none",), (8,), rates, 2), 0.5, tmp_path)
    assert command == (
        "normwright compare lenet --data digits --norm none --batch-size 8 --lr 0.12345678,3 --seeds 2 "
        f"--epochs 10 --target 0.5 --dropout 0.5 --image-size 16 --momentum 0.9 --out {tmp_path}"
    )


def test_the_command_says_where_data_were_looked_for(done):
    comparison, out, *_ = done
    command = compare(**SMALL, out=out, data_dir="sets").command
    assert command == comparison.command.replace(" --out", " --data-dir sets --out")


def test_the_command_says_what_is_switched_off(tmp_path):
    options = {"affine": False, "shuffle": False, "samples": 64, "max_steps": 9, "ghost_size": 4}
    base = make_base("mlp", "digits", norm="ghost", batch_size=8, lr=0.1, **options)
    command = command_line(Grid(base, ("ghost",), (8,), (0.1,), 2), 0.5, tmp_path)
    said = "--ghost-size 4 --no-affine --no-shuffle --samples 64 --max-steps 9"
    assert f"--target 0.5 {said} --out" in command


def answers_in(out):
    """The kept answers of every tested run, of the 359 test samples of digits, and its metric."""
    with Store.open(out) as store:
        tested = {run: metric for run, (_, metric, _) in runs_in(out).items() if metric is not None}
        return {run: (store.answers(run, 359), metric) for run, metric in tested.items()}


def forget_answers(out):
    with closing(sqlite3.connect(out / "experiment.sqlite")) as connection, connection:
        connection.execute("DELETE FROM array WHERE name = 'test.answers'")


THREE = {**SMALL, "lrs": (2.0,), "seeds": 3, "records": 0}


def test_answers_are_kept_and_their_mean_is_the_metric(tmp_path):
    comparison = compare(**THREE, out=tmp_path)
    kept = answers_in(tmp_path)
    assert len(kept) == 6
    assert all(right.mean() == metric for right, metric in kept.values())
    assert comparison.leads[0].by_totals == ()


def test_an_experiment_without_answers_gives_them_again_where_its_weights_are_left(tmp_path):
    first = compare(**THREE, out=tmp_path)
    before = answers_in(tmp_path)
    forget_answers(tmp_path)
    assert all(right is None for right, _ in answers_in(tmp_path).values())
    assert compare(**THREE, out=tmp_path) == first
    after = answers_in(tmp_path)
    assert all((after[run][0] == right).all() for run, (right, _) in before.items())
    # Answers that do not give the metric which is kept are not those of its test.
    forget_answers(tmp_path)
    with closing(sqlite3.connect(tmp_path / "experiment.sqlite")) as connection, connection:
        connection.execute("UPDATE test SET metric = metric - 1.0 / 359")
    assert compare(**THREE, out=tmp_path).leads[0].by_totals == ("none",)


def test_an_experiment_whose_weights_and_answers_are_gone_is_judged_by_accuracies_and_says_so(tmp_path):
    first = compare(**THREE, out=tmp_path)
    forget_answers(tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    old = compare(**THREE, out=tmp_path)
    assert [row.test for row in old.rows] == [row.test for row in first.rows]
    assert old.leads[0].by_totals == ("none",)
    # One more seed is trained, and has answers; the others have not.
    mixed = compare(**{**THREE, "seeds": 4}, out=tmp_path)
    assert mixed.leads[0].by_totals == ("none",)
    assert sum(right is not None for right, _ in answers_in(tmp_path).values()) == 2


METRIC = "def share(outputs, labels):\n    return (outputs.argmax(1) == labels).float().mean()\n"


def test_of_a_users_metric_no_answers_are_kept(tmp_path):
    (tmp_path / "own.py").write_text(METRIC)
    out = tmp_path / "out"
    comparison = compare(**THREE, metric=f"{tmp_path}/own.py:share", out=out)
    assert all(right is None for right, _ in answers_in(out).values())
    assert comparison.leads[0].by_totals == ()


ODD_DATA = """
import torch
from torch import nn

def net(): return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 1), nn.BatchNorm1d(1))
def tokens(): return torch.ones(8, 2).long(), torch.arange(8) % 2, torch.ones(2, 2), torch.arange(2)
def one_class(): return torch.ones(8, 2), torch.zeros(8).long(), torch.ones(2, 2), torch.zeros(2).long()
"""


def _odd(tmp_path, data, **changes):
    file = tmp_path / "odd.py"
    file.write_text(ODD_DATA)
    asked = {"norms": ("batch",), "batch_sizes": (4,), "lrs": (0.1,), "seeds": 1, "epochs": 1, "jobs": 1}
    compare(f"{file}:net", f"{file}:{data}", out=tmp_path / "out", **asked | changes)


def test_data_of_one_class_are_refused_where_every_answer_would_be_right(tmp_path):
    with pytest.raises(DataError, match="two classes or more to take an accuracy of, but all of its"):
        _odd(tmp_path, "one_class")


def test_an_embedding_that_is_given_float_samples_is_told_what_to_do(tmp_path):
    with pytest.raises(RunError, match=r"Samples are float32, whatever .* call \.long\(\) on them") as raised:
        _odd(tmp_path, "tokens")
    assert "'0', a Embedding of the network" in str(raised.value)
