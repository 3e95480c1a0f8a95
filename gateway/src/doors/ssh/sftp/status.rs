//! The one table from a refusal to the protocol's status.

use russh_sftp::protocol::StatusCode;

use crate::vfs::{PathError, Refusal, RefusalKind};

/// Version 3 knows few codes; the sentence says the rest.
pub(super) fn code(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::NotFound => StatusCode::NoSuchFile,
        RefusalKind::ReadOnly | RefusalKind::Forbidden | RefusalKind::Locked => StatusCode::PermissionDenied,
        RefusalKind::NotAFolder
        | RefusalKind::IsAFolder
        | RefusalKind::Unavailable
        | RefusalKind::Archived
        | RefusalKind::Corrupt
        | RefusalKind::Busy
        | RefusalKind::Internal => StatusCode::Failure,
    }
}

/// Whether the sentence also goes to the client's standard error. OpenSSH's `sftp` shows the code's name alone
/// ("Permission denied", "Failure"), which doesn't tell a person why.
pub(super) fn needs_explaining(kind: RefusalKind) -> bool {
    !matches!(kind, RefusalKind::NotFound | RefusalKind::NotAFolder | RefusalKind::IsAFolder)
}

/// Bytes that are no path name nothing.
pub(super) fn bad_path(error: PathError) -> Refusal {
    Refusal::new(RefusalKind::NotFound, error.to_string())
}

/// Any attempt to change the tree other than removing.
pub(super) fn read_only(attempt: &str) -> Refusal {
    Refusal::new(RefusalKind::ReadOnly, format!("this tree is read-only: {attempt} is refused"))
}
