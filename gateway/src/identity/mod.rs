//! Tenants, users, roles; checks of passwords, keys and certificates.
//!
//! Who may log in comes from the configuration and can be replaced while the gateway runs. A successful check gives a
//! [`Login`], which a door keeps for the session: [`Login::account`] says before each operation what the role is
//! *now*, and [`Login::ended`] wakes when the credential that opened the session is gone.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use russh::keys::{Certificate, HashAlg, PublicKey, ssh_key::public::KeyData};
use tokio::sync::watch;

use crate::config::{Limits, Tenant, Throttle};

pub mod admission;
mod certificate;
pub mod entrance;
mod open_files;
mod origin;
mod pace;
mod password;
mod roster;
mod table;
pub mod throttle;
mod turns;

pub use open_files::{OpenFilePermit, TooManyOpenFiles, descriptors_needed};
pub use origin::Origin;
pub use pace::{Pace, SessionPermit, TooManySessions};
pub use password::{HashError, hash_password, parse_password_hash};

use entrance::Entrance;
use open_files::OpenFiles;
use password::{Outcome, Passwords};
use roster::Roster;

/// Who is logged in. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The tenant's immutable id.
    pub tenant: u32,
    /// The user's immutable id within the tenant.
    pub user: u32,
    /// What was typed: `tenant` or `tenant/user`.
    pub login: Arc<str>,
    /// What the user may do.
    pub role: Role,
}

/// What a user may see and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads the indexes and published recordings.
    Downloader,
    /// Also sees orphans.
    Manager,
    /// Also deletes what no lock keeps.
    Administrator,
    /// Reads all, and the audit log.
    Auditor,
}

/// Who may log in, and the checks of what they show.
#[derive(Debug)]
pub struct Identity {
    roster: watch::Sender<Arc<Roster>>,
    passwords: Passwords,
    limits: pace::Limits,
    entrance: Arc<Entrance>,
    open_files: OpenFiles,
    /// Two reloads at once must not interleave.
    replacing: Mutex<()>,
}

impl Identity {
    /// Takes the users and limits of a configuration.
    ///
    /// # Errors
    /// A password hash or a key that can't be read, or a login that two users share; the message names the login.
    pub fn new(tenants: &[Tenant], limits: &Limits, throttle: &Throttle) -> Result<Self, IdentityError> {
        let roster = Arc::new(Roster::new(tenants)?);
        Ok(Self {
            roster: watch::Sender::new(roster),
            limits: pace::Limits::new(tenants),
            passwords: Passwords::default(),
            entrance: Arc::new(Entrance::new(limits, throttle)),
            open_files: OpenFiles::new(limits),
            replacing: Mutex::new(()),
        })
    }

    #[cfg(test)]
    pub(crate) fn at_defaults(tenants: &[Tenant]) -> Result<Self, IdentityError> {
        Self::new(tenants, &Limits::default(), &Throttle::default())
    }

    /// Takes the users of a reloaded configuration. Sessions whose user or credential is gone end; roles count from
    /// the next operation on, limits at once.
    ///
    /// # Errors
    /// As [`Identity::new`]; then the users from before stay.
    pub fn replace(&self, tenants: &[Tenant]) -> Result<(), IdentityError> {
        let roster = Arc::new(Roster::new(tenants)?);
        let _one_at_a_time = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        self.roster.send_replace(roster);
        self.limits.replace(tenants);
        Ok(())
    }

    /// Takes a reloaded configuration's limits. Sessions stay, and what is remembered of addresses.
    pub fn configure(&self, limits: &Limits, throttle: &Throttle) {
        self.entrance.configure(limits, throttle);
        self.open_files.configure(limits);
    }

    /// Counts a file that somebody opens, until the permit is dropped.
    ///
    /// # Errors
    /// [`TooManyOpenFiles`], of the tenant or in all.
    pub fn open_file(&self, account: &Account) -> Result<OpenFilePermit, TooManyOpenFiles> {
        self.open_files.take(account.tenant)
    }

    /// Who may connect, and how late failed logins are answered.
    pub fn entrance(&self) -> &Arc<Entrance> {
        &self.entrance
    }

    /// How many password checks run, and how many wait for their turn.
    pub fn password_checks(&self) -> (usize, usize) {
        self.passwords.counts()
    }

