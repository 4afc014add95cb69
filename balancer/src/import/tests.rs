//! Configurations in, flags and remarks out. What they do is shown by `tests/import.rs`.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const TIMES: &str = "defaults\n mode http\n timeout client 1m\n timeout server 1m\n timeout connect 5s\n timeout http-request 5s\n \
     timeout http-keep-alive 5s\n timeout tunnel 1h\n option redispatch\n";

/// What becomes of a text: its sheet, and the file that was read again.
fn sheet(text: &str) -> Result<(Sheet, String), Stop> {
    let configuration = Configuration::read(&[("f".into(), text.into())], &|_| None).map_err(Stop::Usage)?;
    let (front, back) = choice::choose(&configuration, None, None).map_err(Stop::Usage)?;
    let pair = Pair::new(&configuration, front, back);
    let sheet = carry(&pair, &[], None)?;
    let file = output::file(&configuration, &sheet, &title(&pair));
    trial::read(&file).unwrap_or_else(|why| panic!("{why}:\n{text}\n{file}"));
    let from = sheet.flags.iter().flat_map(|flag| flag.from.iter().map(|(place, _)| *place));
    let said: HashSet<_> = from.chain(sheet.remarks.iter().map(|remark| remark.place)).collect();
    for line in pair.lines() {
        assert!(said.contains(&line.place), "nothing is said of {:?}:\n{text}\n{file}", line.text());
    }
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
            &["session=A,in=cookie,learn-status=2xx+3xx+4xx+5xx,size=9,timeout=2s"],
        ),
        (
            "stick-table type string size 9 expire 1s / stick match req.cook(A) / stick store-response res.cook(A)",
            "--persist",
            &["session=A,in=cookie,no-request-learn,learn-status=2xx+3xx+4xx+5xx,size=9,timeout=1s"],
        ),
        (
            "stick-table type string size 9 expire 1s / stick on urlp(a,;) / stick on req.cook(A) / stick on urlp(a)",
            "--persist",
            &["session=A,in=path+cookie+query,learn-status=2xx+3xx+4xx+5xx,size=9,timeout=1s"],
        ),
        (
            "stick-table type string size 9 expire 1s / stick on urlp(a) / stick on hdr(B) / cookie C insert",
            "--persist",
            &["cookie=C,insert", "query=a,size=9,timeout=1s", "header=B,size=9,timeout=1s"],
        ),
        (
            "appsession JS len 9 timeout 1h prefix mode query-string",
            "--persist",
            &[
                "session=JS,in=cookie+query,prefix-name,no-request-learn,learn-status=2xx+3xx+4xx+5xx,timeout=1h",
            ],
        ),
        (
            "appsession JS len 9 timeout 1h request-learn / cookie SRV insert",
            "--persist",
            &["session=JS,in=cookie+path,learn-status=2xx+3xx+4xx+5xx,timeout=1h", "cookie=SRV,insert"],
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
        ("timeout connect 200", "--retry-pause", &["200ms"]),
        ("timeout client 3s / timeout http-keep-alive 9s", "--timeout-keepalive", &["3s"]),
        ("mode tcp / balance hdr(X)", "--balance", &["roundrobin"]),
        ("server a tcp4@10.0.0.1:81", "--server", &["a=10.0.0.1:81"]),
        ("bind tcp4@:81,ipv6@[::1]:82", "--listen", &["127.0.0.1:80", "0.0.0.0:81", "[::1]:82"]),
        (
            "http-check send meth GET uri /h / option httpchk / server a 10.0.0.1:80 check",
            "--check ",
            &["http=/h"],
        ),
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
            &["interval 5s", "rise 13", "fall 9", "timeout 5s"],
        ),
        // In doubt HAProxy checks at fastinter, and we four times as often.
        (
            "server a 10.0.0.1:80 check inter 5s fastinter 1s fall 3 rise 1",
            "--check-",
            &["interval 5s", "rise 1", "fall 3", "timeout 5s"],
        ),
        ("server a 10.0.0.1:80 check observe layer7 on-error mark-down", "--observe", &["connect+5xx"]),
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
        // A default holds from there on.
        (
            "server a 10.0.0.1:80 / default-server backup weight 3 / server b 10.0.0.2:80",
            "--server",
            &["a=10.0.0.1:80", "b=10.0.0.2:80,weight=3,backup"],
        ),
        ("server a 10.0.0.1:80 minconn 7 maxqueue 2", "--server", &["a=10.0.0.1:80,maxconn=7,maxqueue=2"]),
        // Of two requests of a check the last one, whole.
        (
            "server a 10.0.0.1:80 check / option httpchk / http-check connect / http-check send meth GET uri /live / \
             http-check expect status 200 / http-check connect / http-check send meth GET uri /ready / \
             http-check expect status 204",
            "--check ",
            &["http=/ready,expect=204"],
        ),
        (
            "server a 10.0.0.1:80 check / http-check send meth GET uri /s hdr Host h / option httpchk GET /o",
            "--check ",
            &["http=/o,host=h"],
        ),
        // Who is the master is asked elsewhere, and the service does not speak HTTP.
        ("server a 10.0.0.1:80 check port 8008 / option httpchk GET /master", "--check ", &["tcp"]),
        ("server a 10.0.0.1:80 check port 80 / option httpchk GET /h", "--check ", &["http=/h"]),
        // Those that are not checked have no say in how often.
        (
            "server a 10.0.0.1:80 check inter 9s / server b 10.0.0.2:80 / server c 10.0.0.3:80",
            "--check-interval",
            &["9s"],
        ),
        ("log stdout format raw local0 / no log", "--access-log", &[]),
        ("log stdout format raw local0 notice", "--access-log", &[]),
        (
            "tcp-request connection expect-proxy layer4 if { src 10.0.0.0/8 ::1 }",
            "--accept-proxy",
            &["10.0.0.0/8", "::1"],
        ),
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
        ("server a 10.0.0.1:80 check fastinter x", "left: server a … fastinter x: is no time"),
        ("server a 10.0.0.1:80 check fall 99", "differs: server a … fall 99: 100 checks in a row"),
        ("server a 10.0.0.1:80 check rise x", "left: server a … rise x: is no number"),
        ("balance first / server a 10.0.0.1:80 id 7", "differs: server a … id 7: the servers are filled"),
        (
            "server a 10.0.0.1:80 / server b _http._tcp.x:80",
            "left: server b _http._tcp.x:80: its address is a name of",
        ),
        ("server a ipv6@h.example:80", "differs: server a … ipv6@h.example:80: of the addresses"),
        (
            "server a 10.0.0.1:80 check / option httpchk / http-check send hdr Upgrade websocket / \
             http-check expect status 101",
            "left: http-check expect … expect status 101: a check asks for no other protocol",
        ),
        (
            "stick-table type string size 9 expire 1s / stick on src",
            "differs: stick-table type … type string: an address is a key as it is",
        ),
        (
            "stick-table type string size 9 expire 1s / stick on hdr(A)",
            "differs: stick on hdr(A): it is learned from answers 2xx, 3xx and 401",
        ),
        (
            "stick-table type ip size 9 expire 1s / stick on src / ignore-persist if { path_beg /x }",
            "differs: ignore-persist if { path_beg /x }: no table is looked at",
        ),
        ("acl a path_beg -i /s / ignore-persist if a", "left: ignore-persist if a: only the beginning"),
        ("cookie S prefix", "differs: cookie S … prefix: what stands before the ~"),
        ("option redispatch 0", "differs: option redispatch … 0"),
        ("stick-table type ip size 1 / stick on dst", "left: stick on … dst: \"dst\" is no key"),
        ("server a 10.0.0.1:80 weird", "left: server a … weird: no server here"),
        ("server a 10.0.0.1:80 check inter 1s / server b 10.0.0.2:80", "differs: server b … no check"),
        (
            "server a 10.0.0.1:80 check inter 1s / server b 10.0.0.2:80 check inter 3s",
            "differs: server b … inter 3s",
        ),
        ("http-reuse never", "differs: http-reuse never"),
        (
            "server a 10.0.0.1:80 check / option httpchk / http-check connect / http-check send uri /a / \
             http-check connect / http-check send uri /b / http-check connect",
            "left: http-check send … send uri /a: a check asks once",
        ),
        ("option prefer-last-server", "left: option prefer-last-server"),
        (
            "stick-table type string size 9 expire 1s / stick on req.hdr(A)",
            "differs: stick on … req.hdr(A): HAProxy takes what stands behind the last comma",
        ),
        (
            "server a 10.0.0.1:80 check port 8008 / option httpchk",
            "left: server a … port 8008: asks elsewhere",
        ),
        (
            "server a 10.0.0.1:80 check port 8008",
            "left: server a … port 8008: the server's own address and port",
        ),
        (
            "server a 10.0.0.1:80 check / option tcp-check / tcp-check expect string role:master",
            "left: tcp-check expect … expect string role:master",
        ),
        ("server a 10.0.0.1:80 check check-send-proxy", "left: server a … check-send-proxy: checks have"),
        (
            "cookie S insert domain .a.org domain .b.org",
            "differs: cookie S … domain .b.org: each domain has a Set-Cookie of its own",
        ),
        (
            "server a 10.0.0.1:80 / server-template s 3-1 h:80",
            "left: server-template s 3-1 h:80: is of no server",
        ),
        ("server a 10.0.0.1:80 / server b $NOBODY:80", "left: server b :80: $NOBODY is not set here"),
        (
            "log stdout format raw local0 / option httplog clf",
            "differs: option httplog … clf: it is HAProxy's own",
        ),
        ("tcp-request connection expect-proxy layer4 if x", "left: tcp-request connection expect-proxy"),
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
        "mode tcp / option httpclose / http-request deny / balance url_param x / timeout http-request 1s",
        "cookie S insert dynamic / dynamic-cookie-key k",
    ] {
        assert_eq!(remarks(&of(lines)), [""; 0], "{lines}");
    }
}

