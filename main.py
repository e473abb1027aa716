"""Trains or evaluates: python main.py --config=configs/digits.py --workdir=runs/digits."""

import argparse
import sys

import inception
from inception import config as config_lib
from inception import sharding
from inception.errors import UserError


def main() -> int:
    """Reads the flags, starts JAX's processes, and makes one call into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument("--workdir", required=True, help="where the run is kept and continued")
    parser.add_argument("--mode", choices=("train", "eval"), default="train")
    parser.add_argument("--step", type=int, help="the checkpoint to evaluate; default: the newest")
    parser.add_argument(
        "--distributed", action="store_true", help="one of several processes (TPU pods, clusters)"
    )
    args, overrides = config_lib.parse_args(parser)
    if args.step is not None and args.mode == "train":
        parser.error("--step is for --mode=eval; training continues from the newest checkpoint")
    try:
        config = inception.load_config(args.config, overrides)
        if args.distributed:
            sharding.connect()
        if args.mode == "train":
            inception.train(config, args.workdir)
        else:
            inception.evaluate(config, args.workdir, args.step)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(stopped or "interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
