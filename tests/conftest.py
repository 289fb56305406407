"""What all tests share: hypothesis profiles, the exhaustive rest and its shares, things built once, what files cost."""

from __future__ import annotations

import gc
import os
import zlib
from collections import Counter
from pathlib import Path

import pytest
from built_once import BuiltOnce
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Not to be searched for doctests: two of them in one call would be two modules of one name.
collect_ignore_glob = ["*conftest.py"]

# dev: a quick look, new examples each time. ci: the same examples every time. nightly: many new ones.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("dev", max_examples=15, **_COMMON)
settings.register_profile("ci", max_examples=25, derandomize=True, **_COMMON)
settings.register_profile("nightly", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

LONG = 5.0  # seconds; a test above says why, by @pytest.mark.slow("why")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share", metavar="I/N", type=_share, help="of the exhaustive tests, only the I-th of N shares; 0/1 is all"
    )


def _share(text: str) -> tuple[int, int]:
    place, _, shares = text.partition("/")
    return int(place) % int(shares), int(shares)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what other shares run: of exhaustive tests most, of slow ones three quarters.

    Rows of a test that share a set-up go into one share, many rows into as many as there are dozens.
    """
    if (share := config.getoption("share")) is None:
        return
    place, shares = share
    rows = Counter(map(_test, items))
    kept, dropped = [], []
    for item in items:
        number = zlib.crc32(item.nodeid.encode())
        if _shares_set_up(item):
            number = zlib.crc32(_test(item).encode()) + number % (1 + rows[_test(item)] // 12)
        turns = _turns(item, shares)
        (kept if number % turns == place % turns else dropped).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)


def _turns(item: pytest.Item, shares: int) -> int:
    """In how many shares it runs once: in each, in one of 4 if slow; exhaustive, in all or ``turns`` of them."""
    usual = 4 if item.get_closest_marker("slow") else 1
    return max((mark.kwargs.get("turns", shares) for mark in item.iter_markers("exhaustive")), default=usual)


def _test(item: pytest.Item) -> str:
    """The test of which it is a row."""
    return item.nodeid.partition("[")[0]


def _shares_set_up(item: pytest.Item) -> bool:
    """Whether a fixture outlives the row: what ``once`` builds, or one of a module. Searches are built for each row."""
    if "searched" in item.fixturenames:
        return False
    found = item._fixtureinfo.name2fixturedefs
    return any(found[name][-1].scope != "function" for name in found if name not in ("request", "tmp_path_factory"))


def pytest_collection_finish() -> None:
    """Spare every later collection the libraries: statsmodels asks for a full one at each correction of p-values."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """``once(name, build)``: the folder that ``build(folder)`` fills, once for all workers; read-only from then on."""
    base = tmp_path_factory.getbasetemp()
    built = BuiltOnce(base.parent if hasattr(request.config, "workerinput") else base)
    yield built
    built.verify()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the slowest files took, and which tests took long without saying why."""
    reports = [report for group in terminalreporter.stats.values() for report in group if hasattr(report, "duration")]
    files, tests, excused = Counter[str](), Counter[str](), set[str]()
    for report in reports:
        files[report.nodeid.partition("::")[0]] += report.duration
        tests[report.nodeid] += report.duration
        excused |= {report.nodeid} if "slow" in report.keywords else set()
    if len(files) < 10:
        return
    terminalreporter.section("slowest files")
    for file, seconds in files.most_common(10):
        terminalreporter.write_line(f"{seconds:7.1f} s  {file}")
    terminalreporter.write_line(f"{sum(files.values()):7.1f} s  in all, added up over the workers")
    for test, seconds in tests.most_common():
        if seconds > LONG and test not in excused:
            terminalreporter.write_line(f"{seconds:7.1f} s  {test}: above {LONG:g} s, and does not say why")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real preference pairs, which is no part of the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ROBUST_RLHF_DATA", default))
    if not (folder / "train.jsonl.gz").exists():
        pytest.skip(f"no real data in {folder}: set ROBUST_RLHF_DATA to a folder with train.jsonl.gz")
    return folder
