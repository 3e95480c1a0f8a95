//! Many SFTP clients in one process: russh's client, and just enough SFTP (version 3) to list and to read.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use russh::{
    ChannelMsg, ChannelReadHalf, Disconnect, Preferred, cipher,
    client::{self, Handle},
    keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key},
};
use tokio::{
    net::TcpSocket,
    runtime::{Builder, Runtime},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{Bench, gateway::Synthetic, peers::Server};

const INIT: u8 = 1;
const VERSION: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;

const OK: u32 = 0;
const END_OF_FILE: u32 = 1;

/// What OpenSSH's client asks for at once, and how often before it has answers.
const PART: u32 = 32 << 10;
const REQUESTS: usize = 64;
/// Longer than any answer takes when all ask at once.
const DEADLINE: Duration = Duration::from_secs(120);
/// Logins at once: fewer than a gateway at its defaults has places for (`max_unauthenticated` = 100).
const LOGINS: usize = 64;
/// What a slow reader's socket takes in before the server has to wait.
const NARROW: u32 = 64 << 10;

/// What all clients of a server share.
pub struct Crowd {
    runtime: Runtime,
    common: Arc<Common>,
}

struct Common {
    port: u16,
    user: String,
    key: Arc<PrivateKey>,
}

/// One client, logged in.
pub struct Light {
    session: Handle<AnyHost>,
    from_server: ChannelReadHalf,
    to_server: mpsc::UnboundedSender<Bytes>,
    received: BytesMut,
    next_id: u32,
}

struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

impl Crowd {
    pub fn new(bench: &Bench, server: &Server) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let key = Arc::new(load_secret_key(bench.key(), None).unwrap());
        let common = Common { port: server.port, user: server.user.clone(), key };
        Self { runtime, common: Arc::new(common) }
    }

    /// So many clients, which log in [`LOGINS`] at a time: those that came in, and why others didn't.
    pub fn connect(&self, count: u64, slow: bool) -> (Vec<Light>, Vec<String>) {
        let places = Arc::new(Semaphore::new(LOGINS));
        let tasks = (0..count).map(|_| {
            let (common, places) = (Arc::clone(&self.common), Arc::clone(&places));
            async move {
                let _place = places.acquire().await;
                Light::connect(&common, slow).await
            }
        });
        self.all(tasks.collect())
    }

    /// Runs all tasks at once: what came out of them, and why others failed.
    pub fn all<T: Send + 'static>(
        &self,
        tasks: Vec<impl Future<Output = Result<T, String>> + Send + 'static>,
    ) -> (Vec<T>, Vec<String>) {
        let spawned: Vec<_> = tasks.into_iter().map(|task| self.runtime.spawn(task)).collect();
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for task in spawned {
            match self.runtime.block_on(task).unwrap() {
                Ok(value) => done.push(value),
                Err(why) => failed.push(why),
            }
        }
        (done, failed)
    }

    /// Lets a task run beside others.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(task)
    }

    /// Logs all out.
    pub fn leave(&self, clients: Vec<Light>) {
        let (_, failed) = self.all(clients.into_iter().map(Light::leave).collect());
        assert!(failed.is_empty(), "{failed:?}");
    }
}

