"""The data that a config names: what it trains on and what it evaluates on."""

from ml_collections import ConfigDict

from inception.data.sources import Source, open_source


def open_train_source(config: ConfigDict) -> Source:
    """Opens the config's training split.

    Raises:
      DataError: see `open_source`.
    """
    return open_source(
        config.dataset, config.split, config.data_dir, on_bad_record=config.on_bad_record
    )


def open_eval_source(config: ConfigDict) -> Source:
    """Opens the config's evaluation split.

    Raises:
      DataError: see `open_source`.
    """
    dataset, data_dir = eval_data(config)
    return open_source(dataset, config.eval.split, data_dir)


def eval_data(config: ConfigDict) -> tuple[str, str]:
    """The data set and the directory that the config evaluates on: training's unless it says so."""
    return config.eval.dataset or config.dataset, config.eval.data_dir or config.data_dir
