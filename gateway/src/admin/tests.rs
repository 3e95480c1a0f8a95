#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::state::DataDirLock;
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
};

use super::{
    client::{Client, ClientError},
    *,
};

pub(super) struct Fake;

fn some_status() -> Status {
    let source = SourceReport {
        id: 1,
        name: "pbx".to_owned(),
        plugin: "wazo".to_owned(),
        scanning: false,
        watched: true,
        watch_problem: None,
        partial: false,
        complaints: 0,
        complaint: None,
        unmatched_facts: 0,
        facts_left_out: 0,
        media: 0,
        last_scan: None,
        lag_seconds: Some(12),
        problem: None,
        plugin_status: SourceStatus {
            available: true,
            last_error: Some("slow".to_owned()),
            ..SourceStatus::default()
        }
        .into(),
    };
    Status {
        version: "0.1.0".to_owned(),
        started: DateTime::UNIX_EPOCH,
        pid: 7,
        data_dir: PathBuf::from("/data"),
        draining: false,
        doors: vec![DoorStatus {
            door: "sftp".to_owned(),
            address: "127.0.0.1:2022".to_owned(),
            host_keys: vec!["SHA256:abc".to_owned()],
        }],
        metrics: Some("127.0.0.1:9464".to_owned()),
        sessions: SessionCounts { connections: 2, sessions: 1, ..SessionCounts::default() },
        throttle: ThrottleReport {
            refused: 1,
            worst: vec![WorstAddressReport {
                address: "192.0.2.1".to_owned(),
                failures: 2,
                refusals: 1,
                refused_seconds: 7,
            }],
            ..ThrottleReport::default()
        },
        password_checks: Some(PasswordChecks { running: 2, waiting: 5 }),
        settings: Some(SettingsReport { login_grace_ms: 120_000, ..SettingsReport::default() }),
        tenants: vec![TenantStatus {
            id: 1,
            name: "acme".to_owned(),
            sessions: 1,
            max_sessions: Some(10),
            bandwidth: Some(20 << 20),
            recordings: RecordingCounts { published: 5, ..RecordingCounts::default() },
            sources: vec![source],
        }],
        journals: vec![JournalHead { chain: "governance".to_owned(), sequence: 9, sha256: "00".repeat(32) }],
    }
}

/// What the first release told; a newer command line asks an older gateway while that is being replaced.
#[test]
fn an_older_gateways_status_is_read() {
    let text = r#"{"version":"0.1.0","started":"1970-01-01T00:00:00Z","pid":7,"data_dir":"/data","draining":false,
        "doors":[{"door":"sftp","address":"127.0.0.1:2022","host_keys":["SHA256:abc"]}],
        "sessions":{"connections":2,"max_connections":1000,"sessions":1},
        "tenants":[{"id":1,"name":"acme","recordings":{"learned":0,"published":5,"orphans":0,"missing":0,"corrupt":0},
        "sources":[]}],"journals":[]}"#;
    let status: Status = serde_json::from_str(text).unwrap();
    assert_eq!((status.sessions.connections, status.sessions.turned_away), (2, 0));
    assert_eq!((status.settings, status.password_checks, status.tenants[0].bandwidth), (None, None, None));
    assert_eq!(status.throttle, ThrottleReport::default());
    // And what it doesn't know of a newer one it leaves out.
    let mut newer = serde_json::to_value(some_status()).unwrap();
    newer["sessions"]["moonlight"] = 1.into();
    newer["settings"]["throttle"]["moonlight"] = 1.into();
    assert_eq!(serde_json::from_value::<Status>(newer).unwrap(), some_status());
}

#[async_trait]
impl Operations for Fake {
    async fn status(&self) -> Status {
        some_status()
    }

    async fn accept_loss(
        &self,
        request: AcceptLossRequest,
        by: Actor,
    ) -> Result<AcceptLossReport, OperationError> {
        if request.source == "acme/gone" {
            return Err(OperationError::NotFound("there is no source acme/gone".to_owned()));
        }
        Ok(AcceptLossReport { source: format!("{} by {by}", request.source), media: 7 })
    }

    async fn backup(&self, directory: PathBuf) -> Result<BackupReport, String> {
        if directory.ends_with("full") {
            return Err("the disk is full; choose another folder".to_owned());
        }
        Ok(BackupReport { directory, files: 3, bytes: 99, journals: Vec::new() })
    }
}

