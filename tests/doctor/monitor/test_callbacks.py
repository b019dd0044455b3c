"""The monitor under trainers that no one here wrote."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from normwright.errors import OptionError


def batches():
    torch.manual_seed(0)
    x, y = torch.randn(64, 1, 8, 8), torch.randint(3, (64,))
    return DataLoader(TensorDataset(x, y), batch_size=8)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_lightning(tmp_path):
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    from pytorch_lightning.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from normwright.doctor.monitor.lightning import MonitorCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = small()

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def validation_step(self, batch, index):
            self.network(100 + batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, weight_decay=0.1)

    told = []
    callback = MonitorCallback(every=6, steps=2, on_finding=told.append)
    logger = TensorBoardLogger(str(tmp_path))
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[callback], logger=logger, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=0.01,
    )  # fmt: skip
    trainer.fit(Module(), batches(), batches())
    windows = callback.monitor.windows
    assert [(window.first, window.last) for window in windows] == [(0, 1), (6, 7), (12, 13)]
    assert [finding.layer for finding in told if finding.rule == "weight_decay_on_norm"] == ["network.1"]
    layer = next(layer for layer in windows[1].evidence.activations if layer.layer == "network.1")
    assert layer.calls == (1, 1)
    assert all(abs(spread.mean) < 10 for spread in layer.inputs)
    # as the optimiser sees them: clipped
    total = sum(facts.norms[0] ** 2 for facts in windows[0].evidence.gradients) ** 0.5
    assert total == pytest.approx(0.01, rel=1e-3)
    assert len(windows[0].evidence.losses) == 2
    tags = EventAccumulator(logger.log_dir).Reload().Tags()["scalars"]
    assert "normwright/input_deviation/network.1" in tags


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transformers_trainer(tmp_path):
    transformers = pytest.importorskip("transformers", reason="Transformers is not installed")
    pytest.importorskip("accelerate", reason="Accelerate is not installed")
    from normwright.doctor.monitor.trainer import MonitorCallback

    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    network = transformers.ResNetForImageClassification(config)
    data = [{"pixel_values": torch.randn(1, 16, 16), "labels": i % 3} for i in range(32)]
    callback = MonitorCallback(every=3, steps=2)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=6,
        report_to=[], use_cpu=True, save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(model=network, args=arguments, train_dataset=data, callbacks=[callback]).train()
    windows = callback.monitor.windows
    assert [(window.first, window.last) for window in windows] == [(0, 1), (3, 4)]
    layer = next(layer for layer in windows[0].evidence.activations if layer.of_normaliser)
    assert layer.calls == (2, 2)
    assert len(windows[0].evidence.gradients) == len([p for p in network.parameters() if p.requires_grad])
    assert not any(module._forward_hooks for module in network.modules())


def test_what_a_callback_cannot_be_asked_is_told_before_there_is_a_trainer():
    pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    from normwright.doctor.monitor.lightning import MonitorCallback

    with pytest.raises(OptionError, match="every must be a whole number of at least 1, but is 0"):
        MonitorCallback(every=0)
    with pytest.raises(OptionError, match="did you mean 'bias_before_norm'"):
        MonitorCallback(rules=["bias_before_nrm"])
    with pytest.raises(
        OptionError, match=r"SummaryWriter, or .* but is a dict without add_scalar and add_text"
    ):
        MonitorCallback(writer={})
    with pytest.raises(OptionError, match="on_finding must be a function of a finding, but is 'print'"):
        MonitorCallback(on_finding="print")
    with pytest.raises(TypeError, match="'evry'"):
        MonitorCallback(evry=5)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_run_of_transformers_that_failed_leaves_no_hooks_to_the_next(tmp_path):
    transformers = pytest.importorskip("transformers", reason="Transformers is not installed")
    from normwright.doctor.monitor.trainer import MonitorCallback

    network, callback = small(), MonitorCallback(every=8, steps=8)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # the Trainer calls no callback when it raises
        callback.on_train_begin(
            None,
            transformers.TrainerState(),
            transformers.TrainerControl(),
            model=network,
            optimizer=optimiser,
        )
        counts = len(network[1]._forward_hooks)
    callback.on_train_end(None, None, None)
    assert counts
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
