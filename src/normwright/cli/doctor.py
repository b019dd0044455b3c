"""`normwright doctor`: what is wrong with a network's normalisation, with evidence and a fix."""

from __future__ import annotations

import functools
import json

import typer

from normwright.cli import doctor_options as options
from normwright.cli.acting_options import (
    AsJson,
    BatchSize,
    Data,
    DataDir,
    Device,
    ImageSize,
    Key,
    Mean,
    Split,
    Std,
    open_named,
)
from normwright.cli.doctor_outputs import Outputs
from normwright.cli.examination import Asked, Training, run
from normwright.cli.wording import options_of

SEED = 0  # of the order of samples, and of weights without a checkpoint: a second look finds the same


def doctor(
    context: typer.Context,
    network: options.Network = None,
    data: Data = None,
    checkpoint: options.Checkpoint = None,
    key: Key = None,
    norm: options.Norm = None,
    steps: options.Steps = 8,
    rules: options.Rules = None,
    device: Device = "auto",
    split: Split = None,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    mean: Mean = None,
    std: Std = None,
    data_dir: DataDir = None,
    loss: options.Loss = None,
    optimiser: options.Optimiser = None,
    lr: options.Lr = None,
    momentum: options.Momentum = None,
    weight_decay: options.WeightDecay = None,
    accumulation: options.Accumulation = 1,
    averaged: options.Averaged = False,
    padding: options.Padding = None,
    forward: options.Forward = None,
    fix: options.Fix = False,
    fix_only: options.FixOnly = None,
    out_checkpoint: options.OutCheckpoint = None,
    force: options.Force = False,
    out: options.Out = None,
    sarif: options.Sarif = None,
    as_json: AsJson = False,
    fail_on: options.FailOn = None,
    every_layer: options.EveryLayer = False,
    list_rules: options.ListRules = False,
    markdown: options.Markdown = False,
) -> None:
    """Find what is wrong with a network's normalisation, with evidence and a fix.

    A copy is trained for a few steps on --data; your network and files stay as they are.
    """
    if list_rules or markdown:
        _list(as_markdown=markdown, as_json=as_json)
        return
    if network is None or data is None:
        raise typer.BadParameter(
            f"name {'a NETWORK' if network is None else 'the data by --data'}, or see by --list what can be "
            "found"
        )
    open_data = functools.partial(
        open_named,
        data,
        split=split,
        batch_size=batch_size,
        image_size=image_size,
        mean=mean,
        std=std,
        data_dir=data_dir,
        shuffle_seed=SEED,
    )
    run(
        Asked(
            network,
            norm,
            checkpoint,
            key,
            device,
            steps,
            rules,
            Training(
                loss,
                optimiser,
                {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
                accumulation,
                averaged,
                padding,
                forward,
            ),
            fix or fix_only is not None or out_checkpoint is not None,
            fix_only,
            SEED,
        ),
        Outputs(out, sarif, out_checkpoint, force, as_json, every_layer, fail_on),
        open_data,
        options_of(context),
    )


def _list(*, as_markdown: bool, as_json: bool) -> None:
    from normwright.doctor import catalogue

    if as_json:
        typer.echo(json.dumps(catalogue.records(), indent=2))
    else:
        typer.echo(catalogue.markdown() if as_markdown else catalogue.text())
