//! `global`: the process.

use super::pair::{Pair, Side};
use super::sections::Directive;
use super::sheet::Sheet;
use super::trial::trial;
use super::values::{Bare, ours, time};

/// Lines of HAProxy's process that need no flag here, and why.
const MOOT: &[(&str, &str)] = &[
    ("daemon", "it runs in the foreground, and a service manager looks after it"),
    ("master-worker", "a new process takes over with --takeover or USR2"),
    ("pidfile", "it runs in the foreground, and a service manager looks after it"),
    ("expose-fd", "a new process takes over with --takeover or USR2"),
    ("nbproc", "there is one process"),
    ("cpu-map", "workers go where the kernel puts them"),
    ("ulimit-n", "the limit is raised as far as it goes"),
    ("setenv", "it counts for this file"),
    ("presetenv", "it counts for this file"),
    ("unsetenv", "it counts for this file"),
    ("resetenv", "variables of the environment were taken as they are"),
    ("maxpipes", "is about HAProxy's inside"),
    ("nosplice", "is about HAProxy's inside"),
    ("noepoll", "is about HAProxy's inside"),
    ("nopoll", "is about HAProxy's inside"),
    ("noevports", "is about HAProxy's inside"),
    ("nokqueue", "is about HAProxy's inside"),
    ("noreuseport", "is about HAProxy's inside"),
    ("busy-polling", "is about HAProxy's inside"),
    ("profiling.tasks", "is about HAProxy's inside"),
    ("default-path", "no file is read that the configuration names"),
    ("quiet", "is about HAProxy's inside"),
    ("debug", "is about HAProxy's inside"),
    ("zero-warning", "warnings do not stop it"),
    ("strict-limits", "limits are said in the log"),
    ("insecure-fork-wanted", "no programs are run"),
    ("insecure-setuid-wanted", "no programs are run"),
    ("set-dumpable", "is about HAProxy's inside"),
    ("node", "is a name for its statistics"),
    ("description", "is a comment"),
    ("log-send-hostname", "nothing is sent to syslog"),
    ("log-tag", "lines begin with the service's name"),
    ("localpeer", "there are no peers"),
    ("server-state-base", "what operators have said outlives restarts"),
    ("server-state-file", "what operators have said outlives restarts; --state-file keeps it over a reboot"),
    ("ca-base", "there is no TLS"),
    ("crt-base", "there is no TLS"),
    ("numa-cpu-mapping", "workers go where the kernel puts them"),
];

/// What becomes flags.
pub(super) fn carry(pair: &Pair<'_>, sheet: &mut Sheet) {
    number(pair, sheet, "nbthread", "--workers");
    number(pair, sheet, "tune.bufsize", "--max-head");
    number(pair, sheet, "tune.http.maxhdr", "--max-headers");
    match pair.last(Side::Global, &["hard-stop-after"]).map(|line| (line, time(line.word(1), Bare::Millis))) {
        Some((line, Ok(time))) => sheet.flag("--drain-timeout", ours(time), &[line]),
        Some((line, Err(why))) => sheet.left(line, why, "--drain-timeout T"),
        None => sheet.notes.push(
            "Without hard-stop-after HAProxy's old process serves its connections for as long as they last after a reload; \
             here they have 30 s, after a reload and at a stop: --drain-timeout T for more."
                .into(),
        ),
    }
    owner(pair, sheet);
    for line in pair.all(Side::Global, &["stats"]) {
        match line.word(1) {
            "socket" => sheet.left(
                line,
                "the admin socket is one of this service alone, and speaks HAProxy's protocol",
                "/run/balancer/NAME.sock; --admin PATH --admin-mode OCTAL for another one",
            ),
            _ => sheet.moot(line, "the admin socket has limits of its own"),
        }
    }
}

/// A flag that takes a plain number.
fn number(pair: &Pair<'_>, sheet: &mut Sheet, word: &str, flag: &'static str) {
    let Some(line) = pair.last(Side::Global, &[word]) else { return };
    match trial(&[(flag, line.word(1))]) {
        Ok(_) => sheet.flag(flag, line.word(1), &[line]),
        Err(why) => sheet.left(line, why, ""),
    }
}

/// Names that this host does not know, or who may not change, would stop the start.
fn owner(pair: &Pair<'_>, sheet: &mut Sheet) {
    let user = pair.last(Side::Global, &["user"]);
    let group = pair.last(Side::Global, &["group"]);
    let mut taken = Vec::new();
    for (line, flag) in [(user, "--user"), (group, "--group")] {
        let Some(line) = line else { continue };
        let before: Vec<(&str, &str)> = taken.clone();
        let all: Vec<_> = before.into_iter().chain([(flag, line.word(1))]).collect();
        match trial(&all) {
            Ok(_) => {
                sheet.flag(flag, line.word(1), &[line]);
                taken.push((flag, line.word(1)));
            }
            Err(why) => sheet.left(line, why, "--user NAME --group NAME"),
        }
    }
}

/// A line that nobody has asked for.
pub(super) fn rest(sheet: &mut Sheet, line: &Directive) {
    let word = line.word(0);
    if let Some((_, why)) = MOOT.iter().find(|(known, _)| *known == word) {
        return sheet.moot(line, *why);
    }
    if word.starts_with("ssl-") || word.starts_with("tune.ssl") || word.starts_with("issuers-") {
        return sheet.moot(line, "there is no TLS");
    }
    if word.starts_with("tune.") {
        return sheet.moot(line, "is about HAProxy's inside");
    }
    let (why, nearest) = match word {
        "chroot" => ("it is the service manager's", "RootDirectory= of systemd, --user NAME"),
        "uid" | "gid" => ("users and groups are named", "--user NAME --group NAME"),
        "spread-checks" => ("checks of servers begin at one time", "--check-interval T"),
        "maxconnrate" | "maxsessrate" | "maxsslrate" => {
            ("new connections are not limited", "--max-connections N")
        }
        "lua-load" | "lua-load-per-thread" => ("no scripts are run", ""),
        _ => ("nothing like it is known here", ""),
    };
    if !line.is_no {
        sheet.left(line, why, nearest);
    }
}