/// `defaults` with these lines, a frontend and a backend with those.
fn whole(defaults: &str, front: &str, back: &str) -> Sheet {
    let lines = |text: &str| text.split(" / ").map(|line| format!(" {line}\n")).collect::<String>();
    let text = format!(
        "defaults\n mode http\n timeout client 1m\n timeout server 1m\n timeout connect 5s\n{}\
         frontend f\n bind 127.0.0.1:80\n default_backend b\n{}backend b\n{} server s 10.0.0.1:80 check\n",
        lines(defaults),
        lines(front),
        lines(back)
    );
    sheet(&text).unwrap_or_else(|stop| panic!("{text}: {stop:?}")).0
}

#[test]
fn what_a_section_says_takes_the_place_of_what_it_inherits() {
    let table: &[(&str, &str, &str, &str, &[&str])] = &[
        // Rules of checks as a whole, and HAProxy 2.6 was asked what it sends.
        (
            "option httpchk GET /a / http-check expect status 200",
            "",
            "option httpchk GET /b / http-check expect status 204",
            "--check ",
            &["--check http=/b,expect=204"],
        ),
        (
            "option httpchk GET /a / http-check expect status 200",
            "",
            "http-check send meth GET uri /s",
            "--check ",
            &["--check http=/s"],
        ),
        (
            "option httpchk GET /a / http-check expect status 200",
            "",
            "option httpchk GET /b",
            "--check ",
            &["--check http=/b"],
        ),
        (
            "option httpchk GET /a / http-check disable-on-404",
            "",
            "http-check send uri /s",
            "--check ",
            &["--check http=/s,drain-on=404"],
        ),
        ("log stdout format raw local0", "no log", "", "--access-log", &[]),
        ("maxconn 9", "maxconn 5", "", "--max-connections", &["--max-connections 5"]),
        // Access lists have names of their own in each section, and a frontend ignores no persistence.
        (
            "",
            "acl a path_beg /front / ignore-persist if { path_beg /f }",
            "acl a path_beg /back / ignore-persist if a",
            "--persist-ignore",
            &["--persist-ignore /back"],
        ),
    ];
    for (defaults, front, back, flag, expected) in table {
        let sheet = whole(defaults, front, back);
        assert_eq!(flags(&sheet, flag), *expected, "{defaults} | {front} | {back}");
    }
}

