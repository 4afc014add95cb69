//! Configurations in the manner of HAProxy's documentation: imported, checked, run, and compared with HAProxy that runs
//! the original. And files that are none.

#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` marks what its modules share")]

#[path = "import/stage.rs"]
mod stage;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use stage::{Answer, Original, Origins, PATIENCE, ask, balancer, text};
use tempfile::TempDir;

/// Who has to answer.
#[derive(Clone, Copy, Debug)]
enum Who {
    Anybody,
    /// The server of 10.0.0.11 is 1.
    Is(usize),
    /// Who has answered that row.
    Like(usize),
}
use Who::{Anybody, Is, Like};

/// A request to both.
struct Row {
    from: &'static str,
    line: &'static str,
    headers: &'static [&'static str],
    who: Who,
    /// Why the cookies differ.
    differs: Option<&'static str>,
}

const fn row(headers: &'static [&'static str], who: Who) -> Row {
    Row { from: "127.0.0.1", line: "GET /", headers, who, differs: None }
}

impl Row {
    const fn from(self, from: &'static str) -> Self {
        Self { from, ..self }
    }

    const fn line(self, line: &'static str) -> Self {
        Self { line, ..self }
    }

    const fn differs(self, why: &'static str) -> Self {
        Self { differs: Some(why), ..self }
    }
}

/// Plays rows to a configuration: to ours alone where HAProxy 2.6 has no such thing.
fn play(file: &'static str, arguments: &[&str], exit: i32, is_compared: bool, cookie: &str, rows: &[Row]) {
    let origins = Origins::start(4);
    let original = Original::read(file, &origins);
    let ours = original.balancer(arguments, exit);
    let theirs = is_compared.then(|| original.haproxy()).flatten();
    let mut ids = HashMap::new();
    let (mut our_answers, mut their_answers) = (Vec::<Answer>::new(), Vec::<Answer>::new());
    for (index, row) in rows.iter().enumerate() {
        let what = format!("{file}, row {index}: {} {:?}", row.line, row.headers);
        let mut said = Vec::new();
        let fronts = [(&mut our_answers, Some(&ours)), (&mut their_answers, theirs.as_ref())];
        for (answers, front) in fronts {
            let Some(front) = front else { continue };
            let answer = ask(front.address, row.from, row.line, row.headers);
            match row.who {
                Anybody => {}
                Is(server) => assert_eq!(answer.server, server, "{what}"),
                Like(row) => assert_eq!(answer.server, answers[row].server, "{what}, like row {row}"),
            }
            let sets: Vec<String> =
                answer.set_cookies.iter().map(|set| plain(set, cookie, &answer, &mut ids)).collect();
            said.push((sets, answer.cookies.clone(), answer.forwarded_for.clone()));
            answers.push(answer);
        }
        if let [ours, theirs] = &said[..] {
            match row.differs {
                None => assert_eq!(ours, theirs, "{what}: ours, HAProxy's"),
                Some(why) => assert_ne!(ours, theirs, "{what}: it is the same, so this is wrong: {why}"),
            }
        }
    }
}

/// A Set-Cookie without what depends on who was chosen and when. A server has one id, whoever says it.
fn plain(set: &str, cookie: &str, answer: &Answer, ids: &mut HashMap<usize, String>) -> String {
    let Some(value) = set.strip_prefix(&format!("{cookie}=")) else { return set.to_owned() };
    let end = value.find(['|', '~', ';']).unwrap_or(value.len());
    let (id, rest) = value.split_at(end);
    if id.is_empty() {
        return set.to_owned();
    }
    let known = ids.entry(answer.server).or_insert_with(|| id.to_owned());
    assert_eq!(known, id, "the id of server {}: {set}", answer.server);
    // Dates are five characters each.
    let dates = rest.split(';').next().unwrap_or_default().matches('|').count();
    let rest = if dates > 0 { &rest[6 * dates..] } else { rest };
    format!("{cookie}=ID{}{rest}", "|DATE".repeat(dates))
}

