"""Receptive fields: those that others published, and what an input can change."""

import inception
from inception.cost.counting import count_network
from inception.cost.receptive_fields import receptive_fields


def _fields(name: str):
    return receptive_fields(count_network(inception.load_config(f"configs/{name}.py")))


def test_the_released_networks_field_is_the_published_one():
    """1311 pixels with a stride of 32: Araujo et al., distill.pub/2019/computing-receptive-fields.

    The stem's are easily computed by hand.
    """
    fields = _fields("v3")
    assert fields["Mixed_7c"] == (1311, 1311, 32)
    assert fields["Conv2d_1a_3x3"] == (3, 3, 2)
    assert fields["Conv2d_2b_3x3"] == (11, 11, 2)
    assert fields["MaxPool_5a_3x3"] == (31, 31, 8)
    assert "pooled" not in fields


def test_a_factorized_convolution_sees_what_the_whole_one_sees():
    asymmetric, full = _fields("v3"), _fields("figure6_full")
    assert asymmetric == full
    assert _fields("figure6_3x3")["Mixed_6e"].height < full["Mixed_6e"].height
    assert _fields("v2")["Conv2d_1a_7x7"] == (7, 7, 2)


def test_table_2_halves_the_stride_where_the_image_is_half_as_large():
    full, half = _fields("resolution_299"), _fields("resolution_151")
    for stage, field in full.items():
        assert field.stride == 2 * half[stage].stride
