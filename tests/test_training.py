"""Settings of training that make no sense are refused by name."""

import pytest

from lifelong.errors import ConfigError
from lifelong.training import Training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"learning_rate": "1e-3"}, "learning_rate"),
        ({"gradient_clip": 0}, "gradient_clip"),
        ({"gradient_clip": -1.0}, "gradient_clip"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"schedule": "liner"}, "Did you mean 'linear'"),
        ({"optimizer": "AdamV"}, "Did you mean 'Adam"),
        ({"warmup": 1.0}, "warmup"),
        ({"per_task": {"a": {"momentum": 1}}}, "momentum"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        Training(**settings)