impl Light {
    /// A login with the key, and SFTP's exchange of versions. A slow client takes little in before it reads.
    async fn connect(common: &Common, slow: bool) -> Result<Self, String> {
        let connecting = async {
            let socket = TcpSocket::new_v4().map_err(|error| format!("socket: {error}"))?;
            if slow {
                socket.set_recv_buffer_size(NARROW).map_err(|error| format!("socket: {error}"))?;
            }
            let stream = socket.connect(([127, 0, 0, 1], common.port).into()).await;
            let stream = stream.map_err(|error| format!("connect: {error}"))?;
            stream.set_nodelay(true).map_err(|error| format!("socket: {error}"))?;
            let config = client::Config {
                preferred: Preferred { cipher: Cow::Borrowed(&[cipher::AES_256_GCM]), ..Preferred::DEFAULT },
                channel_buffer_size: if slow { 4 } else { 100 },
                ..client::Config::default()
            };
            let ssh = |error: russh::Error| format!("ssh: {error}");
            let mut session = client::connect_stream(Arc::new(config), stream, AnyHost).await.map_err(ssh)?;
            let key = PrivateKeyWithHashAlg::new(Arc::clone(&common.key), None);
            let login = session.authenticate_publickey(common.user.clone(), key).await.map_err(ssh)?;
            if !login.success() {
                return Err(format!("login: {login:?}"));
            }
            let channel = session.channel_open_session().await.map_err(ssh)?;
            channel.request_subsystem(false, "sftp").await.map_err(ssh)?;
            let (from_server, writer) = channel.split();
            // Written by a task of its own: a client that waited for room to write while the server waits for it to
            // read would never go on.
            let (to_server, mut packets) = mpsc::unbounded_channel::<Bytes>();
            tokio::spawn(async move {
                while let Some(packet) = packets.recv().await {
                    if writer.data_bytes(packet).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Self { session, from_server, to_server, received: BytesMut::new(), next_id: 0 })
        };
        let mut light = timeout(DEADLINE, connecting).await.map_err(|_| "login: it took too long")??;
        let mut init = BytesMut::new();
        init.put_u32(5);
        init.put_u8(INIT);
        init.put_u32(3);
        light.send(init)?;
        match light.packet().await? {
            (VERSION, _) => Ok(light),
            (kind, _) => Err(format!("the answer to the version has type {kind}")),
        }
    }

    /// Reads the names of a folder; says how many there are.
    pub async fn list(&mut self, path: &str) -> Result<usize, String> {
        let handle = self.handle(OPENDIR, &text(path.as_bytes())).await?;
        let mut names = 0;
        loop {
            match self.ask(READDIR, &text(&handle)).await? {
                (NAME, mut fields) => names += fields.try_get_u32().map_err(short)? as usize,
                (STATUS, mut fields) => match status(&mut fields)? {
                    (END_OF_FILE, _) => break,
                    (code, message) => return Err(format!("READDIR: status {code}, {message}")),
                },
                (kind, _) => return Err(format!("READDIR: an answer of type {kind}")),
            }
        }
        self.close(&handle).await?;
        Ok(names)
    }

    /// Opens a file for reading.
    pub async fn open(&mut self, path: &str) -> Result<Bytes, String> {
        let mut payload = text(path.as_bytes());
        payload.put_u32(1);
        payload.put_u32(0);
        self.handle(OPEN, &payload).await
    }

    /// Closes what was opened.
    pub async fn close(&mut self, handle: &[u8]) -> Result<(), String> {
        match self.ask(CLOSE, &text(handle)).await? {
            (STATUS, mut fields) => match status(&mut fields)? {
                (OK, _) => Ok(()),
                (code, message) => Err(format!("CLOSE: status {code}, {message}")),
            },
            (kind, mut fields) => Err(unexpected("CLOSE", kind, &mut fields)),
        }
    }

    /// Reads the first `size` bytes of the `index`-th synthetic medium as OpenSSH's client does, with many requests under
    /// way, and compares some of them. With `pace` it takes no more bytes a second, and keeps asking all the same.
    /// Each part is told to `progress`.
    pub async fn read(
        &mut self,
        handle: &[u8],
        index: u64,
        size: u64,
        pace: Option<u64>,
        mut progress: impl FnMut(u64),
    ) -> Result<(), String> {
        let mut asked = 0;
        let mut got = 0;
        let mut open: HashMap<u32, u64> = HashMap::new();
        let begin = Instant::now();
        while got < size {
            let mut requests = BytesMut::new();
            while open.len() < REQUESTS && asked < size {
                open.insert(self.next_id, asked);
                let mut payload = text(handle);
                payload.put_u64(asked);
                payload.put_u32(PART);
                self.put_request(&mut requests, READ, &payload);
                asked += u64::from(PART);
            }
            if !requests.is_empty() {
                self.send(requests)?;
            }
            let (kind, mut fields) = self.packet().await?;
            let id = fields.try_get_u32().map_err(short)?;
            let offset = open.remove(&id).ok_or("an answer to a request that wasn't made")?;
            if kind != DATA {
                return Err(unexpected(&format!("READ at {offset}"), kind, &mut fields));
            }
            let length = u64::from(fields.try_get_u32().map_err(short)?);
            let expected = u64::from(PART).min(size - offset);
            if length != expected || fields.len() as u64 != length {
                return Err(format!("READ at {offset}: {length} bytes instead of {expected}"));
            }
            let (first, last) = (offset, offset + length - 8);
            for at in [first, last] {
                let place = usize::try_from(at - offset).unwrap();
                if fields.get(place..place + 8) != Some(&Synthetic::word(index, at)[..]) {
                    return Err(format!("READ at {offset}: other bytes than the medium has at {at}"));
                }
            }
            got += length;
            progress(length);
            if let Some(pace) = pace {
                let due = begin + Duration::from_millis(got * 1000 / pace);
                tokio::time::sleep_until(due.into()).await;
            }
        }
        Ok(())
    }

    async fn leave(self) -> Result<(), String> {
        let Self { session, to_server, from_server, .. } = self;
        drop((to_server, from_server));
        // A connection that has ended already is left, too.
        drop(session.disconnect(Disconnect::ByApplication, "", "").await);
        drop(timeout(DEADLINE, session).await);
        Ok(())
    }

    async fn handle(&mut self, kind: u8, payload: &[u8]) -> Result<Bytes, String> {
        match self.ask(kind, payload).await? {
            (HANDLE, mut fields) => bytes(&mut fields),
            (answer, mut fields) => Err(unexpected(&format!("request {kind}"), answer, &mut fields)),
        }
    }

    /// One request and its answer: the answer's type, and what follows its id.
    async fn ask(&mut self, kind: u8, payload: &[u8]) -> Result<(u8, Bytes), String> {
        let id = self.next_id;
        let mut packet = BytesMut::new();
        self.put_request(&mut packet, kind, payload);
        self.send(packet)?;
        let (kind, mut fields) = self.packet().await?;
        match fields.try_get_u32() {
            Ok(answered) if answered == id => Ok((kind, fields)),
            _ => Err("the answer to another request".into()),
        }
    }

    fn put_request(&mut self, to: &mut BytesMut, kind: u8, payload: &[u8]) {
        to.put_u32(u32::try_from(payload.len() + 5).unwrap());
        to.put_u8(kind);
        to.put_u32(self.next_id);
        to.put_slice(payload);
        self.next_id += 1;
    }

    fn send(&self, packet: BytesMut) -> Result<(), String> {
        self.to_server.send(packet.freeze()).map_err(|_| "the connection has ended".into())
    }

    /// The next packet: its type, and what follows.
    async fn packet(&mut self) -> Result<(u8, Bytes), String> {
        loop {
            if let Some(mut length) = self.received.get(..4) {
                let length = length.get_u32() as usize;
                if length == 0 || length > 1 << 20 {
                    return Err(format!("a packet of {length} bytes"));
                }
                if self.received.len() >= 4 + length {
                    self.received.advance(4);
                    let mut packet = self.received.split_to(length).freeze();
                    return Ok((packet.get_u8(), packet));
                }
            }
            let message = timeout(DEADLINE, self.from_server.wait()).await;
            match message.map_err(|_| "no answer: the connection hangs")? {
                Some(ChannelMsg::Data { data }) => self.received.extend_from_slice(&data),
                Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::Failure) | None => {
                    return Err("the server has ended the connection".into());
                }
                Some(_) => {}
            }
        }
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let mut field = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    field.extend(bytes);
    field
}

fn bytes(fields: &mut Bytes) -> Result<Bytes, String> {
    let length = fields.try_get_u32().map_err(short)? as usize;
    if length > fields.len() {
        Err("an answer that is too short".into())
    } else {
        Ok(fields.split_to(length))
    }
}

fn status(fields: &mut Bytes) -> Result<(u32, String), String> {
    let code = fields.try_get_u32().map_err(short)?;
    Ok((code, String::from_utf8_lossy(&bytes(fields)?).into_owned()))
}

fn unexpected(what: &str, kind: u8, fields: &mut Bytes) -> String {
    match kind {
        STATUS => match status(fields) {
            Ok((code, message)) => format!("{what}: status {code}, {message}"),
            Err(error) => format!("{what}: {error}"),
        },
        kind => format!("{what}: an answer of type {kind}"),
    }
}

fn short(_: bytes::TryGetError) -> String {
    "an answer that is too short".into()
}
