//! The state of a flow in one word: both directions, and what of it has been counted for its server.
//!
//! The word is in the entry of the client's direction and changes by compare-and-exchange alone, so every step of a
//! flow's life is taken exactly once, whatever the other CPUs do: whoever has moved the word does what follows from it.
//! The sides in the two entries are copies, for the packets that change nothing.

use crate::phase::{self, ANSWERED, DEAD, ESTABLISHED, HALF_OPEN, Side, flag};

/// A client whose SYN is repeated this long after the first one has not been answered for 3 s: TCP repeats it after 1,
/// 2 or 3 and, in any case, about 3 s (RFC 6298 §2.1, §5.5), and clocks are coarse.
pub const UNANSWERED_NS: u64 = 2_900_000_000;

/// The bit that makes any phase a dead one.
const DEAD_BIT: u64 = DEAD as u64;
const _: () = assert!(DEAD.is_power_of_two() && phase::CLOSING < DEAD);

const CLIENT_MARKS: u32 = 8;
const CLIENT_TALK: u32 = 16;
const SERVER_MARKS: u32 = 24;
const SERVER_TALK: u32 = 32;
const REFUSED: u64 = 1 << 40;
const UNANSWERED: u64 = 1 << 41;
const NOTES: u64 = REFUSED | UNANSWERED;

/// See the module's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct State(pub u64);

/// What a packet says that its flow has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Said {
    /// It comes from the client.
    pub from_client: bool,
    /// Its TCP flags.
    pub flags: u8,
    /// It acknowledges the server's initial sequence number, which only a host at the client's address can have seen.
    pub proves_address: bool,
    /// It acknowledges the client's SYN, which only a host that has seen it can.
    pub answers_syn: bool,
    /// The flow is [`UNANSWERED_NS`] old, and its server has not said anything.
    pub is_late: bool,
}

impl State {
    /// A flow whose SYN is being forwarded.
    pub const NEW: Self = Self(HALF_OPEN as u64);

    /// What makes a state dead when it is set in the word, whatever the word was.
    pub const KILL: u64 = DEAD_BIT;

    /// What says that the server's silence has been counted, when it is set in the word.
    pub const NOTE_UNANSWERED: u64 = UNANSWERED;

    /// Its tuple belongs to the stack.
    #[inline(always)]
    pub const fn is_dead(self) -> bool {
        self.0 & DEAD_BIT != 0
    }

    /// It counts as a connection of its server: not closing, and not dead.
    #[inline(always)]
    pub const fn is_open(self) -> bool {
        matches!(self.0 as u8, HALF_OPEN | ESTABLISHED)
    }

    /// The server has refused it: a RST answered its SYN.
    #[inline(always)]
    pub const fn is_refused(self) -> bool {
        self.0 & REFUSED != 0
    }

    /// The server's silence has been counted.
    #[inline(always)]
    pub const fn is_noted_unanswered(self) -> bool {
        self.0 & UNANSWERED != 0
    }

    /// The SYN is still to be answered, as far as the flow's state says.
    #[inline(always)]
    pub const fn awaits_answer(self) -> bool {
        self.0 as u8 == HALF_OPEN && (self.0 >> SERVER_MARKS) as u8 & ANSWERED == 0
    }

    /// The side of the client's direction.
    #[inline(always)]
    pub const fn client(self) -> Side {
        Side {
            phase: self.phase(),
            marks: (self.0 >> CLIENT_MARKS) as u8,
            talk: (self.0 >> CLIENT_TALK) as u8,
        }
    }

    /// The side of the server's direction.
    #[inline(always)]
    pub const fn server(self) -> Side {
        Side {
            phase: self.phase(),
            marks: (self.0 >> SERVER_MARKS) as u8,
            talk: (self.0 >> SERVER_TALK) as u8,
        }
    }

    /// The state after a packet, and whether that has completed the handshake.
    #[inline(always)]
    pub fn after(self, said: Said) -> (Self, bool) {
        let (mut client, mut server) = (self.client(), self.server());
        let mut notes = self.0 & NOTES;
        if self.awaits_answer() {
            let is_reset = said.flags & flag::RST != 0;
            if !said.from_client && is_reset && said.answers_syn {
                notes |= REFUSED;
            }
            if said.from_client && said.flags & flag::SYN != 0 && !is_reset && said.is_late {
                notes |= UNANSWERED;
            }
        }
        let (own, twin) =
            if said.from_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let completed = phase::advance(own, twin, said.from_client, said.flags, said.proves_address);
        (Self::of(client, server, notes), completed)
    }

