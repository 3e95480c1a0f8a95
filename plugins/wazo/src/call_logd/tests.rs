#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use recgate_plugin_api::testing::{self, TestHost};
use recgate_plugin_api::{Media, ScanEnd, ScanFrom, Source};
use recgate_wazo_stub::{Asked, CLIENT_ID, FaultKind, PASSWORD, REFRESH_TOKEN, TENANT, USER, WazoStub};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::Wazo;

const NOW_MS: i64 = 1_780_000_000_000;

struct Bench {
    stub: WazoStub,
    dir: TempDir,
    host: Arc<TestHost>,
    source: Wazo,
}

type Told = (Vec<Media>, Vec<Facts>, Result<ScanEnd, Error>);

impl Bench {
    fn new() -> Self {
        Self::with(WazoStub::start(), &json!({}))
    }

    fn with(stub: WazoStub, changes: &Value) -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("monitor")).unwrap();
        fs::create_dir(dir.path().join("cdr")).unwrap();
        for (name, secret) in [("password", PASSWORD), ("refresh-token", REFRESH_TOKEN)] {
            let path = dir.path().join(name);
            fs::write(&path, format!("{secret}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let mut call_logd = json!({
            "url": stub.url(),
            "auth_url": format!("{}/", stub.auth_url()),
            "tenant_uuid": TENANT,
            "user": USER,
            "password_file": dir.path().join("password"),
            "timeout": 2,
        });
        for (key, value) in changes.as_object().unwrap() {
            call_logd[key] = value.clone();
            if value.is_null() {
                call_logd.as_object_mut().unwrap().remove(key);
            }
        }
        let host = testing::host();
        host.set_now_ms(NOW_MS);
        let config = json!({
            "root": dir.path().join("monitor"),
            "cdr_dir": dir.path().join("cdr"),
            "call_logd": call_logd,
        });
        let source = Wazo::create(&config.to_string(), host.clone()).unwrap();
        Self { stub, dir, host, source }
    }

    fn scan(&self) -> Told {
        let (mut media, mut facts) = (Vec::new(), Vec::new());
        let end = drive(&self.source, &mut |item| {
            match item {
                Item::Media(medium) => media.push(medium),
                Item::Facts(fact) => facts.push(fact),
                Item::MediaGone(id) => panic!("{id}"),
            }
            Ok(())
        });
        (media, facts, end)
    }

    /// The facts of a scan that goes well.
    fn facts(&self) -> Vec<Facts> {
        let (_, facts, end) = self.scan();
        end.unwrap();
        facts
    }

    /// The error of a scan, which has nothing secret in it.
    fn error(&self) -> Error {
        let error = self.scan().2.unwrap_err();
        self.assert_no_secret(&error.message);
        error
    }

    fn pass(&self, seconds: i64) {
        self.host.set_now_ms(self.host.now_ms() + seconds * 1000);
    }

    fn put_media(&self, uuid: &str) {
        fs::write(self.dir.path().join(format!("monitor/{uuid}.wav")), b"RIFF").unwrap();
    }

    fn assert_no_secret(&self, text: &str) {
        let basic = base64_of(&format!("{USER}:{PASSWORD}"));
        for secret in [PASSWORD, REFRESH_TOKEN, basic.as_str(), "00000000-0000-4000-8000"] {
            assert!(!text.contains(secret), "{secret:?} is in {text:?}");
        }
    }
}

impl Drop for Bench {
    /// Whatever a test does, no line of the log has a secret in it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.host.lines().iter().for_each(|(.., line)| self.assert_no_secret(line));
        }
    }
}

