"""What the parity tests share: a table of all measured differences at the end of the run."""

import json
from collections.abc import Callable, Iterator

import pytest

Row = tuple[str, str, str, float, float]  # stage, network, measure, difference, bound


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


def rows_of(reports: list[pytest.TestReport]) -> Iterator[Row]:
    # Through the properties of the reports, because these also come back from xdist's workers.
    for report in reports:
        for name, value in report.user_properties:
            if name == "parity" and report.when == "call":
                yield tuple(json.loads(value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    stats = terminalreporter.stats
    rows = list(rows_of([*stats.get("passed", []), *stats.get("failed", [])]))
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    terminalreporter.section("parity with PyTorch")
    for *names, difference, bound in rows:
        padded = "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True))
        verdict = "" if difference <= bound else "  FAILED"
        terminalreporter.line(f"{padded}  {difference:8.1e}  bound {bound:.0e}{verdict}")
