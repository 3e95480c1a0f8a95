//! Users' certificates in OpenSSH's format (PROTOCOL.certkeys), signed by a tenant's authority.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use russh::keys::{Algorithm, Certificate, HashAlg, ssh_key::certificate::CertType};

use super::roster::Authorities;

/// Checks that a certificate logs in as `login` from `from`. Whether the peer has the certified key is the door's
/// to verify.
///
/// # Errors
/// Why not, for the log.
pub(super) fn check(
    certificate: &Certificate,
    tenant: &Authorities,
    login: &str,
    from: IpAddr,
    now: SystemTime,
) -> Result<(), String> {
    if !tenant.cas.contains(certificate.signature_key()) {
        return Err("its authority is none of the tenant's user_ca_keys".to_owned());
    }
    if tenant.revokes(certificate.signature_key()) {
        return Err("its authority's key is revoked".to_owned());
    }
    if tenant.revokes(certificate.public_key()) {
        return Err("its key is revoked".to_owned());
    }
    if certificate.cert_type() != CertType::User {
        return Err("it is a host's certificate, not a user's".to_owned());
    }
    // RSA with SHA-1.
    if certificate.signature().algorithm() == (Algorithm::Rsa { hash: None }) {
        return Err(
            "its authority signed with SHA-1; sign it anew with `ssh-keygen -t rsa-sha2-512`".to_owned()
        );
    }
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    if certificate.validate_at(seconds, [&authority]).is_err() {
        return Err(format!(
            "its signature is wrong, or it isn't valid now (Unix time {seconds}, valid from {} to {})",
            certificate.valid_after(),
            certificate.valid_before()
        ));
    }
    // Without principals it would be valid for anybody.
    if !certificate.valid_principals().iter().any(|principal| principal == login) {
        return Err(format!("its principals don't have {login:?}: {:?}", certificate.valid_principals()));
    }
    for (name, value) in certificate.critical_options().iter() {
        match name.as_str() {
            "source-address" if allows(value, from) => {}
            "source-address" => return Err(format!("it is for {value} only")),
            // What is offered here anyway.
            "force-command" if value == "internal-sftp" => {}
            _ => return Err(format!("its critical option {name:?} isn't known here")),
        }
    }
    Ok(())
}

/// Whether a list of networks (`10.0.0.0/8,192.0.2.1`) has the address. What can't be read allows nothing.
fn allows(list: &str, from: IpAddr) -> bool {
    let from = from.to_canonical();
    list.split(',').any(|network| match (network.parse::<IpNet>(), network.parse::<IpAddr>()) {
        (Ok(network), _) => network.contains(&from),
        (_, Ok(address)) => address == from,
        _ => false,
    })
}
