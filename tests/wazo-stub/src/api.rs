//! What the two services answer.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    Asked, CLIENT_ID, Fault, FaultKind, REFRESH_TOKEN, State, USER,
    server::{Answer, Request},
};

const CALL_LOGD: &str = "/api/call-logd/1.0";
const AUTH: &str = "/api/auth/0.1";
/// The fields of a record that `order` takes: any but `end`, `tags` and `recordings`.
const ORDERS: [&str; 8] =
    ["id", "start", "answer", "duration", "call_direction", "source_name", "destination_name", "tenant_uuid"];

/// Answers a request, and notes it.
pub(crate) fn answer(request: &Request, state: &mut State) -> Answer {
    let is_auth = request.path.starts_with(AUTH);
    let fault = if is_auth { due(&mut state.auth_fault) } else { due(&mut state.cdr_fault) };
    let ignoring = matches!(fault, Some(FaultKind::IgnoreParameters));
    let mut answer = match (&fault, request.path.strip_prefix(AUTH), request.path.strip_prefix(CALL_LOGD)) {
        (Some(FaultKind::Status(status, headers)), ..) => {
            let body = if is_auth {
                auth_error(*status, "Told to fail")
            } else {
                error("told-to-fail", "Told to fail", json!({}))
            };
            Answer { status: *status, headers: headers.clone(), body: body.to_string(), fault: None }
        }
        (Some(FaultKind::Body(body)), ..) => {
            Answer { status: 200, headers: Vec::new(), body: body.clone(), fault: None }
        }
        (_, Some(path), _) => auth(request, path, state),
        (_, _, Some(path)) => call_logd(request, path, state, ignoring),
        _ => plain(404, error("not-found", "Not found", json!({}))),
    };
    answer.fault = fault;
    let Request { method, path, query, .. } = request;
    let (method, path, query) = (method.clone(), path.clone(), query.clone());
    state.asked.push(Asked { method, path, query, status: answer.status });
    answer
}

/// The fault that counts for this answer.
fn due(fault: &mut Option<Fault>) -> Option<FaultKind> {
    let now = fault.as_mut()?;
    if now.after > 0 {
        now.after -= 1;
        return None;
    }
    if now.times == 0 {
        return None;
    }
    now.times = now.times.saturating_sub(u32::from(now.times != u32::MAX));
    Some(now.kind.clone())
}

