"""Convert a model to float16 with another converter; for tools/bench_fp16.py.

    python tools/rivals_fp16.py CONVERTER IN.onnx OUT.onnx [--keep-io-types]

CONVERTER is onnxconverter-common, onnxruntime or modelopt; run it with a Python that has it.
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
    else:
        if name == "onnxruntime":
            from onnxruntime.transformers.float16 import convert_float_to_float16
        else:
            from onnxconverter_common.float16 import convert_float_to_float16
        model = convert_float_to_float16(model, keep_io_types=keep)
    onnx.save(model, target)


main()
