//! HUP: the command line is read again, with the environment and the files that it names. What can be changed while the
//! service runs is changed, or nothing is: a file that is half taken over would be worse than an old one.

use std::env;

use crate::admin::Desk;
use crate::admin::reload::Changes;
use crate::cli::{self, Command, Stop};
use crate::config::{IdentityConfig, Plan};
use crate::datapath::Datapath;
use crate::log;

/// Flags that count at once. What the others say is made into threads, sockets and maps at a start.
const AT_ONCE: [&str; 3] = ["server", "deny", "log-level"];

/// The flags that are in force.
pub(super) struct Reload {
    plan: Plan,
}

impl Reload {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan }
    }

    /// Reads them anew, and says what has come of it.
    pub(super) fn run(&mut self, desk: &Desk, datapath: Option<&Datapath>) {
        let outcome = self.read().and_then(|new| {
            let changes = self.changes(&new)?;
            let is_same =
                new.settings == self.plan.settings && new.config.identity == self.plan.config.identity;
            self.apply(&new, &changes, desk, datapath)?;
            Ok((new, is_same))
        });
        match outcome {
            Ok((new, is_same)) => {
                log::info(match is_same {
                    true => "HUP: flags and the files that they name say what they said",
                    false => "HUP: what flags and the files that they name say counts from now on",
                });
                // The one that is in use everywhere has been given what the new one says.
                let deny = self.plan.config.identity.deny.clone();
                self.plan = new;
                self.plan.config.identity.deny = deny;
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
        plan.map_err(|stop| match stop {
            Stop::Usage(message) | Stop::Failed(message) | Stop::Shown(message) => message,
        })
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
        let texts = new.settings.0.iter().find(|setting| setting.flag == "server");
        let texts = texts.map_or(&[][..], |setting| &setting.values);
        let changes = Changes::between(&old.servers, &now.servers, texts).map_err(|name| {
            different.push(format!("--server {name} (more than its weight)"));
        });
        match changes {
            Ok(changes) if different.is_empty() => Ok(changes),
            _ => Err(format!(
                "{} would have to be, which takes a new process: USR2 starts one",
                different.join(", ")
            )),
        }
    }

    fn apply(
        &self,
        new: &Plan,
        changes: &Changes,
        desk: &Desk,
        datapath: Option<&Datapath>,
    ) -> Result<(), String> {
        desk.foresee(changes)?;
        let (deny, now) = (&self.plan.config.identity.deny, new.config.identity.deny.now());
        if deny.now() != now {
            if let Some(datapath) = datapath {
                datapath.deny(&now).map_err(|error| format!("--deny: {error:#}"))?;
            }
            deny.replace(now);
            log::info("--deny: who is turned away has changed; who is being served goes on");
        }
        log::limit(new.config.log_level);
        // It was foreseen, so what fails here is out of our hands: the rest counts all the same.
        if let Err(why) = desk.apply(changes) {
            log::warn(format_args!("HUP: a server is not added: {why}"));
        }
        Ok(())
    }
}