/// Scans as the gateway does, until the scan is complete.
fn drive(source: &Wazo, emit: Emit<'_>) -> Result<ScanEnd, Error> {
    let mut end = source.scan(&testing::call(), ScanFrom::Full, emit)?;
    while !end.complete {
        let cursor = end.cursor.clone();
        end = source.scan(&testing::call(), ScanFrom::Since(&cursor), emit)?;
        assert!(end.complete || end.cursor != cursor, "the scan is stuck");
    }
    Ok(end)
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn uuid(id: u64) -> String {
    format!("5ea37d0b-0823-4d2b-a18c-{id:012x}")
}

/// A record whose call began so many hours ago.
fn record(id: u64, hours: i64) -> Value {
    let stamp = |ms: i64| {
        let at = DateTime::from_timestamp_millis(NOW_MS - hours * 3_600_000 + ms).unwrap();
        at.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
    };
    json!({
        "id": id, "tenant_uuid": TENANT, "start": stamp(0), "answer": stamp(1000), "end": stamp(60_000),
        "call_direction": "inbound", "call_status": "answered", "destination_name": "Anastasia Romanov",
        "recordings": [{
            "uuid": uuid(id), "start_time": stamp(2000), "end_time": stamp(60_000), "deleted": false,
            "filename": format!("whatever-{id}-{}.wav", uuid(id)),
        }],
    })
}

/// The ids of records that were told, in order.
fn ids(facts: &[Facts]) -> Vec<u64> {
    facts.iter().map(|facts| facts.id.split('-').nth(1).unwrap().parse().unwrap()).collect()
}

fn listings(asked: &[Asked]) -> Vec<&Asked> {
    asked.iter().filter(|asked| asked.path.ends_with("/cdr")).collect()
}

#[test]
fn records_are_told_as_from_files_and_the_token_is_given_back() {
    let bench = Bench::new();
    bench.stub.put(record(2060, 1));
    bench.put_media(&uuid(2060));
    let (media, facts, end) = bench.scan();
    let end = end.unwrap();
    assert_eq!((media.len(), end.complete, end.watermark_ms), (1, true, NOW_MS));
    // Told as recent, and by the sweep of everything, with one revision.
    assert_eq!(ids(&facts), [2060, 2060]);
    assert_eq!(facts[0], facts[1]);
    assert_eq!(facts[0].id, format!("cdr-2060-{}", uuid(2060)));
    assert_eq!(facts[0].revision, u64::try_from(NOW_MS).unwrap() * 1_000_000);

    fs::write(bench.dir.path().join("cdr/a.json"), json!({"items": [record(2060, 1)]}).to_string()).unwrap();
    let from_file = bench.facts();
    assert_eq!(from_file.len(), 1);
    assert_eq!((&from_file[0].keys, &from_file[0].values), (&facts[0].keys, &facts[0].values));

    let asked = bench.stub.asked();
    for listing in listings(&asked) {
        assert_eq!(listing.status, 200);
        let parameter = |name: &str| listing.query.get(name).map(String::as_str).unwrap_or_default();
        assert_eq!(
            (parameter("recorded"), parameter("order"), parameter("direction"), parameter("limit")),
            ("true", "id", "asc", "500")
        );
        assert!(["", "2026-05-26T20:26:40Z"].contains(&parameter("from")), "{listing:?}");
    }
    let tokens = |method: &str| asked.iter().filter(|asked| asked.method == method).count();
    assert_eq!(tokens("POST"), 1);

    let Bench { stub, .. } = &bench;
    assert_eq!(stub.state().tokens.len(), 1);
    let source = Wazo::create(
        &json!({"root": "/nowhere", "call_logd": {"url": stub.url(), "auth_url": stub.auth_url(),
            "tenant_uuid": TENANT.to_uppercase(), "user": USER,
            "password_file": bench.dir.path().join("password")}})
        .to_string(),
        bench.host.clone(),
    )
    .unwrap();
    let health = source.health(&testing::call()).unwrap();
    assert!(health.message.contains("root") && !health.message.contains("call_logd"), "{}", health.message);
    assert_eq!(stub.state().tokens.len(), 2);
    drop(source);
    assert_eq!(stub.state().tokens.len(), 1, "the token was not given back");
}

#[test]
fn a_refresh_token_does_as_well() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, REFRESH_TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let by_refresh = |client: &str| json!({"user": null, "password_file": null, "client_id": client, "refresh_token_file": file});
    let bench = Bench::with(WazoStub::start(), &by_refresh(CLIENT_ID));
    bench.stub.put(record(1, 1));
    assert_eq!(ids(&bench.facts()), [1, 1]);

    let bench = Bench::with(WazoStub::start(), &by_refresh("somebody"));
    let error = bench.error();
    assert_eq!(error.code, ErrorCode::Permission);
    assert!(error.message.contains("somebody") && error.message.contains("401"), "{}", error.message);
}

