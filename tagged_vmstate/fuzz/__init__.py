"""Fuzzing: of the readers of the format, and of devices through it.

`targets` says what is run and what counts as a defect, `mutate` makes inputs, `engine` runs them; `strategies` are for
Hypothesis. The command is `tagged-vmstate fuzz`.
"""

from tagged_vmstate.fuzz.engine import Limits, Outcome, fuzz
from tagged_vmstate.fuzz.targets import Defect, Devices, Json, Snapshots, Streams, Target

__all__ = ["Defect", "Devices", "Json", "Limits", "Outcome", "Snapshots", "Streams", "Target", "fuzz"]
