"""The fingerprint: what is measured on a raw dataset before anything is decided."""

from autospine.fingerprint.facts import (
    FORMAT_VERSION,
    CaseFacts,
    ClassFacts,
    Fingerprint,
    IntensityFacts,
    Percentiles,
    SiteFacts,
    StructureFacts,
)
from autospine.fingerprint.measurement import dataset_key, measure
from autospine.fingerprint.summary import Spread, Summary, find_warnings, summarise

__all__ = [
    "FORMAT_VERSION",
    "CaseFacts",
    "ClassFacts",
    "Fingerprint",
    "IntensityFacts",
    "Percentiles",
    "SiteFacts",
    "Spread",
    "StructureFacts",
    "Summary",
    "dataset_key",
    "find_warnings",
    "measure",
    "summarise",
]
