//! wazo-call-logd and wazo-auth as far as a reader of call data records meets them, on a free port of 127.0.0.1.
//!
//! It answers as the documentation and the source of wazo-call-logd 26.09 and wazo-auth say, including what one might not
//! expect: `limit=0` is no limit, unknown parameters are ignored, blocked calls are hidden, times without an offset are
//! taken for UTC, and the two services have two shapes of errors. It can be told to fail in many ways.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness fails its test by panicking"
)]

mod api;
mod server;
mod tls;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub use tls::Authority;

/// The tenant that a new stub has.
pub const TENANT: &str = "2c34c282-433e-4bb8-8d56-fec14ff7e1e9";
/// The user that it knows.
pub const USER: &str = "recgate";
/// That user's password.
pub const PASSWORD: &str = "pass:word-of-the-user";
/// The client of its refresh token.
pub const CLIENT_ID: &str = "recgate-client";
/// The refresh token.
pub const REFRESH_TOKEN: &str = "refresh-token-of-the-client";

/// A PBX's two services. Dropping it closes them.
#[derive(Debug)]
pub struct WazoStub {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
    server: Option<server::Server>,
    authority: Option<Authority>,
}

/// What the services hold, and how they misbehave.
#[derive(Debug)]
pub struct State {
    /// Records by id, in the shape of an item of `GET /cdr`.
    pub records: BTreeMap<u64, Value>,
    /// Tenants that the user may see; the first is its own.
    pub tenants: Vec<String>,
    /// The password that is taken.
    pub password: String,
    /// Whether the user has the ACL `call-logd.cdr.read`.
    pub may_read: bool,
    /// How long tokens live, whatever is asked for.
    pub token_life: Option<Duration>,
    /// How questions for tokens fail.
    pub auth_fault: Option<Fault>,
    /// How questions for records fail.
    pub cdr_fault: Option<Fault>,
    /// What was asked, oldest first.
    pub asked: Vec<Asked>,
    /// Tokens that are good, until then.
    pub tokens: BTreeMap<String, Instant>,
    next_token: u64,
}

/// A question and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path, as it was sent, without the part after `?`.
    pub path: String,
    /// The decoded parameters.
    pub query: BTreeMap<String, String>,
    /// The status of the answer.
    pub status: u16,
}

/// A way to fail.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// Answers that are right before it happens.
    pub after: u32,
    /// How often it happens; afterwards all is well.
    pub times: u32,
}

/// What happens instead of the right answer.
#[derive(Debug, Clone)]
pub enum FaultKind {
    /// A status, with these headers, and an error body of the service's own shape.
    Status(u16, Vec<(String, String)>),
    /// The right answer, so much later.
    Slow(Duration),
    /// The right answer, one byte in each of these.
    Trickle(Duration),
    /// The right header, and so many bytes of the body; then the connection ends.
    Cut(usize),
    /// These bytes as body, with status 200.
    Body(String),
    /// So many bytes of JSON that never ends.
    Huge(u64),
    /// These bytes instead of any HTTP.
    Raw(Vec<u8>),
    /// Records as if no parameter but `limit` had been given.
    IgnoreParameters,
}

impl FaultKind {
    /// This, always.
    pub fn always(self) -> Option<Fault> {
        Some(Fault { kind: self, after: 0, times: u32::MAX })
    }

    /// This, so many times.
    pub fn times(self, times: u32) -> Option<Fault> {
        Some(Fault { kind: self, after: 0, times })
    }

    /// This once, after so many right answers.
    pub fn once_after(self, after: u32) -> Option<Fault> {
        Some(Fault { kind: self, after, times: 1 })
    }
}

impl WazoStub {
    /// Services without records, over plain HTTP.
    pub fn start() -> Self {
        Self::new(None)
    }

    /// The same over TLS, with a certificate for `localhost` from an authority of its own.
    pub fn start_tls() -> Self {
        Self::new(Some(Authority::new()))
    }

    fn new(authority: Option<Authority>) -> Self {
        let state = State {
            records: BTreeMap::new(),
            tenants: vec![TENANT.to_owned()],
            password: PASSWORD.to_owned(),
            may_read: true,
            token_life: None,
            auth_fault: None,
            cdr_fault: None,
            asked: Vec::new(),
            tokens: BTreeMap::new(),
            next_token: 1,
        };
        let state = Arc::new(Mutex::new(state));
        let config = authority.as_ref().map(Authority::server_config);
        let server = server::Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&state), config);
        let scheme = if authority.is_some() { "https" } else { "http" };
        Self { address: server.address(), scheme, state, server: Some(server), authority }
    }

    /// The address of wazo-call-logd, as a public proxy has it.
    pub fn url(&self) -> String {
        format!("{}/api/call-logd/1.0", self.base())
    }

    /// The address of wazo-auth.
    pub fn auth_url(&self) -> String {
        format!("{}/api/auth/0.1", self.base())
    }

    fn base(&self) -> String {
        let host = if self.authority.is_some() { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    /// The certificate of the authority, PEM; of one that is served over TLS.
    pub fn authority_pem(&self) -> String {
        self.authority.as_ref().unwrap().pem()
    }

    /// The services' state, to look at and to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a record, in place of another with its id.
    pub fn put(&self, record: Value) {
        let id = record["id"].as_u64().unwrap();
        self.state().records.insert(id, record);
    }

    /// Deletes the media of a recording, as `DELETE …/media` does: its row stays.
    pub fn delete_recording(&self, id: u64, uuid: &str) {
        let mut state = self.state();
        let recordings = state.records.get_mut(&id).unwrap()["recordings"].as_array_mut().unwrap();
        let recording = recordings.iter_mut().find(|recording| recording["uuid"] == uuid).unwrap();
        recording["deleted"] = json!(true);
    }

    /// What was asked since the last call of this.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }

    /// Nobody listens any more; running connections are cut.
    pub fn go_down(&mut self) {
        self.server = None;
    }

    /// Listens again, at the same address.
    pub fn come_up(&mut self) {
        self.server = None;
        let config = self.authority.as_ref().map(Authority::server_config);
        self.server = Some(server::Server::start(self.address, Arc::clone(&self.state), config));
    }

    /// No token is good any more.
    pub fn expire_tokens(&self) {
        self.state().tokens.clear();
    }
}
