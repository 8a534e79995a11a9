"""The JobSet, against schemas: its own from JobSet's reference, the Job's from Kubernetes' API."""

from __future__ import annotations

import json
import re

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.launch.scripts import LAUNCH, run

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
TEXTS = {"type": "array", "items": {"type": "string"}}
RULE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "action"],
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
        "action": {"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
        "onJobFailureReasons": {
            "type": "array",
            "items": {
                "enum": [
                    *("BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes"),
                    *("MaxFailedIndexesExceeded", "PodFailurePolicy"),
                ]
            },
        },
        "onJobFailureMessagePatterns": TEXTS,
        "targetReplicatedJobs": TEXTS,
    },
}
# The fields that are used here, of jobset.x-k8s.io/v1alpha2; see jobset.sigs.k8s.io/docs/reference.
JOBSET = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "name": NAME,
                "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["replicatedJobs"],
            "properties": {
                "failurePolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "maxRestarts": {"type": "integer", "minimum": 0},
                        "rules": {"type": "array", "items": RULE},
                    },
                },
                "replicatedJobs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name", "template"],
                        "properties": {
                            "name": NAME,
                            "replicas": {"type": "integer", "minimum": 1},
                            "template": {"type": "object"},
                        },
                    },
                },
            },
        },
    },
}
ARGUMENTS = ["train", "configs/x.yaml", "mesh={data: -1}", 'mixture=[{data: "a\\b & ${NAME}"}]']


def jobset(*options: str) -> dict:
    done = run(
        *("jobset.sh", "start", "--name", "lm", "--image", "us-docker.pkg.dev/p/m4m/m4m:1"),
        *(*options, "--dry-run", "--", *ARGUMENTS),
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def job_of(manifest: dict) -> dict:
    (job,) = manifest["spec"]["replicatedJobs"]
    return job


def validate(manifest: dict) -> None:
    """By JobSet's schema, and its Job by that of Kubernetes, in which unknown fields are errors."""
    jsonschema.validate(manifest, JOBSET)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    kubernetes_validate.validate(job | job_of(manifest)["template"], "1.31", strict=True)


@pytest.mark.parametrize(
    ("options", "slices", "hosts", "chips", "accelerator"),
    [
        ([], 1, 64, 4, "tpu-v5-lite-podslice"),
        (["--slices", "2", "--chip", "v6e"], 2, 64, 4, "tpu-v6e-slice"),
        (["--chip", "v5p", "--topology", "4x8x8"], 1, 64, 4, "tpu-v5p-slice"),
        (["--topology", "2x2"], 1, 1, 4, "tpu-v5-lite-podslice"),
        (["--topology", "1x1"], 1, 1, 1, "tpu-v5-lite-podslice"),
    ],
)
def test_the_jobset_is_valid_and_has_a_pod_a_host(options, slices, hosts, chips, accelerator):
    manifest = jobset(*options)
    validate(manifest)
    job = job_of(manifest)
    assert job["replicas"] == slices
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == hosts
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == accelerator
    (container,) = pod["containers"]
    assert container["args"] == ARGUMENTS
    wanted = {"google.com/tpu": chips}
    assert container["resources"] == {"requests": wanted, "limits": wanted}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "failurePolicy", "maxRestart"), 3),
        (("spec", "failurePolicy", "rules", 0, "action"), "Fail"),
        (("spec", "failurePolicy", "rules", 0, "onJobFailureReasons"), ["ExitCode"]),
        (("spec", "replicatedJobs", 0, "template", "spec", "backofLimit"), 0),
        (("spec", "replicatedJobs", 0, "template", "spec", "completions"), "64"),
    ],
)
def test_the_schemas_find_what_is_wrong(path, value):
    manifest = jobset()
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(manifest)


def failure(manifest: dict, *, status: int | None = None, disrupted: bool = False):
    """Reason and message of a Job of which a pod failed, as Kubernetes' Job controller has them."""
    spec = job_of(manifest)["template"]["spec"]
    for number, rule in enumerate(spec["podFailurePolicy"]["rules"]):
        assert rule["action"] == "FailJob"
        ending = f"matching FailJob rule at index {number}"
        codes = rule.get("onExitCodes")
        if codes is not None and codes["operator"] == "In" and status in codes["values"]:
            told = f"Container m4m for pod default/lm-slice-0-0 failed with exit code {status} "
            return "PodFailurePolicy", told + ending
        if disrupted and "onPodConditions" in rule:
            told = "Pod default/lm-slice-0-0 has condition DisruptionTarget "
            return "PodFailurePolicy", told + ending
    assert spec["backoffLimit"] == 0
    return "BackoffLimitExceeded", "Job has reached the specified backoff limit"


def action(manifest: dict, reason: str, message: str) -> str:
    """What JobSet does: the first rule whose reason and message both fit, or its default."""
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"status": 2}, "FailJobSet"),
        ({"status": 75}, "RestartJobSetAndIgnoreMaxRestarts"),
        ({"status": 137, "disrupted": True}, "RestartJobSetAndIgnoreMaxRestarts"),
        ({"status": 1}, "RestartJobSet"),
        ({"status": 137}, "RestartJobSet"),
    ],
)
def test_what_becomes_of_a_pods_exit_status(how, wanted):
    manifest = jobset("--failures", "5")
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 5
    assert action(manifest, *failure(manifest, **how)) == wanted


def test_a_pod_has_time_to_save():
    pod = job_of(jobset())["template"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 25 + 10
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy demands


def test_the_other_commands_name_the_jobset():
    for command, verb in (("follow", "logs"), ("status", "describe"), ("delete", "delete")):
        done = run("jobset.sh", command, "--name", "lm", "--dry-run")
        assert done.returncode == 0
        assert done.stdout.startswith(f"kubectl {verb}")
        assert "lm" in done.stdout


def test_no_placeholder_is_left_in_what_is_filled_in():
    template = (LAUNCH / "jobset.yaml").read_text()
    names = {*re.findall(r"\$\{([A-Z]+)\}", template)}
    assert names
    text = json.dumps(jobset())
    assert [name for name in names if f"${{{name}}}" in text.replace("${NAME}", "", 1)] == []
