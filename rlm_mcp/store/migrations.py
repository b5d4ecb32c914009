"""The schema, as migrations that are only ever appended; each is applied completely or not at all.

Imported only when a file may need a step: the library that applies them takes a while to load.
"""

from __future__ import annotations

from sqlite3 import Connection

from sqlite_utils import Database, Migrations

from rlm_mcp.store.schema_steps import MIGRATION_SET, STEPS, applied_steps

migrations = Migrations(MIGRATION_SET)

_TEXTS = (
    # A text is what an upload fills and a context names. One that neither an upload nor a
    # context names any more is waste, and is dropped in steps.
    "CREATE TABLE texts (id INTEGER PRIMARY KEY AUTOINCREMENT)",
    # `start_line` counts the line breaks before the chunk, over all documents. The blob comes
    # last, so that the numbers are read without touching the pages it spills over.
    """
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY,
        text_id INTEGER NOT NULL REFERENCES texts(id),
        start_byte INTEGER NOT NULL,
        start_char INTEGER NOT NULL,
        start_line INTEGER NOT NULL,
        data BLOB NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX chunks_by_byte ON chunks(text_id, start_byte)",
    "CREATE UNIQUE INDEX chunks_by_char ON chunks(text_id, start_char)",
    "CREATE INDEX chunks_by_line ON chunks(text_id, start_line)",
    # `start_line` counts line breaks, as above; `lines` counts lines, the last of which may
    # lack its break.
    """
    CREATE TABLE documents (
        text_id INTEGER NOT NULL REFERENCES texts(id),
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        start_byte INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        start_char INTEGER NOT NULL,
        chars INTEGER NOT NULL,
        start_line INTEGER NOT NULL,
        lines INTEGER NOT NULL,
        PRIMARY KEY (text_id, position)
    ) WITHOUT ROWID
    """,
)

_UPLOADS_AND_CONTEXTS = (
    # `state` is where the upload stood when it was last put down. `claim` names who writes to
    # it now: whoever continues an upload takes it away from whoever did before.
    """
    CREATE TABLE uploads (
        upload_id TEXT PRIMARY KEY,
        text_id INTEGER NOT NULL UNIQUE REFERENCES texts(id),
        name TEXT NOT NULL,
        caller TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL,
        claim TEXT NOT NULL,
        created_at TEXT NOT NULL,
        touched_at REAL NOT NULL
    )
    """,
    # `id` grows with every context sealed, so that pages of a list stay put under inserts.
    """
    CREATE TABLE contexts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        handle TEXT NOT NULL UNIQUE,
        text_id INTEGER NOT NULL UNIQUE REFERENCES texts(id),
        name TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        chars INTEGER NOT NULL,
        lines INTEGER NOT NULL,
        documents INTEGER NOT NULL,
        preview TEXT NOT NULL,
        created_at TEXT NOT NULL,
        caller TEXT NOT NULL DEFAULT '',
        expires_at REAL
    )
    """,
)

_RUNS = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL UNIQUE,
        status TEXT NOT NULL,
        question TEXT NOT NULL,
        contexts TEXT NOT NULL,
        config TEXT NOT NULL,
        caller TEXT NOT NULL DEFAULT '',
        idempotency_key TEXT,
        continues TEXT,
        created_at TEXT NOT NULL,
        finished_at TEXT,
        started REAL NOT NULL,
        elapsed_seconds REAL NOT NULL DEFAULT 0,
        answer TEXT,
        data TEXT,
        error TEXT,
        iterations INTEGER NOT NULL DEFAULT 0,
        sub_calls INTEGER NOT NULL DEFAULT 0,
        cached_sub_calls INTEGER NOT NULL DEFAULT 0,
        input_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        cost_usd REAL,
        last_event INTEGER NOT NULL DEFAULT 0,
        owner TEXT NOT NULL,
        lease_until REAL NOT NULL
    )
    """,
    "CREATE INDEX runs_by_status ON runs(status, id)",
    "CREATE UNIQUE INDEX runs_by_key ON runs(caller, idempotency_key) "
    "WHERE idempotency_key IS NOT NULL",
    """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
        seq INTEGER NOT NULL,
        at TEXT NOT NULL,
        type TEXT NOT NULL,
        iteration INTEGER NOT NULL,
        depth INTEGER NOT NULL,
        preview TEXT NOT NULL,
        figures TEXT NOT NULL,
        detail TEXT NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX events_by_seq ON events(run, seq)",
    """
    CREATE TABLE variables (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        size INTEGER NOT NULL,
        preview TEXT NOT NULL,
        json INTEGER NOT NULL DEFAULT 0,
        value TEXT
    )
    """,
    "CREATE UNIQUE INDEX variables_by_name ON variables(run, name)",
)

# `used_at` lets the oldest replies go first once there are too many.
_REPLIES = (
    """
    CREATE TABLE replies (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cost_usd REAL,
        created_at REAL NOT NULL,
        used_at REAL NOT NULL,
        reply TEXT NOT NULL
    )
    """,
    "CREATE INDEX replies_by_use ON replies(used_at)",
)

# A text may be held by several callers, each under a name of its own and by an entry that the
# others cannot see. `document` is the name of the only document, not a part of the content;
# those of several are, and lie beside the text.
_CONTEXTS_BY_CALLER = (
    """
    CREATE TABLE contexts_by_caller (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        caller TEXT NOT NULL,
        handle TEXT NOT NULL,
        text_id INTEGER NOT NULL REFERENCES texts(id),
        name TEXT NOT NULL,
        document TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        chars INTEGER NOT NULL,
        lines INTEGER NOT NULL,
        documents INTEGER NOT NULL,
        preview TEXT NOT NULL,
        created_at TEXT NOT NULL,
        expires_at REAL
    )
    """,
    """
    INSERT INTO contexts_by_caller
    SELECT id, caller, handle, text_id, name, CASE documents WHEN 1 THEN (
        SELECT documents.name FROM documents WHERE documents.text_id = contexts.text_id
    ) ELSE '' END, sha256, bytes, chars, lines, documents, preview, created_at, expires_at
    FROM contexts ORDER BY id
    """,
    "DROP TABLE contexts",
    "ALTER TABLE contexts_by_caller RENAME TO contexts",
    "CREATE UNIQUE INDEX contexts_by_handle ON contexts(handle, caller)",
    "CREATE INDEX contexts_of_caller ON contexts(caller)",
    "CREATE INDEX contexts_by_text ON contexts(text_id)",
    "CREATE INDEX runs_of_caller ON runs(caller)",
)


@migrations()
def m001_texts_contexts_and_runs(db: Database) -> None:
    """Make every table of the first version."""
    for statement in (*_TEXTS, *_UPLOADS_AND_CONTEXTS, *_RUNS, *_REPLIES):
        db.conn.execute(statement)


@migrations()
def m002_contexts_by_caller(db: Database) -> None:
    """Let several callers hold one text."""
    for statement in _CONTEXTS_BY_CALLER:
        db.conn.execute(statement)


_QUEUE_AND_CANCELS = (
    # Set by whoever wants a run cancelled that another process works on; cleared at its end.
    "ALTER TABLE runs ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX runs_to_cancel ON runs(owner) WHERE cancel_requested = 1",
    # A run that waits for its turn has not started: the column is infinite until then.
    "CREATE INDEX runs_in_line ON runs(owner, id) WHERE started = 9e999",
)


@migrations()
def m003_queue_and_cancels(db: Database) -> None:
    """Let runs wait in line, and be cancelled from another process."""
    for statement in _QUEUE_AND_CANCELS:
        db.conn.execute(statement)


_HOUSEKEEPING = (
    # Set when a text of the run is deleted; what it keeps of that goes once it works no more.
    "ALTER TABLE runs ADD COLUMN to_forget INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX runs_to_forget ON runs(id) WHERE to_forget = 1",
    "CREATE INDEX runs_by_end ON runs(finished_at)",
    # The run that paid for a reply.
    "ALTER TABLE replies ADD COLUMN run TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX replies_by_run ON replies(run)",
    # `until` is in seconds since the epoch.
    "CREATE TABLE leases (name TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) "
    "WITHOUT ROWID",
)


@migrations()
def m004_housekeeping(db: Database) -> None:
    """Let what is old or deleted be found, and one process at a time drop it."""
    for statement in _HOUSEKEEPING:
        db.conn.execute(statement)


# A caller's own: that a text was a PDF for one caller tells another nothing.
_PAGES = """
    CREATE TABLE pages (
        context INTEGER NOT NULL REFERENCES contexts(id) ON DELETE CASCADE,
        document INTEGER NOT NULL,
        start INTEGER NOT NULL,
        label TEXT NOT NULL,
        PRIMARY KEY (context, document, start)
    ) WITHOUT ROWID
    """


@migrations()
def m005_pages(db: Database) -> None:
    """Let documents have pages."""
    db.conn.execute(_PAGES)


@migrations()
def m006_abandoned_runs(db: Database) -> None:
    """Let a run be marked whose request was cancelled, until somebody asks for it again."""
    # In seconds since the epoch; cleared by whoever looks at the run.
    db.conn.execute("ALTER TABLE runs ADD COLUMN abandoned_at REAL")


@migrations()
def m007_usage_by_model(db: Database) -> None:
    """Let a run's figures be told by model, as a JSON list of rows."""
    db.conn.execute("ALTER TABLE runs ADD COLUMN usage_by_model TEXT")


