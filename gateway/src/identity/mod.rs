//! Tenants, users, roles; checks of passwords and keys.
//!
//! Who may log in comes from the configuration and can be replaced while the gateway runs. A successful check gives a
//! [`Login`], which a door keeps for the session: [`Login::account`] says before each operation what the role is
//! *now*, and [`Login::ended`] wakes when the credential that opened the session is gone.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use russh::keys::{HashAlg, PublicKey, ssh_key::public::KeyData};
use tokio::sync::watch;

use crate::config::{Limits, Tenant, Throttle};

pub mod admission;
pub mod entrance;
mod origin;
mod password;
mod table;
pub mod throttle;
mod turns;

pub use origin::Origin;
pub use password::{HashError, hash_password, parse_password_hash};

use entrance::Entrance;
use password::{Outcome, Passwords};

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
    entrance: Arc<Entrance>,
    /// Two reloads at once must not interleave.
    replacing: Mutex<()>,
}

impl Identity {
    /// Takes the users of a configuration.
    ///
    /// # Errors
    /// A password hash or a key that can't be read, or a login that two users share; the message names the login.
    pub fn new(tenants: &[Tenant]) -> Result<Self, IdentityError> {
        let roster = Arc::new(Roster::new(tenants)?);
        Ok(Self {
            roster: watch::Sender::new(roster),
            passwords: Passwords::default(),
            entrance: Arc::new(Entrance::new(&Limits::default(), &Throttle::default())),
            replacing: Mutex::new(()),
        })
    }

    /// Takes the users of a reloaded configuration. Sessions whose user or credential is gone end; roles count from
    /// the next operation on.
    ///
    /// # Errors
    /// As [`Identity::new`]; then the users from before stay.
    pub fn replace(&self, tenants: &[Tenant]) -> Result<(), IdentityError> {
        let roster = Arc::new(Roster::new(tenants)?);
        let _one_at_a_time = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        self.roster.send_replace(roster);
        Ok(())
    }

    /// Who may connect, and how late failed logins are answered. It has its defaults until it is
    /// [configured](Entrance::configure).
    pub fn entrance(&self) -> &Arc<Entrance> {
        &self.entrance
    }

    /// Checks a password. Takes as long for a login that doesn't exist as for one that does.
    ///
    /// # Errors
    /// [`LoginRefused`]; a door answers the client the same whichever it is.
    pub async fn check_password(
        &self,
        from: IpAddr,
        login: &str,
        password: &str,
    ) -> Result<Login, LoginRefused> {
        let (throttle, now) = (self.entrance.throttle(), Instant::now());
        throttle.may_check(from, now).map_err(|_| LoginRefused::Throttled)?;
        let spared = throttle.is_spared(from, now);
        let roster = self.current();
        let found = roster.find(login);
        let hash = found.and_then(|(_, user)| user.password_hash.clone());
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| Arc::clone(&roster.dummy_hash));
        match self.passwords.verify(from.into(), spared, Arc::clone(&hash), password.to_owned()).await {
            Outcome::Busy => Err(LoginRefused::Busy),
            Outcome::Right if known => match found {
                Some((id, _)) => Ok(self.login(id, login, Credential::Password(hash))),
                None => Err(LoginRefused::Wrong),
            },
            Outcome::Right | Outcome::Wrong => Err(LoginRefused::Wrong),
        }
    }

    /// Whether the key belongs to the login. For keys that are only offered: nothing changes and nothing is counted.
    pub fn knows_key(&self, login: &str, key: &PublicKey) -> bool {
        self.current().find(login).is_some_and(|(_, user)| user.keys.contains(key.key_data()))
    }

    /// Logs in with a key whose possession the door has verified.
    ///
    /// # Errors
    /// [`LoginRefused::Wrong`] where the key doesn't belong to the login.
    pub fn check_key(&self, login: &str, key: &PublicKey) -> Result<Login, LoginRefused> {
        match self.current().find(login) {
            Some((id, user)) if user.keys.contains(key.key_data()) => {
                Ok(self.login(id, login, Credential::Key(Box::new(key.key_data().clone()))))
            }
            _ => Err(LoginRefused::Wrong),
        }
    }

    fn current(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    fn login(&self, id: UserId, login: &str, credential: Credential) -> Login {
        Login { roster: self.roster.subscribe(), id, login: login.into(), credential }
    }
}

