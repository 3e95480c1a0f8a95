//! What the SFTP door counts for each request: nothing but atomic adds.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};

use super::histogram::{Histogram, Timer};

/// Seconds: from memory to a far source that is tried again.
const BOUNDS: &[f64] =
    &[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Requests by type.
#[derive(Debug)]
pub struct SftpMetrics {
    requests: [Counter; SftpRequest::ALL.len()],
    work: [Histogram; SftpWork::ALL.len()],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    r#type: &'static str,
}

impl SftpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests: Family<Labels, Counter> = Family::default();
        registry.register("sftp_requests", "SFTP requests by type", requests.clone());
        let work: Family<Labels, Histogram> =
            Family::new_with_constructor((|| Histogram::new(BOUNDS)) as fn() -> Histogram);
        registry.register_with_unit(
            "sftp_request_duration",
            "From an SFTP request to its answer, as far as the answer had to be waited for; a read whose bytes were \
             in memory is not among them",
            Unit::Seconds,
            work.clone(),
        );
        Self {
            requests: SftpRequest::ALL
                .map(|request| requests.get_or_create_owned(&Labels { r#type: request.name() })),
            work: SftpWork::ALL.map(|kind| work.get_or_create_owned(&Labels { r#type: kind.name() })),
        }
    }

    /// A request has come.
    pub fn count(&self, request: SftpRequest) {
        if let Some(counter) = self.requests.get(request as usize) {
            counter.inc();
        }
    }

    /// Work on a request begins; it ends when what this returns is dropped.
    pub fn start(&self, work: SftpWork) -> Option<Timer<'_>> {
        self.work.get(work as usize).map(Histogram::start)
    }
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the label says it")]
        pub enum $name { $($variant,)* }

        impl $name {
            /// All, in the order of their numbers.
            pub const ALL: [Self; [$(Self::$variant,)*].len()] = [$(Self::$variant,)*];

            /// The label.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

labels! {
    /// A type of request.
    SftpRequest {
        Open = "open",
        Close = "close",
        Read = "read",
        Write = "write",
        Lstat = "lstat",
        Fstat = "fstat",
        Setstat = "setstat",
        Fsetstat = "fsetstat",
        Opendir = "opendir",
        Readdir = "readdir",
        Remove = "remove",
        Mkdir = "mkdir",
        Rmdir = "rmdir",
        Realpath = "realpath",
        Stat = "stat",
        Rename = "rename",
        Readlink = "readlink",
        Symlink = "symlink",
        Extended = "extended",
        Unknown = "unknown",
    }
}

labels! {
    /// Work that a client waits for.
    SftpWork {
        Open = "open",
        Opendir = "opendir",
        Readdir = "readdir",
        Stat = "stat",
        Read = "read",
    }
}
