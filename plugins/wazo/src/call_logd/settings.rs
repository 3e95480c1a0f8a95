//! What an operator sets of wazo-call-logd and wazo-auth.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recgate_plugin_api::Error;
use recgate_plugin_common::settings::{self, invalid};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Uri;
use ureq::http::uri::Scheme;

use crate::names::recording_uuid;

/// Seconds between two polls for new records, unless configured.
const POLL_S: u64 = 60;
const POLL_MAX_S: u64 = 3600;
/// Days back in which records are looked at again for corrections.
const LOOKBACK_DAYS: u32 = 2;
const LOOKBACK_MAX_DAYS: u32 = 366;
/// Seconds after which those days are looked at again, and after which everything is.
const RECHECK_S: u64 = 3600;
const SWEEP_S: u64 = 24 * 3600;
const AGAIN_MAX_S: u64 = 30 * 24 * 3600;
/// Records that are asked for at once.
const PAGE: u32 = 500;
const PAGE_MAX: u32 = 1000;
/// Seconds for a page of records, with the token that it needs.
const TIMEOUT_S: u64 = 10;
const TIMEOUT_MAX_S: u64 = 300;

/// Where the records of one tenant are asked for, and as whom.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallLogdSettings {
    pub(super) url: String,
    pub(super) auth_url: String,
    tenant_uuid: String,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    refresh_token_file: Option<PathBuf>,
    /// The only authorities that are trusted, PEM; those of the system without it.
    #[serde(default)]
    pub(super) ca_file: Option<PathBuf>,
    #[serde(default)]
    allow_plain_http: bool,
    #[serde(default = "default_poll")]
    poll_interval: u64,
    #[serde(default = "default_lookback")]
    lookback_days: u32,
    #[serde(default = "default_recheck")]
    recheck_interval: u64,
    #[serde(default = "default_sweep")]
    sweep_interval: u64,
    #[serde(default = "default_page")]
    pub(super) page_size: u32,
    #[serde(default = "default_timeout")]
    timeout: u64,
}

/// How wazo-auth is asked for a token. The secret itself is read each time, so that a new one counts at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Credentials<'s> {
    /// A user and its password.
    Password { user: &'s str, file: &'s Path },
    /// A refresh token, which belongs to a client.
    RefreshToken { client_id: &'s str, file: &'s Path },
}

impl CallLogdSettings {
    /// The tenant's uuid, lower case.
    pub(super) fn tenant_uuid(&self) -> String {
        self.tenant_uuid.to_ascii_lowercase()
    }

    /// The one kind of credentials that is configured: [`Self::check`] has seen to that.
    pub(super) fn credentials(&self) -> Option<Credentials<'_>> {
        match (&self.user, &self.password_file, &self.client_id, &self.refresh_token_file) {
            (Some(user), Some(file), None, None) => Some(Credentials::Password { user, file }),
            (None, None, Some(client_id), Some(file)) => Some(Credentials::RefreshToken { client_id, file }),
            _ => None,
        }
    }

    pub(super) fn poll_ms(&self) -> i64 {
        milliseconds(self.poll_interval)
    }

    pub(super) fn lookback_ms(&self) -> i64 {
        milliseconds(u64::from(self.lookback_days).saturating_mul(24 * 3600))
    }

    pub(super) fn recheck_ms(&self) -> i64 {
        milliseconds(self.recheck_interval)
    }

    pub(super) fn sweep_ms(&self) -> i64 {
        milliseconds(self.sweep_interval)
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Whether any of the addresses needs TLS.
    pub(super) fn needs_tls(&self) -> bool {
        [&self.url, &self.auth_url].iter().any(|url| !url.starts_with("http://"))
    }

    /// Whether the settings fit together; puts addresses into the form in which they are used.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        for (key, url) in [("url", &mut self.url), ("auth_url", &mut self.auth_url)] {
            *url = address(key, url, self.allow_plain_http)?;
        }
        if recording_uuid(&self.tenant_uuid).is_none() {
            return Err(invalid(
                "call_logd.tenant_uuid: it is no uuid such as 2c34c282-433e-4bb8-8d56-fec14ff7e1e9",
            ));
        }
        if self.credentials().is_none() {
            return Err(invalid(
                "call_logd: needs either user and password_file, or client_id and refresh_token_file",
            ));
        }
        // HTTP's Basic scheme ends the user at the first colon; control characters would end the header.
        if self
            .user
            .as_ref()
            .is_some_and(|user| user.is_empty() || user.contains(|c: char| c == ':' || c.is_control()))
        {
            return Err(invalid("call_logd.user: is empty or has a colon or control character"));
        }
        if self.client_id.as_ref().is_some_and(String::is_empty) {
            return Err(invalid("call_logd.client_id: is empty"));
        }
        for (key, path) in [
            ("call_logd.password_file", &self.password_file),
            ("call_logd.refresh_token_file", &self.refresh_token_file),
            ("call_logd.ca_file", &self.ca_file),
        ] {
            if let Some(path) = path {
                settings::check_absolute(key, path)?;
            }
        }
        for (key, value, most) in [
            ("call_logd.poll_interval", self.poll_interval, POLL_MAX_S),
            ("call_logd.lookback_days", self.lookback_days.into(), LOOKBACK_MAX_DAYS.into()),
            ("call_logd.recheck_interval", self.recheck_interval, AGAIN_MAX_S),
            ("call_logd.sweep_interval", self.sweep_interval, AGAIN_MAX_S),
            ("call_logd.page_size", self.page_size.into(), PAGE_MAX.into()),
            ("call_logd.timeout", self.timeout, TIMEOUT_MAX_S),
        ] {
            settings::check_within(key, value, 1..=most, "")?;
        }
        Ok(())
    }
}

