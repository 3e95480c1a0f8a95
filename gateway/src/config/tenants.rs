//! Tenants with their users and sources.

use std::{path::Path, time::Duration};

use chrono::NaiveDate;
use chrono_tz::Tz;

use super::{
    Quota, Source, Tenant, Unmatched, User,
    files::{self, Privacy},
    inspect::SourceDraft,
    problems::Mistake,
    quota,
    read::{self, Unique},
    values,
    walk::{Field, Section},
};
use crate::{
    identity::{Method, Role},
    layout::{NameForm, TenantZone},
};

const DAY: Duration = Duration::from_secs(86_400);

/// All tenants, by ascending id; `drafts` takes every source, also of those that are left out.
pub(super) fn tenants(root: &mut Section<'_>, base: &Path, drafts: &mut Vec<SourceDraft>) -> Vec<Tenant> {
    const HEADER: &str = "[[tenant]]";
    let Some(field) = root.required("tenant", "Add a [[tenant]] with its id, name and zone.") else {
        return Vec::new();
    };
    let (mut ids, mut names) = (Unique::default(), Unique::default());
    let mut tenants: Vec<_> = field
        .sections(HEADER)
        .into_iter()
        .filter_map(|section| tenant(section, base, &mut ids, &mut names, drafts))
        .collect();
    tenants.sort_by_key(|tenant| tenant.id);
    tenants
}

fn tenant(
    mut section: Section<'_>,
    base: &Path,
    ids: &mut Unique<u32>,
    names: &mut Unique<String>,
    drafts: &mut Vec<SourceDraft>,
) -> Option<Tenant> {
    let id = id(&mut section, ids);
    let name = section
        .required("name", "Write the tenant's login, for example name = \"acme\".")
        .and_then(|field| name(&field, names))
        .unwrap_or_default();
    let zone = zone(&mut section);
    let name_form = section
        .field("name_form")
        .and_then(|field| {
            let forms = [("long", NameForm::Long), ("short", NameForm::Short)];
            field.parsed("name_form = \"long\"", |text| values::choice(text, &forms))
        })
        .unwrap_or_default();
    let live_index =
        section.field("live_index").and_then(|field| field.boolean("live_index = true")).unwrap_or(false);

    let user_ca_keys =
        keys(&mut section, "user_ca_keys", "user_ca_keys_file", base, IfEmpty::Mistake).unwrap_or_default();
    // A list of what nobody has lost yet is empty, and best there before the first loss.
    let revoked_keys =
        keys(&mut section, "revoked_keys", "revoked_keys_file", base, IfEmpty::Allowed).unwrap_or_default();
    let certificates = !user_ca_keys.is_empty();
    let quota = quota::read(&mut section, None);

    let (mut ids, mut names, mut default_user) = (Unique::default(), Unique::default(), Unique::default());
    let mut users: Vec<_> = section
        .field("user")
        .map(|field| field.sections("[[tenant.user]]"))
        .unwrap_or_default()
        .into_iter()
        .map(|section| user(section, base, certificates, quota, &mut ids, &mut names, &mut default_user))
        .collect();
    users.sort_by_key(|user| user.id);

    let (mut ids, mut names) = (Unique::default(), Unique::default());
    let mut sources: Vec<_> = section
        .field("source")
        .map(|field| field.sections("[[tenant.source]]"))
        .unwrap_or_default()
        .into_iter()
        .map(|section| {
            let draft = source(section, &name, &mut ids, &mut names);
            drafts.push(draft.clone());
            draft.source
        })
        .collect();
    sources.sort_by_key(|source| source.id);

    section.finish();
    let zone = zone?;
    Some(Tenant { id, name, zone, name_form, live_index, user_ca_keys, revoked_keys, quota, users, sources })
}

