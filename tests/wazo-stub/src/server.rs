//! A small HTTP/1.1 server: a thread a connection, requests in turn.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::{FaultKind, State, api};

/// A request, as far as it matters.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// An answer, right or not.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) fault: Option<FaultKind>,
}

#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(
        address: SocketAddr,
        state: Arc<Mutex<State>>,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(Vec::new()));
        let acceptor = {
            let (over, open) = (Arc::clone(&over), Arc::clone(&open));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if over.load(Ordering::Acquire) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let closing = stream.try_clone().unwrap();
                    open.lock().unwrap().push(stream.try_clone().unwrap());
                    let (state, tls, over) = (Arc::clone(&state), tls.clone(), Arc::clone(&over));
                    thread::spawn(move || {
                        // Whoever goes away in the middle is no failure of the stub.
                        drop(match tls {
                            Some(config) => ServerConnection::new(config)
                                .map_err(io::Error::other)
                                .and_then(|tls| serve(StreamOwned::new(tls, stream), &state, &over)),
                            None => serve(stream, &state, &over),
                        });
                        // The copies of the connection would keep it open.
                        drop(closing.shutdown(Shutdown::Both));
                    });
                }
            })
        };
        Self { address, over, open, acceptor: Some(acceptor) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        for stream in self.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn serve<S: Read + Write>(stream: S, state: &Mutex<State>, over: &AtomicBool) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while !over.load(Ordering::Acquire) {
        let Some(request) = read(&mut stream)? else { return Ok(()) };
        let answer = api::answer(&request, &mut state.lock().unwrap());
        if !write(stream.get_mut(), &answer, over)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), api::parameters(query));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Request { method, path, query, headers, body }))
}

/// Says whether the connection goes on.
fn write(stream: &mut impl Write, answer: &Answer, over: &AtomicBool) -> io::Result<bool> {
    let mut body = answer.body.as_bytes();
    let mut length = u64::try_from(body.len()).unwrap();
    match &answer.fault {
        Some(FaultKind::Raw(bytes)) => {
            stream.write_all(bytes)?;
            stream.flush()?;
            return Ok(false);
        }
        Some(FaultKind::Slow(pause)) => wait(*pause, over),
        Some(FaultKind::Cut(kept)) => body = &body[..body.len().min(*kept)],
        Some(FaultKind::Huge(bytes)) => length = *bytes,
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {} Whatever\r\nContent-Type: application/json\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes())?;
    match &answer.fault {
        Some(FaultKind::Trickle(pause)) => {
            for byte in body {
                stream.write_all(&[*byte])?;
                stream.flush()?;
                wait(*pause, over);
            }
        }
        Some(FaultKind::Huge(bytes)) => {
            let chunk = [b' '; 64 * 1024];
            stream.write_all(b"{\"items\": [")?;
            for _ in 0..bytes / 65_536 {
                stream.write_all(&chunk)?;
            }
        }
        _ => stream.write_all(body)?,
    }
    stream.flush()?;
    Ok(!matches!(answer.fault, Some(FaultKind::Cut(_) | FaultKind::Huge(_))))
}

/// Ends early when the server does.
fn wait(mut pause: Duration, over: &AtomicBool) {
    const STEP: Duration = Duration::from_millis(10);
    while !pause.is_zero() && !over.load(Ordering::Acquire) {
        let step = pause.min(STEP);
        thread::sleep(step);
        pause -= step;
    }
}
