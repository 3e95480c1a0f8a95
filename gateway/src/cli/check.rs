//! `recgate check`: everything that can be known to be wrong before a start.

use serde::Serialize;

use super::{
    ConfigArgument, Exit, Failure, Output, block_on,
    output::counted,
    plugin::host::{self, Loader},
};
use crate::config::{self, Inspection, Part, Problems, SourceDraft};

/// Check a configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A source whose storage doesn't answer. The configuration may be right all the same.
#[derive(Debug, Serialize)]
struct Unreachable {
    tenant: String,
    source: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    problems: Problems,
    unreachable: Vec<Unreachable>,
}

pub(super) fn run(arguments: Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let path = arguments.config.path();
    let mut inspection = config::inspect(&path);
    let mut unreachable = Vec::new();
    if let Some(dirs) = inspection.plugin_dirs() {
        let mut loader = Loader::new(dirs.to_vec());
        let drafts = std::mem::take(&mut inspection.sources);
        host::judge_sources(&mut inspection, &drafts, &mut loader);
        // Only what is wholly right would be started.
        if inspection.is_right() {
            unreachable = block_on(reach(&mut inspection, &drafts, &loader))?;
        }
    }
    let result = inspection.finish();
    let tenants = result.as_ref().map_or(0, |config| config.tenants.len() as u64);
    let problems = result.err().unwrap_or_default();
    let report = Report { ok: problems.is_empty(), problems, unreachable };
    if arguments.json {
        output.json(&report)?;
    } else if report.ok {
        output.line(format!("{}: right, with {}", path.display(), counted(tenants, "tenant")))?;
        for Unreachable { tenant, source, reason } in &report.unreachable {
            output.line(format!("not reachable now: {tenant}/{source}: {reason}"))?;
        }
    }
    match (report.ok, arguments.json) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::new(Exit::Configuration, "")),
        (false, false) => Err(Failure::new(Exit::Configuration, report.problems)),
    }
}

/// Asks each source how its storage is, one after the other.
async fn reach(inspection: &mut Inspection, drafts: &[SourceDraft], loader: &Loader) -> Vec<Unreachable> {
    let mut found = Vec::new();
    for draft in drafts {
        match loader.unreachable(&draft.source).await {
            Ok(None) => {}
            Ok(Some(reason)) => found.push(Unreachable {
                tenant: draft.tenant.clone(),
                source: draft.source.name.clone(),
                reason,
            }),
            Err(wrong) => {
                let remedy = host::settings_remedy(&draft.source.plugin);
                inspection.report(draft, Part::Setting(""), wrong, remedy);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::{fs, os::unix::fs::PermissionsExt};

    use serde_json::Value;

    use super::{host::Judge, *};
    use crate::sources::{LoadError, SettingsProblem, Trust};

    /// There is one plugin, which takes the key `root`, a path, and no other.
    struct OnePlugin;

    impl Judge for OnePlugin {
        fn judge(
            &mut self,
            plugin: &str,
            trust: Trust,
            settings: Option<&Value>,
        ) -> Result<Vec<SettingsProblem>, LoadError> {
            if plugin != "wazo" {
                return Err(LoadError::NotFound {
                    wanted: plugin.to_owned(),
                    searched: Vec::new(),
                    refused: Vec::new(),
                });
            }
            if trust.sha256.is_some() {
                let (expected, actual) = ("00".to_owned(), "11".to_owned());
                return Err(LoadError::Pin { path: "/x.so".into(), expected, actual });
            }
            let settings = settings.and_then(Value::as_object).into_iter().flatten();
            let problems = settings.filter_map(|(key, value)| {
                let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
                if key != "root" {
                    let known_keys = Some(vec!["root".to_owned()]);
                    return Some(SettingsProblem {
                        pointer,
                        message: format!("unknown key {key:?}"),
                        known_keys,
                    });
                }
                let message = "the value is no path".to_owned();
                (!value.is_string()).then_some(SettingsProblem { pointer, message, known_keys: None })
            });
            Ok(problems.collect())
        }

        fn names(&self) -> Vec<String> {
            vec!["wazo".to_owned()]
        }
    }

    fn problems(text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recgate.toml");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut inspection = config::inspect(&file);
        let drafts = std::mem::take(&mut inspection.sources);
        host::judge_sources(&mut inspection, &drafts, &mut OnePlugin);
        let prefix = format!("{}:", file.display());
        let told = inspection.finish().err().unwrap_or_default();
        told.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
    }

    const TENANT: &str = "data_dir = \"data\"\n[[tenant]]\nid = 1\nname = \"acme\"\nzone = \"UTC\"\n";

    #[test]
    fn mistakes_of_the_model_of_plugins_and_of_settings_are_told_together() {
        let text = format!(
            "{}\n[[tenant.source]]\nid = 1\nname = \"a\"\nplugin = \"wazoo\"\n\
             [[tenant.source]]\nid = 2\nname = \"b\"\nplugin = \"wazo\"\n[tenant.source.settings]\nrot = \"/srv\"\n",
            TENANT.replace("UTC", "Mars/Base")
        );
        let told = problems(&text);
        assert_eq!(told.len(), 3, "{told:#?}");
        assert!(told[0].starts_with("5:8: tenant[0].zone: "), "{told:#?}");
        assert_eq!(
            told[1],
            "10:10: tenant[0].source[0].plugin: there is no plugin \"wazoo\" in no folder at all. Did you mean \
             \"wazo\"? `recgate plugin list` shows those that are found, and why others are refused."
        );
        assert_eq!(
            told[2],
            "16:1: tenant[0].source[1].settings.rot: unknown key \"rot\". Did you mean \"root\"? \
             `recgate plugin inspect FILE` shows what the plugin takes."
        );
    }

    #[test]
    fn a_setting_is_found_where_it_stands() {
        let source = "[[tenant.source]]\nid = 1\nname = \"a\"\nplugin = \"wazo\"\n";
        let told = problems(&format!("{TENANT}{source}settings = {{ root = 7, \"x/~y\" = 1 }}\n"));
        assert_eq!(told.len(), 2, "{told:#?}");
        assert!(told[0].starts_with("10:21: tenant[0].source[0].settings.root: the value is no path. "));
        assert!(told[1].starts_with("10:24: tenant[0].source[0].settings.x/~y: unknown key"), "{told:#?}");
        assert_eq!(problems(&format!("{TENANT}{source}settings = {{ root = \"/srv\" }}\n")), [""; 0]);
    }

    #[test]
    fn what_follows_from_a_mistake_is_not_told() {
        let source = "[[tenant.source]]\nid = 1\nname = \"a\"\nplugin = \"wazo\"\nsha256 = ";
        let told = problems(&format!("{TENANT}{source}\"12\"\n"));
        assert_eq!(told.len(), 1, "{told:#?}");
        let told = problems(&format!("{TENANT}{source}\"{}\"\n", "ab".repeat(32)));
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0].starts_with("10:10: tenant[0].source[0].sha256: /x.so is another file"), "{told:#?}");
    }
}
