"""Claims made up for tests: files of a folder that take the place of `lab/claims/`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from normwright.lab import claims
from normwright.lab.book.claim import all_claims
from normwright.lab.book.source import source_of

# Three lines that tests replace, and a note of every call, in the file `calls`.
TINY = '''"""Claim NUMBER, made up."""

from pathlib import Path

from normwright.lab.book.bench import make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.judge import final_metric

HERE = Path(__file__).parent


def experiment(bench, seed):
    sides = [make("mlp", "digits", norm=norm, depth=1, width=8, batch_size=256, epochs=1, evaluations=2)
             for norm in ("batch", "none")]
    batch, none = bench.best_rates(sides, (0.3, 1.0))
    with_norm, without = bench.train(vary(batch, seed=seed), vary(none, seed=seed))
    with (HERE / "calls").open("a") as calls:
        calls.write(f"NUMBER:{seed}\\n")
    # MEASURE
    gain = 100 * (final_metric(with_norm) - final_metric(without))
    steps = tuple(map(float, with_norm.evaluation_steps))
    return Trial({"gain": gain}, (Series("batch norm", steps, tuple(with_norm.validation), "batch"),))


CLAIM = Claim(
    number=NUMBER,
    sentence="Batch norm learns [the] digits sooner.",
    references=("Somebody 2015",),
    predictions=(Prediction("gain", "accuracy rises by at least 1 point", "points", at_least=1.0),),
    recipe="A layer of 8 units.",
    measure="Validation accuracy after one epoch.",
    conditions="Tiny.",
    practice={"supported": "Take it.", "not supported": "Try it.", "refuted": "Leave it."},
    plot=Plot("Accuracy", "step", "accuracy"),
    experiment=experiment,
)
'''


def write_claim(folder: Path, number: int, *, name: str = "", measure: str = "", **replaced: str) -> Path:
    """Writes the file of a claim.

    Args:
        folder: of claims; made where there is none.
        number: of the claim.
        name: of the file, by default `made_up_NUMBER`.
        measure: lines to put before the measurement.
        replaced: other texts, by the text that they replace with _ for a space.
    """
    text = TINY.replace("# MEASURE", measure or "# MEASURE")
    for old, new in replaced.items():
        assert old.replace("_", " ") in text
        text = text.replace(old.replace("_", " "), new)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or f'made_up_{number}'}.py"
    path.write_text(text.replace("NUMBER", str(number)), encoding="utf-8")
    return path


@contextlib.contextmanager
def only_claims_of(folder: Path) -> Iterator[None]:
    """Inside, the claims are those of the folder, read anew; afterwards those that were there, unchanged."""
    before, modules = list(claims.__path__), _modules()
    _forget()
    claims.__path__[:] = [str(folder)]
    try:
        yield
    finally:
        claims.__path__[:] = before
        _forget()
        # The same modules, and not new ones of their names: other tests hold the claims by them.
        sys.modules.update(modules)


def calls(folder: Path) -> list[str]:
    """The measurements so far, as NUMBER:SEED."""
    path = folder / "calls"
    return path.read_text().split() if path.exists() else []


def _modules() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.startswith(f"{claims.__name__}.")}


def _forget() -> None:
    all_claims.cache_clear()
    source_of.cache_clear()
    for name in _modules():
        del sys.modules[name]
    sys.path_importer_cache.clear()
