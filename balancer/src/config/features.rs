//! What the flags that were given mean to connections on the fast path: `balancer check` prints it.

use super::persistence::together;
use super::{Forward, Plan, fast_path};
use crate::cli::settings::Origin;
use crate::persist::Method;

/// One flag, or one method of `--persist`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// As it was given, without options.
    pub flag: String,
    /// What becomes of it.
    pub effect: Effect,
    /// Why.
    pub why: &'static str,
}

/// What becomes of a flag on the fast path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The same as through the proxy.
    Works,
    /// Nothing: it only counts for what goes through the proxy.
    Nothing,
    /// With it there is no fast path.
    KeepsOff,
}

impl Effect {
    /// In a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Nothing => "no effect",
            Self::KeepsOff => "keeps it off",
        }
    }
}

const UNTIMED: &str = "fast connections have limits of their own";
const UNREAD: &str = "nobody reads the bytes";

/// Flags that mean something to connections, whatever their value.
const FLAGS: &[(&str, Effect, &str)] = &[
    ("persist-ignore", Effect::Nothing, UNREAD),
    ("on-down", Effect::Works, "who belongs to a server that is down goes through the proxy"),
    ("leave-backup", Effect::Nothing, "whoever is known to belong to a backup stays there"),
    ("balance", Effect::Nothing, "who is fast has a server already"),
    ("redispatch", Effect::Nothing, "a server that refuses refuses the client, until a check has noticed"),
    ("retries", Effect::Nothing, "a server that refuses refuses the client, until a check has noticed"),
    ("retry-pause", Effect::Nothing, "a server that refuses refuses the client, until a check has noticed"),
    ("fast-path-exclude", Effect::Works, "these clients always go through the proxy"),
    ("mss", Effect::Works, "SYN and SYN-ACK say no more than that"),
    ("deny", Effect::Works, "the proxy closes them"),
    ("accept-proxy", Effect::KeepsOff, fast_path::HIDDEN_CLIENT),
    ("debug-from", Effect::Nothing, "no header is written"),
    ("send-proxy", Effect::KeepsOff, fast_path::NO_BYTES),
    ("forwarded", Effect::KeepsOff, fast_path::FORGED_CLIENT),
    ("check", Effect::Works, "who belongs to a server that is down goes through the proxy"),
    ("observe", Effect::Nothing, "nobody sees what is answered"),
    ("slow-start", Effect::Nothing, "who is fast has a server already"),
    ("on-marked-down", Effect::Works, "fast connections are kept or ended too"),
    ("timeout-client", Effect::Nothing, UNTIMED),
    ("timeout-server", Effect::Nothing, UNTIMED),
    ("timeout-connect", Effect::Nothing, UNTIMED),
    ("timeout-request", Effect::Nothing, UNTIMED),
    ("timeout-keepalive", Effect::Nothing, UNTIMED),
    ("timeout-tunnel", Effect::Nothing, UNTIMED),
    ("timeout-queue", Effect::Works, "who has to wait goes through the proxy"),
    ("max-head", Effect::Nothing, UNREAD),
    ("max-headers", Effect::Nothing, UNREAD),
    ("max-connections", Effect::Nothing, "fast connections cost no descriptors"),
    ("access-log", Effect::Works, "a fast connection has one line, when it ends"),
];

impl Plan {
    /// The flags that were given and mean something to connections, in the order of `--help`.
    pub fn features(&self) -> Vec<Feature> {
        let mut features = Vec::new();
        for setting in self.settings.0.iter().filter(|setting| setting.origin != Origin::Default) {
            match setting.flag.as_str() {
                "persist" => {
                    features.extend(self.config.persist.methods().iter().map(|method| self.method(method)));
                }
                "server" => features.extend(self.maxconn()),
                flag => {
                    let known = FLAGS.iter().find(|(known, ..)| *known == flag);
                    features.extend(known.map(|&(flag, effect, why)| Feature {
                        flag: format!("--{flag}"),
                        effect,
                        why,
                    }));
                }
            }
        }
        let forward = self.config.datapath.as_ref().map_or(Forward::Nat, |datapath| datapath.forward);
        if forward != Forward::Nat {
            for feature in features.iter_mut().filter(|feature| feature.flag == "--forwarded") {
                (feature.effect, feature.why) = (Effect::Nothing, fast_path::SEEN_CLIENT);
            }
        }
        // `none` is what it is without the flag.
        features.retain(|feature| feature.flag != "--forwarded" || self.config.identity.forwarded.is_some());
        features
    }

