"""The model presets have the parameter counts that their authors publish."""

import pytest

from profiles.presets import model_preset, preset_names

# Counts of the checkpoints on the Hugging Face hub, to the parameter.
EXACT = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
}

# Billions as printed in Narayanan et al. 2021, table 1, and Korthikanti et al. 2022, table 3.
ROUNDED = {
    "gpt3-1.7b": "1.7",
    "gpt3-3.6b": "3.6",
    "gpt3-7.5b": "7.5",
    "gpt3-18b": "18.4",
    "gpt3-39b": "39.1",
    "gpt3-76b": "76.1",
    "gpt3-145b": "145.6",
    "gpt3-310b": "310.1",
    "gpt3-530b": "529.6",
    "gpt3-1t": "1008.0",
    "gpt3-175b": "174.6",
    "gpt3-22b": "22.1",
}


@pytest.mark.parametrize(("name", "count"), EXACT.items())
def test_parameter_count_is_that_of_the_checkpoint(name: str, count: int) -> None:
    assert model_preset(name).parameters == count


@pytest.mark.parametrize(("name", "billions"), ROUNDED.items())
def test_parameter_count_is_that_of_the_paper(name: str, billions: str) -> None:
    assert f"{model_preset(name).parameters / 1e9:.1f}" == billions


def test_every_preset_is_checked_here_or_is_our_own() -> None:
    ours = {name for name in preset_names("models") if name.startswith("bytes-")}
    assert set(preset_names("models")) == EXACT.keys() | ROUNDED.keys() | ours
