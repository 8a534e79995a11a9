#!/usr/bin/env bash
# Trains on Cloud TPU VMs by way of a queued resource: one slice, or several.
#
#   launch/tpu_pod.sh COMMAND --name NAME --zone ZONE [OPTION]... [-- M4M_ARGUMENT...]
#
# Commands:
#   run      create, wait, start and follow; once more after a preemption; delete at the end
#   create   ask for the slices                 wait     until they are there
#   start    m4m on all their hosts             follow   its log, until it ends; its exit status
#   stop     m4m: it saves, and exits with 75   delete   the slices and the request
#   status   of the request
#
# Options:
#   --type TYPE        of a slice, such as v5litepod-256 (default), v6e-256 or v5p-512
#   --version VERSION  the VMs' software (default: by the type)
#   --slices N         how many slices (default: 1)
#   --image IMAGE      of launch/Dockerfile, in a registry (for start and run)
#   --project PROJECT  default: gcloud's own
#   --on-demand        pay more and be preempted less; the default is --spot
#   --service-account ACCOUNT  of the VMs, which must read the image and the bucket
#   --dry-run          print the commands, run none
#
# Exit status: that of m4m (0 finished, 75 stopped and saved, 2 a user's error, never tried again),
# or 1 where `run` has failed in another way more than FAILURES times in a row.
set -euo pipefail

FAILURES=3
POLL_SECONDS=${M4M_POLL_SECONDS:-30}
CALM_SECONDS=600
GRACE_SECONDS=60 # m4m takes 25 at the most to save

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

fail() {
  echo "tpu_pod.sh: $*" >&2
  exit 2
}

command=${1:-}
case $command in
  run | create | wait | start | follow | stop | delete | status) shift ;;
  *) usage ;;
esac

name='' zone='' type=v5litepod-256 version='' slices=1 image='' account=''
spot=(--spot) project=() dry='' started=''
while [ $# -gt 0 ]; do
  case $1 in
    --name | --zone | --type | --version | --slices | --image | --project | --service-account)
      [ $# -gt 1 ] || fail "$1 needs a value"
      ;;
  esac
  case $1 in
    --name) name=$2 && shift 2 ;;
    --zone) zone=$2 && shift 2 ;;
    --type) type=$2 && shift 2 ;;
    --version) version=$2 && shift 2 ;;
    --slices) slices=$2 && shift 2 ;;
    --image) image=$2 && shift 2 ;;
    --project) project=(--project="$2") && shift 2 ;;
    --service-account) account=$2 && shift 2 ;;
    --spot) spot=(--spot) && shift ;;
    --on-demand) spot=() && shift ;;
    --dry-run) dry=yes && shift ;;
    --) shift && break ;;
    *) fail "there is no option $1; without arguments this prints the options" ;;
  esac
done
[ -n "$name" ] || fail "give --name NAME, which the run's machines will have"
[ -n "$zone" ] || fail "give --zone ZONE, where there are TPUs of this type"
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices $slices is no number of slices"
if [[ $command == start || $command == run ]]; then
  [ -n "$image" ] || fail "give --image IMAGE, which launch/Dockerfile builds"
  [ $# -gt 0 ] || fail "give what m4m shall do after --, such as: -- train CONFIG -o gs://..."
fi
if [ -z "$version" ]; then
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    v4-*) version=tpu-ubuntu2204-base ;;
    *) fail "give --version VERSION: this script knows none for --type $type" ;;
  esac
fi

call() {
  if [ -n "$dry" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

queue() {
  local verb=$1 resource=$2
  shift 2
  call gcloud compute tpus queued-resources "$verb" "$resource" --zone="$zone" \
    ${project[@]+"${project[@]}"} "$@"
}

# On every host of every slice; its exit status is that of a host where it failed.
everywhere() {
  queue ssh "$name" --worker=all --node=all --command="$1"
}

create() {
  local nodes=(--node-id="$name")
  [ "$slices" -eq 1 ] || nodes=(--node-count="$slices" --node-prefix="$name")
  queue create "$name" "${nodes[@]}" --accelerator-type="$type" --runtime-version="$version" \
    ${account:+--service-account="$account"} ${spot[@]+"${spot[@]}"}
}

# ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ...; NONE where there is no such request.
state() {
  if [ -n "$dry" ]; then
    queue describe "$name" --format='value(state.state)' >&2
    echo ACTIVE
  else
    queue describe "$name" --format='value(state.state)' 2>/dev/null || echo NONE
  fi
}

await() {
  local now before=''
  while :; do
    now=$(state)
    [ "$now" = "$before" ] || echo "$name: $now"
    before=$now
    case $now in
      ACTIVE) return ;;
      FAILED | SUSPEND* | DELETING | NONE) return 1 ;;
    esac
    sleep "$POLL_SECONDS"
  done
}

start() {
  local arguments remote
  arguments=$(printf '%q ' "$image" "$@")
  # Where m4m is running already, because this script was started again, it goes on.
  remote="[ -n \"\$(sudo docker ps --quiet --filter name=^m4m\$)\" ] && exit 0
sudo gcloud auth configure-docker --quiet ${image%%/*} || exit
sudo docker rm --force m4m >/dev/null 2>&1
sudo docker run --detach --name m4m --privileged --network host --stop-timeout $GRACE_SECONDS $arguments"
  everywhere "$remote"
}

follow() {
  everywhere "sudo docker logs --follow --tail 100 m4m; exit \"\$(sudo docker wait m4m)\""
}

stop() {
  everywhere "sudo docker stop -t $GRACE_SECONDS m4m"
}

delete() {
  queue delete "$name" --force --quiet
}

# The slices are there: those of an earlier try, or new ones.
provide() {
  local now
  now=$(state)
  [ -z "$dry" ] || now=NONE
  case $now in
    NONE) create ;;
    FAILED | SUSPEND*)
      delete
      create
      ;;
  esac
  await
}

# One try: the exit status of m4m; 1 where it did not come to that, 255 where its hosts were lost.
try() {
  started=''
  provide || return 1
  start "$@" || return 1
  started=$SECONDS
  follow
}

# Whether what ended a try was no fault of m4m's: a preemption, or a connection that broke.
excused() {
  [ -n "$started" ] || return 1
  [ "$(state)" = ACTIVE ] || return 0
  [ "$1" -eq 255 ] && [ $((SECONDS - started)) -gt "$CALM_SECONDS" ]
}

run() {
  local status failures=0
  while :; do
    status=0
    try "$@" || status=$?
    case $status in
      0 | 2)
        delete
        return "$status"
        ;;
      75) failures=0 ;;
      *) if excused "$status"; then failures=0; else failures=$((failures + 1)); fi ;;
    esac
    if [ "$failures" -gt "$FAILURES" ]; then
      echo "tpu_pod.sh: m4m has failed $failures times, last with status $status" >&2
      echo "The slices are still there; delete them with: $0 delete --name $name --zone $zone" >&2
      return 1
    fi
    echo "tpu_pod.sh: status $status; starting again" >&2
    sleep "$POLL_SECONDS"
  done
}

case $command in
  wait) await ;;
  status) queue describe "$name" ;;
  start | run) "$command" "$@" ;;
  *) "$command" ;;
esac
