//! Requests and answers that are meant to do harm, or that somebody's mistake has made.

use super::*;

/// Every method there is, in every mode.
const LISTS: [&str; 5] = [
    "--persist cookie=SRV,indirect,maxidle=30m,maxlife=8h --persist session=JS,in=cookie+path+query+header \
     --persist route=JS --persist header=X-User --persist query=user --persist source",
    "--persist cookie=SRV,prefix --persist session=SRV,prefix-name",
    "--persist session=S,prefix-name,size=4,nopurge --persist cookie=SRV,passive",
    "--persist cookie=SRV,rewrite,httponly,samesite=lax --persist session=SRV",
    "--persist session=JS --persist header=X-User --persist cookie=SRV,dynamic-key=K,preserve --persist-ignore /static",
];

/// Much more than `--max-head` lets pass unless it is told to.
const WIDE: Limits = Limits { head: 4 << 20, headers: 256 };

/// Goes the whole way; false: what is no request has been refused.
fn survives(world: &World, request: &[u8], answer: &[u8]) -> bool {
    let mut slots = Slots::default();
    let Ok(Some(request)) = request::parse(request, &mut slots, &WIDE) else { return false };
    let before = entries(world);
    let mut visit = Visit::new(&world.books, &request, IpAddr::from([10, 1, 0, 1]));
    assert!(matches!(visit.choose(), Choice::Bound(_) | Choice::Free(_)));
    let mut slots = Slots::default();
    let Ok(Some(response)) = response::parse(answer, &mut slots, &WIDE, false) else { return false };
    let action = visit.answered(Some(&response));
    let mut out = Vec::new();
    if let Some(issue) = visit.issue(&world.books, action) {
        issue.write_ours(&mut out);
        for set_cookie in response.set_cookies() {
            issue.write_theirs("Set-Cookie", set_cookie, &mut out);
        }
    }
    assert!(out.is_empty() || out.ends_with(b"\r\n"), "{}", String::from_utf8_lossy(&out));
    assert!(!out.windows(4).any(|bytes| bytes == b"\r\n\r\n"), "it ends no head");
    drop(visit);
    let tables = world.tables.iter().count();
    assert!(entries(world) <= before + 2 * tables, "a key for each table, and one that was set");
    for (_, table) in world.tables.iter().filter(|(_, table)| !table.is_of_sources()) {
        assert_eq!(table.get(&HashKey::from_bytes([1; 16]).hash(b"")), None, "no empty key");
    }
    true
}

fn entries(world: &World) -> usize {
    let mut count = 0;
    world.tables.iter().for_each(|(_, table)| table.for_each(|_, _| count += 1));
    count
}

fn head(start: &str, lines: &[(&str, &str)]) -> Vec<u8> {
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{start}\r\n{lines}Host: test\r\n\r\n").into_bytes()
}

#[test]
fn known_tricks() {
    let long = "x".repeat(16 * 1024);
    let megabyte = "SRV=s1; ".repeat(1 << 17);
    let names: String = (0..5000).map(|n| format!("n{n}=v; ")).collect();
    let cookies: Vec<String> = vec![
        String::new(),
        ";;; ; =; ==;=x;x=;".into(),
        "SRV; SRV=; SRV==; SRV=\"; SRV=\"\"; SRV=\"s1; SRV=s1\"".into(),
        "SRV=~; SRV=~~; SRV=s1~; SRV=~s1; SRV=|; SRV=s1|; SRV=s1||; SRV=|AAAAA|AAAAA; SRV=s1|/////|/////"
            .into(),
        "JS=~; JS=|; JS=.; JS=..; JS=s1.; JS=.s1; JS=a~b|c.s2".into(),
        "JS=; JS=\"\"; SRV=; S=; SRVx=".into(),
        "$Version=1; $SRV=s1; SRV=s1; $Path=/".into(),
        "SRV=s1\u{7f}; SRV=\u{e9}\u{fffd}; JS=\u{10ffff}; J\u{e9}=x".into(),
        "SRV\t=\ts1\t; JS\t=\tabc".into(),
        "SRV=zz; ".repeat(1000),
        "JS=a; ".repeat(1000),
        format!("SRV={long}; JS={long}; {long}=x"),
        names,
        megabyte,
    ];
    for flags in LISTS {
        let world = World::new(flags);
        for cookie in &cookies {
            for target in ["/", "/;JS=;js=abc;JS=~;;=;/?JS=&user=&&=&user=x", "/static/;SRV=s1"] {
                let request = head(&format!("GET {target} HTTP/1.1"), &[("Cookie", cookie), ("X-User", "")]);
                let answer = head("HTTP/1.1 200 OK", &[("Set-Cookie", cookie), ("Content-Length", "0")]);
                // Except where the field itself is not allowed.
                let is_allowed = !cookie.contains('\u{7f}');
                assert_eq!(survives(&world, &request, &answer), is_allowed, "{flags}: {cookie:.80?}");
            }
        }
        let keys = ["", " ", &long, "a~b|c", "\u{e9}"];
        for key in keys {
            let request = head("GET / HTTP/1.1", &[("X-User", key), ("JS", key)]);
            assert!(survives(&world, &request, &head("HTTP/1.1 200 OK", &[])), "{flags}: {key:.80?}");
        }
    }
}

/// Pieces that mean something, in any order.
fn cookie() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "SRV",
            "JS",
            "s1",
            "s2",
            "=",
            ";",
            "; ",
            "~",
            "|",
            ".",
            "\"",
            ",",
            " ",
            "\t",
            "AAAAA",
            "$",
            "Max-Age=0",
            "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            "Domain=",
            "Path=/",
            "S",
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(0x20..=0xff_u8, 0..6),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_cookie_and_any_answer(
        list in 0..LISTS.len(),
        exchanges in prop::collection::vec((cookie(), cookie()), 1..8),
    ) {
        let world = World::new(LISTS[list]);
        for (sent, set) in &exchanges {
            let request = [b"GET /a HTTP/1.1\r\nHost: test\r\nCookie: ", &sent[..], b"\r\n\r\n"].concat();
            let answer = [b"HTTP/1.1 200 OK\r\nSet-Cookie: ", &set[..], b"\r\nContent-Length: 0\r\n\r\n"].concat();
            survives(&world, &request, &answer);
        }
    }
}
