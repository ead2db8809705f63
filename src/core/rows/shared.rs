//! What a mesh shares beside messages: its state, its streams, and who is subscribed to them.

use crate::ids::Position;
use crate::time::Wall;

/// One key of a mesh's shared state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRow {
    /// The mesh.
    pub mesh_id: String,
    /// Unique within the mesh.
    pub key: String,
    /// JSON text, never `null`.
    pub value: String,
    /// Name of the member that set it last.
    pub updated_by: String,
    /// When.
    pub updated_at: Wall,
    /// Which session did ([`super::PresenceRow::began`]): it is not told.
    pub setter: Position,
    /// Where the mesh's log tells of it.
    pub position: Position,
}

/// A stream that was created. One that only has subscribers has no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRow {
    /// 32 base62.
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// Unique within the mesh.
    pub name: String,
    /// Name of the member that created it.
    pub created_by: String,
    /// When.
    pub created_at: Wall,
}

/// That a present session is subscribed to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Its mesh.
    pub mesh_id: String,
    /// See [`super::PresenceRow::began`].
    pub began: Position,
    /// The stream's name; it need not have been created.
    pub stream: String,
}
