//! HAProxy's own answers, byte for byte in form: its header, its keys, its tags. What people have for it works with them.
//!
//! | module | what is asked |
//! |---|---|
//! | [`stat`], [`columns`] | `show stat`, in all forms and with its filters |
//! | [`info`] | `show info` |
//! | [`servers`] | `show servers state`, `show servers conn`, `show backend` |
//! | [`errors`] | `show errors` |
//! | [`sessions`] | `show sess` |
//! | [`switches`] | `enable` and `disable` of `health`, `agent` and `frontend` |
//! | [`value`] | a value, as CSV, `typed` and `json` |
//!
//! Frontend and backend are both called as the service is.

mod columns;
mod errors;
mod info;
mod servers;
mod sessions;
mod stat;
mod switches;
mod value;

use super::Desk;
pub use stat::Walked;
use value::Form;

/// The numbers of the frontend and of the backend, as in an HAProxy with one of each.
const FRONTEND_ID: u64 = 2;
const BACKEND_ID: u64 = 3;

/// The answer, without the empty line that ends it. `None`: it is not one of these commands.
pub(super) fn answer(desk: &Desk, command: &str) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let answer = match *words {
        ["show", "stat", ref words @ ..] => stat::show(desk, words),
        ["show", "info", ref words @ ..] => Ok(info::show(desk, form(words)?)),
        ["show", "servers", "state"] => Ok(servers::state(desk)),
        ["show", "servers", "state", backend] => of_backend(desk, backend, servers::state),
        ["show", "servers", "conn"] => Ok(servers::connections(desk)),
        ["show", "servers", "conn", backend] => of_backend(desk, backend, servers::connections),
        ["show", "backend"] => Ok(format!("# name\n{}\n", desk.service.config.name)),
        ["show", "errors", ref words @ ..] => errors::show(desk, words),
        ["show", "sess"] => Ok(sessions::show(desk)),
        ["show", "version"] => Ok(format!("{}\n", env!("CARGO_PKG_VERSION"))),
        ["enable", ref words @ ..] => switches::switch(desk, true, words)?,
        ["disable", ref words @ ..] => switches::switch(desk, false, words)?,
        ["clear", "counters"] => cleared(desk, false),
        ["clear", "counters", "all"] => cleared(desk, true),
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| format!("error: {refusal}\n")))
}

fn cleared(desk: &Desk, all: bool) -> Result<String, String> {
    desk.stats.clear(all);
    Ok(String::new())
}

fn of_backend(desk: &Desk, name: &str, show: fn(&Desk) -> String) -> Result<String, String> {
    is_ours(desk, name).then(|| show(desk)).ok_or_else(|| no_such_backend(desk, name))
}

fn is_ours(desk: &Desk, name: &str) -> bool {
    name == desk.service.config.name || name == BACKEND_ID.to_string()
}

fn no_such_backend(desk: &Desk, name: &str) -> String {
    format!("there is no backend {name:?}; there is {:?}", desk.service.config.name)
}

/// `desc` and `float` change nothing here.
fn form(words: &[&str]) -> Option<Form> {
    let mut form = Form::Plain;
    for word in words {
        match *word {
            "typed" => form = Form::Typed,
            "json" => form = Form::Json,
            "desc" | "float" => {}
            _ => return None,
        }
    }
    Some(form)
}

#[cfg(test)]
mod tests;
