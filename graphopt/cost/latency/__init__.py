"""Latency: a machine is calibrated once, then any model's time on it is predicted, or measured.

`predict` works on the graph as ONNX Runtime will run it, adds up the time of every kernel, and
says how far off it may be. What is known of a machine is a `MachineProfile`.
"""

from graphopt.cost.latency.calibration import calibrate
from graphopt.cost.latency.machine import MachineProfile, load_profile, profile_path
from graphopt.cost.latency.measurement import Measured, MeasuredNode, measure
from graphopt.cost.latency.prediction import INTERVAL, Latency, NodeLatency, predict

__all__ = [
    "INTERVAL",
    "Latency",
    "MachineProfile",
    "Measured",
    "MeasuredNode",
    "NodeLatency",
    "calibrate",
    "load_profile",
    "measure",
    "predict",
    "profile_path",
]