    fn method(&self, method: &Method) -> Feature {
        let list = &self.config.persist;
        let obstacle = match method {
            Method::Cookie(_) => together::needs_bytes(list),
            Method::Source(_) => fast_path::unreadable(list),
            Method::Session(_) | Method::Route(_) | Method::Header(_) | Method::Query(_) => None,
        };
        let (effect, why) = match (method, obstacle) {
            (_, Some((_, why))) => (Effect::KeepsOff, why),
            (Method::Source(_), None) => {
                (Effect::Works, "a client whose address is known goes to its server")
            }
            (Method::Cookie(cookie), None) if cookie.indirect => {
                (Effect::Nothing, "cookies are not read, issued or removed: servers see them there")
            }
            (Method::Cookie(_), None) => (Effect::Nothing, "cookies are neither read nor issued"),
            (_, None) => (Effect::Nothing, "nobody reads the bytes, and entries are not refreshed"),
        };
        Feature { flag: format!("--persist {}", method.label()), effect, why }
    }

    fn maxconn(&self) -> Option<Feature> {
        let is_limited = self.config.servers.iter().any(|server| server.maxconn.is_some());
        is_limited.then(|| Feature {
            flag: "--server …,maxconn".into(),
            effect: Effect::Works,
            why: "fast connections count, and who has to wait goes through the proxy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::plan;

    /// Flags that say nothing of connections: what is served, by whom, and how the process lives.
    const OTHERS: &[&str] = &[
        "name",
        "mode",
        "listen",
        "server",
        "resolver",
        "persist",
        "check-interval",
        "check-timeout",
        "check-rise",
        "check-fall",
        "xdp",
        "fast-path",
        "verify-share",
        "forward",
        "snat-ip",
        "snat-ports",
        "flow-table",
        "datapath-hold",
        "detach-on-stop",
        "workers",
        "drain-timeout",
        "takeover",
        "admin",
        "admin-mode",
        "http-admin",
        "log-format",
        "log-level",
        "state-file",
        "user",
        "group",
    ];

    fn told(flags: &str) -> Vec<(String, &'static str)> {
        let features = plan(flags).features().into_iter();
        features.map(|feature| (feature.flag, feature.effect.as_str())).collect()
    }

    #[test]
    fn what_was_given_is_told() {
        assert_eq!(told(""), []);
        let flags =
            "--persist source --persist cookie=SRV --persist session=JS --on-down fail --redispatch off";
        let effects = [
            ("--persist source", "works"),
            ("--persist cookie=SRV", "no effect"),
            ("--persist session=JS", "no effect"),
            ("--on-down", "works"),
            ("--redispatch", "no effect"),
        ];
        assert_eq!(told(flags), effects.map(|(flag, effect)| (flag.to_owned(), effect)));
        let kept_off = |flags: &str| told(flags).last().map(|(_, effect)| *effect);
        assert_eq!(kept_off("--persist cookie=SRV,prefix"), Some("keeps it off"));
        assert_eq!(kept_off("--persist cookie=SRV,maxidle=30m"), Some("keeps it off"));
        assert_eq!(kept_off("--persist source,nopurge"), Some("keeps it off"));
        assert_eq!(kept_off("--persist source,mask4=24"), Some("works"));
        assert_eq!(kept_off("--forwarded forwarded"), Some("keeps it off"));
        assert_eq!(kept_off("--forwarded none"), None);
        assert_eq!(kept_off("--xdp eth0 --forward gateway --forwarded forwarded"), Some("no effect"));
    }

    #[test]
    fn every_flag_has_been_thought_about() {
        for setting in &plan("").settings.0 {
            let flag = setting.flag.as_str();
            let is_told = FLAGS.iter().any(|(known, ..)| *known == flag);
            assert!(is_told != OTHERS.contains(&flag), "--{flag}");
        }
    }

    /// `--fast-path auto` goes by what this table says, method by method.
    #[test]
    fn what_keeps_it_off_does() {
        for flags in ["", ",mask4=24", ",nopurge"] {
            for cookie in ["", ",prefix", ",rewrite", ",passive", ",maxidle=30m", ",maxlife=8h", ",indirect"]
            {
                for rest in [
                    "",
                    "--forwarded forwarded",
                    "--forward gateway",
                    "--forward gateway --forwarded forwarded",
                    "--forward gateway --send-proxy v1",
                    "--send-proxy v1",
                    "--accept-proxy 10.0.0.0/8",
                    "--deny 10.0.0.9",
                ] {
                    let flags =
                        format!("--xdp eth0 --persist source{flags} --persist cookie=SRV{cookie} {rest}");
                    let plan = plan(&flags);
                    let is_kept_off =
                        plan.features().iter().any(|feature| feature.effect == Effect::KeepsOff);
                    let is_off =
                        plan.config.datapath.expect("--xdp").fast_path == super::super::FastPath::Off;
                    assert_eq!(is_kept_off, is_off, "{flags}");
                }
            }
        }
    }
}
