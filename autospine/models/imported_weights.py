"""Imported weights on disk, which the folds of a training start from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autospine.core.errors import FormatError, PlanError
from autospine.network.swin.swin_unetr import AdaptiveSwinUNETR
from autospine.network.weights.import_report import ImportReport
from autospine.plan import Configuration, Plan
from autospine.storage.digest import digest_of
from autospine.storage.serialization import to_json
from autospine.storage.tensors import load_tensors, save_tensors

KIND = "imported weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedWeights:
    """Weights that `save_imported` has written."""

    tensors: dict[str, Tensor]
    """The network's tensors that were imported, by name."""

    digest: str
    """Digest of the tensors: two files with equal digests start a training alike."""

    source: str
    """Name of the file that they were imported from."""

    fits: str
    """Digest of the network that they were imported for."""

    path: Path

    def check(self, plan: Plan, configuration: Configuration) -> None:
        """Refuse the weights for another network than they were imported for.

        Raises:
            PlanError: If it is another network.
        """
        if self.fits != _network_digest(plan, configuration):
            raise PlanError(
                f"expected weights for the network of configuration {configuration.name!r} in {self.path}, "
                f"found some for another network; run `autospine model import-weights {self.source}` again"
            )


def save_imported(
    path: Path,
    network: AdaptiveSwinUNETR,
    report: ImportReport,
    *,
    plan: Plan,
    configuration: Configuration,
    source: str,
) -> None:
    """Write what an import has filled, so that the file is either complete or unchanged.

    Args:
        path: File to write, which ends in `.safetensors`.
        network: The configuration's network, filled.
        report: Report of the import.
        plan: Plan of the configuration.
        configuration: Configuration that the weights are for.
        source: Name of the file that was imported.
    """
    state = network.state_dict()
    tensors = {name: state[name] for name in report.filled}
    facts = {
        "kind": KIND,
        "source": source,
        "layout": report.layout,
        "merge_order": report.merge_order,
        "converted": report.converted,
        "missing": report.missing,
        "unused": report.unused,
        "digest": digest(tensors),
        "network": _network_digest(plan, configuration),
    }
    save_tensors(path, tensors, facts)


def load_imported(path: Path) -> ImportedWeights:
    """Read the weights that `save_imported` wrote.

    Raises:
        FormatError: If it is another file, or damaged.
    """
    mend = "give a model folder, or the file that `autospine model import-weights` has written"
    if not path.is_file():
        raise FormatError(f"expected imported weights at {path}, found none; {mend}")
    try:
        tensors, facts = load_tensors(path)
    except FormatError:
        raise FormatError(
            f"expected imported weights in {path}, found another or a damaged file; {mend}"
        ) from None
    if facts.get("kind") != KIND:
        raise FormatError(f"expected imported weights in {path}, found other tensors; {mend}")
    return ImportedWeights(
        tensors=tensors,
        digest=str(facts["digest"]),
        source=str(facts["source"]),
        fits=str(facts["network"]),
        path=path,
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of the names and values of tensors."""
    return digest_of(
        part
        for name in sorted(tensors)
        for part in (
            name.encode(),
            tensors[name].detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes(),
        )
    )


def _network_digest(plan: Plan, configuration: Configuration) -> str:
    """Digest of all that decides names, shapes and meaning of the network's tensors."""
    parts = (to_json(configuration.network), to_json((plan.channels, plan.labels.n_channels)))
    return digest_of(["\n".join(parts).encode()])
