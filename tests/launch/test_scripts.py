"""The scripts of launch/: sound shell, exact commands, and what becomes of each exit status."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.launch.scripts import LAUNCH, SCRIPTS, commands, on_path, run, stand_in, tool

POD = ["--name", "lm", "--zone", "us-west4-a"]
IMAGE = ["--image", "us-docker.pkg.dev/project/m4m/m4m:1"]
TRAIN = ["--", "train", "configs/los_angeles_lm.yaml", "mesh={data: -1}", "-o", "gs://b/runs/lm"]

# The flags of `gcloud compute tpus queued-resources VERB --help`, Google Cloud SDK 528.
FLAGS = {
    "create": {
        *("--zone", "--project", "--node-id", "--node-count", "--node-prefix", "--spot"),
        *("--accelerator-type", "--runtime-version", "--service-account"),
    },
    "describe": {"--zone", "--project", "--format"},
    "ssh": {"--zone", "--project", "--worker", "--node", "--command"},
    "delete": {"--zone", "--project", "--force", "--quiet"},
}


def pod(*arguments: str):
    """The queued-resources commands of a dry run: verb, name, and the other words."""
    done = run("tpu_pod.sh", *arguments[:1], "--dry-run", *arguments[1:])
    assert done.returncode == 0, done.stderr
    found = commands(done.stdout + done.stderr, "gcloud")
    assert all(words[:3] == ["compute", "tpus", "queued-resources"] for words in found)
    return [words[3:] for words in found]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    for command in (["bash", "-n"], [tool("shellcheck")]):
        done = subprocess.run([*command, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_pod_is_made_as_gcloud_takes_it():
    (create,) = pod("create", *POD)
    assert create == [
        *("create", "lm", "--zone=us-west4-a", "--node-id=lm"),
        *("--accelerator-type=v5litepod-256", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"),
    ]
    slices = ["--slices", "2", "--type", "v6e-256", "--on-demand", "--project", "p"]
    (create,) = pod("create", *POD, *slices)
    assert create == [
        *("create", "lm", "--zone=us-west4-a", "--project=p", "--node-count=2"),
        *("--node-prefix=lm", "--accelerator-type=v6e-256", "--runtime-version=v2-alpha-tpuv6e"),
    ]


def test_m4m_gets_the_words_that_it_was_given():
    """Through two shells: the one here, and the one on the host."""
    calls = pod("run", *POD, *IMAGE, *TRAIN)
    create, start, follow, delete = (words for words in calls if words[0] != "describe")
    assert (create[0], delete[0]) == ("create", "delete")
    assert {"--worker=all", "--node=all"} <= {*start} & {*follow}
    remote = next(word.partition("=")[2] for word in start if word.startswith("--command="))
    assert subprocess.run(["bash", "-n"], input=remote, text=True).returncode == 0
    (docker,) = [line for line in remote.splitlines() if " run " in line]
    (words,) = commands(docker.removeprefix("sudo "), "docker")
    assert words[words.index("us-docker.pkg.dev/project/m4m/m4m:1") + 1 :] == TRAIN[1:]
    assert words[words.index("--stop-timeout") + 1] == "60"


def test_all_flags_are_gclouds():
    calls = pod("run", *POD, *IMAGE, "--service-account", "a@p.iam.gserviceaccount.com", *TRAIN)
    calls += pod("status", *POD) + pod("stop", *POD)
    for verb, name, *words in calls:
        assert name == "lm"
        assert {word.partition("=")[0] for word in words} <= FLAGS[verb], verb


@pytest.mark.parametrize(
    ("script", "arguments", "wanted"),
    [
        ("tpu_pod.sh", ["run", "--zone", "z"], "give --name"),
        ("tpu_pod.sh", ["run", "--name", "lm"], "give --zone"),
        ("tpu_pod.sh", ["run", *POD], "give --image"),
        ("tpu_pod.sh", ["run", *POD, *IMAGE], "give what m4m shall do after --"),
        ("tpu_pod.sh", ["create", *POD, "--slices", "0"], "--slices 0 is no number of slices"),
        ("tpu_pod.sh", ["create", *POD, "--type", "v9-4"], "give --version"),
        ("tpu_pod.sh", ["create", *POD, "--typ", "v4-8"], "there is no option --typ"),
        ("tpu_pod.sh", ["create", *POD, "--type"], "--type needs a value"),
        ("jobset.sh", ["start", "--name", "Lm"], "give --name NAME, of lower-case"),
        ("jobset.sh", ["start", "--name", "lm"], "give --image"),
        ("jobset.sh", ["start", "--name", "lm", *IMAGE], "give what m4m shall do after --"),
        ("jobset.sh", ["start", "--name", "lm", "--chip", "v2", *IMAGE, *TRAIN], "--chip v2 is"),
        ("jobset.sh", ["start", "--name", "lm", "--topology", "3x3", *IMAGE, *TRAIN], "9 chips"),
    ],
)
def test_mistakes_are_told_in_a_line(script, arguments, wanted):
    done = run(script, arguments[0], "--dry-run", *arguments[1:])
    assert done.returncode == 2
    assert wanted in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


@pytest.mark.parametrize("script", ["tpu_pod.sh", "jobset.sh"])
def test_without_arguments_a_script_tells_how_it_is_used(script):
    done = run(script)
    assert done.returncode == 2
    text = (LAUNCH / script).read_text()
    taken = {flag for line in re.findall(r"^ +(--.*?)\)", text, re.M) for flag in line.split(" | ")}
    assert taken - {"--"} <= {*re.findall(r"--[a-z-]+", done.stderr)}
    assert done.stderr.splitlines()[-1].strip()
    assert "set -" not in done.stderr


# A stand-in for gcloud: whether the slices are there is kept in a file, and so is, line by line,
# what comes of following m4m: an exit status, and `gone` where the slices are lost with it.
GCLOUD = """
cd "$(dirname "$0")"
case "$*" in
  *" create "*) echo "${CREATED:-ACTIVE}" > state ;;
  *" delete "*) rm state ;;
  *" describe "*) [ -e state ] && cat state ;;
  *"docker logs"*)
    read -r status gone < ends
    sed -i 1d ends
    [ -z "$gone" ] || echo SUSPENDED > state
    exit "$status"
    ;;
