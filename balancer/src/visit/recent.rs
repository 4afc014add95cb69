//! The last decisions of a worker, for `show decisions`.

use std::net::IpAddr;

use crossbeam_queue::ArrayQueue;

use crate::persist::issue::Letters;
use crate::persist::trace::Trace;

/// Decisions that are kept: with a few workers a few hundred.
const KEPT: usize = 256;

/// A decision that was made.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    /// When its request was over, milliseconds since 1970.
    pub unix_millis: u64,
    /// Whose request.
    pub client: IpAddr,
    /// What every method said.
    pub trace: Trace,
    /// Who served it.
    pub server: Option<usize>,
    /// As in the log.
    pub letters: Letters,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
}

/// The last decisions of a worker. Writing waits for nobody; what is read is taken out.
#[derive(Debug)]
pub struct Recent(ArrayQueue<Decided>);

impl Default for Recent {
    fn default() -> Self {
        Self(ArrayQueue::new(KEPT))
    }
}

impl Recent {
    /// One more; the oldest goes.
    pub fn note(&self, decided: Decided) {
        let _ = self.0.force_push(decided);
    }

    /// Takes them out, the oldest first.
    pub fn take(&self) -> impl Iterator<Item = Decided> {
        std::iter::from_fn(|| self.0.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let recent = Recent::default();
        for unix_millis in 0..1000 {
            recent.note(Decided {
                unix_millis,
                client: IpAddr::from([127, 0, 0, 1]),
                trace: Trace::new(),
                server: None,
                letters: Letters::NO_COOKIE,
                status: None,
            });
        }
        let kept: Vec<_> = recent.take().map(|decided| decided.unix_millis).collect();
        assert_eq!((kept.len(), kept.first(), kept.last()), (KEPT, Some(&744), Some(&999)));
        assert_eq!(recent.take().count(), 0);
    }
}
