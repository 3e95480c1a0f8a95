//! Crowds before the door: half-open connections, guessed passwords, caps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
};

use super::testing::{Memory, TestDoor, config, deadline, limits, throttle};
use crate::config::{Limits, Throttle};

const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const ELSEWHERE: &[&str] = &["-o", "BindAddress=127.0.0.2"];

async fn open(limits: Limits, throttle: Throttle) -> TestDoor {
    TestDoor::open_limited(Memory::new(&[]), config(), limits, throttle).await
}

/// A throttle that lets everybody connect.
fn unpaced() -> Throttle {
    Throttle { connection_burst: 100_000, ..throttle() }
}

async fn connect_from(address: Ipv4Addr, door: &TestDoor) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(address), 0)).unwrap();
    deadline(socket.connect(door.address)).await.unwrap()
}

/// The first line that the door sends; empty where there is none.
async fn first_line(socket: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        match deadline(socket.read_u8()).await {
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(line).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Allows as many file descriptors as the system lets; returns how many.
fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |current| usize::try_from(current).unwrap_or(usize::MAX))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_half_open_connections_keep_nobody_out() {
    // This process holds both ends of those that have a place, and one end of all others.
    let count = 2000.min(raise_descriptors() / 2);
    let limits = Limits { max_unauthenticated: 40, max_connections: 60, ..limits() };
    let door = open(limits, unpaced()).await;
    let admission = door.identity.entrance().admission();
    let mut crowd = Vec::new();
    for number in 0..count {
        crowd.push(connect_from(CROWD, &door).await);
        let status = admission.status();
        assert!(status.unauthenticated <= 40, "{status:?}");
        if number % 500 == 499 {
            let output = door.sftp_with("acme", ELSEWHERE, "ls\n").await;
            assert!(output.status.success(), "after {number}: {}", text(&output.stderr));
        }
    }
    // The crowd has pushed out itself, the oldest first.
    deadline(async {
        while admission.status().turned_away < (count - 40) as u64 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut all = Vec::new();
    let _ = deadline(crowd[0].read_to_end(&mut all)).await;
    let status = admission.status();
    // A place was the session's, and nobody has taken it since.
    assert!((39..=40).contains(&status.unauthenticated), "{status:?}");
    drop(crowd);
    // Nothing leaks: all places and sockets come back.
    deadline(async {
        while admission.status().unauthenticated > 0 || admission.arriving() > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_too_often_waits_or_is_turned_away_until_somebody_logs_in() {
    let door =
        open(limits(), Throttle { connection_burst: 5, connections_per_second: 1, ..throttle() }).await;
    let mut crowd = Vec::new();
    for _ in 0..30 {
        crowd.push(connect_from(CROWD, &door).await);
    }
    let mut lines = Vec::new();
    for socket in &mut crowd {
        lines.push(first_line(socket).await);
    }
    let count = |line: &str| lines.iter().filter(|it| *it == line).count();
    let (greeted, refused) =
        (count("SSH-2.0-recgate\r\n"), count("Not allowed at this time: too many connections\r\n"));
    assert_eq!(greeted + refused, 30, "{lines:?}");
    assert!(greeted >= 5 && refused >= 1, "{lines:?}");
    // Nobody else is concerned.
    assert!(door.sftp_with("acme", ELSEWHERE, "ls\n").await.status.success());
    // And now as many as it likes.
    let mut sockets = Vec::new();
    for _ in 0..30 {
        sockets.push(connect_from(Ipv4Addr::new(127, 0, 0, 2), &door).await);
    }
    for socket in &mut sockets {
        assert_eq!(first_line(socket).await, "SSH-2.0-recgate\r\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_passwords_is_refused_and_locks_nobody_out() {
    let door = open(limits(), Throttle { refuse_after: 3, ..throttle() }).await;
    let output = door.sftp_with_password_and(ELSEWHERE, "acme", "guess").await;
    assert!(!output.status.success());
    // The answers after the third failure are the same, whatever is tried.
    let err = text(&output.stderr);
    assert!(err.contains("Too many authentication failures"), "{err}");
    let status = door.identity.entrance().throttle().status(std::time::Instant::now());
    assert_eq!((status.refused, status.worst[0].origin.to_string().as_str()), (1, "127.0.0.2"));
    let mut socket = connect_from(Ipv4Addr::new(127, 0, 0, 2), &door).await;
    assert_eq!(first_line(&mut socket).await, "Not allowed at this time: too many failed logins\r\n");
    let output = door.sftp_with("acme", ELSEWHERE, "ls\n").await;
    assert!(!output.status.success(), "the right key doesn't help");
    // The tenant isn't locked, and who works is spared, however much fails there.
    assert!(door.sftp_with_password("acme", "secret").await.status.success());
    for _ in 0..2 {
        assert!(!door.sftp_with_password("acme", "guess").await.status.success());
    }
    assert!(door.sftp_with_password("acme", "secret").await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_pushed_out_while_a_failure_waits_for_its_answer_goes_at_once() {
    let limits = Limits { max_unauthenticated: 1, ..limits() };
    let patient =
        Throttle { delay_at_most: std::time::Duration::from_secs(3600), refuse_after: 100, ..unpaced() };
    let door = open(limits, patient).await;
    let entrance = door.identity.entrance();
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    for _ in 0..20 {
        entrance.throttle().failed(from, None, std::time::Instant::now());
    }
    let guesses = door.sftp_with_password_and(ELSEWHERE, "acme", "guess");
    let crowds = async {
        let worst = || entrance.throttle().status(std::time::Instant::now()).worst[0].failures;
        while worst() < 21 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        connect_from(CROWD, &door).await
    };
    // Each way its end is the end of its socket too; russh's task has it.
    let (output, _newer) = deadline(async { tokio::join!(guesses, crowds) }).await;
    assert!(!output.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_and_an_address_have_so_many_connections_and_no_more() {
    let limits = Limits {
        max_connections_per_tenant: 2,
        max_connections_per_address: 3,
        max_unauthenticated: 10,
        ..limits()
    };
    let door = open(limits, unpaced()).await;
    let (first, _second) = (door.raw().await, door.raw().await);
    let output = door.sftp("acme", "ls\n").await;
    assert!(!output.status.success());
    let err = text(&output.stderr);
    assert!(err.contains("this tenant has too many connections at this time"), "{err}");

    // Two sessions and one that hasn't logged in: a newer one takes its place.
    let mut waiting = connect_from(Ipv4Addr::LOCALHOST, &door).await;
    assert_eq!(first_line(&mut waiting).await, "SSH-2.0-recgate\r\n");
    let mut newer = connect_from(Ipv4Addr::LOCALHOST, &door).await;
    assert_eq!(first_line(&mut newer).await, "SSH-2.0-recgate\r\n");
    assert_eq!(first_line(&mut waiting).await, "", "it has lost its place");
    door.identity.configure(
        &Limits { max_connections_per_tenant: 9, max_connections_per_address: 2, ..Limits::default() },
        &unpaced(),
    );
    let mut third = connect_from(Ipv4Addr::LOCALHOST, &door).await;
    assert_eq!(first_line(&mut third).await, "Not allowed at this time: too many connections\r\n");
    assert!(door.sftp_with("acme", ELSEWHERE, "ls\n").await.status.success(), "from elsewhere there is room");
    first.finish().await;
    assert!(door.sftp("acme", "ls\n").await.status.success());
}
