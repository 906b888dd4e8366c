//! The command window: CmdSN, ExpCmdSN, MaxCmdSN (RFC 7143 section 4.2.2.1).

use iscsi_pdu::CmdSn;

/// Numbers that an initiator may have under way, acknowledged by no ExpCmdSN: far more than it has tags for commands. A
/// target that completes commands and never acknowledges them cannot make it keep account of more.
const UNACKNOWLEDGED: u32 = 1 << 16;

/// The initiator's view: what it may send. Whatever MaxCmdSN says, no more than 2^16 numbers go without acknowledgment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitiatorWindow {
    cmd_sn: CmdSn,
    exp_cmd_sn: CmdSn,
    max_cmd_sn: CmdSn,
}

impl InitiatorWindow {
    /// After the login: `cmd_sn` is that of the login, which the first non-immediate command repeats. Nothing is
    /// unacknowledged, whatever ExpCmdSN says: tgt over iSER says something else.
    // req: 7143-11.12.8-2
    #[must_use]
    pub const fn new(cmd_sn: CmdSn, exp_cmd_sn: CmdSn, max_cmd_sn: CmdSn) -> Self {
        let exp_cmd_sn = if cmd_sn.distance_from(exp_cmd_sn) < UNACKNOWLEDGED { exp_cmd_sn } else { cmd_sn };
        Self { cmd_sn, exp_cmd_sn, max_cmd_sn }
    }

    /// The number of the next non-immediate command, which immediate ones carry too.
    #[must_use]
    pub const fn cmd_sn(&self) -> CmdSn {
        self.cmd_sn
    }

    /// Commands before this one have reached the target.
    #[must_use]
    pub const fn exp_cmd_sn(&self) -> CmdSn {
        self.exp_cmd_sn
    }

    /// The last number that the target takes.
    #[must_use]
    pub const fn max_cmd_sn(&self) -> CmdSn {
        self.max_cmd_sn
    }

    /// Whether a non-immediate command may be sent.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.cmd_sn.precedes_or_is(self.max_cmd_sn)
            && self.cmd_sn.distance_from(self.exp_cmd_sn) < UNACKNOWLEDGED
    }

    /// Takes the number of a non-immediate command; `None` when the window is closed.
    // req: 7143-4.2.2.1-3
    pub fn take(&mut self) -> Option<CmdSn> {
        self.is_open().then(|| {
            let sn = self.cmd_sn;
            self.cmd_sn = sn.next();
            sn
        })
    }

    /// Learns from the numbers of a received PDU, which may be older than what is known.
    // req: 7143-4.2.2.1-10, 7143-4.2.2.1-18, 7143-4.2.2.1-19
    pub fn update(&mut self, exp_cmd_sn: CmdSn, max_cmd_sn: CmdSn) {
        if max_cmd_sn.precedes(exp_cmd_sn.prev()) {
            return;
        }
        if self.max_cmd_sn.precedes(max_cmd_sn) {
            self.max_cmd_sn = max_cmd_sn;
        }
        // What was never sent cannot be expected: such a number would close or open the window at random.
        if self.exp_cmd_sn.precedes(exp_cmd_sn) && exp_cmd_sn.precedes_or_is(self.cmd_sn) {
            self.exp_cmd_sn = exp_cmd_sn;
        }
    }
}

/// The target's view: what it takes.
///
/// Each number taken uses up a credit, which comes back when the command is over; so MaxCmdSN only grows, and never
/// lies below ExpCmdSN - 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TargetWindow {
    exp_cmd_sn: CmdSn,
    max_cmd_sn: CmdSn,
}

impl TargetWindow {
    /// A window for `depth` commands that begins with `first`, the CmdSN of the leading login.
    // req: 7143-11.12.8-1
    #[must_use]
    pub fn new(first: CmdSn, depth: u32) -> Self {
        Self { exp_cmd_sn: first, max_cmd_sn: first.advance(depth).prev() }
    }

    /// The window that the final response of the leading login told.
    #[must_use]
    pub fn from_login(exp_cmd_sn: CmdSn, max_cmd_sn: CmdSn) -> Self {
        // Beyond this, tags would run out before the window closes.
        let depth = max_cmd_sn.next().distance_from(exp_cmd_sn).clamp(1, 0x8000);
        Self::new(exp_cmd_sn, depth)
    }

    /// The next expected command.
    #[must_use]
    pub const fn exp_cmd_sn(&self) -> CmdSn {
        self.exp_cmd_sn
    }

    /// The last command that is taken.
    #[must_use]
    pub const fn max_cmd_sn(&self) -> CmdSn {
        self.max_cmd_sn
    }

    /// Whether a non-immediate command with this number is taken.
    #[must_use]
    pub const fn contains(&self, cmd_sn: CmdSn) -> bool {
        cmd_sn.in_window(self.exp_cmd_sn, self.max_cmd_sn)
    }

