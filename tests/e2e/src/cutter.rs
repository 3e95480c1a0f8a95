//! A connection that breaks: a TCP forwarder that cuts after so many bytes.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// A forwarder on a port of its own. Dropping it cuts what is left.
#[derive(Debug)]
pub struct Cutter {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: u16,
    /// What is cut is closed in both directions at once.
    abrupt: bool,
    /// After how many bytes from the server each of the next connections is cut.
    cuts: Mutex<VecDeque<usize>>,
    open: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    cut: AtomicUsize,
    /// Bytes from the server that clients were sent.
    passed: AtomicUsize,
    closed: AtomicBool,
}

impl Cutter {
    /// Forwards to a port on 127.0.0.1. The first connections are each cut after this many bytes from the server, all
    /// others are left whole.
    ///
    /// A client that is cut learns of it after the last byte, by an end of file.
    pub fn new(target: u16, cuts: &[usize]) -> Self {
        Self::start(target, cuts, false)
    }

    /// The same, but a client that is cut and still sends is reset, as by a router that has forgotten the connection.
    /// It may leave unread what has come.
    pub fn abrupt(target: u16, cuts: &[usize]) -> Self {
        Self::start(target, cuts, true)
    }

    fn start(target: u16, cuts: &[usize], abrupt: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target,
            abrupt,
            cuts: Mutex::new(cuts.iter().copied().collect()),
            open: Mutex::default(),
            connections: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            passed: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.closed.load(Ordering::SeqCst) {
                    return;
                }
                accepting.forward(client.unwrap());
            }
        });
        Self { port, shared }
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many of them were cut because their bytes were used up.
    pub fn cuts(&self) -> usize {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// How many bytes from the server have passed, over all connections.
    pub fn passed(&self) -> usize {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// Cuts all connections of this moment.
    pub fn cut_now(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            // It may have ended by itself.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        self.cut_now();
    }
}

impl Shared {
    fn forward(self: &Arc<Self>, client: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        // A gateway that has ended refuses; the client sees its connection end.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target)) else { return };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let allowed = self.cuts.lock().unwrap().pop_front();
        let twin = |stream: &TcpStream| stream.try_clone().unwrap();
        self.open.lock().unwrap().extend([twin(&client), twin(&server)]);
        let (upstream, downstream) = ((twin(&client), twin(&server)), (server, client));
        thread::spawn(move || send_on(upstream.0, upstream.1));
        let shared = Arc::clone(self);
        thread::spawn(move || shared.bring(downstream.0, downstream.1, allowed));
    }

    /// Copies from the server to its end, or so many bytes.
    fn bring(&self, mut server: TcpStream, mut client: TcpStream, mut allowed: Option<usize>) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = server.read(&mut buffer) {
            let passed = allowed.map_or(read, |allowed| allowed.min(read));
            if client.write_all(&buffer[..passed]).is_err() {
                break;
            }
            self.passed.fetch_add(passed, Ordering::SeqCst);
            if passed < read {
                // Before the client can know.
                self.cut.fetch_add(1, Ordering::SeqCst);
                break;
            }
            allowed = allowed.map(|allowed| allowed - passed);
        }
        // Either may have ended by itself.
        drop(server.shutdown(Shutdown::Both));
        drop(client.shutdown(if self.abrupt { Shutdown::Both } else { Shutdown::Write }));
    }
}

/// Copies from the client to its end; what the server doesn't take any more is read all the same.
fn send_on(mut client: TcpStream, mut server: TcpStream) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        // The other direction tells the client.
        drop(server.write_all(&buffer[..read]));
    }
    // Either may have ended by itself.
    drop(client.shutdown(Shutdown::Both));
    drop(server.shutdown(Shutdown::Both));
}
