"""What the golden cases cannot spell: strings that differ in the zero bytes at their ends."""

from graphopt_passes.eliminate_duplicates import EliminateDuplicates

from graphopt.graph import from_text, ir
from graphopt.plugin import Journal


def test_strings_that_differ_in_a_last_zero_byte_are_two():
    model = from_text(
        """
        <ir_version: 9, opset_import: ["" : 19]>
        g (string[1] x) => (bool[1] y) <string[1] v = {"a"}, string[1] w = {"a"}> {
            a = Equal (x, v)
            b = Equal (x, w)
            y = Xor (a, b)
        }
        """
    )
    longer = ir.StringTensor([b"a\0"], shape=ir.Shape([1]), name="w")
    model.graph.initializers["w"].const_value = longer

    journal = Journal("eliminate-duplicates")
    EliminateDuplicates().run(model, journal)

    assert journal.rewrites == []
