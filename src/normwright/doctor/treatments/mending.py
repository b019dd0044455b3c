"""Every fix that is mechanical, made one after the other on one copy."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from normwright.doctor.diagnose import examine
from normwright.doctor.diagnosis import Diagnosis, figure
from normwright.doctor.finding import Finding
from normwright.doctor.gathering import OnStage, quiet
from normwright.doctor.rule import Rule, all_rules
from normwright.doctor.subject import Subject
from normwright.errors import NormwrightError
from normwright.network.counting import how_many
from normwright.network.table import Table


@dataclass(frozen=True)
class Mended:
    """One finding, and what came of its fix.

    Args:
        before: the finding.
        after: what the same rule finds in the same layer once all fixes are made; None for nothing.
        because: why the fix was not made, or "".
        same_weights: the fix left the weights' names and shapes as they were.
    """

    before: Finding
    after: Finding | None
    because: str = ""
    same_weights: bool = True

    @property
    def gone(self) -> bool:
        """Whether the defect is."""
        return self.after is None and not self.because


@dataclass(frozen=True, eq=False)
class Mending:
    """What all fixes came to.

    Args:
        network, optimiser: the mended copies.
        mended: one for each finding that has a mechanical fix, in the order in which they were made.
        before: the examination of what came.
        after: the examination of the mended copies.
        other_weights: how the mended network's weights differ from those of the one that came in names and
            shapes, each in a few words.
    """

    network: nn.Module = field(repr=False)
    optimiser: Optimizer | None = field(repr=False)
    mended: tuple[Mended, ...]
    before: Diagnosis
    after: Diagnosis
    other_weights: tuple[str, ...]

    @property
    def same_weights(self) -> bool:
        """The mended network has the weights' names and shapes of the one that came."""
        return not self.other_weights

    @property
    def new(self) -> tuple[Finding, ...]:
        """What is found now and was not before."""
        known = {(finding.rule, finding.layer) for finding in self.before.findings}
        return tuple(finding for finding in self.after.findings if (finding.rule, finding.layer) not in known)

    @property
    def left(self) -> tuple[Finding, ...]:
        """What was found before and still is, whether a fix was made or there is none."""
        new = {(finding.rule, finding.layer) for finding in self.new}
        return tuple(finding for finding in self.after.findings if (finding.rule, finding.layer) not in new)

    @property
    def keeping(self) -> tuple[str, ...]:
        """The rules of which all fixes left the weights' names and shapes as they were, by name."""
        changing = {each.before.rule for each in self.mended if not each.same_weights}
        return tuple(sorted({each.before.rule for each in self.mended} - changing))

    def record(self) -> dict[str, Any]:
        """The mending as plain values, as for JSON."""
        return {
            "mended": [
                {
                    "before": each.before.record(),
                    "after": None if each.after is None else each.after.record(),
                    "because": each.because,
                }
                for each in self.mended
            ],
            "same_weights": self.same_weights,
            "other_weights": list(self.other_weights),
            "after": self.after.record(),
        }

    def table(self) -> Table:
        """For a person: the evidence before and after, finding by finding."""
        gone = sum(each.gone for each in self.mended)
        return Table(
            f"Mended on a copy: {gone} of the {how_many(len(self.mended), 'finding')} that --fix is for."
            if self.mended
            else "Nothing that was found can be mended by --fix: see what to do above.",
            ("rule", "layer", "before", "after", "figure before", "figure after", "threshold"),
            tuple(map(_row, self.mended)),
            tuple(self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        """What the copy still has, or has now."""
        for what, findings in (("still found", self.left), ("found on the copy alone", self.new)):
            if findings:
                counted = collections.Counter(finding.rule for finding in findings)
                named = ", ".join(f"{rule} ({count})" for rule, count in counted.items())
                yield f"{what}: {named}"
        if not self.same_weights:
            yield "The copy has other weights than the network: make the same changes in the code."

    def __str__(self) -> str:
        return str(self.table())


def mend(
    subject: Subject,
    diagnosis: Diagnosis,
    rules: Collection[Rule],
    only: Collection[str] | None = None,
    on_stage: OnStage = quiet,
) -> Mending:
    """Makes every mechanical fix on a copy of a subject.

    Those of its structure and its optimiser come first; then it is examined anew, and those follow that
    depend on the structure, such as the statistics.

    Args:
        subject: is left as it was.
        diagnosis: what `rules` found in it.
        rules: those that are asked again.
        only: names of those whose fixes are made; None for all.
        on_stage: told what is done next.
    """
    twin = subject.twin()
    now, done = diagnosis, dict[tuple[str, str], Mended]()
    while todo := _next(now, only, done):
        for finding in todo:
            treat = all_rules()[finding.rule].treat
            assert treat is not None
            try:
                # on a copy of its own, so that one that fails half-way leaves nothing behind
                network, optimiser = treat(twin.twin(), finding)
            except NormwrightError as error:
                done[finding.rule, finding.layer] = Mended(finding, finding, str(error))
                continue
            same = _shapes(network) == _shapes(twin.network)
            twin = dataclasses.replace(twin, network=network, optimiser=optimiser)
            done[finding.rule, finding.layer] = Mended(finding, None, same_weights=same)
        now = examine(twin, rules, on_stage)
    left = {(finding.rule, finding.layer): finding for finding in now.findings}
    judged = {outcome.rule for outcome in now.outcomes if outcome.outcome != "skipped"}
    # what could not be mended any more may be gone by what was mended before it
    because = {
        place: each.because if place in left or place[0] not in judged else "" for place, each in done.items()
    }
    return Mending(
        twin.network,
        twin.optimiser,
        tuple(
            dataclasses.replace(each, after=left.get(place), because=because[place])
            for place, each in done.items()
        ),
        diagnosis,
        now,
        tuple(_other_weights(_shapes(subject.network), _shapes(twin.network))),
    )


def _next(
    diagnosis: Diagnosis, only: Collection[str] | None, done: Collection[tuple[str, str]]
) -> list[Finding]:
    """What is to be mended before the next look: the static rules' findings, or else the others'."""
    todo = [
        finding
        for finding in diagnosis.findings
        if finding.treatable
        and (only is None or finding.rule in only)
        and (finding.rule, finding.layer) not in done
    ]
    static = [finding for finding in todo if all_rules()[finding.rule].static]
    return static or todo


def _shapes(network: nn.Module) -> dict[str, Any]:
    return {name: getattr(value, "shape", None) for name, value in network.state_dict().items()}


def _other_weights(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    yield from (f"no {name}" for name in before if name not in after)
    for name, shape in after.items():
        if name not in before:
            yield f"{name} {_in_words(shape)}, which is new"
        elif shape != before[name]:
            yield f"{name} {_in_words(shape)}, not {_in_words(before[name])}"


def _in_words(shape: Any) -> str:
    return "without a shape" if shape is None else f"of shape {tuple(shape)}"


def _row(mended: Mended) -> tuple[str, ...]:
    before, after = mended.before, mended.after
    now = f"not made: {mended.because}" if mended.because else after.message if after else "nothing found"
    return (
        before.rule,
        before.layer or "(network)",
        before.message,
        now,
        figure(before.value),
        "" if after is None else figure(after.value),
        figure(before.threshold),
    )