#[test]
fn what_counts_for_one_side_alone_is_said() {
    for (defaults, front, back, expected) in [
        ("option httpclose", "no option httpclose", "", &["differs: option httpclose"][..]),
        ("option httpclose", "no option httpclose", "no option httpclose", &[]),
        ("option httpclose", "default option httpclose", "no option httpclose", &[]),
        ("", "stick-table type ip size 9 store conn_cur", "", &["left: stick-table type ip"]),
        ("", "use_backend c if x", "", &["left: use_backend c if x: one service has one"]),
        ("", "use_backend b if x", "", &["left: use_backend b if x: its condition is not looked at"]),
        ("", "use_backend b / use_backend c", "", &[]),
    ] {
        let found = remarks(&whole(defaults, front, back));
        let is_it = found.len() == expected.len()
            && found.iter().zip(expected).all(|(remark, expected)| remark.starts_with(expected));
        // Each of these has a check, and no more is said of it.
        assert!(is_it, "{defaults} | {front} | {back}: {found:#?}");
    }
}

#[test]
fn what_is_not_limited_there_is_told_of() {
    let text = "frontend f\n mode http\n bind :80\n default_backend b\nbackend b\n mode http\n timeout connect 1s\n \
                server s 10.0.0.1:80\n";
    let found = remarks(&sheet(text).expect("carried over").0);
    let begins = |part: &str| found.iter().any(|remark| remark.starts_with(part));
    assert!(
        begins("differs: frontend f … no timeout client: without it HAProxy waits for ever"),
        "{found:?}"
    );
    assert!(
        begins("differs: backend b … no timeout server")
            && !begins("differs: backend b … no timeout connect")
    );
}

