//! Row E01, QUIC: frames, packets and TLS messages that RFC 9000 and RFC 9001 forbid.

use crate::cases;

#[test]
fn e01_quic_each_mistake_has_its_code() {
    cases::play("E01", "quic");
}
