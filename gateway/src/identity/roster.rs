//! The users of one configuration, ready to be looked up.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use ipnet::IpNet;
use russh::keys::ssh_key::public::KeyData;

use super::{
    Credential, IdentityError, Method, Role, UserId, parse_authorized_key, parse_password_hash, password,
};
use crate::config::{Tenant, User};

/// Which dummy stands for which login: nobody can tell beforehand, and a reload doesn't change it.
static DUMMY_OF: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The users of one configuration.
#[derive(Debug)]
pub(super) struct Roster {
    by_login: HashMap<String, UserId>,
    pub(super) users: HashMap<UserId, Member>,
    tenants: HashMap<u32, Authorities>,
    by_name: HashMap<String, u32>,
    /// One for each user's hash, as costly as that, and no password matches it.
    dummies: Vec<Arc<str>>,
}

/// A user.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) role: Role,
    pub(super) password_hash: Option<Arc<str>>,
    pub(super) keys: Vec<KeyData>,
    /// All of them, in this order; empty: any one.
    require: Vec<Method>,
    /// Empty: from anywhere.
    networks: Vec<IpNet>,
}

/// Whose signature a tenant takes for its users' keys, and which keys it takes no more.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) cas: Vec<KeyData>,
    revoked: Vec<KeyData>,
}

impl Roster {
    pub(super) fn new(tenants: &[Tenant]) -> Result<Self, IdentityError> {
        let mut roster = Self {
            by_login: HashMap::new(),
            users: HashMap::new(),
            tenants: HashMap::new(),
            by_name: HashMap::new(),
            dummies: Vec::new(),
        };
        let mut hashes = Vec::new();
        for tenant in tenants {
            let wrong = |key: &'static str| {
                move |problem: String| IdentityError {
                    login: tenant.name.clone(),
                    problem: format!("{key}: {problem}"),
                }
            };
            let authorities = Authorities {
                cas: key_data(&tenant.user_ca_keys).map_err(wrong("user_ca_keys"))?,
                revoked: key_data(&tenant.revoked_keys).map_err(wrong("revoked_keys"))?,
            };
            roster.tenants.insert(tenant.id, authorities);
            roster.by_name.insert(tenant.name.clone(), tenant.id);
            for user in &tenant.users {
                roster.add(tenant, user)?;
                hashes.extend(user.password_hash.as_deref());
            }
        }
        roster.dummies = password::dummy_hashes(&hashes);
        Ok(roster)
    }

    fn add(&mut self, tenant: &Tenant, user: &User) -> Result<(), IdentityError> {
        let login = match &user.name {
            None => tenant.name.clone(),
            Some(name) => format!("{}/{name}", tenant.name),
        };
        let wrong = |problem: String| IdentityError { login: login.clone(), problem };
        if let Some(hash) = &user.password_hash {
            parse_password_hash(hash).map_err(|error| wrong(format!("password_hash: {error}")))?;
        }
        let keys =
            key_data(&user.authorized_keys).map_err(|error| wrong(format!("authorized_keys: {error}")))?;
        let id = (tenant.id, user.id);
        let member = Member {
            role: user.role,
            password_hash: user.password_hash.as_deref().map(Arc::from),
            keys,
            require: user.require.clone(),
            networks: user.allowed_networks.clone(),
        };
        if self.users.insert(id, member).is_some() {
            return Err(wrong(format!("the id {} is used twice in tenant {}", user.id, tenant.id)));
        }
        if self.by_login.insert(login.clone(), id).is_some() {
            return Err(wrong("two users have this login; rename one".to_owned()));
        }
        Ok(())
    }

    pub(super) fn find(&self, login: &str) -> Option<(UserId, &Member)> {
        let id = self.by_login.get(login)?;
        self.users.get(id).map(|member| (*id, member))
    }

    /// The tenant that a login names, be there such a user of it or not.
    pub(super) fn tenant_of(&self, login: &str) -> Option<u32> {
        let name = login.split_once('/').map_or(login, |(tenant, _)| tenant);
        self.by_name.get(name).copied()
    }

    /// What stands for the password of a login that isn't there: always the same for one login, as costly as some user's,
    /// and no password matches it.
    pub(super) fn dummy_hash(&self, login: &str) -> Arc<str> {
        let number = usize::try_from(DUMMY_OF.hash_one(login) >> 32).unwrap_or(0);
        let dummy = number.checked_rem(self.dummies.len()).and_then(|at| self.dummies.get(at));
        dummy.map_or_else(|| Arc::from(""), Arc::clone)
    }

    pub(super) fn authorities(&self, tenant: u32) -> Option<&Authorities> {
        self.tenants.get(&tenant)
    }

    /// Whether any tenant takes certificates.
    pub(super) fn takes_certificates(&self) -> bool {
        self.tenants.values().any(|tenant| !tenant.cas.is_empty())
    }

    /// Whether a user has this key, and it isn't revoked.
    pub(super) fn has_key(&self, id: UserId, member: &Member, key: &KeyData) -> bool {
        member.keys.contains(key) && !self.is_revoked(id.0, key)
    }

    fn is_revoked(&self, tenant: u32, key: &KeyData) -> bool {
        self.tenants.get(&tenant).is_some_and(|tenant| tenant.revokes(key))
    }

    /// Whether what a session showed when it logged in would still log it in.
    pub(super) fn still_takes(
        &self,
        id: UserId,
        credentials: &[Credential],
        from: IpAddr,
    ) -> Option<&Member> {
        let member = self.users.get(&id)?;
        let stands = |credential: &Credential| match credential {
            Credential::Password(hash) => member.password_hash.as_ref() == Some(hash),
            Credential::Key(key) => self.has_key(id, member, key),
            Credential::Certificate { key, ca, .. } => self
                .authorities(id.0)
                .is_some_and(|tenant| tenant.cas.contains(ca) && !tenant.revokes(key) && !tenant.revokes(ca)),
        };
        let all_stand = member.allows(from) && credentials.iter().all(stands);
        (all_stand && member.next(credentials).is_none()).then_some(member)
    }
}

impl Authorities {
    pub(super) fn revokes(&self, key: &KeyData) -> bool {
        self.revoked.contains(key)
    }
}

impl Member {
    /// Whether the user may log in from this address.
    pub(super) fn allows(&self, from: IpAddr) -> bool {
        // A socket for both versions of IP tells IPv4 addresses mapped.
        let from = from.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&from))
    }

    /// Whether the next thing to be shown may be this.
    pub(super) fn expects(&self, method: Method, shown: &[Credential]) -> bool {
        self.require.is_empty() || self.next(shown) == Some(method)
    }

    /// What is still to be shown; `None` once it is enough.
    pub(super) fn next(&self, shown: &[Credential]) -> Option<Method> {
        if self.require.is_empty() {
            return shown.is_empty().then_some(Method::PublicKey);
        }
        let mut shown = shown.iter().map(Credential::method);
        self.require.iter().copied().find(|required| shown.next() != Some(*required))
    }
}

fn key_data(lines: &[String]) -> Result<Vec<KeyData>, String> {
    lines.iter().map(|line| parse_authorized_key(line).map(|key| key.key_data().clone())).collect()
}
