"""Trains or evaluates: python main.py --config=configs/digits.py --workdir=runs/digits."""

import sys
from collections.abc import Sequence

import inception
from inception import command_line, runtime
from inception.distributed import processes


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, connects the processes, and makes one call into the package."""
    parser = command_line.parser("python main.py", __doc__, config=True)
    parser.add_argument("--config", required=True, help="config file, such as configs/v3.py")
    parser.add_argument(
        "--workdir", required=True, help="folder or bucket of the run, which continues there"
    )
    parser.add_argument("--mode", choices=("train", "eval", "replay"), default="train")
    parser.add_argument("--step", type=int, help="checkpoint to evaluate, or step to replay")
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes, on a TPU pod or under Slurm, Open MPI or Kubernetes",
    )
    parser.add_argument(
        "--coordinator", help="one of several processes, elsewhere: HOST:PORT of process 0"
    )
    parser.add_argument("--num_processes", type=int, help="with --coordinator: number of processes")
    parser.add_argument(
        "--process_id", type=int, help="with --coordinator: number of this process, from 0"
    )
    args, overrides = command_line.parse(parser, argv)
    if args.step is not None and args.mode == "train":
        parser.error("--step is for --mode=eval; training continues from the newest checkpoint")
    if args.step is None and args.mode == "replay":
        parser.error("--mode=replay needs --step=N, the step to compute again")
    runtime.tune_host_runtime()
    processes.connect(
        args.distributed,
        args.coordinator,
        args.num_processes,
        args.process_id,
        save_on_sigterm=args.mode == "train",
    )
    config = inception.load_config(args.config, overrides)
    if args.mode == "train":
        inception.train_and_evaluate(config, args.workdir)
    elif args.mode == "replay":
        inception.replay_step(config, args.workdir, args.step)
    else:
        inception.evaluate_run(config, args.workdir, args.step)


if __name__ == "__main__":
    sys.exit(command_line.run(main, command_line.SMALLER_BATCH))
