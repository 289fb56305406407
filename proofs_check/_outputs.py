"""The files of `robust-rlhf verify`: refused before anything is checked, kept from others, written at the end."""

from __future__ import annotations

import importlib.util
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from dro_core.command_line.pace import Pace
from dro_core.locks import locked, locked_file
from dro_core.messages import check_folder
from proofs_check._stored import write_json, write_text
from proofs_check._tasks import REGISTRY
from proofs_check.show import text as verdicts

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from proofs_check.claim import Claim
    from proofs_check.report import Report

_FILES = ("json", "html", "markdown")


class BadRequest(ValueError):
    """The request makes no sense; the message is for the user."""


def reject_nonsense(arguments: argparse.Namespace) -> None:
    """Refuse outputs that cannot be.

    Raises:
        BadRequest: One that could not be written, or that nothing would be written to.
        NotADirectoryError, PermissionError: A folder that cannot be one, or not be written to.
    """
    for name in (*_FILES, "certificates"):
        path = getattr(arguments, name)
        if path is None:
            continue
        if arguments.list or arguments.replay:
            raise BadRequest(f"--{name} stores what a check finds: leave it out, nothing is checked here.")
        if name == "certificates":
            check_folder(path, flag="--certificates")
            continue
        if os.path.isdir(path) or not os.path.isdir(path.parent):
            raise BadRequest(f"--{name} needs a file in an existing folder, got {path}: choose another path.")
        check_folder(path.parent, flag=f"--{name}: the folder")
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if arguments.html and missing:
        raise BadRequest(f"--html needs {' and '.join(missing)}: pip install {' '.join(missing)}")


@contextmanager
def reserved(arguments: argparse.Namespace, claims: Sequence[Claim[Any]]) -> Generator[None]:
    """Inside, nobody else checks into the same files; who could not write them learns it now.

    Earlier certificates of these claims are gone then: none outlives the verdict that it was for.

    Raises:
        BadRequest: A file cannot be written.
        FolderInUse: Another process is about to write one of them.
    """
    with ExitStack() as stack:
        for path in filter(None, (arguments.json, arguments.html, arguments.markdown)):
            try:
                stack.enter_context(locked_file(path))
            except OSError as error:
                raise BadRequest(f"{path} cannot be written: {error.strerror}.") from error
        if arguments.certificates is not None:
            stack.enter_context(locked(arguments.certificates))
            for claim in claims:
                (arguments.certificates / f"{claim.label}.json").unlink(missing_ok=True)
        yield


def write(
    reports: Sequence[Report],
    unchecked: Sequence[str],
    claims: Mapping[str, Claim[Any]],
    arguments: argparse.Namespace,
    say: Callable[[str], object],
) -> None:
    """Write the files and say what takes its time; certificates are there already, each since its claim was finished.

    Raises:
        BadRequest: A file cannot be written.
    """
    budget, seed, registry = arguments.budget, arguments.seed, arguments.registry
    own = "" if registry == REGISTRY else registry
    try:
        if arguments.json:
            write_json(arguments.json, reports, budget=budget, seed=seed, unchecked=unchecked)
        if arguments.markdown:
            write_text(arguments.markdown, verdicts.markdown(reports, claims, budget=budget, seed=seed, registry=own))
        if arguments.html:
            from proofs_check.show.page import page

            say(f"Writing {arguments.html}, with a figure for each of {len(reports)} claims.")
            advance = Pace(len(reports), "figures", say).advance
            told = page(reports, claims, budget=budget, seed=seed, unchecked=unchecked, registry=own, advance=advance)
            write_text(arguments.html, told)
        if arguments.certificates is not None:
            say(_certificates(arguments.certificates, reports))
    except OSError as error:
        raise BadRequest(f"{error.filename} cannot be written: {error.strerror}.") from error


def _certificates(folder: Path, reports: Sequence[Report]) -> str:
    """How many certificates there are, and why there are no others."""
    written = [report for report in reports if (folder / f"{report.label}.json").exists()]
    without = len(reports) - len(written)
    why = f"; none for {without}, whose evidence is not exact arithmetic on every instance" if without else ""
    return f"{len(written)} certificates in {folder}{why}."
