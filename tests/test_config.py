"""Config files, overrides and the table of fields; rows differ as table 3 says."""

import re
from pathlib import Path

import pytest

import inception
from inception.config import (
    check_batch_size,
    differences,
    flatten,
    named_evaluations,
    validate,
)
from inception.defaults import FIELDS, FROM_WEIGHTS, get_config
from inception.errors import ConfigError

FILES = sorted(path.stem for path in Path("configs").glob("[!_]*.py"))


@pytest.mark.parametrize("name", FIELDS)
def test_every_row_of_the_table_is_whole(name):
    field = FIELDS[name]
    assert field.check.accepts(field.default)
    assert field.check.right
    assert field.meaning.endswith(".")
    if field.needs:
        other, values = field.needs
        assert FIELDS[other].default in values
        assert all(FIELDS[other].check.accepts(value) for value in values)


def test_the_defaults_are_the_rows_and_belong_to_nobody():
    config = get_config()
    assert flatten(config) == {name: field.default for name, field in FIELDS.items()}
    assert set(FROM_WEIGHTS) <= FIELDS.keys()
    config.input_mean[0] = 0.0
    assert get_config().input_mean == FIELDS["input_mean"].default == [0.5, 0.5, 0.5]


def test_the_networks_own_defaults_are_the_configs():
    model = inception.Inception()
    assert {
        name: getattr(model, name) for name in get_config().model
    } == get_config().model.to_dict()


def _fields(name: str) -> dict:
    return flatten(inception.load_config(f"configs/{name}.py"))


@pytest.mark.parametrize("name", FILES)
def test_every_config_loads_and_has_the_fields_of_base(name):
    fields = {field for field in _fields(name) if not field.startswith("evaluations.")}
    assert fields == _fields("base").keys()


@pytest.mark.parametrize(
    ("child", "parent", "changed"),
    [
        ("v2", "base", {"optimizer", "label_smoothing", "model.stem", "model.aux_head"}),
        ("v2_rmsprop", "v2", {"optimizer"}),
        ("v2_label_smoothing", "v2_rmsprop", {"label_smoothing"}),
        ("v2_factorized_7x7", "v2_label_smoothing", {"model.stem"}),
        ("v3", "v2_factorized_7x7", {"model.aux_head"}),
        ("v3", "base", set()),
        (
            "v3_robustness",
            "v3",
            {
                *(f"evaluations.{name}.dataset" for name in ("v2", "real", "a", "r")),
                *(f"evaluations.{name}.split" for name in ("v2", "a", "r")),
                *(f"evaluations.{name}.classes" for name in ("a", "r")),
            },
        ),
        ("table1", "v3", {"model.outline"}),
        ("resolution_299", "v3", set()),
        ("resolution_151", "resolution_299", {"image_size", "model.stem"}),
        ("resolution_79", "resolution_299", {"image_size", "model.stem"}),
        ("figure2_linear", "v3", {"model.relu_between_3x3"}),
        ("figure6_full", "v3", {"model.factorization"}),
        ("figure6_3x3", "v3", {"model.factorization"}),
        ("figure7_unexpanded", "v3", {"model.expanded_filter_bank"}),
        ("figure8_none", "v3", {"model.aux_head"}),
        ("figure8_plain", "v3", {"model.aux_head"}),
        ("figure8_dropout", "v3", {"model.aux_head"}),
        ("figure9_pool_first", "v3", {"model.reduction"}),
        ("figure9_convolve_first", "v3", {"model.reduction"}),
    ],
)
def test_a_row_differs_from_its_parent_in_exactly_the_named_fields(child, parent, changed):
    assert set(differences(_fields(parent), _fields(child))) == changed


def test_figure8_plain_is_the_row_before_v3():
    assert _fields("figure8_plain") == _fields("v2_factorized_7x7")


