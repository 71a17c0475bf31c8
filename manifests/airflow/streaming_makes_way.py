"""A streaming job makes way for a batch job every night, on a Ververica Platform: four steps of chkpin transition.

Change what stands in capitals. Each step waits until one deployment is in a state, then asks for another state of one;
all of them are safe to repeat. docs/transition.md says what ends a step, and what to do when the batch job fails.
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG  # Airflow 2: from airflow import DAG
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

# Old releases of the provider have this class in airflow.providers.cncf.kubernetes.operators.kubernetes_pod.
from kubernetes.client import models as k8s

IMAGE = "chkpin/chkpin:latest"  # use a digest
STREAMING, BATCH = "streaming", "batch"
PLATFORM = {
    "VVP_HOST": "ververica-platform",
    "VVP_PORT": "80",
    "VVP_NAMESPACE": "default",
}
ATTEMPTS, INTERVAL = 360, timedelta(seconds=10)


def transition(task_id, *, monitor, state, trigger, to):
    """The step that sets deployment trigger to a state when deployment monitor is in one."""
    return KubernetesPodOperator(
        task_id=task_id,
        name=task_id.replace("_", "-"),
        image=IMAGE,
        arguments=["transition"],
        env_vars={
            **PLATFORM,
            "VVP_MONITOR_COUNT": str(ATTEMPTS),
            "VVP_MONITOR_DURATION": str(INTERVAL // timedelta(milliseconds=1)),
            "VVP_MONITOR_DEPLOYMENT": monitor,
            "VVP_MONITOR_STATE": state,
            "VVP_TRIGGER_DEPLOYMENT": trigger,
            "VVP_TRIGGER_STATE": to,
        },
        # With API tokens: secrets=[Secret("env", "CHKPIN_VVP_TOKEN", "vvp-token", "secret")]
        # (airflow.providers.cncf.kubernetes.secret).
        container_resources=k8s.V1ResourceRequirements(
            requests={"cpu": "50m", "memory": "32Mi"}, limits={"memory": "128Mi"}
        ),
        security_context={
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        container_security_context={
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        execution_timeout=ATTEMPTS * INTERVAL + timedelta(minutes=5),  # chkpin ends by itself and says why
        retries=1,
    )


with DAG(
    dag_id="streaming_makes_way",
    schedule="0 2 * * *",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,  # two runs would undo each other
):
    suspend_streaming = transition(
        "suspend_streaming", monitor=STREAMING, state="RUNNING", trigger=STREAMING, to="SUSPENDED"
    )
    start_batch = transition(
        "start_batch", monitor=STREAMING, state="SUSPENDED", trigger=BATCH, to="RUNNING"
    )
    cancel_batch = transition(
        "cancel_batch", monitor=BATCH, state="FINISHED", trigger=BATCH, to="CANCELLED"
    )
    resume_streaming = transition(
        "resume_streaming", monitor=BATCH, state="CANCELLED", trigger=STREAMING, to="RUNNING"
    )
    suspend_streaming >> start_batch >> cancel_batch >> resume_streaming
