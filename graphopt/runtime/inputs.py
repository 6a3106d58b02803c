"""Makes inputs for a model that nobody gave data for, and finds such that it can run on.

The inputs are a function of the model's interface, the seed and the position of the feed: an
optimized model gets the same ones as its original as long as they are made from the original.
"""

import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import ir
from graphopt.runtime.input_roles import Role, find_roles
from graphopt.runtime.input_sizes import InputDims, input_dims, resolve
from graphopt.runtime.input_values import KINDS, make_array
from graphopt.runtime.session import Feed, Session

Outputs = dict[str, Any]
"""What a session's run gives back."""

_MOST_ELEMENTS = 1 << 28
# Defaults of inputs larger than this are weights: overriding them says little and costs a lot.
_MOST_DEFAULT_ELEMENTS = 1 << 20
_FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS = 4
_UNKNOWN_RANKS = (2, 4, 1, 3, 0)
_MOST_ATTEMPTS = 120
_USUAL_SIZES = (128, 224, 64, 32)
"""Positions of a text, pixels along an edge, positions again where there are few."""


def seeded_feeds(
    model: ir.Model, *, count: int = 3, seed: int = 0, override_defaults: bool = True
) -> Iterator[Feed]:
    """Feeds for `model` that depend on nothing but the model's interface and the seed.

    Integers that are used as indices, lengths, axes or shapes are valid ones where the graph
    tells; constants they are compared with occur. Dynamic dims are 1 in the first feed, then
    2, 3, 5, ..., the same for the same name. Every other feed replaces the defaults of inputs
    that have one. Feeds differ in kind: see `input_values`.

    Args:
        model: the model; its inputs are read, and what they lead to.
        count: how many feeds.
        seed: another seed, other values.
        override_defaults: whether inputs that have a default are ever fed.
    """
    maker = _FeedMaker(model, seed, override_defaults)
    for index in range(count):
        yield maker.make(index, maker.dims.sizes_for(index))


def runnable_feeds(
    model: ir.Model,
    session: Session,
    *,
    count: int = 3,
    seed: int = 0,
    seconds: float = 30.0,
    override_defaults: bool = True,
    seen: Callable[[Feed, Outputs], None] | None = None,
) -> list[Feed]:
    """Feeds as of `seeded_feeds` that `session` was seen to run on.

    Where it does not run at the usual sizes of dynamic dims, other sizes are tried: leading
    dims (batches) keep 1, 2, 3, ..., the rest goes up to 512, together and in pairs; then tamer
    values, and other ranks where the rank is unknown. An output that is NaN all over counts as
    no run as long as another try does better.

    Args:
        model: the model whose inputs to make.
        session: a session of that model.
        count: how many feeds to look for.
        seed: another seed, other values.
        seconds: no new try is begun after this time.
        override_defaults: whether inputs that have a default are ever fed.
        seen: called with each feed that is found, and what the session gave on it.

    Returns:
        Up to `count` feeds; fewer, or none, where no such inputs were found.
    """
    found: list[Feed] = []
    deadline = time.monotonic() + seconds
    unranked = any(
        value.shape is None and isinstance(value.type, ir.TensorType) for value in _inputs(model)
    )
    for rank in _UNKNOWN_RANKS if unranked else _UNKNOWN_RANKS[:1]:
        maker = _FeedMaker(model, seed, override_defaults, rank)
        search = _Search(maker, session, deadline, seen)
        found = [feed for index in range(count) if (feed := search.feed(index)) is not None]
        if found:
            break
    return found


def usual_feed(model: ir.Model, *, seed: int = 0) -> Feed | None:
    """A feed to time a model on: a batch of one, other dynamic dims of a hundred or two.

    Where the model does not run on such, the first one as of `runnable_feeds`; None if there is
    none.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load the model.
    """
    session = Session(model)
    maker = _FeedMaker(model, seed, override_defaults=False)
    for size in _USUAL_SIZES if maker.dims.symbols else ():
        sizes = dict.fromkeys(maker.dims.symbols, size) | dict.fromkeys(maker.dims.leading, 1)
        try:
            feed = maker.make(0, sizes)
            outputs = session.run(feed)
        except RuntimeUnavailableError:
            continue
        if not any(_is_useless(output) for output in outputs.values()):
            return feed
    feeds = runnable_feeds(model, session, count=1, seed=seed, override_defaults=False)
    return feeds[0] if feeds else None


