//! The one table from what a source reports to what a client is told.

use recgate_plugin_api::ErrorCode;

use super::{Refusal, RefusalKind};
use crate::sources::SourceError;

/// What a read of a published recording says when its source fails.
///
/// The client gets a sentence without internals; the log gets `describe` (which recording), the source's
/// name and the plugin's message.
pub fn read_refusal(error: &SourceError, describe: &str) -> Refusal {
    let (kind, client) = match error.error.code {
        ErrorCode::NotFound | ErrorCode::Precondition => {
            (RefusalKind::Corrupt, "this recording has changed since it was published")
        }
        ErrorCode::Range => (RefusalKind::Corrupt, ENDS_EARLY),
        ErrorCode::Corrupt => (RefusalKind::Corrupt, "the stored bytes of this recording are damaged"),
        ErrorCode::Archived => {
            (RefusalKind::Archived, "this recording is in colder storage and has to be restored first")
        }
        ErrorCode::LockedRetention => {
            (RefusalKind::Locked, "the storage keeps this recording under retention")
        }
        ErrorCode::LockedHold => (RefusalKind::Locked, "the storage keeps this recording under a legal hold"),
        ErrorCode::Permission => {
            (RefusalKind::Unavailable, "the source of this recording refuses access; ask its operator")
        }
        ErrorCode::Busy
        | ErrorCode::RateLimited
        | ErrorCode::Unavailable
        | ErrorCode::Timeout
        | ErrorCode::Cancelled => {
            (RefusalKind::Unavailable, "the source of this recording is unavailable; try again later")
        }
        ErrorCode::Invalid
        | ErrorCode::Unsupported
        | ErrorCode::TooLarge
        | ErrorCode::NoSpace
        | ErrorCode::Internal
        | ErrorCode::Panic => {
            (RefusalKind::Internal, "the source of this recording failed; the log says why")
        }
    };
    Refusal::new(kind, client).with_detail(format!("{describe}: {error}"))
}

/// The refusal for media that holds fewer bytes than were published.
pub fn ends_early(describe: &str, offset: u64, asked: usize, got: usize) -> Refusal {
    Refusal::new(RefusalKind::Corrupt, ENDS_EARLY)
        .with_detail(format!("{describe}: {got} instead of {asked} bytes at offset {offset}"))
}

/// The refusal for a source that answers with more bytes than were asked for.
pub fn too_many_bytes(describe: &str, offset: u64, asked: usize, got: usize) -> Refusal {
    Refusal::new(RefusalKind::Internal, "the source of this recording failed; the log says why").with_detail(
        format!("{describe}: the source answered {got} instead of {asked} bytes at offset {offset}"),
    )
}

const ENDS_EARLY: &str = "the stored bytes end early";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use recgate_plugin_api::Error;

    use super::*;

    #[test]
    fn the_log_gets_what_the_client_does_not() {
        let error = SourceError {
            source_name: Arc::from("pbx"),
            error: Error::new(ErrorCode::Unavailable, "connect to 10.0.0.7: refused"),
        };
        let refusal = read_refusal(&error, "recording 42");
        assert_eq!(refusal.kind, RefusalKind::Unavailable);
        assert!(refusal.client.ends_with("try again later"), "{refusal}");
        assert!(!refusal.client.contains("10.0.0.7"), "{refusal}");
        assert!(refusal.detail.contains("recording 42") && refusal.detail.contains("10.0.0.7"), "{refusal}");
    }

    #[test]
    fn changed_media_is_never_merely_unavailable() {
        for code in [ErrorCode::NotFound, ErrorCode::Precondition, ErrorCode::Range, ErrorCode::Corrupt] {
            let error = SourceError { source_name: Arc::from("pbx"), error: Error::new(code, "x") };
            assert_eq!(read_refusal(&error, "r").kind, RefusalKind::Corrupt, "{code:?}");
        }
    }
}