/// `None` where it, or one of its changes, can't be used.
fn zone(section: &mut Section<'_>) -> Option<TenantZone> {
    const EXAMPLE: &str = "zone = \"America/Los_Angeles\"";
    const CHANGES: &str = "zone_changes = [{ from = 2025-03-01, zone = \"America/New_York\" }]";
    let first = section
        .required("zone", &format!("Write the tenant's time zone, for example {EXAMPLE}."))
        .and_then(|field| field.parsed(EXAMPLE, values::zone));
    let field = section.field("zone_changes");
    let elements = field.as_ref().map(|field| field.elements(CHANGES)).unwrap_or_default();
    let stated = elements.len();
    let mut changes: Vec<(NaiveDate, Tz)> = Vec::new();
    for element in elements {
        let Some(mut change) = element.section() else { continue };
        let from = change
            .required("from", "Write the local date from which it holds.")
            .and_then(|field| values::date(field.value()).map_err(|mistake| field.report(mistake)).ok());
        let zone = change
            .required("zone", "Write the time zone that holds from then on.")
            .and_then(|field| field.parsed(EXAMPLE, values::zone));
        change.finish();
        changes.extend(from.zip(zone));
    }
    let first = first.filter(|_| changes.len() == stated)?;
    match TenantZone::new(first, changes) {
        Ok(zone) => Some(zone),
        Err(error) => {
            let mistake = Mistake::new(error.to_string(), "Correct zone_changes.");
            match field {
                Some(field) => field.report(mistake),
                None => section.report(mistake),
            }
            None
        }
    }
}

fn user(
    mut section: Section<'_>,
    base: &Path,
    certificates: bool,
    tenants_quota: Quota,
    ids: &mut Unique<u32>,
    names: &mut Unique<String>,
    default_user: &mut Unique<()>,
) -> User {
    const HASH: &str = "password_hash = \"$argon2id$…\"";
    const HASH_FILE: &str = "password_hash_file = \"acme.hash\"";

    let id_field = section.required("id", "Write a number that no other user of the tenant has, for ever.");
    let id = id_field.as_ref().and_then(|field| checked_id(field, ids)).unwrap_or_default();
    let named = section.field("name");
    if named.is_none()
        && let Some(field) = &id_field
    {
        default_user.check(field, (), "without a name this is the tenant's default user, whose place");
    }
    let name = named.and_then(|field| name(&field, names));
    let role = section
        .required("role", "Write role = \"downloader\", \"manager\", \"administrator\" or \"auditor\".")
        .and_then(|field| {
            let roles = [
                ("downloader", Role::Downloader),
                ("manager", Role::Manager),
                ("administrator", Role::Administrator),
                ("auditor", Role::Auditor),
            ];
            field.parsed("role = \"downloader\"", |text| values::choice(text, &roles))
        })
        .unwrap_or(Role::Downloader);

    let inline = section.field("password_hash");
    let by_file = section.field("password_hash_file");
    if let (Some(_), Some(field)) = (&inline, &by_file) {
        field.report(Mistake::new("the user has password_hash as well", "Remove one of the two."));
    }
    let has_password = inline.is_some() || by_file.is_some();
    let password_hash = inline.and_then(|field| field.parsed(HASH, values::password_hash)).or_else(|| {
        let field = by_file?;
        let path = read::path(&field, HASH_FILE, base)?;
        let text = files::read(&path, 4096, Privacy::Secret);
        let hash = text.and_then(|text| {
            values::password_hash(text.trim()).map_err(|mistake| Mistake {
                wrong: format!("{}: {}", path.display(), mistake.wrong),
                ..mistake
            })
        });
        hash.map_err(|mistake| field.report(mistake)).ok()
    });

    let authorized_keys =
        keys(&mut section, "authorized_keys", "authorized_keys_file", base, IfEmpty::Mistake);
    let has_keys = authorized_keys.is_some();
    if !has_password && !has_keys && !certificates {
        section.report(Mistake::new(
            "the user can't log in, having neither a password nor a key",
            "Add password_hash (from `recgate hash-password`) or authorized_keys.",
        ));
    }
    let require = required_methods(&mut section, has_password, has_keys || certificates);
    let mut allowed_networks = Vec::new();
    const NETWORKS: &str = "allowed_networks = [\"10.1.0.0/16\"]";
    if let Some(field) = section.field("allowed_networks") {
        let elements = field.elements(NETWORKS);
        if elements.is_empty() && field.value().is_array() {
            field.report(Mistake::new("the user could log in from nowhere", format!("Write {NETWORKS}.")));
        }
        allowed_networks.extend(elements.into_iter().filter_map(|it| it.parsed(NETWORKS, values::network)));
    }
    let quota = quota::read(&mut section, Some(tenants_quota));
    section.finish();
    User {
        id,
        name,
        role,
        password_hash,
        authorized_keys: authorized_keys.unwrap_or_default(),
        require,
        allowed_networks,
        quota,
    }
}