/// A session's right to be here. It follows the configuration.
#[derive(Debug, Clone)]
pub struct Login {
    roster: watch::Receiver<Arc<Roster>>,
    id: UserId,
    login: Arc<str>,
    credential: Credential,
}

impl Login {
    /// The account with the role that it has now.
    ///
    /// # Errors
    /// [`LoginEnded`] when the user is gone, or the password or key that was shown no longer is the user's.
    pub fn account(&self) -> Result<Account, LoginEnded> {
        let roster = self.roster.borrow();
        let user = roster.users.get(&self.id).ok_or(LoginEnded)?;
        let stands = match &self.credential {
            Credential::Password(hash) => user.password_hash.as_ref() == Some(hash),
            Credential::Key(key) => user.keys.contains(key),
        };
        if !stands {
            return Err(LoginEnded);
        }
        Ok(Account { tenant: self.id.0, user: self.id.1, login: Arc::clone(&self.login), role: user.role })
    }

    /// What was typed: `tenant` or `tenant/user`.
    pub fn name(&self) -> &Arc<str> {
        &self.login
    }

    /// `password`, or the key's fingerprint, for the log.
    pub fn credential(&self) -> String {
        match &self.credential {
            Credential::Password(_) => "password".to_owned(),
            Credential::Key(key) => format!("key {}", key.fingerprint(HashAlg::Sha256)),
        }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefused {
    /// No such login, or not its password or key.
    #[error("no such login, or not its password or key")]
    Wrong,
    /// So many passwords are being checked that this one wasn't.
    #[error("too many passwords are being checked, this one was not")]
    Busy,
    /// The address is refused for its failed logins, so this password wasn't checked.
    #[error("the address is refused for its failed logins, this password was not checked")]
    Throttled,
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

#[derive(Debug, Clone)]
enum Credential {
    Password(Arc<str>),
    Key(Box<KeyData>),
}

/// The users of one configuration.
#[derive(Debug)]
struct Roster {
    by_login: HashMap<String, UserId>,
    users: HashMap<UserId, Member>,
    /// Costs as much to check as the users' hashes, and no password matches it.
    dummy_hash: Arc<str>,
}

#[derive(Debug)]
struct Member {
    role: Role,
    password_hash: Option<Arc<str>>,
    keys: Vec<KeyData>,
}

impl Roster {
    fn new(tenants: &[Tenant]) -> Result<Self, IdentityError> {
        let mut by_login = HashMap::new();
        let mut users = HashMap::new();
        let mut hashes = Vec::new();
        for tenant in tenants {
            for user in &tenant.users {
                let login = match &user.name {
                    None => tenant.name.clone(),
                    Some(name) => format!("{}/{name}", tenant.name),
                };
                let wrong = |problem: String| IdentityError { login: login.clone(), problem };
                if let Some(hash) = &user.password_hash {
                    parse_password_hash(hash).map_err(|error| wrong(format!("password_hash: {error}")))?;
                    hashes.push(hash.as_str());
                }
                let keys = user
                    .authorized_keys
                    .iter()
                    .map(|line| parse_authorized_key(line).map(|key| key.key_data().clone()))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| wrong(format!("authorized_keys: {error}")))?;
                let id = (tenant.id, user.id);
                let member = Member {
                    role: user.role,
                    password_hash: user.password_hash.as_deref().map(Arc::from),
                    keys,
                };
                if users.insert(id, member).is_some() {
                    return Err(wrong(format!("the id {} is used twice in tenant {}", user.id, tenant.id)));
                }
                if by_login.insert(login.clone(), id).is_some() {
                    return Err(wrong("two users have this login; rename one".to_owned()));
                }
            }
        }
        Ok(Self { by_login, users, dummy_hash: password::dummy_hash(&hashes).into() })
    }

    fn find(&self, login: &str) -> Option<(UserId, &Member)> {
        let id = self.by_login.get(login)?;
        self.users.get(id).map(|member| (*id, member))
    }
}

#[cfg(test)]
pub(crate) mod tests;