/// An address without the slash at its end. A message shows none that may hold a password.
fn address(key: &str, url: &str, allow_plain_http: bool) -> Result<String, Error> {
    let wrong = |what: &str| Err(invalid(format!("call_logd.{key}: {what}")));
    let trimmed = url.trim_end_matches('/');
    let Ok(uri) = trimmed.parse::<Uri>() else {
        return wrong("is no address such as https://pbx.example/api/call-logd/1.0");
    };
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return wrong("is no address that begins with https://");
    };
    if authority.as_str().contains('@') {
        return wrong("has a user or password in it; use user and password_file");
    }
    if trimmed.contains(['?', '#']) {
        return wrong("has parameters or a fragment; leave them out");
    }
    if *scheme == Scheme::HTTP {
        if !allow_plain_http && !is_loopback(authority.host()) {
            return wrong(
                "is plain http to another machine, where anybody between can read the password; use https, or say \
                 allow_plain_http = true",
            );
        }
    } else if *scheme != Scheme::HTTPS {
        return wrong("begins with neither https:// nor http://");
    }
    Ok(trimmed.to_owned())
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn milliseconds(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// The schema of `call_logd`.
pub(crate) fn schema() -> Value {
    use settings::{path, text};

    let number = |what: &str, most: u64, default: u64| settings::number_or(default, what, 1..=most);
    let address = |what: &str| json!({"description": what, "type": "string", "pattern": "^https?://"});
    let mut schema = json!({
        "description": "The HTTP API of wazo-call-logd, asked for call data records. Needs user and password_file, or \
            client_id and refresh_token_file, and the ACL call-logd.cdr.read.",
        "type": "object",
        "additionalProperties": false,
        "required": ["url", "auth_url", "tenant_uuid"],
        "properties": {
            "url": address("Of wazo-call-logd, for example https://pbx.example/api/call-logd/1.0."),
            "auth_url": address("Of wazo-auth, for example https://pbx.example/api/auth/0.1."),
            "tenant_uuid": {
                "description": "The tenant whose records are asked for; others' are not used.",
                "type": "string",
                "pattern": "^[0-9A-Fa-f-]{36}$"
            },
            "user": text("Who logs in to wazo-auth."),
            "password_file": path("Absolute path of a file with that user's password, which others may not read."),
            "client_id": text("The client to which the refresh token was given."),
            "refresh_token_file":
                path("Absolute path of a file with a refresh token, which others may not read."),
            "ca_file": path("Absolute path of the authorities' certificates, PEM, that alone may vouch for the \
                addresses; without it the system's may."),
            "allow_plain_http": {
                "description": "Allows http:// to other machines, which shows the password to anybody between.",
                "type": "boolean",
                "default": false
            },
            "poll_interval": number("Seconds between two questions for new records, at least.", POLL_MAX_S, POLL_S),
            "lookback_days": number(
                "Days back in which records are looked at again, for corrections.",
                u64::from(LOOKBACK_MAX_DAYS),
                u64::from(LOOKBACK_DAYS)
            ),
            "recheck_interval": number("Seconds after which those days are looked at again.", AGAIN_MAX_S, RECHECK_S),
            "sweep_interval": number("Seconds after which all records are looked at again.", AGAIN_MAX_S, SWEEP_S),
            "page_size": number("Records in one answer.", u64::from(PAGE_MAX), u64::from(PAGE)),
            "timeout": number(
                "Seconds for one answer with the login that it needs. The source's call_timeout must be more than twice \
                    of it.",
                TIMEOUT_MAX_S,
                TIMEOUT_S
            )
        }
    });
    // An answer, and the one after a new login.
    if let Some(timeout) = schema.pointer_mut("/properties/timeout").and_then(Value::as_object_mut) {
        timeout.insert("x-recgate-times-in-call-timeout".to_owned(), json!(2));
    }
    schema
}

fn default_poll() -> u64 {
    POLL_S
}

fn default_lookback() -> u32 {
    LOOKBACK_DAYS
}

fn default_recheck() -> u64 {
    RECHECK_S
}

fn default_sweep() -> u64 {
    SWEEP_S
}

fn default_page() -> u32 {
    PAGE
}

fn default_timeout() -> u64 {
    TIMEOUT_S
}
