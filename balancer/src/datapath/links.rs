//! Interfaces come and go, and change their names, while the service runs.
//!
//! An interface that was deleted and made again is another one to the kernel: it has another index and no program. It is
//! attached to again as soon as one of its name is there. Before that every flow that has come or gone by the old one is
//! removed: the stack has owned their tuples meanwhile. That is done here, once, rather than by a number in each flow that
//! each packet would have to be compared with.

use std::fs::File;

use aya::programs::Xdp;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::maps::Maps;
use super::pins::Pins;
use super::program::Attachment;
use super::view::InterfaceInfo;
use crate::config::InterfaceConfig;
use crate::log;

/// Where the program is, and where it is to be.
#[derive(Debug, Default)]
pub struct Links {
    /// Every interface that has the program, also those of other services.
    pub attached: Vec<InterfaceInfo>,
    /// For each interface of the flags, in their order, its index; 0: it has none yet.
    pub places: Vec<u32>,
}

impl Links {
    /// Looks at all of them again. Returns what is amiss.
    pub fn follow(
        &mut self,
        wanted: &[InterfaceConfig],
        program: &mut Xdp,
        maps: &mut Maps,
        pins: &Pins,
        turn: &File,
    ) -> Vec<String> {
        self.attached.retain_mut(|info| {
            let Some(name) = name_of(info.index) else { return false };
            if name != info.name {
                log::info(format_args!("XDP: {} is called {name} now", info.name));
                info.name = name;
            }
            true
        });
        let mut notes = Vec::new();
        for (place, interface) in self.places.iter_mut().zip(wanted) {
            if self.attached.iter().any(|info| info.index == *place) {
                continue;
            }
            let name = &interface.name;
            let Ok(index) = if_nametoindex(name.as_str()) else {
                notes.push(format!("{name} is gone; it is attached to again when there is one of that name"));
                continue;
            };
            // Others take their turns as well; the next beat is soon.
            if turn.try_lock().is_err() {
                continue;
            }
            let attachment = Attachment { interface, index, pins };
            let outcome = attachment.renew(program, maps, &self.attached, *place);
            let _ = turn.unlock();
            match outcome {
                Ok(info) => {
                    log::info(format_args!("XDP on {name} again, {}", info.mode));
                    *place = index;
                    self.attached.push(info);
                }
                Err(error) => notes.push(format!(
                    "{name} is back, and its clients go through the proxy: {}; restart balancer to attach \
                     to it",
                    log::chain(&error)
                )),
            }
        }
        notes
    }
}

/// What the interface of that index is called now; `None`: there is no such interface any more.
pub fn name_of(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?.into_string().ok()?;
    // What nix makes of a null pointer.
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_an_interface_has_no_name() {
        assert_eq!(name_of(1).as_deref(), Some("lo"));
        assert_eq!(name_of(i32::MAX as u32), None);
    }
}