#[test]
fn an_inserted_cookie() {
    play(
        "insert.cfg",
        &[],
        0,
        true,
        "SRV",
        &[
            row(&[], Anybody),
            row(&["Cookie: SRV=w1"], Is(1)),
            row(&["Cookie: SRV=w2"], Is(2)),
            row(&["Cookie: SRV=w3"], Is(3)),
            row(&["Cookie: a=1; SRV=w2; b=2"], Is(2)),
            row(&["Cookie: SRV=zz"], Anybody),
            row(&["Cookie: srv=w2"], Anybody),
            row(&["X-Set: SRV=x; Path=/", "X-Set: other=1"], Anybody),
        ],
    );
}

#[test]
fn an_inserted_cookie_with_attributes_and_dates() {
    play(
        "attributes.cfg",
        &[],
        0,
        true,
        "SHOP",
        &[row(&[], Anybody), row(&["Cookie: SHOP=b"], Is(2)), row(&["Cookie: SHOP=a|AAAAA|AAAAA"], Anybody)],
    );
}

#[test]
fn a_prefix() {
    play(
        "prefix.cfg",
        &[],
        3,
        true,
        "PHPSESSID",
        &[
            row(&["X-Set: PHPSESSID=abc; Path=/"], Anybody),
            row(&["Cookie: PHPSESSID=p2~abc"], Is(2)),
            row(&["Cookie: x=1; PHPSESSID=p1~abc"], Is(1)),
            row(&["Cookie: PHPSESSID=abc"], Anybody),
            row(&["Cookie: PHPSESSID=zzz~abc"], Anybody)
                .differs("HAProxy takes off what stands before any ~"),
        ],
    );
}

#[test]
fn a_rewritten_cookie() {
    play(
        "rewrite.cfg",
        &[],
        0,
        true,
        "SERVERID",
        &[
            row(&["X-Set: SERVERID=x; Path=/app; HttpOnly"], Anybody),
            row(&["Cookie: SERVERID=l2"], Is(2)),
            row(&["Cookie: SERVERID=l1", "X-Set: SERVERID=x"], Is(1)),
            row(&[], Anybody),
        ],
    );
}

#[test]
fn a_cookie_that_is_only_read() {
    play(
        "passive.cfg",
        &[],
        0,
        true,
        "NODE",
        &[
            row(&["Cookie: NODE=one"], Is(1)),
            row(&["Cookie: NODE=two"], Is(2)),
            row(&["Cookie: NODE=n3"], Anybody),
            row(&["X-Set: other=1"], Anybody),
        ],
    );
}

#[test]
fn a_cookie_for_posts_that_the_application_may_take_back() {
    play(
        "preserve.cfg",
        &[],
        0,
        true,
        "LB",
        &[
            row(&[], Anybody),
            row(&[], Anybody).line("POST /"),
            row(&["Cookie: LB=two"], Is(2)).line("POST /"),
            row(&["Cookie: LB=one", "X-Set: LB=; Max-Age=0"], Is(1)).line("POST /"),
        ],
    );
}

#[test]
fn what_counts_where_it_stands() {
    play(
        "routes.cfg",
        &[],
        3,
        true,
        "SRV",
        &[
            row(&[], Is(1)),
            row(&["Cookie: SRV=w1"], Is(1)),
            row(&["Cookie: SRV=w2"], Is(2)),
            row(&["Cookie: SRV=w2"], Is(1)).line("GET /static/logo"),
            row(&["Cookie: SRV=w2"], Is(2)).line("GET /none"),
            row(&["Cookie: SRV=w2"], Is(2)).line("GET /everywhere"),
        ],
    );
}