    /// Checks a password. Takes as long for a login that doesn't exist as for one that does.
    ///
    /// # Errors
    /// [`LoginRefused`]; a door answers the client the same whichever it is.
    pub async fn check_password(
        &self,
        proofs: &mut Proofs,
        from: IpAddr,
        login: &str,
        password: &str,
    ) -> Result<Step, LoginRefused> {
        proofs.begin(login);
        let roster = self.current();
        let (throttle, now, tenant) = (self.entrance.throttle(), Instant::now(), roster.tenant_of(login));
        let wait = throttle.may_check(from, tenant, now).map_err(|_| LoginRefused::Throttled)?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let spared = throttle.is_spared(from, now);
        let found = roster.find(login);
        let hash = found.and_then(|(_, user)| user.password_hash.clone());
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| roster.dummy_hash(login));
        let still = || throttle.may_still_check(from, tenant, Instant::now()).is_ok();
        let check = self.passwords.verify(from.into(), spared, still, Arc::clone(&hash), password.to_owned());
        match check.await {
            Outcome::Busy => Err(LoginRefused::Busy),
            Outcome::TooLate => Err(LoginRefused::Throttled),
            Outcome::Right if known => self.shown(&roster, proofs, from, Credential::Password(hash)),
            Outcome::Right | Outcome::Wrong => Err(LoginRefused::Wrong),
        }
    }

    /// A login failed, or wasn't looked at. Counts it; the answer has to wait for the time that is returned, which
    /// doesn't tell whether there is such a login.
    pub fn login_failed(&self, from: IpAddr, login: &str, refused: &LoginRefused) -> Duration {
        self.entrance.login_failed(from, self.current().tenant_of(login), refused)
    }

    /// Whether a key that is only offered is worth a signature. Nothing changes and nothing is counted.
    ///
    /// A door isn't told whether the key comes in a certificate. So where any tenant takes certificates, every key of
    /// every login is: what is answered then tells a stranger nothing.
    pub fn wants_key(&self, login: &str, key: &PublicKey) -> bool {
        self.current().takes_certificates() || self.has_key(login, key)
    }

    /// Whether the key itself is one of the login's. For the log: a peer isn't told.
    pub fn has_key(&self, login: &str, key: &PublicKey) -> bool {
        let roster = self.current();
        roster.find(login).is_some_and(|(id, user)| roster.has_key(id, user, key.key_data()))
    }

    /// Takes a key whose possession the door has verified.
    ///
    /// # Errors
    /// [`LoginRefused::UnknownKey`] where the key doesn't belong to the login, and others.
    pub fn check_key(
        &self,
        proofs: &mut Proofs,
        from: IpAddr,
        login: &str,
        key: &PublicKey,
    ) -> Result<Step, LoginRefused> {
        proofs.begin(login);
        let roster = self.current();
        match roster.find(login) {
            Some((id, user)) if roster.has_key(id, user, key.key_data()) => {
                self.shown(&roster, proofs, from, Credential::Key(Box::new(key.key_data().clone())))
            }
            _ => Err(LoginRefused::UnknownKey),
        }
    }

    /// Takes a certificate whose key's possession the door has verified; `now` is the wall clock.
    ///
    /// # Errors
    /// [`LoginRefused::Certificate`], and others.
    pub fn check_certificate(
        &self,
        proofs: &mut Proofs,
        from: IpAddr,
        login: &str,
        certificate: &Certificate,
        now: SystemTime,
    ) -> Result<Step, LoginRefused> {
        proofs.begin(login);
        let roster = self.current();
        let (id, _) = roster.find(login).ok_or(LoginRefused::UnknownKey)?;
        let authorities = roster.authorities(id.0).ok_or(LoginRefused::UnknownKey)?;
        certificate::check(certificate, authorities, login, from, now).map_err(LoginRefused::Certificate)?;
        let credential = Credential::Certificate {
            key: Box::new(certificate.public_key().clone()),
            ca: Box::new(certificate.signature_key().clone()),
            name: certificate.key_id().chars().filter(|c| !c.is_control()).take(80).collect(),
        };
        self.shown(&roster, proofs, from, credential)
    }

    /// Something right was shown: is it enough?
    fn shown(
        &self,
        roster: &Roster,
        proofs: &mut Proofs,
        from: IpAddr,
        credential: Credential,
    ) -> Result<Step, LoginRefused> {
        let (id, user) = roster.find(&proofs.login).ok_or(LoginRefused::Wrong)?;
        if !user.expects(credential.method(), &proofs.shown) {
            return Err(LoginRefused::Order);
        }
        if !user.allows(from) {
            return Err(LoginRefused::Network);
        }
        proofs.shown.push(credential);
        Ok(match user.next(&proofs.shown) {
            Some(method) => Step::Next(method),
            None => Step::LoggedIn(Login {
                roster: self.roster.subscribe(),
                id,
                login: proofs.login.as_str().into(),
                from,
                credentials: std::mem::take(&mut proofs.shown).into(),
            }),
        })
    }

    fn current(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }
}

/// What a peer has shown of one login so far. A connection keeps one; another login begins anew.
#[derive(Debug, Default)]
pub struct Proofs {
    login: String,
    /// At most as many as there are methods: what isn't expected isn't added.
    shown: Vec<Credential>,
}

impl Proofs {
    /// A request comes in the name of this login. To be called for requests too that show nothing: who asks for another
    /// login in between begins anew (RFC 4252, 5).
    pub fn begin(&mut self, login: &str) {
        if self.login != login {
            self.shown.clear();
            login.clone_into(&mut self.login);
        }
    }
}

/// What comes after something right was shown.
#[derive(Debug)]
pub enum Step {
    /// It was enough.
    LoggedIn(Login),
    /// This is wanted besides.
    Next(Method),
}

