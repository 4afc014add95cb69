//! The ring of events of a service: the program writes, the process that has the role reads.
//!
//! It is pinned with the service, so what is told while no process runs is read by the next one.

#![allow(unsafe_code, reason = "a descriptor that the runtime watches")]

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;

use anyhow::Context as _;
use aya::maps::{Map, MapData, MapInfo, MapType, RingBuf};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use balancer_ebpf::abi::{EVENT_RING_BYTES, Event};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::syscall;

/// The ring, not yet read.
#[derive(Debug)]
pub struct Ring(MapData);

impl Ring {
    /// The ring pinned at `path`, made if it is not there or is none of this build.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let is_ours = |info: MapInfo| {
            info.map_type().is_ok_and(|kind| kind == MapType::RingBuf)
                && info.max_entries() == EVENT_RING_BYTES
        };
        if path.exists() {
            if MapInfo::from_pin(path).is_ok_and(is_ours) {
                let map =
                    MapData::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?;
                return Ok(Self(map));
            }
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        let ring = Self::unpinned(EVENT_RING_BYTES)?;
        ring.0.pin(path).with_context(|| format!("cannot pin {}", path.display()))?;
        Ok(ring)
    }

    /// A ring that goes away with its last handle: for tests of the program.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn unpinned(bytes: u32) -> anyhow::Result<Self> {
        let kind = BPF_MAP_TYPE_RINGBUF as u32;
        let shape = aya_obj::Map::new_from_params(kind, 0, 0, bytes, 0);
        let map = MapData::create(shape, "events", None).context("cannot create a ring of events")?;
        Ok(Self(map))
    }

    /// The map, to be given to the program.
    pub fn map(&self) -> &MapData {
        &self.0
    }

    /// A reader that goes on where the last one has stopped. Of two that read at the same time both would be wrong.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn reader(&self) -> anyhow::Result<Reader> {
        let map = MapData::from_fd(self.0.fd().as_fd().try_clone_to_owned()?)?;
        Ok(Reader(RingBuf::try_from(Map::RingBuf(map)).context("cannot read the ring of events")?))
    }
}

/// Reads the ring.
pub struct Reader(RingBuf<MapData>);

impl Reader {
    /// The same, watched by the runtime that the caller is in.
    ///
    /// # Errors
    /// When there is no descriptor left to watch it by.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the ring keeps its descriptor, and never another one, for as long as it lives.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE)? })
    }

    /// The next event, if there is one.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            // What is not as long as an event is of no use to anybody.
            if let Some(event) = syscall::from_bytes(&self.0.next()?) {
                return Some(event);
            }
        }
    }
}

impl AsRawFd for Reader {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
