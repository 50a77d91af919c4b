"""Observation and action spaces: how they are read, converted, described and saved.

- `reading` decides how a network reads each part of an observation; `annotated` lets a space say so itself.
- `text` turns texts into the ids of their words, and MiniGrid's missions into such texts.
- `plain` converts between an environment's own spaces and the plain spaces of tensors.
- `masks` reads which actions an environment allows.
- `description` puts both into words, and `serialization` into JSON.
"""

from rmc_agents.spaces.annotated import AnnotatedBox
from rmc_agents.spaces.description import describe
from rmc_agents.spaces.plain import Actions, Observations
from rmc_agents.spaces.reading import Reading, read
from rmc_agents.spaces.serialization import space_from_json, space_to_json
from rmc_agents.spaces.text import AnnotatedText, mission_text

__all__ = [
    "Actions",
    "AnnotatedBox",
    "AnnotatedText",
    "Observations",
    "Reading",
    "describe",
    "mission_text",
    "read",
    "space_from_json",
    "space_to_json",
]
