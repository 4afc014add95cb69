//! What an instance may say.

use balancer::top::model::{Answer, ServerDetail, Status};
use serde_json::{Value, json};

/// 2026-11-22T10:11:12Z
const NOW: u64 = 1_795_342_272_345;

fn answer(status: Value, flows: Value) -> Answer {
    let status: Status = serde_json::from_value(status).expect("a status");
    let flows = Some(Ok(serde_json::from_value(flows).expect("flows")));
    let detail = ServerDetail { connections: 60, entries: Some(411), fast_traffic: None };
    Answer { status, flows, server: Some(("app-2".to_owned(), detail)), at: NOW }
}

fn info(name: &str) -> Value {
    json!({"name": name, "version": "0.1.0", "pid": 4711, "uptime_seconds": 11_640, "draining": false,
        "workers": 2, "max_connections": 8000, "listen": ["192.0.2.10:80"], "tables": "kernel"})
}

fn server(name: &str, number: u64, state: &str) -> Value {
    let serves = if state == "up" || state == "drain" { number } else { 0 };
    json!({
        "name": name, "address": format!("10.0.{}.{}:8080", number / 200, number % 200 + 11), "host": null,
        "state": state, "operator": if state == "drain" || state == "maint" { state } else { "ready" },
        "health": if state == "down" { "down" } else { "up" }, "weight": 1, "effective_weight": 1.0,
        "backup": false, "cookie": name, "id": number, "generation": 0, "in_flight": serves * 7 % 13,
        "maxconn": null, "queue": 0, "requests": number * 123_457, "fast": serves * 37 % 101,
        "fast_traffic": {"opened": number * 4321, "closed": number * 4300, "active": serves * 37 % 101,
            "packets_in": number * 54_321, "packets_out": number * 98_765, "bytes_in": number * 8_765_432,
            "bytes_out": number * 98_765_432},
        "entries": number * 137 % 1000, "millis": {"queue": 0, "connect": 1, "response": 9 + number % 5, "total": 11 + number % 5},
        "sessions": number * 123_457, "sessions_per_second": serves * 31 % 57,
        "responses": {"1xx": 0, "2xx": number * 123_000, "3xx": 400, "4xx": 50, "5xx": 7 * u64::from(state == "down"), "none": 0},
        "failures": {"connect": 12 * u64::from(state == "down"), "response": 0, "broken_off": 0},
        "seconds_in_state": if state == "up" { 11_640 } else { 40 + number },
        "down_seconds": 95 * u64::from(state == "down"),
    })
}

fn history() -> Value {
    let sample = |n: u32| {
        let wave = f64::from(n * 7919 % 83);
        json!({
            "at": NOW / 1000 - u64::from(120 - n) * 5,
            "requests_per_second": 900.0 + 10.0 * wave, "connections_per_second": 80.0 + wave,
            "fast_per_second": 300.0 + 4.0 * wave, "failures_per_second": if n % 50 == 7 { 1.4 } else { 0.0 },
            "p50_millis": if n < 9 { Value::Null } else { json!(1.0 + wave / 50.0) },
            "p99_millis": if n < 9 { Value::Null } else { json!(12.0 + wave) }, "in_flight": 12, "fast": 1204,
        })
    };
    json!({"seconds": 5, "samples": (0..120).map(sample).collect::<Vec<_>>()})
}

fn decision(second: u32, status: Option<u16>, server: Option<&str>, letters: &str, persist: &str) -> Value {
    json!({"time": format!("2026-11-22T10:11:{second:02}.345Z"), "client": format!("198.51.100.{second}"), "status": status,
        "server": server, "letters": letters, "persist": persist})
}

