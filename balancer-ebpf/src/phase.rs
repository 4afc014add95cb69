//! The life of a flow: which packet moves it where, and how long it may idle in between.
//!
//! Two FINs or a RST only shorten the idle time; traffic in both directions restores it. So a single forged RST does not
//! end a connection that both ends keep, and a half-closed transfer runs on.

/// The server has not answered yet, or the client has not acknowledged its answer.
pub const HALF_OPEN: u8 = 1;
/// Handshake complete.
pub const ESTABLISHED: u8 = 2;
/// Both FINs or a RST were seen and traffic has not resumed in both directions. A single FIN changes nothing: a client
/// that has sent all of its request may wait for the answer as long as any other.
pub const CLOSING: u8 = 3;
/// Killed: the tuple belongs to the stack. The entry waits for its removal.
pub const DEAD: u8 = 4;

/// Idle limit of a half-open flow, nanoseconds.
pub const HALF_OPEN_NS: u64 = 10 * SECOND;
/// Idle limit of an established flow, nanoseconds.
pub const ESTABLISHED_NS: u64 = 3600 * SECOND;
/// Idle limit of a closing flow, nanoseconds.
pub const CLOSING_NS: u64 = 10 * SECOND;
/// Idle limit of an established flow that is [`ONE_WAY`], nanoseconds: a quarter of the usual one, for a table full of flows
/// that were made up empties the sooner. What the server sends counts as well, by the acknowledgments.
pub const ONE_WAY_ESTABLISHED_NS: u64 = 900 * SECOND;
/// Idle limit of one whose client has sent a FIN: it may wait for the answer to its request still. As long as the server may
/// take for that on the slow path (`--timeout-server`), unless it acknowledges something meanwhile.
pub const ONE_WAY_CLOSING_NS: u64 = 60 * SECOND;
/// How long the port of a connection that the server closed first rests for others: the server's TIME_WAIT.
pub const TIME_WAIT_NS: u64 = 60 * SECOND;
/// How long a flow that user space has ended is remembered, so that the resets for many of them keep to their bound: most
/// packets that are dropped for it are sent again in that time.
pub const ENDED_NS: u64 = 10 * SECOND;
/// User space removes an entry this long after it is over: nothing that a packet is using is removed under it.
pub const REMOVAL_NS: u64 = SECOND;
const SECOND: u64 = 1_000_000_000;

/// This direction carried a SYN-ACK.
pub const ANSWERED: u8 = 1;
/// This direction carried a FIN.
pub const FIN_SENT: u8 = 2;
/// The server's FIN came before the client's: its TIME_WAIT holds the port.
pub const SERVER_FIRST: u8 = 4;
/// A RST was seen.
pub const RESET: u8 = 8;
/// The client has acknowledged the server's answer: the handshake is complete, whatever the phase.
pub const PROVEN: u8 = 16;

/// The server's answers do not pass here. What is known of such a flow is what its client says, which anybody else could
/// have said: it has limits of its own, and no handshake counts.
pub const ONE_WAY: u8 = 32;
/// User space has ended the flow: its packets are answered with resets, as many as a bound allows.
pub const ENDED: u8 = 64;

/// TCP flags (RFC 9293 §3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field counts.
    pub const ACK: u8 = 0x10;
}

/// A RST alone frees the tuple for a new connection only after this much silence in both directions: until then a
/// SYN goes to the recorded server, which knows whether the RST was real.
pub const RESET_SILENCE_NS: u64 = SECOND;

/// How often each direction has to speak before a closing flow counts as alive again; after both FINs an
/// acknowledgment or two are only the close itself.
const TALK_TO_RESTORE: u8 = 1;
const TALK_TO_RESTORE_AFTER_BOTH_FINS: u8 = 3;
/// The same where only the client is heard: packets that it had sent before the RST may come after it.
const ONE_WAY_TALK_TO_RESTORE: u8 = 3;

/// The state of one direction; both directions of a flow are kept in step by [`crate::state`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Side {
    /// [`HALF_OPEN`] … [`DEAD`].
    pub phase: u8,
    /// [`ANSWERED`] and the others.
    pub marks: u8,
    /// Packets since the flow began to close, up to the number that restores the flow.
    pub talk: u8,
}

