//! Reading what the program tells, beside everything else: a bounded number of events in one turn, and nothing that a
//! client waits for.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use balancer_ebpf::abi::{EVENT_END, EVENT_NO_NEIGHBOUR};
use tokio::net::TcpStream;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{sleep, timeout};

use super::collect::flow_clock;
use super::ended::{self, Ended};
use super::ring::Reader;
use super::running::{Attached, Datapath, Inner};
use crate::access_log::Sender;
use crate::log;

/// Events read in one turn: well under a millisecond.
const TURN: usize = 256;
/// How often a process that is being succeeded looks whether it is to go on after all, and one that cannot read tries
/// again.
const PAUSE: Duration = Duration::from_millis(200);
/// For a server's neighbour to be found.
const NEIGHBOUR_LIMIT: Duration = Duration::from_secs(1);

/// What a turn has come to.
enum Turn {
    /// There may be more.
    Full,
    /// Nothing is left.
    Empty,
    /// A successor reads, or is about to.
    Silent,
    /// A successor has it all.
    Over,
}

impl Datapath {
    /// Reads the ring until a successor does.
    pub(super) async fn hear(&self, log: Option<&Sender>) {
        let mut complaint = String::new();
        loop {
            match self.hear_some(log).await {
                Ok(()) => return,
                Err(error) => {
                    let message = log::chain(&error);
                    if message != complaint {
                        log::warn(format_args!(
                            "fast path: what the XDP program reports cannot be read, so its connections go \
                             on and are not in the access log: {message}"
                        ));
                        complaint = message;
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn hear_some(&self, log: Option<&Sender>) -> anyhow::Result<()> {
        // Made anew whenever another process may have read meanwhile: a reader knows its place by heart.
        while let Some(reader) = self.reader()? {
            let Some(reader) = reader else {
                sleep(PAUSE).await;
                continue;
            };
            let mut ring = reader.watched()?;
            loop {
                let mut ready = ring.readable_mut().await?;
                match self.turn(ready.get_inner_mut(), log) {
                    Turn::Full => yield_now().await,
                    Turn::Empty => ready.clear_ready(),
                    Turn::Silent => break,
                    Turn::Over => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// `None`: there is nothing to read any more. `Some(None)`: another process reads just now.
    fn reader(&self) -> anyhow::Result<Option<Option<Reader>>> {
        let inner = self.lock();
        let Some(Attached { ring, .. }) = &inner.xdp else { return Ok(None) };
        if inner.is_silent {
            return Ok(Some(None));
        }
        ring.reader().map(|reader| Some(Some(reader)))
    }

    fn turn(&self, reader: &mut Reader, log: Option<&Sender>) -> Turn {
        let inner = self.lock();
        let Inner { xdp: Some(Attached { .. }), roster, is_silent, .. } = &*inner else { return Turn::Over };
        if *is_silent {
            return Turn::Silent;
        }
        let (now, mut ended) = (flow_clock(), Vec::new());
        let mut is_empty = false;
        for _ in 0..TURN {
            let Some(event) = reader.next_event() else {
                is_empty = true;
                break;
            };
            match event.what {
                EVENT_END => ended.push(Ended::told(&event, now)),
                EVENT_NO_NEIGHBOUR => {
                    if let Some(server) = roster.by_id(event.server) {
                        spawn_local(find_neighbour(server.address));
                    }
                }
                _ => {}
            }
        }
        if let Some(log) = log {
            ended::log(&ended, log, |id| roster.name_of(id));
        }
        if is_empty { Turn::Empty } else { Turn::Full }
    }
}

/// Has the kernel look for the way to a server: by connecting to it, as a check would. That takes no privilege, and the
/// packets that XDP could not send are repeated by their senders.
async fn find_neighbour(server: SocketAddr) {
    let _: Result<io::Result<TcpStream>, _> = timeout(NEIGHBOUR_LIMIT, TcpStream::connect(server)).await;
}
