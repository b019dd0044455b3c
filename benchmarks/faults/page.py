"""The table of seeded faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.examination import Examination, Said
from benchmarks.faults.examining import Verdict
from benchmarks.faults.patients import BATCH, SAMPLES, STEPS
from benchmarks.faults.seeded import STATES
from benchmarks.machine import describe, in_words
from benchmarks.markdown import bullets, table
from normwright.doctor.rule import all_rules


def page(
    verdicts: Sequence[Verdict],
    healthy: Mapping[tuple[str, str, str], Examination],
    command: str,
) -> str:
    """The page, of every verdict and every healthy examination."""
    return "\n\n".join(
        [
            "# Seeded faults: what the doctor finds",
            f"Made by `{command}`; {in_words(describe())}.",
            "Each fault is a mistake that people make (in a forward, a functional call, an optimiser, a "
            "loader, a checkpoint), seeded in a healthy network on real images: `lenet`, `resnet20` and a "
            "two-layer LSTM of `normwright.lab`, and the ResNet of Transformers, shrunk, with random "
            f"weights; Fashion-MNIST (rows of it for the LSTM) or the digits, {SAMPLES:,} images in "
            f"batches of {BATCH} unless the fault says otherwise. The code of each is in "
            "`benchmarks/faults/`. `nw.diagnose` is given what a user has at hand: network, loader, loss, "
            f"optimiser. *Fresh* is before training, *trained* after {STEPS} steps; a dash stands where "
            "the fault cannot show in that state.",
            _summary(verdicts, healthy),
            "## The faults",
            "*Found* says how grave the rule's finding is, where, and its figure; in brackets, in how many "
            "places more. *Also said* is what other rules say on the fault's account, above a note; why they "
            "are right to is in the fault's code. *False alarms* are findings above a note, in either state, "
            "that the fault does not explain and the healthy network does not have.",
            _faults(verdicts),
            "## The healthy",
            "Findings on the same networks without a fault; there should be none above a note.",
            _healthy(healthy),
        ]
    )


def _summary(verdicts: Sequence[Verdict], healthy: Mapping[tuple[str, str, str], Examination]) -> str:
    asked = {verdict.fault for verdict in verdicts}
    missed = {verdict.fault for verdict in verdicts if not verdict.found}
    alarms = sum(len(verdict.false_alarms) for verdict in verdicts)
    grave = sum(said.grave for it in healthy.values() for said in it.findings)
    covered = {FAULTS[name].rule for name in asked}
    lines = [
        f"**{len(asked) - len(missed)} of {len(asked)} faults were found in every state in which they can "
        f"show**; {len(covered)} of {len(all_rules())} rules have at least one.",
        f"**{alarms} false alarms** on the sick networks; **{grave} findings above a note** in "
        f"{len(healthy)} examinations of healthy ones.",
        *(
            f"Missed: *{it.fault}* ({FAULTS[it.fault].rule}, {it.state}): {it.missed}"
            for it in verdicts
            if not it.found
        ),
        *(f"{' '.join(task)} could not be examined: {it.error}" for task, it in healthy.items() if it.error),
    ]
    return bullets(lines)


def _faults(verdicts: Sequence[Verdict]) -> str:
    by = {(verdict.fault, verdict.state): verdict for verdict in verdicts}
    rows = []
    for name in dict.fromkeys(verdict.fault for verdict in verdicts):
        fault = FAULTS[name]
        mine = {state: by.get((name, state)) for state in STATES}
        given = [verdict for verdict in mine.values() if verdict is not None]
        also = dict.fromkeys(said.rule for verdict in given for said in verdict.explained)
        false = dict.fromkeys(_named(said) for verdict in given for said in verdict.false_alarms)
        rows.append(
            (
                f"**{name}**: {fault.what}",
                fault.network,
                f"`{fault.rule}`",
                *(_found(verdict) for verdict in mine.values()),
                ", ".join(f"`{rule}`" for rule in also),
                ", ".join(false) or "none",
            )
        )
    head = ("fault", "network", "rule", "found, fresh", "found, trained", "also said", "false alarms")
    return table(head, rows)


def _healthy(healthy: Mapping[tuple[str, str, str], Examination]) -> str:
    rows = [
        (
            *task,
            str(sum(not said.grave for said in it.findings)),
            ", ".join(_named(said) for said in it.findings if said.grave) or it.error or "none",
        )
        for task, it in healthy.items()
    ]
    return table(("network", "optimiser", "state", "notes", "above a note"), rows)


def _found(verdict: Verdict | None) -> str:
    if verdict is None:
        return "–"
    if not verdict.found:
        return f"**missed** ({verdict.missed})"
    first, more = verdict.found[0], len(verdict.found) - 1
    figure = "" if first.value is None else f", {first.value:.3g}"
    if figure and first.threshold is not None:
        figure += f" against {first.threshold:.3g}"
    where = f" at `{first.layer}`" if first.layer else ""
    return f"{first.severity}{where}{figure}" + (f" ({more} more)" if more else "")


def _named(said: Said) -> str:
    return f"{said.severity} `{said.rule}`" + (f" at `{said.layer}`" if said.layer else "")
