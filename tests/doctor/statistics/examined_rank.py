"""One process of a group that is examined; run as a program by test_ranks.py."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

sys.path.append(str(Path(__file__).parents[2]))
from processes import process_group

import normwright as nw
from normwright.doctor.diagnose import examine
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import all_rules
from normwright.doctor.rules import ranks_disagree
from normwright.doctor.subject import Subject
from normwright.doctor.training.covariate_shift import covariate_shift_of
from normwright.doctor.training.trial import train
from normwright.errors import NormwrightError

RULE = all_rules()["ranks_disagree"]


def of_their_own(rank: int):
    """Running statistics of each rank's own data, 3 deviations apart."""
    subject = ranks_disagree.healthy()
    norm = subject.network[1]
    norm.running_mean += 3.0 * rank
    norm.num_batches_tracked += 100
    return subject


def within_noise(rank: int):
    """Running statistics that differ by less than their mini-batches explain."""
    subject = ranks_disagree.healthy()
    subject.network[1].running_mean += 0.01 * rank
    return subject


def other_settings(rank: int):
    """One rank has another eps, and one another optimiser's learning rate."""
    subject = ranks_disagree.healthy()
    subject.network[1].eps = 1e-3 if rank else 1e-5
    return subject


CASES = {
    "healthy": lambda rank: ranks_disagree.healthy(),
    "sick": lambda rank: ranks_disagree.sick(),
    "of their own": of_their_own,
    "within noise": within_noise,
    "other settings": other_settings,
}


def synchronised(*targets: float) -> Subject:
    """A network whose ranks wait for each other in its forward, and a batch for each target."""
    network = nn.Sequential(nn.Linear(4, 4), nw.nn.SyncBatchNorm(4), nn.Linear(4, 2))
    batches = tuple((torch.randn(4, 4), torch.full((4, 2), target)) for target in targets)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    group = distributed.group.WORLD
    return Subject(network, batches, nn.functional.mse_loss, optimiser, process_group=group)


def one_loss_is_not_finite(rank: int) -> dict[str, Any]:
    """How far each rank comes where one of them has a loss that is NaN."""
    bad = math.nan if rank else 0.0
    try:
        covariate_shift_of(synchronised(bad), ["0", "1", "2"])
        skipped = ""
    except SkipError as skip:
        skipped = str(skip)
    return {"losses": len(train(synchronised(0.0, bad, 0.0).twin(), []).losses), "skipped": skipped}


def unknown_rule(rank: int) -> str:
    """What a rank is told where one asks for a rule that there is not."""
    subject = ranks_disagree.healthy()
    rules = ["nonesuch"] if rank else None
    try:
        nw.diagnose(subject.network, subject.batches, rules=rules, process_group=distributed.group.WORLD)
    except NormwrightError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main(rank: int, folder: Path) -> None:
    """Every case in turn."""
    saved: dict[str, Any] = {}
    with process_group(rank, folder):
        for name, case in CASES.items():
            torch.manual_seed(rank)
            stages: list[str] = []
            found = examine(case(rank), [RULE], stages.append)
            saved[name] = {
                "stages": stages,
                "outcome": found.outcomes[0].outcome,
                "findings": [finding.record() for finding in found.findings],
                "facts": asdict(found.evidence.ranks),
            }
        saved["one loss is not finite"] = one_loss_is_not_finite(rank)
        saved["unknown rule"] = unknown_rule(rank)
        torch.save(saved, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