#[test]
fn pages_tell_everything_once_and_in_order_while_records_come_and_go() {
    let bench = Bench::with(WazoStub::start(), &json!({"page_size": 3}));
    for id in 1..=10 {
        bench.stub.put(record(id * 10, 1000 - i64::try_from(id).unwrap()));
    }
    bench.stub.put(record(2000, 1));
    let (mut told, mut steps) = (Vec::new(), 0);
    let end = drive(&bench.source, &mut |item| {
        if let Item::Facts(facts) = item {
            told.push(facts);
        }
        steps += 1;
        if steps == 4 {
            // In the middle of the sweep: one that was told goes, two come.
            bench.stub.state().records.remove(&10);
            bench.stub.put(record(2001, 0));
            bench.stub.put(record(95, 0));
        }
        Ok(())
    });
    end.unwrap();
    // The recent one, then everything.
    assert_eq!(ids(&told), [2000, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100, 2000, 2001]);
    let full = listings(&bench.stub.asked()).iter().filter(|asked| !asked.query.contains_key("from")).count();
    assert_eq!(full, 5);
}

#[test]
fn later_scans_ask_for_new_records_only_until_the_time_has_come() {
    let bench = Bench::with(WazoStub::start(), &json!({"recheck_interval": 600, "sweep_interval": 86_400}));
    bench.stub.put(record(5, 400));
    bench.stub.put(record(1000, 1));
    let first = bench.facts();
    assert_eq!(ids(&first), [1000, 5, 1000]);
    bench.stub.asked();

    // Too soon: nothing is asked, and the watermark stays at the last question.
    bench.pass(30);
    let (_, facts, end) = bench.scan();
    assert_eq!((facts.len(), end.unwrap().watermark_ms), (0, NOW_MS));
    assert!(bench.stub.asked().is_empty());

    // New ones, and a little before them.
    bench.stub.put(record(1001, 0));
    bench.stub.put(record(799, 900));
    bench.stub.put(record(800, 900));
    bench.pass(30);
    let (_, facts, end) = bench.scan();
    assert_eq!((ids(&facts), end.unwrap().watermark_ms), (vec![800, 1000, 1001], NOW_MS + 60_000));
    let asked = bench.stub.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].query["from_id"], "800");

    // The calls of the last days: one that came late with a low id, and one that was corrected.
    bench.stub.put(record(6, 20));
    let mut corrected = record(1000, 1);
    corrected["destination_name"] = json!("Tatiana Romanov");
    bench.stub.put(corrected);
    bench.stub.delete_recording(1001, &uuid(1001));
    bench.pass(540);
    let facts = bench.facts();
    assert_eq!(ids(&facts), [1000, 1001, 6, 1000, 1001]);
    let value = |id: u64, key: &str| {
        let of = facts.iter().rfind(|facts| ids(std::slice::from_ref(facts)) == [id]).unwrap();
        of.values.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
    };
    assert_eq!(value(1000, "agent_name").unwrap(), "Tatiana Romanov");
    assert_eq!(value(1001, "deleted").unwrap(), "true");
    assert_eq!(value(1000, "deleted"), None);
    let revision = |id| facts.iter().find(|facts| ids(std::slice::from_ref(facts)) == [id]).unwrap().revision;
    assert!(revision(1000) > u64::try_from(NOW_MS).unwrap() * 1_000_000);

    // Everything, after a day; what hasn't changed has its revision of old.
    bench.pass(86_400);
    let again = bench.facts();
    assert!(ids(&again).contains(&5) && ids(&again).contains(&799), "{:?}", ids(&again));
    let old = again.iter().find(|facts| ids(std::slice::from_ref(facts)) == [5]).unwrap();
    assert_eq!(*old, first[1]);
}

