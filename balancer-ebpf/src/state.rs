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
const TOLD: u64 = 1 << 42;
const RESET_BY_SERVER: u64 = 1 << 43;
const RESET_BY_CLIENT: u64 = 1 << 44;
const ON_ORDER: u64 = 1 << 45;
const UNFINISHED: u64 = 1 << 46;
const RESETS: u64 = RESET_BY_SERVER | RESET_BY_CLIENT;
const NOTES: u64 = REFUSED | UNANSWERED | TOLD | RESETS | ON_ORDER | UNFINISHED;

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

/// Why a flow has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Both ends have said that they have no more to say.
    Closed,
    /// The client has broken it off.
    ResetByClient,
    /// The server has.
    ResetByServer,
    /// The server has answered the SYN with a reset.
    Refused,
    /// The server has not answered the SYN.
    NoAnswer,
    /// The client has not completed the handshake.
    NoHandshake,
    /// Nobody has said anything for too long.
    TimedOut,
    /// User space has ended it: the operator has said so, or its server was marked down.
    Killed,
    /// The server's answer came with an unfinished checksum: the client's next attempt is the proxy's.
    Unfinished,
}

impl State {
    /// A flow whose SYN is being forwarded.
    pub const NEW: Self = Self(HALF_OPEN as u64);

    /// The same where the server's answers do not pass here.
    pub const NEW_ONE_WAY: Self = Self(HALF_OPEN as u64 | (phase::ONE_WAY as u64) << CLIENT_MARKS);

    /// What makes a state dead when it is set in the word, whatever the word was.
    pub const KILL: u64 = DEAD_BIT;

    /// What says that the server's silence has been counted, when it is set in the word.
    pub const NOTE_UNANSWERED: u64 = UNANSWERED;

    /// What says that the flow's end is told, or being told. Who sets it tells; who cannot, takes it back.
    pub const TOLD: u64 = TOLD;

    /// What says who has killed it, to be set with [`Self::KILL`]: user space.
    pub const ON_ORDER: u64 =
        ON_ORDER | (phase::ENDED as u64) << CLIENT_MARKS | (phase::ENDED as u64) << SERVER_MARKS;

    /// The same: its server has sent a checksum that was not finished.
    pub const UNFINISHED: u64 = UNFINISHED;

    /// Its end is told, or being told.
    #[inline(always)]
    pub const fn is_told(self) -> bool {
        self.0 & TOLD != 0
    }

