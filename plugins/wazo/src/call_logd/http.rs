//! One HTTP exchange at a time, bounded in time and size.
//!
//! The client is ureq: it blocks, as calls of a plugin do, so that no runtime with threads of its own has to live in
//! the gateway's process; it speaks TLS by rustls, here with the cryptography that the rest of the workspace uses. It
//! follows no redirect (a token must not go where an answer says) and takes no proxy from the environment.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::DateTime;
use recgate_plugin_api::{Call, Error, ErrorCode};
use ureq::Agent;
use ureq::http::header::RETRY_AFTER;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::files;
use super::settings::CallLogdSettings;

/// Bytes that an answer may have: 16 KiB for each of the 1000 records that a page can have.
const BODY_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a file of certificates.
const CA_MAX: u64 = 4 * 1024 * 1024;
/// How long connecting may take of the time for the whole exchange.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest wait that an answer can ask for.
const RETRY_AFTER_MAX_MS: u64 = 60 * 60 * 1000;

/// A client of one PBX.
pub(super) struct Http {
    settings: Arc<CallLogdSettings>,
    /// Made when it is first needed, because certificates may not be there before.
    agent: Mutex<Option<Agent>>,
}

/// What is asked.
pub(super) struct Request<'r> {
    /// Whom: the setting with the address, for messages.
    pub(super) setting: &'static str,
    pub(super) method: Method<'r>,
    /// The whole address.
    pub(super) url: &'r str,
    pub(super) headers: &'r [(&'r str, &'r str)],
    /// When the answer has to be there.
    pub(super) deadline: Instant,
}

pub(super) enum Method<'r> {
    Get,
    Post(&'r [u8]),
    Delete,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// 0 where the answer doesn't say.
    pub(super) retry_after_ms: u64,
    pub(super) body: Vec<u8>,
}

impl Http {
    pub(super) fn new(settings: Arc<CallLogdSettings>) -> Self {
        Self { settings, agent: Mutex::new(None) }
    }

    /// Asks and reads the whole answer.
    pub(super) fn exchange(
        &self,
        call: &dyn Call,
        now_ms: i64,
        request: &Request<'_>,
    ) -> Result<Answer, Error> {
        if call.is_cancelled() {
            return Err(crate::cancelled());
        }
        let Some(left) =
            request.deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        else {
            return Err(too_slow(request.setting));
        };
        let agent = self.agent()?;
        let response = match request.method {
            Method::Get => limited(with_headers(agent.get(request.url), request.headers), left).call(),
            Method::Post(body) => {
                limited(with_headers(agent.post(request.url), request.headers), left).send(body)
            }
            Method::Delete => limited(with_headers(agent.delete(request.url), request.headers), left).call(),
        };
        let failed = |error: &ureq::Error| unreachable(request.setting, error);
        let response = response.map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let retry_after_ms = retry_after(response.headers(), now_ms);
        let body = read(call, request.setting, response)?;
        Ok(Answer { status, retry_after_ms, body })
    }

    fn agent(&self) -> Result<Agent, Error> {
        let mut made = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = &*made {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("recgate-wazo/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(2);
        if self.settings.needs_tls() {
            config = config.tls_config(
                TlsConfig::builder()
                    .provider(TlsProvider::Rustls)
                    .unversioned_rustls_crypto_provider(Arc::new(
                        rustls::crypto::aws_lc_rs::default_provider(),
                    ))
                    .root_certs(RootCerts::Specific(Arc::new(self.authorities()?)))
                    .build(),
            );
        }
        Ok(made.insert(Agent::new_with_config(config.build())).clone())
    }

    fn authorities(&self) -> Result<Vec<Certificate<'static>>, Error> {
        let Some(path) = &self.settings.ca_file else {
            let system = rustls_native_certs::load_native_certs();
            let found: Vec<_> = system
                .certs
                .iter()
                .map(|certificate| Certificate::from_der(certificate).to_owned())
                .collect();
            if found.is_empty() {
                return Err(unavailable(
                    "call_logd: the system has no certificates of authorities; install ca-certificates, or set ca_file",
                ));
            }
            return Ok(found);
        };
        let failed = |what: String| unavailable(format!("call_logd.ca_file: {path:?} {what}"));
        let pem = files::content(path, "ca_file", CA_MAX)?;
        let mut found = Vec::new();
        for item in parse_pem(&pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => found.push(certificate),
                Ok(_) => {}
                Err(error) => return Err(failed(format!("is no PEM: {error}"))),
            }
        }
        if found.is_empty() {
            return Err(failed("has no certificate in PEM form".to_owned()));
        }
        Ok(found)
    }
}

