"""ONNX operators in PyTorch: op type -> function of a `Call`.

Loops, branches, sequences and recurrent networks have none, nor have operators that training has
no use for. What a form cannot do (an unusual mode) it says with NotImplementedError; that it does
the right thing is not believed but compared with ONNX Runtime before training.
"""

from graphopt.distillation.operators import elementwise, linear, movement
from graphopt.distillation.operators.call import Call, Form, Result

FORMS: dict[str, Form] = {**elementwise.FORMS, **linear.FORMS, **movement.FORMS}

__all__ = ["FORMS", "Call", "Form", "Result"]