/// A way to show who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// A key, by itself or in a certificate.
    PublicKey,
    /// A password, whichever way a protocol asks for it.
    Password,
}

/// A session's right to be here. It follows the configuration.
#[derive(Debug, Clone)]
pub struct Login {
    roster: watch::Receiver<Arc<Roster>>,
    id: UserId,
    login: Arc<str>,
    from: IpAddr,
    credentials: Arc<[Credential]>,
}

impl Login {
    /// The account with the role that it has now.
    ///
    /// # Errors
    /// [`LoginEnded`] when what was shown at the login would no longer be enough: the user is gone, the password or key
    /// is another, the address isn't allowed any more.
    pub fn account(&self) -> Result<Account, LoginEnded> {
        let roster = self.roster.borrow();
        let user = roster.still_takes(self.id, &self.credentials, self.from).ok_or(LoginEnded)?;
        Ok(Account { tenant: self.id.0, user: self.id.1, login: Arc::clone(&self.login), role: user.role })
    }

    /// The tenant's immutable id.
    pub fn tenant(&self) -> u32 {
        self.id.0
    }

    /// What was typed: `tenant` or `tenant/user`.
    pub fn name(&self) -> &Arc<str> {
        &self.login
    }

    /// What was shown, in one word of a few, for the metrics.
    pub fn method(&self) -> &'static str {
        match &*self.credentials {
            [Credential::Password(_)] => "password",
            [Credential::Key(_)] => "key",
            [Credential::Certificate { .. }] => "certificate",
            _ => "several",
        }
    }

    /// What was shown, for the log: `password`, a key's fingerprint, a certificate's name.
    pub fn credential(&self) -> String {
        self.credentials.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
    }

    /// Returns when [`Login::account`] has begun to fail (or the [`Identity`] is gone).
    pub async fn ended(&self) {
        let mut roster = self.roster.clone();
        while self.account().is_ok() {
            if roster.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The login is no longer in the configuration, or what opened the session isn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this login has been removed")]
pub struct LoginEnded;

/// Why nobody was logged in. The client is told the same for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefused {
    /// No such login, or not its password.
    #[error("no such login, or not its password")]
    Wrong,
    /// A key that isn't the login's. Nobody guesses keys: clients show all that they have.
    #[error("no such login, or not its key")]
    UnknownKey,
    /// A certificate that the login's tenant doesn't take.
    #[error("the certificate isn't taken: {0}")]
    Certificate(String),
    /// Right, but not what comes next of what the user has to show.
    #[error("right, but something else has to be shown first (the user's \"require\")")]
    Order,
    /// Right, but from an address that the user may not log in from.
    #[error("right, but not from an address of the user's allowed_networks")]
    Network,
    /// So many passwords are being checked that this one wasn't.
    #[error("too many passwords are being checked, this one was not")]
    Busy,
    /// The address is refused for its failed logins, so this password wasn't checked.
    #[error("the address is refused for its failed logins, this password was not checked")]
    Throttled,
}

impl LoginRefused {
    /// All labels.
    pub const LABELS: [&str; 7] =
        ["wrong", "unknown_key", "certificate", "order", "network", "busy", "throttled"];

    /// One word, for the metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::UnknownKey => "unknown_key",
            Self::Certificate(_) => "certificate",
            Self::Order => "order",
            Self::Network => "network",
            Self::Busy => "busy",
            Self::Throttled => "throttled",
        }
    }
}

/// A user that can't be taken from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user \"{login}\": {problem}")]
pub struct IdentityError {
    /// `tenant` or `tenant/user`.
    pub login: String,
    /// What is wrong and what to do.
    pub problem: String,
}

/// Reads a line of OpenSSH's authorized_keys (`ssh-ed25519 AAAA… comment`), without options.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn parse_authorized_key(line: &str) -> Result<PublicKey, String> {
    PublicKey::from_openssh(line.trim()).map_err(|error| {
        format!(
            "not a public key as in authorized_keys (\"ssh-ed25519 AAAA… comment\", without options): {error}"
        )
    })
}

/// Tenant and user.
type UserId = (u32, u32);

/// Something right that was shown.
#[derive(Debug, Clone)]
enum Credential {
    Password(Arc<str>),
    Key(Box<KeyData>),
    Certificate { key: Box<KeyData>, ca: Box<KeyData>, name: String },
}

impl Credential {
    fn method(&self) -> Method {
        match self {
            Self::Password(_) => Method::Password,
            Self::Key(_) | Self::Certificate { .. } => Method::PublicKey,
        }
    }
}

impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password(_) => f.write_str("password"),
            Self::Key(key) => write!(f, "key {}", key.fingerprint(HashAlg::Sha256)),
            Self::Certificate { key, ca, name } => {
                let (key, ca) = (key.fingerprint(HashAlg::Sha256), ca.fingerprint(HashAlg::Sha256));
                write!(f, "certificate {name:?} of key {key} by {ca}")
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