impl Side {
    /// A flow whose SYN is being forwarded.
    pub const NEW: Self = Self { phase: HALF_OPEN, marks: 0, talk: 0 };

    /// The same of one that is [`ONE_WAY`].
    pub const NEW_ONE_WAY: Self = Self { marks: ONE_WAY, ..Self::NEW };

    /// The server's answers do not pass here.
    #[inline(always)]
    pub const fn is_one_way(self) -> bool {
        self.marks & ONE_WAY != 0
    }
}

/// Whether an entry that was last used at `last_seen` is still one at `now` (nanoseconds).
#[inline(always)]
pub const fn is_live(side: Side, last_seen: u64, now: u64) -> bool {
    // A packet handled on another CPU may have stamped the entry a moment after we read the clock.
    now.saturating_sub(last_seen) < idle_limit(side)
}

/// Nanoseconds without a packet after which an entry is a miss.
#[inline(always)]
pub const fn idle_limit(side: Side) -> u64 {
    match side.phase {
        HALF_OPEN => HALF_OPEN_NS,
        ESTABLISHED if side.is_one_way() => ONE_WAY_ESTABLISHED_NS,
        ESTABLISHED => ESTABLISHED_NS,
        CLOSING if side.is_one_way() && side.marks & RESET == 0 => ONE_WAY_CLOSING_NS,
        CLOSING => CLOSING_NS,
        _ => 0,
    }
}

/// Whether an entry last used at `last_seen` (the later of both directions) is only waiting for its removal.
///
/// From then on XDP neither revives nor replaces it, so that user space can remove it without a race; until then its
/// port is kept for its own client.
#[inline(always)]
pub const fn is_over_and_rested(side: Side, last_seen: u64, now: u64) -> bool {
    let rest = if side.marks & SERVER_FIRST != 0 {
        TIME_WAIT_NS
    } else if side.marks & ENDED != 0 {
        ENDED_NS
    } else {
        0
    };
    let limit = idle_limit(side);
    now.saturating_sub(last_seen) >= if rest > limit { rest } else { limit }
}

/// A packet that changes nothing but the time of last use: nearly all of them.
#[inline(always)]
pub const fn is_routine(phase: u8, flags: u8) -> bool {
    phase == ESTABLISHED && flags & (flag::SYN | flag::FIN | flag::RST) == 0
}

/// Whether a packet counts as use of the flow. A SYN never does, nor does anything before the handshake is complete:
/// addresses can be forged.
#[inline(always)]
pub const fn is_use(phase_after: u8, flags: u8) -> bool {
    flags & flag::SYN == 0 && phase_after != HALF_OPEN
}

/// Whether a SYN with another initial sequence number may begin a new connection on this flow's tuple. `silence`:
/// nanoseconds since the last packet of either direction.
#[inline(always)]
pub const fn is_over(own: Side, twin: Side, silence: u64) -> bool {
    let both_fins = own.marks & twin.marks & FIN_SENT != 0 && !own.is_one_way();
    let reset = own.marks & RESET != 0 && silence >= RESET_SILENCE_NS;
    // Of one that is one way the server judges what its client means, and it is the same one as a rule.
    own.phase == CLOSING && (both_fins || reset || own.is_one_way())
}

/// The same as [`advance`] for a flow of which only the client is heard.
///
/// The first packet behind the SYN establishes it: its client has had an answer, or says so. A FIN closes it for good, as
/// only the server could tell whether it has more to say, and a RST until the client has talked on.
#[inline(always)]
pub fn advance_one_way(own: &mut Side, flags: u8) {
    if flags & flag::SYN != 0 {
        return;
    }
    if flags & flag::RST != 0 {
        own.marks |= RESET;
        (own.phase, own.talk) = (CLOSING, 0);
        return;
    }
    if own.phase == HALF_OPEN {
        own.phase = ESTABLISHED;
    }
    if own.marks & RESET != 0 {
        own.talk += 1;
        if own.talk < ONE_WAY_TALK_TO_RESTORE {
            return;
        }
        own.marks &= !RESET;
        (own.phase, own.talk) = (if own.marks & FIN_SENT != 0 { CLOSING } else { ESTABLISHED }, 0);
    }
    if flags & flag::FIN != 0 {
        own.marks |= FIN_SENT;
        own.phase = CLOSING;
    }
}

