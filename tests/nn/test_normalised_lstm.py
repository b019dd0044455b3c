"""Both normalised LSTMs against the float64 formula, in every form that a batch of sequences takes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from sequences import INPUTS, KINDS, UNITS, lstm_of, reference_of, sequences
from tolerances import assert_within, recurrent, recurrent_gradient
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from normwright import nn
from normwright.errors import DeviceError, OptionError, ShapeError

LENGTHS = [[6, 6, 6, 6], [4, 6, 2, 6], [3, 3, 6, 6]]
FORMS = [
    {},
    {"bidirectional": True},
    {"num_layers": 2},
    {"num_layers": 2, "bidirectional": True, "bias": False},
]


def assert_is(got, expected, bound):
    for name, ours, theirs in zip(("output", "h", "c"), got, expected, strict=False):
        assert_within(ours, theirs, np.full(theirs.shape, bound), name)


def mask_of(lengths, steps=6):
    return torch.arange(steps).unsqueeze(1) < torch.tensor(lengths)


@pytest.mark.parametrize("options", FORMS, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_training_is_the_formula(name, lengths, options):
    module, x = lstm_of(name, **options), sequences()
    hx = tuple(torch.rand(module.num_layers * (1 + module.bidirectional), 4, UNITS).double() for _ in "hc")
    for given in (None, hx):
        expected = reference_of(module, x, lengths, given)
        output, (h, c) = module(x, given, lengths=torch.tensor(lengths))
        assert_is((output, h, c), expected, recurrent(torch.float64, 6 * module.num_layers))


@pytest.mark.parametrize("name", KINDS)
def test_in_single_precision(name):
    module, x = lstm_of(name, torch.float32), sequences(3, dtype=torch.float32)
    output, (h, c) = module(x)
    assert output.dtype == torch.float32
    assert_is((output, h, c), reference_of(module, x, [3] * 4), recurrent(torch.float32, 3))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_and_autocast(name, dtype):
    """Within what rounding x and the weights to that dtype does, over two steps."""
    module, x = lstm_of(name, torch.float32), sequences(2, dtype=torch.float32)
    expected = reference_of(module, x, [2] * 4)
    with torch.autocast("cpu", torch.bfloat16):
        output, (h, c) = module(x)
    assert output.dtype == torch.bfloat16
    assert_is((output, h, c), expected, recurrent(torch.bfloat16, 2))
    output, (h, c) = copy.deepcopy(module).to(dtype)(x.to(dtype))
    assert output.dtype == h.dtype == dtype
    assert_is((output, h, c), expected, recurrent(dtype, 2))
    output.float().sum().backward()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_every_form_of_a_batch_is_one(name, options):
    """The same bits: they all come to the same rows."""
    lengths, x = [4, 6, 2, 6], sequences()
    fresh = lstm_of(name, **options)

    def run(*given, batch_first=False, **named):
        module = copy.deepcopy(fresh)
        module.batch_first = batch_first
        return module(*given, **named)

    output, last = run(x, lengths=torch.tensor(lengths))
    assert not output[~mask_of(lengths)].any()
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    results = [
        run(x, lengths=lengths),
        run(x, mask=mask_of(lengths)),
        run(x.transpose(0, 1), mask=mask_of(lengths).t(), batch_first=True),
        run(x.transpose(0, 1).contiguous(), lengths=torch.tensor(lengths), batch_first=True),
        run(packed),
    ]
    for form, (y, state) in enumerate(results):
        if isinstance(y, PackedSequence):
            y = pad_packed_sequence(y)[0]
        y = y.transpose(0, 1) if form in (2, 3) else y
        assert torch.equal(y, output), form
        assert all(map(torch.equal, state, last)), form


@pytest.mark.parametrize("name", KINDS)
def test_sorted_and_unsorted_packing(name):
    x, order = sequences(), [1, 3, 0, 2]
    parts = [x[:length, row] for row, length in enumerate([4, 6, 2, 6])]
    fresh = lstm_of(name, bidirectional=True)
    unsorted, state = copy.deepcopy(fresh)(pack_sequence(parts, enforce_sorted=False))
    given = pack_sequence([parts[row] for row in order])
    arranged, arranged_state = fresh(given)
    assert arranged.sorted_indices is None
    assert torch.equal(unsorted.data, arranged.data)
    for one, other in zip(state, arranged_state, strict=True):
        assert torch.equal(one[:, order], other)


def test_a_single_sequence_without_a_batch():
    module = lstm_of("LayerNormLSTM", batch_first=True, bidirectional=True)
    x = sequences(batch=1)[:, 0]
    hx = (torch.rand(2, UNITS).double(), torch.rand(2, UNITS).double())
    output, (h, c) = module(x, hx)
    batched, (batched_h, batched_c) = module(x[None], (hx[0][:, None], hx[1][:, None]))
    assert torch.equal(output, batched[0])
    assert torch.equal(h, batched_h[:, 0])
    assert torch.equal(c, batched_c[:, 0])
    assert h.shape == c.shape == (2, UNITS)
    evaluated = lstm_of("BatchNormLSTM").eval()
    assert evaluated(x)[0].shape == (6, UNITS)


@pytest.mark.parametrize("name", KINDS)
def test_padding_has_no_part_in_anything(name):
    """A padded batch is its unpadded sequences: outputs, gradients, statistics; padding may be NaN."""
    lengths = [4, 6, 2, 6]
    results = []
    for filling in (0.0, float("nan"), 1e30):
        module = lstm_of(name, num_layers=2, bidirectional=True)
        x = sequences()
        x[~mask_of(lengths)] = filling
        x.requires_grad_()
        output, (h, c) = module(x, lengths=lengths)
        (output.square().sum() + h.sum() + c.sum()).backward()
        assert not x.grad[~mask_of(lengths)].any()
        gradients = [parameter.grad for parameter in module.parameters()]
        results.append([output, h, c, *gradients, *module.buffers(), x.grad])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("name", KINDS)
def test_constructor_and_checkpoint_are_torch_s(name):
    call = ((INPUTS, UNITS, 2, True, True, 0.25, True), {})
    theirs, ours = torch.nn.LSTM(*call[0]), getattr(nn, name)(*call[0])
    assert isinstance(ours, torch.nn.LSTM)
    done = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not done.unexpected_keys
    assert all(key.startswith("norm_") for key in done.missing_keys)
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], tensor)
    for key in ("num_layers", "bias", "batch_first", "dropout", "bidirectional"):
        assert getattr(ours, key) == getattr(theirs, key)
    y, (h, c) = ours(torch.randn(4, 6, INPUTS))
    their_y, (their_h, _) = theirs(torch.randn(4, 6, INPUTS))
    assert y.shape == their_y.shape
    assert h.shape == c.shape == their_h.shape
    assert repr(ours).startswith(f"{name}(\n  3, 5, num_layers=2, batch_first=True, dropout=0.25, bidirect")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies(name, copied):
    module, x = lstm_of(name, num_layers=2), sequences()
    module(x)
    twin = copied(module)
    assert torch.equal(twin(x)[0], module(x)[0])
    other = lstm_of(name, num_layers=2, seed=5)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.eval()(x)[0], module.eval()(x)[0])


@pytest.mark.parametrize("name", KINDS)
def test_parameters_start_as_the_papers_say(name):
    module = getattr(nn, name)(INPUTS, 16)
    gain = 0.1 if name == "BatchNormLSTM" else 1.0
    for _ in range(2):
        for part in ("ih", "hh", "c"):
            norm = getattr(module, f"norm_{part}_l0")
            assert torch.equal(norm.weight, torch.full_like(norm.weight, gain))
            assert norm.bias is None if part != "c" else not norm.bias.any()
        assert 0.2 < module.weight_hh_l0.abs().max() <= 0.25
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(9)
        module.reset_parameters()


@pytest.mark.parametrize("name", KINDS)
def test_dropout_lies_between_the_layers(name):
    module = lstm_of(name, num_layers=2, dropout=1.0)
    x = sequences()
    output, (h, _) = module(x)
    assert h[0].abs().min() > 0  # the first layer's own
    assert torch.equal(output, module(2 * x)[0])  # nothing of it reaches the second
    assert not torch.equal(module.eval()(x)[0], module(2 * x)[0])


@pytest.mark.parametrize("name", KINDS)
def test_bad_calls(name):
    module, x = lstm_of(name), sequences()
    before = copy.deepcopy(module.state_dict())
    packed = pack_sequence([x[:, 0], x[:3, 1]])
    whole, lengths = torch.ones(6, 4, dtype=torch.bool), torch.tensor([6, 4, 2, 1])
    hole, one_empty = whole.clone(), whole.clone()
    hole[2, 1], one_empty[:, 3] = False, False
    for given, named, error, message in (
        ((x,), {"mask": whole.t()}, ShapeError, r"mask must be boolean and \(6, 4\), steps by batch"),
        ((x,), {"mask": whole.float()}, ShapeError, "mask must be boolean"),
        ((x,), {"mask": ~whole}, ShapeError, "the mask is False everywhere"),
        ((x,), {"mask": hole}, ShapeError, "without a hole, but the mask of sequence 1"),
        ((x,), {"mask": one_empty}, ShapeError, "from 1 to 6 steps, but lengths reach from 0 to 6"),
        ((x,), {"lengths": lengths[:3]}, ShapeError, r"lengths must be \(4,\)"),
        ((x,), {"lengths": lengths.float()}, ShapeError, r"lengths must be \(4,\), an integer"),
        ((x,), {"lengths": lengths + 1}, ShapeError, "lengths reach from 2 to 7"),
        ((x,), {"lengths": lengths, "mask": whole}, OptionError, "pass one of them"),
        ((packed,), {"lengths": lengths[:2]}, OptionError, "a packed batch knows its lengths"),
        ((x[:, 0],), {"mask": whole[:, 0]}, OptionError, "a single sequence"),
        ((x[..., :2],), {}, RuntimeError, "must be equal to input_size"),
        ((x[None],), {}, ShapeError, "Expected input to be 2D or 3D, got 4D"),
        ((x[:0],), {}, ShapeError, "larger than 0"),
        ((x.float(),), {}, ValueError, "does not match weight dtype"),
        ((x, (torch.zeros(1, 3, UNITS).double(),) * 2), {}, ShapeError, r"Expected hidden size \(1, 4, 5\)"),
        ((x[:, 0], (torch.zeros(1, 1, UNITS).double(),) * 2), {}, ShapeError, "with an unbatched input"),
        ((x, (whole,) * 3), {}, OptionError, r"a pair of tensors \(h, c\), but is a tuple of 3"),
        ((x, torch.zeros(1, 4, UNITS).double()), {}, OptionError, r"\(h, c\), but is a Tensor"),
        ((x, (whole, None)), {}, OptionError, r"a pair of tensors \(h, c\)"),
        ((x.numpy(),), {}, OptionError, "a tensor or a .*PackedSequence, but is a ndarray"),
        (([[1.0, 2.0]],), {}, OptionError, "a tensor or a .*PackedSequence, but is a list"),
    ):
        with pytest.raises(error, match=message):
            module(*given, **named)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", KINDS)
def test_every_argument_of_torch_s_may_be_positional(name):
    given = (3, 5, 2, True, True, 0.0, True, 0, "cpu", torch.float64)
    ours, theirs = getattr(nn, name)(*given), torch.nn.LSTM(*given)
    for key, value in theirs.state_dict().items():
        assert ours.state_dict()[key].shape == value.shape
        assert ours.state_dict()[key].dtype == torch.float64
    assert ours.batch_first
    assert ours.bidirectional


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("eps", [-1.0, float("nan"), "a", None])
def test_eps_is_a_number_of_at_least_0(name, eps):
    with pytest.raises(OptionError, match="eps must be a number of at least 0"):
        getattr(nn, name)(3, 5, eps=eps)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_shapes_on_the_meta_device(name, training):
    module = getattr(nn, name)(3, 5, 2, bidirectional=True, device="meta").train(training)
    output, (h, c) = module(torch.empty(6, 4, 3, device="meta"))
    assert output.is_meta
    assert (output.shape, h.shape, c.shape) == ((6, 4, 10), (4, 4, 5), (4, 4, 5))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_lengths_and_masks_on_the_meta_device(name, training):
    """The shapes of what comes out are those of the padded batch, whatever has values."""
    module = getattr(nn, name)(3, 5, bidirectional=True, device="meta").train(training)
    x, lengths, mask = torch.empty(6, 4, 3, device="meta"), torch.tensor([6, 3, 2, 1]), mask_of([6, 3, 2, 1])
    given = ({"lengths": lengths.tolist()}, {"lengths": lengths}, {"mask": mask})
    for named in (*given, {"lengths": lengths.to("meta")}, {"mask": mask.to("meta")}):
        output, (h, c) = module(x, **named)
        assert output.is_meta
        assert (output.shape, h.shape, c.shape) == ((6, 4, 10), (2, 4, 5), (2, 4, 5))
        output.sum().backward()
    with pytest.raises(ShapeError, match="lengths reach from 2 to 7"):
        module(x, lengths=lengths + 1)
    for named in ({"lengths": lengths.to("meta")}, {"mask": mask.to("meta")}):
        with pytest.raises(DeviceError, match='must hold values, but one is on the device "meta"'):
            getattr(nn, name)(3, 5)(torch.ones(6, 4, 3), **named)


@pytest.mark.parametrize("name", KINDS)
def test_a_packed_batch_on_the_meta_device(name):
    packed = pack_padded_sequence(torch.empty(6, 4, 3), torch.tensor([6, 3, 2, 1]))
    output, (h, _) = getattr(nn, name)(3, 5, device="meta")(packed._replace(data=packed.data.to("meta")))
    assert (output.data.shape, h.shape) == ((12, 5), (1, 4, 5))


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_a_batch_without_sequences_is_torch_s(name, training, options):
    """Empty results, gradients of 0, and nothing is counted."""
    ours = lstm_of(name, **options).train(training)
    theirs = torch.nn.LSTM(INPUTS, UNITS, dtype=torch.float64, **options)
    before = copy.deepcopy(ours.state_dict())
    x = torch.empty(6, 0, INPUTS, dtype=torch.float64, requires_grad=True)
    expected, (their_h, their_c) = theirs(x)
    for named in ({}, {"hx": (their_h, their_c)}, {"lengths": []}, {"mask": torch.ones(6, 0).bool()}):
        output, (h, c) = ours(x, **named)
        assert (output.shape, h.shape, c.shape) == (expected.shape, their_h.shape, their_c.shape)
        (output.sum() + h.sum() + c.sum()).backward()
    packed, _ = ours(PackedSequence(x.reshape(0, INPUTS), torch.zeros(6, dtype=torch.long)))
    assert packed.data.shape == (0, expected.shape[2])
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in ours.parameters())
    assert x.grad.shape == x.shape
    for key, value in ours.state_dict().items():
        assert torch.equal(value, before[key]), key
    ours.batch_first = True
    assert ours(x.transpose(0, 1))[0].shape == (0, 6, expected.shape[2])


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_without_steps_is_refused_in_torch_s_words(name):
    module, theirs = lstm_of(name), torch.nn.LSTM(INPUTS, UNITS, dtype=torch.float64)
    before = copy.deepcopy(module.state_dict())
    for shape in ((0, 4, INPUTS), (0, 0, INPUTS), (0, INPUTS)):
        x = torch.empty(shape, dtype=torch.float64)
        with pytest.raises(RuntimeError) as expected:
            theirs(x)
        with pytest.raises(ShapeError, match=f"^{expected.value}"):
            module(x)
    with pytest.raises(ShapeError, match="larger than 0"):
        module(PackedSequence(x, torch.zeros(0, dtype=torch.long)))
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("lengths", [None, [4, 6, 2, 6], [6, 3, 1, 2]], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_forward_mode(name, training, lengths):
    """Along x: the gradients of a sum times the tangent; and statistics move as they do without."""
    module, x, tangent = lstm_of(name, bidirectional=True), sequences(), sequences(seed=3)
    module(sequences(seed=2))  # every step seen
    module.train(training)
    twins = [copy.deepcopy(module) for _ in range(3)]

    def run(twin, x):
        return twins[twin](x, lengths=lengths)[0]

    leaf = x.clone().requires_grad_()
    y = run(0, leaf)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(run(1, forward_ad.make_dual(x, tangent))).tangent
    _, transformed = torch.func.jvp(lambda x: run(2, x), (x,), (tangent,))
    dy = torch.rand(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype) - 0.5
    slope = (torch.autograd.grad(y, leaf, dy)[0] * tangent).sum()
    bound = recurrent_gradient(torch.float64, 6) * dy.numel()
    for found in (dual, transformed):
        assert float(((found * dy).sum() - slope).detach().abs()) <= bound
    for known, *others in zip(*(twin.buffers() for twin in twins), strict=True):
        for other in others:
            assert_within(
                other, known.double().numpy(), np.full(known.shape, recurrent(torch.float64, 6)), ""
            )


@pytest.mark.parametrize("name", KINDS)
def test_where_tensors_are_made_elsewhere_by_default(name):
    """As under `torch.set_default_device`: what tells where steps lie stays on the CPU."""
    module, x, lengths = lstm_of(name, bidirectional=True), sequences(), torch.tensor([4, 6, 2, 6])
    expected = copy.deepcopy(module)(x, lengths=lengths)[0]
    for given in (lengths, lengths.tolist()):
        with torch.device("meta"):
            found = copy.deepcopy(module)(x, lengths=given)[0]
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", KINDS)
def test_no_projection(name):
    for call in (((3, 5), {"proj_size": 2}), ((3, 5, 1, True, False, 0.0, False, 2), {})):
        with pytest.raises(OptionError, match="proj_size must be 0"):
            getattr(nn, name)(*call[0], **call[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # which Dynamo reads
@pytest.mark.parametrize("name", ["BatchNormLSTM", "LayerNormLSTM"])
def test_it_stands_in_compiled_code_and_its_inference_exports(name):
    torch._dynamo.reset()
    module, x = getattr(nn, name)(4, 6), torch.randn(5, 3, 4)
    compiled = torch.compile(module, backend="eager")
    compiled(x)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    batches = {"input": {1: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        exported = torch.export.export(module.eval(), (x,), dynamic_shapes=batches).module()
        for other, given in ((compiled, x), (exported, x[:, :1]), (exported, x.repeat(1, 3, 1))):
            assert float((other(given)[0] - module(given)[0]).abs().max()) <= 64 * 2.0**-24
    torch._dynamo.reset()
