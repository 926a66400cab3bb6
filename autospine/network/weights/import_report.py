"""The report of an import: what became of every tensor."""

from dataclasses import dataclass
from typing import Literal

from autospine.network.weights.names import Layout

StackingOrder = Literal["fixed", "legacy", "v2"]
"""Order of the tokens in a merging: MONAI's `merging` since 1.5, the same up to 1.4, and `mergingv2`."""

REORDERED = "tokens put in another order"
"""The conversion of a merging that changes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """Result of an import, tensor by tensor; each tensor of the network is in one of the lists."""

    layout: Layout
    """Names that the file uses."""

    merge_order: StackingOrder
    """Order in which the mergings of the file stack tokens."""

    merge_reason: str
    """Why it was taken for that."""

    matched: tuple[str, ...]
    """The network's tensors that were filled as they are in the file."""

    converted: dict[str, str]
    """Those that were filled with something else than the file's values -> what was done."""

    missing: tuple[str, ...]
    """Those that the file does not fill, though MONAI's network has them; they keep their values."""

    own: tuple[str, ...]
    """Those that MONAI's network has not, of fusion and adaptive attention; they keep their values."""

    unused: tuple[str, ...]
    """Keys of the file that have no place in the network."""

    @property
    def differences(self) -> tuple[str, ...]:
        """Why the network does not compute what the file's network did; empty where it does.

        Clamped windows aside, which are read as MONAI does with `legacy_bias_slice` only.
        """
        found = [how for how in dict.fromkeys(self.converted.values()) if how != REORDERED]
        blocks = sum(is_encoder(name) for name in self.missing)
        found += [f"{blocks} of the encoder's tensors begin at random"] if blocks else []
        rest = len(self.missing) - blocks
        return (*found, *([f"{rest} tensors beyond the encoder begin at random"] if rest else []))

    @property
    def filled(self) -> tuple[str, ...]:
        """The network's tensors that have the file's weights."""
        return (*self.matched, *self.converted)

    @property
    def encoder_share(self) -> float:
        """Filled share of the encoder's tensors that MONAI's network has too."""
        filled = sum(is_encoder(name) for name in self.filled)
        return filled / (filled + sum(is_encoder(name) for name in self.missing))


def is_encoder(name: str) -> bool:
    """Return whether a tensor of the network is one of its encoder."""
    return name.startswith(("embedding.", "stages."))
