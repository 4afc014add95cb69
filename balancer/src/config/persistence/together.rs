//! What the methods of a list, the servers and the fast path make of each other.

use super::super::{FastPath, ServerConfig, ServerId};
use crate::cli::Stop;
use crate::persist::method::{CookieMethod, Place, SessionMethod};
use crate::persist::{CookieMode, List, Method};

/// Refuses servers that the list cannot name, and gives those without an id one that is made of their address, with
/// `dynamic-key=`.
pub(in crate::config) fn servers(list: &List, servers: &mut [ServerConfig]) -> Result<(), Stop> {
    for server in &mut *servers {
        let location = server.location();
        fit(list, server)
            .map_err(|rest| Stop::Usage(format!("--server {}={location} {rest}", server.name)))?;
    }
    if list.cookie().is_none_or(|cookie| cookie.dynamic_key.is_none()) {
        return Ok(());
    }
    let mut ids: Vec<_> = servers.iter().filter_map(ServerConfig::cookie).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(Stop::Usage(format!(
            "--persist cookie=…,dynamic-key=… gives two servers the id {:?}, as they have one address; give one of them an \
             id with id=VALUE",
            twice[0]
        ))),
        None => Ok(()),
    }
}

/// The same for one server, whenever it comes; what is wrong is the rest of a sentence.
pub(in crate::config) fn fit(list: &List, server: &mut ServerConfig) -> Result<(), String> {
    let dynamic_key = list.cookie().and_then(|cookie| cookie.dynamic_key.clone());
    if let (Some(key), ServerId::Name) = (dynamic_key, &server.id) {
        server.id = ServerId::Dynamic(key);
    }
    for method in list.methods() {
        match (method, &server.id) {
            (Method::Cookie(cookie), ServerId::Nothing)
                if matches!(cookie.mode, CookieMode::Rewrite | CookieMode::Prefix) =>
            {
                return Err("has no id, which a cookie with rewrite or prefix needs; leave out id= or give it a value"
                    .into());
            }
            (Method::Route(route), ServerId::Name | ServerId::Given(_)) => {
                let id = server.cookie().unwrap_or_default();
                if id.contains('.') {
                    return Err(format!(
                        "has the id {id:?}, in which --persist route={} cannot tell the dot from its own; give it one \
                         without a dot with id=VALUE",
                        route.name
                    ));
                }
            }
            _ => {}
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

/// What the application sets under that name does not reach the client.
fn is_taken_from_the_application(cookie: &CookieMethod) -> bool {
    match cookie.mode {
        CookieMode::Insert => !cookie.preserve,
        CookieMode::Rewrite => true,
        CookieMode::Prefix | CookieMode::Passive => false,
    }
}

fn is_it(session: &SessionMethod, name: &str) -> bool {
    if session.is_prefix { name.starts_with(&session.name) } else { session.name == name }
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
    if let Some(cookie) = list.cookie().filter(|cookie| is_taken_from_the_application(cookie)) {
        let of_the_application = |method: &&Method| match method {
            Method::Session(session) => {
                session.places.contains(&Place::Cookie) && is_it(session, &cookie.name)
            }
            Method::Route(route) => route.places.contains(&Place::Cookie) && route.name == cookie.name,
            _ => false,
        };
        if let Some(method) = list.methods().iter().find(of_the_application) {
            warnings.push(format!(
                "--persist cookie={} puts a cookie of ours in the place of the application's, so clients never have the \
                 id that --persist {} looks for; give ours another name, or add prefix",
                cookie.name,
                method.label()
            ));
        }
    }
    if let Some(cookie) = list.cookie().filter(|cookie| cookie.mode == CookieMode::Passive) {
        let attributes = &cookie.attributes;
        let is_given = attributes.path.is_some()
            || !attributes.domains.is_empty()
            || attributes.max_age.is_some()
            || attributes.http_only
            || attributes.secure
            || attributes.same_site.is_some()
            || !attributes.others.is_empty();
        if is_given {
            warnings.push(format!(
                "--persist cookie={},passive writes no cookie, so the attributes given there have no effect",
                cookie.name
            ));
        }
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
