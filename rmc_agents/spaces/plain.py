"""Conversion between an environment's own spaces and the plain spaces of tensors.

An agent computes with tensors of *plain* spaces: `Box`, `Discrete`, `MultiDiscrete`, `MultiBinary`, or a
`Dict` of them that is not nested; floats are float32, and integers count from 0. People and environments use
members of the original spaces. The adapter, `predict` and evaluation all convert here.

Axes: B batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rmc_agents.spaces.annotated import AnnotatedBox
from rmc_agents.spaces.text import AnnotatedText

Path = tuple[str | int, ...]
"""Keys and indices that lead to a part of a nested space."""
PlainArrays = NDArray[Any] | dict[str, NDArray[Any]]
"""A batch of observations of a plain space: one array [B, ...], or one per key."""
SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, AnnotatedText, or a Dict or Tuple of them"


@final
class Observations:
    """Observations of one environment, in its own space and as plain arrays.

    Texts become the ids of their words, if their space is an `AnnotatedText`. Others inside a `Dict` or
    `Tuple` are left out; `texts` names them. The key of a nested part is "outer.inner"; the members of a
    `Tuple` are "0", "1", and so on.

    Args:
        space: the environment's own observation space.

    Raises:
        ValueError: the space is not supported, or holds nothing to observe.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space = space
        parts = list(parts_of(space))
        self.leaves = [(path, part) for path, part in parts if is_read(part)]
        self.texts = [key_of(path) for path, part in parts if not is_read(part) and path]
        if not self.leaves:
            raise ValueError(f"nothing to observe in {space}; expected {SUPPORTED}: wrap the environment")
        self.structured = isinstance(space, spaces.Dict | spaces.Tuple)
        self.plain = self._plain()

    def _plain(self) -> spaces.Space[Any]:
        converted = [(key_of(path), plain_leaf(part)) for path, part in self.leaves]
        if not self.structured:
            return converted[0][1]
        keys = [key for key, _ in converted]
        if len(set(keys)) < len(keys):
            raise ValueError(f"two parts of {self.space} have the same name; the names are {', '.join(keys)}")
        nested = any(len(path) > 1 for path, _ in self.leaves) or isinstance(self.space, spaces.Tuple)
        # Encoders depend on the order. A flat Dict keeps its own.
        return spaces.Dict(sorted(converted) if nested else converted)

    def batch(self, obs: Any) -> dict[str, NDArray[Any]]:
        """Convert a batch of observations, as a vector environment returns it, into new plain arrays.

        Returns:
            an array [B, ...] for each part; the key of a space without parts is "".

        Raises:
            ValueError: a part is missing, or does not fit its space.
        """
        return {
            key_of(path): to_plain(part, self._part(obs, path), key_of(path)) for path, part in self.leaves
        }

    def read(self, obs: Any) -> tuple[PlainArrays, bool]:
        """Convert one observation, or a batch of them, into a batch of plain arrays.

        Args:
            obs: a member of the space, or a batch of members as a vector environment returns it. A dictionary
                may hold further keys.

        Returns:
            the arrays, [B, ...], and whether `obs` was a single observation (B is then 1).

        Raises:
            ValueError: neither a member of the space nor a batch of them, or a number that is not finite.
        """
        raw = [(path, part, np.asarray(self._part(obs, path))) for path, part in self.leaves]
        shapes = [(key_of(path), x.shape, part.shape or ()) for path, part, x in raw]
        single = all(found == own for _, found, own in shapes)
        if not single:
            _require_batch(shapes)
        arrays = {
            key_of(path): to_plain(part, x[None] if single else x, key_of(path)) for path, part, x in raw
        }
        for key, x in arrays.items():
            if not np.isfinite(x).all():
                raise ValueError(f"obs{f'[{key!r}]' if key else ''} holds NaN or infinity, as float32")
        return (arrays if self.structured else arrays[""]), single

    def _part(self, obs: Any, path: Path) -> Any:
        try:
            return leaf_at(obs, path)
        except (LookupError, TypeError) as error:
            raise ValueError(
                f"obs has no {key_of(path)!r}: expected a member of {self.space}, got "
                f"{type(obs).__name__}{_keys(obs)}"
            ) from error


