//! Passwords as argon2id hashes (RFC 9106) in PHC strings.
//!
//! New hashes cost 19 MiB, 2 passes, 1 lane: OWASP's first recommendation for argon2id. A gateway checks passwords
//! beside transfers, so it takes the setting with little memory; a configuration may hold costlier hashes.

use std::{collections::HashMap, sync::Arc};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};

use super::{origin::Origin, turns::Turns};

/// Memory in KiB, passes and lanes of new hashes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// What a configured hash may cost at most: 256 MiB, 16 passes, 16 lanes.
const MOST: (u32, u32, u32) = (256 * 1024, 16, 16);
/// The longest password in bytes.
const LONGEST: usize = 1024;

/// A hash that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not a PHC string.
    #[error("not a password hash ({0}); make one with `recgate hash-password`")]
    Unreadable(String),
    /// Another algorithm.
    #[error("the algorithm is {0}, only argon2id is taken; make a hash with `recgate hash-password`")]
    Algorithm(String),
    /// Checking it would take the gateway down.
    #[error(
        "a check costs {0} KiB, {1} passes and {2} lanes; at most 262144 KiB, 16 passes and 16 lanes are taken"
    )]
    TooCostly(u32, u32, u32),
    /// The password is empty or longer than 1024 bytes.
    #[error("a password has 1 to {LONGEST} bytes")]
    Length,
    /// The operating system gave no random bytes, or another defect.
    #[error("the password can't be hashed: {0}")]
    Failed(String),
}

/// Hashes a password with a new salt into a PHC string (`$argon2id$v=19$m=19456,t=2,p=1$…`). Takes tens of
/// milliseconds.
///
/// # Errors
/// [`HashError::Length`], or [`HashError::Failed`] without random bytes.
pub fn hash_password(password: &str) -> Result<String, HashError> {
    if password.is_empty() || password.len() > LONGEST {
        return Err(HashError::Length);
    }
    let hasher = hasher(COST).map_err(HashError::Failed)?;
    let hash: PasswordHash =
        hasher.hash_password(password.as_bytes()).map_err(|error| HashError::Failed(error.to_string()))?;
    Ok(hash.to_string())
}

/// Checks that a PHC string is an argon2id hash whose check the gateway can afford.
///
/// # Errors
/// What is wrong and what to do.
pub fn parse_password_hash(text: &str) -> Result<(), HashError> {
    cost_of(text).map(|_| ())
}

/// Hashes that no password matches (their output is no hash of anything), each as costly as one of these: one of them
/// stands for the password of a login that isn't there.
pub(super) fn dummy_hashes(hashes: &[&str]) -> Vec<Arc<str>> {
    let mut made: HashMap<(u32, u32, u32), Arc<str>> = HashMap::new();
    let mut dummy = |cost| Arc::clone(made.entry(cost).or_insert_with(|| dummy_hash(cost).into()));
    let mut dummies: Vec<_> = hashes.iter().filter_map(|hash| cost_of(hash).ok()).map(&mut dummy).collect();
    if dummies.is_empty() {
        dummies.push(dummy(COST));
    }
    dummies
}

fn dummy_hash((m, t, p): (u32, u32, u32)) -> String {
    format!(
        "$argon2id$v=19$m={m},t={t},p={p}$cmVjZ2F0ZWR1bW15c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    )
}

/// Checks passwords off the runtime's threads, few at once.
#[derive(Debug, Default)]
pub(super) struct Passwords {
    turns: Turns,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Right,
    Wrong,
    /// The queue was full, see [`Turns`].
    Busy,
    /// When its turn had come, it was no longer to be checked.
    TooLate,
}

impl Passwords {
    /// Checks that run and that wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.turns.counts()
    }

    /// Checks a password that came `from` an address, which is `spared` if it logged in lately. `still` is asked when its
    /// turn has come.
    pub(super) async fn verify(
        &self,
        from: Origin,
        spared: bool,
        still: impl FnOnce() -> bool,
        hash: Arc<str>,
        password: String,
    ) -> Outcome {
        let Some(turn) = self.turns.turn(from, spared).await else {
            return Outcome::Busy;
        };
        if !still() {
            return Outcome::TooLate;
        }
        // The turn goes along: a client that hangs up doesn't make room while its check still runs.
        let check = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            verify(&hash, &password)
        });
        match check.await {
            Ok(true) => Outcome::Right,
            Ok(false) => Outcome::Wrong,
            Err(error) => {
                tracing::error!(%error, "a password check failed; this is a defect");
                Outcome::Wrong
            }
        }
    }
}

