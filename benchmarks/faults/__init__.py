"""Faults as people make them, seeded in networks as people train them: does the doctor find them?

patients.py      the healthy: lenet, resnet20, an LSTM, a ResNet of Transformers, on real images
seeded.py        what a fault is
structure.py, optimising.py, activations.py, gradients.py, statistics.py, feeding.py, saved.py, speed.py
                 the faults, a file for each family; `FAULTS` in each
catalogue.py     all of them
examination.py   a patient as it is to be, and what the doctor says of it
examining.py     all of them are examined, and what it says is held against what was seeded
page.py          docs/faults.md
"""