/// The decoded parameters of a query.
pub(crate) fn parameters(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, tail @ ..]) => {
                let hex = [*high, *low];
                bytes.push(u8::from_str_radix(str::from_utf8(&hex).unwrap(), 16).unwrap());
                rest = tail;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn auth(request: &Request, path: &str, state: &mut State) -> Answer {
    match (request.method.as_str(), path.strip_prefix("/token")) {
        ("POST", Some("")) => new_token(request, state),
        ("DELETE", Some(id)) => {
            state.tokens.remove(id.trim_start_matches('/'));
            plain(200, json!({"data": {"message": "success"}}))
        }
        ("GET" | "HEAD", Some(id)) => match state.tokens.get(id.trim_start_matches('/')) {
            Some(until) if Instant::now() < *until => plain(200, json!({"data": {}})),
            _ => plain(404, auth_error(404, "No such token")),
        },
        _ => plain(404, auth_error(404, "Not found")),
    }
}

fn new_token(request: &Request, state: &mut State) -> Answer {
    let bad = |what: &str| plain(400, auth_error(400, what));
    let body: Value = match request.body.as_slice() {
        [] => json!({}),
        body => match serde_json::from_slice(body) {
            Ok(body @ Value::Object(_)) => body,
            _ => return bad("Invalid body"),
        },
    };
    let expiration = match body.get("expiration") {
        None => 7200,
        Some(value) => match value.as_i64() {
            Some(seconds @ 1..=315_360_000) => seconds,
            _ => return bad("Invalid expiration"),
        },
    };
    if body.get("tenant_id").is_some() && body.get("domain_name").is_some() {
        return bad("tenant_id and domain_name");
    }
    let offline = body["access_type"] == "offline";
    let may = if let Some(refresh) = body.get("refresh_token") {
        if body.get("client_id").is_none() || offline {
            return bad("refresh_token needs client_id, and access_type online");
        }
        refresh == REFRESH_TOKEN && body["client_id"] == CLIENT_ID
    } else {
        if offline && body.get("client_id").is_none() {
            return bad("offline needs client_id");
        }
        let header = request.headers.get("authorization").map(String::as_str).unwrap_or_default();
        let login = header.strip_prefix("Basic ").and_then(|encoded| STANDARD.decode(encoded).ok());
        login == Some(format!("{USER}:{}", state.password).into_bytes())
    };
    if !may {
        return plain(401, auth_error(401, "Authentication Failed"));
    }
    let life = state.token_life.unwrap_or(Duration::from_secs(u64::try_from(expiration).unwrap()));
    let token = format!("00000000-0000-4000-8000-{:012x}", state.next_token);
    state.next_token += 1;
    state.tokens.insert(token.clone(), Instant::now() + life);
    let (issued, expires) = (Utc::now(), Utc::now() + TimeDelta::from_std(life).unwrap());
    let stamp = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    plain(
        200,
        json!({"data": {
            "token": token,
            "auth_id": "b2e98781-7118-4010-8da3-b93b1b7e1389",
            "xivo_user_uuid": null,
            "xivo_uuid": "9bd5e9f5-5e0a-4ab4-a4e5-3f6b7e4a0d11",
            "issued_at": stamp(issued),
            "expires_at": stamp(expires),
            "utc_issued_at": stamp(issued),
            "utc_expires_at": stamp(expires),
            "acl": ["call-logd.cdr.read"],
            "metadata": {"tenant_uuid": state.tenants[0]},
            "session_uuid": "3f1a2c52-0f41-4b83-8a8e-9b0f0a3c7d55",
            "remote_addr": "127.0.0.1",
            "user_agent": request.headers.get("user-agent"),
        }}),
    )
}

fn call_logd(request: &Request, path: &str, state: &State, ignoring: bool) -> Answer {
    let query = &request.query;
    let token = request.headers.get("x-auth-token").or_else(|| query.get("token"));
    let unauthorized =
        |error_id: &str, reason: &str| plain(401, error(error_id, "Unauthorized", json!({"reason": reason})));
    if token.and_then(|token| state.tokens.get(token)).is_none_or(|until| Instant::now() >= *until) {
        return unauthorized("unauthorized", "not_found_or_expired");
    }
    if !state.may_read {
        return unauthorized("unauthorized", "missing_permission_or_invalid_tenant");
    }
    let tenant = request.headers.get("wazo-tenant").or_else(|| query.get("tenant"));
    let tenant = tenant.unwrap_or(&state.tenants[0]);
    if !state.tenants.contains(tenant) {
        return unauthorized("unauthorized-tenant", "the tenant is not under the token");
    }
    match (request.method.as_str(), path) {
        ("GET", "/cdr") => match listing(query, tenant, state, ignoring) {
            Ok(listing) => plain(200, listing),
            Err(field) => {
                let details =
                    json!({field: {"message": "Not valid", "constraint_id": "type", "constraint": "valid"}});
                plain(400, error("invalid-data", "Sent data is invalid", details))
            }
        },
        _ => plain(404, error("not-found", "Not found", json!({}))),
    }
}

/// The envelope, or the name of the parameter that is wrong.
fn listing(
    query: &BTreeMap<String, String>,
    tenant: &str,
    state: &State,
    ignoring: bool,
) -> Result<Value, &'static str> {
    let text = |name: &str| query.get(name).map(String::as_str);
    let number =
        |name: &'static str| text(name).map(|text| text.parse::<u64>().map_err(|_| name)).transpose();
    let truth = |name: &'static str| match text(name) {
        None => Ok(None),
        Some("true" | "True" | "1") => Ok(Some(true)),
        Some("false" | "False" | "0") => Ok(Some(false)),
        Some(_) => Err(name),
    };
    let instant = |name: &'static str| text(name).map(|text| instant(text).ok_or(name)).transpose();
    let (from, until) = (instant("from")?, instant("until")?);
    let (limit, offset) = (number("limit")?.unwrap_or(1000), number("offset")?.unwrap_or(0));
    let (from_id, recorded) = (number("from_id")?, truth("recorded")?);
    let recurse = truth("recurse")?.unwrap_or(false);
    let order = text("order").unwrap_or("start");
    if !ORDERS.contains(&order) {
        return Err("order");
    }
    let ascending = match text("direction") {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err("direction"),
    };

    let visible = |record: &&Value| {
        record["tenant_uuid"] == tenant
            || recurse && state.tenants.iter().any(|known| record["tenant_uuid"] == **known)
    };
    let all: Vec<&Value> = state.records.values().filter(visible).collect();
    let total = all.len();
    let wanted = |record: &&Value| {
        let start = record["start"].as_str().and_then(instant_of);
        let status = text("call_status");
        from.is_none_or(|from| start.is_some_and(|start| start >= from))
            && until.is_none_or(|until| start.is_some_and(|start| start < until))
            && from_id.is_none_or(|id| record["id"].as_u64().unwrap() >= id)
            && recorded
                .is_none_or(|recorded| recorded != record["recordings"].as_array().is_none_or(Vec::is_empty))
            && text("call_direction").is_none_or(|direction| record["call_direction"] == direction)
            && status.map_or(record["call_status"] != "blocked", |status| record["call_status"] == status)
    };
    let mut found: Vec<&Value> = if ignoring { all } else { all.into_iter().filter(wanted).collect() };
    let filtered = found.len();
    if !ignoring {
        found.sort_by(|a, b| {
            let order = compare(&a[order], &b[order]);
            if ascending { order } else { order.reverse() }
        });
    }
    let skipped = found.into_iter().skip(usize::try_from(offset).unwrap());
    let items: Vec<&Value> = match limit {
        // As the service does it: nought is false, so no limit.
        0 => skipped.collect(),
        limit => skipped.take(usize::try_from(limit).unwrap()).collect(),
    };
    Ok(json!({"items": items, "total": total, "filtered": filtered}))
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_u64(), b.as_u64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        // null comes first when ascending, last when descending.
        _ => a.as_str().cmp(&b.as_str()),
    }
}

fn instant(text: &str) -> Option<DateTime<Utc>> {
    let naive = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok();
    instant_of(text).or_else(|| naive().map(|naive| naive.and_utc()))
}

fn instant_of(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc())
}

/// The shape of wazo-call-logd's errors.
fn error(error_id: &str, message: &str, details: Value) -> Value {
    json!({"message": message, "error_id": error_id, "details": details, "timestamp": now()})
}

/// The shape of wazo-auth's own errors.
fn auth_error(status: u16, reason: &str) -> Value {
    json!({"reason": [reason], "timestamp": [now()], "status_code": status})
}

fn now() -> f64 {
    let ms = u32::try_from(Utc::now().timestamp_millis() % 1_000_000).unwrap();
    1_700_000_000.0 + f64::from(ms) / 1000.0
}

fn plain(status: u16, body: Value) -> Answer {
    Answer { status, headers: Vec::new(), body: body.to_string(), fault: None }
}