#[test]
fn ids_that_are_made_of_addresses() {
    play(
        "dynamic.cfg",
        &[],
        3,
        true,
        "NODE",
        &[
            row(&[], Anybody),
            row(&[], Anybody),
            row(&["Cookie: NODE=fixed"], Is(3)),
            row(&["Cookie: NODE=none"], Anybody),
        ],
    );
}

#[test]
fn addresses_of_clients() {
    play(
        "source.cfg",
        &[],
        0,
        true,
        "",
        &[
            row(&[], Anybody).from("127.0.2.1"),
            row(&[], Anybody).from("127.0.2.2"),
            row(&[], Like(0)).from("127.0.2.1"),
            row(&[], Like(1)).from("127.0.2.2"),
            row(&[], Like(0)).from("127.0.2.1"),
        ],
    );
}

#[test]
fn ids_of_the_application() {
    play(
        "session.cfg",
        &[],
        3,
        true,
        "",
        &[
            row(&["X-Set: JSESSIONID=abc; Path=/"], Anybody),
            row(&["Cookie: JSESSIONID=abc"], Like(0)),
            row(&[], Like(0)).line("GET /page;jsessionid=abc"),
            row(&["Cookie: JSESSIONID=def"], Anybody),
            row(&["Cookie: x=1; JSESSIONID=def"], Like(3)),
            row(&["Cookie: JSESSIONID=abc"], Like(0)),
        ],
    );
}

/// Users whom HAProxy has sent somewhere, and who are to be sent there by us, once its table was taken along.
fn take_along(
    file: &'static str,
    import: i32,
    table: &str,
    users: &[(String, Option<String>)],
) -> Option<(Value, i32)> {
    let origins = Origins::start(2);
    let original = Original::read(file, &origins);
    let theirs = original.haproxy()?;
    let homes: Vec<usize> = users
        .iter()
        .map(|user| ask(theirs.address, &user.0, "GET /", user.1.as_deref().as_slice()).server)
        .collect();
    let dump = theirs.show_table(table);
    drop(theirs);
    let ours = original.balancer(&[], import);
    let rehearsed = ours.tell(&["table", "load", "--dry-run"], &dump);
    assert!(text(&rehearsed.stdout).contains(" would be loaded into "), "{}", text(&rehearsed.stdout));
    let output = ours.tell(&["table", "load", "--json", "input"], &dump);
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)));
    for (user, home) in users.iter().zip(homes) {
        assert_eq!(
            ask(ours.address, &user.0, "GET /", user.1.as_deref().as_slice()).server,
            home,
            "{user:?} of {dump}"
        );
    }
    // And what is shown here is read again.
    if said["table"] == "source" {
        for form in [&["show", "table", "source"][..], &["show", "table", "source", "--json"]] {
            let shown = ours.tell(form, "");
            let again = ours.tell(&["table", "load", "--json"], &text(&shown.stdout));
            let again: Value = serde_json::from_slice(&again.stdout).expect("JSON");
            assert_eq!(again["loaded"], said["loaded"], "{form:?}");
        }
    }
    Some((said, output.status.code().expect("it ends")))
}

#[test]
fn clients_stay_where_haproxys_table_had_them() {
    let users: Vec<_> = (1..=40).map(|n| (format!("127.0.3.{n}"), None)).collect();
    let Some((said, code)) = take_along("source.cfg", 0, "sticky", &users) else { return };
    assert_eq!(
        (&said["loaded"], &said["entries"], &said["table"]),
        (&40.into(), &40.into(), &"source".into())
    );
    assert_eq!((said["skipped"].as_object().map(serde_json::Map::len), code), (Some(0), 0), "{said}");
}

