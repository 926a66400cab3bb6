"""The fingerprint: facts measured on a raw dataset, from which everything else is planned."""

from autospine.fingerprint.facts import (
    FORMAT_VERSION,
    CaseFacts,
    ClassFacts,
    Fingerprint,
    IntensityFacts,
    SiteFacts,
    StructureFacts,
    read_fingerprint,
)
from autospine.fingerprint.group_statistics import GroupStatistics, find_warnings, group_statistics
from autospine.fingerprint.measurement import dataset_key, measure

__all__ = [
    "FORMAT_VERSION",
    "CaseFacts",
    "ClassFacts",
    "Fingerprint",
    "GroupStatistics",
    "IntensityFacts",
    "SiteFacts",
    "StructureFacts",
    "dataset_key",
    "find_warnings",
    "group_statistics",
    "measure",
    "read_fingerprint",
]
