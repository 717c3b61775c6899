"""The whole demo through SLURM, its driver killed once and two of its jobs, against the undisturbed local run.

python tests/cluster/demo.py FOLDER        a new or half-done folder; prints the result, exit code 1 when they differ

Starts the one-node SLURM of the tests, as root. Takes about an hour on two cores.
"""

import subprocess
import sys
from pathlib import Path

from toy_cluster import TOY, Cluster, Workbook, new_workbook


def undisturbed(folder: Path) -> Workbook:
    """Run the demo here; a finished one is kept."""
    workbook = _workbook(folder)
    command = [sys.executable, "-m", "metaseg_nb", "study", "--study", "demo"]
    subprocess.run(command, env=workbook.env, cwd=workbook.project, check=True)
    return workbook


def disturbed(folder: Path, cluster: Cluster) -> Workbook:
    """Run the demo on the cluster, and kill a job, the driver, and another job."""
    workbook = _workbook(folder)
    workbook.start()
    first = workbook.wait_for(lambda: workbook.in_training(cluster), seconds=3600)
    workbook.kill_run(*first)
    print(f"killed the job of {first}", flush=True)
    second = workbook.wait_for(lambda: workbook.in_training(cluster, first), seconds=3600)
    workbook.kill()
    print(f"killed the driver, {len(cluster.jobs())} jobs in the queue", flush=True)
    workbook.start()
    third = workbook.wait_for(lambda: workbook.in_training(cluster, first, second), seconds=3600)
    workbook.kill_run(*third)
    print(f"killed the job of {third}", flush=True)
    code = workbook.wait_for_end(seconds=4 * 3600)
    print(workbook.said())
    if code:
        sys.exit(code)
    return workbook


def differing(here: Workbook, there: Workbook) -> list[str]:
    """Tables of the cross-validation that are not equal (but for times), or not in both."""
    first, second = _tables(here), _tables(there)
    print(f"{len(second)} tables compared: {', '.join(sorted(second))}")
    both = first & second
    return sorted((first ^ second) | {name for name in both if not here.table(name).equals(there.table(name))})


def _tables(workbook: Workbook) -> set[str]:
    root = workbook.home / "runs" / workbook.study
    return {str(path.relative_to(root)) for path in root.glob("cross_validation/**/*.csv")}


def _workbook(folder: Path) -> Workbook:
    workbook = new_workbook(folder) if not folder.exists() else Workbook.in_folder(folder)
    workbook.study = "demo"
    return workbook


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    reference = undisturbed(folder / "undisturbed")
    subprocess.run([TOY, "start", folder / "slurm"], check=True)
    try:
        found = differing(disturbed(folder / "disturbed", Cluster(folder / "slurm")), reference)
    finally:
        subprocess.run([TOY, "stop", folder / "slurm"], check=True)
    print("they differ: " + ", ".join(found) if found else "equal")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