@final
class Actions:
    """Actions of one environment, in its own space and as plain arrays.

    A `Dict` or `Tuple` of actions becomes one vector: a `MultiDiscrete` if all parts are `Discrete`,
    `MultiDiscrete` or `MultiBinary`, and a `Box` if all are `Box`.

    Args:
        space: the environment's own action space.

    Raises:
        ValueError: the space is not supported; the message names it and an alternative.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space = space
        self.structured = isinstance(space, spaces.Dict | spaces.Tuple)
        self.leaves = list(parts_of(space))
        for path, part in self.leaves:
            _require_action(space, part, key_of(path))
        if not self.leaves:
            raise ValueError(f"no action to choose in {space}; wrap the environment")
        self.plain = (
            _joint_space(space, [part for _, part in self.leaves]) if self.structured else (plain_leaf(space))
        )

    def batch(self, actions: NDArray[Any]) -> Any:
        """Convert plain actions [B, ...] into a batch of the original space, clipped to its bounds.

        Returns:
            what a vector environment expects: an array [B, ...], or a dictionary or tuple of such parts.
        """
        if not self.structured:
            return from_plain(self.space, actions)
        parts, start = [], 0
        for _, part in self.leaves:
            size = int(np.prod(part.shape or (), dtype=np.int64))
            values = actions[:, start : start + size].reshape(-1, *(part.shape or ()))
            parts.append(from_plain(part, values))
            start += size
        remaining = iter(parts)
        return _rebuild(self.space, remaining)

    def member(self, batch: Any, row: int = 0) -> Any:
        """Return one action of a batch, as a member of the original space."""
        return _row(self.space, batch, row)


def as_member(space: spaces.Space[Any], action: Any) -> Any:
    """Return an action with its numbers as arrays of the space's dtype, also those without axes."""
    if isinstance(space, spaces.Dict):
        return {key: as_member(part, action[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(as_member(part, x) for part, x in zip(space.spaces, action, strict=True))
    return np.asarray(action, dtype=space.dtype) if isinstance(space, spaces.Box) else action


def leaf_at(obs: Any, path: Path) -> Any:
    """Return the part of a nested observation that a path leads to."""
    for part in path:
        obs = obs[part]
    return obs


def key_of(path: Path) -> str:
    """Return the key of a part in the plain `Dict`, such as "outer.inner"; "" for a space without parts."""
    return ".".join(str(part) for part in path)


def is_text(space: spaces.Space[Any]) -> bool:
    """Return whether a space holds text."""
    # MiniGrid's mission space is not a `Text`, but it has the dtype of a string.
    return isinstance(space, spaces.Text) or (space.dtype is not None and np.dtype(space.dtype).kind == "U")


def is_read(space: spaces.Space[Any]) -> bool:
    """Return whether agents read a space: all but texts without a vocabulary."""
    return isinstance(space, AnnotatedText) or not is_text(space)


def vocabularies(space: spaces.Space[Any]) -> dict[str, AnnotatedText]:
    """Return the texts of a space that are read word by word, by key."""
    return {key_of(path): part for path, part in parts_of(space) if isinstance(part, AnnotatedText)}


def plain_leaf(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the plain space of a space without parts. An annotation is kept.

    Raises:
        ValueError: the space is not supported.
    """
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec)
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(space.n)
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "biuf":
        dtype = _plain_dtype(np.dtype(space.dtype))
        if dtype == space.dtype:
            return space
        with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite
            low, high = space.low.astype(dtype), space.high.astype(dtype)
        box = spaces.Box(low, high, dtype=dtype.type)
        return AnnotatedBox(box, space.read_as) if isinstance(space, AnnotatedBox) else box
    if isinstance(space, AnnotatedText):
        box = spaces.Box(0, space.num_ids - 1, (space.length,), space.id_type.type)
        return AnnotatedBox(box, "words")
    raise ValueError(f"space {space}: expected {SUPPORTED}; wrap the environment")


def to_plain(space: spaces.Space[Any], values: Any, name: str = "") -> NDArray[Any]:
    """Return a new array of values of `space`, converted to `plain_leaf(space)`.

    Args:
        space: a space without parts.
        values: [..., *space.shape].
        name: of the values, for the message.

    Raises:
        ValueError: integers outside the space, or values that are not numbers (of a text: not texts).
    """
    array = np.asarray(values)
    if isinstance(space, AnnotatedText):
        try:
            return space.ids(array)
        except ValueError as error:
            raise ValueError(f"{name or 'the observation'} {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name or 'the observation'} has type {array.dtype}, expected {space.dtype}")
    if isinstance(space, spaces.Box):
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, which callers refuse
            plain = np.array(array, dtype=_plain_dtype(np.dtype(space.dtype)))
        if plain.dtype.kind != "f" and array.dtype != space.dtype and (plain != array).any():
            raise ValueError(f"{name or 'the observation'} has type {array.dtype}, expected {space.dtype}")
        return plain
    if isinstance(space, spaces.MultiBinary):
        _require_range(space, array, 0, 1, name)
        return np.array(array, dtype=np.int8)
    start = np.asarray(space.start, dtype=np.int64)  # type: ignore[attr-defined]
    n = space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n  # type: ignore[attr-defined]
    _require_range(space, array, start, start + n - 1, name)
    return np.array(array, dtype=np.int64) - start


def from_plain(space: spaces.Space[Any], actions: NDArray[Any]) -> NDArray[Any]:
    """Return actions of `plain_leaf(space)`, converted to `space` and clipped to its bounds."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return (actions + space.start).astype(space.dtype)
    if isinstance(space, spaces.Box):
        if np.dtype(space.dtype).kind in "iub":
            actions = actions.round()
        # The largest integers are no floats, so they are clipped a second time as integers.
        clipped = np.clip(actions, space.low, space.high)
        return np.clip(clipped.astype(space.dtype), space.low, space.high)
    return actions.astype(space.dtype)


def parts_of(space: spaces.Space[Any], path: Path = ()) -> Iterator[tuple[Path, spaces.Space[Any]]]:
    """Yield the parts of a space that are not `Dict` or `Tuple`, texts included, with their paths.

    Raises:
        ValueError: a part that is not supported.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces):
            if not isinstance(key, str | int):
                raise ValueError(
                    f"key {key!r} in {space}: expected a string or an integer; wrap the environment"
                )
            yield from parts_of(part, (*path, key))
    else:
        if is_read(space):
            plain_leaf(space)  # raises if it is not supported
        yield path, space


def _require_action(space: spaces.Space[Any], part: spaces.Space[Any], key: str) -> None:
    """Raise ValueError for a part of an action that no head can choose."""
    where = f"part {key!r} of the actions in {space}" if key else f"actions in {space}"
    if is_text(part):
        raise ValueError(f"{where} is text, which no agent here can choose; wrap the environment")
    if 0 in (part.shape or ()):
        raise ValueError(f"{where} hold no number; wrap the environment")


def _joint_space(space: spaces.Space[Any], parts: list[spaces.Space[Any]]) -> spaces.Space[Any]:
    """Return one plain vector for the parts of an action."""
    if all(isinstance(part, spaces.Box) for part in parts):
        boxes = [plain_leaf(part) for part in parts]
        low = np.concatenate([np.asarray(box.low, np.float32).reshape(-1) for box in boxes])  # type: ignore[attr-defined]
        high = np.concatenate([np.asarray(box.high, np.float32).reshape(-1) for box in boxes])  # type: ignore[attr-defined]
        return spaces.Box(low, high, dtype=np.float32)
    sizes: list[int] = []
    for part in parts:
        if isinstance(part, spaces.Discrete):
            sizes.append(int(part.n))
        elif isinstance(part, spaces.MultiDiscrete):
            sizes += [int(n) for n in part.nvec.reshape(-1)]
        elif isinstance(part, spaces.MultiBinary):
            sizes += [2] * int(np.prod(part.shape))
        else:
            raise ValueError(
                f"actions in {space} mix numbers (Box) and choices, which no head covers; wrap the "
                "environment"
            )
    return spaces.MultiDiscrete(sizes)


def _rebuild(space: spaces.Space[Any], parts: Iterator[NDArray[Any]]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _rebuild(part, parts) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_rebuild(part, parts) for part in space.spaces)
    return next(parts)


def _row(space: spaces.Space[Any], batch: Any, row: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _row(part, batch[key], row) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_row(part, x, row) for part, x in zip(space.spaces, batch, strict=True))
    return batch[row] if isinstance(space, spaces.Discrete) else np.asarray(batch[row], dtype=space.dtype)


def _require_range(space: spaces.Space[Any], array: NDArray[Any], low: Any, high: Any, name: str) -> None:
    outside = (
        (array < low) | (array > high) | (array != np.floor(array) if array.dtype.kind == "f" else False)
    )
    if outside.any():
        raise ValueError(
            f"{name or 'the observation'} holds {array[outside].reshape(-1)[0]}, which is not in {space}"
        )


def _plain_dtype(dtype: np.dtype) -> np.dtype:
    if dtype.kind == "f" or dtype == np.uint64:  # half of uint64 does not fit into int64
        return np.dtype(np.float32)
    in_torch = ("bool", "uint8", "int8", "int16", "int32", "int64")
    return dtype if dtype.name in in_torch else np.dtype(np.int64)


def _require_batch(shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> None:
    """Raise ValueError unless all parts are batches of one size, from their names, shapes and own shapes."""
    size = next((found[0] for _, found, own in shapes if found[1:] == own and len(found) > len(own)), None)
    for key, found, own in shapes:
        if not size or found != (size, *own):
            if size and found == own:
                raise ValueError(
                    f"obs{f'[{key!r}]' if key else ''} has shape {found}, of one observation; other parts "
                    f"are a batch of {size}"
                )
            batched = ", ".join(map(str, ("B" if size is None else size, *own)))
            raise ValueError(
                f"obs{f'[{key!r}]' if key else ''} has shape {found}; expected {own} or, for a batch, "
                f"({batched}{',' * (not own)})"
            )


def _keys(obs: Any) -> str:
    return f" with {', '.join(map(repr, obs))}"[:200] if isinstance(obs, dict) else ""
