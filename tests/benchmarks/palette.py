"""The colours of labels: how far apart they are, and a search for others.

    python tests/benchmarks/palette.py            # the smallest differences of the colours that there are
    python tests/benchmarks/palette.py --search   # other colours, in some minutes
    python tests/benchmarks/palette.py --search --free disc canal   # of these labels alone

The search is simulated annealing over a grid of sRGB: one label after another is drawn among the colours
that suit it, the likelier the less it falls short of the wanted differences. It begins with the colours that
there are, or with `--anew` at random, and takes several runs (`--seed`) until nothing is missing.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from skimage.color import rgb2lab

sys.path.insert(0, str(Path(__file__).parents[1]))
from colour_difference import BLINDNESS, differences, seen_with
from unit.core.test_colours import EVERYTHING, beside, near

from autospine.core.colours import class_colours

WANTED = (20.0, 8.0)
"""CIEDE2000 between labels within three levels, and between any two."""

WANTED_BLIND = (10.0, 5.0)
"""The same for the red-green blind."""

SPARE = 1.01
"""The search aims this much higher, since the grid is coarse."""

SHADES = 18
"""Steps of red, green and blue."""


def report() -> dict[str, float]:
    """The smallest differences of the colours that there are."""
    colours = np.array(list(class_colours(EVERYTHING).values()))
    pairs = [(i, j) for i in range(len(EVERYTHING)) for j in range(i) if beside(EVERYTHING[i], EVERYTHING[j])]
    close = [(i, j) for i, j in pairs if near(EVERYTHING[i], EVERYTHING[j])]
    found: dict[str, float] = {}
    for name, seen in (("all", colours), *((name, seen_with(colours, name)) for name in BLINDNESS)):
        apart = differences(seen)
        found[f"{name}_within_three_levels"] = round(min(float(apart[pair]) for pair in close), 2)
        found[f"{name}_any_two"] = round(min(float(apart[pair]) for pair in pairs), 2)
    return found


def suitable(name: str, candidates: np.ndarray) -> np.ndarray:
    """Indices of the colours that a label may have: discs are pale, the cord is nearly white."""
    lab = rgb2lab(candidates[None])[0]
    light, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    if name == "cord":
        fits = (light > 86) & (chroma < 18)
    elif name == "canal":
        fits = (light > 40) & (light < 66) & (chroma > 60) & (candidates[:, 0] > 0.8)
    elif name.startswith("disc"):
        fits = (light > 55) & (chroma < 70)
    else:
        fits = (light > 41) & (light < 92) & (chroma > 28)
    return np.flatnonzero(fits)


def search(seed: int, sweeps: int, free: Sequence[str], *, anew: bool) -> None:
    """Print the best colours that a run of the annealing finds for the free labels, and what is missing."""
    shades = np.linspace(0, 1, SHADES)
    present = np.array(list(class_colours(EVERYTHING).values()))
    candidates = np.concatenate([np.array(list(itertools.product(shades, repeat=3))), present])
    apart = [differences(candidates)] + [differences(seen_with(candidates, name)) for name in BLINDNESS]
    wanted = [WANTED] + [WANTED_BLIND] * len(BLINDNESS)
    close = np.array([[near(a, b) for b in EVERYTHING] for a in EVERYTHING])
    both = np.array([[beside(a, b) for b in EVERYTHING] for a in EVERYTHING])
    needs = [SPARE * both * np.where(close, *each) for each in wanted]
    allowed = [suitable(name, candidates) for name in EVERYTHING]
    rng = np.random.default_rng(seed)
    drawn = [EVERYTHING.index(name) for name in free or EVERYTHING]
    chosen = np.arange(len(candidates) - len(present), len(candidates))
    if anew:
        chosen[drawn] = [rng.choice(allowed[label]) for label in drawn]
    others = ~np.eye(len(EVERYTHING), dtype=bool)

    def missing(label: int, colours: np.ndarray) -> np.ndarray:
        """Squared shortfall of each of some colours for a label, among the colours of the others."""
        rest = chosen[others[label]]
        return sum(
            np.clip(need[label, others[label]] - far[np.ix_(colours, rest)], 0, None).__pow__(2).sum(axis=1)
            for need, far in zip(needs, apart, strict=True)
        )

    best, least, temperature = chosen.copy(), np.inf, 30.0 if anew else 1.0
    for sweep in range(sweeps):
        for label in rng.permutation(drawn):
            short = missing(label, allowed[label])
            likely = np.exp(-(short - short.min()) / temperature)
            chosen[label] = allowed[label][rng.choice(len(short), p=likely / likely.sum())]
        temperature = max(1e-4, 0.975 * temperature)
        total = sum(float(missing(label, chosen[[label]])[0]) for label in range(len(EVERYTHING))) / 2
        if total < least:
            best, least = chosen.copy(), total
        if sweep % 50 == 0:
            print(f"sweep {sweep}: {least:.3f} missing", file=sys.stderr)  # noqa: T201
        if least == 0:
            break
    codes = ["".join(f"{round(255 * part):02x}" for part in candidates[index]) for index in best]
    found = {"missing": round(least, 4), **dict(zip(EVERYTHING, codes, strict=True))}
    print(json.dumps(found, indent=1))  # noqa: T201


def main() -> None:
    """Measure the colours, or search others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--anew", action="store_true", help="begin with colours at random")
    parser.add_argument(
        "--free", nargs="+", default=[], choices=EVERYTHING, metavar="LABEL", help="hold all other colours"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sweeps", type=int, default=400)
    given = parser.parse_args()
    if given.search:
        search(given.seed, given.sweeps, given.free, anew=given.anew)
    else:
        print(json.dumps(report()))  # noqa: T201 (a script's result)


if __name__ == "__main__":
    main()
