//! The tables of what a mesh keeps on disk only.

/// Ids are random, so that an index on them is written all over; tables that may be long have it as
/// a second key, and rows are in the order they came.
///
/// - `memory_words`: the words of `memory.content`, by rowid, without a copy of the text. `mesh` is
///   there so that what other meshes remember is passed over in the index.
/// - No foreign keys, as with messages: meshes and members are never deleted.
/// - `api_key.secret_hash`: the secret itself is nowhere.
pub(in crate::store) const V10: &str = "
CREATE TABLE memory (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    mesh_id TEXT NOT NULL,
    content TEXT NOT NULL,
    tags TEXT NOT NULL,
    remembered_by TEXT NOT NULL,
    remembered_by_name TEXT NOT NULL,
    remembered_at INTEGER NOT NULL
) STRICT;
CREATE INDEX memory_by_mesh ON memory (mesh_id);
CREATE VIRTUAL TABLE memory_words USING fts5(
    mesh, content, content = '', contentless_delete = 1, tokenize = 'porter unicode61'
);

CREATE TABLE context (
    id TEXT NOT NULL,
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    presence_id TEXT NOT NULL,
    peer_name TEXT NOT NULL,
    summary TEXT NOT NULL,
    files_read TEXT NOT NULL,
    key_findings TEXT NOT NULL,
    tags TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, member_id)
) STRICT;

CREATE TABLE task (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    mesh_id TEXT NOT NULL,
    title TEXT NOT NULL,
    assignee TEXT,
    claimed_by_name TEXT,
    claimed_by_presence TEXT,
    priority TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('open', 'claimed', 'done')),
    tags TEXT NOT NULL,
    result TEXT,
    created_by_name TEXT,
    created_at INTEGER NOT NULL,
    claimed_at INTEGER,
    completed_at INTEGER
) STRICT;
CREATE INDEX task_by_mesh ON task (mesh_id, status);

CREATE TABLE skill (
    id TEXT NOT NULL,
    mesh_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    instructions TEXT NOT NULL,
    tags TEXT NOT NULL,
    author_member_id TEXT NOT NULL,
    author_name TEXT NOT NULL,
    manifest TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, name)
) STRICT;

CREATE TABLE api_key (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    mesh_id TEXT NOT NULL,
    label TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    secret_prefix TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    topic_scopes TEXT,
    issued_by_member_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at INTEGER,
    expires_at INTEGER
) STRICT;
CREATE INDEX api_key_by_mesh ON api_key (mesh_id);

CREATE TABLE vault_entry (
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    key TEXT NOT NULL,
    ciphertext TEXT NOT NULL,
    nonce TEXT NOT NULL,
    sealed_key TEXT NOT NULL,
    entry_type TEXT NOT NULL CHECK (entry_type IN ('env', 'file')),
    mount_path TEXT,
    description TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, member_id, key)
) STRICT;

CREATE TABLE webhook (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    mesh_id TEXT NOT NULL,
    name TEXT NOT NULL,
    secret TEXT NOT NULL UNIQUE,
    active INTEGER NOT NULL DEFAULT 1,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (mesh_id, name)
) STRICT;
";
