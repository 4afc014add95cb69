//! HUP: the command line is read again, with the environment and the files that it names. What can be changed while the
//! service runs is changed, or nothing is: a file that is half taken over would be worse than an old one.

use std::env;

use crate::access_log::{AccessLog, Target};
use crate::admin::Desk;
use crate::admin::reload::Changes;
use crate::cli::{self, Command, Stop};
use crate::config::{Config, IdentityConfig, Plan};
use crate::datapath::Datapath;
use crate::live::Live;
use crate::log;

/// Flags that count at once. What the others say is made into threads, sockets and maps at a start.
const AT_ONCE: [&str; 19] = [
    "server",
    "deny",
    "log-level",
    "access-log",
    "check",
    "check-interval",
    "check-timeout",
    "check-rise",
    "check-fall",
    "observe",
    "slow-start",
    "on-marked-down",
    "timeout-client",
    "timeout-server",
    "timeout-connect",
    "timeout-request",
    "timeout-keepalive",
    "timeout-tunnel",
    "timeout-queue",
];

/// What of the running service they change.
pub(super) struct Running<'a> {
    pub(super) desk: &'a Desk,
    pub(super) datapath: Option<&'a Datapath>,
    pub(super) access_log: Option<&'a AccessLog>,
}

/// The flags that are in force.
pub(super) struct Reload {
    plan: Plan,
}

impl Reload {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan }
    }

    /// Reads them anew, and says what has come of it.
    pub(super) fn run(&mut self, running: &Running<'_>) {
        let outcome = self.read().and_then(|new| {
            let changes = self.changes(&new)?;
            let different = self.different(&new);
            self.apply(&new, &changes, running)?;
            Ok((new, different))
        });
        match outcome {
            Ok((new, different)) => {
                match &*different {
                    [] => log::info(
                        "HUP: flags and the files that they name say what they said; nothing is changed",
                    ),
                    some => log::info(format_args!(
                        "HUP: changed, in flags or the files that they name, and counts from now on: {}",
                        some.join(", ")
                    )),
                }
                // Those that are in use everywhere have been given what the new ones say.
                let Config { identity, health, timeouts, .. } = &self.plan.config;
                let (deny, health, timeouts) = (identity.deny.clone(), health.clone(), timeouts.clone());
                self.plan = new;
                let config = &mut self.plan.config;
                (config.identity.deny, config.health, config.timeouts) = (deny, health, timeouts);
            }
            Err(why) => log::warn(format_args!("HUP: nothing is changed: {why}")),
        }
    }

    fn read(&self) -> Result<Plan, String> {
        let plan = match cli::parse(env::args_os()) {
            Ok(Command::Run(args, settings)) => Plan::new(&args, settings, &self.plan.host),
            Ok(_) => return Err("the command line is not that of a service any more".to_owned()),
            Err(stop) => Err(stop),
        };
        plan.map_err(Stop::into_message)
    }

    /// The flags that say something else than before, themselves or by a file.
    fn different(&self, new: &Plan) -> Vec<String> {
        let pairs = self.plan.settings.0.iter().zip(&new.settings.0);
        let different = pairs.filter(|(before, now)| before.values != now.values);
        let mut flags: Vec<_> = different.map(|(before, _)| format!("--{}", before.flag)).collect();
        let is_denied_otherwise = self.plan.config.identity.deny != new.config.identity.deny;
        if is_denied_otherwise && !flags.iter().any(|flag| flag == "--deny") {
            flags.push("--deny".to_owned());
        }
        flags
    }

    /// What is to be changed; else what cannot be.
    fn changes(&self, new: &Plan) -> Result<Changes, String> {
        let (old, now) = (&self.plan.config, &new.config);
        let mut different = Vec::new();
        for (before, setting) in self.plan.settings.0.iter().zip(&new.settings.0) {
            if before.values != setting.values && !AT_ONCE.contains(&setting.flag.as_str()) {
                different.push(format!("--{}", setting.flag));
            }
        }
        // Of these a file may say something else under the same name.
        let without_deny = |identity: &IdentityConfig| IdentityConfig {
            deny: crate::cidr::SharedSet::default(),
            ..identity.clone()
        };
        let of_files = [
            ("--persist", old.persist != now.persist),
            ("--accept-proxy", without_deny(&old.identity) != without_deny(&now.identity)),
            (
                "--fast-path-exclude",
                old.datapath.as_ref().map(|datapath| &datapath.exclude)
                    != now.datapath.as_ref().map(|datapath| &datapath.exclude),
            ),
        ];
        for (flag, is_different) in of_files {
            if is_different && different.is_empty() {
                different.push(flag.to_owned());
            }
        }
        if old.access_log.is_some() != now.access_log.is_some() {
            different.push("--access-log".to_owned());
        }
        let texts = new.settings.0.iter().find(|setting| setting.flag == "server");
        let texts = texts.map_or(&[][..], |setting| &setting.values);
        let changes = Changes::between(&old.servers, &now.servers, texts).map_err(|name| {
            different.push(format!("--server {name} (more of it than its weight)"));
        });
        match changes {
            Ok(changes) if different.is_empty() => Ok(changes),
            _ => Err(format!(
                "{} can only change with a new process, which USR2 starts without cutting anybody off",
                different.join(", ")
            )),
        }
    }

    fn apply(&self, new: &Plan, changes: &Changes, running: &Running<'_>) -> Result<(), String> {
        let Running { desk, datapath, access_log } = running;
        desk.foresee(changes)?;
        let log = self.new_log(new)?;
        let (deny, now) = (&self.plan.config.identity.deny, new.config.identity.deny.now());
        if deny.now() != now {
            if let Some(datapath) = datapath {
                datapath.deny(&now).map_err(|error| format!("--deny: {}", log::chain(&error)))?;
            }
            deny.replace(now);
            log::info("--deny: other clients are turned away from now on; connections that are open go on");
        }
        log::limit(new.config.log_level);
        if let (Some(access_log), Some(target)) = (access_log, log) {
            access_log.write_to(target);
        }
        replace(&self.plan.config.timeouts, &new.config.timeouts);
        replace(&self.plan.config.health, &new.config.health);
        // It was foreseen, so what fails here is out of our hands: the rest counts all the same.
        if let Err(why) = desk.apply(changes) {
            log::warn(format_args!("HUP: a server is not added, and the rest counts: {why}"));
        }
        Ok(())
    }

    /// The access log, if it is to be another one.
    fn new_log(&self, new: &Plan) -> Result<Option<Target>, String> {
        let target = |plan: &Plan| plan.config.access_log.as_ref().map(|log| log.target.clone());
        match (target(&self.plan), target(new)) {
            (Some(old), Some(new)) if old != new => Target::open(&new)
                .map(Some)
                .map_err(|error| format!("--access-log {new}: cannot be opened: {}", log::reason(&error))),
            _ => Ok(None),
        }
    }
}

/// Whoever waits for it to change is told only if it has.
fn replace<T: PartialEq>(live: &Live<T>, new: &Live<T>) {
    if live != new {
        live.replace(new.now());
    }
}