fn status(name: &str, servers: &[Value]) -> Value {
    json!({
        "now": NOW, "info": info(name), "ready": true,
        "clients": {"now": 340, "most": 912, "limit": 8000, "connections_per_second": 93, "requests_per_second": 1187},
        "responses": {"1xx": 0, "2xx": 1_234_567, "3xx": 4321, "4xx": 987, "5xx": 12, "none": 3},
        "millis": {"queue": 0, "connect": 1, "response": 11, "total": 13}, "waiting": 0, "servers": servers,
        "tables": [
            {"name": "source", "kind": "kernel", "entries": 1834, "probation": 0, "size": 100_000, "timeout": 1800},
            {"name": "session=JSESSIONID", "kind": "kernel", "entries": 98_020, "probation": 1020, "size": 100_000, "timeout": 10_800},
        ],
        "fast_path": {"connections": 1204, "opened": 98_765, "share": 0.87},
        "history": history(),
        "decisions": [
            decision(5, Some(200), Some("app-1"), "NI", "cookie:miss,session=JSESSIONID:miss,source:miss,balance>app-1"),
            decision(7, Some(200), Some("app-1"), "VN", "cookie:hit>app-1,session=JSESSIONID:miss,source:outvoted>app-2"),
            decision(9, Some(302), Some("app-1"), "DI", "cookie:down>app-10,session=JSESSIONID:miss,source:hit>app-1"),
            decision(11, Some(503), None, "NN", "cookie:miss,session=JSESSIONID:miss,source:miss"),
            decision(12, Some(200), Some("app-2"), "VN", "cookie:hit>app-2,session=JSESSIONID:hit>app-2,source:outvoted>app-1"),
        ],
    })
}

fn flow(number: u64, phase: &str) -> Value {
    json!({"client": format!("198.51.100.{number}:{}", 40_000 + number), "server": format!("app-{}", number % 2 + 1),
        "address": format!("10.0.0.{}:8080", number % 2 + 11), "snat": format!("10.0.0.1:{}", 20_000 + number), "phase": phase,
        "age_seconds": number * 61, "idle_seconds": number % 7, "packets_in": number * 12, "packets_out": number * 20,
        "bytes_in": number * 987, "bytes_out": number * 98_765, "packets": number * 32, "bytes": number * 99_752})
}

/// A server that serves, one that is left, one that is down, and a backup.
pub fn few_servers() -> Answer {
    let mut backup = server("spare", 3, "up");
    backup["backup"] = json!(true);
    let mut app_2 = server("app-2", 2, "drain");
    app_2["host"] = json!("app-2.example");
    app_2["maxconn"] = json!(200);
    let mut status = status("shop", &[server("app-1", 1, "up"), app_2, server("app-10", 4, "down")]);
    status["servers"].as_array_mut().expect("servers").push(backup);
    let phases = ["established", "closing", "half-open"];
    let flows: Vec<_> = (1..=9).map(|number| flow(number, phases[number as usize % 3])).collect();
    answer(status, json!(flows))
}

/// Forty of them.
pub fn many_servers() -> Answer {
    let state = |number| match number {
        7 | 23 => "down",
        12 => "drain",
        31 => "maint",
        _ => "up",
    };
    let servers: Vec<_> =
        (1..=40).map(|number| server(&format!("s{number}"), number, state(number))).collect();
    let flows: Vec<_> = (1..=200).map(|number| flow(number, "established")).collect();
    Answer { at: NOW + 1000, ..answer(status("many", &servers), json!(flows)) }
}

/// Without a fast path, a table, a request.
pub fn nothing_yet() -> Answer {
    let mut status = status("new", &[server("s1", 0, "up")]);
    status["ready"] = json!(false);
    status["fast_path"] = Value::Null;
    status["tables"] = json!([]);
    status["decisions"] = json!([]);
    status["history"]["samples"] = json!([]);
    status["info"]["tables"] = json!("none");
    let server = &mut status["servers"][0];
    (server["entries"], server["fast_traffic"], server["address"]) = (Value::Null, Value::Null, Value::Null);
    answer(status, json!([]))
}

/// What would clear the screen, write backwards, colour the rest, or push columns aside, if it were let.
pub fn hostile() -> Answer {
    let nasty = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\r\n\u{202e}evil\u{200b}\u{301}日本語";
    let mut status = status(
        nasty,
        &[server(nasty, 1, nasty), server("日本語サーバー", 2, "up"), server(&"x".repeat(300), 3, "down")],
    );
    status["decisions"] = json!([
        {"time": nasty, "client": nasty, "status": 200, "server": nasty, "letters": nasty, "persist": format!("cookie:hit>{nasty}")},
        {"time": "2026-11-22T10:11:12.345Z", "client": "日本", "status": 200, "server": "日本語サーバー", "letters": "日本", "persist": "日本語".repeat(60)},
    ]);
    status["tables"][0]["name"] = json!(nasty);
    answer(status, json!([{"client": nasty, "server": nasty, "phase": nasty}]))
}
