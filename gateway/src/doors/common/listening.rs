//! Taking connections, and whether that works, for those who watch over the gateway.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// After a failed attempt to take a connection, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener of a door, as others see it. Clones are the same.
#[derive(Debug, Clone)]
pub struct Listening {
    door: &'static str,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Accepting,
    /// With what the operating system says.
    Failing(String),
    Ended,
}

impl Listening {
    /// A listener that is open. What takes its connections keeps the second value until it ends, for whatever reason.
    pub fn new(door: &'static str, address: SocketAddr) -> (Self, Accepting) {
        let listening = Self { door, address, state: Arc::new(Mutex::new(State::Accepting)) };
        (listening.clone(), Accepting(listening))
    }

    /// Why it takes no connections, in words; `None` while it does.
    pub fn trouble(&self) -> Option<String> {
        let Self { door, address, state } = self;
        match &*state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Accepting => None,
            State::Failing(error) => {
                Some(format!("the {door} door can't accept connections on {address}: {error}"))
            }
            State::Ended => {
                Some(format!("the {door} door accepts no more connections on {address}; restart the gateway"))
            }
        }
    }

    /// Whether that is news.
    fn set(&self, state: State) -> bool {
        let mut now = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *now != state;
        *now = state;
        news
    }
}

/// What takes a listener's connections. When it is dropped, nobody takes them any more.
#[derive(Debug)]
pub struct Accepting(Listening);

impl Accepting {
    /// The next connection, however often `accept` fails before there is one. Being dropped while it waits loses
    /// nothing, if that is so of `accept`.
    pub async fn next<T, F: Future<Output = io::Result<T>>>(&mut self, mut accept: impl FnMut() -> F) -> T {
        let Self(listening) = self;
        let mut failing = false;
        loop {
            let attempt = accept();
            let accepted = if failing {
                // It waits for a connection instead of failing: what kept it from taking one is over.
                match tokio::time::timeout(ACCEPT_PAUSE, attempt).await {
                    Ok(accepted) => accepted,
                    Err(_) => {
                        failing = false;
                        listening.set(State::Accepting);
                        continue;
                    }
                }
            } else {
                attempt.await
            };
            match accepted {
                Ok(connection) => {
                    listening.set(State::Accepting);
                    return connection;
                }
                Err(error) => {
                    // A trouble is logged when it begins, not for each connection.
                    if listening.set(State::Failing(error.to_string())) {
                        let (door, address) = (listening.door, listening.address);
                        tracing::warn!(door, %address, %error, "connections can't be accepted");
                    }
                    failing = true;
                    // Without descriptors or memory the next attempt fails as well, and at once.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.set(State::Ended);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn listening() -> (Listening, Accepting) {
        Listening::new("sftp", SocketAddr::from(([127, 0, 0, 1], 2022)))
    }

    fn no_descriptors() -> io::Error {
        io::Error::from_raw_os_error(24)
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_told_until_it_works() {
        let (listening, mut accepting) = listening();
        assert_eq!(listening.trouble(), None);
        let seen = listening.clone();
        let mut attempts = 0;
        let connection = accepting.next(|| {
            attempts += 1;
            let (attempt, trouble) = (attempts, seen.trouble());
            async move {
                if attempt == 1 {
                    return Err(no_descriptors());
                }
                assert_eq!(
                    trouble.unwrap(),
                    "the sftp door can't accept connections on 127.0.0.1:2022: Too many open files (os error 24)"
                );
                if attempt < 5 { Err(no_descriptors()) } else { Ok(attempt) }
            }
        });
        assert_eq!(connection.await, 5);
        assert_eq!(listening.trouble(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_waits_again_has_no_trouble() {
        let (listening, mut accepting) = listening();
        let mut attempts = 0;
        let mut waits = std::pin::pin!(accepting.next(|| {
            attempts += 1;
            let attempt = attempts;
            async move {
                match attempt {
                    1 => Err(no_descriptors()),
                    _ => std::future::pending::<io::Result<()>>().await,
                }
            }
        }));
        assert!(tokio::time::timeout(ACCEPT_PAUSE / 2, &mut waits).await.is_err());
        assert!(listening.trouble().is_some());
        assert!(tokio::time::timeout(3 * ACCEPT_PAUSE, &mut waits).await.is_err());
        assert_eq!(listening.trouble(), None, "nobody came meanwhile, and somebody could have");
    }

    #[tokio::test]
    async fn what_has_ended_is_told() {
        let (listening, accepting) = listening();
        let ended = tokio::spawn(async move {
            let _accepting = accepting;
            panic!("a defect");
        });
        assert!(ended.await.unwrap_err().is_panic());
        assert_eq!(
            listening.trouble().unwrap(),
            "the sftp door accepts no more connections on 127.0.0.1:2022; restart the gateway"
        );
    }
}
