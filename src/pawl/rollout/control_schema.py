"""The control database's schema as numbered migrations. Append only: a released one is never edited."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE routes (agent TEXT PRIMARY KEY, revision INTEGER NOT NULL, body BLOB NOT NULL) STRICT",
        "CREATE TABLE rollouts (id TEXT PRIMARY KEY, agent TEXT NOT NULL, revision INTEGER NOT NULL, "
        "open INTEGER NOT NULL, opened_at REAL NOT NULL, body BLOB NOT NULL) STRICT",
        # The rule "one open rollout an agent" holds even against a writer that forgets to check it.
        "CREATE UNIQUE INDEX one_open_rollout ON rollouts (agent) WHERE open = 1",
        "CREATE TABLE requests (agent TEXT NOT NULL, version TEXT NOT NULL, asked_at REAL NOT NULL, "
        "body BLOB NOT NULL, PRIMARY KEY (agent, version)) STRICT",
        "CREATE TABLE approvals (id TEXT PRIMARY KEY, agent TEXT NOT NULL, version TEXT NOT NULL, at REAL NOT NULL, "
        "body BLOB NOT NULL) STRICT",
        "CREATE INDEX approvals_of_version ON approvals (agent, version)",
        "CREATE TABLE spent_codes (nonce TEXT PRIMARY KEY, at REAL NOT NULL) STRICT",
        "CREATE TABLE rejections (sha256 TEXT PRIMARY KEY, agent TEXT NOT NULL, reason TEXT NOT NULL, "
        "at REAL NOT NULL) STRICT",
        "CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
        "CREATE TABLE keys (id TEXT PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, "
        "sha256 TEXT NOT NULL UNIQUE, revoked INTEGER NOT NULL DEFAULT 0) STRICT",
        "CREATE TABLE audit (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, event TEXT NOT NULL, "
        "by TEXT NOT NULL, detail TEXT NOT NULL, hash TEXT NOT NULL) STRICT",
        "CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
        "CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    ),
    (
        # A key may have several secrets for a while (rotation), and terms of its own.
        "CREATE TABLE key_secrets (sha256 TEXT PRIMARY KEY, key_id TEXT NOT NULL, expires REAL) STRICT",
        "INSERT INTO key_secrets SELECT sha256, id, NULL FROM keys",
        "CREATE TABLE keys_with_terms (id TEXT PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, "
        "revoked INTEGER NOT NULL DEFAULT 0, terms TEXT NOT NULL DEFAULT '{}') STRICT",
        "INSERT INTO keys_with_terms (id, role, name, revoked) SELECT id, role, name, revoked FROM keys ORDER BY rowid",
        "DROP TABLE keys",
        "ALTER TABLE keys_with_terms RENAME TO keys",
        "CREATE TABLE spending (scope TEXT NOT NULL, period TEXT NOT NULL, usd REAL NOT NULL, "
        "tokens INTEGER NOT NULL, requests INTEGER NOT NULL, PRIMARY KEY (scope, period)) STRICT",
        # Gateways look at this number five times a second; spending and audit entries must not make them read routes.
        "CREATE TABLE clock (ticks INTEGER NOT NULL) STRICT",
        "INSERT INTO clock VALUES (1)",
        *(
            f"CREATE TRIGGER {table}_{change.lower()}_ticks AFTER {change} ON {table} "  # noqa: S608 - names from here
            "BEGIN UPDATE clock SET ticks = ticks + 1; END"
            for table in ("routes", "rollouts")
            for change in ("INSERT", "UPDATE", "DELETE")
        ),
    ),
    ("CREATE TABLE pointers (name TEXT PRIMARY KEY, revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT",),
    (
        "CREATE TABLE quarantine (kind TEXT NOT NULL, row TEXT NOT NULL, agent TEXT NOT NULL, rule TEXT NOT NULL, "
        "at REAL NOT NULL, released_at REAL, released_by TEXT NOT NULL DEFAULT '') STRICT",
        # A row may be let go and fail again; what was let go stays for the record.
        "CREATE UNIQUE INDEX quarantined_once ON quarantine (kind, row) WHERE released_at IS NULL",
        "CREATE INDEX quarantined_of_agent ON quarantine (agent) WHERE released_at IS NULL",
    ),
)