/// What a packet with `flags` in the direction of `own` does to the flow; true when it completed the handshake.
/// `proves_address`: it acknowledges the server's initial sequence number, which only a host at the client's address
/// can have seen.
#[inline(always)]
pub fn advance(own: &mut Side, twin: &mut Side, from_client: bool, flags: u8, proves_address: bool) -> bool {
    if flags & flag::RST != 0 {
        own.marks |= RESET;
        twin.marks |= RESET;
        close(own, twin);
        return false;
    }
    let completes = from_client && proves_address && flags & flag::SYN == 0 && twin.marks & ANSWERED != 0;
    let completed = completes && own.marks & PROVEN == 0;
    if completed {
        own.marks |= PROVEN;
        twin.marks |= PROVEN;
        // A closing one may be back when both ends have talked.
        if own.phase == HALF_OPEN {
            become_again(own, twin);
        }
    }
    if flags & flag::FIN != 0 {
        if !from_client && twin.marks & FIN_SENT == 0 {
            own.marks |= SERVER_FIRST;
            twin.marks |= SERVER_FIRST;
        }
        own.marks |= FIN_SENT;
        if twin.marks & FIN_SENT != 0 {
            close(own, twin);
        }
        return completed;
    }
    if flags & flag::SYN != 0 {
        if !from_client && flags & flag::ACK != 0 {
            own.marks |= ANSWERED;
        }
        return false;
    }
    if own.phase == CLOSING {
        resume(own, twin);
    }
    completed
}

#[inline(always)]
fn close(own: &mut Side, twin: &mut Side) {
    own.phase = CLOSING;
    twin.phase = CLOSING;
    own.talk = 0;
    twin.talk = 0;
}

/// Talk alone establishes nothing: whoever forges a client's address can make the server talk.
#[inline(always)]
fn become_again(own: &mut Side, twin: &mut Side) {
    let phase = if own.marks & PROVEN != 0 { ESTABLISHED } else { HALF_OPEN };
    own.phase = phase;
    twin.phase = phase;
}

#[inline(always)]
fn resume(own: &mut Side, twin: &mut Side) {
    let both_fins = own.marks & twin.marks & FIN_SENT != 0;
    let needed = if both_fins { TALK_TO_RESTORE_AFTER_BOTH_FINS } else { TALK_TO_RESTORE };
    if own.talk < needed {
        own.talk += 1;
    }
    if own.talk >= needed && twin.talk >= needed {
        become_again(own, twin);
        own.marks &= !RESET;
        twin.marks &= !RESET;
    }
}

#[cfg(test)]
mod tests {
    use super::flag::{ACK, FIN, RST, SYN};
    use super::*;

    /// A flow and a way to say who sends what.
    struct Story {
        client: Side,
        server: Side,
    }

    impl Story {
        fn new() -> Self {
            Self { client: Side::NEW, server: Side::NEW }
        }

        fn established() -> Self {
            let mut story = Self::new();
            story.server(SYN | ACK);
            assert!(story.client(ACK), "the handshake completes once");
            story
        }

        fn client(&mut self, flags: u8) -> bool {
            advance(&mut self.client, &mut self.server, true, flags, true)
        }

        fn server(&mut self, flags: u8) -> bool {
            advance(&mut self.server, &mut self.client, false, flags, true)
        }

        fn phase(&self) -> u8 {
            assert_eq!(self.client.phase, self.server.phase, "both directions are in step");
            self.client.phase
        }
    }

    #[test]
    fn a_handshake_needs_the_servers_answer() {
        let mut story = Story::new();
        assert!(!story.client(ACK), "an ACK without a SYN-ACK is forged or early");
        assert_eq!(story.phase(), HALF_OPEN);
        story.server(SYN | ACK);
        assert_eq!(story.phase(), HALF_OPEN);
        assert!(story.client(ACK));
        assert_eq!(story.phase(), ESTABLISHED);
        assert!(!story.client(ACK));
    }