@pytest.mark.parametrize("name", FILES)
def test_every_config_says_how_to_run_it(name):
    text = Path(f"configs/{name}.py").read_text()
    if name != "base":
        assert f"python main.py --config=configs/{name}.py --workdir=runs/{name}" in text


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("batch_size=256", "batch_size", 256),
        ("--config.batch_size=256", "batch_size", 256),
        ("num_epochs=3", "num_epochs", 3.0),
        ("learning_rate=1e-3", "learning_rate", 0.001),
        ("model.batch_norm_scale=true", "model.batch_norm_scale", True),
        ("model.expanded_filter_bank=False", "model.expanded_filter_bank", False),
        ("data_dir=a=b", "data_dir", "a=b"),
        ("eval.crops=12", "eval.crops", 12),
        ("input_std=0.2,0.3,1", "input_std", [0.2, 0.3, 1.0]),
    ],
)
def test_overrides_keep_the_fields_type(override, field, value):
    config = flatten(inception.load_config("configs/v3.py", [override]))
    assert config[field] == value
    assert type(config[field]) is type(value)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("batch_sizee=3", ("config.batch_sizee", "config.batch_size?")),
        ("model.aux_heads=bn", ("config.model.aux_heads", "config.model.aux_head?")),
        ("eval=3", ("config.eval",)),
        ("evaluations.v2=3", ("config.evaluations.v2",)),
        ("evaluations.v2.crop=12", ("config.evaluations.v2.crop",)),
        ("evaluations.a/b.crops=12", ("config.evaluations.a/b",)),
        ("evaluations.v2.ensemble=runs/a", ("config.evaluations.v2", "runs/a")),
        ("batch_size=100000000", ("config.batch_size=100000000", "GiB")),
        ("evaluations.v2.batch_size=100000000", ("config.evaluations.v2.batch_size=1", "GiB")),
        ("profile_steps=13:10", ("config.profile_steps='13:10'", "10:13")),
        ("batch_size=1.5", ("config.batch_size='1.5'", "int")),
        ("model.batch_norm_scale=1", ("config.model.batch_norm_scale='1'", "bool")),
        ("batch_size", ("'batch_size'", "--config.FIELD=VALUE")),
        ("learning_rate=nan", ("config.learning_rate=nan", "greater than 0")),
        ("batch_size=0", ("config.batch_size=0", "at least 1")),
        ("label_smoothing=1.0", ("config.label_smoothing=1.0", "below 1")),
        ("optimizer=adam", ("config.optimizer='adam'", "'rmsprop', 'momentum'")),
        ("eval.crops=10", ("config.eval.crops=10", "(1, 12, 144)")),
        ("model.stem=5x5", ("stem='5x5'", "'7x7'")),
        ("image_size=60", ("config.image_size=60", "75")),
        ("batch_size=100", ("config.batch_size=100", "96 or 128")),
        ("accumulation_steps=2000", ("config.batch_size=1536", "=2000", "use 2000")),
        ("warmup_epochs=100", ("config.warmup_epochs=100.0", "config.num_epochs=100.0")),
        ("input_mean=0.5,0.5", ("config.input_mean=[0.5, 0.5]", "three")),
        ("input_mean=0.5,0.5,x", ("config.input_mean='0.5,0.5,x'", "list")),
        ("input_mean=nan,0.5,0.5", ("config.input_mean=[nan", "at most")),
        ("input_std=1,0,1", ("config.input_std=[1.0, 0.0, 1.0]", "greater than 0")),
        ("freeze_until=Mixed_6", ("config.freeze_until='Mixed_6'", "'Mixed_6e'")),
    ],
)
def test_bad_overrides_are_refused_by_name(override, named):
    with pytest.raises(ConfigError) as error:
        inception.load_config("configs/v3.py", [override])
    for part in named:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("switch", "idle"),
    [
        ("optimizer=momentum", "rmsprop_decay=0.8"),
        ("schedule=cosine", "decay_epochs=3"),
        ("model.aux_head=none", "aux_loss_weight=0.2"),
        ("eval.crops=12", "eval.preprocessing=resize_crop"),
    ],
)
def test_fields_without_effect_are_warned_of(switch, idle, caplog):
    inception.load_config("configs/v3.py", [idle])
    assert not caplog.records
    inception.load_config("configs/v3.py", [switch, idle])
    (record,) = caplog.records
    (idle, _, _), (switch, _, _) = idle.partition("="), switch.partition("=")
    assert re.match(rf"config\.{idle}=.* has no effect when config\.{switch}=", record.getMessage())


def test_frozen_weights_that_come_from_nowhere_are_warned_of(caplog):
    inception.load_config("configs/v3.py", ["freeze_until=Mixed_6e", "init_from=weights"])
    assert not caplog.records
    inception.load_config("configs/v3.py", ["freeze_until=Mixed_6e"])
    assert "config.init_from" in caplog.text


