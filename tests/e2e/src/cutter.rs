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
    /// After how many bytes from the server each of the next connections is cut.
    cuts: Mutex<VecDeque<usize>>,
    open: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    cut: AtomicUsize,
    closed: AtomicBool,
}

impl Cutter {
    /// Forwards to a port on 127.0.0.1. The first connections are each cut after this many bytes from the server, all
    /// others are left whole.
    pub fn new(target: u16, cuts: &[usize]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target,
            cuts: Mutex::new(cuts.iter().copied().collect()),
            open: Mutex::default(),
            connections: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
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
        thread::spawn(move || copy(upstream.0, upstream.1, None));
        let shared = Arc::clone(self);
        thread::spawn(move || {
            if copy(downstream.0, downstream.1, allowed) {
                shared.cut.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
}

/// Copies to the end, or for so many bytes, and closes both sides. Says whether bytes were held back.
fn copy(mut from: TcpStream, mut to: TcpStream, mut allowed: Option<usize>) -> bool {
    let mut buffer = vec![0; 16 << 10];
    let cut = loop {
        let Ok(read @ 1..) = from.read(&mut buffer) else { break false };
        let passed = allowed.map_or(read, |allowed| allowed.min(read));
        if to.write_all(&buffer[..passed]).is_err() {
            break false;
        }
        if passed < read {
            break true;
        }
        allowed = allowed.map(|allowed| allowed - passed);
    };
    // Either may have ended by itself.
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
    cut
}