#[test]
fn ids_stay_where_haproxys_table_had_them() {
    let odd = ["a=b", "a%20b", "a\\b", "a+b/c==", "'x'", "#", "key=a", "use=0", &"x".repeat(52)]
        .map(ToOwned::to_owned);
    let ids = (1..=40).map(|n| format!("{n:032X}.j1")).chain(odd);
    let user = |id: String| ("127.0.0.1".to_owned(), Some(format!("Cookie: JSESSIONID={id}")));
    let users: Vec<_> = ids.map(user).collect();
    let Some((said, code)) = take_along("session.cfg", 3, "java", &users) else { return };
    assert_eq!(
        (&said["loaded"], &said["table"], code),
        (&49.into(), &"session=JSESSIONID".into(), 0),
        "{said}"
    );
}

#[test]
fn a_file_that_is_no_table_changes_nothing() {
    let origins = Origins::start(2);
    let ours = Original::read("source.cfg", &origins).balancer(&[], 0);
    let load = |words: &[&str], input: &str| {
        let output = ours.tell(&[&["table", "load"], words].concat(), input);
        (output.status.code().expect("it ends"), text(&output.stdout) + &text(&output.stderr))
    };
    for (words, input, expected) in [
        (&["gone"][..], "", (2, "gone cannot be read: no such file")),
        (&["/"], "", (2, "/ cannot be read: ")),
        (&[], "", (1, "has no entries that could be loaded: there are none")),
        (&[], "global\n  daemon now and for ever\n", (1, "2 are not understood: line 1 \"global\"")),
        (&["--table", "nope"], "10.0.0.1 s1\n", (2, "--table \"nope\" is not there; there are: source")),
        (&[], "somebody s1\n", (2, "no table has ids for keys")),
        (&[], "10.0.0.1 s9\n10.0.0.2 s1 5m\n", (3, "1 name servers that are not there: line 1 \"s9\"")),
        (&[], "10.0.0.2 s1\n", (0, "1 of 1 entries of - are loaded into source, which has 1 of 204800 now")),
    ] {
        let (code, said) = load(words, input);
        assert!(code == expected.0 && said.contains(expected.1), "{words:?} {input:?}: {code} {said}");
    }
}

#[test]
fn values_of_headers_and_parameters() {
    play(
        "header.cfg",
        &[],
        3,
        true,
        "",
        &[
            row(&["X-Tenant: blue"], Anybody),
            row(&["X-Tenant: red"], Anybody),
            row(&["X-Tenant: blue"], Like(0)),
            row(&["X-Tenant: red"], Like(1)),
            row(&[], Anybody).line("GET /?room=5"),
            row(&[], Like(4)).line("GET /x?a=1&room=5"),
        ],
    );
}

#[test]
fn a_cookie_and_a_table() {
    const GIVEN: &str = "HAProxy sends no cookie to who was found in a table";
    play(
        "both.cfg",
        &[],
        3,
        true,
        "SRV",
        &[
            row(&[], Anybody).from("127.0.5.1"),
            row(&[], Like(0)).from("127.0.5.9").differs(GIVEN),
            row(&["Cookie: SRV=s2"], Is(2)).from("127.0.5.1"),
            row(&[], Is(2)).from("127.0.5.7").differs(GIVEN),
            row(&["Cookie: SRV=s1"], Anybody).from("127.0.6.1").line("GET /static/a.css"),
            row(&["Cookie: SRV=s1"], Is(1)).from("127.0.7.1").line("GET /other"),
        ],
    );
}

#[test]
fn checks_limits_and_who_the_client_is() {
    play(
        "checks.cfg",
        &["--backend", "api"],
        3,
        true,
        "",
        &[
            row(&[], Anybody).from("127.0.0.7").line("GET /a"),
            row(&[], Like(0)).from("127.0.0.8").line("GET /a?x"),
            row(&[], Like(0))
                .line("GET /a")
                .differs("HAProxy leaves the addresses out that stand behind except"),
        ],
    );
}

#[test]
fn connections() {
    play(
        "tcp.cfg",
        &[],
        0,
        true,
        "",
        &[row(&[], Is(1)).from("127.0.2.1"), row(&["Cookie: x=1"], Is(1)).from("127.0.2.1")],
    );
}