class _Search:
    """Looks for feeds that a session runs on, and learns from one feed for the next."""

    def __init__(
        self,
        maker: "_FeedMaker",
        session: Session,
        deadline: float,
        seen: Callable[[Feed, Outputs], None] | None,
    ) -> None:
        self._maker = maker
        self._session = session
        self._deadline = deadline
        self._seen = seen
        self._attempts = 0
        self._works: list[dict[str, int]] = []
        self._hopeless = False

    def feed(self, index: int) -> Feed | None:
        """A feed that runs for this position, or None."""
        if self._hopeless:
            return None
        spare: tuple[Feed, Outputs] | None = None
        attempts = 0
        for sizes, careful in self._candidates(index):
            if attempts and (time.monotonic() > self._deadline or attempts >= _MOST_ATTEMPTS):
                break
            attempts += 1
            try:
                feed = self._maker.make(index, sizes, careful=careful)
                outputs = self._session.run(feed)
            except RuntimeUnavailableError:
                continue
            if careful or not any(_is_useless(output) for output in outputs.values()):
                self._works.append(sizes)
                return self._found(feed, outputs)
            spare = spare or (feed, outputs)
        self._hopeless = spare is None and not self._works
        return None if spare is None else self._found(*spare)

    def _found(self, feed: Feed, outputs: Outputs) -> Feed:
        if self._seen is not None:
            self._seen(feed, outputs)
        return feed

    def _candidates(self, index: int) -> Iterator[tuple[dict[str, int], bool]]:
        """Sizes to try, and whether with tame values, without repeats."""
        dims = self._maker.dims
        seen: list[tuple[dict[str, int], bool]] = []
        usual = dims.sizes_for(index)
        tries: list[tuple[dict[str, int], bool]] = [(usual, False), (usual, True)]
        if self._works:
            # What ran before, with this feed's own leading dims, then grown, then as it was.
            last = self._works[-1]
            leading = {symbol: usual[symbol] for symbol in dims.leading}
            others = {symbol: size for symbol, size in last.items() if symbol not in leading}
            doubled = {symbol: 2 * size for symbol, size in others.items()}
            for sizes in (others | leading, doubled | leading, last):
                tries += [(sizes, False), (sizes, True)]
            if usual != last and others and max(others.values()) > 3:
                tries = [(doubled | leading, False), *tries]
        tries += [(sizes, False) for sizes in dims.search(index)]
        tries += [(sizes, True) for sizes in dims.search(index)]
        for candidate in tries:
            if candidate not in seen:
                seen.append(candidate)
                yield candidate


class _FeedMaker:
    """Makes feeds for the inputs of one model."""

    def __init__(
        self, model: ir.Model, seed: int, override_defaults: bool, unknown_rank: int = 2
    ) -> None:
        self._seed = seed
        self._roles = find_roles(model)
        initialized = model.graph.initializers
        inputs = {value.name or "": value for value in _inputs(model)}
        self._required = {n: value for n, value in inputs.items() if n not in initialized}
        fixed = (model.ir_version or 0) < _FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS
        self._defaults = {
            name: initialized[name].const_value
            for name in inputs
            if name in initialized and override_defaults and not fixed
        }
        self.dims: InputDims = input_dims(self._required, unknown_rank)

    def make(self, index: int, sizes: Mapping[str, int], *, careful: bool = False) -> Feed:
        """The feed for a position, under an assignment of sizes to symbols."""
        feed: Feed = {}
        for name, value in self._required.items():
            role = self._roles.get(name) or Role()
            random = np.random.default_rng([self._seed, index, zlib.crc32(name.encode())])
            feed[name] = self._value(value.type, name, role, index, sizes, random, careful)
        if index % 2 and not careful:
            feed.update(self._overridden(index))
        return feed

    def _value(
        self,
        kind: ir.TypeProtocol | None,
        name: str,
        role: Role,
        index: int,
        sizes: Mapping[str, int],
        random: np.random.Generator,
        careful: bool,
    ) -> Any:
        if isinstance(kind, ir.OptionalType):
            if index % KINDS == 1:
                return None
            return self._value(kind.elem_type, name, role, index, sizes, random, careful)
        if isinstance(kind, ir.SequenceType):
            length = (2, 1, 3)[index % KINDS]
            element = kind.elem_type
            return [
                self._value(element, name, role, index, sizes, random, careful)
                for _ in range(length)
            ]
        dtype = kind.dtype if isinstance(kind, ir.TensorType) else ir.DataType.FLOAT
        shape = tuple(
            1 if (size := resolve(dim, sizes)) is None else size for dim in self.dims.shapes[name]
        )
        if np.prod(shape, dtype=np.float64) > _MOST_ELEMENTS:
            raise RuntimeUnavailableError(
                f"input {name!r} of shape {list(shape)} is too large to make up"
            )
        return make_array(dtype, shape, role, index % KINDS, random, sizes, careful=careful)

    def _overridden(self, index: int) -> Feed:
        """Other values for inputs that have a default: near it, and of its sign."""
        feed: Feed = {}
        for name, tensor in self._defaults.items():
            if tensor is None or tensor.size > _MOST_DEFAULT_ELEMENTS:
                continue
            if not tensor.dtype.is_floating_point():
                continue
            array = tensor.numpy()
            random = np.random.default_rng([self._seed, index, zlib.crc32(name.encode())])
            factor = 1.0 + 0.1 * random.standard_normal(array.shape).clip(-3, 3)
            feed[name] = (array.astype(np.float64) * factor).astype(array.dtype)
        return feed


def _inputs(model: ir.Model) -> list[ir.Value]:
    return list(model.graph.inputs)


def _is_useless(output: Any) -> bool:
    """Whether a float output has not one finite number to compare."""
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or not output.size:
        return False
    return not np.isfinite(output).any()