#[test]
fn a_name_is_one_here_and_no_other_backends() {
    let name = |back: &str| {
        let text = format!(
            "frontend f\n bind :80\n default_backend {back}\nbackend {back}\n server s 10.0.0.1:80\n"
        );
        flags(&sheet(&text).expect("carried over").0, "--name").remove(0)
    };
    assert_eq!(name("app"), "--name app");
    assert_eq!(name("-x"), "--name _x");
    assert_eq!(name("Shop.Web"), "--name shop-web");
    let (one, other) =
        (name("production-namespace-webfrontend-8080"), name("production-namespace-webfrontend-8443"));
    assert_ne!(one, other);
    assert!(
        one.starts_with("--name production-namespace-we-") && one.len() == "--name ".len() + LONGEST_NAME
    );
}

#[test]
fn no_name_of_a_section_becomes_a_flag() {
    let name = "\"b\\n--max-head 1m #\"";
    let text =
        format!("frontend f\n bind :80\n default_backend {name}\nbackend {name}\n server s 10.0.0.1:80\n");
    let (_, file) = sheet(&text).expect("carried over");
    assert!(!file.lines().any(|line| line.starts_with("--max-head")), "{file}");
}

#[test]
fn servers_have_the_port_of_bind_wherever_they_are_tried() {
    let text = "listen x\n bind 127.0.0.1:80\n server a 10.0.0.1\n server b 10.0.0.2:+1000\n";
    let configuration = Configuration::read(&[("f".into(), text.into())], &|_| None).expect("read");
    let (front, back) = choice::choose(&configuration, None, None).expect("one");
    let pair = Pair::new(&configuration, front, back);
    let sheet = carry(&pair, &["127.0.0.1:8080".into()], None).expect("carried over");
    assert_eq!(flags(&sheet, "--listen"), ["--listen 127.0.0.1:8080"]);
    assert_eq!(flags(&sheet, "--server"), ["--server a=10.0.0.1:80", "--server b=10.0.0.2:1080"]);
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
        (
            "frontend x\n use_backend %[hdr(host)]\n default_backend y\n bind :80\nbackend y\n",
            "y has no server; write one of: --frontend x --backend y, --frontend x --backend BACKEND",
        ),
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
        "http-reuse",
        "never",
        "send",
        "uri",
        "connect",
        "port",
        "default",
        "minconn",
        "tcp-request",
        "use_backend",
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
