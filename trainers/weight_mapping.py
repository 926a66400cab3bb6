"""Weights of a trained model for other channels and classes, matched by their names, not by their places."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nan

from autospine.core.colours import structure_named, structure_of
from autospine.core.labels import LabelSpace
from autospine.core.modality import modality_of_channels
from autospine.plan import Configuration, Plan, build_network

Places = tuple[int | None, ...]
"""For each channel or class of the network to fill, its place in the model; None where the model lacks it."""

HEAD = "head."
"""Prefix of the names of the tensors in the last layer, which turns features into logits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightMapping:
    """Which channels and classes of a trained model stand for those of the network to fill."""

    source: Plan
    """Plan of the model."""

    target: Plan
    """Plan of the network to fill."""

    @property
    def inputs(self) -> Places | None:
        """Places of the channels; None if one has no counterpart, so that what reads them is drawn at random.

        A single channel is taken for a single one of another name.
        """
        ours, theirs = self.target.channels, self.source.channels
        if len(ours) == len(theirs) == 1:
            return (0,)
        places = _places(ours, theirs)
        return None if None in places else places

    @property
    def outputs(self) -> Places | None:
        """Places of the classes; None if no class but the background has a counterpart."""
        ours, theirs = self.target.labels, self.source.labels
        if ours == theirs:
            return tuple(range(ours.n_channels))
        if ours.regions != theirs.regions or all(
            place is None for place in _places_of_classes(ours.names, theirs.names)
        ):
            return None
        return _places_of_classes(ours.channel_names, theirs.channel_names)

    @property
    def splits_classes(self) -> bool:
        """Whether the network has to tell classes apart that the model takes for one, such as levels."""
        taken = [place for place in self.outputs or () if place is not None]
        return len(taken) > len({*taken})

    def apply(self, tensors: Mapping[str, Tensor], configuration: Configuration) -> dict[str, Tensor]:
        """Return a model's tensors by name, with channels and classes in the order of the network to fill.

        Rows of classes that the model lacks are NaN, which stands for values that are drawn at random. Left
        out are tensors that depend on channels or classes and cannot be taken apart.

        Args:
            tensors: Tensors of the model.
            configuration: Configuration of the network to fill.
        """
        mapped = dict(tensors)
        plan = self.target
        if self.inputs != tuple(range(len(self.source.channels))):
            more = replace(plan, channels=(*plan.channels, "another"))
            axes = _grown_axes(plan, more, configuration, len(plan.channels))
            _pick(mapped, axes or _reading_channels(mapped, len(self.source.channels)), self.inputs)
        if self.outputs != tuple(range(self.source.labels.n_channels)):
            more = replace(plan, labels=_with_another(plan.labels))
            axes = _grown_axes(plan, more, configuration, plan.labels.n_channels)
            _pick(mapped, axes or _writing_classes(mapped, self.source.labels.n_channels), self.outputs)
        return mapped

    def notes(self) -> list[str]:
        """Say in what the model's channels, classes and modality differ, and what became of that."""
        return [*self._notes_on_channels(), *self._notes_on_classes()]

    def _notes_on_channels(self) -> list[str]:
        ours, theirs = self.target.channels, self.source.channels
        names = f"its channels are {', '.join(theirs)}, those of this dataset {', '.join(ours)}"
        notes = []
        if self.inputs is None:
            notes.append(f"{names}: the weights that read them begin at random")
        elif self.inputs != tuple(range(len(theirs))):
            notes.append(f"{names}: they are taken by name")
        elif _plain(ours[0]) != _plain(theirs[0]):
            notes.append(f"its channel is {theirs[0]}, that of this dataset {ours[0]}: it is taken as it is")
        modality, before = modality_of_channels(ours), modality_of_channels(theirs)
        if None not in (modality, before) and modality != before:
            notes.append(f"it was trained on {before}, this dataset is {modality}")
        return notes

    def _notes_on_classes(self) -> list[str]:
        ours, theirs = self.target.labels, self.source.labels
        if ours == theirs:
            return []
        if self.outputs is None:
            kinds = "regions and classes" if ours.regions != theirs.regions else ", ".join(theirs.names)
            return [f"none of its classes is taken ({kinds})"]
        named = _places(ours.names, theirs.names)
        places = dict(zip(ours.names, _places_of_classes(ours.names, theirs.names), strict=True))
        known = [name for name, place in zip(ours.names, named, strict=True) if place is not None]
        like = {
            name: [each for each in ours.names if each not in known and places[each] == place]
            for place, name in enumerate(theirs.names)
        }
        new = [name for name, place in places.items() if place is None]
        parts = [f"its classes {', '.join(known)} are taken by name"] if known else []
        parts += [f"{', '.join(levels)} begin as its {name}" for name, levels in like.items() if levels]
        parts += [f"{', '.join(new)} begin at random"] if new else []
        return [", and ".join(parts)]


