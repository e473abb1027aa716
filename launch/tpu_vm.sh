#!/bin/bash
# Cloud TPU VMs: `launch/tpu_vm.sh NAME ZONE BUCKET` creates a slice of 16 chips on 4 hosts, installs
# this repository and trains; run again, it continues. JAX finds the hosts by their metadata.
set -eu
name=$1 zone=$2 bucket=$3

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

# --spot is cheaper but can be preempted: the hosts get SIGTERM and save, and the slice is deleted.
if ! gcloud compute tpus tpu-vm describe "$name" --zone="$zone" > /dev/null 2>&1; then
  gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
    --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite --spot
fi
gcloud compute tpus tpu-vm scp --recurse . "$name":inception --zone="$zone" --worker=all
on_all_hosts 'pip install --quiet -e "inception[tpu]"'

# The same command on every host. Data: a disk, or a bucket mounted with gcsfuse.
on_all_hosts "cd inception && python3 main.py \
  --config=configs/v3.py \
  --workdir=gs://$bucket/runs/v3 \
  --config.data_dir=/mnt/imagenet \
  --config.dtype=bfloat16 \
  --distributed"
