#!/bin/bash
# Open MPI, GPUs: `launch/open_mpi.sh HOST1:8,HOST2:8` starts one process per GPU, and restarts them
# after a preemption or the loss of a process. Under Open MPI 4 --distributed would do; the explicit
# flags also work under 5, which does not say where the first process is.
set -u
hosts=$1
coordinator=${hosts%%:*}:8476

run() {
  # Each process takes one GPU. Open MPI forwards SIGTERM, and by default waits only one second.
  mpirun --host "$hosts" --map-by slot --mca odls_base_sigkill_timeout 300 bash -c '
    export JAX_LOCAL_DEVICE_IDS=$OMPI_COMM_WORLD_LOCAL_RANK
    exec python main.py \
      --config=configs/v3.py \
      --workdir=/scratch/runs/v3 \
      --config.data_dir=/scratch/imagenet \
      --config.dtype=bfloat16 \
      --coordinator="$0" \
      --num_processes="$OMPI_COMM_WORLD_SIZE" \
      --process_id="$OMPI_COMM_WORLD_RANK"' "$coordinator"
}

for _ in {1..100}; do
  run
  status=$?
  case $status in
    75 | 134 | 137) ;; # saved, or a process was lost: continue from the newest checkpoint
    *) exit $status ;;
  esac
done
exit $status
