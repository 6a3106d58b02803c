"""Convert a model to float16 with another converter; for tools/bench_fp16.py.

    python tools/rivals_fp16.py CONVERTER IN.onnx OUT.onnx [--keep-io-types]

CONVERTER is onnxconverter-common, onnxruntime, modelopt or onnxslim; run it with a Python that
has it. Each runs with its defaults. onnxslim cannot keep float32 inputs and outputs.
"""

import sys

import onnx


def main() -> None:
    name, source, target = sys.argv[1:4]
    keep = "--keep-io-types" in sys.argv
    model = onnx.load(source)
    if name == "modelopt":
        from modelopt.onnx.autocast import convert_to_mixed_precision

        model = convert_to_mixed_precision(
            onnx_path=source, low_precision_type="fp16", keep_io_types=keep
        )
    elif name == "onnxslim":
        import onnxslim

        if keep:
            raise SystemExit("onnxslim has no option for it")
        model = onnxslim.slim(model, dtype="fp16")
    else:
        if name == "onnxruntime":
            from onnxruntime.transformers.float16 import convert_float_to_float16
        else:
            from onnxconverter_common.float16 import convert_float_to_float16
        model = convert_float_to_float16(model, keep_io_types=keep)
    onnx.save(model, target)


main()