pub(super) fn started(dir: &Path) -> (DataDirLock, AdminServer) {
    let lock = DataDirLock::acquire(dir).unwrap();
    let server = AdminServer::start(&lock, Arc::new(Fake)).unwrap();
    (lock, server)
}

#[tokio::test]
async fn the_client_gets_what_the_operations_say() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("new/data");
    let (lock, server) = started(&data);
    let client = Client::new(&data);
    assert_eq!(client.status().await.unwrap(), some_status());
    assert_eq!(client.backup(Path::new("/backup/1")).await.unwrap().files, 3);
    let refused = client.backup(Path::new("/full")).await.unwrap_err();
    assert_eq!(refused.to_string(), "the gateway refuses: the disk is full; choose another folder");
    let relative = client.backup(Path::new("here")).await.unwrap_err();
    assert_eq!(relative.to_string(), "the gateway refuses: \"directory\" must be an absolute path");

    let accept =
        async |source: &str| client.accept_loss(&AcceptLossRequest { source: source.to_owned() }).await;
    let me = Actor::LocalUser(rustix::process::geteuid().as_raw());
    assert_eq!(accept("acme/pbx").await.unwrap().source, format!("acme/pbx by {me}"));
    let refused = accept("acme/gone").await.unwrap_err();
    assert_eq!(refused.to_string(), "the gateway refuses: there is no source acme/gone");

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("admin.sock")), 0o600);
    let mut names: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["admin.sock", DataDirLock::FILE], "nothing is left of the socket's birth");

    server.stop().await;
    assert!(!data.join("admin.sock").exists());
    drop(lock);
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning(_)));
    assert!(error.to_string().starts_with("no gateway is running with this data folder ("), "{error}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let live = UnixListener::bind(&path).unwrap();
    let lock = DataDirLock::acquire(dir.path()).unwrap();
    let error = AdminServer::start(&lock, Arc::new(Fake)).unwrap_err();
    assert!(error.to_string().starts_with("another gateway answers at "), "{error}");
    // Closing leaves the file behind, as a kill does.
    drop(live);
    assert!(path.exists());
    let server = AdminServer::start(&lock, Arc::new(Fake)).unwrap();
    assert_eq!(Client::new(dir.path()).status().await.unwrap().pid, 7);
    server.stop().await;
}

#[test]
fn one_process_works_on_a_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DataDirLock::acquire(dir.path()).unwrap();
    let error = DataDirLock::acquire(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("stop that one first"), "{error}");
    drop(lock);
    DataDirLock::acquire(dir.path()).unwrap();
    assert!(DataDirLock::acquire_existing(&dir.path().join("none")).is_err());
}

#[tokio::test]
async fn a_path_that_the_kernel_cannot_take_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(100));
    let lock = DataDirLock::acquire(&long).unwrap();
    let error = AdminServer::start(&lock, Arc::new(Fake)).unwrap_err();
    assert!(matches!(error, SocketError::PathTooLong(_)), "{error}");
}

#[tokio::test]
async fn nonsense_gets_an_error_in_json() {
    use std::io::{Read, Write};

    let dir = tempfile::tempdir().unwrap();
    let (_lock, server) = started(dir.path());
    let path = dir.path().join("admin.sock");
    let ask = |request: String| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            // A connection that is reset after the answer is an answer too.
            let _ = stream.read_to_string(&mut answer);
            answer
        })
    };
    let head = "HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    for (line, body, status, text) in [
        ("GET /v1/nothing", String::new(), "404", "there is no such resource"),
        ("DELETE /v1/status", String::new(), "405", "doesn't know that method"),
        ("POST /v1/state/backup", "{".to_owned(), "400", "error"),
        ("POST /v1/state/backup", "{\"directory\":\"/a\",\"x\":1}".to_owned(), "422", "unknown field"),
        ("POST /v1/state/backup", format!("\"{}\"", "x".repeat(70_000)), "413", "length limit"),
    ] {
        let answer = ask(format!("{line} {head}content-length: {}\r\n\r\n{body}", body.len())).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
        assert!(answer.contains("{\"error\":\"") && answer.contains(text), "{line}: {answer}");
    }
    server.stop().await;
}
