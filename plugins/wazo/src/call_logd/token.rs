//! The token of wazo-auth: asked for when it is needed, renewed before it ends, given back at the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::NaiveDateTime;
use recgate_plugin_api::{Call, Error, ErrorCode};
use serde_json::{Value, json};

use super::files::secret;
use super::http::{Answer, Http, Method, Request};
use super::refusal;
use super::settings::{CallLogdSettings, Credentials};

/// Seconds that a token is asked for: what wazo-auth gives when it isn't told.
const LIFETIME_S: u64 = 7200;
/// Bytes that a token may have.
const TOKEN_MAX: usize = 512;
/// How long giving a token back may take.
const REVOKE: Duration = Duration::from_secs(2);

/// The token of one instance.
pub(super) struct Tokens {
    settings: Arc<CallLogdSettings>,
    held: Mutex<Option<Held>>,
}

struct Held {
    token: String,
    renew_at: Instant,
}

impl Tokens {
    pub(super) fn new(settings: Arc<CallLogdSettings>) -> Self {
        Self { settings, held: Mutex::new(None) }
    }

    /// A token that is good for now.
    pub(super) fn token(
        &self,
        http: &Http,
        call: &dyn Call,
        now_ms: i64,
        deadline: Instant,
    ) -> Result<String, Error> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = held.as_ref().filter(|known| Instant::now() < known.renew_at) {
            return Ok(known.token.clone());
        }
        let new = self.ask(http, call, now_ms, deadline)?;
        Ok(held.insert(new).token.clone())
    }

    /// Drops a token that was refused, so that the next question is asked with a new one.
    pub(super) fn forget(&self, refused: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|known| known.token == refused) {
            *held = None;
        }
    }

    /// Gives the token back. Where that fails it ends by itself.
    pub(super) fn revoke(&self, http: &Http) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Held { token, .. }) = held else { return };
        let url = format!("{}/token/{token}", self.settings.auth_url);
        let deadline = Instant::now() + REVOKE.min(self.settings.timeout());
        let request =
            Request { setting: "auth_url", method: Method::Delete, url: &url, headers: &[], deadline };
        // Its errors are nobody's business any more, and the address has the token in it.
        drop(http.exchange(&Uncancelled, 0, &request));
    }

    fn ask(&self, http: &Http, call: &dyn Call, now_ms: i64, deadline: Instant) -> Result<Held, Error> {
        let Some(credentials) = self.settings.credentials() else {
            return Err(Error::new(ErrorCode::Invalid, "call_logd: there are no credentials"));
        };
        let mut body = json!({"backend": "wazo_user", "expiration": LIFETIME_S});
        let (secret, basic, denied) = match credentials {
            Credentials::Password { user, file } => {
                let password = secret(file, "password_file")?;
                let basic = BASE64.encode(format!("{user}:{password}"));
                let denied = format!(
                    "wazo-auth refused user {user:?} with the password in {file:?}; check call_logd.user and that file"
                );
                (password, Some(basic), denied)
            }
            Credentials::RefreshToken { client_id, file } => {
                let refresh = secret(file, "refresh_token_file")?;
                if let Some(keys) = body.as_object_mut() {
                    keys.insert("access_type".to_owned(), json!("online"));
                    keys.insert("client_id".to_owned(), json!(client_id));
                    keys.insert("refresh_token".to_owned(), json!(refresh));
                }
                let denied = format!(
                    "wazo-auth refused client {client_id:?} with the refresh token in {file:?}; check \
                     call_logd.client_id and that the token was not revoked"
                );
                (refresh, None, denied)
            }
        };
        let body = body.to_string();
        let url = format!("{}/token", self.settings.auth_url);
        let authorization = basic.as_ref().map(|basic| format!("Basic {basic}"));
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(authorization.as_deref().map(|value| ("Authorization", value)));
        let request = Request {
            setting: "auth_url",
            method: Method::Post(body.as_bytes()),
            url: &url,
            headers: &headers,
            deadline,
        };
        let asked_at = Instant::now();
        let answer = http.exchange(call, now_ms, &request)?;
        if answer.status != 200 {
            let secrets = [secret.as_str(), basic.as_deref().unwrap_or_default()];
            return Err(refusal::of("auth_url", &answer, &denied, &secrets));
        }
        held(&answer, asked_at).ok_or_else(|| {
            Error::new(
                ErrorCode::Corrupt,
                "call_logd.auth_url: the answer has no token; does this address belong to wazo-auth?",
            )
        })
    }
}

/// The token in an answer. It is renewed after four fifths of its life: by the differences of wazo-auth's own times, so
/// that a PBX whose clock is wrong doesn't matter.
fn held(answer: &Answer, asked_at: Instant) -> Option<Held> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let data = body.get("data")?;
    let token = data.get("token")?.as_str()?;
    // It becomes a header and part of an address.
    let well_formed = (1..=TOKEN_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    if !well_formed {
        return None;
    }
    let time = |key: &str| {
        let text = data.get(key)?.as_str()?;
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()
    };
    let life_ms = match (time("utc_issued_at"), time("utc_expires_at")) {
        (Some(from), Some(to)) => {
            u64::try_from(to.signed_duration_since(from).num_milliseconds()).unwrap_or(0)
        }
        _ => LIFETIME_S * 1000,
    };
    let life = Duration::from_millis(life_ms.min(LIFETIME_S * 1000) / 5 * 4);
    Some(Held { token: token.to_owned(), renew_at: asked_at.checked_add(life).unwrap_or(asked_at) })
}

struct Uncancelled;

impl Call for Uncancelled {
    fn is_cancelled(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn life(data: Value) -> Option<u64> {
        let body = json!({"data": data}).to_string().into_bytes();
        let now = Instant::now();
        let held = held(&Answer { status: 200, retry_after_ms: 0, body }, now)?;
        Some(held.renew_at.duration_since(now).as_secs())
    }

    #[test]
    fn a_token_is_renewed_after_four_fifths_of_its_life() {
        let times =
            |from: &str, to: &str| json!({"token": "a-b", "utc_issued_at": from, "utc_expires_at": to});
        assert_eq!(life(times("2026-05-05T10:00:00.123456", "2026-05-05T10:01:40.123456")), Some(80));
        assert_eq!(life(times("2026-05-05T10:00:00", "2026-05-05T10:00:00")), Some(0));
        assert_eq!(life(times("2026-05-05T10:00:00", "2026-05-05T09:00:00")), Some(0));
        assert_eq!(life(times("2026-05-05T10:00:00", "2029-05-05T10:00:00")), Some(5760));
        assert_eq!(life(times("nonsense", "2029-05-05T10:00:00")), Some(5760));
        assert_eq!(life(json!({"token": "a-b"})), Some(5760));
    }

    #[test]
    fn a_token_that_could_end_a_header_or_an_address_is_none() {
        for token in [
            json!(""),
            json!("a b"),
            json!("a\r\nX: y"),
            json!("a/../b"),
            json!("a?b"),
            json!("é"),
            json!(7),
            Value::Null,
        ] {
            assert_eq!(life(json!({"token": token})), None, "{token}");
        }
        assert_eq!(life(json!({"token": "x".repeat(513)})), None);
        assert_eq!(life(Value::Null), None);
    }
}
