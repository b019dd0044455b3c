"""Runs claims by their numbers and prints the verdicts: python -m normwright.lab.book 1 4 --quick."""
# ruff: noqa: T201

import argparse

from normwright.lab.book.run import run_claims

parser = argparse.ArgumentParser()
parser.add_argument("numbers", nargs="*", type=int)
parser.add_argument("--quick", action="store_true")
parser.add_argument("--jobs", type=int)
parser.add_argument("--seeds", type=int)
parser.add_argument("--out", default="normwright-claims")
asked = parser.parse_args()
for record in run_claims(
    asked.numbers or None,
    quick=asked.quick,
    jobs=asked.jobs,
    seeds=asked.seeds,
    out=asked.out,
    on_stage=lambda text: print(text, flush=True),
):
    print(record.number, record.name, record.verdict, "leaning", record.leaning, record.cost)
    for outcome in record.outcomes:
        print("   ", outcome.says, outcome.effect, outcome.verdict, outcome.leaning, outcome.values)
    for note in record.notes:
        print("    note:", note)
