"""Reads inputs and calibration data, one feed at a time.

Sources: an `.npz` (key = input name), an `.npy`, a folder of either, `module:function` or
`file.py:function` that returns an iterable, a mapping of arrays, an array for a model with one
input, or any iterable of feeds (a dict; a pair of feed and labels, whose labels are dropped; an
array for a model with one input).

How an array of many samples (in a file, a mapping, or by itself) becomes feeds: its first axis
is the sample. Where the array has one dim more than the model's input, sample i is fed as
`x[i]`. Where it has as many, the first dim is the input's batch: a dynamic batch gets one
sample at a time, `x[i:i+1]`; a fixed batch of b gets b samples, and a last part that does not
fill a batch is dropped. Files are streamed: only the current samples are in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import UsageError, reason_of
from graphopt.graph import ir
from graphopt.runtime.imported import imported, is_reference
from graphopt.runtime.session import Feed
from graphopt.runtime.stacked import Samples, array_samples, open_npy, open_npz

Source = str | Path | np.ndarray | Mapping[str, Any] | Iterable[Any] | Callable[[], Iterable[Any]]


class FeedReader:
    """Feeds from a source, checked; made by `read_feeds`.

    Iterating raises UsageError, with the source and the input named, where a feed does not fit
    the model.

    Attributes:
        repeatable: whether it can be iterated again: files, arrays, lists and functions can,
            an iterator cannot.
    """

    def __init__(
        self, start: Callable[[], Iterator[Feed]], label: str, *, repeatable: bool
    ) -> None:
        self._start = start
        self._label = label
        self.repeatable = repeatable
        self._started = False

    def __iter__(self) -> Iterator[Feed]:
        if self._started and not self.repeatable:
            raise UsageError(f"{self._label} can be read only once: give a list or a function")
        self._started = True
        return self._start()

    def __repr__(self) -> str:
        return f"FeedReader({self._label})"


def read_feeds(
    source: Source,
    input_names: Sequence[str] | None = None,
    *,
    model: ir.Model | None = None,
) -> FeedReader:
    """Open a source of feeds (see the module for the kinds, and how samples become feeds).

    Args:
        source: where the feeds come from.
        input_names: the names that each feed must have; None for the model's inputs without a
            default, or for no check where no model is given either.
        model: the model to be fed. With it types and ranks are checked, and values converted
            where nothing is lost but float precision. Without it each sample of a file is fed
            as `x[i:i+1]`.

    Raises:
        UsageError: the source does not exist, or is of no known kind.
    """
    fitting = _Fitting(model, input_names)
    if isinstance(source, np.ndarray | Mapping):
        arrays = source if isinstance(source, Mapping) else {"": source}
        samples = {name: array_samples(np.asarray(array)) for name, array in arrays.items()}
        return FeedReader(lambda: fitting.split(samples, "the data"), "the data", repeatable=True)
    if isinstance(source, str | Path):
        return _open_named(str(source), fitting)
    if callable(source):
        label = getattr(source, "__name__", "the function")
        return _from_function(source, label, fitting)
    if not isinstance(source, Iterable):
        raise UsageError(f"feeds cannot be read from a {type(source).__name__}")
    return FeedReader(
        lambda: fitting.check_all(source, "the data"),
        "the data",
        repeatable=not isinstance(source, Iterator),
    )


def _open_named(text: str, fitting: "_Fitting") -> FeedReader:
    path = Path(text)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".npz", ".npy"))
        if not files:
            raise UsageError(f"{text} has no .npz or .npy files")
        return FeedReader(
            lambda: (feed for file in files for feed in _from_file(file, fitting)),
            text,
            repeatable=True,
        )
    if path.is_file():
        if path.suffix not in (".npz", ".npy"):
            raise UsageError(f"{text}: data is read from .npz and .npy files")
        return FeedReader(lambda: _from_file(path, fitting), text, repeatable=True)
    if not is_reference(text):
        raise UsageError(f"{text} is no file or folder; a function is written module:function")
    function = imported(text)
    if callable(function):
        return _from_function(function, text, fitting)
    return FeedReader(lambda: fitting.check_all(function, text), text, repeatable=True)


def _from_function(function: Callable[..., Any], label: str, fitting: "_Fitting") -> FeedReader:
    def start() -> Iterator[Feed]:
        try:
            feeds = function()
        except Exception as error:
            raise UsageError(f"{label} failed: {reason_of(error)}") from error
        return fitting.check_all(_watched(feeds, label), label)

    return FeedReader(start, label, repeatable=True)


def _watched(feeds: Any, label: str) -> Any:
    """The feeds of a user's function; what it raises on the way is the user's to mend."""
    if not isinstance(feeds, Iterable):
        return feeds

    def watched() -> Iterator[Any]:
        count = 0
        try:
            for feed in feeds:
                count += 1
                yield feed
        except Exception as error:
            raise UsageError(f"{label} failed after {count} feeds: {reason_of(error)}") from error
        if not count:
            raise UsageError(f"{label} gives no feed")

    return watched()


def _from_file(path: Path, fitting: "_Fitting") -> Iterator[Feed]:
    with ExitStack() as stack:
        samples = open_npz(path, stack) if path.suffix == ".npz" else {"": open_npy(path)}
        yield from fitting.split(samples, str(path))


class _Fitting:
    """Makes feeds fit the inputs of a model, as far as they are known."""

    def __init__(self, model: ir.Model | None, input_names: Sequence[str] | None) -> None:
        inputs = [] if model is None else list(model.graph.inputs)
        initializers = {} if model is None else model.graph.initializers
        self._inputs = {value.name or "": value for value in inputs}
        self._required: list[str] | None = None
        if input_names is not None:
            self._required = list(input_names)
        elif model is not None:
            self._required = [name for name in self._inputs if name not in initializers]

    def check_all(self, feeds: Any, label: str) -> Iterator[Feed]:
        """The feeds of an iterable, each checked."""
        if not isinstance(feeds, Iterable):
            raise UsageError(f"{label} gives a {type(feeds).__name__}, not an iterable of feeds")
        for item in feeds:
            feed = item[0] if isinstance(item, tuple) and len(item) == 2 else item
            if not isinstance(feed, Mapping):
                feed = {"": feed}
            named = self._named(feed, label)
            yield {name: self._fit(name, value, label) for name, value in named.items()}

    def split(self, samples: Mapping[str, Samples], label: str) -> Iterator[Feed]:
        """Feeds from arrays that hold many samples each."""
        named = self._named(samples, label)
        steps = {name: self._step(name, source, label) for name, source in named.items()}
        counts = {
            name: source.count // abs(steps[name]) for name, source in named.items() if steps[name]
        }
        if not counts:
            count = 1
        else:
            count = next(iter(counts.values()))
            for name, other in counts.items():
                if other != count:
                    first = next(iter(counts))
                    raise UsageError(
                        f"{label}: {first!r} holds {count} feeds, {name!r} holds {other}:"
                        " the first axes must agree"
                    )
            if count == 0:
                raise UsageError(f"{label} does not hold one whole batch")
        readers = {name: source.reader() for name, source in named.items()}
        for _ in range(count):
            feed: Feed = {}
            for name, read in readers.items():
                step = steps[name]
                array = read(abs(step)) if step else named[name].whole()
                feed[name] = self._fit(name, array[0] if step < 0 else array, label)
            yield feed

    def _named(self, feed: Mapping[str, Any], label: str) -> dict[str, Any]:
        """The feed with its names checked; the name "" stands for the only input."""
        required = self._required
        if required is None:
            if "" in feed:
                raise UsageError(f"{label} gives arrays without a name: name the model's input")
            return dict(feed)
        if len(feed) == 1 and len(required) == 1:
            (name, value) = next(iter(feed.items()))
            # numpy's own name for an array that was saved without one.
            if name in ("", "arr_0") and name not in self._inputs:
                return {required[0]: value}
        if "" in feed:
            names = ", ".join(required)
            raise UsageError(f"{label} gives one array, the model has the inputs {names}")
        known = self._inputs or dict.fromkeys(required)
        for name in required:
            if name not in feed:
                has = ", ".join(map(repr, feed)) or "nothing"
                raise UsageError(
                    f"{label} has no values for the model's input {name!r}; it has {has}"
                )
        # Labels often lie beside the inputs.
        return {name: value for name, value in feed.items() if name in known}

    def _step(self, name: str, samples: Samples, label: str) -> int:
        """Samples per feed; -1 for one without its axis; 0 for a value that has no samples."""
        value = self._inputs.get(name)
        if value is None or value.shape is None:
            return 1 if samples.shape else 0
        dims = value.shape.dims
        if len(samples.shape) == len(dims) + 1:
            return -1
        if len(samples.shape) != len(dims):
            raise UsageError(
                f"{label}: {name!r} has {len(samples.shape)} dims, the model's input has"
                f" {len(dims)} (or {len(dims) + 1}, the first one the sample)"
            )
        if not dims:
            return 0
        return dims[0] if isinstance(dims[0], int) and dims[0] > 0 else 1

    def _fit(self, name: str, value: Any, label: str) -> Any:
        """The value in the type that the model asks for."""
        declared = self._inputs.get(name)
        if declared is None or value is None or not isinstance(declared.type, ir.TensorType):
            return value
        array = np.asarray(value)
        if declared.shape is not None:
            dims = declared.shape.dims
            fixed = [dim if isinstance(dim, int) and dim >= 0 else None for dim in dims]
            if len(fixed) != array.ndim or any(
                want is not None and want != have
                for want, have in zip(fixed, array.shape, strict=True)
            ):
                wanted = ", ".join("?" if dim is None else str(dim) for dim in fixed)
                raise UsageError(
                    f"{label}: {name!r} has shape {list(array.shape)}, the model asks for"
                    f" [{wanted}]"
                )
        return _converted(array, declared.type.dtype, f"{label}: {name!r}")


def _converted(array: np.ndarray, dtype: ir.DataType, label: str) -> np.ndarray:
    """The array in another type, where at most float precision is lost."""
    if dtype == ir.DataType.STRING:
        if array.dtype.kind in "OU":
            return array.astype(object)
        raise UsageError(f"{label} is {array.dtype}, the model asks for strings")
    wanted = dtype.numpy()
    if array.dtype == wanted:
        return array
    if array.dtype.kind == "V" and array.dtype.names is None and array.dtype.isbuiltin != 2:
        # numpy saves the types of ml_dtypes as bytes without a name.
        if array.dtype.itemsize == wanted.itemsize:
            return array.view(wanted)
    elif dtype.is_floating_point() and (array.dtype.kind in "fiub" or array.dtype.isbuiltin == 2):
        return array.astype(wanted)
    elif dtype.is_integer() and array.dtype.kind in "iub":
        if dtype.is_signed():
            low, high = -(1 << (dtype.bitwidth - 1)), (1 << (dtype.bitwidth - 1)) - 1
        else:
            low, high = 0, (1 << dtype.bitwidth) - 1
        if not array.size or (low <= int(array.min()) and int(array.max()) <= high):
            return array.astype(wanted)
        raise UsageError(f"{label} holds values outside the range of {wanted}")
    raise UsageError(f"{label} is {array.dtype}, the model asks for {wanted}: convert it")
