"""What runs that completed took, by the size of their texts."""

from __future__ import annotations

from dataclasses import dataclass
from sqlite3 import Connection

_LOOKED_AT = 2000  # the newest runs; older ones say little about today's models and prompts
_SIZES = (0.5, 2.0)  # of the asked size; texts between them count as of that size


@dataclass(frozen=True)
class PastRun:
    """What one run took; `cost_usd` is None where it is not known."""

    cost_usd: float | None
    tokens: int
    seconds: float


def past_runs(db: Connection, caller: str, chars: int, models: tuple[str, str]) -> list[PastRun]:
    """Return a caller's completed runs over texts of about so many characters.

    Args:
        models: root and sub model, which the runs must have had.
    """
    found = db.execute(
        "SELECT cost_usd, input_tokens + output_tokens, elapsed_seconds FROM ("
        "SELECT * FROM runs WHERE caller = ?1 AND status = 'completed' AND question <> '' "
        "AND json_extract(config, '$.root_model') = ?2 "
        "AND json_extract(config, '$.sub_model') = ?3 ORDER BY id DESC LIMIT ?4) AS run "
        "JOIN (SELECT handle, chars FROM contexts WHERE caller = ?1) AS text "
        "ON text.handle IN (SELECT value FROM json_each(run.contexts)) GROUP BY run.id "
        # A text that was deleted has no size any more.
        "HAVING count(*) = json_array_length(run.contexts) AND sum(text.chars) BETWEEN ?5 AND ?6",
        [caller, *models, _LOOKED_AT, *(chars * one for one in _SIZES)],
    )
    return [PastRun(*row) for row in found]