    #[inline(always)]
    const fn of(client: Side, server: Side, notes: u64) -> Self {
        Self(
            client.phase as u64
                | (client.marks as u64) << CLIENT_MARKS
                | (client.talk as u64) << CLIENT_TALK
                | (server.marks as u64) << SERVER_MARKS
                | (server.talk as u64) << SERVER_TALK
                | notes,
        )
    }

    #[inline(always)]
    const fn phase(self) -> u8 {
        if self.is_dead() { DEAD } else { self.0 as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::CLOSING;
    use crate::phase::flag::{ACK, FIN, RST, SYN};

    fn client(flags: u8) -> Said {
        Said { from_client: true, flags, proves_address: true, ..Said::default() }
    }

    fn server(flags: u8) -> Said {
        Said { flags, answers_syn: true, ..Said::default() }
    }

    fn late(said: Said) -> Said {
        Said { is_late: true, ..said }
    }

    fn told(packets: &[Said]) -> State {
        packets.iter().fold(State::NEW, |state, said| state.after(*said).0)
    }

    const DATA: u8 = ACK;

    #[test]
    fn a_flow_is_open_until_both_fins_or_a_reset_and_again_when_it_is_revived() {
        let mut state = State::NEW;
        let mut step = |said| {
            state = state.after(said).0;
            state.is_open()
        };
        assert!(step(server(SYN | ACK)) && step(client(ACK)));
        assert!(step(client(FIN | ACK)), "half-closed is open");
        assert!(!step(server(FIN | ACK)));
        assert!(!step(client(ACK)), "an acknowledgment is the close itself");
        let mut forged = told(&[server(SYN | ACK), client(ACK), server(RST)]);
        assert!(!forged.is_open());
        for said in [client(DATA), server(DATA)] {
            forged = forged.after(said).0;
        }
        assert!(forged.is_open() && forged.client().phase == ESTABLISHED);
    }

    #[test]
    fn both_sides_come_back_as_they_went_in() {
        let state =
            told(&[server(SYN | ACK), client(ACK), server(FIN | ACK), client(FIN | ACK), client(ACK)]);
        assert_eq!((state.client().phase, state.server().phase), (CLOSING, CLOSING));
        let marks = phase::FIN_SENT | phase::SERVER_FIRST;
        assert_eq!(state.client(), Side { phase: CLOSING, marks, talk: 1 });
        assert_eq!(state.server(), Side { phase: CLOSING, marks: marks | ANSWERED, talk: 0 });
    }

    #[test]
    fn a_refusal_is_a_reset_that_answers_the_syn() {
        assert!(told(&[server(RST | ACK)]).is_refused());
        let forged = Said { answers_syn: false, ..server(RST | ACK) };
        assert!(!told(&[forged]).is_refused(), "from somebody who has not seen the SYN");
        assert!(!told(&[client(RST)]).is_refused(), "the client has thought better of it");
        assert!(!told(&[server(SYN | ACK), server(RST | ACK)]).is_refused(), "it has answered before");
    }

    #[test]
    fn silence_is_noted_when_the_syn_is_repeated_late() {
        assert!(!told(&[client(SYN)]).is_noted_unanswered());
        assert!(told(&[late(client(SYN))]).is_noted_unanswered());
        assert!(!told(&[late(client(ACK))]).is_noted_unanswered(), "not a SYN");
        assert!(!told(&[server(SYN | ACK), late(client(SYN))]).is_noted_unanswered(), "answered");
        assert!(
            told(&[late(client(SYN)), server(SYN | ACK), client(ACK)]).is_open(),
            "late, and yet it came"
        );
    }

    #[test]
    fn whatever_is_killed_is_dead_and_not_open() {
        for state in [State::NEW, told(&[server(SYN | ACK), client(ACK)]), told(&[server(RST)])] {
            let killed = State(state.0 | State::KILL);
            assert!(killed.is_dead() && !killed.is_open() && !killed.awaits_answer());
            assert_eq!((killed.client().phase, killed.server().phase), (DEAD, DEAD));
        }
    }
}
