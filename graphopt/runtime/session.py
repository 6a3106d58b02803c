"""Runs a model in ONNX Runtime.

A session used as the reference (`optimized=False`) switches every graph optimization of ONNX
Runtime off, so that what is compared is the model as written, not what the runtime made of it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from graphopt.errors import OutputError, RuntimeUnavailableError, UsageError
from graphopt.graph import ir
from graphopt.runtime.ort_errors import runtime_reason
from graphopt.runtime.ort_values import BEYOND_NUMPY, is_beyond_numpy, to_array, to_ort_value
from graphopt.runtime.versions import lower_versions
from graphopt.runtime.weights import Weights, share_weights

Feed = dict[str, Any]
"""Input name -> numpy array; a list of arrays for a sequence; None for an absent optional."""

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_QUIET = 4  # ONNX Runtime's severity "fatal": a failure is raised, and needs no second telling


class Session:
    """A model loaded in ONNX Runtime, ready to run. The model given is not changed.

    Args:
        model: the model to run.
        provider: "cpu", or another that this build of ONNX Runtime has ("cuda", "tensorrt",
            "openvino"); what it cannot run falls back to the CPU.
        optimized: whether ONNX Runtime may optimize the graph, as it does for its users.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        outputs: names of further values of the main graph to give back, beside its outputs.

    Attributes:
        input_names: of the model's inputs.
        output_names: of what `run` gives back by default.
        ties_threads: whether ONNX Runtime ties its threads to cores, as it does by default.

    Its idle threads wait asleep, not spinning as by default: beside other work that is faster, and
    a run with several threads takes longer by their waking up (0.05 ms on a small voice detector).

    Weights of a large model are lent to ONNX Runtime where they are (mapped from their file,
    usually) instead of being copied into a protobuf; the session keeps them alive.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load the model here; one line says why.
        InvalidModelError: the model cannot be expressed in protobuf.
        UsageError: `outputs` names a value that the main graph does not have.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        provider: str = "cpu",
        optimized: bool = False,
        threads: int = 0,
        outputs: Sequence[str] = (),
    ) -> None:
        runtime = import_onnxruntime()
        providers = provider_names(runtime, provider)
        options = runtime.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = threads
        options.use_deterministic_compute = True
        # Idle threads wait by spinning, and take the cores from the sessions beside this one.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if not optimized:
            level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
            # It pays where shapes repeat, and holds another block for all activations.
            options.enable_mem_pattern = False
        extra = _extra_outputs(model, outputs)
        with share_weights(model, in_place=provider == "cpu" and not optimized) as weights:
            weights.lend(runtime, options)
            session = make_session(runtime, proto_of(weights, extra), options, providers)
            weights.release()
        self._weights = weights
        self._session = session
        self._runtime = runtime
        self.ties_threads = threads == 0 and provider == "cpu"
        self._types = {output.name: output.type for output in session.get_outputs()}
        self.input_names: tuple[str, ...] = tuple(i.name for i in session.get_inputs())
        self.output_names: tuple[str, ...] = tuple(self._types)

    def run(self, feed: Feed, output_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Run the model once.

        Args:
            feed: a value for every input. Types that numpy lacks (bfloat16, float8, int4) go
                in, and come out, as arrays of their ml_dtypes type.
            output_names: what to compute; None for every output.

        Returns:
            Output name -> array, list (sequence), dict (map), or None (an empty optional).

        Raises:
            RuntimeUnavailableError: ONNX Runtime failed on this feed; one line says why.
        """
        names = self.output_names if output_names is None else tuple(output_names)
        beyond = [name for name in names if self._types.get(name) in BEYOND_NUMPY]
        plain = [name for name in names if name not in beyond]
        results: dict[str, Any] = {}
        try:
            with self._weights.paged():
                prepared = {name: self._prepared(value) for name, value in feed.items()}
                if plain:
                    results.update(zip(plain, self._session.run(plain, prepared), strict=True))
                if beyond:
                    values = {name: self._ort_value(value) for name, value in prepared.items()}
                    found = self._session.run_with_ort_values(beyond, values)
                    for name, value in zip(beyond, found, strict=True):
                        results[name] = to_array(value, BEYOND_NUMPY[self._types[name]])
        except Exception as error:
            reason = runtime_reason(error)
            raise RuntimeUnavailableError(f"cannot run the model: {reason}") from error
        return {name: results[name] for name in names}

    def _prepared(self, value: Any) -> Any:
        """A feed's value as ONNX Runtime's `run` takes it."""
        if value is None or isinstance(value, list | tuple | dict):
            return value
        array = np.asarray(value)
        if is_beyond_numpy(array.dtype):
            return to_ort_value(self._runtime, ir.tensor(array))
        # The default of an input may lie at any byte of a model file.
        return np.require(array, requirements="A")

    def _ort_value(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return self._runtime.OrtValue.ortvalue_from_numpy(value)
        return value


def import_onnxruntime() -> Any:
    """The onnxruntime module, quiet, its random numbers fixed."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_QUIET)
    # A model that draws random numbers draws the same ones in each session.
    # (Not 0: it is the same as 1 to the generator, and each node adds its index to the seed.)
    onnxruntime.set_seed(1)
    return onnxruntime


def provider_names(runtime: Any, provider: str) -> list[str]:
    """ONNX Runtime's names of a provider and of the one to fall back to.

    Raises:
        UsageError: there is no such provider.
        RuntimeUnavailableError: this build does not have it.
    """
    if provider not in _PROVIDERS:
        known = ", ".join(_PROVIDERS)
        raise UsageError(f"unknown provider {provider!r}: use one of {known}")
    name = _PROVIDERS[provider]
    available = runtime.get_available_providers()
    if name not in available:
        has = ", ".join(short for short, long in _PROVIDERS.items() if long in available)
        raise RuntimeUnavailableError(
            f"this build of ONNX Runtime has no {provider} provider (it has: {has}); "
            "install the onnxruntime package that brings it"
        )
    return [name] if provider == "cpu" else [name, _PROVIDERS["cpu"]]


def has_provider(provider: str) -> bool:
    """Whether this build of ONNX Runtime has a provider; by the name that `Session` takes."""
    return _PROVIDERS.get(provider) in import_onnxruntime().get_available_providers()


def _extra_outputs(model: ir.Model, names: Sequence[str]) -> list[str]:
    """The names to add to the model's outputs, each once."""
    present = {value.name for value in model.graph.outputs}
    wanted = [name for name in dict.fromkeys(names) if name not in present]
    if wanted:
        known = {value.name for value in model.graph.inputs}
        known.update(model.graph.initializers)
        for node in model.graph:
            known.update(output.name for output in node.outputs)
        for name in wanted:
            if name not in known:
                raise UsageError(f"the main graph has no value {name!r} to give back")
    return wanted


def proto_of(weights: Weights, extra_outputs: Sequence[str]) -> onnx.ModelProto:
    """What a session is made of: the model whose weights are lent, with further outputs.

    Raises:
        RuntimeUnavailableError: the model cannot be expressed in protobuf.
    """
    try:
        proto = weights.to_proto()
    except OutputError as error:
        raise RuntimeUnavailableError(f"cannot load the model: {error}") from error
    for name in extra_outputs:
        # No type is written: ONNX Runtime infers it, also where the model does not say.
        proto.graph.output.add().name = name
    return proto


def make_session(runtime: Any, proto: onnx.ModelProto, options: Any, providers: list[str]) -> Any:
    """The session of ONNX Runtime.

    Raises:
        RuntimeUnavailableError: it cannot load the model; one line says why.
    """
    try:
        return runtime.InferenceSession(proto.SerializeToString(), options, providers=providers)
    except Exception as error:
        if lower_versions(proto, str(error)):
            return make_session(runtime, proto, options, providers)
        reason = runtime_reason(error)
        raise RuntimeUnavailableError(f"cannot load the model: {reason}") from error