_LASTING_VARIABLES = (
    # What a REPL makes the variable of again, or why there is none; a module, function or class.
    "ALTER TABLE variables ADD COLUMN payload BLOB",
    "ALTER TABLE variables ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE variables ADD COLUMN is_code INTEGER NOT NULL DEFAULT 0",
)


@migrations()
def m008_lasting_variables(db: Database) -> None:
    """Let variables be kept as they are."""
    for statement in _LASTING_VARIABLES:
        db.conn.execute(statement)


_ATTEMPTS = (
    # Counts who works on the run: it grows with each resumption and takeover, and whoever works
    # under an older number may not write any more.
    "ALTER TABLE runs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1",
    # How often it was taken over since it was begun or resumed.
    "ALTER TABLE runs ADD COLUMN takeovers INTEGER NOT NULL DEFAULT 0",
)


@migrations()
def m009_attempts(db: Database) -> None:
    """Let one attempt at a run write to it, and no older one."""
    for statement in _ATTEMPTS:
        db.conn.execute(statement)


def bring_up_to_date(connection: Connection) -> None:
    """Apply the missing migrations, within the caller's transaction."""
    migrations.apply(_opened(connection))


def unknown_steps(connection: Connection) -> list[str]:
    """Return the applied migrations that this version does not know: a newer one made them."""
    return [name for name in applied_steps(connection) if name not in STEPS]


def is_foreign(connection: Connection) -> bool:
    """Return whether the file is another program's database: with tables, but no step of ours."""
    return bool(_opened(connection).table_names()) and not applied_steps(connection)


def _opened(connection: Connection) -> Database:
    # Plugins installed for the sqlite-utils command must not run on this file.
    return Database(connection, execute_plugins=False)
