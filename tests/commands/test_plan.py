"""`topthree plan`: processors, memory and the limits of the decoders on this machine."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from app.commands import cli
from app.processes.plan import describe_plan, make_plan


@pytest.mark.parametrize("workers", [1, 2])
def test_the_plan_is_that_of_the_service(workers: int, make_settings) -> None:
    result = CliRunner().invoke(cli, ["plan"], env={"TOPTHREE_WORKERS": str(workers)})
    *plan, sandbox = result.stdout.splitlines()
    assert plan == describe_plan(make_plan(make_settings(workers=workers))).splitlines()
    assert sandbox.startswith("enforced in each decoder: ")