#[test]
fn what_nobody_confirmed_is_told_again() {
    let bench = Bench::with(WazoStub::start(), &json!({"page_size": 2}));
    for id in 1..=3 {
        bench.stub.put(record(id, 1000));
    }
    let mut unconfirmed = Vec::new();
    let end = bench.source.scan(&testing::call(), ScanFrom::Full, &mut |item| {
        unconfirmed.extend(if let Item::Facts(facts) = item { Some(facts) } else { None });
        Ok(())
    });
    assert!(!end.unwrap().complete);
    bench.pass(1);
    // With the revisions that it had.
    assert_eq!(bench.facts(), unconfirmed);
    assert_eq!(bench.facts(), []);
    // A cursor that belongs to no scan, as after a restart, is a whole scan.
    bench.stub.asked();
    bench.pass(86_400);
    let end = bench.source.scan(&testing::call(), ScanFrom::Since(b"told"), &mut |_| Ok(())).unwrap();
    assert!(!end.complete && !bench.stub.asked().is_empty());
}

#[test]
fn a_correction_wins_over_a_restart() {
    let bench = Bench::new();
    bench.stub.put(record(7, 1));
    let before = bench.facts().pop().unwrap();
    let mut corrected = record(7, 1);
    corrected["destination_name"] = json!("Tatiana Romanov");
    bench.stub.put(corrected);
    let config = json!({"root": bench.dir.path().join("monitor"), "call_logd": {"url": bench.stub.url(),
        "auth_url": bench.stub.auth_url(), "tenant_uuid": TENANT, "user": USER,
        "password_file": bench.dir.path().join("password")}});
    bench.pass(1);
    let restarted = Wazo::create(&config.to_string(), bench.host.clone()).unwrap();
    let mut told = Vec::new();
    let end = drive(&restarted, &mut |item| {
        told.extend(if let Item::Facts(facts) = item { Some(facts) } else { None });
        Ok(())
    });
    end.unwrap();
    assert!(told[0].id == before.id && told[0].revision > before.revision && told[0].values != before.values);
}

#[test]
fn media_are_told_and_the_scan_fails_while_the_service_is_down() {
    let mut bench = Bench::new();
    bench.stub.put(record(1, 1));
    bench.put_media(&uuid(1));
    bench.stub.go_down();
    let (media, facts, end) = bench.scan();
    assert_eq!((media.len(), facts.len()), (1, 0));
    let error = end.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("call_logd.auth_url"), "{}", error.message);
    let health = bench.source.health(&testing::call()).unwrap();
    assert!(!health.reachable && health.message.contains("call_logd"), "{}", health.message);

    bench.stub.come_up();
    let (media, facts, end) = bench.scan();
    assert_eq!((media.len(), ids(&facts), end.unwrap().watermark_ms), (1, vec![1, 1], NOW_MS));
    assert!(bench.source.health(&testing::call()).unwrap().reachable);

    // Down again: the next poll fails, the scans between them need none.
    bench.stub.go_down();
    bench.pass(59);
    bench.facts();
    bench.pass(1);
    assert_eq!(bench.error().code, ErrorCode::Unavailable);
    bench.stub.come_up();
    assert_eq!(bench.scan().2.unwrap().watermark_ms, NOW_MS + 60_000);
}

#[test]
fn the_first_sweep_goes_on_where_it_failed_and_nothing_is_complete_before() {
    let bench = Bench::with(WazoStub::start(), &json!({"page_size": 2}));
    for id in 1..=6 {
        bench.stub.put(record(id, 1000));
    }
    bench.put_media(&uuid(1));
    // The recent ones, none, and the first page of everything; then it fails.
    bench.stub.state().cdr_fault = FaultKind::Status(500, Vec::new()).once_after(2);
    let (media, facts, end) = bench.scan();
    assert_eq!((media.len(), ids(&facts)), (1, vec![1, 2]));
    assert_eq!(end.unwrap_err().code, ErrorCode::Unavailable);
    bench.stub.asked();
    let (_, facts, end) = bench.scan();
    assert_eq!(ids(&facts), [3, 4, 5, 6]);
    assert_eq!(end.unwrap().watermark_ms, NOW_MS);
    assert_eq!(listings(&bench.stub.asked())[0].query["from_id"], "3");
}

