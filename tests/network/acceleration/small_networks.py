"""Small networks, each with a reason why something may or may not be fused."""

from __future__ import annotations

import random

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Case(nn.Module):
    """A convolution, a normaliser and what the class makes of them; `fused` is expected of `norm`."""

    fused: tuple[str, ...] = ()
    reason = ""
    differentiable = True  # not where what a normaliser keeps for its backward is changed in place

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.relu_ = nn.ReLU(inplace=True)
        self.tail = nn.Conv2d(4, 4, 3, padding=1)


# --- fused


class ModuleActivation(Case):
    fused = ("relu",)

    def forward(self, x):
        return self.tail(self.relu(self.norm(self.conv(x))))


class InPlaceModule(Case):
    fused = ("relu",)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.relu_(y)


class FunctionInPlace(Case):
    fused = ("silu",)

    def forward(self, x):
        return F.silu(self.norm(x), inplace=True)


class Method(Case):
    fused = ("sigmoid",)

    def forward(self, x):
        return self.norm(input=x).sigmoid_()


class Gelu(Case):
    fused = ("gelu",)

    def forward(self, x):
        return F.gelu(input=self.norm(x))


class Leaky(Case):
    fused = ("leaky_relu",)

    def forward(self, x):
        return F.leaky_relu(self.norm(x), 0.01, True)


class OwnInputAsResidual(Case):
    fused = ("residual + relu",)

    def forward(self, x):
        x = self.conv(x)
        return F.relu(x + self.norm(x))


class ResidualAfterTheNorm(Case):
    fused = ("residual + relu",)

    def forward(self, x):
        y = self.norm(self.conv(x))
        identity = self.tail(x)
        y += identity
        return self.relu(y)


class ResidualAlone(Case):
    fused = ("residual",)

    def forward(self, x):
        y = torch.add(self.norm(self.conv(x)), x)
        return y + F.relu(y)


class BroadcastResidual(Case):
    fused = ("residual + relu",)  # one by one where the shapes differ

    def forward(self, x):
        return self.relu(self.norm(self.conv(x)) + x.mean((0, 2, 3), keepdim=True))


class WiderResidual(Case):
    fused = ("residual + relu",)

    def forward(self, x):
        return self.relu(x.unsqueeze(0).repeat(2, 1, 1, 1, 1) + self.norm(self.conv(x)))


class NumberOfShape(Case):
    fused = ("residual + relu",)

    def forward(self, x):
        return self.relu(self.norm(self.conv(x)) + x.shape[2])


class OtherDtype(Case):
    fused = ("residual",)

    def forward(self, x):
        return self.norm(self.conv(x)) + x.float()


class OtherDtypeInPlace(Case):
    fused = ("residual",)

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += x.float()
        return y


class SharedActivation(Case):
    fused = ("relu",)

    def forward(self, x):
        x = self.relu(self.conv(x))
        x = self.relu(self.norm(x))
        return self.relu(self.tail(x))


class SharedNorm(Case):
    fused = ("relu", "sigmoid")

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        return torch.sigmoid(self.norm(self.tail(x)))


class ModeDependent(Case):
    fused = ("relu",)  # in training alone

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if self.training else F.relu6(y)


class FunctionalDropout(Case):
    fused = ("relu",)

    def forward(self, x):
        return F.dropout(F.relu(self.norm(self.conv(x))), 0.5, self.training)


class OptionalArgument(Case):
    fused = ("relu",)

    def forward(self, x, skip=None):
        y = self.norm(self.conv(x))
        if skip is not None:
            return y * skip
        return self.relu(y)


class ReturnsATuple(Case):
    fused = ("relu",)

    def forward(self, x):
        return {"x": [self.relu(self.norm(x))]}["x"][0]


class AsksForATensor(Case):
    fused = ("relu",)

    def forward(self, x):
        x = x if isinstance(x, Tensor) else x[0]
        return self.relu(self.norm(x))


class TakesNumbersToo(Case):
    """A function in C asks whether its argument is a number, which isinstance here asks too."""

    fused = ("relu",)

    def forward(self, x):
        x = torch.where(x > 0, x, 0.5) if isinstance(x, Tensor) else x[0]
        return torch.pow(self.relu(self.norm(torch.remainder(x, 3))), 2)


