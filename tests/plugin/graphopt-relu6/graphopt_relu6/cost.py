"""What this vendor's own ReLU6 operator costs, so that `graphopt cost` can count it.

acme.relu6::Relu6    min(max(x, 0), 6)    2 comparisons per element
"""

from graphopt.cost import Operator, Rule, Work


def relu6(node: Operator) -> Work:
    """`Relu6`: both bounds of each element; it is read and written once."""
    return Work(elementwise=node.input().size * 2)


RULES = (Rule("acme.relu6", "Relu6", relu6),)