    /// The command with the expected number is here.
    pub fn advance(&mut self) {
        self.exp_cmd_sn = self.exp_cmd_sn.next();
    }

    /// A numbered command is over.
    // req: 7143-4.2.2.1-11
    pub fn give_credit(&mut self) {
        self.max_cmd_sn = self.max_cmd_sn.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ExpCmdSN of a login response that is not the CmdSN of the login: one more, one less, or anything.
    #[test]
    fn the_window_is_open_after_a_login_whatever_is_expected() {
        for exp in [2, 0, 0x8000_0000, u32::MAX, 0xdead_beef, 5] {
            let mut window = InitiatorWindow::new(CmdSn(1), CmdSn(exp), CmdSn(128));
            assert_eq!((0..200).map_while(|_| window.take()).count(), 128, "ExpCmdSN {exp}");
        }
    }

    // req: 7143-4.2.2.1-3, 7143-11.12.8-2
    #[test]
    fn cmd_sn_starts_with_that_of_the_login_and_wraps() {
        let mut window = InitiatorWindow::new(CmdSn(0xffff_fffe), CmdSn(0xffff_fffe), CmdSn(100));
        let taken: Vec<u32> = (0..4).map(|_| window.take().unwrap().0).collect();
        assert_eq!(taken, [0xffff_fffe, 0xffff_ffff, 0, 1]);
    }

    // req: 7143-4.2.2.1-18, 7143-4.2.2.1-19, 7143-4.2.2.1-10
    #[test]
    fn older_and_inconsistent_numbers_are_ignored() {
        let mut window = InitiatorWindow::new(CmdSn(12), CmdSn(10), CmdSn(20));
        window.update(CmdSn(11), CmdSn(19));
        assert_eq!((window.exp_cmd_sn(), window.max_cmd_sn()), (CmdSn(11), CmdSn(20)), "each by itself");
        window.update(CmdSn(12), CmdSn(10));
        assert_eq!(window.exp_cmd_sn(), CmdSn(11), "MaxCmdSN below ExpCmdSN - 1: both ignored");
        window.update(CmdSn(12), CmdSn(11));
        assert_eq!(window.exp_cmd_sn(), CmdSn(12), "MaxCmdSN = ExpCmdSN - 1 is a closed window");
        window.update(CmdSn(10), CmdSn(30));
        assert_eq!((window.exp_cmd_sn(), window.max_cmd_sn()), (CmdSn(12), CmdSn(30)));
        // Serial arithmetic: 2 comes after 0xfffffffe.
        let mut wrap = InitiatorWindow::new(CmdSn(0xffff_ffff), CmdSn(0xffff_fffe), CmdSn(0xffff_ffff));
        wrap.update(CmdSn(0xffff_ffff), CmdSn(2));
        assert_eq!(wrap.max_cmd_sn(), CmdSn(2));
    }

    #[test]
    fn an_acknowledgment_of_what_was_never_sent_is_ignored() {
        let mut window = InitiatorWindow::new(CmdSn(5), CmdSn(5), CmdSn(8));
        window.update(CmdSn(7), CmdSn(8));
        assert_eq!(window.exp_cmd_sn(), CmdSn(5));
    }

    #[test]
    fn a_closed_window_gives_no_number() {
        let mut window = InitiatorWindow::new(CmdSn(5), CmdSn(5), CmdSn(5));
        assert_eq!(window.take(), Some(CmdSn(5)));
        assert_eq!(window.take(), None);
        assert_eq!(window.cmd_sn(), CmdSn(6), "immediate commands still carry the next number");
    }

    /// Commands complete, MaxCmdSN rises, and ExpCmdSN stays where it is.
    #[test]
    fn the_window_closes_when_a_target_acknowledges_nothing() {
        let first = CmdSn(0xffff_fff0);
        let mut window = InitiatorWindow::new(first, first, first);
        let mut taken = 0;
        for n in 0..200_000 {
            window.update(first, first.advance(n));
            taken += u32::from(window.take().is_some());
        }
        assert_eq!((taken, window.cmd_sn()), (1 << 16, first.advance(1 << 16)));
        window.update(first.next(), first.advance(1 << 20));
        assert!(window.take().is_some() && window.take().is_none(), "one was acknowledged");
    }

    // req: 7143-4.2.2.1-11, 7143-11.12.8-1
    #[test]
    fn the_target_closes_its_window_at_exp_cmd_sn_minus_1() {
        let mut window = TargetWindow::new(CmdSn(0xffff_ffff), 2);
        assert!(
            window.contains(CmdSn(0xffff_ffff)) && window.contains(CmdSn(0)) && !window.contains(CmdSn(1))
        );
        window.advance();
        window.advance();
        assert_eq!((window.exp_cmd_sn(), window.max_cmd_sn()), (CmdSn(1), CmdSn(0)));
        assert!(!window.contains(CmdSn(1)) && !window.contains(CmdSn(0)));
        window.give_credit();
        assert!(window.contains(CmdSn(1)));
    }
}
