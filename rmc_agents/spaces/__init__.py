"""Observation and action spaces: how they are read, converted, described and saved.

- `reading` decides how a network reads each part of an observation; `annotated` lets a space say so itself.
- `plain` converts between an environment's own spaces and the plain spaces of tensors.
- `description` puts both into words, and `serialization` into JSON.
"""

from rmc_agents.spaces.annotated import AnnotatedBox
from rmc_agents.spaces.description import describe
from rmc_agents.spaces.plain import Actions, Observations
from rmc_agents.spaces.reading import Reading, read
from rmc_agents.spaces.serialization import space_from_json, space_to_json

__all__ = [
    "Actions",
    "AnnotatedBox",
    "Observations",
    "Reading",
    "describe",
    "read",
    "space_from_json",
    "space_to_json",
]
