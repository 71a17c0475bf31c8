"""Has a real Airflow parse the DAG, and chkpin take each step's environment: make airflow."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag

chkpin = Path(sys.argv[1]).resolve()
folder = Path(__file__).parent

STEPS = {
    "suspend_streaming": ("streaming", "RUNNING", "streaming", "SUSPENDED"),
    "start_batch": ("streaming", "SUSPENDED", "batch", "RUNNING"),
    "cancel_batch": ("batch", "FINISHED", "batch", "CANCELLED"),
    "resume_streaming": ("batch", "CANCELLED", "streaming", "RUNNING"),
}
UNREACHABLE = 8

bag = DagBag(dag_folder=folder / "streaming_makes_way.py")
assert not bag.import_errors, bag.import_errors
assert list(bag.dags) == ["streaming_makes_way"], bag.dags
dag = bag.dags["streaming_makes_way"]

assert [task.task_id for task in dag.topological_sort()] == list(STEPS)
for task_id, next_id in zip(STEPS, [*list(STEPS)[1:], None]):
    downstream = dag.get_task(task_id).downstream_task_ids
    assert downstream == ({next_id} if next_id else set()), (task_id, downstream)

for task_id, step in STEPS.items():
    task = dag.get_task(task_id)
    variables = dict(task.env_vars)
    names = ["MONITOR_DEPLOYMENT", "MONITOR_STATE", "TRIGGER_DEPLOYMENT", "TRIGGER_STATE"]
    assert tuple(variables["VVP_" + name] for name in names) == step, (task_id, variables)
    # Nothing listens on port 1. An environment that is not whole would be another exit code.
    variables |= {"VVP_HOST": "127.0.0.1", "VVP_PORT": "1", "CHKPIN_VVP_TIMEOUT": "100ms"}
    ran = subprocess.run([chkpin, *task.arguments], env=variables, capture_output=True, text=True)
    assert ran.returncode == UNREACHABLE, (task_id, ran)
    print("{}: {} {} -> {} {}".format(task_id, *step))

packages = ["apache-airflow", "apache-airflow-providers-cncf-kubernetes"]
print("parsed by", ", ".join(f"{name} {version(name)}" for name in packages))
