//! Recordings and indexes over the socket, with operations that answer as the tests want.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::{Read, Seek, Write},
    os::unix::net::UnixStream,
};

use chrono::DateTime;
use uuid::Uuid;

use super::{
    client::Client,
    records::*,
    tests::{Fake, started},
    *,
};
use crate::catalog::{Actor, State};

fn some_row() -> RecordingRow {
    RecordingRow {
        tenant: "acme".to_owned(),
        uid: Uuid::from_u128(7),
        state: State::Missing,
        folder: Some("S20160607".to_owned()),
        name: Some("R201606070030000000.wav".to_owned()),
        start: DateTime::parse_from_rfc3339("2016-06-06T17:30:00.250-07:00").unwrap(),
        stop: DateTime::parse_from_rfc3339("2016-06-06T17:31:00-07:00").unwrap(),
        duration_ms: Some(59_750),
        size: 44,
        source: "pbx".to_owned(),
        media: "a.wav".to_owned(),
        call_type: None,
        agent_name: Some("Björn".to_owned()),
        customer_number: None,
        called_number: None,
        queue_name: None,
        transaction_id: Some("7".to_owned()),
    }
}

/// Bytes of an index that takes several pieces.
const INDEX: usize = 600_000;

#[async_trait]
impl Records for Fake {
    async fn search(&self, request: SearchRequest) -> Result<SearchAnswer, OperationError> {
        match (request.from.as_deref(), request.state) {
            (Some(_), _) => Err(OperationError::Invalid { field: "from", reason: "no date".to_owned() }),
            (None, Some(State::Orphan)) => Err(OperationError::Failed("the disk is gone".to_owned())),
            _ => Ok(SearchAnswer { recordings: vec![some_row()], after: request.after, examined: 5 }),
        }
    }

    async fn show(&self, request: ShowRequest) -> Result<RecordingReport, OperationError> {
        if request.recording == "nobody" {
            return Err(OperationError::NotFound("there is no recording nobody".to_owned()));
        }
        Ok(RecordingReport {
            row: some_row(),
            published: None,
            told: None,
            waits_until: None,
            values: [("agent_name".to_owned(), ValueReport { value: "Björn".to_owned(), from: None })].into(),
            facts: Vec::new(),
            erased: None,
        })
    }

    async fn erase_facts(&self, request: EraseRequest, by: Actor) -> Result<EraseReport, OperationError> {
        Ok(EraseReport { tenant: request.reason, path: Some(by.to_string()), ..EraseReport::default() })
    }

    async fn indexes(&self, _request: IndexListRequest) -> Result<IndexListAnswer, OperationError> {
        Ok(IndexListAnswer::default())
    }

    async fn open_index(&self, request: IndexShowRequest) -> Result<IndexContent, OperationError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content()).unwrap();
        // What has been appended since doesn't count.
        file.write_all(b"more").unwrap();
        file.rewind().unwrap();
        let promised = if request.day == "cut" { INDEX + 100 } else { INDEX };
        Ok(IndexContent { file, length: promised as u64 })
    }

    async fn republish(&self, request: RepublishRequest) -> Result<RepublishReport, OperationError> {
        Ok(RepublishReport { written: vec![request.from], ..RepublishReport::default() })
    }
}

fn content() -> Vec<u8> {
    (0..INDEX).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[tokio::test]
async fn the_client_gets_what_the_operations_say_of_recordings() {
    let dir = tempfile::tempdir().unwrap();
    let (_lock, server) = started(dir.path());
    let client = Client::new(dir.path());
    let request = SearchRequest { after: Some("x".to_owned()), ..SearchRequest::default() };
    let answer = client.search(&request).await.unwrap();
    assert_eq!((answer.recordings, answer.after.as_deref()), (vec![some_row()], Some("x")));
    let wrong = SearchRequest { from: Some("yesterday".to_owned()), ..SearchRequest::default() };
    let refused = client.search(&wrong).await.unwrap_err().to_string();
    assert_eq!(refused, "the gateway refuses: from: no date");
    let orphans = SearchRequest { state: Some(State::Orphan), ..SearchRequest::default() };
    let failed = client.search(&orphans).await.unwrap_err().to_string();
    assert_eq!(failed, "the gateway refuses: the disk is gone");

    let show = |recording: &str| ShowRequest { recording: recording.to_owned(), ..ShowRequest::default() };
    assert_eq!(client.show(&show("a")).await.unwrap().values["agent_name"].value, "Björn");
    let refused = client.show(&show("nobody")).await.unwrap_err().to_string();
    assert_eq!(refused, "the gateway refuses: there is no recording nobody");

    // Who asks is what the kernel says.
    let erase = EraseRequest { reason: "because".to_owned(), ..EraseRequest::default() };
    let report = client.erase_facts(&erase).await.unwrap();
    let me = Actor::LocalUser(rustix::process::geteuid().as_raw());
    assert_eq!((report.tenant.as_str(), report.path), ("because", Some(me.to_string())));

    assert_eq!(client.indexes(&IndexListRequest::default()).await.unwrap(), IndexListAnswer::default());
    let republish = RepublishRequest { from: "2016-06-06".to_owned(), ..RepublishRequest::default() };
    assert_eq!(client.republish(&republish).await.unwrap().written, ["2016-06-06"]);
    server.stop().await;
}

#[tokio::test]
async fn an_index_comes_in_pieces_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (_lock, server) = started(dir.path());
    let client = Client::new(dir.path());
    let fetch = async |day: &str| {
        let (mut bytes, mut largest) = (Vec::new(), 0);
        let request = IndexShowRequest { day: day.to_owned(), ..IndexShowRequest::default() };
        let end: Result<(), client::ClientError> = client
            .index(&request, |piece| {
                largest = largest.max(piece.len());
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .await;
        end.map(|()| (bytes, largest))
    };
    let (bytes, largest) = fetch("2016-06-06").await.unwrap();
    assert!(bytes == content(), "{} bytes", bytes.len());
    assert!(largest < INDEX, "it isn't held whole");
    let error = fetch("cut").await.unwrap_err();
    assert!(matches!(error, client::ClientError::Broken { .. }), "what is too short is no index: {error}");
    server.stop().await;
}

#[tokio::test]
async fn requests_say_which_field_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (_lock, server) = started(dir.path());
    let path = dir.path().join("admin.sock");
    let ask = |line: &str, body: &str| {
        let request = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        })
    };
    for (line, body, status, text) in [
        ("POST /v1/recordings/search", r#"{"limit":"many"}"#, "422", "limit"),
        ("POST /v1/recordings/search", r#"{"state":"lost"}"#, "422", "state"),
        ("POST /v1/recordings/search", r#"{"moon":1}"#, "422", "moon"),
        ("POST /v1/recordings/search", r#"{"from":"x"}"#, "400", "from: no date"),
        ("POST /v1/recordings/search", r#"{"state":"orphan"}"#, "500", "the disk is gone"),
        ("POST /v1/recordings/show", r#"{"recording":"nobody"}"#, "404", "no recording nobody"),
        ("POST /v1/recordings/show", "{}", "422", "recording"),
        ("GET /v1/recordings/search", "", "405", "doesn't know that method"),
        ("POST /v1/indexes/show", r#"{"day":"x","file":"best"}"#, "422", "file"),
        ("POST /v1/indexes/republish", "{}", "422", "from"),
    ] {
        let answer = ask(line, body).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line} {body}: {answer}");
        assert!(answer.contains("{\"error\":\"") && answer.contains(text), "{line} {body}: {answer}");
    }
    server.stop().await;
}
