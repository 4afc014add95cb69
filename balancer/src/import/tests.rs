//! Configurations in, flags and remarks out. What they do is shown by `tests/import.rs`.

use proptest::prelude::*;

use super::*;

const TIMES: &str = "defaults\n mode http\n timeout client 1m\n timeout server 1m\n timeout connect 5s\n timeout http-request 5s\n \
     timeout http-keep-alive 5s\n timeout tunnel 1h\n option redispatch\n";

/// What becomes of a text: its sheet, and the file that was read again.
fn sheet(text: &str) -> Result<(Sheet, String), Stop> {
    let configuration = Configuration::read(&[("f".into(), text.into())], &|_| None).map_err(Stop::Usage)?;
    let (front, back) = pair::choose(&configuration, None, None).map_err(Stop::Usage)?;
    let pair = Pair::new(&configuration, front, back);
    let sheet = carry(&pair, &[], None)?;
    let file = output::file(&configuration, &sheet, &title(&pair));
    trial::read(&file).unwrap_or_else(|why| panic!("{why}:\n{text}\n{file}"));
    Ok((sheet, file))
}

/// Of one section with these lines and a server.
fn of(lines: &str) -> Sheet {
    let text = format!("{TIMES}listen x\n bind 127.0.0.1:80\n {}\n", lines.replace(" / ", "\n "));
    let text = if lines.contains("server ") || lines.contains("server-template ") {
        text
    } else {
        text + " server s1 10.0.0.1:80\n"
    };
    sheet(&text).unwrap_or_else(|stop| panic!("{text}: {stop:?}")).0
}

/// `flag value` for each flag that begins with `part`.
fn flags(sheet: &Sheet, part: &str) -> Vec<String> {
    let texts =
        sheet.flags.iter().map(|flag| format!("{} {}", flag.flag, flag.value.as_deref().unwrap_or("")));
    texts.filter(|text| text.starts_with(part)).collect()
}