    #[test]
    fn a_handshake_cannot_be_forged_from_afar() {
        let mut story = Story::new();
        story.server(SYN | ACK);
        assert!(!advance(&mut story.client, &mut story.server, true, ACK, false));
        assert_eq!(story.phase(), HALF_OPEN);
    }

    #[test]
    fn nor_by_resetting_it_first() {
        let mut story = Story::new();
        story.server(SYN | ACK);
        // Out of the server's window, so that it answers both with an acknowledgment (RFC 9293 §3.10.7.4).
        advance(&mut story.client, &mut story.server, true, RST, false);
        advance(&mut story.client, &mut story.server, true, ACK, false);
        story.server(ACK);
        assert_eq!(story.phase(), HALF_OPEN);
        assert!(story.client(ACK), "the real client may come yet");
        assert_eq!(story.phase(), ESTABLISHED);
    }

    #[test]
    fn a_reset_that_was_forged_does_not_hide_the_end_of_the_handshake() {
        let mut story = Story::new();
        story.server(SYN | ACK);
        story.server(RST);
        assert!(story.client(ACK));
        assert_eq!(story.phase(), CLOSING);
        story.server(ACK);
        assert_eq!(story.phase(), ESTABLISHED);
    }

    #[test]
    fn a_handshake_may_end_with_a_fin() {
        let mut story = Story::new();
        story.server(SYN | ACK);
        assert!(story.client(FIN | ACK), "the acknowledgment before it was lost");
        assert_eq!(story.phase(), ESTABLISHED, "the server may think for as long as it likes");
    }

    #[test]
    fn an_ordinary_close_stays_closing() {
        let mut story = Story::established();
        story.client(FIN | ACK);
        story.server(ACK);
        story.server(FIN | ACK);
        story.client(ACK);
        assert_eq!(story.phase(), CLOSING);
        assert_eq!(story.client.marks & SERVER_FIRST, 0);
    }

    #[test]
    fn a_simultaneous_close_stays_closing() {
        let mut story = Story::established();
        story.client(FIN | ACK);
        story.server(FIN | ACK);
        story.client(ACK);
        story.server(ACK);
        assert_eq!(story.phase(), CLOSING);
    }

    #[test]
    fn a_server_that_closes_first_is_remembered() {
        let mut story = Story::established();
        story.server(FIN | ACK);
        story.client(FIN | ACK);
        story.server(ACK);
        assert!(story.client.marks & SERVER_FIRST != 0 && story.server.marks & SERVER_FIRST != 0);
    }

    #[test]
    fn a_half_closed_transfer_goes_on() {
        let mut story = Story::established();
        story.client(FIN | ACK);
        assert_eq!(story.phase(), ESTABLISHED, "the server may think for as long as it likes");
        story.server(ACK);
        story.client(ACK);
        assert_eq!(story.phase(), ESTABLISHED);
        story.server(FIN | ACK);
        story.client(ACK);
        assert_eq!(story.phase(), CLOSING);
    }

    #[test]
    fn one_forged_reset_does_not_end_a_flow_whose_ends_talk() {
        let mut story = Story::established();
        story.server(RST);
        assert_eq!(story.phase(), CLOSING);
        story.client(ACK);
        assert_eq!(story.phase(), CLOSING, "one direction proves nothing");
        story.server(ACK);
        assert_eq!(story.phase(), ESTABLISHED);
    }

    #[test]
    fn a_syn_may_take_over_only_a_finished_flow() {
        let mut story = Story::established();
        assert!(!is_over(story.client, story.server, u64::MAX));
        story.client(FIN | ACK);
        assert!(!is_over(story.client, story.server, u64::MAX), "half-closed is alive");
        story.server(FIN | ACK);
        assert!(is_over(story.client, story.server, 0));
        let mut refused = Story::new();
        refused.server(RST | ACK);
        assert!(!is_over(refused.client, refused.server, RESET_SILENCE_NS - 1), "the RST may be forged");
        assert!(is_over(refused.client, refused.server, RESET_SILENCE_NS));
    }