fn with_headers<B>(
    mut builder: ureq::RequestBuilder<B>,
    headers: &[(&str, &str)],
) -> ureq::RequestBuilder<B> {
    builder = builder.header("Accept", "application/json");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder
}

fn limited<B>(builder: ureq::RequestBuilder<B>, left: Duration) -> ureq::RequestBuilder<B> {
    builder.config().timeout_global(Some(left)).timeout_connect(Some(left.min(CONNECT))).build()
}

fn read(call: &dyn Call, setting: &str, response: Response<ureq::Body>) -> Result<Vec<u8>, Error> {
    let mut reader = response.into_body().into_reader();
    let (mut body, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        if call.is_cancelled() {
            return Err(crate::cancelled());
        }
        let count = match reader.read(&mut chunk) {
            Ok(0) => return Ok(body),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let error = ureq::Error::from(error);
                return Err(match error {
                    ureq::Error::Timeout(_) => unreachable(setting, &error),
                    _ => unavailable(format!(
                        "call_logd.{setting}: the answer was cut off: {}",
                        reason(&error)
                    )),
                });
            }
        };
        if body.len().saturating_add(count) > BODY_MAX {
            let message =
                format!("call_logd.{setting}: the answer has more than {BODY_MAX} bytes; lower page_size");
            return Err(Error::new(ErrorCode::TooLarge, message));
        }
        body.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}

/// Milliseconds, from seconds or an HTTP date; 0 where there is none.
fn retry_after(headers: &HeaderMap, now_ms: i64) -> u64 {
    let Some(text) = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim) else {
        return 0;
    };
    let ms = match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1000),
        Err(_) => DateTime::parse_from_rfc2822(text)
            .map_or(0, |at| u64::try_from(at.timestamp_millis().saturating_sub(now_ms)).unwrap_or(0)),
    };
    ms.min(RETRY_AFTER_MAX_MS)
}

fn unreachable(setting: &str, error: &ureq::Error) -> Error {
    match error {
        ureq::Error::Timeout(_) => too_slow(setting),
        ureq::Error::HostNotFound => {
            unavailable(format!("call_logd.{setting}: the name of its host can't be resolved; check it"))
        }
        error if is_tls(error) => unavailable(format!(
            "call_logd.{setting}: no TLS connection: {}; check the certificate, its name, and ca_file",
            reason(error)
        )),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => Error::new(
            ErrorCode::Corrupt,
            format!("call_logd.{setting}: what answers there speaks no HTTP: {}", reason(error)),
        ),
        _ => unavailable(format!("call_logd.{setting}: no answer: {}", reason(error))),
    }
}

fn is_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}

/// What is wrong, from kinds of errors that repeat nothing of the request: its address and headers have secrets.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Rustls(error) => error.to_string(),
        ureq::Error::Tls(error) => (*error).to_owned(),
        ureq::Error::Protocol(error) => error.to_string(),
        ureq::Error::LargeResponseHeader(..) => "its header is too large".to_owned(),
        _ => "the request failed".to_owned(),
    }
}

fn too_slow(setting: &str) -> Error {
    Error::new(
        ErrorCode::Timeout,
        format!("call_logd.{setting}: no whole answer within timeout; is the PBX overloaded, or cut off?"),
    )
}

pub(super) fn unavailable(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::Unavailable, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_as_a_date_and_is_bounded() {
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            // 1994-11-06T08:49:00Z
            retry_after(&headers, 784_111_740_000)
        };
        assert_eq!(asked("120"), 120_000);
        assert_eq!(asked(" 0 "), 0);
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), 37_000);
        assert_eq!(asked("Sun, 06 Nov 1994 08:48:37 GMT"), 0);
        assert_eq!(asked("Sat, 06 Nov 2094 08:48:37 GMT"), RETRY_AFTER_MAX_MS);
        assert_eq!(asked("99999999999999999"), RETRY_AFTER_MAX_MS);
        for nonsense in ["-5", "soon", "", "1.5"] {
            assert_eq!(asked(nonsense), 0, "{nonsense}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), 0), 0);
    }
}
