"""What the parity tests share: a table of all measured differences at the end of the run."""

import json
from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(2)


@pytest.fixture
def compare(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """compare(stage, network, measure, difference, bound): a row of the table, and the check."""

    def row(stage: str, network: str, measure: str, difference: float, bound: float) -> None:
        record_property("parity", json.dumps([stage, network, measure, difference, bound]))
        assert difference <= bound, f"{stage}, {network}: {difference:.2g} ({measure})"

    return row


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Through the properties of the reports, because these also come back from xdist's workers.
    stats = terminalreporter.stats
    reports = [*stats.get("passed", []), *stats.get("failed", [])]
    properties = [found for one in reports if one.when == "call" for found in one.user_properties]
    rows = [json.loads(value) for name, value in properties if name == "parity"]
    if rows:
        terminalreporter.section("parity with PyTorch")
    widths = [max(len(row[column]) for row in rows) if rows else 0 for column in range(3)]
    for *names, difference, bound in rows:
        padded = "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True))
        verdict = "" if difference <= bound else "  FAILED"
        terminalreporter.line(f"{padded}  {difference:8.1e}  bound {bound:.0e}{verdict}")
