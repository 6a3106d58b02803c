"""A graphopt pass for the way some exporters spell ReLU6."""

from graphopt_relu6.convert_min_max_to_clip import ConvertMinMaxToClip

PASSES = (ConvertMinMaxToClip,)
