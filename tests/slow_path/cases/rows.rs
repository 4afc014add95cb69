//! The table. Numbers are the specification's; what stands behind a number is another example of the same rule.

use super::Haproxy::{Differs, HasOtherLetters};
use super::{Haproxy, Row, Setting};

const fn set(flags: &'static str, haproxy: &'static str) -> Setting {
    Setting { flags, haproxy }
}

/// The usual: a client asks for `/`, s1 answers 200.
const fn row(number: &'static str, setting: Setting) -> Row {
    Row {
        number,
        setting,
        world: "",
        learned: "",
        request: "GET /",
        answer: "200 OK",
        by: "s1",
        gets: "",
        sees: "",
        letters: "--",
        leaves: "",
        trace: "",
        haproxy: Haproxy::Agrees,
    }
}

const INSERT: Setting = set("--persist cookie=SRV,insert,indirect", "cookie SRV insert indirect");
const DIRECT: Setting = set("--persist cookie=SRV,insert", "cookie SRV insert");
const POSTONLY: Setting = set("--persist cookie=SRV,postonly", "cookie SRV insert postonly");
const NOCACHE: Setting = set("--persist cookie=SRV,nocache", "cookie SRV insert nocache");
const PRESERVE: Setting = set("--persist cookie=SRV,preserve", "cookie SRV insert preserve");
const DOMAINS: Setting = set(
    "--persist cookie=SRV,domain=a.example,domain=b.example",
    "cookie SRV insert domain a.example domain b.example",
);
const ATTRIBUTES: Setting = set(
    "--persist cookie=SRV,domain=.a.example,httponly,secure,attr=SameSite=Lax,attr=Priority=High",
    "cookie SRV insert domain .a.example httponly secure attr SameSite=Lax attr Priority=High",
);
const OUR_ATTRIBUTES: Setting = set("--persist cookie=SRV,samesite=strict,path=/app,max-age=1h", "");
const IDLE: Setting =
    set("--persist cookie=SRV,indirect,maxidle=30m", "cookie SRV insert indirect maxidle 30m");
const LIFE: Setting =
    set("--persist cookie=SRV,indirect,maxlife=8h", "cookie SRV insert indirect maxlife 8h");
const DATED: Setting = set(
    "--persist cookie=SRV,indirect,maxidle=30m,maxlife=8h",
    "cookie SRV insert indirect maxidle 30m maxlife 8h",
);
const SIGNED: Setting = set("--persist cookie=SRV,indirect,sign-key={keys}", "");
const SIGNED_DATED: Setting = set("--persist cookie=SRV,indirect,maxidle=30m,sign-key={keys}", "");
const DYNAMIC: Setting = set(
    "--persist cookie=SRV,indirect,dynamic-key=K",
    "cookie SRV insert indirect dynamic|dynamic-cookie-key K",
);
const REWRITE: Setting = set("--persist cookie=SRV,rewrite", "cookie SRV rewrite");
const REWRITE_SAFELY: Setting = set("--persist cookie=SRV,rewrite,httponly,secure", "");
const PREFIX: Setting = set("--persist cookie=JS,prefix", "cookie JS prefix");
const PASSIVE: Setting = set("--persist cookie=SRV,passive", "cookie SRV");
const ROUTE: Setting = set("--persist route=JSESSIONID", "");
const ROUTE_IN_COOKIE: Setting = set("--persist route=JSESSIONID,in=cookie", "");

const REFUSED: Setting =
    set("--persist cookie=SRV,insert,indirect --retries 1", "cookie SRV insert indirect");
const STAYING: Setting = set(
    "--persist cookie=SRV,insert,indirect --retries 1 --redispatch off",
    "no option redispatch|cookie SRV insert indirect",
);
const FAIL: Setting = set("--persist cookie=SRV --on-down fail", "");
const WAIT: Setting = set("--persist cookie=SRV --on-down wait=10s", "");
const WAIT_SHORTLY: Setting = set("--persist cookie=SRV --on-down wait=200ms", "");
const LEAVE_BACKUP: Setting = set("--persist cookie=SRV,insert,indirect --leave-backup", "");
const IGNORE: Setting = set(
    "--persist cookie=SRV --persist-ignore /static",
    "cookie SRV insert|ignore-persist if { path_beg /static }",
);
const IGNORE_PREFIX: Setting = set(
    "--persist cookie=JS,prefix --persist-ignore /static",
    "cookie JS prefix|ignore-persist if { path_beg /static }",
);
const IGNORE_LEARNED: Setting = set("--persist session=JS --persist source --persist-ignore /static", "");

const SOURCE: Setting = set("--persist source", "stick-table type ip size 1k|stick on src");
const COOKIE_SOURCE: Setting = set(
    "--persist cookie=SRV,insert,indirect --persist source",
    "cookie SRV insert indirect|stick-table type ip size 1k|stick on src",
);
const SOURCE_COOKIE: Setting = set("--persist source --persist cookie=SRV,insert,indirect", "");
const SESSION: Setting =
    set("--persist session=JS", "stick-table type string len 32 size 1k|stick on req.cook(JS)");
