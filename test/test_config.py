"""Settings: an unknown key, a wrong type or an out-of-range value names itself."""

import pytest

from ros2_pose.config import ConfigError, PoseConfig, from_dict, values_of_yaml


def test_defaults_pass_their_own_check():
    assert from_dict(PoseConfig, vars(PoseConfig())) == PoseConfig()


@pytest.mark.parametrize("values, word", [
    ({"netwrok": "movenet"}, "unknown setting 'netwrok'.*network"),
    ({"score_threshold": "high"}, "score_threshold: 'high' is str, expected float"),
    ({"score_threshold": 1.5}, "score_threshold: 1.5 is out of range, expected 0.0 to 1.0"),
    ({"score_threshold": float("nan")}, "out of range"),
    ({"max_people": True}, "max_people: True is bool, expected int"),
    ({"scales": [256, 64]}, "scales: 64 is out of range"),
    ({"scales": []}, "scales: .* must be a list of one or more numbers"),
    ({"finders": []}, "finders: .* must be a list of one or more names"),
    ({"finders": "nanodet"}, "finders: 'nanodet' must be a list of one or more names"),
    ({"finders": ["movenet", "yolo"]}, "finders: 'yolo' is not one of movenet, .*, nanodet"),
    ({"finders": ["top_down"]}, "finders: 'top_down' is not one of movenet, .*, nanodet"),
    ({"refiner": "nanodet"}, "refiner: 'nanodet' is not one of thunder"),
    ({"search_every": -1}, "search_every: -1 is out of range, expected 0 to 100"),
    ({"device": "gpu"}, "device: 'gpu' is not one of auto, cpu, cuda"),
])
def test_bad_values_are_named(values, word):
    with pytest.raises(ConfigError, match=word):
        from_dict(PoseConfig, values)


def test_whole_numbers_pass_as_floats_and_lists_as_tuples():
    config = from_dict(PoseConfig, {"lost_s": 2, "scales": [512]})
    assert config.lost_s == 2.0 and config.scales == (512,)


def test_yaml(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("device: cpu\nscales: [256]\n")
    assert values_of_yaml(path) == {"device": "cpu", "scales": [256]}
    path.write_text("- device\n")
    with pytest.raises(ConfigError, match="key: value"):
        values_of_yaml(path)
    with pytest.raises(ConfigError, match="no.yaml"):
        values_of_yaml(tmp_path / "no.yaml")
