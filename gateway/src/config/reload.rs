//! What a reload may change.

use std::path::Path;

use super::{Config, Problem, Problems};

/// Refuses what can't change while the gateway runs, and what can never change. `file` is named in the mistakes.
///
/// # Errors
/// Every such change.
pub fn check_reload(file: &Path, old: &Config, new: &Config) -> Result<(), Problems> {
    let mut problems = Vec::new();
    let mut refuse = |key: String, wrong: String, remedy: &str| {
        problems.push(Problem {
            file: file.to_owned(),
            line: None,
            column: None,
            key,
            wrong,
            remedy: remedy.to_owned(),
        });
    };
    const RESTART: &str = "Put it back, or restart the gateway.";
    let needs_restart = [
        ("data_dir", old.data_dir != new.data_dir),
        ("plugin_dirs", old.plugin_dirs != new.plugin_dirs),
        ("log.format", old.log.json != new.log.json),
        ("ssh.listen", old.ssh.listen != new.ssh.listen),
        ("ssh.host_keys", old.ssh.host_keys != new.ssh.host_keys),
        ("ssh.legacy_algorithms", old.ssh.legacy_algorithms != new.ssh.legacy_algorithms),
        ("ssh.keep_alive", old.ssh.keep_alive != new.ssh.keep_alive),
        ("ssh.rekey_bytes", old.ssh.rekey_bytes != new.ssh.rekey_bytes),
        ("ssh.rekey_interval", old.ssh.rekey_interval != new.ssh.rekey_interval),
        ("limits.read_ahead_budget", old.limits.read_ahead_budget != new.limits.read_ahead_budget),
        ("limits.read_ahead_per_file", old.limits.read_ahead_per_file != new.limits.read_ahead_per_file),
        ("metrics.listen", old.metrics != new.metrics),
    ];
    for (key, _) in needs_restart.into_iter().filter(|(_, changed)| *changed) {
        refuse(key.to_owned(), "this can't change while the gateway runs".to_owned(), RESTART);
    }
    for (number, tenant) in new.tenants.iter().enumerate() {
        let Some(before) = old.tenants.iter().find(|before| before.id == tenant.id) else { continue };
        if before.name_form != tenant.name_form {
            refuse(
                format!("tenant[{number}].name_form"),
                format!("the form of {}'s names was fixed when the tenant was made", tenant.name),
                "Put it back: clients know the recordings by their names.",
            );
        }
        for source in &tenant.sources {
            let same = |before: &&super::Source| before.id == source.id;
            if before.sources.iter().find(same).is_some_and(|before| before.plugin != source.plugin) {
                refuse(
                    format!("tenant[{number}].source {}.plugin", source.id),
                    format!("source {} of {} has recordings of another plugin", source.id, tenant.name),
                    "Give the new source an id of its own.",
                );
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}
