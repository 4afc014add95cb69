//! The kernel side of a build without the feature `xdp`: tables in memory, no fast path.

use std::fs::File;
use std::io;
use std::rc::Rc;

use anyhow::bail;

use super::view::View;
use super::{Known, Opened, in_memory};
use crate::access_log::Sender;
use crate::config::Config;
use crate::server::{FastLoads, Server};

/// Never made in this build.
pub enum Datapath {}

/// Tables in memory.
///
/// # Errors
/// With `--xdp`.
pub fn open(config: &Config, _role: Option<File>, known: &Known) -> anyhow::Result<Opened> {
    let notes = check(config)?;
    let mut opened = in_memory(config, known, "this build has no XDP")?;
    opened.notes.splice(0..0, notes);
    Ok(opened)
}

/// Nothing to try.
///
/// # Errors
/// With `--xdp`.
pub fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    let Some(datapath) = &config.datapath else { return Ok(Vec::new()) };
    if !datapath.interfaces.is_empty() {
        bail!("--xdp: this balancer was built without XDP; build it with the feature `xdp`");
    }
    Ok(vec![
        "--xdp auto: there is no fast path, everything goes through the proxy: this build has no XDP"
            .to_owned(),
    ])
}

/// Nothing to detach.
///
/// # Errors
/// Always.
pub fn detach(_name: &str, _force: bool) -> anyhow::Result<String> {
    bail!("this balancer was built without XDP: there is nothing to detach")
}

/// Nothing to detach.
///
/// # Errors
/// Always.
pub fn detach_all(force: bool) -> anyhow::Result<String> {
    detach("", force)
}

impl Datapath {
    /// See the build with XDP.
    ///
    /// # Errors
    /// None.
    pub fn attach(&self) -> anyhow::Result<Vec<String>> {
        match *self {}
    }

    /// See the build with XDP.
    ///
    /// # Errors
    /// None.
    pub fn tables_are_complete(&self) -> anyhow::Result<()> {
        match *self {}
    }

    /// See the build with XDP.
    ///
    /// # Errors
    /// None.
    pub fn settle(&self) -> anyhow::Result<()> {
        match *self {}
    }

    /// See the build with XDP.
    ///
    /// # Errors
    /// None.
    pub fn role(&self) -> io::Result<Option<File>> {
        match *self {}
    }

    /// See the build with XDP.
    pub fn is_fast(&self) -> bool {
        match *self {}
    }

    /// See the build with XDP.
    pub fn fall_silent(&self) {
        match *self {}
    }

    /// See the build with XDP.
    pub fn speak_again(&self) {
        match *self {}
    }

    /// See the build with XDP.
    pub fn hand_over(&self, _is_fast: bool) {
        match *self {}
    }

    /// See the build with XDP.
    pub fn publisher(&self) -> Box<dyn Fn(&Server) + Send + Sync> {
        match *self {}
    }

    /// See the build with XDP.
    pub fn loads(&self) -> Option<Box<dyn FastLoads>> {
        match *self {}
    }

    /// See the build with XDP.
    pub fn view(self: &Rc<Self>) -> Option<Rc<dyn View>> {
        match **self {}
    }

    /// See the build with XDP.
    pub async fn upkeep(self: Rc<Self>, _log: Option<Sender>) {
        match *self {}
    }

    /// See the build with XDP.
    ///
    /// # Errors
    /// None.
    pub fn deny(&self, _deny: &crate::cidr::AddressSet) -> anyhow::Result<()> {
        match *self {}
    }

    /// See the build with XDP.
    pub fn drain(&self) {
        match *self {}
    }

    /// See the build with XDP.
    pub fn leave(&self) {
        match *self {}
    }
}
