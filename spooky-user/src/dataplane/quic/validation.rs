//! The anti-amplification limit of a handshake (RFC 9000 §8.1): an address that has not shown that it can receive gets at most
//! three times what came from it, counted in UDP payload octets at the socket. quiche counts packets before it pads their
//! datagram to 1,200 octets, and so sends more than twice that. Addresses a client moves to later are quiche's to count: no
//! Initial goes there, so nothing is padded behind its back. Imports nothing of the crate.

use std::net::SocketAddr;

//= https://www.rfc-editor.org/rfc/rfc9000#section-8
//# Therefore, after receiving packets from an address that is not yet
//# validated, an endpoint MUST limit the amount of data it sends to the
//# unvalidated address to three times the amount of data received from
//# that address.
const FACTOR: u64 = 3;
/// A datagram with an Initial in it is padded to this (RFC 9000 §14.1), so with less credit none is begun.
const DATAGRAM: u64 = 1200;

/// What may be sent to the address of a handshake.
#[derive(Debug)]
pub(super) struct Credit {
    address: SocketAddr,
    received: u64,
    sent: u64,
    validated: bool,
    has_bitten: bool,
}

impl Credit {
    /// A connection from this address, which a Retry token may have validated already.
    pub(super) fn new(address: SocketAddr, validated: bool) -> Self {
        Self { address, received: 0, sent: 0, validated, has_bitten: false }
    }

    /// So many octets have come from there.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1
    //# For the purposes of avoiding amplification prior to address validation,
    //# servers MUST count all of the payload bytes received in datagrams that
    //# are uniquely attributed to a single connection.
    pub(super) fn received(&mut self, address: SocketAddr, octets: usize) {
        if !self.validated && address == self.address {
            self.received = self.received.saturating_add(octets as u64);
        }
    }

    /// The client of the handshake can receive.
    pub(super) fn validate(&mut self) {
        self.validated = true;
    }

    /// It has shown that it can.
    pub(super) fn is_validated(&self) -> bool {
        self.validated
    }

    /// The largest datagram that may be made now; `None` for any, 0 for none.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1
    //# Prior to validating the client address, servers MUST NOT send more than
    //# three times as many bytes as the number of bytes they have received.
    pub(super) fn datagram(&self) -> Option<u64> {
        if self.validated {
            return None;
        }
        let left = self.received.saturating_mul(FACTOR).saturating_sub(self.sent);
        Some(if left >= DATAGRAM { DATAGRAM } else { 0 })
    }

    /// Nothing could be sent for want of credit.
    pub(super) fn bites(&mut self) {
        self.has_bitten = true;
    }

    /// There was a time when nothing could be sent for want of credit.
    pub(super) fn has_bitten(&self) -> bool {
        self.has_bitten
    }

    /// A datagram of so many octets is sent.
    pub(super) fn charge(&mut self, octets: usize) {
        if !self.validated {
            self.sent = self.sent.saturating_add(octets as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-8
    //= type=test
    //# Therefore, after receiving packets from an address that is not yet
    //# validated, an endpoint MUST limit the amount of data it sends to the
    //# unvalidated address to three times the amount of data received from that
    //# address.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1
    //= type=test
    //# For the purposes of avoiding amplification prior to address validation,
    //# servers MUST count all of the payload bytes received in datagrams that
    //# are uniquely attributed to a single connection.
    #[test]
    fn three_times_and_not_an_octet_more() {
        let mut credit = Credit::new(address(1), false);
        assert_eq!(credit.datagram(), Some(0), "nothing has come yet");
        credit.received(address(1), 1200);
        for _ in 0..3 {
            assert_eq!(credit.datagram(), Some(1200));
            credit.charge(1200);
        }
        assert_eq!(credit.datagram(), Some(0));
        credit.received(address(2), 9000);
        assert_eq!(credit.datagram(), Some(0), "that was somebody else");
        credit.received(address(1), 399);
        assert_eq!(credit.datagram(), Some(0), "no whole datagram");
        credit.received(address(1), 1);
        assert_eq!(credit.datagram(), Some(1200));
        credit.validate();
        assert_eq!(credit.datagram(), None);
    }

    #[test]
    fn a_token_is_enough() {
        assert_eq!(Credit::new(address(1), true).datagram(), None);
    }
}
