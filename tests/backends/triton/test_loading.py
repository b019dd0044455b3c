"""What `normwright.backends()` says of Triton, and what is said of calls that no kernel serves."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from normwright.backends import triton as kernels
from normwright.backends.schema import NAMES, SCHEMAS
from normwright.backends.triton import operators
from normwright.errors import DeviceError


def told(
    environment,
    code="import normwright; triton = normwright.backends()[1]; print(triton.loaded, triton.reason)",
):
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_switched_off():
    assert told({kernels.SWITCH: "0"}) == "False switched off: NORMWRIGHT_TRITON=0 in the environment"


def test_interpreted():
    words = told({kernels.SWITCH: kernels.INTERPRET})
    assert words.startswith("True Triton 3.")
    assert words.endswith("interpreted on the CPU: NORMWRIGHT_TRITON=interpret in the environment")


def test_interpreted_too_late():
    code = "import triton, normwright; print(normwright.backends()[1].reason)"
    words = told({kernels.SWITCH: kernels.INTERPRET, "TRITON_INTERPRET": "0"}, code)
    assert "must be set before Triton is imported" in words


def test_not_installed(monkeypatch):
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: None)
    loaded, reason = kernels.load(None, ())
    assert not loaded
    assert "Triton is not installed" in reason


CALL = (torch.ones(2, 4), None, None, None, 1, True, 1e-5, None)


def test_not_installed_beside_a_pytorch_for_gpus(monkeypatch):
    """Their calls are plain PyTorch's, which is said, once, where the first is made."""
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv(kernels.SWITCH, raising=False)
    library = torch.library.Library("normwright_without_triton", "DEF")
    schema = next(schema for schema in SCHEMAS if schema.startswith("rows_inference("))
    name = library.define(schema)
    assert not kernels.load(library, (name,)).loaded
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"{library.ns}::{name}", "CUDA")
    kernels.warn_once.cache_clear()
    served = kernels._plain(name, "Triton is not installed")
    with pytest.warns(RuntimeWarning, match="plain PyTorch, several times slower: Triton is not installed"):
        first = served(*CALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(served(*CALL), first)
    with pytest.raises(DeviceError, match=r"cpu, meta.*\.to\(device\)"):
        served(CALL[0], None, torch.ones(4, device="meta"), *CALL[3:])


@pytest.mark.parametrize("serve", [operators.parts_forward, kernels._plain("parts_forward", "no Triton")])
def test_spans_are_on_the_cpu_wherever_the_rest_is(serve, monkeypatch):
    """Neither kernels nor what takes their place refuses a call for them."""
    x, weight, spans = torch.ones(4, 3, device="meta"), torch.ones(3, device="cpu"), torch.tensor([[0, 0, 4]])
    monkeypatch.setitem(kernels.eager.FUNCTIONS, "parts_forward", lambda *_: "plain")
    monkeypatch.setattr(operators, "plan_of", lambda *_: ("table", "cut"))
    monkeypatch.setattr(operators, "_planned_forward", lambda *_: "planned")
    kernels.warn_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert serve(x, None, None, None, spans, 1, 1e-5, None) in ("plain", "planned")
    with pytest.raises(DeviceError, match=r"cpu, meta.*\.to\(device\)"):
        serve(x, None, weight, None, spans, 1, 1e-5, None)


def test_every_operator_has_kernels():
    assert set(NAMES) <= set(vars(operators))


def test_switched_off_beside_a_pytorch_for_gpus(monkeypatch):
    """Who switches them off knows."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv(kernels.SWITCH, "0")
    library = torch.library.Library("normwright_switched_off", "DEF")
    name = library.define(next(schema for schema in SCHEMAS if schema.startswith("rows_inference(")))
    assert not kernels.load(library, (name,)).loaded
    assert not torch._C._dispatch_has_kernel_for_dispatch_key(f"{library.ns}::{name}", "CUDA")


def test_a_call_with_an_old_triton(monkeypatch):
    import triton

    monkeypatch.setattr(triton, "__version__", "3.5.1")
    kernels._operators.cache_clear()
    kernels.warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"the kernels need Triton 3\.6 or later; this is 3\.5\.1"):
        kernels._when_called("rows_inference")(*CALL)
    kernels._operators.cache_clear()


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch was built for CUDA")
def test_a_pytorch_without_gpus():
    assert told({kernels.SWITCH: ""}) == f"False PyTorch {torch.__version__} was built without CUDA and ROCm"


def test_importing_normwright_imports_no_triton():
    code = "import sys, normwright; print('triton' in sys.modules)"
    assert told({kernels.SWITCH: ""}, code) == "False"


def test_an_old_triton(monkeypatch):
    asked = "import normwright; print(normwright.backends()[1].reason)"
    code = f"import triton; triton.__version__ = '3.5.1'; {asked}"
    words = told({kernels.SWITCH: kernels.INTERPRET, "TRITON_INTERPRET": "1"}, code)
    assert words == "the kernels need Triton 3.6 or later; this is 3.5.1"


def test_that_no_kernel_serves_a_call_is_said_once(monkeypatch):
    x = torch.ones(2, 4)
    monkeypatch.setattr(operators, "refusal", lambda x: "the GPU is too old")
    kernels.warn_once.cache_clear()
    call = (x, None, None, None, 1, True, 1e-5, None)
    with pytest.warns(RuntimeWarning, match="plain PyTorch, several times slower: the GPU is too old"):
        first = operators.rows_inference(*call)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(operators.rows_inference(*call), first)


def test_an_unknown_setting():
    reason = "NORMWRIGHT_TRITON must be 0 or interpret, but is 'Interpret' in the environment"
    assert told({kernels.SWITCH: "Interpret"}) == f"False {reason}"


def test_the_cpus_kernels_stay_where_the_interpreter_does_not_come():
    code = "import triton, normwright; print([backend.loaded for backend in normwright.backends()])"
    words = told({kernels.SWITCH: kernels.INTERPRET, "TRITON_INTERPRET": "0", "NORMWRIGHT_NATIVE": "1"}, code)
    assert words == "[True, False, True]"