    /// Why it has ended, or would have if this were its end.
    #[inline(always)]
    pub const fn end(self) -> End {
        if self.0 & ON_ORDER != 0 {
            End::Killed
        } else if self.0 & UNFINISHED != 0 {
            End::Unfinished
        } else if self.is_refused() {
            End::Refused
        } else if self.0 as u8 & !DEAD == phase::CLOSING {
            match self.0 & RESETS {
                0 => End::Closed,
                RESET_BY_CLIENT => End::ResetByClient,
                _ => End::ResetByServer,
            }
        } else if self.0 as u8 & !DEAD == HALF_OPEN {
            // Where answers do not pass here, nobody knows whether there was one.
            let is_silent = self.server().marks & ANSWERED == 0 && !self.client().is_one_way();
            if is_silent { End::NoAnswer } else { End::NoHandshake }
        } else {
            End::TimedOut
        }
    }

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
        self.is_unanswered() && !self.client().is_one_way()
    }

    #[inline(always)]
    const fn is_unanswered(self) -> bool {
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
        if self.is_unanswered() {
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
        let after = Self::of(client, server, notes);
        (after.with_end_noted(self, said), completed)
    }

    /// The same where only the client is heard: it proves nothing.
    #[inline(always)]
    pub fn after_one_way(self, flags: u8) -> Self {
        let mut client = self.client();
        phase::advance_one_way(&mut client, flags);
        let said = Said { from_client: true, flags, ..Said::default() };
        Self::of(client, self.server(), self.0 & NOTES).with_end_noted(self, said)
    }

    /// Whoever ends a flow is to tell; a flow that goes on after all will have another end. Who has reset it is the first
    /// one who did.
    #[inline(always)]
    const fn with_end_noted(self, before: Self, said: Said) -> Self {
        match (before.is_open(), self.is_open()) {
            (true, false) if said.flags & flag::RST == 0 => Self(self.0 | TOLD),
            (true, false) if said.from_client => Self(self.0 | TOLD | RESET_BY_CLIENT),
            (true, false) => Self(self.0 | TOLD | RESET_BY_SERVER),
            (false, true) => Self(self.0 & !(TOLD | RESETS)),
            _ => self,
        }
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
        let marks = phase::FIN_SENT | phase::SERVER_FIRST | phase::PROVEN;
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
    fn where_only_the_client_is_heard_a_server_neither_refuses_nor_keeps_silent() {
        let told = |packets: &[u8]| {
            packets.iter().fold(State::NEW_ONE_WAY, |state, flags| state.after_one_way(*flags))
        };
        assert!(!State::NEW_ONE_WAY.awaits_answer() && State::NEW_ONE_WAY.is_open());
        let repeated = told(&[SYN]);
        assert!(!repeated.is_noted_unanswered() && repeated.client().is_one_way());
        let established = repeated.after_one_way(ACK);
        assert!(established.is_open() && established.client().phase == ESTABLISHED);
        let closed = told(&[ACK, FIN | ACK]);
        assert!(!closed.is_open() && closed.is_told());
        let ends = [
            (closed, End::Closed),
            (told(&[ACK, RST]), End::ResetByClient),
            (State(State::NEW_ONE_WAY.0 | State::KILL), End::NoHandshake),
            (State(established.0 | State::KILL), End::TimedOut),
            (State(established.0 | State::KILL | State::ON_ORDER), End::Killed),
        ];
        for (state, end) in ends {
            assert_eq!(state.end(), end, "{state:?}");
        }
        let revived = told(&[ACK, RST, ACK, ACK, ACK]);
        assert!(revived.is_open() && !revived.is_told());
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
    fn every_end_has_its_reason_and_is_to_be_told_once() {
        let established = [server(SYN | ACK), client(ACK)];
        let after = |more: &[Said]| told(&[&established[..], more].concat());
        let killed = |state: State, note: u64| State(state.0 | State::KILL | note);
        let table = [
            (after(&[client(FIN | ACK), server(FIN | ACK)]), End::Closed),
            (after(&[client(FIN | ACK), server(FIN | ACK), server(RST)]), End::Closed),
            (after(&[client(RST)]), End::ResetByClient),
            (after(&[client(RST), server(RST)]), End::ResetByClient),
            (after(&[server(RST)]), End::ResetByServer),
            (after(&[client(FIN | ACK), server(RST)]), End::ResetByServer),
            (told(&[server(RST | ACK)]), End::Refused),
            (killed(State::NEW, 0), End::NoAnswer),
            (killed(told(&[server(SYN | ACK)]), 0), End::NoHandshake),
            (killed(after(&[]), 0), End::TimedOut),
            (killed(after(&[]), State::ON_ORDER), End::Killed),
            (killed(State::NEW, State::UNFINISHED), End::Unfinished),
        ];
        for (state, end) in table {
            assert_eq!(state.end(), end, "{state:?}");
            assert_eq!(state.is_told(), !state.is_dead(), "who kills tells by itself: {state:?}");
        }
        assert!(!after(&[client(FIN | ACK)]).is_told(), "half-closed is no end");
        let revived = after(&[server(RST), client(DATA), server(DATA)]);
        assert!(revived.is_open() && !revived.is_told(), "it will have another end");
        assert_eq!(revived.after(client(RST)).0.end(), End::ResetByClient);
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
