"""A norm that a language model writes out, and a whole one, beside what `accelerate` makes of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNormGated
from transformers.models.t5.modeling_t5 import T5LayerNorm

import normwright as nw
from benchmarks.alternate import alternate_for
from benchmarks.machine import touch_heap

SHAPES = ((256, 1024), (2048, 2048), (8192, 4096))
DTYPES = (torch.float32, torch.bfloat16)


def _llama() -> nn.Module:
    config = LlamaConfig(
        vocab_size=1000, hidden_size=512, intermediate_size=1376, num_hidden_layers=2, num_attention_heads=8
    )
    return LlamaModel(config)


def _step(network: nn.Module, given: tuple[Tensor, ...]) -> Callable[[], None]:
    def step() -> None:
        output = network(*given)
        y = output if isinstance(output, Tensor) else output.last_hidden_state
        y.square().mean().backward()
        network.zero_grad(set_to_none=True)
        for tensor in given:
            tensor.grad = None

    return step


def _inference(network: nn.Module, given: tuple[Tensor, ...]) -> Callable[[], None]:
    def infer() -> None:
        with torch.no_grad():
            network(*given)

    return infer


def _ratio(
    make: Callable[[nn.Module, tuple[Tensor, ...]], Callable[[], None]],
    plain: nn.Module,
    given: tuple[Tensor, ...],
    s: float,
) -> float:
    times = alternate_for({"plain": make(plain, given), "ours": make(nw.accelerate(plain), given)}, seconds=s)
    return times["ours"].ratio_to(times["plain"])


def measure_all(seconds: float, threads: int) -> list[tuple[str, float, float]]:
    """Each case with its ratios, of an inference and of a step."""
    torch.set_num_threads(threads)
    touch_heap()
    torch.manual_seed(0)
    cases: list[tuple[str, nn.Module, tuple[Tensor, ...]]] = []
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        for rows, width in SHAPES:
            x = torch.randn(rows, width, dtype=dtype, requires_grad=True)
            cases.append((f"LlamaRMSNorm, {rows}×{width}, {name}", LlamaRMSNorm(width).to(dtype), (x,)))
        rows, width = SHAPES[1]
        x, gate = (torch.randn(rows, width, dtype=dtype, requires_grad=True) for _ in range(2))
        cases.append((f"T5LayerNorm, {rows}×{width}, {name}", T5LayerNorm(width).to(dtype), (x,)))
        gated = Qwen3NextRMSNormGated(width).to(dtype)
        cases.append((f"Qwen3NextRMSNormGated, {rows}×{width}, {name}", gated, (x, gate)))
        cases.append((f"Llama, {name}", _llama().to(dtype), (torch.randint(1000, (1, 256)),)))
    return [
        (name, _ratio(_inference, plain, given, seconds), _ratio(_step, plain, given, seconds))
        for name, plain, given in cases
    ]
