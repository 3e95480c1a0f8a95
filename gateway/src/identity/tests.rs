//! Tests, and the tenants that tests of the doors log in to.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use russh::keys::{
    Algorithm, PrivateKey,
    key::safe_rng,
    ssh_key::certificate::{Builder, CertType},
};

use super::*;
use crate::{
    config::{Quota, User},
    layout::{NameForm, TenantZone},
};

pub(crate) fn tenant(users: Vec<User>) -> Tenant {
    Tenant {
        id: 1,
        name: "acme".to_owned(),
        zone: test_zone(),
        name_form: NameForm::Long,
        live_index: false,
        user_ca_keys: Vec::new(),
        revoked_keys: Vec::new(),
        quota: Quota::default(),
        users,
        sources: Vec::new(),
    }
}

fn test_zone() -> TenantZone {
    TenantZone::new(chrono_tz::Tz::UTC, Vec::new()).unwrap()
}

pub(crate) fn user(id: u32, name: Option<&str>) -> User {
    User {
        id,
        name: name.map(str::to_owned),
        role: Role::Downloader,
        password_hash: None,
        authorized_keys: Vec::new(),
        require: Vec::new(),
        allowed_networks: Vec::new(),
        quota: Quota::default(),
    }
}

fn pair() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

fn key() -> PublicKey {
    pair().public_key().clone()
}