/// What the user has to show; with each of it the user must be able to.
fn required_methods(section: &mut Section<'_>, has_password: bool, has_key: bool) -> Vec<Method> {
    const EXAMPLE: &str = "require = [\"publickey\", \"password\"]";
    let Some(field) = section.field("require") else { return Vec::new() };
    let mut methods = Vec::new();
    let elements = field.elements(EXAMPLE);
    if elements.is_empty() && field.value().is_array() {
        field.report(Mistake::new("nothing is required", format!("Write {EXAMPLE}, or remove it.")));
    }
    for element in elements {
        let words = [("publickey", Method::PublicKey), ("password", Method::Password)];
        let Some(method) = element.parsed(EXAMPLE, |text| values::choice(text, &words)) else { continue };
        let wrong = match method {
            _ if methods.contains(&method) => "this is required already",
            Method::PublicKey if !has_key => "the user has no key",
            Method::Password if !has_password => "the user has no password",
            _ => {
                methods.push(method);
                continue;
            }
        };
        element.report(Mistake::new(wrong, "Remove it, or add what is missing."));
    }
    methods
}

/// What a file without a key is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfEmpty {
    Mistake,
    Allowed,
}

/// Public keys, written here or in a file; `None` where neither is.
fn keys(
    section: &mut Section<'_>,
    key: &'static str,
    file_key: &'static str,
    base: &Path,
    if_empty: IfEmpty,
) -> Option<Vec<String>> {
    let example = format!("{key} = [\"ssh-ed25519 AAAA… jane\"]");
    let (inline, by_file) = (section.field(key), section.field(file_key));
    if inline.is_none() && by_file.is_none() {
        return None;
    }
    let mut keys = Vec::new();
    for element in inline.map(|field| field.elements(&example)).unwrap_or_default() {
        keys.extend(element.parsed(&example, values::authorized_key));
    }
    if let Some(field) = by_file {
        keys_of_file(&field, &format!("{file_key} = \"acme.pub\""), base, if_empty, &mut keys);
    }
    Some(keys)
}

fn keys_of_file(field: &Field<'_>, example: &str, base: &Path, if_empty: IfEmpty, keys: &mut Vec<String>) {
    let Some(path) = read::path(field, example, base) else { return };
    let text = match files::read(&path, 1 << 20, Privacy::Trusted) {
        Ok(text) => text,
        Err(mistake) => return field.report(mistake),
    };
    let before = keys.len();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match values::authorized_key(line) {
            Ok(key) => keys.push(key),
            Err(mistake) => field.report(Mistake {
                wrong: format!("{}, line {}: {}", path.display(), number + 1, mistake.wrong),
                ..mistake
            }),
        }
    }
    if keys.len() == before && if_empty == IfEmpty::Mistake {
        let wrong = format!("{} holds no usable key", path.display());
        field.report(Mistake::new(wrong, "Put the lines of OpenSSH .pub files there."));
    }
}

