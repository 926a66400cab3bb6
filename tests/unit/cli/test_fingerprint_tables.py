from dataclasses import replace

from unit.planners import facts

from autospine.cli.fingerprint_tables import show_fingerprint


def test_long_names_of_cases_and_sites_are_whole_in_a_pipe(capsys):
    measured = facts.fingerprint([((40, 50, 60), (1, 1, 1))] * 2, [8.0])
    site = "hospital-" + "0123456789" * 9
    cases = tuple(
        replace(case, name=f"sub-{'abc' * 20}-{i}", site=site) for i, case in enumerate(measured.cases)
    )
    show_fingerprint(replace(measured, cases=cases))
    shown = capsys.readouterr().out
    for case in cases:
        assert f"{case.name}  CT        {site}  " in shown
