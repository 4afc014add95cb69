//! What packages bring along, made from the definition of the command line: completions for shells, and the man page.

use std::io::{self, Write};

use clap::{Arg, Command};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::ABOUT_VALUES;

/// What completes our words in that shell.
pub(super) fn completions(definition: &Command, shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut definition.clone(), "balancer", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// `balancer(8)`: all commands, and the flags of `run`.
///
/// # Errors
/// None that can happen: it is written to memory.
pub(super) fn manual(definition: &Command) -> io::Result<String> {
    let mut root = definition.clone().disable_help_subcommand(true);
    root.build();
    let page = Man::new(root.clone()).section("8").manual("System Administration");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    synopsis().to_writer(&mut text)?;
    commands(&root).to_writer(&mut text)?;
    if let Some(run) = root.find_subcommand("run") {
        section("FLAGS OF RUN, CHECK, DOCTOR AND RELOAD", &[ABOUT_VALUES]).to_writer(&mut text)?;
        Man::new(run.clone()).render_options_section(&mut text)?;
    }
    for part in [signals(), exit_status(), files(), examples(), see_also()] {
        part.to_writer(&mut text)?;
    }
    text.flush()?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn synopsis() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for (command, rest) in [
        ("run", "--listen ADDR:PORT --server NAME=ADDR:PORT ... [FLAG | @FILE]..."),
        ("check", "[--dump] [FLAG | @FILE]..."),
        ("doctor", "[--interface IF] [--probe] [--json] [FLAG | @FILE]..."),
        ("reload", "[FLAG | @FILE]..."),
        (
            "import",
            "[--frontend NAME] [--backend NAME] [--name NAME] [--listen ADDR:PORT] [--json] HAPROXY.CFG...",
        ),
        ("show", "WHAT [--name NAME] [--json]"),
        ("top", "[--interval T] [--name NAME] | --once [--json] [--name NAME]"),
        ("table", "NAME get|set|clear [KEY] [SERVER] [--name NAME]"),
        ("table load", "[--table NAME] [--dry-run] [--json] [--name NAME] [FILE]"),
        ("set server", "NAME ready|drain|maint|weight [--name NAME]"),
    ] {
        roff.text([bold(format!("balancer {command}")), roman(" "), italic(rest)]);
        roff.control("br", []);
    }
    roff
}

/// Every command that does something, with its own flags; those of `run` have sections of their own.
fn commands(root: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    describe(root, "", &mut roff);
    roff
}

fn describe(command: &Command, path: &str, roff: &mut Roff) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let path = format!("{path} {}", sub.get_name());
        let positionals = sub.get_arguments().filter(|argument| argument.is_positional());
        let names: String = positionals.map(|argument| format!(" {}", shown(argument))).collect();
        if sub.has_subcommands() {
            describe(sub, &(path + &names), roff);
            continue;
        }
        roff.control("TP", []);
        roff.text([bold(path.trim_start()), italic(names)]);
        roff.text([roman(sub.get_about().map_or_else(String::new, |about| format!("{about}.")))]);
        let own = sub.get_arguments().filter(|flag| {
            flag.get_help_heading().is_none()
                && !["help", "version", "name", "admin"].contains(&flag.get_id().as_str())
                && flag.get_long().is_some()
        });
        for flag in own {
            let mut line = vec![bold(format!("--{}", flag.get_long().unwrap_or_default()))];
            if flag.get_action().takes_values()
                && let Some(value) = flag.get_value_names().and_then(<[_]>::first)
            {
                line.extend([roman(" "), italic(value.as_str())]);
            }
            line.push(roman(flag.get_help().map_or_else(String::new, |help| format!(": {help}."))));
            roff.control("br", []);
            roff.text(line);
        }
    }
    if path.is_empty() {
        roff.control("PP", []);
        roff.text([
            roman("All commands that ask or tell a running instance take "),
            bold("--name"),
            roman(" "),
            italic("NAME"),
            roman(", the name of the instance, and "),
            bold("--admin"),
            roman(" "),
            italic("PATH"),
            roman(", its admin socket."),
        ]);
    }
}

/// In brackets what may be left out.
fn shown(argument: &Arg) -> String {
    let name = argument.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
    if argument.is_required_set() { name.to_owned() } else { format!("[{name}]") }
}

fn signals() -> Roff {
    let rows = [
        (
            "TERM, INT",
            "Accepts nobody new, finishes what is being served within --drain-timeout, and ends. Fast connections of known clients go on in the kernel for --datapath-hold. A second signal ends it at once.",
        ),
        (
            "HUP",
            "Opens the access log anew and reads the command line and its @FILEs again. Changes that need no new process are taken over; of others the log names the flag.",
        ),
        (
            "USR2",
            "Starts the same command line again as a process that takes over, without a connection lost. Where this process has given up root that takes balancer reload.",
        ),
    ];
    table("SIGNALS", &rows)
}

fn exit_status() -> Roff {
    let rows = [
        ("0", "It was done, or it has ended as it was told to."),
        ("1", "It failed, or a check has found something missing; stderr says what."),
        ("2", "The command line is wrong; stderr names the flag and says what would be right."),
        (
            "3",
            "It was done in part. import: there are flags, and something was left out or means something else here. table load: some entries are not loaded.",
        ),
    ];
    table("EXIT STATUS", &rows)
}

fn files() -> Roff {
    let rows = [
        ("/etc/balancer/balancer.conf", "The flags of the packaged service, an @FILE."),
        ("/run/balancer/NAME.sock", "The admin socket, unless --admin says otherwise."),
        (
            "/sys/fs/bpf/balancer",
            "What the kernel keeps of services: tables, flows, the XDP program. balancer detach removes it.",
        ),
    ];
    table("FILES", &rows)
}

fn examples() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (what, line) in [
        (
            "Two servers, users kept by a cookie and by their address:",
            "balancer run --listen 0.0.0.0:80 --server s1=10.0.0.1:8080 --server s2=10.0.0.2:8080 --persist cookie=SRV,insert,indirect --persist source --check http=/health --xdp auto",
        ),
        ("Where a user would go, and why:", "balancer explain --src 192.0.2.7 --header 'Cookie: SRV=s1'"),
        (
            "Take a server out of service, once its users have left:",
            "balancer set server s1 drain --wait=30m",
        ),
    ] {
        roff.control("PP", []);
        roff.text([roman(what)]);
        roff.control("PP", []);
        roff.text([bold(line)]);
    }
    roff
}

fn see_also() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let pages: [(&str, &str); 4] = [("haproxy", "1"), ("ip", "8"), ("systemd.service", "5"), ("bpf", "2")];
    let mut line: Vec<Inline> = Vec::new();
    for (number, (page, section)) in pages.into_iter().enumerate() {
        line.extend([roman(if number > 0 { ", " } else { "" }), bold(page), roman(format!("({section})"))]);
    }
    roff.text(line);
    roff
}

fn section(title: &str, paragraphs: &[&str]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for line in paragraphs.iter().flat_map(|paragraph| paragraph.lines()) {
        roff.control("PP", []);
        roff.text([roman(line)]);
    }
    roff
}

fn table(title: &str, rows: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (what, text) in rows {
        roff.control("TP", []);
        roff.text([bold(*what)]);
        roff.text([roman(*text)]);
    }
    roff
}