fn source(
    mut section: Section<'_>,
    tenant: &str,
    ids: &mut Unique<u32>,
    names: &mut Unique<String>,
) -> SourceDraft {
    let id = id(&mut section, ids);
    let name = section
        .required("name", "Write a name for people, for example name = \"pbx\".")
        .and_then(|field| name(&field, names))
        .unwrap_or_default();
    let plugin_field = section.required("plugin", "Write the plugin's name, for example plugin = \"wazo\".");
    let plugin = plugin_field.as_ref().and_then(|field| field.parsed("plugin = \"wazo\"", plugin_name));
    let isolation_field = section.field("isolation");
    let in_process = isolation_field.as_ref().and_then(|field| {
        field.parsed("isolation = \"in-process\"", |text| match text {
            "in-process" => Ok(true),
            "process" => Err(Mistake::new(
                "plugins can't run in a process of their own yet",
                "Write \"in-process\" if you trust the plugin as you trust the gateway.",
            )),
            _ => values::choice(text, &[("in-process", true)]),
        })
    });
    let sha256_field = section.field("sha256");
    let sha256 = sha256_field.as_ref().and_then(|field| field.parsed("sha256 = \"…\"", values::sha256));
    let metadata_wait = read::duration(&mut section, "metadata_wait", DAY, (Duration::ZERO, 90 * DAY));
    let unmatched = section.field("unmatched").and_then(|field| {
        let choices = [("orphan", Unmatched::Orphan), ("publish", Unmatched::Publish)];
        field.parsed("unmatched = \"orphan\"", |text| values::choice(text, &choices))
    });
    let (short, minute) = (Duration::from_millis(100), Duration::from_secs(60));
    let scan_interval = read::duration(&mut section, "scan_interval", minute, (short, 7 * DAY));
    let call_timeout = read::duration(&mut section, "call_timeout", minute / 2, (short, 60 * minute));
    let settings_field = section.field("settings");
    let settings = match &settings_field {
        None => Some(serde_json::Value::Object(serde_json::Map::new())),
        Some(field) if field.value().is_table() => {
            values::json(field.value()).map_err(|mistake| field.report(mistake)).ok()
        }
        Some(field) => {
            // Says what was expected.
            let _ = field.section();
            None
        }
    };
    let draft = SourceDraft {
        tenant: tenant.to_owned(),
        whole: section.place(),
        plugin: plugin_field.map(|field| field.mention(plugin.is_some())),
        isolation: isolation_field.map(|field| field.mention(in_process.is_some())),
        sha256: sha256_field.map(|field| field.mention(sha256.is_some())),
        settings: settings_field.map(|field| (field.mention(settings.is_some()), field.tree())),
        source: Source {
            id,
            name,
            plugin: plugin.unwrap_or_default(),
            in_process: in_process.unwrap_or(false),
            sha256,
            metadata_wait,
            unmatched: unmatched.unwrap_or(Unmatched::Orphan),
            scan_interval,
            call_timeout,
            settings: settings.unwrap_or_default(),
        },
    };
    section.finish();
    draft
}

fn plugin_name(text: &str) -> Result<String, Mistake> {
    if Path::new(text).is_absolute() && text.ends_with(".so") && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if !text.is_empty() && text.len() <= 63 && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        format!("\"{}\" is no plugin", values::shortened(text)),
        "Write its name (a-z, 0-9, '_', '-'), or the absolute path of a .so in a plugin folder.",
    ))
}

fn id(section: &mut Section<'_>, ids: &mut Unique<u32>) -> u32 {
    section
        .required("id", "Write a number that nothing else here has; it must never change.")
        .and_then(|field| checked_id(&field, ids))
        .unwrap_or_default()
}

fn checked_id(field: &Field<'_>, ids: &mut Unique<u32>) -> Option<u32> {
    let id = u32::try_from(field.integer("id = 1", 1, u64::from(u32::MAX))?).ok()?;
    ids.check(field, id, &format!("the id {id}"));
    Some(id)
}

fn name(field: &Field<'_>, names: &mut Unique<String>) -> Option<String> {
    let name = field.parsed("name = \"acme\"", values::name)?;
    names.check(field, name.clone(), &format!("the name {name}"));
    Some(name)
}
