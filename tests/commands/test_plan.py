"""`topthree plan`: processors, memory and the limits of the decoders on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from app.commands import cli, read_settings, settings_of_one_process
from app.processes.plan import describe_plan, make_plan


@pytest.mark.parametrize("workers", [1, 2])
def test_the_plan_is_that_of_the_service(workers: int, make_settings) -> None:
    result = CliRunner().invoke(cli, ["plan"], env={"TOPTHREE_WORKERS": str(workers)})
    *plan, sandbox = result.stdout.splitlines()
    assert plan == describe_plan(make_plan(make_settings(workers=workers))).splitlines()
    assert sandbox.startswith("enforced in each decoder: ")


def test_commands_that_compute_have_all_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("app.processes.plan.GPU_DEVICE", tmp_path)
    monkeypatch.setattr("app.processes.plan.available_cpus", lambda: 16)
    service, alone = make_plan(read_settings()), make_plan(settings_of_one_process())
    assert (service.workers, service.cpus_per_worker) == (8, 2)
    assert (alone.workers, alone.cpus_per_worker, alone.decoders) == (1, 16, 17)
