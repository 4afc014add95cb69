use super::settings::Origin;
use super::*;

fn parsed(line: &str) -> Result<Command, Stop> {
    parse(std::iter::once("balancer").chain(line.split_whitespace()).map(OsString::from))
}

fn refused(line: &str) -> String {
    match parsed(line) {
        Err(Stop::Usage(message)) => message,
        other => panic!("{line}: {other:?}"),
    }
}

fn run(line: &str) -> (Box<RunArgs>, Settings) {
    match parsed(&format!("run {line}")) {
        Ok(Command::Run(run, settings)) => (run, settings),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    definition().debug_assert();
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let table = [
        ("", "no command is given; write balancer run, balancer check or balancer show, see --help"),
        ("rnu", "unknown command \"rnu\"; did you mean run?"),
        ("frobnicate", "unknown command \"frobnicate\"; see balancer --help for the commands there are"),
        ("show", "show needs to know what; see balancer show --help"),
        ("show inof", "unknown command \"inof\"; did you mean show info?"),
        ("--listen :80", "--listen without a command; write for example balancer run --listen, see --help"),
        ("run --lisen 1.2.3.4:80", "unknown flag --lisen; did you mean --listen?"),
        ("run --lisen=1.2.3.4:80", "unknown flag --lisen; did you mean --listen?"),
        ("run --xpd eth0", "unknown flag --xpd; did you mean --xdp?"),
        ("run --chekc-raise 3", "unknown flag --chekc-raise; did you mean --check-rise?"),
        ("run --zzz", "unknown flag --zzz; see balancer run --help for the flags there are"),
        ("run -z", "unknown flag -z; see balancer run --help for the flags there are"),
        ("run --telepathy x", "unknown flag --telepathy; see balancer run --help for the flags there are"),
        ("run 1.2.3.4:80", "\"1.2.3.4:80\" is not expected here; flags begin with --, see --help"),
        ("run --name", "--name has no value; write --name NAME"),
        ("run --name --listen", "--name has no value; write --name NAME"),
        ("run --name a --name b", "--name is given twice; give it once"),
        ("run --detach-on-stop=x", "--detach-on-stop takes no value; write --detach-on-stop alone"),
        ("run --redispatch yes", "--redispatch \"yes\" is neither on nor off; write on or off"),
        ("run --retries 11", "--retries \"11\" is not a whole number from 0 to 10; write one"),
        ("run --retries -1", "--retries \"-1\" is not a whole number from 0 to 10; write one"),
        ("run --workers 0", "--workers \"0\" is not a whole number from 1 to 256; write one"),
        ("run --workers 257", "--workers \"257\" is not a whole number from 1 to 256; write one"),
        (
            "run --verify-share 1",
            "--verify-share \"1\" is not a whole number from 2 to 4294967295; write one",
        ),
        ("run --flow-table 999", "--flow-table \"999\" is out of range; write one from 1k to 16m"),
        ("run --flow-table 17m", "--flow-table \"17m\" is out of range; write one from 1k to 16m"),
        ("run --max-head 1k5", "--max-head \"1k5\" is not a size; write for example 64k or 1m"),
        (
            "run --check-interval 5",
            "--check-interval \"5\" has no unit; write 5s for seconds or 5ms for milliseconds",
        ),
        (
            "run --timeout-client 0s",
            "--timeout-client \"0s\" must be more than nothing; write for example 2s",
        ),
        ("run --fast-path fast", "--fast-path \"fast\" is not known; write auto, off, exclusive or always"),
        ("run --mode udp", "--mode \"udp\" is not known; write http or tcp"),
        ("run --send-proxy v3", "--send-proxy \"v3\" is not known; write v1 or v2"),
        ("run --forwarded via", "--forwarded \"via\" is not known; write none, x-forwarded-for or forwarded"),
        ("run --max-connections 0", "--max-connections \"0\" is out of range; write one from 1 to 16m"),
        ("set server s1", "STATE is missing; see balancer set server --help"),
        ("set server s1 up", "STATE \"up\" is not known; write ready, drain, maint or weight"),
        ("set server s1 drain 5", "\"5\" is not expected after drain; leave it out"),
        ("set server s1 ready --wait", "--wait is for a server that takes nobody new; write drain or maint"),
        (
            "set server s1 drain --wait=5",
            "--wait \"5\" has no unit; write 5s for seconds or 5ms for milliseconds",
        ),
        ("set server s1 weight", "N|N% is missing; see balancer set server --help"),
        ("del server", "NAME is missing; see balancer del server --help"),
        ("set server s1;x maint", "NAME \"s1;x\" is not a name; names consist of letters, digits and . _ -"),
        ("explain --src web", "--src \"web\" is not an address; write for example 192.0.2.7 or 2001:db8::7"),
        ("run server s1=1.2.3.4:80", "\"server\" is not expected here; did you mean --server?"),
        (
            "run --check-timeout",
            "--check-timeout has no value; write --check-timeout T, as in 250ms, 2s, 30m or 3h",
        ),
        ("run --timeout-client 0", "--timeout-client \"0\" must be more than nothing; write for example 2s"),
        ("table source", "table needs to know what; see balancer table --help"),
        ("run @/nowhere", "@/nowhere cannot be read: no such file or directory; name a file of flags"),
        ("run @", "@ is not followed by a file's name; write @FILE"),
    ];
    for (line, expected) in table {
        assert_eq!(refused(line), expected, "balancer {line}");
    }
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_line() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("flags");
    let at = format!("@{}", path.display());
    let table = [
        ("--sever s1=1.2.3.4:80", "unknown flag --sever in FILE line 2; did you mean --server?"),
        ("server s1=1.2.3.4:80", "\"server\" in FILE line 2 is not expected here; did you mean --server?"),
        ("--mode=udp", "--mode \"udp\" from FILE line 2 is not known; write http or tcp"),
        ("--retries 11", "--retries \"11\" from FILE line 2 is not a whole number from 0 to 10; write one"),
    ];
    for (line, expected) in table {
        std::fs::write(&path, format!("# flags\n{line}\n")).expect("written");
        assert_eq!(refused(&format!("run {at}")), expected.replace("FILE", &at), "{line}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["--help", "run --help", "check --help", "show --help", "show table --help", "--version"] {
        assert!(matches!(parsed(line), Err(Stop::Shown(_))), "{line}");
    }
}

#[test]
fn help_shows_groups_and_defaults() {
    let Err(Stop::Shown(help)) = parsed("run --help") else { panic!("no help") };
    for part in ["Health checks:", "Fast path:", "[default: 10000-32767]", "[default: 30s]", "[default: tcp]"]
    {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn client_commands_become_lines_of_the_admin_protocol() {
    let table = [
        ("show info", "show process"),
        ("show stat", "show stat"),
        ("show stat --json", "show stat json"),
        ("show sess --name web", "show sess"),
        ("show errors", "show errors"),
        ("show servers --json", "show servers json"),
        ("show table", "show table text"),
        ("show tables --json", "show table json"),
        ("show table source --json", "show table source json"),
        ("table source get 10.0.0.1", "show table source key 10.0.0.1 text"),
        ("table session=JS get a;b\\c --json", "show table session=JS key a\\;b\\\\c json"),
        ("table session=JS set abc s1 --name web", "set table session=JS key abc data.server_key s1 text"),
        ("table session=JS clear abc", "clear table session=JS key abc text"),
        ("table session=JS clear", "clear table session=JS text"),
        ("show flows --name web", "show flows"),
        ("show flows --server s1 --limit 3 --client ::1", "show flows client ::1 server s1 limit 3"),
        ("flows reset --client 10.0.0.1", "reset flows client 10.0.0.1"),
        ("flows reset --server s1 --name web", "reset flows server s1"),
        ("set server s1 drain --admin /tmp/x.sock", "set server s1 drain"),
        ("set server s1 weight 50%", "set server s1 weight 50%"),
        ("show server s1 --json", "show server s1 json"),
        ("add server s3=10.0.0.3:80,weight=2", "add server s3=10.0.0.3:80,weight=2"),
        ("del server s3", "del server s3"),
        ("del server s3 --force", "del server s3 force"),
        ("shutdown sessions s3", "shutdown sessions server s3"),
    ];
    for (line, expected) in table {
        match parsed(line) {
            Ok(Command::Ask(_, sent)) => assert_eq!(sent, expected, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn a_load_may_say_its_table_before_or_after() {
    let load = |line: &str| match parsed(line) {
        Ok(Command::Load(load)) => (load.table, load.file.display().to_string()),
        other => panic!("{line}: {other:?}"),
    };
    let source = Some("source".to_owned());
    assert_eq!(load("table load"), (None, "-".into()));
    assert_eq!(load("table load dump.txt --name web"), (None, "dump.txt".into()));
    assert_eq!(load("table load --table source --len 64 -"), (source.clone(), "-".into()));
    assert_eq!(load("table source load dump.txt"), (source, "dump.txt".into()));
    for (line, expected) in [
        (
            "table source load --table source",
            "--table \"source\" is given beside \"source\"; name the table once",
        ),
        ("table get 10.0.0.1", "table needs to know which"),
        ("table load a b", "\"b\" is not expected here"),
    ] {
        match parsed(line) {
            Err(Stop::Usage(message)) => assert!(message.contains(expected), "{line}: {message}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn waiting_is_for_servers_that_are_left() {
    let wait = |line: &str| match parsed(line) {
        Ok(Command::AskAndWait(_, sent, wait)) => (sent, wait),
        other => panic!("{line}: {other:?}"),
    };
    let (sent, found) = wait("set server s1 drain --wait");
    assert_eq!(sent, "set server s1 drain");
    assert_eq!(found, Wait { server: "s1".into(), limit: None, connections_only: false });
    let (_, found) = wait("set server s1 maint --wait=5m --connections-only");
    assert_eq!((found.limit, found.connections_only), (Some(Duration::from_secs(300)), true));
}

#[test]
fn settings_know_what_was_given() {
    let (run, settings) = run("--listen a --listen b --retries 5");
    assert_eq!(run.service.listen, ["a", "b"]);
    assert_eq!((run.service.retries, run.service.redispatch), (5, true));
    assert_eq!(settings.origin("retries"), Origin::Flag);
    assert_eq!(settings.origin("name"), Origin::Default);
    let listen =
        settings.0.iter().find(|setting| setting.flag == "listen").map(|setting| setting.values.clone());
    assert_eq!(listen.expect("known"), ["a", "b"]);
}

#[test]
fn every_flag_of_run_has_an_environment_variable() {
    let command = definition();
    let run = command.find_subcommand("run").expect("run");
    for arg in run.get_arguments() {
        let long = arg.get_long().expect("run has no positional arguments");
        assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(settings::variable(long).as_str()));
    }
}
