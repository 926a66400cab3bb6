import os
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autospine.core.errors import PlanError
from autospine.system import hardware
from autospine.system.hardware import cores, free_memory, has_kernels, parse_bytes

UNITS = {"": 1024**3, "G": 1024**3, "M": 1024**2, "T": 1024**4}


@given(
    st.integers(1, 10**4),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(["", "B", "iB"]),
    st.sampled_from(["", " "]),
    st.booleans(),
)
def test_amounts_of_memory_are_understood(amount, unit, suffix, space, lower):
    text = f"{space}{amount}{space}{unit}{suffix}"
    assert parse_bytes(text.lower() if lower else text) == amount * UNITS[unit]


def test_fractions_are_understood():
    assert parse_bytes("1.5GB") == 3 * 1024**3 // 2
    assert parse_bytes("0.5") == 1024**3 // 2


@pytest.mark.parametrize(
    "text", ["", "GB", "0", "0GB", "0.0000000000001GB", "-1GB", "8KB", "8 gigabytes", "1e3", "8GB 2", "."]
)
def test_anything_else_is_no_amount_of_memory(text):
    with pytest.raises(PlanError, match="amount of memory such as 8GB"):
        parse_bytes(text)


def test_no_more_is_counted_than_the_machine_has():
    assert 1 <= cores() <= os.cpu_count()
    assert 0 <= free_memory() <= psutil.virtual_memory().total


@pytest.fixture
def control_group(tmp_path, monkeypatch):
    """Writes what a control group says; the machine has 64 GB free."""
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * 10**9))

    def write(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / f"memory.{name}").write_text(f"{text}\n")

    return write


def test_files_that_were_read_do_not_take_memory_away(control_group):
    control_group(max="8000000000", current="7900000000")
    assert free_memory() == 100_000_000
    control_group(stat="anon 900000000\nfile 7000000000\ninactive_file 5000000000\nactive_file 2000000000")
    assert free_memory() == 7_100_000_000
    control_group(stat="anon 900000000")
    assert free_memory() == 100_000_000


def test_a_control_group_allows_no_more_than_is_free(control_group):
    assert free_memory() == 64 * 10**9
    control_group(max="max", current="1")
    assert free_memory() == 64 * 10**9
    control_group(max="100000000000", current="1")
    assert free_memory() == 64 * 10**9
    control_group(max="8000000000", current="8000000001")
    assert free_memory() == 0


@pytest.mark.parametrize(
    ("files", "counted"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "370000 100000"}, 3),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "0"}, 8),
        ({"cpu/cpu.cfs_quota_us": "250000"}, 8),
    ],
)
def test_cores_are_those_that_the_control_group_allows(tmp_path, monkeypatch, files, counted):
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(hardware, "bound_cores", lambda: 8)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert cores() == counted


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A process in a job of a cluster: writes what its control groups say, below the root that it sees."""
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path / "groups")
    monkeypatch.setattr(hardware, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(hardware, "bound_cores", lambda: 64)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=500 * 10**9))
    for name in ("CPUS_PER_TASK", "CPUS_ON_NODE", "MEM_PER_NODE", "MEM_PER_CPU"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)

    def write(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return write


def test_the_limits_of_groups_around_a_job_count(job):
    job(
        "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n",
        {
            "system.slice/slurmstepd.scope/job_7/cpu.max": "800000 100000",
            "system.slice/slurmstepd.scope/job_7/memory.max": "32000000000",
            "system.slice/slurmstepd.scope/job_7/memory.current": "3000000000",
            "system.slice/slurmstepd.scope/job_7/memory.stat": "inactive_file 1000000000",
            "system.slice/slurmstepd.scope/job_7/step_0/cpu.max": "max 100000",
            "system.slice/slurmstepd.scope/job_7/step_0/memory.max": "max",
            "system.slice/slurmstepd.scope/job_7/step_0/memory.current": "1",
            "system.slice/slurmstepd.scope/job_8/cpu.max": "100000 100000",
        },
    )
    assert (cores(), free_memory()) == (8, 30 * 10**9)


def test_the_limits_of_older_control_groups_count(job):
    job(
        "9:memory:/slurm/uid_1/job_7/step_0\n4:cpu,cpuacct:/slurm/uid_1/job_7\n0::/../other\nnonsense\n",
        {
            "cpu/slurm/uid_1/job_7/cpu.cfs_quota_us": "400000",
            "cpu/slurm/uid_1/job_7/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": "90000000000",
            "memory/slurm/uid_1/job_7/memory.limit_in_bytes": "16000000000",
            "memory/slurm/uid_1/job_7/memory.usage_in_bytes": "10000000000",
            "memory/slurm/uid_1/job_7/memory.stat": "active_file 5\ntotal_active_file 4000000000",
        },
    )
    assert (cores(), free_memory()) == (4, 10 * 10**9)


@pytest.mark.parametrize(
    ("stated", "counted"),
    [
        ({"CPUS_PER_TASK": "6"}, 6),
        ({"CPUS_PER_TASK": "6", "CPUS_ON_NODE": "24"}, 6),
        ({"CPUS_ON_NODE": "24"}, 24),
        ({"CPUS_PER_TASK": "128"}, 64),
        ({"CPUS_PER_TASK": "many"}, 64),
        ({"CPUS_PER_TASK": "0"}, 64),
    ],
)
def test_cores_are_those_that_a_job_was_given(job, monkeypatch, stated, counted):
    for name, value in stated.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert cores() == counted


@pytest.mark.parametrize(
    ("stated", "mib"),
    [
        ({"MEM_PER_NODE": "4096"}, 4096),
        ({"MEM_PER_CPU": "2000", "CPUS_ON_NODE": "4"}, 8000),
        ({"MEM_PER_CPU": "2000", "CPUS_PER_TASK": "3"}, 6000),
        ({"MEM_PER_NODE": "0"}, None),  # all that the machine has
        ({"MEM_PER_NODE": "much"}, None),
    ],
)
def test_memory_is_that_which_a_job_was_given(job, monkeypatch, stated, mib):
    monkeypatch.setattr(hardware, "_held_by_all", lambda: 1000)
    for name, value in stated.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert free_memory() == (500 * 10**9 if mib is None else mib * 1024**2 - 1000)


def test_memory_of_children_is_taken_too(monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    assert free_memory() == 0
    assert hardware._held_by_all() >= hardware.held_memory() * 0.9


CU130 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
CU126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((8, 9), CU130, True),  # by kernels of 8.6
        ((7, 0), CU130, False),
        ((6, 1), CU130, False),
        ((7, 0), CU126, True),
        ((10, 0), CU126, False),
        ((12, 1), CU130, True),
        ((13, 0), CU130, True),  # by text that the driver compiles
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_90a",), True),
        ((9, 1), ("sm_90a",), False),
        ((9, 0), ("gfx90a",), False),
    ],
)
def test_kernels_run_on_later_cards_of_their_generation(capability, built_for, runs):
    assert has_kernels(capability, built_for) == runs