class OwnSequential(nn.Sequential):
    def forward(self, x):
        return F.relu(super().forward(x)) + 1


class SequentialOfItsOwn(Case):
    fused = ("relu",)

    def __init__(self) -> None:
        super().__init__()
        del self.norm
        self.inner = OwnSequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x):
        return self.inner(x)


class ThroughContainers(Case):
    fused = ("residual + relu",)

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Sequential(self.conv, self.norm, nn.Identity()), nn.Dropout(0.0))
        del self.norm

    def forward(self, x):
        return self.relu(x + self.branch(x))


class ListOfNorms(Case):
    fused = ("relu",)

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([self.norm])
        del self.norm

    def forward(self, x):
        for norm in self.norms:
            x = self.relu(norm(x))
        return x


# --- not fused


class ReadTwice(Case):
    reason = "read 2 times"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.relu(y) * y


class Returned(Case):
    reason = "returns its output"

    def forward(self, x):
        return self.norm(self.conv(x))


class ReturnedBeside(Case):
    reason = "read 2 times"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return torch.cat([y, self.relu(y)])


class StatementInPlace(Case):
    reason = "read 2 times"

    def forward(self, x):
        y = self.norm(self.conv(x))
        self.relu_(y)
        return self.tail(y)


class View(Case):
    reason = "goes to flatten"

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)).flatten(1)).view(x.shape)


class AddedToItself(Case):
    reason = "goes to iadd"

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += y
        return self.relu(y)


class AddedTwice(Case):
    fused = ("residual",)

    def forward(self, x):
        y = self.norm(self.conv(x)) + x
        y = y + x
        return self.relu(y)


class Scaled(Case):
    reason = "goes to add"

    def forward(self, x):
        return self.relu(torch.add(self.norm(self.conv(x)), x, alpha=2))


class Number(Case):
    reason = "goes to add"

    def forward(self, x):
        return self.relu(self.norm(self.conv(x)) + 1)


class ResidualIsChanged(Case):
    """`r += norm(x)` changes r, which is read again."""

    reason = "goes to iadd"

    def forward(self, x):
        r = self.tail(x)
        same = r
        r += self.norm(self.conv(x))
        return F.relu(r) + same


class InputIsChanged(Case):
    reason = "input may be changed"
    differentiable = False

    def forward(self, x):
        x = self.conv(x)
        view = x.view(x.shape)
        y = self.norm(x)
        r = view.mul_(2)
        return self.relu(y + r)


class ArgumentIsChanged(Case):
    reason = "input may be changed"
    differentiable = False

    def forward(self, x):
        x = x.clone()
        y = self.norm(x)
        r = self.relu_(x)
        return y + r


class ChangedByName(Case):
    reason = "input may be changed"
    differentiable = False

    def forward(self, x):
        x = x.clone()
        y = self.norm(x)
        r = torch.relu_(x)
        return y + r


class UnknownModuleBetween(Case):
    reason = "input may be changed"
    differentiable = False

    def __init__(self) -> None:
        super().__init__()
        self.unknown = Doubles()

    def forward(self, x):
        x = x * 1
        y = self.norm(x)
        return y + self.unknown(x)


class Doubles(nn.Module):
    def forward(self, x):
        return x.mul_(2)


class ResidualChangedLater(Case):
    reason = "residual may be changed"

    def forward(self, x):
        r = x * 2
        y = self.relu(self.norm(self.conv(x)) + r)
        r.add_(1)
        return y + r


class CalledAgainBetween(Case):
    """The running statistics move in the order of the calls."""

    reason = "called again"

    def forward(self, x):
        y = self.norm(self.conv(x))
        r = self.norm(self.tail(x)) * 3
        return self.relu(y + r)


class StateIsRead(Case):
    reason = "its state is read"

    def forward(self, x):
        y = self.norm(self.conv(x))
        r = x * self.norm.running_mean.sum()
        return self.relu(y + r)


class OtherSlope(Case):
    reason = "goes to leaky_relu"

    def forward(self, x):
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


