//! What the command line asks of the plugin host.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use recgate_plugin_api::ErrorCode;

use crate::{
    config::{self, Inspection, Part, SourceDraft},
    sources::{CallLimits, LoadError, MediaSource, Plugin, Plugins, SettingsProblem, Trust},
};

/// How long a storage is waited for.
const REACH: Duration = Duration::from_secs(5);

/// The plugins beside the executable, and those in other folders.
pub(in crate::cli) fn plugins(dirs: Vec<PathBuf>) -> Plugins {
    let executable = std::env::current_exe().ok();
    Plugins::new(executable.and_then(|path| path.parent().map(PathBuf::from)), dirs)
}

/// The plugins of one configuration, as they are judged.
pub(in crate::cli) trait Judge {
    /// What a plugin finds wrong with settings; without settings only whether it may be loaded.
    fn judge(
        &mut self,
        plugin: &str,
        trust: Trust,
        settings: Option<&serde_json::Value>,
    ) -> Result<Vec<SettingsProblem>, LoadError>;

    /// The names of all plugins.
    fn names(&self) -> Vec<String>;
}

/// The real ones.
pub(in crate::cli) struct Loader {
    plugins: Plugins,
    loaded: BTreeMap<String, Arc<Plugin>>,
}

impl Loader {
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self { plugins: plugins(dirs), loaded: BTreeMap::new() }
    }

    /// Why a source's storage can't be reached now; `Err` where the plugin refuses the settings after all.
    pub async fn unreachable(&self, source: &config::Source) -> Result<Option<String>, String> {
        let Some(plugin) = self.loaded.get(&source.plugin).cloned() else { return Ok(None) };
        if let Some(wrong) = plugin.outlasts(&source.settings, source.call_timeout) {
            return Err(wrong);
        }
        let limits = CallLimits { timeout: source.call_timeout.min(REACH), max_calls: 1 };
        let (name, settings) = (source.name.clone(), source.settings.clone());
        let made = tokio::task::spawn_blocking(move || plugin.create(&name, &settings, limits)).await;
        let health = match made {
            Ok(Ok(instance)) => instance.health().await,
            Ok(Err(error)) if error.error.code == ErrorCode::Invalid => return Err(error.error.message),
            Ok(Err(error)) => Err(error),
            Err(error) => return Ok(Some(error.to_string())),
        };
        Ok(match health {
            Ok(health) if health.reachable => None,
            Ok(health) => Some(health.message),
            Err(error) => Some(error.error.to_string()),
        })
    }
}

impl Judge for Loader {
    fn judge(
        &mut self,
        plugin: &str,
        trust: Trust,
        settings: Option<&serde_json::Value>,
    ) -> Result<Vec<SettingsProblem>, LoadError> {
        let loaded = self.plugins.load(plugin, trust)?;
        self.loaded.insert(plugin.to_owned(), Arc::clone(&loaded));
        Ok(settings.map(|settings| loaded.check_settings(settings)).unwrap_or_default())
    }

    fn names(&self) -> Vec<String> {
        self.plugins.list().into_iter().filter_map(|found| found.result.ok()).map(|info| info.name).collect()
    }
}

/// Adds what the plugins find wrong with the sources.
pub(in crate::cli) fn judge_sources(
    inspection: &mut Inspection,
    drafts: &[SourceDraft],
    judge: &mut impl Judge,
) {
    for draft in drafts.iter().filter(|draft| draft.is_right(Part::Plugin)) {
        let source = &draft.source;
        // Where the pin is wrong, one that no file has: whether there is such a plugin shows, and none is run.
        let sha256 = if draft.is_right(Part::Sha256) { source.sha256 } else { Some([0; 32]) };
        let trust = Trust { in_process: source.in_process, sha256 };
        let settings = draft.is_right(Part::Setting("")).then_some(&source.settings);
        match judge.judge(&source.plugin, trust, settings) {
            Ok(problems) => {
                for problem in problems {
                    report_setting(inspection, draft, problem);
                }
            }
            // These follow from a mistake that was told.
            Err(LoadError::Pin { .. }) if !draft.is_right(Part::Sha256) => {}
            Err(LoadError::Isolation(_)) if !draft.is_right(Part::Isolation) => {}
            Err(error) => report_plugin(inspection, draft, error, judge),
        }
    }
}

/// Where to look up what a plugin's settings are.
pub(in crate::cli) fn settings_remedy(plugin: &str) -> String {
    let file = if plugin.starts_with('/') { plugin } else { "FILE" };
    format!("`recgate plugin inspect {file}` shows what the plugin takes.")
}

fn report_setting(inspection: &mut Inspection, draft: &SourceDraft, problem: SettingsProblem) {
    let SettingsProblem { pointer, message, known_keys } = problem;
    let remedy = settings_remedy(&draft.source.plugin);
    let Some(known) = known_keys else {
        return inspection.report(draft, Part::Setting(&pointer), message, remedy);
    };
    let unknown = pointer.rsplit('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~");
    let near = config::nearest(&unknown, known.iter().map(String::as_str));
    let remedy = match near {
        Some(near) => format!("Did you mean \"{near}\"? {remedy}"),
        None => remedy,
    };
    inspection.report(draft, Part::SettingKey(&pointer), message, remedy);
}

fn report_plugin(inspection: &mut Inspection, draft: &SourceDraft, error: LoadError, judge: &impl Judge) {
    const LIST: &str = "`recgate plugin list` shows those that are found, and why others are refused";
    let (part, wrong, remedy) = match error {
        LoadError::NotFound { ref wanted, .. } => {
            let names = judge.names();
            let remedy = match config::nearest(wanted, names.iter().map(String::as_str)) {
                Some(near) => format!("Did you mean \"{near}\"? {LIST}."),
                None => format!("{LIST}; add the plugin's folder to plugin_dirs."),
            };
            (Part::Plugin, error.to_string(), remedy)
        }
        LoadError::Pin { path, actual, .. } => (
            Part::Sha256,
            format!("{} is another file: its SHA-256 is {actual}", path.display()),
            "Put the right file there, or pin this one after you have made sure where it comes from."
                .to_owned(),
        ),
        LoadError::Isolation(path) => (
            Part::Isolation,
            format!(
                "{} is not one of the gateway's own plugins, which lie beside its executable, and would run inside \
                 the gateway's process",
                path.display()
            ),
            "Write isolation = \"in-process\" if you trust the plugin as you trust the gateway.".to_owned(),
        ),
        error => (Part::Plugin, error.to_string(), format!("{LIST}.")),
    };
    inspection.report(draft, part, wrong, remedy);
}