fn verify(hash: &str, password: &str) -> bool {
    // The whole of an over-long password isn't hashed, yet its check takes as long as any.
    let (password, fits) = match password.as_bytes().get(..LONGEST) {
        Some(start) if password.len() > LONGEST => (start, false),
        _ => (password.as_bytes(), true),
    };
    let Ok(parsed) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password, &parsed).is_ok() && fits
}

fn cost_of(text: &str) -> Result<(u32, u32, u32), HashError> {
    let parsed = PasswordHash::new(text).map_err(|error| HashError::Unreadable(error.to_string()))?;
    if parsed.algorithm.as_str() != "argon2id" {
        return Err(HashError::Algorithm(parsed.algorithm.to_string()));
    }
    if parsed.salt.is_none() || parsed.hash.is_none() {
        return Err(HashError::Unreadable("salt or hash is missing".to_owned()));
    }
    let params = Params::try_from(&parsed).map_err(|error| HashError::Unreadable(error.to_string()))?;
    let cost = (params.m_cost(), params.t_cost(), params.p_cost());
    if cost.0 > MOST.0 || cost.1 > MOST.1 || cost.2 > MOST.2 {
        return Err(HashError::TooCostly(cost.0, cost.1, cost.2));
    }
    Ok(cost)
}

fn hasher((memory, passes, lanes): (u32, u32, u32)) -> Result<Argon2<'static>, String> {
    let params = Params::new(memory, passes, lanes, None).map_err(|error| error.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hash_verifies_its_password_and_no_other() {
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(verify(&hash, "correct horse"));
        assert!(!verify(&hash, "correct horsf"));
        assert_ne!(hash, hash_password("correct horse").unwrap(), "each hash has its salt");
    }

    #[test]
    fn only_affordable_argon2id_is_taken() {
        assert_eq!(parse_password_hash(&dummy_hash(COST)), Ok(()));
        assert!(matches!(parse_password_hash("secret"), Err(HashError::Unreadable(_))));
        let other = dummy_hash(COST).replace("argon2id", "argon2i");
        assert!(matches!(parse_password_hash(&other), Err(HashError::Algorithm(_))));
        let costly = dummy_hash(COST).replace("m=19456", "m=1048576");
        assert!(matches!(parse_password_hash(&costly), Err(HashError::TooCostly(1_048_576, 2, 1))));
        assert!(matches!(
            parse_password_hash("$argon2id$v=19$m=19456,t=2,p=1"),
            Err(HashError::Unreadable(_))
        ));
    }

    #[test]
    fn dummies_cost_what_the_hashes_cost() {
        let cheap = dummy_hash((64, 2, 1));
        let dummies = dummy_hashes(&[&cheap, &hash_password("secret").unwrap(), &cheap, "no hash"]);
        let costs: Vec<_> = dummies.iter().map(|dummy| cost_of(dummy).unwrap()).collect();
        assert_eq!(costs, [(64, 2, 1), COST, (64, 2, 1)]);
        assert_eq!(dummy_hashes(&[]).len(), 1);
        assert!(dummies.iter().all(|dummy| !verify(dummy, "")));
    }

    #[test]
    fn an_overlong_password_never_matches() {
        let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let hash: PasswordHash = cheap.hash_password("x".repeat(LONGEST).as_bytes()).unwrap();
        assert!(verify(&hash.to_string(), &"x".repeat(LONGEST)));
        assert!(!verify(&hash.to_string(), &"x".repeat(LONGEST + 1)));
    }
}
