//! Tests, and the tenants that tests of the doors log in to.
#![allow(clippy::unwrap_used)]

use std::{net::Ipv4Addr, time::Duration};

use russh::keys::{Algorithm, PrivateKey, key::safe_rng};

use super::*;
use crate::{
    config::User,
    layout::{NameForm, TenantZone},
};

pub(crate) fn tenant(users: Vec<User>) -> Tenant {
    Tenant {
        id: 1,
        name: "acme".to_owned(),
        zone: test_zone(),
        name_form: NameForm::Long,
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
    }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn key() -> PublicKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap().public_key().clone()
}

#[tokio::test]
async fn logins_are_the_tenant_or_tenant_slash_user() {
    let hash = hash_password("secret").unwrap();
    let mut default = user(1, None);
    default.password_hash = Some(hash.clone());
    let mut anna = user(2, Some("anna"));
    anna.password_hash = Some(hash);
    let identity = Identity::new(&[tenant(vec![default, anna, user(3, Some("nobody"))])]).unwrap();

    let login = identity.check_password(HERE, "acme", "secret").await.unwrap();
    assert_eq!((login.account().unwrap().tenant, login.account().unwrap().user), (1, 1));
    assert_eq!(identity.check_password(HERE, "acme/anna", "secret").await.unwrap().account().unwrap().user, 2);
    for (login, password) in [
        ("acme", "Secret"),
        ("acme/", "secret"),
        ("anna", "secret"),
        ("acme/nobody", ""),
        ("", ""),
        ("acme/bob", "x"),
    ] {
        let refused = identity.check_password(HERE, login, password).await.unwrap_err();
        assert_eq!(refused, LoginRefused::Wrong, "{login}");
    }
}

#[tokio::test]
async fn a_reload_ends_removed_users_and_keys_and_changes_roles_at_once() {
    let (first, second) = (key(), key());
    let mut default = user(1, None);
    default.authorized_keys = vec![first.to_openssh().unwrap(), second.to_openssh().unwrap()];
    let identity = Identity::new(&[tenant(vec![default.clone()])]).unwrap();
    assert!(identity.knows_key("acme", &first) && !identity.knows_key("acme", &key()));
    assert!(!identity.knows_key("other", &first));
    let by_first = identity.check_key("acme", &first).unwrap();
    let by_second = identity.check_key("acme", &second).unwrap();

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
    let error = Identity::new(&[tenant(vec![anna.clone()])]).unwrap_err();
    assert!(
        error.to_string().starts_with("user \"acme/anna\": password_hash: not a password hash"),
        "{error}"
    );
    anna.password_hash = None;
    anna.authorized_keys = vec!["ssh-ed25519 nonsense".to_owned()];
    let error = Identity::new(&[tenant(vec![anna])]).unwrap_err();
    assert!(error.to_string().contains("authorized_keys: not a public key"), "{error}");
    let error = Identity::new(&[tenant(vec![user(1, None), user(2, None)])]).unwrap_err();
    assert!(error.to_string().contains("two users have this login"), "{error}");
}
