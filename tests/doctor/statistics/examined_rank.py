"""One process of a group that is examined; run as a program by test_ranks.py."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[2]))
from processes import process_group

from normwright.doctor.diagnose import examine
from normwright.doctor.rule import all_rules
from normwright.doctor.rules import ranks_disagree

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


def main(rank: int, folder: Path) -> None:
    """Every case in turn."""
    saved = {}
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
        torch.save(saved, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
