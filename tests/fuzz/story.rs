//! The packets of one fast connection: what its state must never do, whatever is sent, by whomever, in whatever order.

use balancer_ebpf::phase::flag::{ACK, FIN, RST, SYN};
use balancer_ebpf::phase::{ANSWERED, CLOSING, DEAD, ESTABLISHED, FIN_SENT, HALF_OPEN};
use balancer_ebpf::state::{Said, State};

/// A byte is a packet; the bits that are left say what happens besides.
mod bit {
    pub(super) const FROM_CLIENT: u8 = 0x08;
    pub(super) const PROVES_ADDRESS: u8 = 0x20;
    pub(super) const ANSWERS_SYN: u8 = 0x40;
    /// Another packet, the next one, is looked at by another CPU at the same time.
    pub(super) const AT_ONCE: u8 = 0x80;
}

/// What user space or a SYN of the stack's does: all flags of a packet that there is not.
const KILL: u8 = SYN | FIN | RST | ACK;

/// The packets of a flow, one a byte: it is counted as open exactly while it is, whoever of two is first; the dead stay
/// dead; and a handshake is complete only when the client has acknowledged what the server has answered.
pub fn flow(input: &[u8]) {
    let mut flow = Flow { state: State::NEW, open: 1, completed: 0, proven: false, talked: [false; 2] };
    let mut packets = input.iter().copied();
    while let Some(packet) = packets.next() {
        let seen = flow.state;
        // Who comes second finds another state, and looks again.
        let rival = if packet & bit::AT_ONCE != 0 { packets.next() } else { None };
        if let Some(rival) = rival {
            flow.step(seen, rival, false);
        }
        if !flow.step(seen, packet, true) {
            let seen = flow.state;
            assert!(flow.step(seen, packet, true), "nobody else is there");
        }
    }
}

struct Flow {
    state: State,
    /// Of its server's count, what is this flow's.
    open: i64,
    completed: u32,
    /// The client has acknowledged the server's answer, which nobody elsewhere can have seen.
    proven: bool,
    /// Since it began to close: the client, the server.
    talked: [bool; 2],
}

impl Flow {
    /// One attempt as the program makes it: false if the state is not the one seen.
    fn step(&mut self, seen: State, packet: u8, is_late: bool) -> bool {
        if packet & KILL == KILL {
            self.kill();
            return true;
        }
        if seen != self.state {
            return false;
        }
        if seen.is_dead() {
            return true;
        }
        let from_client = packet & bit::FROM_CLIENT != 0;
        let proves_address = packet & bit::PROVES_ADDRESS != 0;
        let flags = packet & KILL;
        let answers_syn = packet & bit::ANSWERS_SYN != 0;
        let (after, completed) =
            seen.after(Said { from_client, flags, proves_address, answers_syn, is_late });
        self.proven |=
            from_client && proves_address && flags & (SYN | RST) == 0 && seen.server().marks & ANSWERED != 0;
        self.completed += u32::from(completed);
        self.open += i64::from(after.is_open()) - i64::from(seen.is_open());
        self.state = after;
        self.check(seen, flags, from_client, completed);
        true
    }

    fn kill(&mut self) {
        let before = self.state;
        self.state = State(before.0 | State::KILL);
        self.open -= i64::from(before.is_open());
        assert!(self.state.is_dead() && !self.state.is_open());
        assert_eq!((self.state.client().phase, self.state.server().phase), (DEAD, DEAD));
        assert_eq!(self.open, 0, "nothing is taken off twice");
    }

    fn check(&mut self, before: State, flags: u8, from_client: bool, completed: bool) {
        let (was, is) = (before.client().phase, self.state.client().phase);
        assert_eq!(is, self.state.server().phase, "both directions are in step");
        assert!(matches!(is, HALF_OPEN | ESTABLISHED | CLOSING), "no packet kills");
        assert_eq!(self.open, i64::from(self.state.is_open()), "counted once, while it is open");
        assert!(self.completed <= 1, "a handshake is completed once");
        assert!(!completed || self.proven, "by the client");
        assert!(is != ESTABLISHED || self.proven, "established is only who has proven their address");
        if flags & SYN != 0 && flags & (FIN | RST) == 0 {
            assert_eq!(is, was, "a SYN moves nothing");
        }
        let both_fins = self.state.client().marks & self.state.server().marks & FIN_SENT != 0;
        let closes = flags & RST != 0 || flags & FIN != 0 && both_fins;
        assert_eq!(
            closes,
            is == CLOSING && (closes || was != CLOSING),
            "closed by a reset or by both, at once"
        );
        if closes {
            self.talked = [false; 2];
        } else if flags & (SYN | FIN) == 0 {
            self.talked[usize::from(!from_client)] = true;
        }
        assert!(
            was != CLOSING || is == CLOSING || self.talked == [true; 2],
            "only both ends bring a flow back"
        );
        assert!(before.is_refused() <= self.state.is_refused(), "what was noted stays noted");
        assert!(before.is_noted_unanswered() <= self.state.is_noted_unanswered(), "as above");
    }
}
