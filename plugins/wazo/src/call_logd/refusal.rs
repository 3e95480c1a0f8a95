//! What answers other than the one that was hoped for mean, in words for the operator.
//!
//! wazo-call-logd says `message`, `error_id` and `details`; wazo-auth says `reason`, a list of texts; a proxy before
//! them says anything. Whoever answers may repeat what it was sent, so secrets are taken out of what is passed on.

use recgate_plugin_api::{Error, ErrorCode};
use serde_json::Value;

use super::http::Answer;

/// Bytes of an answer that are looked at for its reason, and characters of the reason that are passed on.
const LOOKED_AT: usize = 64 * 1024;
const PASSED_ON: usize = 200;

/// The error of an answer that is not the one hoped for. `whom` is the setting with the address; what is known of
/// the cause of a 401 or 403 is `denied`.
pub(super) fn of(whom: &str, answer: &Answer, denied: &str, secrets: &[&str]) -> Error {
    let status = answer.status;
    let (code, what) = match status {
        401 | 403 => (ErrorCode::Permission, denied),
        400 | 422 => (ErrorCode::Invalid, "the request was not taken"),
        404 => (ErrorCode::Unavailable, "there is no such API; check the address"),
        429 => (ErrorCode::RateLimited, "asked too often; the next question waits"),
        300..=399 => (
            ErrorCode::Unavailable,
            "it sends on to another address, which is not followed; put the address that answers into the setting",
        ),
        502..=504 => (ErrorCode::Unavailable, "the service is down behind its proxy, or says so"),
        500..=599 => (ErrorCode::Unavailable, "the service failed; its own log says why"),
        _ => (ErrorCode::Corrupt, "this is not how the API answers; check the address"),
    };
    let said = said(&answer.body, secrets).map(|said| format!(", {said:?}")).unwrap_or_default();
    let mut error = Error::new(code, format!("call_logd.{whom}: {what} (status {status}{said})"));
    error.retry_after_ms = answer.retry_after_ms;
    error
}

/// The reason in an answer's own words.
fn said(body: &[u8], secrets: &[&str]) -> Option<String> {
    if body.len() > LOOKED_AT {
        return None;
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    let reason = body.pointer("/details/reason").or_else(|| body.get("reason"));
    let texts = [body.get("message"), reason]
        .into_iter()
        .flatten()
        .filter_map(|value| value.as_str().or_else(|| value.get(0).and_then(Value::as_str)))
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    if texts.is_empty() {
        return None;
    }
    let mut texts = hide(texts, secrets);
    texts.retain(|c| !c.is_control());
    Some(texts.chars().take(PASSED_ON).collect())
}

/// The text without the secrets.
fn hide(mut text: String, secrets: &[&str]) -> String {
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[hidden]");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after_ms: 3000, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn both_shapes_of_errors_are_told_and_secrets_are_not() {
        let call_logd = r#"{"message": "Unauthorized", "error_id": "unauthorized", "timestamp": 1.5,
            "details": {"reason": "missing_permission_or_invalid_tenant"}}"#;
        let error = of("url", &answer(401, call_logd), "the token was refused", &[]);
        assert_eq!(error.code, ErrorCode::Permission);
        assert_eq!(error.retry_after_ms, 3000);
        for part in ["the token was refused", "401", "Unauthorized", "missing_permission"] {
            assert!(error.message.contains(part), "{}", error.message);
        }

        let auth = r#"{"reason": ["Bad\n hunter2"], "timestamp": [1.5], "status_code": 401}"#;
        let error = of("auth_url", &answer(401, auth), "refused", &["", "hunter2"]);
        assert!(error.message.contains("\"Bad [hidden]\""), "{}", error.message);
        assert!(!error.message.contains("hunter2"));
    }

    #[test]
    fn nonsense_is_an_error_of_bounded_length() {
        for body in ["", "<html>", "[]", "{\"message\": 7}", "{\"reason\": []}", "\u{0}"] {
            let error = of("url", &answer(500, body), "", &[]);
            assert_eq!(error.code, ErrorCode::Unavailable);
            assert!(error.message.ends_with("(status 500)"), "{}", error.message);
        }
        let long = format!("{{\"message\": {:?}}}", "x".repeat(50_000));
        assert!(of("url", &answer(429, &long), "", &[]).message.len() < 500);
        let longer = format!("{{\"message\": {:?}}}", "x".repeat(100_000));
        assert!(of("url", &answer(429, &longer), "", &[]).message.len() < 200);
    }

    #[test]
    fn statuses_become_codes() {
        for (status, code) in [
            (202, ErrorCode::Corrupt),
            (301, ErrorCode::Unavailable),
            (400, ErrorCode::Invalid),
            (403, ErrorCode::Permission),
            (404, ErrorCode::Unavailable),
            (418, ErrorCode::Corrupt),
            (429, ErrorCode::RateLimited),
            (503, ErrorCode::Unavailable),
        ] {
            assert_eq!(of("url", &answer(status, ""), "", &[]).code, code, "{status}");
        }
    }
}