def test_named_evaluations_are_the_evaluation_with_a_change():
    fields = ["evaluations.v2.dataset=imagenet_v2", "evaluations.v2.split=test", "eval.crops=12"]
    config = inception.load_config("configs/v3.py", fields)
    (named,) = named_evaluations(config).items()
    assert named[0] == "v2"
    changed = differences(flatten(config), flatten(named[1]))
    assert {name for name in changed if not name.startswith("evaluations.")} == {
        "eval.dataset",
        "eval.split",
    }


@pytest.mark.parametrize(
    ("batch", "accumulation", "devices", "group", "choices"),
    [
        (100, 1, 8, 0, "96 or 104"),
        (5, 1, 8, 0, "8"),
        (96, 5, 8, 0, "80 or 120"),
        (32, 1, 3, 8, "24 or 48"),  # both at once, not one after the other
        (20, 1, 3, 32, "18 or 21"),  # smaller than a group
    ],
)
def test_batches_that_cannot_be_split_are_refused(batch, accumulation, devices, group, choices):
    config = inception.load_config("configs/v3.py", [f"model.batch_norm_group={group}"])
    config.batch_size, config.accumulation_steps = batch, accumulation
    with pytest.raises(ConfigError, match=f"batch_size={batch}.*: use {choices}$"):
        check_batch_size(config, devices)


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 6, 8, 12, 16])
def test_the_default_batch_divides_over_many_devices(devices):
    check_batch_size(inception.load_config("configs/v3.py"), devices)
    assert 1536 // devices % 32 == 0  # and into whole groups on each


def test_fields_changed_in_python_are_checked_too():
    config = inception.load_config("configs/digits.py")
    config.batch_sise = 64
    with pytest.raises(ConfigError, match=r"config\.batch_sise.* config\.batch_size"):
        validate(config)
    del config.batch_sise, config.seed
    with pytest.raises(ConfigError, match=r"config\.seed is missing"):
        validate(config)


@pytest.mark.parametrize("text", ["# Inception\n\n```", "x = 1", "import nowhere"])
def test_a_file_that_is_no_config_is_refused(tmp_path, text):
    file = tmp_path / "README.md"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"README\.md cannot be used: "):
        inception.load_config(file)


def test_an_unknown_field_of_the_model_in_a_file_is_refused(tmp_path):
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs" / "mine.py"
    file.write_text(
        "from configs import v3\n\n\ndef get_config():\n"
        "    config = v3.get_config()\n    config.model.depth = 3\n    return config\n"
    )
    with pytest.raises(ConfigError, match="depth"):
        inception.load_config(file)


@pytest.mark.parametrize(
    ("file", "nearest"),
    [
        ("configs/v4.py", "configs/v3.py"),
        ("v3", "configs/v3.py"),
        ("configs/v3", "configs/v3.py"),
        ("config/v3.py", "configs/v3.py"),
        ("v2_rmsprop.py", "configs/v2_rmsprop.py"),
        ("configs/resolution_150.py", "configs/resolution_151.py"),
    ],
)
def test_a_file_that_does_not_exist_is_answered_with_the_nearest(file, nearest):
    with pytest.raises(ConfigError) as error:
        inception.load_config(file)
    assert str(error.value) == f"config file {file} does not exist; did you mean {nearest}?"


def test_of_two_files_of_one_name_the_one_in_the_same_folder_is_nearest(tmp_path):
    (tmp_path / "v3.py").write_text("")
    with pytest.raises(ConfigError, match=f"did you mean {tmp_path}/v3.py"):
        inception.load_config(tmp_path / "v3")


def test_a_folder_and_a_place_without_config_files(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="config file configs is a folder; did you mean"):
        inception.load_config("configs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"config file v3\.py does not exist$"):
        inception.load_config("v3.py")


def test_choices_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"config\.model: .*stem='7x7'.*outline='table1'"):
        inception.load_config("configs/table1.py", ["model.stem=7x7"])


def test_mixup_of_an_odd_batch_is_refused():
    overrides = ["batch_size=15", "model.batch_norm_group=0"]
    assert inception.load_config("configs/v3.py", overrides).batch_size == 15
    with pytest.raises(ConfigError, match=r"batch_size=15; it must be even.*mixup_alpha=0\.2"):
        inception.load_config("configs/v3.py", [*overrides, "mixup_alpha=0.2"])
