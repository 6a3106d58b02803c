"""Importing graphopt.graph does not execute sympy, and sympy works for everyone afterwards."""

import subprocess
import sys
import textwrap

import pytest


def run(script):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sympy_is_not_executed():
    run(
        """
        import sys
        before = list(sys.meta_path)
        from graphopt.graph import ir
        assert sys.meta_path == before
        found = [name for name in sys.modules if name.split(".")[0] in ("sympy", "mpmath")]
        assert not found, found
        assert "onnx_ir._symbolic_shapes" not in sys.modules
        """
    )


@pytest.mark.parametrize(
    "use",
    [
        "import sympy.core; assert sympy.core.Symbol('x').name == 'x'",
        "from sympy import Symbol; assert str(Symbol('x') + 1) == 'x + 1'",
        "import sympy; assert sympy.sqrt(4) == 2",
        "from sympy.core.symbol import Symbol; import sympy; assert sympy.Symbol is Symbol",
        "import importlib; assert importlib.import_module('sympy').Symbol('x').name == 'x'",
        "import sympy, importlib; importlib.reload(sympy); assert sympy.Integer(3) == 3",
        "import pickle, sympy; x = sympy.Symbol('x'); assert pickle.loads(pickle.dumps(x)) == x",
        "import inspect, sympy; assert inspect.ismodule(sympy) and sympy.__version__",
        "from sympy import *; assert Symbol('x')",
    ],
)
def test_sympy_works_afterwards(use):
    run(
        f"""
        import sys
        from graphopt.graph import ir
        {use}
        assert type(sys.modules["sympy"]).__name__ == "module"
        assert str(ir.SymbolicDim("N") + 1) in ("N + 1", "1 + N")
        """
    )


def test_symbolic_dims_work():
    run(
        """
        from graphopt.graph import ir
        n = ir.SymbolicDim("N")
        assert (n * 2 + 4).evaluate({"N": 3}) == 10
        assert ir.Shape(["N", n + 1]).evaluate({"N": 3}) == [3, 4]
        import sympy
        assert sympy.Symbol("N", integer=True, positive=True)
        """
    )


def test_a_sympy_that_is_loaded_already_is_left_alone():
    run(
        """
        import sympy
        symbol, module = sympy.Symbol, sympy
        from graphopt.graph import ir
        import sys
        assert sys.modules["sympy"] is module and sympy.Symbol is symbol
        assert type(module).__name__ == "module"
        assert (ir.SymbolicDim("N") + 1).evaluate({"N": 1}) == 2
        """
    )


def test_an_onnx_ir_that_is_loaded_already_is_the_same():
    run(
        """
        import onnx_ir
        from graphopt.graph import ir
        assert ir is onnx_ir
        assert (ir.SymbolicDim("N") + 1).evaluate({"N": 1}) == 2
        """
    )


def test_onnx_ir_on_its_own_works_afterwards():
    run(
        """
        from graphopt.graph import ir
        import onnx_ir
        import onnx_ir.passes.common
        assert onnx_ir is ir
        """
    )


def test_a_thread_that_imports_sympy_meanwhile():
    run(
        """
        import sys, threading
        sys.setswitchinterval(1e-6)
        failures = []

        def work():
            try:
                from sympy import Symbol
                assert Symbol("x").name == "x"
            except BaseException as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        from graphopt.graph import ir
        for thread in threads: thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "deadlock"
        assert not failures, failures
        assert (ir.SymbolicDim("N") + 1).evaluate({"N": 1}) == 2
        """
    )


@pytest.mark.parametrize("attempt", range(3))
def test_first_use_from_many_threads_at_once(attempt):
    """Not among them: `import sympy.core` beside `import sympy`, which Python itself fails at."""
    run(
        """
        import sys, threading
        sys.setswitchinterval(1e-6)
        from graphopt.graph import ir
        count, failures = 9, []
        barrier = threading.Barrier(count)

        def work(index):
            barrier.wait()
            try:
                if index % 3 == 0:
                    import sympy
                    assert sympy.Symbol("x").name == "x"
                elif index % 3 == 1:
                    from sympy import Symbol
                    assert Symbol("y").name == "y"
                else:
                    assert (ir.SymbolicDim("N") + 1).evaluate({"N": 1}) == 2
            except BaseException as error:
                failures.append((index, repr(error)))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
        for thread in threads: thread.start()
        for thread in threads: thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "deadlock"
        assert not failures, failures
        """
    )
