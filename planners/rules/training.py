"""Intensities, mirroring and the recipe."""

from autospine.fingerprint import Fingerprint
from autospine.labels import LabelSpace
from autospine.plan import Normalisation
from autospine.types import Modality


def normalisation(fingerprint: Fingerprint) -> tuple[dict[Modality, Normalisation], str]:
    """CT by the dataset's foreground, where HU mean the same everywhere; MR by each image's own."""
    facts = fingerprint.intensities.get("CT")
    ct = (
        Normalisation(
            scope="dataset",
            lower=facts.percentile_00_5,
            upper=facts.percentile_99_5,
            mean=facts.mean,
            std=max(facts.std, 1.0),
        )
        if facts
        # Vertebrae in public CT: median 115 to 350 HU, cortex to about 1200.
        else Normalisation(scope="dataset", lower=-150.0, upper=1200.0, mean=250.0, std=250.0)
    )
    mr = Normalisation(scope="image", lower=0.005, upper=0.995, mean=0.0, std=1.0)
    reason = (
        f"CT: foreground percentiles 0.5 and 99.5 ({ct.lower:.0f} ... {ct.upper:.0f} HU)"
        if facts
        else "no CT here: usual range of vertebrae"
    )
    return {
        "CT": ct,
        "MR": mr,
    }, f"{reason}; MR: each image's own 0.5 and 99.5 % quantiles, mean and deviation"


def mirroring(labels: LabelSpace) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], str]:
    """Left/right flips, with side-specific labels changing places; never upside down or front to back."""
    index = {integer: i for i, integer in enumerate(labels.integers, start=1)}
    names = {name.lower(): i for i, name in enumerate(labels.names)}
    pairs: list[tuple[int, int]] = []
    single: list[str] = []
    for name, i in names.items():
        if "left" not in name and "right" not in name:
            continue
        other = names.get(name.replace("left", "right") if "left" in name else name.replace("right", "left"))
        if other is None or len(labels.members[i]) != len(labels.members[other]):
            single.append(name)
        elif i < other:
            pairs.extend(
                (index[a], index[b])
                for a, b in zip(labels.members[i], labels.members[other], strict=True)
                if a != b
            )
    if single:
        return (), (), f"off: {', '.join(single)} has no counterpart on the other side"
    swapped = f", {len(pairs)} pairs of side-specific labels change places" if pairs else ""
    return (2,), tuple(pairs), f"left/right only{swapped}; the other flips do not occur in patients"
