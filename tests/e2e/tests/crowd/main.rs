//! Ten thousand connections that never log in, all at once: they cost bounded memory, and whoever belongs here gets in.
//!
//! A program of its own: gateways of other tests would inherit the limit that these raise for their process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::VecDeque,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use recgate_e2e::{
    hostile::{Kexinit, PATIENCE, Scene, Sftp, Ssh},
    wait_for,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Connections that are held open.
const CROWD: usize = 10_000;
/// Files that this process needs for them, and for all else that it does.
const FILES: u64 = CROWD as u64 + 500;
/// What a crowd may take of the gateway's memory, with its 100 places for those who haven't logged in: each with its
/// buffers and a key exchange that was begun. Passwords aren't a part of it: what hashing takes is the allocator's to
/// keep.
const A_CROWD: u64 = 48 << 20;

/// Only one crowd at a time: for two a process may not have files enough.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A crowd that has failed is gone.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets this process have [`FILES`].
fn raise_the_limit() {
    let limit = getrlimit(Resource::Nofile);
    assert!(
        limit.maximum.is_none_or(|maximum| maximum >= FILES),
        "this test holds {CROWD} connections and needs {FILES} open files, but the hard limit is {:?}: raise it to \
         {FILES}, with `ulimit -Hn`, LimitNOFILE= of systemd or `--ulimit nofile=` of a container",
        limit.maximum
    );
    if limit.current.is_some_and(|current| current < FILES) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum: limit.maximum }).unwrap();
    }
}

/// Waits until the gateway has nobody more who hasn't logged in: the login grace ends the last ones.
fn all_are_gone(scene: &Scene) {
    wait_for("the end of the last connections without a login", PATIENCE, || {
        let status = scene.fixture.recgate(&["status", "--json"]).success().stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        (status["sessions"]["unauthenticated"].as_u64().unwrap() == 0).then_some(())
    });
}

/// A crowd in a thread of its own; it renews itself until it is told to go.
struct Crowd {
    opened: Arc<AtomicUsize>,
    leave: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Crowd {
    /// From so many addresses in turn.
    fn gather(port: u16, addresses: u32) -> Self {
        let (opened, leave) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, told) = (Arc::clone(&opened), Arc::clone(&leave));
        let greeting = b"SSH-2.0-hostile\r\n".to_vec();
        let kexinit = [&greeting[..], &Ssh::greet(port).packed(&Kexinit::default().message())].concat();
        let thread = thread::spawn(move || {
            let mut crowd = VecDeque::with_capacity(CROWD);
            let mut number = 0_u32;
            while !told.load(Ordering::Relaxed) {
                if crowd.len() == CROWD {
                    crowd.pop_front();
                }
                let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 100, 0, 1).to_bits() + number % addresses);
                let mut stream = connect(from, port);
                // Some say nothing, some who they are, some begin the key exchange. Not all are connected by now.
                match number % 3 {
                    0 => {}
                    1 => drop(stream.write_all(&greeting)),
                    _ => drop(stream.write_all(&kexinit)),
                }
                crowd.push_back(stream);
                number += 1;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { opened, leave, thread: Some(thread) }
    }

    /// Waits until so many more have been opened.
    fn goes_on(&self, more: usize) {
        let enough = self.opened.load(Ordering::Relaxed) + more;
        wait_for("more of the crowd", PATIENCE, || {
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the crowd has failed");
            (self.opened.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    fn leave(mut self) {
        self.leave.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("the crowd has failed");
    }
}

impl Drop for Crowd {
    /// Where the test has failed: the next crowd needs its files.
    fn drop(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Doesn't wait for the connection.
fn connect(from: Ipv4Addr, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    drop(socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()));
    socket.into()
}

#[test]
fn ten_thousand_from_few_addresses_are_noticed_by_nobody() {
    let _alone = alone();
    let scene = Scene::new();
    // The gateway has started with the limit that it was given.
    raise_the_limit();
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    let crowd = Crowd::gather(scene.port, 8);
    crowd.goes_on(CROWD);
    // Nobody has ever seen the address that this one comes from.
    let (path, bytes) = scene.small();
    assert!(scene.sftp().download(&path, bytes.len(), 1, 32 << 10) == bytes);
    bystander.works_on();
    crowd.goes_on(CROWD / 10);
    memory.grew_at_most(A_CROWD);
    scene.unharmed();
    crowd.leave();
    bystander.leave();
    all_are_gone(&scene);
    scene.unharmed();
}

#[test]
fn ten_thousand_from_everywhere_dont_keep_out_who_has_been_here_before() {
    let _alone = alone();
    let scene = Scene::new();
    raise_the_limit();
    // From here on 127.0.0.1 is known.
    scene.unharmed();
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    let crowd = Crowd::gather(scene.port, 5000);
    crowd.goes_on(CROWD);
    let (path, bytes) = scene.small();
    for _ in 0..3 {
        let mut sftp = Sftp::ready(scene.ssh_from(Ipv4Addr::LOCALHOST));
        assert!(sftp.download(&path, bytes.len(), 1, 32 << 10) == bytes);
        bystander.works_on();
        crowd.goes_on(CROWD / 10);
    }
    memory.grew_at_most(A_CROWD);
    for _ in 0..3 {
        scene.unharmed();
    }
    crowd.leave();
    bystander.leave();
    all_are_gone(&scene);
    scene.unharmed();
}
