//! What a predecessor learns from its last answers. Where tables are in the kernel the successor sees it there; otherwise it
//! is told, since whoever has just got a session comes back with it to the new process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::wire::{Entries, Frame};
use crate::table::Tables;

/// Listens at all tables, until dropped. What is kept is what is learned in the last moment of the hand-over, and then
/// one lesson for each connection that finishes.
#[derive(Debug)]
pub struct Lessons {
    tables: Tables,
    heard: mpsc::UnboundedReceiver<Entries>,
    untold: Untold,
}

/// How many of the lessons have not been passed on.
#[derive(Clone, Debug, Default)]
pub struct Untold(Arc<AtomicUsize>);

impl Lessons {
    /// Of those tables; `untold` counts them.
    pub fn hear(tables: &Tables, untold: &Untold) -> Self {
        let (speaker, heard) = mpsc::unbounded_channel();
        for (number, (_, table)) in (0..).zip(tables.iter()) {
            let (speaker, untold) = (speaker.clone(), untold.clone());
            table.tell(Some(Box::new(move |key, found| {
                let list = vec![(key, found.entry)];
                untold.add();
                if speaker.send(Entries { table: number, probation: found.probation, list }).is_err() {
                    untold.remove();
                }
            })));
        }
        Self { tables: tables.handle(), heard, untold: untold.clone() }
    }

    /// Passes them on for as long as somebody wants them.
    pub async fn pass_on(mut self, stream: &mut UnixStream) {
        while let Some(entries) = self.heard.recv().await {
            let told = stream.write_all(&Frame::Entries(entries).encode()).await;
            self.untold.remove();
            if told.is_err() {
                return;
            }
        }
    }
}

impl Drop for Lessons {
    fn drop(&mut self) {
        self.tables.iter().for_each(|(_, table)| table.tell(None));
        self.heard.close();
        while self.heard.try_recv().is_ok() {
            self.untold.remove();
        }
    }
}

impl Untold {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Until there are none.
    pub async fn none(&self) {
        while self.0.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
}