    #[test]
    fn a_deadline_is_a_miss_at_its_very_tick() {
        let side = |phase| Side { phase, ..Side::NEW };
        assert!(is_live(side(HALF_OPEN), 5, 4 + HALF_OPEN_NS));
        assert!(!is_live(side(HALF_OPEN), 5, 5 + HALF_OPEN_NS));
        assert!(!is_live(side(DEAD), 5, 5));
        assert!(is_live(side(ESTABLISHED), 10, 5), "stamped by another CPU a moment later");
    }

    #[test]
    fn a_port_rests_for_the_servers_time_wait_only_if_the_server_closed_first() {
        let closing = Side { phase: CLOSING, marks: FIN_SENT, talk: 0 };
        assert!(!is_over_and_rested(closing, 0, CLOSING_NS - 1));
        assert!(is_over_and_rested(closing, 0, CLOSING_NS));
        let server_first = Side { marks: FIN_SENT | SERVER_FIRST, ..closing };
        assert!(!is_over_and_rested(server_first, 0, TIME_WAIT_NS - 1));
        assert!(is_over_and_rested(server_first, 0, TIME_WAIT_NS));
    }

    fn one_way(packets: &[u8]) -> Side {
        let mut side = Side::NEW_ONE_WAY;
        packets.iter().for_each(|flags| advance_one_way(&mut side, *flags));
        side
    }

    #[test]
    fn where_only_the_client_is_heard_its_first_packet_establishes() {
        assert_eq!(one_way(&[SYN, SYN]).phase, HALF_OPEN);
        assert_eq!(one_way(&[ACK]).phase, ESTABLISHED);
        assert_eq!(one_way(&[RST]).phase, CLOSING);
        assert_eq!(one_way(&[FIN | ACK]).phase, CLOSING, "the ACK before it was lost");
        assert!(one_way(&[ACK, RST, ACK, ACK, ACK, FIN | ACK]).is_one_way());
    }

    #[test]
    fn where_only_the_client_is_heard_a_fin_closes_and_the_answer_may_take_its_time() {
        let mut side = one_way(&[ACK, FIN | ACK]);
        for _ in 0..9 {
            advance_one_way(&mut side, ACK);
        }
        assert_eq!((side.phase, idle_limit(side)), (CLOSING, ONE_WAY_CLOSING_NS));
        assert!(is_use(side.phase, ACK), "an acknowledgment keeps it");
        assert!(is_over(side, side, 0), "its client may begin anew");
    }

    #[test]
    fn where_only_the_client_is_heard_a_reset_is_survived_by_a_client_that_talks_on() {
        let mut side = one_way(&[ACK, RST]);
        assert_eq!((side.phase, idle_limit(side)), (CLOSING, CLOSING_NS));
        advance_one_way(&mut side, ACK);
        advance_one_way(&mut side, ACK);
        assert_eq!(side.phase, CLOSING, "they may have been on their way");
        advance_one_way(&mut side, ACK);
        assert_eq!((side.phase, side.marks & RESET), (ESTABLISHED, 0));
        assert_eq!(idle_limit(side), ONE_WAY_ESTABLISHED_NS);
        assert_eq!(one_way(&[ACK, FIN | ACK, RST, ACK, ACK, ACK]).phase, CLOSING);
        let again = one_way(&[ACK, RST, ACK, ACK, RST, ACK]);
        assert_eq!(again.phase, CLOSING, "from the last one on");
    }

    #[test]
    fn what_was_ended_is_remembered_for_a_while() {
        let dead = Side { phase: DEAD, marks: 0, talk: 0 };
        assert!(is_over_and_rested(dead, 0, 0));
        let ended = Side { marks: ENDED, ..dead };
        assert!(!is_over_and_rested(ended, 0, ENDED_NS - 1) && is_over_and_rested(ended, 0, ENDED_NS));
        assert!(!is_live(ended, 0, 0));
    }

    #[test]
    fn nothing_on_a_syn_counts_as_use() {
        assert!(!is_use(ESTABLISHED, SYN) && !is_use(ESTABLISHED, SYN | ACK));
        assert!(is_use(ESTABLISHED, ACK) && is_use(CLOSING, RST));
        assert!(!is_use(HALF_OPEN, ACK), "nor does a forged acknowledgment");
    }
}