esac
"""


@pytest.mark.parametrize(
    ("ends", "status", "tries", "made"),
    [
        (["0"], 0, 1, 1),
        (["2"], 2, 1, 1),
        (["75", "0"], 0, 2, 1),
        (["75 gone", "0"], 0, 2, 2),
        (["255 gone", "255 gone", "1 gone", "255 gone", "0"], 0, 5, 5),
        (["1", "1", "1", "0"], 0, 4, 1),
        (["1", "1", "1", "137"], 1, 4, 1),
        (["1", "1", "75", "1", "1", "1", "0"], 0, 7, 1),
        (["75", "2"], 2, 2, 1),
    ],
)
def test_what_becomes_of_a_pods_exit_status(tmp_path, ends, status, tries, made):
    stand_in(tmp_path, "gcloud", GCLOUD)
    (tmp_path / "ends").write_text("".join(f"{end}\n" for end in ends))
    quick = {"M4M_POLL_SECONDS": "0", **on_path(tmp_path)}
    done = run("tpu_pod.sh", "run", *POD, *IMAGE, *TRAIN, **quick)
    assert done.returncode == status, done.stderr
    calls = (tmp_path / "calls").read_text()
    assert calls.count("docker logs") == tries
    assert calls.count(" create ") == made
    # Who fails again and again may look at the slices; otherwise nothing is left to pay for.
    assert (tmp_path / "state").exists() == (status == 1)


def test_a_request_that_cannot_be_met_is_not_made_for_ever(tmp_path):
    stand_in(tmp_path, "gcloud", GCLOUD)
    quick = {"M4M_POLL_SECONDS": "0", "CREATED": "FAILED", **on_path(tmp_path)}
    done = run("tpu_pod.sh", "run", *POD, *IMAGE, *TRAIN, **quick)
    assert done.returncode == 1
    assert (tmp_path / "calls").read_text().count(" create ") == 4


@pytest.mark.parametrize("status", [0, 1, 2, 75])
def test_a_slurm_job_goes_into_the_queue_again_where_it_saved(tmp_path, status):
    stand_in(tmp_path, "srun", f"exit {status}")
    stand_in(tmp_path, "scontrol", "")
    done = run("slurm.sbatch", "train", "x.yaml", SLURM_JOB_ID="17", **on_path(tmp_path))
    assert done.returncode == status
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].endswith(" m4m train x.yaml")
    assert calls[1:] == (["scontrol requeue 17"] if status == 75 else [])


def test_a_slurm_job_says_how_it_is_used_and_what_it_would_run(tmp_path):
    stand_in(tmp_path, "srun", "exit 0")
    told = run("slurm.sbatch", **on_path(tmp_path))
    assert told.returncode == 2
    assert "sbatch [SBATCH_OPTION]... launch/slurm.sbatch train CONFIG" in told.stderr
    assert "#SBATCH" not in told.stderr
    dry = run("slurm.sbatch", "--dry-run", "train", "x.yaml", "mesh={data: -1}")
    assert dry.returncode == 0, dry.stderr
    assert commands(dry.stdout, "srun")[0][-4:] == ["m4m", "train", "x.yaml", "mesh={data: -1}"]
    outside = run("slurm.sbatch", "train", "x.yaml", SLURM_JOB_ID="", **on_path(tmp_path))
    assert outside.returncode == 2
    assert "sbatch launch/slurm.sbatch train x.yaml" in outside.stderr
    assert not (tmp_path / "calls").exists()


def test_a_slurm_job_is_told_in_time_to_save():
    options = dict(
        re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", (LAUNCH / "slurm.sbatch").read_text(), re.M)
    )
    name, seconds = options["signal"].split("@")
    assert name == "TERM"
    assert int(seconds) >= 25 + 60  # what m4m needs, and SLURM's own imprecision
    assert "requeue" in options
    assert options["ntasks-per-node"] == "1"  # a process takes all GPUs that it sees
