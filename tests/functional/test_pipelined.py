"""What exporting a network leaves behind, in a process of its own: it would stay for good."""

import subprocess
import sys
from pathlib import Path

EXPORTED = """
import torch
import torch.distributed.pipelining
from normwright import nn
from normwright.functional import pipelined

norm, x = nn.LayerNorm(4), torch.randn(3, 4)
torch.export.export(norm, (x,))
assert pipelined._library.cache_info().currsize == 0
"""

DIFFERENTIATED = """
import sys
import pytest
from normwright.functional import pipelined

pipelined._library()
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[1], "-k", "test_a_tangent_of_a_gradient"]))
"""


def test_an_export_that_is_no_pipelines_gives_the_operators_no_derivatives():
    subprocess.run([sys.executable, "-c", EXPORTED], check=True)


def test_transforms_go_past_the_derivatives_that_a_pipeline_left():
    tests = Path(__file__).with_name("test_forward_mode.py")
    subprocess.run([sys.executable, "-c", DIFFERENTIATED, str(tests)], check=True)
