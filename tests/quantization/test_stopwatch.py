"""What races of variants say."""

from graphopt.quantization.stopwatch import Race


def test_a_ratio_is_that_of_the_rounds() -> None:
    """The machine was three times as slow for a round."""
    race = Race(1, {"a": (1.0, 3.0, 1.0), "float": (2.0, 6.0, 2.0)})
    assert race.ratio("a", "float") == 0.5
    assert race.ratio("float", "a") == 2.0


def test_what_left_early_is_compared_through_what_stayed() -> None:
    """Of `a` and `b` six rounds are known, of float two, both of which were lucky for `a`."""
    race = Race(
        1,
        {
            "float": (2.0, 2.0),
            "a": (0.5, 0.5, 1.0, 1.0, 1.0, 1.0),
            "b": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        },
    )
    assert race.ratio("a", "float") == race.ratio("b", "float") == 0.25
    assert race.ratio("float", "float") == 1.0
