//! What doors share: taking connections, where a client behind a load balancer is, the lines that sessions write to the
//! log, and the way to shut down.

mod drain;
mod listening;
mod proxy;
mod session_log;

pub use drain::Drain;
pub use listening::{Accepting, Listening};
#[cfg(fuzzing)]
pub(crate) use proxy::fuzz::bytes as fuzz_proxy;
pub use proxy::{Headers, ProxyError};
pub use session_log::{SessionLog, Transfer, announce_door};