#[test]
fn what_decides_who_gets_in_comes_first_and_the_rest_in_order() {
    let sheet = of("option abortonclose / http-request set-header A b / use_backend b if x / nonsense / \
                    http-request auth if y / tcp-request connection reject if z");
    let told: Vec<_> =
        sheet.remarks.iter().map(|remark| (remark.is_access, remark.directive.as_str())).collect();
    let expected = [
        (true, "use_backend b if x"),
        (true, "http-request auth if y"),
        (true, "tcp-request connection reject if z"),
        (false, "option abortonclose"),
        (false, "http-request set-header A b"),
        (false, "nonsense"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_template_that_is_refused_is_told_of_once() {
    let sheet = of("server-template s 1-1000 10.0.0.1:80 ssl / server-template t 1-1000 10.0.0.1:80 / \
                    server-template u 1-1000 10.0.0.1:80 / server v 10.0.0.1:80");
    assert_eq!(flags(&sheet, "--server").len(), 1024);
    let left: Vec<String> =
        remarks(&sheet).into_iter().filter(|remark| remark.starts_with("left: server")).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

/// `left` and `differs`, with the beginning of what they are about.
fn remarks(sheet: &Sheet) -> Vec<String> {
    let worth = sheet.remarks.iter().filter(|remark| remark.verdict != Verdict::Moot);
    worth.map(|remark| format!("{}: {}: {}", remark.verdict.word(), remark.directive, remark.why)).collect()
}

#[test]
fn lines_become_flags() {
    let table: &[(&str, &str, &[&str])] = &[
        ("cookie SRV", "--persist", &["cookie=SRV,passive"]),
        (
            "cookie SRV insert indirect nocache postonly",
            "--persist",
            &["cookie=SRV,insert,indirect,nocache,postonly"],
        ),
        ("cookie SRV preserve httponly insert", "--persist", &["cookie=SRV,insert,preserve,httponly"]),
        ("cookie S insert maxidle 30 maxlife 8h", "--persist", &["cookie=S,insert,maxidle=30s,maxlife=8h"]),
        (
            "cookie S insert domain .a.org domain .b.org",
            "--persist",
            &["cookie=S,insert,domain=.a.org,domain=.b.org"],
        ),
        ("cookie S insert attr SameSite=None secure", "--persist", &["cookie=S,insert,secure,samesite=None"]),
        (
            "cookie S insert attr Max-Age=60 attr Priority=High",
            "--persist",
            &["cookie=S,insert,max-age=60s,attr=Priority=High"],
        ),
        ("cookie S insert dynamic / dynamic-cookie-key k", "--persist", &["cookie=S,insert,dynamic-key=k"]),
        ("cookie A insert / cookie B insert", "--persist", &["cookie=B,insert"]),
        ("cookie A insert / no cookie", "--persist", &[]),
        (
            "stick-table type ip size 1m expire 30m / stick on src",
            "--persist",
            &["source,size=1048576,timeout=30m"],
        ),
        (
            "stick-table type ipv6 size 10 expire 1s / stick on src,ipmask(24,48)",
            "--persist",
            &["source,mask4=24,mask6=48,size=10,timeout=1s"],
        ),
        (
            "stick-table type ipv6 size 10 expire 1s / stick on src",
            "--persist",
            &["source,size=10,timeout=1s,mask6=128"],
        ),
        (
            "stick-table type string size 9 expire 1500 / stick on cookie(A)",
            "--persist",
            &["session=A,in=cookie,size=9,timeout=2s"],
        ),
        (
            "stick-table type string size 9 expire 1s / stick match req.cook(A) / stick store-response res.cook(A)",
            "--persist",
            &["session=A,in=cookie,no-request-learn,size=9,timeout=1s"],
        ),
        (
            "stick-table type string size 9 expire 1s / stick on urlp(a,;) / stick on req.cook(A) / stick on urlp(a)",
            "--persist",
            &["session=A,in=path+cookie+query,size=9,timeout=1s"],
        ),
        (
            "stick-table type string size 9 expire 1s / stick on urlp(a) / stick on hdr(B) / cookie C insert",
            "--persist",
            &["cookie=C,insert", "query=a,size=9,timeout=1s", "header=B,size=9,timeout=1s"],
        ),
        (
            "appsession JS len 9 timeout 1h prefix mode query-string",
            "--persist",
            &["session=JS,in=cookie+query,prefix-name,no-request-learn,timeout=1h"],
        ),
        (
            "appsession JS len 9 timeout 1h request-learn / cookie SRV insert",
            "--persist",
            &["session=JS,in=cookie+path,timeout=1h", "cookie=SRV,insert"],
        ),
        (
            "acl a path_beg /x /y / ignore-persist if a / ignore-persist if { path -m beg /z }",
            "--persist-ignore",
            &["/x", "/y", "/z"],
        ),
        ("balance leastconn", "--balance", &["leastconn"]),
        ("balance hdr(X-User)", "--balance", &["header=X-User"]),
        ("balance url_param id", "--balance", &["query=id"]),
        ("balance source", "--balance", &["source"]),
        ("retries 5", "--retries", &["5"]),
        ("no option redispatch", "--redispatch", &["off"]),
        ("timeout queue 3s / server a 10.0.0.1:80 maxconn 5", "--timeout-queue", &["3s"]),
        ("timeout queue 3s", "--timeout-queue", &[]),
        ("timeout client 90000", "--timeout-client", &["90s"]),
        ("maxconn 100", "--max-connections", &["100"]),
        ("option forwardfor", "--forwarded", &["x-forwarded-for"]),
        ("log stdout format raw local0 / option httplog", "--log-format", &["haproxy"]),
        ("server a 10.0.0.1:80 check", "--check ", &["tcp"]),
        ("server a 10.0.0.1:80 check / option httpchk", "--check ", &["http=/"]),
        (
            "server a 10.0.0.1:80 check / option httpchk GET /h / http-check expect rstatus ^[23]..",
            "--check ",
            &["http=/h,expect=2xx+3xx"],
        ),
        (
            "server a 10.0.0.1:80 check / option httpchk / http-check send meth GET uri /h hdr Host a.org",
            "--check ",
            &["http=/h,host=a.org"],
        ),
        ("server a 10.0.0.1:80 check / option httpchk GET /h / option tcp-check", "--check ", &["tcp"]),
        ("option httpchk GET /h", "--check ", &["none"]),
        (
            "default-server inter 5s rise 4 / server a 10.0.0.1:80 check",
            "--check-",
            &["interval 5s", "rise 4", "fall 3", "timeout 5s"],
        ),
        ("server a 10.0.0.1:80 check observe layer4 on-error mark-down", "--observe", &["connect"]),
        ("server a 10.0.0.1:80 send-proxy-v2", "--send-proxy", &["v2"]),
        (
            "server a 10.0.0.1:80 weight 0 backup disabled maxconn 9 maxqueue 2",
            "--server",
            &["a=10.0.0.1:80,weight=0,maxconn=9,maxqueue=2,backup,disabled"],
        ),
        (
            "cookie S insert / server a 10.0.0.1:80 cookie a / server b 10.0.0.2:80 cookie x / server c h.example:80",
            "--server",
            &["a=10.0.0.1:80", "b=10.0.0.2:80,id=x", "c=h.example:80,id="],
        ),
        ("server-template s 2-3 h.example:80", "--server", &["s2=h.example:80", "s3=h.example:80"]),
        ("server a 10.0.0.1", "--server", &["a=10.0.0.1:80"]),
        ("bind :81,[::1]:82", "--listen", &["127.0.0.1:80", "0.0.0.0:81", "[::1]:82"]),
        ("bind :::81 v4v6", "--listen", &["127.0.0.1:80", "[::]:81", "0.0.0.0:81"]),
        (
            "mode tcp / cookie S insert / stick on src / stick-table type ip size 9 expire 1s",
            "--persist",
            &["source,size=9,timeout=1s"],
        ),
    ];
    for (lines, flag, expected) in table {
        let sheet = of(lines);
        let prefix = if flag.ends_with(['-', ' ']) { (*flag).to_owned() } else { format!("{flag} ") };
        let found = flags(&sheet, &prefix);
        let found: Vec<&str> = found.iter().map(|text| &text[prefix.len()..]).collect();
        assert_eq!(&found, expected, "{lines}");
    }
}

#[test]
fn what_cannot_be_carried_over_is_said() {
    let table: &[(&str, &str)] = &[
        ("option persist", "left: option persist"),
        ("option httpclose", "differs: option httpclose"),
        ("option forceclose", "differs: option httpclose"),
        ("option nonsense", "left: option nonsense: nothing like it is known here"),
        ("nonsense 1 2", "left: nonsense 1 2: nothing like it is known here"),
        ("use_backend x if y", "left: use_backend x if y"),
        ("http-request track-sc0 src", "left: http-request track-sc0 src: counters"),
        ("stats enable", "left: stats enable"),
        ("acl a path_end .css / ignore-persist if a", "left: acl a path_end .css: only the beginning"),
        ("ignore-persist unless a", "left: ignore-persist unless a: only the beginning"),
        ("ignore-persist if a b", "left: ignore-persist if a b: its condition is more"),
        ("force-persist if a", "left: force-persist if a"),
        ("fullconn 100", "left: fullconn 100"),
        ("cookie S insert attr \"a,secure\"", "left: cookie S … attr a,secure: a comma ends an option"),
        ("cookie S insert attr SameSite=None", "left: cookie S … attr SameSite=None: --persist"),
        ("cookie S rewrite indirect", "left: cookie S … indirect: --persist"),
        ("cookie S indirect", "left: cookie S … indirect: without insert"),
        ("cookie S insert dynamic", "left: cookie S … dynamic: without dynamic-cookie-key"),
        ("cookie S insert maxidle never", "left: cookie S … maxidle never: has the time"),
        ("cookie \"a b\" insert", "left: cookie a b … insert: --persist"),
        ("cookie S prefix", "differs: server s1 … no cookie: it has no cookie"),
        (
            "cookie S insert / server a 10.0.0.1:80 cookie x / server b 10.0.0.2:80 cookie x",
            "left: server b … cookie x: another server",
        ),
        ("cookie S insert / server a 10.0.0.1:80 cookie a~b", "left: server a … cookie a~b: a cookie cannot"),
        ("stick on src", "left: stick on src: its stick-table is not there"),
        (
            "stick-table type ip size 9 / stick match src",
            "left: stick match src: no rule of this backend writes",
        ),
        (
            "stick-table type ip size 9 / stick store-request src",
            "left: stick store-request src: no rule looks that up",
        ),
        (
            "stick-table type ip size 9 expire 1s / stick on src if x",
            "left: stick on src if x: a method has no condition",
        ),
        ("stick-table type ip size 9 / stick on src", "differs: stick-table type … no expire"),
        ("stick-table type ip size 99m expire 1s / stick on src", "differs: stick-table type … size 99m"),
        ("stick-table type ip size 9 expire 1s peers p / stick on src", "left: stick-table type … peers p"),
        (
            "stick-table type ip size 9 expire 1s store gpc0,conn_rate(1,2) / stick on src",
            "left: stick-table type … store conn_rate(1,2)",
        ),
        ("stick-table type ip size 9 expire 1s", "left: stick-table type ip size 9 expire 1s: no rule"),
        (
            "stick-table type string size 9 expire 1s / stick on cookie(A)",
            "differs: stick-table type … type string: HAProxy keeps the first 31 bytes of an id",
        ),
        (
            "stick-table type string len 64 size 9 expire 1s / stick on hdr(A)",
            "differs: stick-table type … type string len 64: HAProxy keeps the first 64 bytes of an id",
        ),
        (
            "stick-table type integer size 9 expire 1s / stick on urlp(a)",
            "differs: stick-table type … type integer: ids are compared as they are written",
        ),
        ("balance rdp-cookie", "left: balance rdp-cookie: nothing is balanced like that"),
        ("balance uri depth 3", "left: balance uri … depth 3"),
        ("balance source / hash-type map-based", "differs: hash-type map-based"),
        ("retries 50", "differs: retries 50"),
        ("retries many", "left: retries many"),
        ("timeout client 0", "differs: timeout client 0: 0 is for ever"),
        ("timeout client x", "left: timeout client x"),
        ("option redispatch 3", "differs: option redispatch … 3"),
        ("option forwardfor header X-Client", "left: option forwardfor … header X-Client"),
        ("bind :443 ssl crt x", "left: bind :443 ssl crt x: there is no TLS"),
        ("bind 127.0.0.1:81 interface eth0", "left: bind 127.0.0.1:81 … interface eth0"),
        ("bind 127.0.0.1:81 accept-proxy", "left: bind 127.0.0.1:81 … accept-proxy: other listeners"),
        ("bind 127.0.0.1:1000-2000", "left: bind 127.0.0.1:1000-2000: these are 1001 listeners"),
        ("bind 0.0.0.0:80", "left: bind 0.0.0.0:80 … 0.0.0.0:80: --listen"),
        ("server a 10.0.0.1:80 track b/c", "left: server a … track b/c"),
        ("server a 10.0.0.1:80 check fastinter 1s", "differs: server a … fastinter 1s"),
        ("server a 10.0.0.1:80 weird", "left: server a … weird: no server here"),
        ("server a 10.0.0.1:80 check inter 1s / server b 10.0.0.2:80", "differs: server b … no check"),
        (
            "server a 10.0.0.1:80 check inter 1s / server b 10.0.0.2:80 check inter 3s",
            "differs: server b … inter 3s",
        ),
        ("server a 10.0.0.1:80 weight 999", "left: server a … weight 999"),
        ("server a 10.0.0.1:80 / server a 10.0.0.2:80", "left: server a 10.0.0.2:80: server"),
        ("server a 10.0.0.1:80 / server b /run/x", "left: server b /run/x: it is a Unix socket"),
        ("server a 10.0.0.1:80 / server b 127.0.0.1:80", "left: server b 127.0.0.1:80: server"),
        (
            "server a 10.0.0.1:80 ssl / server b 10.0.0.2:80",
            "left: server a 10.0.0.1:80 ssl: there is no TLS",
        ),
        ("server a 10.0.0.1:80 backup / server b 10.0.0.2:80 backup", "differs: server b … backup"),
        ("server a 10.0.0.1:80 check / option httpchk HEAD /", "differs: option httpchk … HEAD"),
        (
            "server a 10.0.0.1:80 check / option mysql-check user x",
            "left: option mysql-check … mysql-check user x",
        ),
        (
            "server a 10.0.0.1:80 check / option httpchk GET /h / http-check expect string ok",
            "left: http-check expect … expect string ok",
        ),
        ("server a 10.0.0.1:80 check / option httpchk GET x", "left: option httpchk … x: --check"),
        ("server a 10.0.0.1:80 observe layer4", "left: server a … observe layer4: without checks"),
        ("option log-format x / log-format %ci", "left: log-format %ci"),
        (".if defined(X) / retries 1 / .endif", "left: retries 1: it stands between"),
        ("log \"$NOBODY\" local0", "differs: log  local0: $NOBODY is not set"),
    ];
    for (lines, expected) in table {
        let found = remarks(&of(lines));
        assert!(found.iter().any(|remark| remark.starts_with(expected)), "{lines}: {found:#?}");
    }
}

/// What a plain service needs is carried over without a word.
#[test]
fn what_is_the_same_is_not_worth_a_remark() {
    for lines in [
        "cookie S insert indirect nocache / server a 10.0.0.1:80 cookie a check inter 5s rise 2 fall 3 weight 5",
        "balance leastconn / option dontlognull / option http-keep-alive / http-reuse safe",
        "option allbackups / server a 10.0.0.1:80 backup / server b 10.0.0.2:80 backup / server c 10.0.0.3:80",
        "stick-table type ip size 1k expire 1h / stick on src",
        "timeout check 1s / timeout queue 1s / maxconn 100 / retries 3",
    ] {
        assert_eq!(remarks(&of(lines)), [""; 0], "{lines}");
    }
}

#[test]
fn a_frontend_of_connections_may_have_a_backend_of_requests() {
    let text = "frontend x\n mode tcp\n bind :80\n default_backend y\n\
                backend y\n mode http\n cookie S insert\n server a 10.0.0.1:80\n";
    let (sheet, _) = sheet(text).expect("carried over");
    assert_eq!(flags(&sheet, "--mode"), ["--mode http"]);
    assert_eq!(flags(&sheet, "--persist"), ["--persist cookie=S,insert"]);
    assert!(remarks(&sheet).iter().any(|remark| remark.starts_with("differs: mode tcp: ")));
}

#[test]
fn nothing_is_carried_over_of_a_service_of_which_nothing_is_left() {
    for (text, expected) in [
        (
            "listen x\n bind :443 ssl crt y\n server a 10.0.0.1:80\n",
            "no bind of x can be carried over; give the address",
        ),
        ("listen x\n bind :80\n server a 10.0.0.1:443 ssl\n", "no server of x can be carried over (f:"),
        ("listen x\n bind :80\n mode health\n server a 10.0.0.1:80\n", "x has mode health"),
        (
            "frontend x\n mode http\n bind :80\n default_backend y\nbackend y\n mode tcp\n",
            "which HAProxy refuses too",
        ),
    ] {
        let found = sheet(text).map(drop).expect_err(text).into_message();
        assert!(found.contains(expected), "{text}: {found}");
    }
}

/// Pieces of configurations, some of them broken.
fn line() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec![
        "bind",
        ":80",
        "[::]:81 v4v6",
        "server",
        "a",
        "10.0.0.1:80",
        "b",
        "cookie",
        "SRV",
        "insert",
        "prefix",
        "rewrite",
        "indirect",
        "dynamic",
        "maxidle",
        "30m",
        "attr",
        "SameSite=None",
        "stick-table",
        "type",
        "ip",
        "size",
        "1m",
        "expire",
        "stick",
        "on",
        "src",
        "match",
        "store-response",
        "res.cook(A)",
        "req.cook(A)",
        "urlp(A)",
        "table",
        "appsession",
        "len",
        "timeout",
        "client",
        "0",
        "balance",
        "source",
        "hdr(x)",
        "option",
        "httpchk",
        "GET",
        "/",
        "http-check",
        "expect",
        "status",
        "200",
        "check",
        "inter",
        "weight",
        "257",
        "backup",
        "observe",
        "layer7",
        "mode",
        "http",
        "tcp",
        "no",
        "default-server",
        "acl",
        "ignore-persist",
        "if",
        "path_beg",
        "{",
        "}",
        "maxconn",
        "retries",
        "redispatch",
        "forwardfor",
        "send-proxy",
        "accept-proxy",
        "dynamic-cookie-key",
        "user",
        "nobody",
        "global",
        "log",
        "stdout",
        "server-template",
        "1-3",
        "é",
        "x,y",
        "a=b",
        "\"",
        "'",
        "\\",
        "#",
        "~",
        "|",
        ",",
        ";",
    ]);
    prop_oneof![
        4 => proptest::collection::vec(words, 1..8).prop_map(|words| words.join(" ")),
        1 => proptest::sample::select(vec![
            "cookie SRV insert indirect", "stick-table type ip size 9 expire 1s", "stick on src", "option httpchk",
            "server s2 10.0.0.2:80 check cookie x", "cookie SRV prefix", "mode http", "mode tcp", "cookie SRV insert dynamic",
        ]).prop_map(ToOwned::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands there, the result is an error in a sentence or flags that the balancer takes.
    #[test]
    fn what_is_written_is_always_taken(lines in proptest::collection::vec(line(), 0..20)) {
        let text = format!("{TIMES}listen x\n bind 127.0.0.1:80\n server s1 10.0.0.1:80 cookie s1\n {}\n", lines.join("\n "));
        if let Err(stop) = sheet(&text) {
            prop_assert!(!stop.into_message().is_empty());
        }
    }
}
