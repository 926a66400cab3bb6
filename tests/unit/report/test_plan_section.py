import re

from autospine.fingerprint.facts import (
    FORMAT_VERSION,
    CaseFacts,
    ClassFacts,
    Fingerprint,
    IntensityFacts,
    SiteFacts,
    StructureFacts,
)
from autospine.report.plan_section import dataset_section


def measured() -> Fingerprint:
    intensities = IntensityFacts(
        cases=2,
        mean=200.0,
        std=50.0,
        percentile_00_5=-20.0,
        percentile_25=150.0,
        median=190.0,
        percentile_75=260.0,
        percentile_99_5=900.0,
    )
    cases = tuple(
        CaseFacts(
            name=f"case_{n}",
            modality="CT",
            site="Bern",
            subject="same",
            shape=(10, 20, 30),
            spacing_mm=(2.0, 1.0, 1.0),
            structures=(StructureFacts(voxels=500, thickness_mm=8.0), None),
            spine_mm=20.0,
        )
        for n in range(2)
    )
    return Fingerprint(
        format_version=FORMAT_VERSION,
        dataset="Dataset001_Small",
        key="k",
        cases=cases,
        classes=(
            ClassFacts(name="L1", cases=2, volume_ml=1.0, thickness_mm=8.0),
            ClassFacts(name="never", cases=0, volume_ml=0.0, thickness_mm=None),
        ),
        intensities={"CT": intensities},
        sites=(SiteFacts(modality="CT", site="Bern", intensities=intensities),),
        duplicates=(("case_0", "case_1"),),
    )


def test_a_dataset_at_a_glance():
    section = dataset_section(measured(), {"case_7": "its labels are cut", "case_9": ""})
    facts = {fact.name: fact.value for fact in section.facts}
    assert facts == {"cases": "2", "subjects": "1", "modality and site": "2 CT Bern"}
    assert section.notes == (
        "No case has never: this cannot be learnt.",
        "case_0, case_1 show the same image, or nearly so; they stay on one side of every split.",
        "case_7 is excluded: its labels are cut.",
        "case_9 is excluded: no reason is given.",
    )
    spacing, volume = (figure.svg for figure in section.figures)
    assert re.findall(r"CT, superior: ([\d.]+) mm", spacing) == ["2", "2"]
    assert re.findall(r"L1: ([\d.]+) ml", volume) == ["1", "1"]
    assert "data-case" not in spacing + volume  # the cases are not in the report
    classes, intensities = section.tables
    assert classes.rows[1] == ("never", "0", "0", "–")
    assert [row[0] for row in intensities.rows] == ["CT", "CT, Bern"]
