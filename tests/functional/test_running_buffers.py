"""Running statistics of any dtype and strides, the two not alike."""

import pytest
import torch

from normwright.functional import batch_norm

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def draw():
    return torch.randn(4, 6, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 + 1


def moved(mean, var, **options):
    batch_norm(draw(), mean, var, training=True, **options)
    return mean, var


@pytest.mark.parametrize("mean_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("var_dtype", DTYPES, ids=str)
def test_of_two_dtypes(mean_dtype, var_dtype):
    expected = moved(torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64))
    mean, var = moved(torch.zeros(6, dtype=mean_dtype), torch.ones(6, dtype=var_dtype))
    for got, exact in zip((mean, var), expected, strict=True):
        # Four roundings, each of at most half an ulp of a number below 2.
        torch.testing.assert_close(got.double(), exact, rtol=0, atol=4 * torch.finfo(got.dtype).eps)


def test_of_strides():
    base = torch.zeros(12), torch.ones(12)
    mean, var = moved(base[0][::2], base[1][::2])
    expected = moved(torch.zeros(6), torch.ones(6))
    assert torch.equal(mean, expected[0])
    assert torch.equal(var, expected[1])
    assert torch.equal(base[0][1::2], torch.zeros(6))
    assert torch.equal(base[1][1::2], torch.ones(6))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.float32], ids=str)
def test_a_counter_of_any_dtype(dtype):
    counter = torch.tensor(3, dtype=dtype)
    mean, _ = moved(torch.zeros(6), torch.ones(6), momentum=None, num_batches_tracked=counter)
    assert counter == 4
    torch.testing.assert_close(mean, draw().mean((0, 2, 3)) / 4)