const SESSION_IN_PATH: Setting = set("--persist session=JS,in=cookie+path", "");
const PREFIX_NAME: Setting = set("--persist session=ASPSESSIONID,prefix-name", "");
const NO_REQUEST_LEARN: Setting = set(
    "--persist session=JS,no-request-learn",
    "stick-table type string len 32 size 1k|stick match req.cook(JS)|stick store-response res.cook(JS)",
);
const ONLY_201: Setting = set("--persist session=JS,learn-status=201", "");
const HEADER: Setting =
    set("--persist header=X-User", "stick-table type string len 32 size 1k|stick on req.hdr(X-User)");
const QUERY: Setting =
    set("--persist query=user", "stick-table type string len 32 size 1k|stick on url_param(user)");
const PREFIX_SESSION: Setting = set("--persist cookie=JS,prefix --persist session=JS", "");
const SESSION_PREFIX: Setting = set("--persist session=JS --persist cookie=JS,prefix", "");
const COOKIE_SESSION: Setting = set(
    "--persist cookie=SRV --persist session=JS",
    "cookie SRV insert|stick-table type string len 32 size 1k|stick on req.cook(JS)",
);
const SESSION_COOKIE: Setting = set("--persist session=JS --persist cookie=SRV", "");
const PASSIVE_SESSION: Setting = set("--persist cookie=SRV,passive --persist session=JS", "");
const ROUTE_SESSION: Setting = set("--persist route=JS --persist session=JS", "");

