//! File descriptors: as many as the system lets, and a word in the log where that may be too few.

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{config::Limits, identity::descriptors_needed};

/// Raises the limit on open files to the hardest that this process may have. Services and shells commonly begin with
/// 1024, which suits programs that use `select`.
pub(super) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => tracing::debug!(to = shown(limit.maximum), "the limit on open files is raised"),
        // The systemd unit filters this call, and sets the limit itself.
        Err(Errno::PERM) => tracing::debug!("the limit on open files can't be raised: not permitted"),
        Err(error) => tracing::warn!(%error, "the limit on open files can't be raised"),
    }
}

/// Warns where a configuration allows more connections than there may be descriptors for.
pub(super) fn check(limits: &Limits) {
    let needed = u64::try_from(descriptors_needed(limits)).unwrap_or(u64::MAX);
    if let Some(most) = getrlimit(Resource::Nofile).current.filter(|most| *most < needed) {
        tracing::warn!(
            limit = most,
            needed,
            max_connections = limits.max_connections,
            "the limit on open files is low for so many connections, each with an open file: some will be turned away; \
             raise it (LimitNOFILE of the systemd unit, `ulimit -Hn` of a shell), or lower max_connections"
        );
    }
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        // A second time there is nothing to do, and whatever it is it can be told.
        raise();
        check(&Limits { max_connections: usize::MAX, ..Limits::default() });
    }
}
