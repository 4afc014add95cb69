//! What the methods of a list, the servers and the fast path make of each other.

use super::super::{FastPath, ServerConfig};
use crate::cli::Stop;
use crate::persist::{CookieMode, List, Method, dynamic};

/// Refuses servers that the list cannot name, and gives those without an id one that is made of their address, with
/// `dynamic-key=`.
pub(in crate::config) fn servers(list: &List, servers: &mut [ServerConfig]) -> Result<(), Stop> {
    let wrong = |server: &ServerConfig, rest: String| {
        Err(Stop::Usage(format!("--server {}={} {rest}", server.name, server.address)))
    };
    if let Some(key) = list.cookie().and_then(|cookie| cookie.dynamic_key.as_deref()) {
        for server in servers.iter_mut().filter(|server| !server.id_is_given) {
            server.cookie = Some(dynamic::id(key, server.address));
        }
        let mut ids: Vec<_> = servers.iter().filter_map(|server| server.cookie.as_deref()).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Stop::Usage(format!(
                "--persist cookie=…,dynamic-key=… gives two servers the id {:?}, as they have one address; give one \
                 of them an id with id=VALUE",
                twice[0]
            )));
        }
    }
    for method in list.methods() {
        let needs_id = match method {
            Method::Cookie(cookie) if matches!(cookie.mode, CookieMode::Rewrite | CookieMode::Prefix) => {
                servers.iter().find(|server| server.cookie.is_none())
            }
            _ => None,
        };
        if let Some(server) = needs_id {
            return wrong(
                server,
                "has no id, which a cookie with rewrite or prefix needs; leave out id= or give it a value"
                    .into(),
            );
        }
        let has_dot = |server: &&ServerConfig| server.cookie.as_deref().is_some_and(|id| id.contains('.'));
        if let (Method::Route(_), Some(server)) = (method, servers.iter().find(has_dot)) {
            return wrong(
                server,
                format!(
                    "has the id {:?}, in which --persist route={} cannot tell the dot from its own; give it one without \
                     a dot with id=VALUE",
                    server.cookie.as_deref().unwrap_or_default(),
                    method.label().trim_start_matches("route=")
                ),
            );
        }
    }
    Ok(())
}

/// Why connections of known clients must not pass the proxy by: the option that needs the bytes, and what for.
pub(in crate::config) fn needs_bytes(list: &List) -> Option<(&'static str, &'static str)> {
    let cookie = list.cookie()?;
    match cookie.mode {
        CookieMode::Prefix => Some((
            "--persist cookie=…,prefix",
            "the server would see its id in front of the application's value",
        )),
        CookieMode::Rewrite => {
            Some(("--persist cookie=…,rewrite", "the cookie that the server sets has to be rewritten"))
        }
        CookieMode::Insert if cookie.max_idle.is_some() => {
            Some(("--persist cookie=…,maxidle=…", "nobody would renew the date in the cookie"))
        }
        CookieMode::Insert if cookie.max_life.is_some() => {
            Some(("--persist cookie=…,maxlife=…", "nobody would look at the date in the cookie"))
        }
        CookieMode::Insert | CookieMode::Passive => None,
    }
}

/// Lists that cannot keep their promise, in the words of persistence.md.
pub(in crate::config) fn warnings(list: &List, fast_path: FastPath) -> Vec<String> {
    let mut warnings = Vec::new();
    let has_session = list.methods().iter().any(|method| matches!(method, Method::Session(_)));
    for method in list.methods().iter().filter(|method| method.is_fixed() && !has_session) {
        warnings.push(format!(
            "--persist {}: only the application can change it, so a client that was moved goes back when its old server \
             does, without its session; add --persist session= to remember the move",
            method.label()
        ));
    }
    if let Some(cookie) = list.cookie().filter(|cookie| cookie.mode != CookieMode::Insert) {
        let idle = [("nocache", cookie.nocache), ("postonly", cookie.postonly)];
        for (option, _) in idle.into_iter().filter(|(_, is_given)| *is_given) {
            warnings.push(format!(
                "--persist cookie={},{option} has no effect: nothing is inserted",
                cookie.name
            ));
        }
    }
    let session_after_source = list.source_is_first() && list.methods().len() > 1;
    if session_after_source && fast_path == FastPath::Always {
        warnings.push(
            "--persist source stands first and the fast path is always: the methods after it only count for clients \
             whose address is not known"
                .into(),
        );
    }
    warnings
}
