"""Optimize a model with a tool that has no command of its own; for tools/bench_optimize.py.

    python tools/optimize_rivals.py {onnxscript,ort-basic} IN.onnx OUT.onnx

Run it with a Python that has the tool. Each runs with its defaults.
"""

import sys


def main() -> None:
    name, source, target = sys.argv[1:4]
    if name == "onnxscript":
        import onnx
        import onnxscript.optimizer

        onnx.save(onnxscript.optimizer.optimize(onnx.load(source)), target)
        return
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = target
    options.log_severity_level = 4
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


main()