const NEW: &str = "SRV=s1; path=/";
const DELETED: &str = "SRV=; Expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/";
const HERE: &str = "127.0.0.1>s1";

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Who the cookie names, and what becomes of it.
    Row { gets: NEW, letters: "NI", trace: "cookie:miss,balance>s1", ..row("1", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2", by: "s2", letters: "VN", trace: "cookie:hit>s2", ..row("2", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", ..row("2: not indirect", DIRECT) },
    Row { request: "GET /|Cookie: a=1; SRV=s2; b=2", by: "s2", sees: "a=1; b=2", letters: "VN", ..row("3", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2; b=2", by: "s2", sees: "b=2", letters: "VN", ..row("3: first", INSERT) },
    Row { request: "GET /|Cookie: a=1; SRV=s2", by: "s2", sees: "a=1", letters: "VN", ..row("3: last", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2; a=1; SRV=s2", by: "s2", sees: "a=1", letters: "VN", ..row("3: twice", INSERT) },
    Row { request: "GET /|Cookie: SRV=zz", gets: NEW, letters: "II", trace: "cookie:invalid,balance>s1", ..row("4", INSERT) },
    Row { request: "GET /|Cookie: SRV=s22", gets: NEW, letters: "II", ..row("4: longer than an id", INSERT) },
    Row { request: "GET /|Cookie: SRV=S2", gets: NEW, letters: "II", ..row("4: an id in another case", INSERT) },
    Row { request: "GET /|Cookie: SRV=", gets: NEW, letters: "II", ..row("5", INSERT) },
    Row { request: "GET /|Cookie: srv=s2", gets: NEW, sees: "srv=s2", letters: "NI", ..row("6", INSERT) },
    Row { request: "GET /|Cookie: XSRV=s2; SRVX=s2", gets: NEW, sees: "XSRV=s2; SRVX=s2", letters: "NI", ..row("6: names like it", INSERT) },
    Row { request: "GET /?SRV=s2|SRV: s2", gets: NEW, letters: "NI", ..row("6: not in a cookie", INSERT) },
    Row { request: "GET /|Cookie: SRV", gets: NEW, sees: "SRV", letters: "NI", ..row("6: a name alone", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2; SRV=zz", by: "s2", letters: "VN", ..row("8", INSERT) },
    Row { request: "GET /|Cookie: SRV=zz; SRV=s2", by: "s2", letters: "VN", ..row("8: the second is good", INSERT) },
    Row { request: "GET /|Cookie: SRV=s1; SRV=s2", letters: "VN", ..row("8: both are", INSERT) },
    Row { world: "s1 down", request: "GET /|Cookie: SRV=s1; SRV=s2", by: "s2", letters: "VN", ..row("8: the first is down", INSERT) },
    Row { request: "GET /|Cookie: SRV=\"s2\"", by: "s2", letters: "VN", haproxy: Differs("it takes the quotes for a part of the value"), ..row("10", INSERT) },
    Row { request: "GET /|Cookie: SRV = s2 ; a=1", by: "s2", sees: "a=1", letters: "VN", ..row("10: spaces", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2{bar}xyz", gets: NEW, letters: "II", haproxy: Differs("it does not look at what stands behind the bar"), ..row("11", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2{now}", gets: NEW, letters: "II", haproxy: Differs("it does not look at what stands behind the bar"), ..row("11: even a date", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2~abc", gets: NEW, letters: "II", ..row("11: a prefix", INSERT) },
    Row { request: "GET /|Cookie: a=1|Cookie: SRV=s2; b=2", by: "s2", sees: "a=1|b=2", letters: "VN", ..row("82", INSERT) },
    Row { request: "GET /|Cookie: SRV=zz|Cookie: SRV=s2", by: "s2", letters: "VN", ..row("82: a value each", INSERT) },

    // How the server is.
    Row { world: "s2 down", request: "GET /|Cookie: SRV=s2", gets: NEW, letters: "DI", trace: "cookie:down>s2,balance>s1", ..row("12", INSERT) },
    Row { world: "s2 maint", request: "GET /|Cookie: SRV=s2", gets: NEW, letters: "DI", trace: "cookie:maint>s2,balance>s1", ..row("12: maintenance", INSERT) },
    Row { world: "s2 maint", request: "GET /|Cookie: SRV=s2", gets: NEW, sees: "SRV=s2", letters: "DI", ..row("13: it is not waited for", WAIT) },
    Row { world: "s2 down", request: "GET /|Cookie: SRV=s2", gets: NEW, sees: "SRV=s2", letters: "DI", ..row("13: waited in vain", WAIT_SHORTLY) },
    Row { world: "s1 drain", by: "s2", gets: "SRV=s2; path=/", letters: "NI", ..row("15", INSERT) },
    Row { world: "s2 drain", request: "GET /|Cookie: SRV=s2", by: "s2", letters: "VN", ..row("15: who is there stays", INSERT) },
    Row { world: "s2 drain, s2 down", request: "GET /|Cookie: SRV=s2", gets: NEW, letters: "DI", ..row("15: drained and down", INSERT) },
    Row { world: "s2 weightless", request: "GET /|Cookie: SRV=s2", by: "s2", letters: "VN", ..row("16", INSERT) },
    Row { world: "s1 weightless", by: "s2", gets: "SRV=s2; path=/", letters: "NI", ..row("16: nobody new", INSERT) },
    Row { world: "s2 refusing", request: "GET /|Cookie: SRV=s2", by: "503", letters: "VN", ..row("18", STAYING) },
    Row { world: "s2 refusing", request: "GET /|Cookie: SRV=s2", gets: NEW, letters: "DI", trace: "cookie:down>s2,balance>s1", ..row("19", REFUSED) },
    Row { world: "s1 refusing", by: "s2", gets: "SRV=s2; path=/", letters: "NI", ..row("19: nobody named it", REFUSED) },
    Row { world: "s2 down", request: "GET /|Cookie: SRV=s2", by: "503", letters: "DN", ..row("20", FAIL) },
    Row { world: "s2 maint", request: "GET /|Cookie: SRV=s2", gets: NEW, sees: "SRV=s2", letters: "DI", ..row("20: maintenance", FAIL) },
    Row { world: "s2 drain", request: "GET /|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", ..row("20: drained", FAIL) },
    Row { world: "s1 down", by: "s2", gets: "SRV=s2; path=/", letters: "NI", ..row("20: nobody named it", FAIL) },
    Row { world: "s1 down, s2 down", by: "503", letters: "NN", ..row("21", INSERT) },
    Row { world: "s1 down, s2 down", request: "GET /|Cookie: SRV=s2", by: "503", letters: "DN", ..row("21: bound", INSERT) },
    Row { world: "s2 backup", request: "GET /|Cookie: SRV=s2", by: "s2", letters: "VN", ..row("23", INSERT) },
    Row { world: "s2 backup", request: "GET /|Cookie: SRV=s2", gets: NEW, letters: "UI", trace: "cookie:backup>s2,balance>s1", ..row("23: to leave", LEAVE_BACKUP) },
    Row { world: "s2 backup, s1 down", request: "GET /|Cookie: SRV=s2", by: "s2", letters: "VN", ..row("23: nobody else", LEAVE_BACKUP) },
    Row { world: "s2 backup, s1 down", by: "s2", gets: "SRV=s2; path=/", letters: "NI", ..row("23: new, nobody else", INSERT) },
    Row { world: "s1 nameless", letters: "NN", haproxy: Differs("it takes back what nobody has"), ..row("24", INSERT) },
    Row { world: "s1 nameless", request: "GET /|Cookie: SRV=old", gets: DELETED, letters: "ID", haproxy: HasOtherLetters("a deletion is I"), ..row("24: one to take back", INSERT) },
    Row { world: "s1 nameless, s2 down", request: "GET /|Cookie: SRV=s2", gets: DELETED, letters: "DD", haproxy: HasOtherLetters("a deletion is I"), ..row("24: moved there", INSERT) },

    // Which answers carry it.
    Row { answer: "304 Not Modified", gets: NEW, letters: "NI", ..row("25", INSERT) },
    Row { answer: "503 Busy|Content-Length: 0", gets: NEW, letters: "NI", ..row("25: 503", INSERT) },
    Row { answer: "204 No Content", gets: NEW, letters: "NI", ..row("25: 204", INSERT) },
    Row { answer: "302 Found|Location: /a|Content-Length: 0", gets: NEW, letters: "NI", ..row("25: 302", INSERT) },
    Row {
        request: "GET /|Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|Sec-WebSocket-Version: 13",
        answer: "101 Switching Protocols|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        gets: NEW, letters: "NI", ..row("26", INSERT)
    },
    Row { world: "s1 refusing, s2 refusing", by: "503", letters: "NN", ..row("28", REFUSED) },
    Row { answer: "200 OK|Set-Cookie: SRV=x|Set-Cookie: a=b", gets: "a=b|SRV=s1; path=/", letters: "NI", ..row("29", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2", answer: "200 OK|Set-Cookie: SRV=x", by: "s2", gets: "SRV=s2; path=/", sees: "SRV=s2", letters: "VI", haproxy: Differs("it takes out the server's and leaves it at that"), ..row("30", DIRECT) },
    Row { request: "GET /|Cookie: SRV=s2", answer: "200 OK|Set-Cookie: SRV=x", by: "s2", gets: "SRV=s2; path=/", letters: "VI", haproxy: Differs("it takes out the server's and leaves it at that"), ..row("30: indirect", INSERT) },
    Row { request: "GET /|Cookie: SRV=s2", answer: "200 OK|Set-Cookie: srv=x", by: "s2", gets: "srv=x", letters: "VN", ..row("30: another name", INSERT) },
    Row { answer: "200 OK|Set-Cookie: SRV=; Max-Age=0", gets: "SRV=; Max-Age=0", letters: "NP", ..row("31", PRESERVE) },
    Row { answer: "200 OK|Set-Cookie: SRV=s2", gets: "SRV=s2", letters: "NP", ..row("31: a value", PRESERVE) },
    Row { gets: NEW, letters: "NI", ..row("31: nothing set", PRESERVE) },
    Row { request: "GET /|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", ..row("31: bound", PRESERVE) },
    Row { letters: "NN", ..row("32: GET", POSTONLY) },
    Row { request: "POST /|Content-Length: 0", gets: NEW, letters: "NI", ..row("32: POST", POSTONLY) },
    Row { world: "s2 down", request: "GET /|Cookie: SRV=s2", sees: "SRV=s2", letters: "DN", ..row("32: GET, moved", POSTONLY) },
    Row { world: "s2 down", request: "POST /|Content-Length: 0|Cookie: SRV=s2", gets: NEW, sees: "SRV=s2", letters: "DI", ..row("32: POST, moved", POSTONLY) },
    Row { answer: "200 OK|ETag: x", gets: "SRV=s1; path=/|private", letters: "NI", ..row("33", NOCACHE) },
    Row { gets: "SRV=s1; path=/|private", letters: "NI", haproxy: Differs("it leaves answers alone that have no validator"), ..row("34", NOCACHE) },
    Row { answer: "200 OK|Cache-Control: no-store", gets: "SRV=s1; path=/|no-store", letters: "NI", ..row("34: kept from caches", NOCACHE) },
    Row { request: "GET /|Cookie: SRV=s2", answer: "200 OK|ETag: x", by: "s2", sees: "SRV=s2", letters: "VN", ..row("34: nothing inserted", NOCACHE) },
    Row {
        gets: "SRV=s1; path=/; domain=a.example|SRV=s1; path=/; domain=b.example", letters: "NI",
        haproxy: Differs("it writes one cookie with both, of which browsers look at the last"), ..row("35", DOMAINS)
    },
    Row { gets: "SRV=s1; path=/; domain=.a.example; HttpOnly; Secure; SameSite=Lax; Priority=High", letters: "NI", ..row("35: attributes", ATTRIBUTES) },
    Row { gets: "SRV=s1; path=/app; Max-Age=3600; SameSite=Strict", letters: "NI", ..row("35: ours alone", OUR_ATTRIBUTES) },

    // Dates.
    Row { gets: "SRV=s1{now}{now}; path=/", letters: "NI", ..row("36", DATED) },
    Row { gets: "SRV=s1{now}; path=/", letters: "NI", ..row("36: idle only", IDLE) },
    Row { gets: "SRV=s1{now}{now}; path=/", letters: "NI", ..row("36: life only", LIFE) },
    Row { request: "GET /|Cookie: SRV=s2{-10m}{-1h}", by: "s2", gets: "SRV=s2{now}{-1h}; path=/", letters: "VU", ..row("37: seen again", DATED) },
    Row { request: "GET /|Cookie: SRV=s2{+1m}{-1h}", by: "s2", letters: "VN", ..row("37: at once", DATED) },
    Row { request: "GET /|Cookie: SRV=s2{-1h}{-2h}", gets: "SRV=s1{now}{now}; path=/", letters: "EI", trace: "cookie:expired,balance>s1", ..row("38", DATED) },
    Row { request: "GET /|Cookie: SRV=s2{-10m}{-9h}", gets: "SRV=s1{now}{now}; path=/", letters: "OI", trace: "cookie:expired,balance>s1", ..row("39", DATED) },
    Row { request: "GET /|Cookie: SRV=s2{-1h}{-9h}", gets: "SRV=s1{now}{now}; path=/", letters: "OI", ..row("39: both", DATED) },
    Row { request: "GET /|Cookie: SRV=s2{-10m}{-9h}", by: "s2", gets: "SRV=s2{now}; path=/", letters: "VU", ..row("39: that does not count", IDLE) },
    Row { request: "GET /|Cookie: SRV=s2{-9h}{-1h}", by: "s2", gets: "SRV=s2{now}{-1h}; path=/", letters: "VU", ..row("38: that does not count", LIFE) },
    Row { request: "GET /|Cookie: SRV=s2", by: "s2", gets: "SRV=s2{now}{now}; path=/", letters: "VU", ..row("40", DATED) },
    Row { request: "GET /|Cookie: SRV=s2", by: "s2", gets: "SRV=s2{now}; path=/", letters: "VU", ..row("40: idle only", IDLE) },
    Row { request: "GET /|Cookie: SRV=s2{-10m}", by: "s2", gets: "SRV=s2{now}{now}; path=/", letters: "VU", ..row("40: one of two", DATED) },
    Row { request: "GET /|Cookie: SRV=s2{+1h}", by: "s2", letters: "VN", ..row("41", IDLE) },
    Row { request: "GET /|Cookie: SRV=s2{+25h}", gets: "SRV=s1{now}; path=/", letters: "EI", ..row("41: more than a day", IDLE) },
    Row { request: "GET /|Cookie: SRV=s2{-10m}{+25h}", gets: "SRV=s1{now}{now}; path=/", letters: "OI", ..row("41: first seen", DATED) },
    Row { request: "GET /|Cookie: SRV=s2{bar}xyz", gets: "SRV=s1{now}; path=/", letters: "II", haproxy: Differs("it takes what is no date for a missing one"), ..row("42: no date", IDLE) },
    Row { request: "GET /|Cookie: SRV=s2{-10m}{-1h}{now}", gets: "SRV=s1{now}{now}; path=/", letters: "II", haproxy: Differs("it does not look behind the second one"), ..row("42: three dates", DATED) },
    Row { request: "GET /|Cookie: SRV=zz{-10m}", gets: "SRV=s1{now}; path=/", letters: "II", ..row("42: nobody's id", IDLE) },
    Row { world: "s2 down", request: "GET /|Cookie: SRV=s2{-10m}{-1h}", gets: "SRV=s1{now}{-1h}; path=/", letters: "DI", ..row("42: moved, and first seen when it was", DATED) },

    // Signed.
    Row { gets: "SRV=<s1>; path=/", letters: "NI", ..row("43: new", SIGNED) },
    Row { request: "GET /|Cookie: SRV=<s2>", by: "s2", letters: "VN", ..row("43: good", SIGNED) },
    Row { request: "GET /|Cookie: SRV=s2", gets: "SRV=<s1>; path=/", letters: "II", ..row("43: no code", SIGNED) },
    Row { request: "GET /|Cookie: SRV=s2.AAAAAAAAAAAAAAAA", gets: "SRV=<s1>; path=/", letters: "II", ..row("43: a wrong one", SIGNED) },
    Row { request: "GET /|Cookie: SRV=<zz>", gets: "SRV=<s1>; path=/", letters: "II", ..row("43: of a server that is gone", SIGNED) },
    Row { request: "GET /|Cookie: SRV=<s2{-10m}>", by: "s2", gets: "SRV=<s2{now}>; path=/", letters: "VU", ..row("43: dated", SIGNED_DATED) },
    Row { request: "GET /|Cookie: SRV=<s2{-1h}>", gets: "SRV=<s1{now}>; path=/", letters: "EI", ..row("43: idle", SIGNED_DATED) },
    Row { request: "GET /|Cookie: SRV=s2{now}.AAAAAAAAAAAAAAAA", gets: "SRV=<s1{now}>; path=/", letters: "II", ..row("43", SIGNED_DATED) },
    Row { gets: "SRV={id1}; path=/", letters: "NI", ..row("84", DYNAMIC) },
    Row { request: "GET /|Cookie: SRV={id2}", by: "s2", letters: "VN", ..row("84: named", DYNAMIC) },
    Row { request: "GET /|Cookie: SRV=s2", gets: "SRV={id1}; path=/", letters: "II", ..row("84: the name is no id", DYNAMIC) },

    // The application's cookie.
    Row { answer: "200 OK|Set-Cookie: SRV=x; Path=/", gets: "SRV=s1; Path=/", letters: "NR", ..row("44", REWRITE) },
    Row { answer: "200 OK|Set-Cookie: a=b|Set-Cookie: SRV=", gets: "a=b|SRV=s1", letters: "NR", ..row("44: without a value", REWRITE) },
    Row { answer: "200 OK|Set-Cookie: SRV=x; secure", gets: "SRV=s1; secure; HttpOnly", letters: "NR", ..row("44: attributes that are missing", REWRITE_SAFELY) },
    Row { request: "GET /|Cookie: SRV=s2", answer: "200 OK|Set-Cookie: SRV=x", by: "s2", gets: "SRV=s2", sees: "SRV=s2", letters: "VR", ..row("44: bound", REWRITE) },
    Row { letters: "NN", ..row("45", REWRITE) },
    Row { request: "GET /|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", ..row("45: bound", REWRITE) },
    Row { world: "s2 down", request: "GET /|Cookie: SRV=s2", sees: "SRV=s2", letters: "DN", ..row("45: moved", REWRITE) },
    Row { request: "GET /|Cookie: JS=s2~abc", by: "s2", sees: "JS=abc", letters: "VN", ..row("47", PREFIX) },
    Row { request: "GET /|Cookie: a=b; JS=s2~abc; c=d", by: "s2", sees: "a=b; JS=abc; c=d", letters: "VN", ..row("47: among others", PREFIX) },
    Row { request: "GET /|Cookie: JS=\"s2~abc\"", by: "s2", sees: "JS=\"abc\"", letters: "VN", haproxy: Differs("it takes the quotes for a part of the value"), ..row("47: quoted", PREFIX) },
    Row { request: "GET /|Cookie: JS=s2~", by: "s2", sees: "JS=", letters: "VN", ..row("47: nothing behind it", PREFIX) },
    Row { request: "GET /|Cookie: JS=s2~a~b", by: "s2", sees: "JS=a~b", letters: "VN", ..row("47: the first counts", PREFIX) },
    Row { world: "s2 down", request: "GET /|Cookie: JS=s2~abc", sees: "JS=abc", letters: "DN", ..row("47: moved", PREFIX) },
    Row { request: "GET /|Cookie: JS=zzz~abc", sees: "JS=zzz~abc", letters: "NN", haproxy: Differs("it cuts off whatever stands before a ~"), ..row("48", PREFIX) },
    Row { request: "GET /|Cookie: JS=abc", sees: "JS=abc", letters: "NN", haproxy: HasOtherLetters("a value without a prefix is I"), ..row("49", PREFIX) },
    Row { answer: "200 OK|Set-Cookie: JS=abc; HttpOnly", gets: "JS=s1~abc; HttpOnly", letters: "NR", ..row("50", PREFIX) },
    Row { request: "GET /|Cookie: JS=s2~abc", answer: "200 OK|Set-Cookie: JS=def", by: "s2", gets: "JS=s2~def", sees: "JS=abc", letters: "VR", ..row("50: bound", PREFIX) },
    Row { world: "s2 down", request: "GET /|Cookie: JS=s2~abc", answer: "200 OK|Set-Cookie: JS=def", gets: "JS=s1~def", sees: "JS=abc", letters: "DR", ..row("50: moved", PREFIX) },
    Row { answer: "200 OK|Set-Cookie: JS=; Max-Age=0", gets: "JS=; Max-Age=0", letters: "NP", haproxy: Differs("it puts a prefix before nothing, which is a cookie again"), ..row("51", PREFIX) },
    Row { answer: "200 OK|Set-Cookie: JS=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT", gets: "JS=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT", letters: "NP", haproxy: Differs("it puts a prefix before it all the same"), ..row("51: in the past", PREFIX) },
    Row { request: "GET /|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", haproxy: HasOtherLetters("none in this mode"), ..row("passive", PASSIVE) },
    Row { request: "GET /|Cookie: SRV=zz", sees: "SRV=zz", letters: "IN", haproxy: HasOtherLetters("none in this mode"), ..row("passive: nobody's id", PASSIVE) },
    Row { world: "s2 down", request: "GET /|Cookie: SRV=s2", sees: "SRV=s2", letters: "DN", haproxy: HasOtherLetters("none in this mode"), ..row("passive: moved", PASSIVE) },
    Row { answer: "200 OK|Set-Cookie: SRV=s2", gets: "SRV=s2", letters: "NP", haproxy: HasOtherLetters("none in this mode"), ..row("passive: set by the server", PASSIVE) },
    Row { request: "GET /|Cookie: JSESSIONID=abc.s2", by: "s2", sees: "JSESSIONID=abc.s2", trace: "route:hit>s2", ..row("route", ROUTE) },
    Row { request: "GET /|Cookie: JSESSIONID=a.s1.s2", by: "s2", sees: "JSESSIONID=a.s1.s2", ..row("route: the last dot", ROUTE) },
    Row { request: "GET /|Cookie: JSESSIONID=abc", sees: "JSESSIONID=abc", trace: "route:miss,balance>s1", ..row("route: none", ROUTE) },
    Row { request: "GET /|Cookie: JSESSIONID=abc.zz", sees: "JSESSIONID=abc.zz", trace: "route:invalid,balance>s1", ..row("route: nobody's", ROUTE) },
    Row { request: "GET /a;jsessionid=abc.s2?x=y", by: "s2", ..row("route in the path", ROUTE) },
    Row { request: "GET /a;jsessionid=abc.s2", trace: "route:miss,balance>s1", ..row("route, not in the path", ROUTE_IN_COOKIE) },
    Row { world: "s2 down", request: "GET /|Cookie: JSESSIONID=abc.s2", sees: "JSESSIONID=abc.s2", trace: "route:down>s2,balance>s1", ..row("route: moved", ROUTE) },

    // What is ignored.
    Row { request: "GET /static/a|Cookie: SRV=s2", sees: "SRV=s2", letters: "UN", ..row("52", IGNORE) },
    Row { request: "GET /static/a", letters: "NN", ..row("52: new", IGNORE) },
    Row { request: "GET /a?/static|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", ..row("52: another path", IGNORE) },
    Row { request: "GET /static/a", answer: "200 OK|Set-Cookie: JS=abc", gets: "JS=s1~abc", letters: "NR", haproxy: Differs("it puts no prefix there, and takes it off the next request"), ..row("53", IGNORE_PREFIX) },
    Row { request: "GET /static/a|Cookie: JS=s2~abc", sees: "JS=abc", letters: "UN", ..row("53: request", IGNORE_PREFIX) },
    Row {
        learned: "abc>s2|127.0.0.1>s2", request: "GET /static/a|Cookie: JS=abc", answer: "200 OK|Set-Cookie: JS=def",
        gets: "JS=def", sees: "JS=abc", leaves: "127.0.0.1>s2|abc>s2", trace: "balance>s1", ..row("53: tables", IGNORE_LEARNED)
    },

    // Addresses.
    Row { gets: NEW, letters: "NI", leaves: HERE, trace: "cookie:miss,source:miss,balance>s1", ..row("55: both are new", COOKIE_SOURCE) },
    Row { request: "GET /|Cookie: SRV=s2", by: "s2", letters: "VN", leaves: "127.0.0.1>s2", trace: "cookie:hit>s2,source:miss", ..row("55: the cookie teaches", COOKIE_SOURCE) },
    Row { learned: "127.0.0.1>s2", by: "s2", gets: "SRV=s2; path=/", letters: "NI", leaves: "127.0.0.1>s2", haproxy: Differs("it issues no cookie when a table has decided"), ..row("56", COOKIE_SOURCE) },
    Row { learned: "127.0.0.1>s2", request: "GET /|Cookie: SRV=zz", by: "s2", gets: "SRV=s2; path=/", letters: "II", leaves: "127.0.0.1>s2", haproxy: Differs("it issues no cookie when a table has decided"), ..row("57", COOKIE_SOURCE) },
    Row { learned: HERE, request: "GET /|Cookie: SRV=s2", by: "s2", letters: "VN", leaves: "127.0.0.1>s2", trace: "cookie:hit>s2,source:outvoted>s1", ..row("58: they disagree", COOKIE_SOURCE) },
    Row { learned: HERE, request: "GET /|Cookie: SRV=s2", gets: NEW, letters: "UI", leaves: HERE, trace: "source:hit>s1,cookie:outvoted>s2", ..row("58: the other way round", SOURCE_COOKIE) },
    Row { learned: "127.0.0.1>s2", world: "s2 down", request: "GET /|Cookie: SRV=s2", gets: NEW, letters: "DI", leaves: HERE, ..row("58: both move", COOKIE_SOURCE) },
    Row { leaves: HERE, trace: "source:miss,balance>s1", ..row("59", SOURCE) },
    Row { learned: "127.0.0.1>s2", by: "s2", leaves: "127.0.0.1>s2", trace: "source:hit>s2", ..row("60: known", SOURCE) },
    Row { learned: "127.0.0.1>s2", world: "s2 drain", by: "s2", leaves: "127.0.0.1>s2", ..row("61", SOURCE) },
    Row { learned: "127.0.0.1>s2", world: "s2 down", leaves: HERE, trace: "source:down>s2,balance>s1", ..row("61: down", SOURCE) },
    Row { learned: "127.0.0.1>s2", world: "s2 maint", leaves: HERE, ..row("61: maintenance", SOURCE) },
    Row { learned: "127.0.0.1>s77", leaves: HERE, trace: "source:miss,balance>s1", ..row("62", SOURCE) },

    // The application's ids, headers, parameters.
    Row { answer: "500 Oops|Content-Length: 0", leaves: HERE, ..row("63: any answer teaches an address", SOURCE) },
    Row { request: "GET /|Cookie: JS=", sees: "JS=", ..row("64", SESSION) },
    Row { request: "GET /", ..row("64: none", SESSION) },
    Row { request: "GET /|X-User:", ..row("64: a header", HEADER) },
    Row { request: "GET /?user=", ..row("64: a parameter", QUERY) },
    Row { answer: "200 OK|Set-Cookie: JS=abc", gets: "JS=abc", leaves: "abc>s1", ..row("71", SESSION) },
    Row { learned: "abc>s2", request: "GET /|Cookie: JS=abc", by: "s2", sees: "JS=abc", leaves: "abc>s2", trace: "session:hit>s2", ..row("71: known", SESSION) },
    Row { learned: "abc>s2", request: "GET /a;js=abc?x=y", by: "s2", leaves: "abc>s2", ..row("71: in the path", SESSION_IN_PATH) },
    Row { learned: "abc>s2", request: "GET /|Cookie: JS=abc", answer: "200 OK|Set-Cookie: JS=new", by: "s2", gets: "JS=new", sees: "JS=abc", leaves: "abc>s2|new>s2", ..row("71: a new one", SESSION) },
    Row { answer: "200 OK|Set-Cookie: JS=a|Set-Cookie: JS=b", gets: "JS=a|JS=b", leaves: "b>s1", ..row("71: the last counts", SESSION) },
    Row { answer: "200 OK|Set-Cookie: js=abc", gets: "js=abc", ..row("71: another name", SESSION) },
    Row { learned: "XY=abc>s2", request: "GET /|Cookie: ASPSESSIONIDXY=abc", by: "s2", sees: "ASPSESSIONIDXY=abc", leaves: "XY=abc>s2", ..row("71: the name's beginning", PREFIX_NAME) },
    Row { request: "GET /|Cookie: JS=abc", sees: "JS=abc", leaves: "abc>s1", trace: "session:miss,balance>s1", ..row("72", SESSION) },
    Row { request: "GET /|Cookie: JS=abc", sees: "JS=abc", ..row("72: not learned", NO_REQUEST_LEARN) },
    Row { answer: "200 OK|Set-Cookie: JS=abc", gets: "JS=abc", leaves: "abc>s1", ..row("72: but what is set", NO_REQUEST_LEARN) },
    Row { learned: "abc>s2", world: "s2 down", request: "GET /|Cookie: JS=abc", sees: "JS=abc", leaves: "abc>s1", trace: "session:down>s2,balance>s1", ..row("73: moved", SESSION) },
    Row { learned: "abc>s2", request: "GET /|Cookie: JS=zz; JS=abc", by: "s2", sees: "JS=zz; JS=abc", leaves: "abc>s2", ..row("73: the second is known", SESSION) },
    Row { learned: "abc>s2", request: "GET /|Cookie: JS=abc", answer: "200 OK|Set-Cookie: JS=; Max-Age=0", by: "s2", gets: "JS=; Max-Age=0", sees: "JS=abc", ..row("74: ended", SESSION) },
    Row { learned: "abc>s1", request: "GET /|Cookie: JS=s2~abc", by: "s2", sees: "JS=abc", letters: "VN", leaves: "abc>s2", trace: "cookie:hit>s2,session:outvoted>s1", ..row("75", PREFIX_SESSION) },
    Row { learned: "abc>s1", request: "GET /|Cookie: JS=s2~abc", sees: "JS=abc", letters: "UN", leaves: "abc>s1", trace: "session:hit>s1,cookie:outvoted>s2", ..row("75: the other way round", SESSION_PREFIX) },
    Row { answer: "200 OK|Set-Cookie: JS=abc", gets: "JS=s1~abc", letters: "NR", leaves: "abc>s1", ..row("75: the bare id", PREFIX_SESSION) },
    Row { learned: "abc>s1", request: "GET /|Cookie: SRV=s2; JS=abc", by: "s2", sees: "SRV=s2; JS=abc", letters: "VN", leaves: "abc>s2", ..row("75: a cookie of ours", COOKIE_SESSION) },
    Row { learned: "abc>s1", request: "GET /|Cookie: SRV=s2; JS=abc", gets: NEW, sees: "SRV=s2; JS=abc", letters: "UI", leaves: "abc>s1", ..row("75: ours comes second", SESSION_COOKIE) },
    Row { learned: "abc>s2", request: "GET /|Cookie: SRV=zz; JS=abc", by: "s2", gets: "SRV=s2; path=/", sees: "SRV=zz; JS=abc", letters: "II", leaves: "abc>s2", haproxy: Differs("it issues no cookie when a table has decided"), ..row("75: the session alone knows", COOKIE_SESSION) },
    Row { learned: "abc>s1", request: "GET /|Cookie: SRV=s2; JS=abc", by: "s2", sees: "SRV=s2; JS=abc", letters: "VN", leaves: "abc>s2", ..row("75: passive", PASSIVE_SESSION) },
    Row { learned: "abc.s2>s1", request: "GET /|Cookie: JS=abc.s2", by: "s2", sees: "JS=abc.s2", leaves: "abc.s2>s2", trace: "route:hit>s2,session:outvoted>s1", ..row("75: a route", ROUTE_SESSION) },
    Row { world: "s2 down", request: "GET /|Cookie: JS=abc.s2", sees: "JS=abc.s2", leaves: "abc.s2>s1", ..row("75: a route, moved", ROUTE_SESSION) },
    Row { answer: "500 Oops|Content-Length: 0|Set-Cookie: JS=abc", gets: "JS=abc", ..row("76", SESSION) },
    Row { answer: "401 Who|Content-Length: 0|Set-Cookie: JS=abc", gets: "JS=abc", leaves: "abc>s1", ..row("76: 401 teaches", SESSION) },
    Row { answer: "200 OK|Set-Cookie: JS=abc", gets: "JS=abc", ..row("76: not that status", ONLY_201) },
    Row { answer: "201 Made|Content-Length: 0|Set-Cookie: JS=abc", gets: "JS=abc", leaves: "abc>s1", ..row("76: that status", ONLY_201) },
    Row { learned: "abc>s2", world: "s2 down", request: "GET /|Cookie: JS=abc", answer: "500 Oops|Content-Length: 0", sees: "JS=abc", leaves: "abc>s1", ..row("76: but re-points", SESSION) },
    Row { learned: "ann>s2", request: "GET /|X-User: ann", by: "s2", leaves: "ann>s2", trace: "header:hit>s2", ..row("header", HEADER) },
    Row { request: "GET /|X-User: ann", leaves: "ann>s1", ..row("header: new", HEADER) },
    Row { request: "GET /|X-User: ann", answer: "500 Oops|Content-Length: 0", ..row("header: no answer to learn from", HEADER) },
    Row { learned: "ann>s2", request: "GET /?a=b&user=ann", by: "s2", leaves: "ann>s2", trace: "query:hit>s2", ..row("query", QUERY) },
    Row { learned: "ann>s2", request: "GET /?User=ann", leaves: "ann>s2", ..row("query: another case", QUERY) },
];