def _places(ours: Sequence[str], theirs: Sequence[str]) -> Places:
    """Find each of our names among theirs; names that occur twice stand for nothing but themselves."""
    plain, other = [_plain(name) for name in ours], [_plain(name) for name in theirs]
    if plain == other:
        return tuple(range(len(ours)))
    return tuple(other.index(name) if other.count(name) == plain.count(name) == 1 else None for name in plain)


def _places_of_classes(ours: Sequence[str], theirs: Sequence[str]) -> Places:
    """Find each of our classes among theirs by name, else by the structure that it is one level of.

    `L1` begins as the `vertebra` of a model that does not tell levels apart.
    """
    structures = [structure_named(name) for name in theirs]
    return tuple(
        structures.index(structure)
        if place is None
        and (structure := structure_of(name)) is not None
        and structures.count(structure) == 1
        else place
        for name, place in zip(ours, _places(ours, theirs), strict=True)
    )


def _plain(name: str) -> str:
    """Return a name without what people write in different ways: case, underscores, composed characters."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name).casefold()).strip()


def _with_another(labels: LabelSpace) -> LabelSpace:
    """Return the label space with one more class."""
    integer = max(labels.known) + 1
    return replace(
        labels,
        names=(*labels.names, "another"),
        members=(*labels.members, (integer,)),
        painted=(*labels.painted, integer),
    )


def _grown_axes(plan: Plan, more: Plan, configuration: Configuration, n: int) -> dict[str, int | None]:
    """Find the axis along which each tensor of a network has one channel or class after the other.

    The network is built a second time with one more of them, without memory for its weights.

    Args:
        plan: Plan of the network.
        more: The same with one channel or class more.
        configuration: Configuration of the network.
        n: Number of channels or classes in `plan`.

    Returns:
        The axis by the name of the tensor, None where it is no simple one; other tensors do not depend on
        them. Nothing at all if the network cannot be built like this.
    """
    try:
        with torch.device("meta"):
            small = build_network(plan, configuration).state_dict()
            large = build_network(more, configuration).state_dict()
    except Exception:  # a network of another distribution may refuse either
        return {}
    found: dict[str, int | None] = {}
    for name, tensor in small.items():
        other = large[name].shape if name in large else torch.Size()
        if tensor.shape == other:
            continue
        axes = [axis for axis, pair in enumerate(zip(tensor.shape, other, strict=False)) if len({*pair}) > 1]
        simple = len(tensor.shape) == len(other) and len(axes) == 1
        simple = simple and (tensor.shape[axes[0]], other[axes[0]]) == (n, n + 1)
        found[name] = axes[0] if simple else None
    return found


def _reading_channels(tensors: Mapping[str, Tensor], n: int) -> dict[str, int | None]:
    """Name the tensors that may read the image, where that cannot be found out."""
    return {name: None for name, tensor in tensors.items() if tensor.ndim > 1 and tensor.shape[1] == n}


def _writing_classes(tensors: Mapping[str, Tensor], n: int) -> dict[str, int | None]:
    """Name the tensors that may write the logits, where that cannot be found out."""
    heads: dict[str, int | None] = {name: None for name in tensors if name.startswith(HEAD)}
    return heads or {name: None for name, tensor in tensors.items() if tensor.ndim and tensor.shape[0] == n}


def _pick(tensors: dict[str, Tensor], axes: Mapping[str, int | None], places: Places | None) -> None:
    """Put channels or classes into our order in the tensors that depend on them; leave out what cannot be."""
    for name in axes.keys() & tensors.keys():
        tensor, axis = tensors.pop(name), axes[name]
        if axis is None or places is None or tensor.ndim <= axis:
            continue
        if max(place or 0 for place in places) >= tensor.shape[axis] or not tensor.is_floating_point():
            continue
        picked = tensor.index_select(axis, torch.tensor([place or 0 for place in places]))
        for row, place in enumerate(places):
            if place is None:
                picked.narrow(axis, row, 1).fill_(nan)
        tensors[name] = picked
