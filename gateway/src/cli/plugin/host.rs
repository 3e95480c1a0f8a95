//! What the command line asks of the plugin host.

use std::path::PathBuf;

use crate::{
    config::Config,
    sources::{Plugins, Trust},
};

/// The plugins beside the executable, and those in other folders.
pub(in crate::cli) fn plugins(dirs: Vec<PathBuf>) -> Plugins {
    let executable = std::env::current_exe().ok();
    Plugins::new(executable.and_then(|path| path.parent().map(PathBuf::from)), dirs)
}

/// Loads each source's plugin and checks the settings: tenant, source, and what is wrong.
pub(in crate::cli) fn check_sources(config: &Config) -> Vec<(String, String, String)> {
    let plugins = plugins(config.plugin_dirs.clone());
    let mut problems = Vec::new();
    for tenant in &config.tenants {
        for source in &tenant.sources {
            let trust = Trust { in_process: source.in_process, sha256: source.sha256 };
            let wrong = match plugins.load(&source.plugin, trust) {
                Ok(plugin) => plugin.check_settings(&source.settings),
                Err(error) => vec![error.to_string()],
            };
            problems.extend(wrong.into_iter().map(|wrong| (tenant.name.clone(), source.name.clone(), wrong)));
        }
    }
    problems
}
