"""Programs that do on one machine what those of SLURM do on two nodes."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

SBATCH = """
    #!{python}
    # As sbatch, but at once and here: options with a value each, then the script and its words.
    import os, sys
    sys.path.insert(0, {here!r})
    from slurm_stand_ins import allocation
    words = sys.argv[1:]
    while words[0].startswith("--"):
        words = words[2:]
    os.execvpe("bash", ["bash", *words], os.environ | allocation())
"""
SRUN = """
    #!{python}
    # As srun with a task on each of two nodes: options first, then the command; SIGTERM goes to every task.
    import os, signal, subprocess, sys
    words = sys.argv[1:]
    while words[0].startswith("-"):
        words.pop(0)
    tasks = []
    for rank in "01":
        told = {{"SLURM_PROCID": rank, "SLURM_NODEID": rank, "SLURM_LOCALID": "0", "SLURM_STEP_ID": "0",
                "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"}}
        tasks.append(subprocess.Popen(words, env={{**os.environ, **told}}))
    signal.signal(signal.SIGTERM, lambda number, frame: [task.send_signal(number) for task in tasks])
    sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """
    #!{python}
    import sys
    assert sys.argv[1:] == ["show", "hostnames", "node[1-2]"], sys.argv
    print("127.0.0.1\\n127.0.0.2")
"""


def allocation() -> dict[str, str]:
    """What SLURM tells a batch script on the first of two nodes."""
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_PROCID": "0",  # of the batch script itself
    }


def stand_ins(folder: Path) -> dict[str, str]:
    """Put the programs into a new folder; returns the variables with which they, and this Python, are found."""
    folder.mkdir()
    here = str(Path(__file__).parent)
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}.items():
        place = folder / name
        place.write_text(textwrap.dedent(text).strip().format(python=sys.executable, here=here) + "\n")
        place.chmod(0o755)
    python = Path(sys.executable).parent
    return {"PATH": f"{folder}:{python}:{os.environ['PATH']}", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
