"""Decides where each normaliser goes: into the layers before it, the layers after it, or a layer in its
place: a multiply-add, or of whitening a grouped 1×1 convolution.

A map is carried from the normaliser, operator by operator, until layers take it in. It goes into those
before it only where nobody else reads what they compute, and into those after it only where all that reads
its result takes it in. A layer that is used several times takes a map only if all its uses are given the
same one, and a normaliser that is called several times goes only if all its calls do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.fx import Node

from normwright.network.flow import (
    Flow,
    calls_around,
    memory_of,
    operator_of,
    shape_of,
    writes,
    written_by,
)
from normwright.network.folding.affine import Affine
from normwright.network.folding.algebra import fold_before
from normwright.network.folding.block_affine import BlockAffine, ChannelMap, composed, is_same
from normwright.network.folding.decision import Decision, LayerChange
from normwright.network.folding.layers import Layer, layer_of
from normwright.network.folding.passages import BlockedError, before, behind, named, on_axis
from normwright.network.folding.sites import Site, Unfoldable


@dataclass(frozen=True, eq=False)
class _Fold:
    layer: Layer
    affine: ChannelMap
    path: tuple[Node, ...]


@dataclass
class Planner:
    """Works out a plan for one flow.

    Args:
        flow: of the network's call.
        network: the network that was traced, or None for a program.
        sites: what normalises in it.
        hooked: names of the modules that have hooks, which see what goes in and out of them.
        why_not_removable: why a call of the function cannot be taken out, or "".
        unplaced: names of modules that have hooks and lie somewhere in the call, nobody knows where.
        used: by module, what is used of it that is gone with it.
    """

    flow: Flow
    network: nn.Module | None
    sites: Sequence[Site | Unfoldable]
    hooked: frozenset[str] = frozenset()
    why_not_removable: Callable[[Site], str] = lambda site: ""
    unplaced: Sequence[str] = ()
    used: Mapping[str, str] = field(default_factory=dict)
    decisions: list[Decision] = field(init=False)
    changes: dict[str, LayerChange] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._order = {node: place for place, node in enumerate(self.flow.graph.nodes)}
        # By result: calls that were folded, and hand on what they are given.
        self._gone: dict[Node, Site] = {}
        self._uses = self._uses_of_tensors()
        groups: dict[object, Decision] = {}
        for site in self.sites:
            decision = groups.setdefault(self._key(site), Decision([], site.name, site.kind))
            decision.sites.append(site)
        self.decisions = list(groups.values())

    def _key(self, site: Site | Unfoldable) -> object:
        """What is the same for all calls of one normaliser."""
        if self.network is None:
            return site
        if site.module is not None:
            return self.network.get_submodule(site.module)
        return (self.network.get_submodule(site.name), site.place)

    def plan(self) -> None:
        """Fills in the decisions and the layers' changes."""
        for decision in self.decisions:
            for site in decision.sites:
                if isinstance(site, Unfoldable):
                    decision.reason = site.reason
                elif not decision.reason:
                    decision.reason = self._why_not_movable(site)
                if isinstance(site, Site):
                    decision.map = site.affine
        movable = [decision for decision in self.decisions if not decision.reason]
        self._fold_all(movable, self._folds_before, "before")
        self._fold_all(movable[::-1], self._folds_after, "after")
        for decision in movable:
            if not decision.place and (self.network is None or decision.sites[0].module is not None):
                decision.place = "multiply-add" if isinstance(decision.map, Affine) else "convolution"

    def _fold_all(
        self, decisions: Sequence[Decision], propose: Callable[[Site], list[_Fold]], place: str
    ) -> None:
        """Folds in the given order until no more can be."""
        while True:
            proposals: dict[int, list[_Fold]] = {}
            waiting = [decision for decision in decisions if not decision.place]
            for decision in waiting:
                try:
                    folds = [fold for site in decision.sites for fold in propose(site)]  # type: ignore[arg-type]
                    proposals[id(decision)] = folds
                except BlockedError as error:
                    self._note(decision, place, str(error))
            folded = [d for d in waiting if id(d) in proposals and self._take(d, waiting, proposals, place)]
            if not folded:
                return

    def _take(
        self, first: Decision, waiting: Sequence[Decision], proposals: dict[int, list[_Fold]], place: str
    ) -> bool:
        """Folds a normaliser, if need be with those without which the layers' other uses would be wrong."""
        if first.place:
            return True
        changes = None
        for together in ([first], self._sharing(first, waiting, proposals)):
            try:
                changes = self._changes([fold for d in together for fold in proposals[id(d)]], place)
                break
            except BlockedError as error:
                reason = str(error)
        if changes is None:
            self._note(first, place, reason)
            return False
        self.changes.update(changes)
        for decision in together:
            decision.place, decision.reason = place, ""
            names = (self._name_of(fold.layer) for fold in proposals[id(decision)])
            decision.into = tuple(dict.fromkeys(names))
            for site in decision.sites:
                assert isinstance(site, Site)
                self._gone[site.result] = site
        return True

    def _sharing(
        self, first: Decision, waiting: Sequence[Decision], proposals: dict[int, list[_Fold]]
    ) -> list[Decision]:
        """A normaliser, and all that would go into the same layers, or into the same as those."""
        together = [first]
        for decision in together:  # grows
            needed = {key for fold in proposals[id(decision)] for key in self._keys(fold.layer)}
            for other in waiting:
                shares = any(needed & set(self._keys(f.layer)) for f in proposals.get(id(other), ()))
                if shares and other not in together and not other.place:
                    together.append(other)
        return together

    @staticmethod
    def _note(decision: Decision, place: str, reason: str) -> None:
        where = "into what is before it" if place == "before" else "into what is after it"
        known = [part for part in decision.reason.split("; ") if part and not part.startswith(where)]
        decision.reason = "; ".join([*known, f"{where}: {reason}"])

    # What takes a map in, on either side.

    def _folds_before(self, site: Site) -> list[_Fold]:
        return list(self._backwards(site.source, site.axis, site.affine, site.nodes))

    def _backwards(
        self, value: Node, axis: int, affine: ChannelMap, path: tuple[Node, ...]
    ) -> Iterable[_Fold]:
        """Layers that compute a value which nobody but the path reads."""
        others = [reader for reader in self.flow.readers(value) if reader not in path]
        site, layer = self._gone.get(value), layer_of(value)
        if value.op != "call_function":
            raise BlockedError(named(value))
        if others:
            what = self._name_of(layer) if layer is not None else named(value)
            raise BlockedError(f"{what} is also read by {named(others[0])}")
        if site is not None:
            yield from self._backwards(site.source, axis, affine, (*site.nodes, *path))
        elif layer is not None:
            taken = on_axis(axis, affine, layer.out_axis, shape_of(value)[layer.out_axis])
            if taken is None:
                raise BlockedError(f"{self._name_of(layer)} has its channels on another axis")
            yield self._checked(_Fold(layer, taken, (value, *path)))
        else:
            for part in before(value, axis, affine):
                yield from self._backwards(part.value, part.axis, part.affine, (value, *path))

    def _folds_after(self, site: Site) -> list[_Fold]:
        place = self._order[site.nodes[0]]
        memory = memory_of(site.source)
        for node in self.flow.graph.nodes:
            if self._order[node] > place and any(memory & memory_of(value) for value in written_by(node)):
                raise BlockedError(f"what it is given is overwritten by {named(node)}")
        return list(self._forwards(site.result, site.axis, site.affine, site.nodes))

    def _forwards(
        self, value: Node, axis: int, affine: ChannelMap, path: tuple[Node, ...]
    ) -> Iterable[_Fold]:
        """Layers that are all that reads a value."""
        readers = self.flow.readers(value)
        if not readers:
            raise BlockedError("nothing")
        for reader in readers:
            layer = layer_of(reader)
            site = next((site for site in self._gone.values() if reader in site.nodes), None)
            if site is not None:
                yield from self._forwards(site.result, axis, affine, (*path, *site.nodes))
            elif layer is not None:
                taken = on_axis(axis, affine, layer.in_axis, shape_of(value)[layer.in_axis])
                if layer.source is not value or value in (layer.weight, layer.bias) or taken is None:
                    raise BlockedError(f"{self._name_of(layer)} sums over other axes")
                yield self._checked(_Fold(layer, taken, (*path, reader)))
            elif reader.op != "call_function" or writes(reader):
                raise BlockedError(named(reader))
            else:
                carried = behind(reader, value, axis, affine)
                yield from self._forwards(reader, carried.axis, carried.affine, (*path, reader))

    # What must hold of a fold.

    def _checked(self, fold: _Fold) -> _Fold:
        layer, name = fold.layer, self._name_of(fold.layer)
        if layer.weight not in self.flow.names:
            raise BlockedError(f"the weight of {name} is computed in its forward")
        if layer.bias is not None and layer.bias not in self.flow.names:
            raise BlockedError(f"the bias of {name} is computed in its forward")
        share = fold.affine.channels // layer.groups
        if isinstance(fold.affine, BlockAffine) and share % fold.affine.size:
            raise BlockedError(
                f"{name} keeps groups of {share} channels apart, and the map mixes {fold.affine.size}"
            )
        around = [frozenset(calls_around(node)) for node in fold.path]
        crossed = frozenset().union(*around) - around[0].intersection(*around)
        hooked = sorted(where for _, where in crossed if where in self.hooked)
        if hooked:
            raise BlockedError(f"{hooked[0]} has hooks, which see what is in between")
        return fold

    def _why_not_movable(self, site: Site) -> str:
        """Why a module may not be taken out."""
        if self.unplaced:
            return f"{self.unplaced[0]} has hooks, and the trace does not show what they see"
        if site.module is None:
            return self.why_not_removable(site)
        if not site.module:
            return "it is the network itself: put it into a torch.nn.Sequential, where it can be replaced"
        if site.module in self.hooked:
            return "it has hooks"
        if site.module in self.used:
            return self.used[site.module]
        assert self.network is not None
        module = self.network.get_submodule(site.module)
        if type(module).__call__ is not nn.Module.__call__:
            return "its class has a __call__ of its own, which may do more than its forward"
        for node, name in self.flow.names.items():
            owner, _, tensor = name.rpartition(".")
            if self.network.get_submodule(owner) is not module:
                continue
            for reader in self.flow.readers(node):
                around = calls_around(reader)
                # under another name, it may be the same module
                if not around or self.network.get_submodule(around[-1][1]) is not module:
                    return f"its {tensor} is also read by {named(reader)}"
        return ""

    def _changes(self, folds: Sequence[_Fold], place: str) -> dict[str, LayerChange]:
        """The layers' changes, if every use of every tensor is given the same map."""
        given: dict[int, list[_Fold]] = {}
        for fold in folds:
            for key in self._keys(fold.layer):
                given.setdefault(key, []).append(fold)
        for key, parts in given.items():
            name = self._name_of(parts[0].layer)
            if not all(is_same(part.affine, parts[0].affine) for part in parts):
                raise BlockedError(f"{name} is used {len(parts)} times, with different maps")
            missing = self._uses[key] - {part.layer.node for part in parts}
            if missing:
                example = named(next(iter(missing)))
                raise BlockedError(f"{name} is used elsewhere too ({example}), where the map is another")
        changes: dict[str, LayerChange] = {}
        owners: dict[int, int] = {}  # of each bias's memory, the weight's
        for fold in folds:
            layer, change = fold.layer, self._change(fold, place)
            same = changes.setdefault(change.weight, change)
            if same.bias != change.bias:
                raise BlockedError(f"{self._name_of(layer)} is used with different biases")
            if place == "after" and same.padded != change.padded:
                raise BlockedError(f"{self._name_of(layer)} is used with different paddings")
            if layer.bias is not None:
                weight, bias = (_memory_of(self.flow.tensors[part]) for part in (layer.weight, layer.bias))
                if owners.setdefault(bias, weight) != weight:
                    raise BlockedError(f"the bias of {self._name_of(layer)} is that of another layer too")
            changes[change.weight] = change
        return changes

    def _change(self, fold: _Fold, place: str) -> LayerChange:
        layer, names = fold.layer, self.flow.names
        weight = names[layer.weight]
        bias = None if layer.bias is None else names[layer.bias]
        old = self.changes.get(weight, LayerChange(weight, bias, layer.groups, layer.transposed))
        inner, outer = old.before, old.after
        if place == "before":
            outer = fold.affine if outer is None else composed(outer, fold.affine)
        else:
            inner = fold.affine if inner is None else composed(fold.affine, inner)
        padded = old.padded if old.before is not None else not layer.sums_whole_kernel
        change = LayerChange(weight, bias, layer.groups, layer.transposed, inner, outer, padded)
        if place == "after":
            self._check_border(change, fold.layer)
        if bias is None and self.network is not None and self._needs_bias(change, layer):
            raise BlockedError(f"the call of {self._name_of(layer)} takes no bias")
        return change

    def _check_border(self, change: LayerChange, layer: Layer) -> None:
        assert change.before is not None
        if layer.sums_whole_kernel or not bool(change.before.shift.any()):
            return
        module = None if self.network is None else self.network.get_submodule(change.layer)
        name = self._name_of(layer)
        if (
            type(module) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d)
            or calls_around(layer.node)[-1][1] != change.layer
        ):
            raise BlockedError(f"the padding of {name}, which must be a convolution of torch's own class")

    def _needs_bias(self, change: LayerChange, layer: Layer) -> bool:
        if change.after is not None and bool(change.after.shift.any()):
            return True
        if change.before is None:
            return False
        weight = self.flow.tensors[layer.weight]
        shift = fold_before(weight, None, change.before, groups=layer.groups, transposed=layer.transposed)[1]
        return bool(shift.any())

    # Names, tensors and memory.

    def _name_of(self, layer: Layer | None) -> str:
        if layer is None:
            return "what is before it"
        name = self.flow.names.get(layer.weight)
        if name is not None:
            return name.rpartition(".")[0] or name
        around = calls_around(layer.node)
        return (around[-1][1] if around else "") or operator_of(layer.node)

    def _keys(self, layer: Layer) -> list[int]:
        parts = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        return [_memory_of(self.flow.tensors[part]) for part in parts if part in self.flow.tensors]

    def _uses_of_tensors(self) -> dict[int, set[Node]]:
        """Every node that reads a parameter, under all names that its memory has."""
        uses: dict[int, set[Node]] = {}
        for node, tensor in self.flow.tensors.items():
            found = uses.setdefault(_memory_of(tensor), set())
            for reader in self.flow.readers(node):
                users = self.flow.readers(reader)
                layers = [layer for layer in map(layer_of, users) if layer is not None]
                if layers and len(layers) == len(users) and all(layer.weight is node for layer in layers):
                    found.update(users)  # through the transposed weight of a decomposed program
                else:
                    found.add(reader)
        return uses


def _memory_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr() or id(tensor)
