"""The tissues that a map is made of, and what each looks like in CT and in MR.

CT in HU, from medians measured on public scans. MR as T1-weighted and T2-weighted signals in units of the
cerebrospinal fluid of a T2-weighted image, from which other sequences are derived.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Tissue:
    """The average appearance of one tissue; spreads are those of its texture."""

    hu: float
    """Mean in CT, HU."""
    hu_spread: float
    """Standard deviation of the texture in CT, HU."""
    t1: float
    """T1-weighted signal; cerebrospinal fluid on T2-weighted images is 1."""
    t1_spread: float
    """Standard deviation of the texture of the T1-weighted signal."""
    t2: float
    """T2-weighted signal, same unit."""
    t2_spread: float
    """Standard deviation of the texture of the T2-weighted signal."""
    fat: float = 0.0
    """Share of the signal that comes from fat, 0 to 1."""


# HU and its spread, T1w and its spread, T2w and its spread, share of fat.
_ROWS: dict[str, tuple[float, ...]] = {
    "air": (-1000, 0, 0.0, 0, 0.0, 0, 0),
    "gas": (-900, 30, 0.02, 0, 0.02, 0, 0),
    "lung": (-800, 60, 0.05, 0.02, 0.05, 0.02, 0),
    "skin": (20, 15, 0.35, 0.03, 0.25, 0.03, 0.2),
    "fat": (-100, 11, 0.95, 0.06, 0.66, 0.06, 0.95),
    "muscle": (52, 14, 0.32, 0.025, 0.13, 0.025, 0.03),
    "bowel": (28, 18, 0.33, 0.06, 0.34, 0.09, 0),
    "fluid": (10, 5, 0.16, 0.02, 0.9, 0.03, 0),
    "liver": (56, 8, 0.45, 0.02, 0.20, 0.02, 0.05),
    "kidney": (34, 8, 0.36, 0.04, 0.42, 0.05, 0),
    "blood": (42, 5, 0.08, 0.03, 0.04, 0.02, 0),
    "wall": (40, 8, 0.3, 0.03, 0.2, 0.03, 0.02),
    "brain": (36, 5, 0.42, 0.03, 0.4, 0.04, 0),
    "ligament": (80, 12, 0.10, 0.02, 0.07, 0.02, 0),
    "epidural": (-70, 12, 0.85, 0.05, 0.58, 0.05, 0.85),
    "csf": (6, 4, 0.15, 0.02, 1.0, 0.04, 0),
    "cord": (36, 4, 0.38, 0.02, 0.37, 0.02, 0),
    "annulus": (92, 10, 0.24, 0.02, 0.13, 0.02, 0),
    "nucleus": (72, 8, 0.31, 0.03, 0.56, 0.05, 0),
    "cortical": (1050, 120, 0.06, 0.01, 0.05, 0.01, 0),
    "marrow_C": (300, 66, 0.56, 0.056, 0.36, 0.036, 0.4),
    "marrow_T": (161, 44, 0.56, 0.056, 0.36, 0.036, 0.45),
    "marrow_L": (108, 35, 0.56, 0.056, 0.36, 0.036, 0.5),
    "marrow_S": (78, 30, 0.56, 0.056, 0.36, 0.036, 0.55),
    "enamel": (2400, 150, 0.03, 0, 0.03, 0, 0),
    "dentine": (1500, 120, 0.05, 0.01, 0.04, 0.01, 0),
    "cartilage": (105, 14, 0.28, 0.03, 0.22, 0.03, 0),
    "tumour": (55, 14, 0.3, 0.03, 0.42, 0.06, 0),
    "sclerosis": (620, 130, 0.12, 0.03, 0.1, 0.03, 0.05),
    "cement": (1700, 350, 0.02, 0, 0.02, 0, 0),
    "contrast_agent": (330, 60, 0.6, 0.06, 0.3, 0.06, 0),
    "catheter": (350, 30, 0.03, 0, 0.03, 0, 0),
    "calcium": (700, 150, 0.05, 0, 0.03, 0, 0),
    "table_shell": (-60, 20, 0, 0, 0, 0, 0),
    "table_foam": (-930, 8, 0, 0, 0, 0, 0),
    "metal": (5000, 0, 0, 0, 0, 0, 0),
    "metal_rim": (40, 10, 1.24, 0.08, 0.86, 0.08, 0.5),
}

TISSUES: dict[str, Tissue] = {
    name: Tissue(
        hu=row[0],
        hu_spread=row[1],
        t1=row[2],
        t1_spread=row[3],
        t2=row[4],
        t2_spread=row[5],
        fat=row[6],
    )
    for name, row in _ROWS.items()
}
"""Every tissue by name; the order is that of the codes in a phantom's map."""

CODES: dict[str, int] = {name: code for code, name in enumerate(TISSUES)}
"""Code of every tissue in a phantom's map."""

MARROW: dict[str, str] = {region: f"marrow_{region}" for region in "CTLS"}
"""Cancellous bone with its marrow, by region of the spine."""

# Names of structures in multi-structure label maps (TotalSegmentator's, mostly), and the tissue that each is
# drawn as; the first pattern that is found in the name decides.
_STRUCTURES: tuple[tuple[str, str], ...] = (
    (r"background|^air$|outside", "air"),
    (r"disc|ivd", "annulus"),
    (r"cord", "cord"),
    (r"canal|csf|thecal", "csf"),
    (r"^c\d|vertebrae?_c\d|skull|mandible|tooth|teeth|hyoid", "marrow_C"),
    (r"^t\d|vertebrae?_t\d|rib|sternum|clavicul|clavicle|scapula|humerus", "marrow_T"),
    (r"cartilage", "cartilage"),
    (r"tumou?r|metastasis|lesion", "tumour"),
    (r"^l\d|vertebra|femur", "marrow_L"),
    (r"sacrum|^s1$|hip|pelvis|coccyx|ilium|bone", "marrow_S"),
    (r"lung", "lung"),
    (r"trachea|airway|gas", "gas"),
    (r"aorta|vena|vein|artery|heart|atri|ventricle|vessel|brachiocephalic|carotid|subclavian", "blood"),
    (r"liver|spleen|pancreas|adrenal|prostate|thyroid", "liver"),
    (r"kidney", "kidney"),
    (r"bladder|cyst", "fluid"),
    (r"stomach|bowel|colon|duodenum|rectum", "bowel"),
    (r"esophagus|oesophagus", "wall"),
    (r"brain", "brain"),
    (r"skin", "skin"),
    (r"fat", "fat"),
    (r"muscle|autochthon|iliopsoas|gluteus|psoas", "muscle"),
    (r"metal|implant|screw", "metal"),
)


def tissue_of(structure: str) -> str | None:
    """Return the tissue that a structure of a label map is drawn as, by its name; None if it is not known."""
    name = structure.lower()
    if structure in TISSUES:
        return structure
    return next((tissue for pattern, tissue in _STRUCTURES if re.search(pattern, name)), None)