class TanhGelu(Case):
    reason = "goes to gelu"

    def forward(self, x):
        return F.gelu(self.norm(self.conv(x)), approximate="tanh")


# --- not traced


class BranchOnValues(Case):
    reason = "not traced"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if y.sum() > 0 else y


class BranchOnShape(Case):
    reason = "not traced"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if x.shape[0] > 1 else y


class BranchOnType(Case):
    reason = "asks for the type"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if isinstance(y, Tensor) else y


class AsksBesideForNumbers(Case):
    reason = "asks for the type of a value"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if isinstance(torch.pow(y, 1), Tensor) else y


class LooksUp(Case):
    reason = "looks a value up"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if x.dtype in {torch.float64} else y


class ComparesADtypeByIs(Case):
    reason = "compares a dtype"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if x.dtype is torch.float64 else y


class SetsAnAttribute(Case):
    reason = "sets the attribute 'seen'"

    def forward(self, x):
        y = self.norm(self.conv(x))
        self.seen = y
        return F.relu(y)


class Counts(Case):
    reason = "sets the attribute 'calls'"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return F.relu(self.norm(x))


class Collects(Case):
    reason = "reads the attribute 'kept', a list"

    def __init__(self) -> None:
        super().__init__()
        self.kept = []

    def forward(self, x):
        self.kept.append(1)
        return F.relu(self.norm(x))


class PartWithoutGradient(Case):
    reason = "runs in part under no_grad"

    def forward(self, x):
        with torch.no_grad():
            x = self.conv(x)
        return F.relu(self.norm(x))


class Checkpointed(Case):
    reason = "not traced"

    def forward(self, x):
        return checkpoint(lambda x: F.relu(self.norm(self.conv(x))), x, use_reentrant=False)


class AsksForGradients(Case):
    reason = "under no_grad, inference_mode or autocast"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if torch.is_grad_enabled() else y


class AsksForInference(Case):
    reason = "under no_grad, inference_mode or autocast"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return y if torch.is_inference_mode_enabled() else F.relu(y)


class AsksForAutocastOfAnotherDevice(Case):
    reason = "under no_grad, inference_mode or autocast"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return y if torch.is_autocast_enabled("cuda") else F.relu(y)


class LeavesAutocastOfAnotherDevice(Case):
    reason = "runs in part under no_grad, autocast"

    def forward(self, x):
        with torch.autocast("cuda", enabled=False):
            return F.relu(self.norm(self.conv(x)))


class SetsTheDataOfAValue(Case):
    reason = "sets the attribute 'data' of a value"

    def forward(self, x):
        y = self.conv(x)
        y.data = y.data * 2
        return F.relu(self.norm(y))


class MatchesAClass(Case):
    reason = "asks for the type of a value"

    def forward(self, x):
        y = self.norm(self.conv(x))
        match y:
            case Tensor():
                return torch.tanh(y)
        return F.relu(y)


class AsksForTheClass(Case):
    reason = "asks for the type of a value"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return torch.tanh(y) if type(x) is Tensor else F.relu(y)


class Catches(Case):
    reason = "catches exceptions"

    def forward(self, x):
        try:
            _, _, _, _, _ = x.shape
        except ValueError:
            return torch.tanh(self.norm(self.conv(x)))
        return F.relu(self.norm(self.conv(x)))


class DrawsNumbers(Case):
    reason = "not traced"

    def forward(self, x):
        return F.relu(self.norm(self.conv(x))) * torch.rand(())


class DrawsInPython(Case):
    reason = "draws random numbers"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if random.random() < 2 else y


class DrawsInNumPy(Case):
    reason = "draws random numbers"

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.relu(y) if numpy.random.rand() < 2 else y


class CountsInATensor(Case):
    reason = "a tensor that is no parameter or buffer"

    def __init__(self) -> None:
        super().__init__()
        self.count = torch.zeros(())

    def forward(self, x):
        self.count.add_(1)
        return F.relu(self.norm(self.conv(x))) * self.count


class KeywordsOnly(Case):
    reason = "takes *args"

    def forward(self, *args):
        return F.relu(self.norm(self.conv(args[0])))


CASES = [
    kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Case) and kind is not Case
]
