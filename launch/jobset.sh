#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, as a JobSet: launch/jobset.yaml with its values filled in.
#
#   launch/jobset.sh COMMAND --name NAME [OPTION]... [-- M4M_ARGUMENT...]
#
# Commands:
#   start    m4m on all hosts; JobSet starts it again where it stopped and saved, or failed
#   follow   the log of the first host        status   of the JobSet and its pods
#   delete   the JobSet and its pods: m4m saves before it ends
#
# Options:
#   --chip CHIP          v5e (default), v5p or v6e
#   --topology TOPOLOGY  of a slice (default: 16x16)
#   --slices N           how many slices (default: 1)
#   --image IMAGE        of launch/Dockerfile, in a registry (for start)
#   --account ACCOUNT    the Kubernetes service account that may use the bucket (default: default)
#   --failures N         how often to start again after failures (default: 3); 75 does not count
#   --dry-run            print the manifest or the command, run nothing
# shellcheck disable=SC2034 # the manifest's values are read by their names
set -euo pipefail

usage() {
  sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

fail() {
  echo "jobset.sh: $*" >&2
  exit 2
}

command=${1:-}
case $command in
  start | follow | status | delete) shift ;;
  *) usage ;;
esac

NAME='' CHIP=v5e TOPOLOGY=16x16 SLICES=1 IMAGE='' ACCOUNT=default FAILURES=3 dry=''
while [ $# -gt 0 ]; do
  case $1 in
    --name | --chip | --topology | --slices | --image | --account | --failures)
      [ $# -gt 1 ] || fail "$1 needs a value"
      ;;
  esac
  case $1 in
    --name) NAME=$2 && shift 2 ;;
    --chip) CHIP=$2 && shift 2 ;;
    --topology) TOPOLOGY=$2 && shift 2 ;;
    --slices) SLICES=$2 && shift 2 ;;
    --image) IMAGE=$2 && shift 2 ;;
    --account) ACCOUNT=$2 && shift 2 ;;
    --failures) FAILURES=$2 && shift 2 ;;
    --dry-run) dry=yes && shift ;;
    --) shift && break ;;
    *) fail "there is no option $1; without arguments this prints the options" ;;
  esac
done
[[ $NAME =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  fail "give --name NAME, of lower-case letters, digits and hyphens; it is '$NAME'"
[[ $SLICES =~ ^[1-9][0-9]*$ ]] || fail "--slices $SLICES is no number of slices"
[[ $FAILURES =~ ^[0-9]+$ ]] || fail "--failures $FAILURES is no number"

call() {
  if [ -n "$dry" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

# A list of strings as JSON, which YAML reads.
json() {
  local text list=''
  for text in "$@"; do
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    list+="${list:+, }\"$text\""
  done
  echo "[$list]"
}

manifest() {
  local template key value
  template=$(<"$(dirname "$0")/jobset.yaml")
  for key in NAME SLICES HOSTS CHIPS ACCELERATOR TOPOLOGY IMAGE ACCOUNT FAILURES ARGUMENTS; do
    value=${!key}
    template=${template//"\${$key}"/"$value"}
  done
  echo "$template"
}

start() {
  [ -n "$IMAGE" ] || fail "give --image IMAGE, which launch/Dockerfile builds"
  [ $# -gt 0 ] || fail "give what m4m shall do after --, such as: -- train CONFIG -o gs://..."
  case $CHIP in
    v5e) ACCELERATOR=tpu-v5-lite-podslice ;;
    v5p) ACCELERATOR=tpu-v5p-slice ;;
    v6e) ACCELERATOR=tpu-v6e-slice ;;
    *) fail "--chip $CHIP is none of v5e, v5p and v6e" ;;
  esac
  [[ $TOPOLOGY =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] ||
    fail "--topology $TOPOLOGY is none; write 16x16 or 4x8x8"
  local chips=$((${TOPOLOGY//x/*}))
  CHIPS=4 # of a host, in slices of several hosts
  [ "$chips" -gt 4 ] || CHIPS=$chips
  HOSTS=$((chips / CHIPS))
  [ $((HOSTS * CHIPS)) -eq "$chips" ] || fail "--topology $TOPOLOGY has $chips chips, no multiple of 4"
  ARGUMENTS=$(json "$@")
  if [ -n "$dry" ]; then
    manifest
  else
    manifest | kubectl apply -f -
  fi
}

follow() {
  call kubectl logs --follow \
    --selector="jobset.sigs.k8s.io/jobset-name=$NAME,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
}

status() {
  call kubectl describe jobset "$NAME"
  call kubectl get pods --selector="jobset.sigs.k8s.io/jobset-name=$NAME" -o wide
}

delete() {
  call kubectl delete jobset "$NAME"
}

"$command" "$@"