#[test]
fn tokens_are_renewed_before_they_end_and_once_when_they_are_refused() {
    let bench = Bench::with(WazoStub::start(), &json!({"page_size": 1, "poll_interval": 1}));
    for id in 1..=4 {
        bench.stub.put(record(id, 1000));
    }
    let mut steps = 0;
    let end = drive(&bench.source, &mut |_| {
        steps += 1;
        if steps == 2 {
            bench.stub.expire_tokens();
        }
        Ok(())
    });
    end.unwrap();
    assert_eq!(steps, 4);
    let asked = bench.stub.asked();
    let count = |status: u16, method: &str| {
        asked.iter().filter(|asked| asked.status == status && asked.method == method).count()
    };
    assert_eq!((count(401, "GET"), count(200, "POST")), (1, 2));

    // One that lives shortly is replaced before it ends, so none is refused.
    bench.stub.state().token_life = Some(Duration::from_secs(5));
    bench.stub.expire_tokens();
    bench.pass(1);
    bench.facts();
    bench.stub.asked();
    let begin = Instant::now();
    loop {
        bench.pass(1);
        bench.facts();
        let asked = bench.stub.asked();
        assert!(asked.iter().all(|asked| asked.status == 200), "{asked:?}");
        if asked.iter().any(|asked| asked.method == "POST") {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "the token was not renewed");
        std::thread::sleep(Duration::from_millis(50));
    }

    // Refused whatever it is: asked twice, not for ever.
    bench.stub.state().token_life = None;
    bench.stub.state().may_read = false;
    bench.pass(1);
    let error = bench.error();
    assert_eq!(error.code, ErrorCode::Permission);
    for part in ["call-logd.cdr.read", TENANT, "missing_permission"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    assert_eq!(listings(&bench.stub.asked()).len(), 2);
}

#[test]
fn a_wrong_password_is_told_in_plain_words_and_a_right_one_counts_at_once() {
    let bench = Bench::new();
    bench.stub.put(record(1, 1));
    bench.stub.state().password = "another".to_owned();
    let error = bench.error();
    assert_eq!(error.code, ErrorCode::Permission);
    for part in ["refused user \"recgate\"", "password", "check call_logd.user", "Authentication Failed"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    fs::write(bench.dir.path().join("password"), "another").unwrap();
    assert_eq!(ids(&bench.facts()), [1, 1]);
    bench.stub.expire_tokens();
    bench.pass(60);
    fs::remove_file(bench.dir.path().join("password")).unwrap();
    assert!(bench.error().message.contains("call_logd.password_file"));
}

#[test]
fn another_tenants_records_are_never_told() {
    let bench = Bench::new();
    bench.stub.put(record(1, 1));
    let mut foreign = record(2, 1);
    foreign["tenant_uuid"] = json!("11111111-282d-4bb8-8d56-fec14ff7e1e9");
    let mut nobodys = record(3, 1);
    nobodys["tenant_uuid"] = Value::Null;
    let body = json!({"items": [record(1, 1), foreign, nobodys], "total": 3, "filtered": 3}).to_string();
    bench.stub.state().cdr_fault = FaultKind::Body(body).always();
    assert_eq!(ids(&bench.facts()), [1, 1]);
    let lines = bench.host.lines();
    assert_eq!(lines.iter().filter(|(.., line)| line.contains("another tenant's")).count(), 4);
}

#[test]
fn a_tenant_that_the_user_may_not_see_is_told() {
    let other = "11111111-282d-4bb8-8d56-fec14ff7e1e9";
    let bench = Bench::with(WazoStub::start(), &json!({"tenant_uuid": other}));
    let error = bench.error();
    assert!(error.code == ErrorCode::Permission && error.message.contains(other), "{}", error.message);
}

#[test]
fn each_way_to_fail_is_an_error_of_its_own() {
    let location = ("Location".to_owned(), "http://127.0.0.1:1/elsewhere".to_owned());
    for (fault, code, part) in [
        (FaultKind::Status(500, Vec::new()), ErrorCode::Unavailable, "status 500"),
        (FaultKind::Status(302, vec![location]), ErrorCode::Unavailable, "not followed"),
        (FaultKind::Status(404, Vec::new()), ErrorCode::Unavailable, "check the address"),
        (FaultKind::Status(400, Vec::new()), ErrorCode::Invalid, "status 400"),
        (FaultKind::Status(202, Vec::new()), ErrorCode::Corrupt, "status 202"),
        (FaultKind::Cut(5), ErrorCode::Unavailable, "cut off"),
        (FaultKind::Body("<html>Welcome</html>".to_owned()), ErrorCode::Corrupt, "answer has no"),
        (FaultKind::Body("{\"items\": 7}".to_owned()), ErrorCode::Corrupt, "answer has no"),
        (FaultKind::Body(String::new()), ErrorCode::Corrupt, "answer has no"),
        (FaultKind::Raw(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()), ErrorCode::Corrupt, "speaks no HTTP"),
        (FaultKind::Raw(Vec::new()), ErrorCode::Unavailable, "no answer"),
        (FaultKind::Slow(Duration::from_secs(60)), ErrorCode::Timeout, "within timeout"),
        (FaultKind::Trickle(Duration::from_millis(50)), ErrorCode::Timeout, "within timeout"),
        (FaultKind::Huge(1 << 30), ErrorCode::TooLarge, "page_size"),
    ] {
        let bench = Bench::with(WazoStub::start(), &json!({"timeout": 1}));
        for id in 1..=40 {
            bench.stub.put(record(id, 1));
        }
        bench.put_media(&uuid(1));
        bench.stub.state().cdr_fault = fault.clone().always();
        let began = Instant::now();
        let (media, _, end) = bench.scan();
        let error = end.unwrap_err();
        bench.assert_no_secret(&error.message);
        assert_eq!((media.len(), error.code), (1, code), "{fault:?}: {}", error.message);
        assert!(
            error.message.contains(part) && error.message.contains("call_logd.url"),
            "{fault:?}: {}",
            error.message
        );
        assert!(began.elapsed() < Duration::from_secs(10), "{fault:?}");

        bench.stub.state().cdr_fault = None;
        bench.stub.state().auth_fault = fault.clone().always();
        bench.stub.expire_tokens();
        if let FaultKind::Cut(_) | FaultKind::Huge(_) | FaultKind::Trickle(_) = fault {
            continue;
        }
        let error = bench.error();
        assert!(error.message.contains("call_logd.auth_url"), "{fault:?}: {}", error.message);
        bench.stub.state().auth_fault = None;
        bench.facts();
    }
}

#[test]
fn a_service_that_asks_for_a_pause_gets_it() {
    for (status, code) in [(429, ErrorCode::RateLimited), (503, ErrorCode::Unavailable)] {
        let bench = Bench::new();
        bench.stub.put(record(1, 1));
        let headers = vec![("Retry-After".to_owned(), "1".to_owned())];
        bench.stub.state().cdr_fault = FaultKind::Status(status, headers).times(1);
        let error = bench.error();
        assert_eq!((error.code, error.retry_after_ms), (code, 1000), "{}", error.message);
        let begin = Instant::now();
        bench.stub.asked();
        let error = bench.error();
        if begin.elapsed() < Duration::from_millis(800) {
            assert!(error.code == code && (1..=1000).contains(&error.retry_after_ms));
            assert!(bench.stub.asked().is_empty());
        }
        while begin.elapsed() < Duration::from_secs(10) {
            if bench.scan().2.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(listings(&bench.stub.asked())[0].status, 200);
    }
}

#[test]
fn a_service_that_ignores_what_is_asked_is_found_out() {
    let bench = Bench::with(WazoStub::start(), &json!({"page_size": 2}));
    for id in 1..=4 {
        bench.stub.put(record(id, 1));
    }
    bench.stub.state().cdr_fault = FaultKind::IgnoreParameters.always();
    let error = bench.error();
    assert!(error.code == ErrorCode::Corrupt && error.message.contains("order"), "{}", error.message);
    let nameless = json!([{"recordings": []}, 7]).to_string();
    bench.stub.state().cdr_fault = FaultKind::Body(nameless).always();
    let error = bench.error();
    assert!(error.code == ErrorCode::Corrupt && error.message.contains("no id"), "{}", error.message);
}

#[test]
fn a_scan_can_be_cancelled_and_its_taker_can_refuse() {
    let bench = Bench::with(WazoStub::start(), &json!({"timeout": 20}));
    for id in 1..=10 {
        bench.stub.put(record(id, 1));
    }
    let end = bench.source.scan(&testing::cancelled_after(6), ScanFrom::Full, &mut |_| Ok(()));
    assert_eq!(end.unwrap_err().code, ErrorCode::Cancelled);
    let mut told = 0;
    let end = drive(&bench.source, &mut |_| {
        told += 1;
        Err(Error::new(ErrorCode::NoSpace, "enough"))
    });
    assert_eq!((end.unwrap_err().code, told), (ErrorCode::NoSpace, 1));
    assert_eq!(bench.facts().len(), 20);
}

#[test]
fn tls_needs_an_authority_that_is_trusted() {
    let stub = WazoStub::start_tls();
    let dir = TempDir::new().unwrap();
    let (own, other) = (dir.path().join("own.pem"), dir.path().join("other.pem"));
    fs::write(&own, stub.authority_pem()).unwrap();
    fs::write(&other, recgate_wazo_stub::Authority::new().pem()).unwrap();
    stub.put(record(1, 1));
    let bench = Bench::with(stub, &json!({"ca_file": own}));
    assert_eq!(ids(&bench.facts()), [1, 1]);

    for ca in [json!(other), Value::Null] {
        let bench = Bench::with(WazoStub::start_tls(), &json!({"ca_file": ca}));
        let error = bench.error();
        assert!(error.code == ErrorCode::Unavailable, "{}", error.message);
        assert!(error.message.contains("certificate"), "{}", error.message);
        assert!(bench.stub.asked().is_empty(), "something was asked before the certificate was checked");
    }
    fs::write(&other, "no certificate").unwrap();
    let bench = Bench::with(WazoStub::start_tls(), &json!({"ca_file": other}));
    assert!(bench.error().message.contains("call_logd.ca_file"));
}

#[test]
fn each_mistake_in_the_settings_is_named() {
    let good = json!({"url": "https://pbx.example/api/call-logd/1.0", "auth_url": "https://pbx.example/api/auth/0.1",
        "tenant_uuid": TENANT, "user": "u", "password_file": "/p"});
    let parse = |changes: Value| {
        let mut call_logd = good.clone();
        for (key, value) in changes.as_object().unwrap() {
            call_logd[key] = value.clone();
        }
        Settings::parse(&json!({"root": "/m", "call_logd": call_logd}).to_string())
    };
    parse(json!({})).unwrap();
    for url in
        ["http://127.0.0.1:9298/1.0", "http://[::1]:9298/1.0/", "http://localhost/x", "HTTPS://pbx.example"]
    {
        parse(json!({"url": url})).unwrap();
    }
    parse(json!({"url": "http://pbx.example/1.0", "allow_plain_http": true})).unwrap();
    for (changes, named) in [
        (json!({"url": "http://pbx.example/1.0"}), "allow_plain_http"),
        (json!({"auth_url": "http://localhost.example/0.1"}), "allow_plain_http"),
        (json!({"url": "ftp://pbx.example/1.0"}), "call_logd.url"),
        (json!({"url": "pbx.example"}), "call_logd.url"),
        (json!({"url": "/api"}), "call_logd.url"),
        (json!({"url": ""}), "call_logd.url"),
        (json!({"url": "https://u:hunter2@pbx.example"}), "user and password_file"),
        (json!({"url": "https://pbx.example/?token=hunter2"}), "parameters"),
        (json!({"tenant_uuid": "acme"}), "call_logd.tenant_uuid"),
        (json!({"user": "a:b"}), "call_logd.user"),
        (json!({"user": ""}), "call_logd.user"),
        (json!({"user": null}), "user and password_file"),
        (json!({"client_id": "c"}), "user and password_file"),
        (json!({"password_file": "p"}), "call_logd.password_file"),
        (json!({"ca_file": "p"}), "call_logd.ca_file"),
        (json!({"page_size": 0}), "call_logd.page_size"),
        (json!({"page_size": 1001}), "call_logd.page_size"),
        (json!({"timeout": 0}), "call_logd.timeout"),
        (json!({"poll_interval": 0}), "call_logd.poll_interval"),
        (json!({"lookback_days": 0}), "call_logd.lookback_days"),
        (json!({"password": "hunter2"}), "password"),
    ] {
        let error = parse(changes.clone()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Invalid);
        assert!(error.message.contains(named), "{changes}: {}", error.message);
        assert!(!error.message.contains("hunter2"), "{}", error.message);
    }
}
