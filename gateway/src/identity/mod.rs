//! Tenants, users, roles; checks of passwords and keys.

use std::sync::Arc;

/// Who is logged in. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The tenant's immutable id.
    pub tenant: u32,
    /// The user's immutable id within the tenant.
    pub user: u32,
    /// What was typed: `tenant` or `tenant/user`.
    pub login: Arc<str>,
    /// What the user may do.
    pub role: Role,
}

/// What a user may see and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads the indexes and published recordings.
    Downloader,
    /// Also sees orphans.
    Manager,
    /// Also deletes what no lock keeps.
    Administrator,
    /// Reads all, and the audit log.
    Auditor,
}