#[test]
fn names_from_the_environment_and_defaults_by_name() {
    play(
        "environment.cfg",
        &[],
        3,
        true,
        "webID",
        &[row(&[], Anybody), row(&["Cookie: webID=b"], Is(2)), row(&["Cookie: webID=a"], Is(1))],
    );
}

/// Gone since HAProxy 1.6.
#[test]
fn appsession_decides_before_the_cookie() {
    play(
        "appsession.cfg",
        &[],
        0,
        false,
        "SERVERID",
        &[
            row(&["Cookie: SERVERID=app2", "X-Set: JSESSIONID=abc"], Is(2)),
            row(&["Cookie: JSESSIONID=abc"], Is(2)),
            row(&["Cookie: JSESSIONID=abc; SERVERID=app1"], Is(2)),
            row(&["Cookie: SERVERID=app1"], Is(2)).line("GET /x;jsessionid=abc"),
            row(&["Cookie: SERVERID=app1"], Is(1)),
        ],
    );
}

/// HAProxy would want the certificate.
#[test]
fn what_is_not_tls() {
    play("tls.cfg", &[], 3, false, "SRV", &[row(&["Cookie: SRV=s1"], Is(1)), row(&[], Is(1))]);
}

/// Imports a text; exit code, stdout, stderr.
fn import(content: &[u8], arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = TempDir::new().expect("folder");
    fs::write(folder.path().join("haproxy.cfg"), content).expect("written");
    let output = balancer(&[&["import", "haproxy.cfg"], arguments].concat(), folder.path());
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const PLAIN: &str = "defaults\n mode http\n timeout client 1m\n timeout server 1m\n timeout connect 5s\n option redispatch\n\
    listen web\n bind 127.0.0.1:80\n cookie SRV insert\n server s1 10.0.0.1:80 cookie s1\n";

#[test]
fn everything_that_was_left_is_told_with_its_line_and_exit_code_3() {
    let (code, flags, list) = import(PLAIN.as_bytes(), &[]);
    assert_eq!((code, list.as_str()), (Some(0), ""), "{flags}");
    assert!(
        flags.contains("--persist cookie=SRV,insert") && flags.contains("# haproxy.cfg:9 cookie SRV insert")
    );
    let more = format!("{PLAIN} option httpclose\n nonsense\n");
    let (code, flags, list) = import(more.as_bytes(), &[]);
    assert_eq!(code, Some(3));
    for line in ["haproxy.cfg:11: differs: option httpclose: ", "haproxy.cfg:12: left: nonsense: "] {
        assert!(list.contains(line) && flags.contains(&format!("# {line}")), "{line}: {list}{flags}");
    }
    assert!(
        list.ends_with("1 left out, 1 not the same, 15 flags; look at each before you switch\n"),
        "{list}"
    );
    let (code, object, list) = import(more.as_bytes(), &["--json"]);
    let object: Value = serde_json::from_str(&object).expect("JSON");
    assert_eq!((code, list.lines().count()), (Some(3), 1), "{list}");
    assert_eq!(object["text"], flags.trim_end().to_owned() + "\n");
    assert_eq!((&object["frontend"], &object["backend"]), (&"web".into(), &"web".into()));
    assert_eq!(object["remarks"][1]["line"], 12);
    let rules = format!("{more} http-request deny if x\n");
    let (_, _, list) = import(rules.as_bytes(), &[]);
    assert!(list.starts_with("haproxy.cfg:13: left, access: http-request deny if x: "), "{list}");
    assert!(list.contains("2 left out (1 of them decide who gets in or where they go)"), "{list}");
    let (_, flags, _) = import(PLAIN.as_bytes(), &["--name", "try"]);
    assert!(flags.contains("\n--name try ") && !flags.contains("--name web"), "{flags}");
    let (code, _, list) = import(PLAIN.as_bytes(), &["--name", "No Way"]);
    assert!(code == Some(2) && list.contains("--name \"No Way\""), "{list}");
    let cookie = object["flags"].as_array().expect("flags").iter().find(|flag| flag["flag"] == "--persist");
    assert_eq!(cookie.expect("a method")["from"][0]["directive"], "cookie SRV insert");
}

#[test]
fn a_directory_is_read_as_haproxy_reads_it() {
    let folder = TempDir::new().expect("folder");
    let sub = folder.path().join("conf.d");
    fs::create_dir(&sub).expect("created");
    let at = PLAIN.find("listen").expect("a section");
    for (name, content) in
        [("10-base.cfg", &PLAIN[..at]), ("20-web.cfg", &PLAIN[at..]), ("30-old.bak", "x"), (".s.cfg", "x")]
    {
        fs::write(sub.join(name), content).expect("written");
    }
    let output = balancer(&["import", "conf.d"], folder.path());
    let flags = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(flags.contains("# conf.d/20-web.cfg:3 cookie SRV insert"), "{flags}");
    fs::create_dir(folder.path().join("empty")).expect("created");
    let output = balancer(&["import", "empty"], folder.path());
    let said = text(&output.stderr);
    assert!(
        output.status.code() == Some(2) && said.contains("empty has no file that ends in .cfg"),
        "{said}"
    );
}

#[test]
fn where_clients_connect_can_be_said_and_the_environment_is_not_asked() {
    let folder = TempDir::new().expect("folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    command.args(["import", "-", "--listen", "127.0.0.1:8081"]).current_dir(folder.path());
    command.env("BALANCER_MODE", "tcp").env("BALANCER_LISTEN", "nonsense").env("BALANCER_FRONTEND", "x");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    child.stdin.take().expect("piped").write_all(PLAIN.as_bytes()).expect("sent");
    let output = child.wait_with_output().expect("ended");
    let flags = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let listen: Vec<_> = flags.lines().filter(|line| line.starts_with("--listen")).collect();
    assert!(listen.len() == 1 && listen[0].starts_with("--listen 127.0.0.1:8081 "), "{flags}");
    assert!(flags.contains("# stdin:9 cookie SRV insert"), "{flags}");
}

#[test]
fn what_is_no_configuration_is_refused_in_one_line() {
    let two = format!("{PLAIN}listen other\n bind :81\n server x 10.0.0.2:80\n");
    let table: &[(&[u8], &[&str], i32, &str)] = &[
        (b"\x7fELF\x00\x01\x02", &[], 2, "haproxy.cfg:1: the line has a NUL byte"),
        (&[0xff; 4096], &[], 2, "haproxy.cfg:1: the line is not UTF-8"),
        (b"", &[], 2, "no frontend leads to servers"),
        (b"listen x\n bind ':80\n", &[], 2, "haproxy.cfg:2: the line has a single quote that is not closed"),
        (b"defaults a from a\n", &[], 2, "haproxy.cfg:1: it inherits from the defaults section \"a\""),
        (b"telepathy on\n", &[], 2, "haproxy.cfg:1: \"telepathy\" stands before any section"),
        (two.as_bytes(), &[], 2, "write one of: --frontend web, --frontend other"),
        (two.as_bytes(), &["--frontend", "neither"], 2, "--frontend \"neither\" is not there"),
        (two.as_bytes(), &["--backend", "neither"], 2, "--backend \"neither\" is nothing that"),
        (PLAIN.as_bytes(), &["--listen", "80"], 2, "--listen \"80\" has no address"),
        (b"listen x\n bind :1\n server a 10.0.0.1:2 ssl\n", &[], 1, "no server of x can be carried over"),
    ];
    for (content, arguments, expected, part) in table {
        let (code, flags, message) = import(content, arguments);
        assert_eq!((code, flags.as_str()), (Some(*expected), ""), "{message}");
        assert!(message.lines().count() == 1 && message.contains(part), "{part}: {message}");
    }
    let (code, _, message) = import(b"", &["missing.cfg"]);
    assert!(code == Some(2) && message.contains("missing.cfg cannot be read: no such file"), "{message}");
}

/// Whatever its size and shape, a file costs seconds at most.
#[test]
fn large_files_are_read_in_bounded_time() {
    let many = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let table: Vec<(&str, String, i32)> = vec![
        ("a line of a megabyte", format!("{PLAIN} description {}\n", "x".repeat(1 << 20)), 0),
        ("a line of as many words", format!("{PLAIN} acl x path {}\n", "x ".repeat(1 << 19)), 2),
        (
            "100 000 servers",
            format!("{PLAIN}{}", many(100_000, &|n| format!(" server x{n} 10.0.0.1:80\n"))),
            3,
        ),
        ("100 000 unknown lines", format!("{PLAIN}{}", many(100_000, &|n| format!(" telepathy {n}\n"))), 3),
        (
            "100 000 listeners",
            format!("{PLAIN}{}", many(100_000, &|n| format!(" bind 127.0.0.1:{}\n", n % 60_000 + 1))),
            3,
        ),
        ("100 000 rules", format!("{PLAIN}{}", many(100_000, &|n| format!(" stick on cookie(c{n})\n"))), 3),
        (
            "100 000 lists",
            format!("{PLAIN} ignore-persist if a\n{}", many(100_000, &|n| format!(" acl a path_beg /{n}\n"))),
            0,
        ),
        (
            "20 000 lists and who asks for them",
            format!(
                "{PLAIN}{}",
                many(20_000, &|n| format!(" acl a{n} path_beg /{n}\n ignore-persist if a{n}\n"))
            ),
            0,
        ),
        (
            "20 000 who are asked for names",
            {
                let asked = many(20_000, &|n| format!(" nameserver n{n} 10.0.{}.{}:53\n", n / 250, n % 250));
                format!("{PLAIN} server n app.example:80 resolvers dns\nresolvers dns\n{asked}")
            },
            3,
        ),
        (
            "20 000 defaults for as many frontends",
            {
                let defaults = format!("defaults\n{}", many(20_000, &|_| " default_backend b\n".into()));
                let frontends = many(20_000, &|n| format!("frontend f{n}\n"));
                format!("{defaults}{frontends}backend b\n server x 10.0.0.1:80\n")
            },
            2,
        ),
        (
            "a thousand templates of a thousand servers",
            format!("{PLAIN}{}", many(1000, &|n| format!(" server-template t{n}- 1-1000 10.0.0.1:80 ssl\n"))),
            3,
        ),
        (
            "100 000 sections",
            format!("{PLAIN}{}", many(100_000, &|n| format!("telepathy{n}\nbackend b{n}\n"))),
            3,
        ),
        (
            "a chain of defaults",
            format!("defaults d0\n{}{PLAIN}", many(50_000, &|n| format!("defaults d{} from d{n}\n", n + 1))),
            2,
        ),
        (
            "many frontends",
            format!("{PLAIN}{}", many(50_000, &|n| format!("frontend f{n}\n use_backend web if x\n"))),
            2,
        ),
        ("nine megabytes", "#\n".repeat(4_700_000), 2),
    ];
    for (what, content, expected) in table {
        let start = Instant::now();
        let (code, _, message) = import(content.as_bytes(), &[]);
        let shown: String = message.chars().take(300).collect();
        assert_eq!(code, Some(expected), "{what}: {shown}");
        assert!(!message.contains("panicked") && !message.contains("internal error"), "{what}: {shown}");
        assert!(start.elapsed() < PATIENCE, "{what}: {:?}", start.elapsed());
        let longest = message.lines().map(str::len).max().unwrap_or_default();
        assert!(longest < 2_000, "{what}: a line of {longest} bytes");
    }
}
