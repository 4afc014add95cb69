//! Fast connections: showing and ending them.

use super::command::{Which, own_name};
use super::{Desk, rows};
use crate::datapath::view::Asked;
use crate::log;

/// Rows that people are shown when they do not say how many; programs get all.
const ROWS: usize = 1000;

impl Desk {
    pub(super) fn show_flows(&self, which: Which<'_>, json: bool) -> Result<String, String> {
        let asked = self.asked(which, if json { usize::MAX } else { ROWS })?;
        let (flows, more) = self.view.as_ref().map_or_else(Default::default, |view| view.flows(&asked));
        let mut text = rows(&flows, json);
        if more > 0 && !json {
            text += &format!("... and {more} more\n");
        }
        Ok(text)
    }

    pub(super) fn reset_flows(&self, which: Which<'_>) -> Result<String, String> {
        if which == Which::default() {
            return Err("which flows? write reset flows client ADDR, server NAME, or both".to_owned());
        }
        let asked = self.asked(which, usize::MAX)?;
        let view = self.view.as_ref().ok_or("there is no fast path: nothing was started with --xdp")?;
        let ended = view.reset(&asked);
        let of = asked.client.map_or_else(String::new, |client| format!(" of {client}"));
        let to = asked.server.map_or_else(String::new, |server| format!(" to {server}"));
        log::info(format_args!("{ended} fast connections{of}{to} are ended by the operator"));
        Ok(format!("{ended} fast connections{of}{to} are ended\n"))
    }

    fn asked(&self, which: Which<'_>, limit: usize) -> Result<Asked, String> {
        let server = which
            .server
            .map(|name| self.place(name).map(|_| own_name(name, &self.service.config.name).to_owned()));
        Ok(Asked { client: which.client, server: server.transpose()?, limit: which.limit.unwrap_or(limit) })
    }
}