fn line(key: &PrivateKey) -> String {
    key.public_key().to_openssh().unwrap()
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl Step {
    fn logged_in(self) -> Login {
        let Self::LoggedIn(login) = self else { panic!("{self:?}") };
        login
    }
}

impl Identity {
    async fn by_password(&self, login: &str, password: &str) -> Result<Login, LoginRefused> {
        self.check_password(&mut Proofs::default(), HERE, login, password).await.map(Step::logged_in)
    }

    fn by_key(&self, login: &str, key: &PublicKey) -> Result<Login, LoginRefused> {
        self.check_key(&mut Proofs::default(), HERE, login, key).map(Step::logged_in)
    }
}

#[tokio::test]
async fn logins_are_the_tenant_or_tenant_slash_user() {
    let hash = hash_password("secret").unwrap();
    let mut default = user(1, None);
    default.password_hash = Some(hash.clone());
    let mut anna = user(2, Some("anna"));
    anna.password_hash = Some(hash);
    let identity = Identity::at_defaults(&[tenant(vec![default, anna, user(3, Some("nobody"))])]).unwrap();

    let login = identity.by_password("acme", "secret").await.unwrap();
    assert_eq!((login.account().unwrap().tenant, login.account().unwrap().user), (1, 1));
    assert_eq!(identity.by_password("acme/anna", "secret").await.unwrap().account().unwrap().user, 2);
    for (login, password) in [
        ("acme", "Secret"),
        ("acme/", "secret"),
        ("anna", "secret"),
        ("acme/nobody", ""),
        ("", ""),
        ("acme/bob", "x"),
    ] {
        let refused = identity.by_password(login, password).await.unwrap_err();
        assert_eq!(refused, LoginRefused::Wrong, "{login}");
    }
}

#[tokio::test]
async fn a_reload_ends_removed_users_and_keys_and_changes_roles_at_once() {
    let (first, second) = (key(), key());
    let mut default = user(1, None);
    default.authorized_keys = vec![first.to_openssh().unwrap(), second.to_openssh().unwrap()];
    let identity = Identity::at_defaults(&[tenant(vec![default.clone()])]).unwrap();
    assert!(identity.wants_key("acme", &first) && !identity.wants_key("acme", &key()));
    assert!(!identity.wants_key("other", &first));
    let by_first = identity.by_key("acme", &first).unwrap();
    let by_second = identity.by_key("acme", &second).unwrap();

    default.role = Role::Manager;
    identity.replace(&[tenant(vec![default.clone()])]).unwrap();
    assert_eq!(by_first.account().unwrap().role, Role::Manager);

    default.authorized_keys.remove(0);
    identity.replace(&[tenant(vec![default.clone()])]).unwrap();
    assert_eq!(by_first.account(), Err(LoginEnded));
    tokio::time::timeout(Duration::from_secs(10), by_first.ended()).await.unwrap();
    assert!(by_second.account().is_ok());

    identity.replace(&[tenant(Vec::new())]).unwrap();
    tokio::time::timeout(Duration::from_secs(10), by_second.ended()).await.unwrap();
}

#[test]
fn bad_users_are_named() {
    let mut anna = user(2, Some("anna"));
    anna.password_hash = Some("plain text".to_owned());
    let error = Identity::at_defaults(&[tenant(vec![anna.clone()])]).unwrap_err();
    assert!(
        error.to_string().starts_with("user \"acme/anna\": password_hash: not a password hash"),
        "{error}"
    );
    anna.password_hash = None;
    anna.authorized_keys = vec!["ssh-ed25519 nonsense".to_owned()];
    let error = Identity::at_defaults(&[tenant(vec![anna])]).unwrap_err();
    assert!(error.to_string().contains("authorized_keys: not a public key"), "{error}");
    let error = Identity::at_defaults(&[tenant(vec![user(1, None), user(2, None)])]).unwrap_err();
    assert!(error.to_string().contains("two users have this login"), "{error}");
}

#[tokio::test]
async fn what_is_required_is_shown_in_its_order() {
    let (own, other) = (pair(), key());
    let hash = hash_password("secret").unwrap();
    let mut default = user(1, None);
    default.password_hash = Some(hash);
    default.authorized_keys = vec![line(&own)];
    default.require = vec![Method::PublicKey, Method::Password];
    let identity = Identity::at_defaults(&[tenant(vec![default.clone()])]).unwrap();
    let own = own.public_key();

    // The password alone tells nothing, right or wrong.
    assert_eq!(identity.by_password("acme", "secret").await.unwrap_err(), LoginRefused::Order);
    assert_eq!(identity.by_password("acme", "wrong").await.unwrap_err(), LoginRefused::Wrong);

    let mut proofs = Proofs::default();
    assert_eq!(identity.check_key(&mut proofs, HERE, "acme", &other).unwrap_err(), LoginRefused::UnknownKey);
    let step = identity.check_key(&mut proofs, HERE, "acme", own).unwrap();
    assert!(matches!(step, Step::Next(Method::Password)));
    assert_eq!(identity.check_key(&mut proofs, HERE, "acme", own).unwrap_err(), LoginRefused::Order);
    let wrong = identity.check_password(&mut proofs, HERE, "acme", "wrong").await;
    assert_eq!(wrong.unwrap_err(), LoginRefused::Wrong);
    // Another name in between begins anew.
    let _ = identity.check_password(&mut proofs, HERE, "globex", "secret").await;
    let begun = identity.check_password(&mut proofs, HERE, "acme", "secret").await;
    assert_eq!(begun.unwrap_err(), LoginRefused::Order);
    identity.check_key(&mut proofs, HERE, "acme", own).unwrap();
    let login = identity.check_password(&mut proofs, HERE, "acme", "secret").await.unwrap().logged_in();
    assert!(login.account().is_ok());
    let shown = login.credential();
    assert!(shown.starts_with("key SHA256:") && shown.ends_with(" and password"), "{shown}");

    // Who logged in with less than is required now goes.
    default.require = Vec::new();
    identity.replace(&[tenant(vec![default.clone()])]).unwrap();
    let by_key = identity.by_key("acme", own).unwrap();
    assert!(login.account().is_ok());
    default.require = vec![Method::PublicKey, Method::Password];
    identity.replace(&[tenant(vec![default])]).unwrap();
    assert_eq!(by_key.account(), Err(LoginEnded));
    assert!(login.account().is_ok());
}

#[tokio::test]
async fn networks_hold_at_the_login_and_after_a_reload() {
    let own = pair();
    let mut default = user(1, None);
    default.authorized_keys = vec![line(&own)];
    default.password_hash = Some(hash_password("secret").unwrap());
    default.allowed_networks = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let identity = Identity::at_defaults(&[tenant(vec![default.clone()])]).unwrap();
    let from = |address: &str| {
        identity.check_key(&mut Proofs::default(), address.parse().unwrap(), "acme", own.public_key())
    };
    assert_eq!(from("10.2.0.1").unwrap_err(), LoginRefused::Network);
    assert_eq!(identity.by_password("acme", "secret").await.unwrap_err(), LoginRefused::Network);
    assert_eq!(identity.by_password("acme", "wrong").await.unwrap_err(), LoginRefused::Wrong);
    let login = from("10.1.255.255").unwrap().logged_in();
    // As a socket for both versions of IP tells it.
    let mapped = from("::ffff:10.1.0.1").unwrap().logged_in();
    assert!(from("2001:db8:1::1").is_ok() && mapped.account().is_ok());
    default.allowed_networks = vec!["192.0.2.1/32".parse().unwrap()];
    identity.replace(&[tenant(vec![default])]).unwrap();
    assert_eq!(login.account(), Err(LoginEnded));
}

#[test]
fn certificates_are_taken_from_the_tenants_own_authority_only() {
    const NOW: u64 = 1_800_000_000;
    let (ca, stranger, own) = (pair(), pair(), pair());
    let mut acme = tenant(vec![user(1, None), user(2, Some("anna"))]);
    acme.user_ca_keys = vec![line(&ca)];
    let mut globex = tenant(vec![user(1, None)]);
    (globex.id, globex.name) = (2, "globex".to_owned());
    let identity = Identity::at_defaults(&[acme.clone(), globex.clone()]).unwrap();
    let certificate = |ca: &PrivateKey, change: &dyn Fn(&mut Builder)| {
        let mut builder =
            Builder::new_with_random_nonce(&mut safe_rng(), own.public_key(), NOW - 60, NOW + 60).unwrap();
        builder.key_id("anna's laptop\n").unwrap();
        change(&mut builder);
        builder.sign(ca).unwrap()
    };
    let principal = |name: &'static str| move |builder: &mut Builder| drop(builder.valid_principal(name));
    let checked_at = |now: u64, login: &str, certificate: &Certificate| {
        let now = std::time::UNIX_EPOCH + Duration::from_secs(now);
        identity.check_certificate(&mut Proofs::default(), HERE, login, certificate, now)
    };
    let refused = |login: &str, certificate: &Certificate| match checked_at(NOW, login, certificate) {
        Err(LoginRefused::Certificate(why)) => why,
        Err(other) => other.to_string(),
        Ok(_) => "taken".to_owned(),
    };

    let good = certificate(&ca, &principal("acme/anna"));
    let login = checked_at(NOW, "acme/anna", &good).unwrap().logged_in();
    assert_eq!(login.account().unwrap().user, 2);
    assert!(login.credential().starts_with("certificate \"anna's laptop\" of key SHA256:"));
    for (now, taken) in [(NOW - 61, false), (NOW - 60, true), (NOW + 59, true), (NOW + 60, false)] {
        assert_eq!(checked_at(now, "acme/anna", &good).is_ok(), taken, "{now}");
    }
    assert!(refused("acme", &good).contains("principals"));
    assert!(refused("globex", &good).contains("user_ca_keys"));
    assert!(refused("acme/bob", &good).contains("no such login"));
    assert!(refused("acme", &certificate(&stranger, &principal("acme"))).contains("user_ca_keys"));
    let anybody = certificate(&ca, &|builder| drop(builder.all_principals_valid()));
    assert!(refused("acme", &anybody).contains("principals"));
    let host = certificate(&ca, &|builder| {
        drop(builder.valid_principal("acme").and_then(|builder| builder.cert_type(CertType::Host)));
    });
    assert!(refused("acme", &host).contains("host's"));
    for (name, value, taken) in [
        ("source-address", "10.0.0.0/8,127.0.0.0/8", true),
        ("source-address", "127.0.0.1", true),
        ("source-address", "10.0.0.0/8", false),
        ("source-address", "", false),
        ("force-command", "internal-sftp", true),
        ("force-command", "/bin/sh", false),
        ("verify-required", "", false),
    ] {
        let certificate = certificate(&ca, &|builder| {
            drop(builder.valid_principal("acme").and_then(|builder| builder.critical_option(name, value)));
        });
        assert_eq!(refused("acme", &certificate) == "taken", taken, "{name} {value}");
    }
    // A door can't tell a certificate's key from another, so that every one is asked for a signature.
    assert!(identity.wants_key("globex", &key()) && identity.wants_key("nobody", &key()));

    acme.revoked_keys = vec![line(&own)];
    identity.replace(&[acme.clone(), globex.clone()]).unwrap();
    assert_eq!(login.account(), Err(LoginEnded));
    assert!(refused("acme/anna", &good).contains("revoked"));
    // A stolen authority's key is revoked like any.
    acme.revoked_keys = vec![];
    identity.replace(&[acme.clone(), globex.clone()]).unwrap();
    let login = checked_at(NOW, "acme/anna", &good).unwrap().logged_in();
    acme.revoked_keys = vec![line(&ca)];
    identity.replace(&[acme.clone(), globex.clone()]).unwrap();
    assert_eq!(login.account(), Err(LoginEnded));
    assert!(refused("acme/anna", &good).contains("authority's key is revoked"));
    acme.revoked_keys = Vec::new();
    acme.user_ca_keys = vec![line(&stranger)];
    identity.replace(&[acme, globex]).unwrap();
    assert_eq!(login.account(), Err(LoginEnded));
    assert!(refused("acme/anna", &good).contains("user_ca_keys"));
}
