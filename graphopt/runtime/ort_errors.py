"""Turns what ONNX Runtime raises into one line that a person can act on."""

import re

_LONGEST = 400
_NO_KERNEL = re.compile(
    r"Could not find an implementation for (?P<op>\S+?)\((?P<version>-?\d+)\) "
    r"node with name '(?P<node>.*?)'"
)
_UNREGISTERED = re.compile(r"(?<!\S)(?P<op>\S+?)\(-?\d+\) is not a registered function/op")
_UNKNOWN_OP = re.compile(
    r"No (?:Op|Schema) registered for (?P<op>\S+)(?: with domain_version of (?P<version>\d+))?"
)
_UNKNOWN_OPSET = re.compile(r"Opset (\d+) is under development.* is till opset (\d+)", re.DOTALL)
# In the order in which they stand in a message: what is left is the reason itself.
_NOISE = (
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : "),
    re.compile(r"^Load model from .*? failed:\s*"),
    re.compile(r"^This is an invalid model\.\s*"),
    # A place in its source, then the signature or the name of a function.
    re.compile(
        r"(?<!\S)\S+\.(?:cc|h|cpp|cu|hpp):\d+ "
        r"(?:(?=[^(]*::)[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?:::<lambda\(.*?\)>)?"
        r"|[\w:~]+)(?: \[with [^\]]*\])?(?: |$)"
    ),
    re.compile(r"^Exception during initialization: "),
    re.compile(r"Status Message:\s*"),
    re.compile(r"\s*Stacktrace:.*", re.DOTALL),
)


def runtime_reason(error: BaseException) -> str:
    """The reason in an exception of ONNX Runtime, on one line, the operator at fault named."""
    text = str(error)
    no_kernel = _NO_KERNEL.search(text)
    if no_kernel:
        node = f" (node {no_kernel['node']!r})" if no_kernel["node"] else ""
        return (
            f"ONNX Runtime has no kernel here for {no_kernel['op']} of version "
            f"{no_kernel['version']} with these types{node}"
        )
    unknown = _UNREGISTERED.search(text) or _UNKNOWN_OP.search(text)
    if unknown:
        version = unknown.groupdict().get("version")
        at = f" at opset {version}" if version else ""
        hint = ": it needs a custom library" if re.search(r"[.:]", unknown["op"]) else ""
        return f"ONNX Runtime does not know the operator {unknown['op']}{at}{hint}"
    opset = _UNKNOWN_OPSET.search(text)
    if opset:
        return f"the model needs opset {opset[1]}, this ONNX Runtime ends at {opset[2]}"
    for noise in _NOISE:
        text = noise.sub("", text)
    text = " ".join(text.split())
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 3] + "..."
    return text or type(error).__name__
