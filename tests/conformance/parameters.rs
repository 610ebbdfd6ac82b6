//! Rows A12 and E01, transport parameters: absent, twice, beyond their limits, cut short, or of servers only.

use serde_json::json;

use crate::cases;

//= https://www.rfc-editor.org/rfc/rfc9000#section-7.3
//= type=test
//# An endpoint MUST treat the absence of the initial_source_connection_id
//# transport parameter from either endpoint or the absence of the
//# original_destination_connection_id transport parameter from the server
//# as a connection error of type TRANSPORT_PARAMETER_ERROR.
//= https://www.rfc-editor.org/rfc/rfc9000#section-10.2.3
//= type=test
//# Under these circumstances, a server SHOULD send a CONNECTION_CLOSE frame
//# in both Handshake and Initial packets to ensure that at least one of
//# them is processable by the client.
#[test]
fn a12_e01_each_wrong_parameter_has_its_code() {
    cases::play("A12 E01", "parameters");
}

/// The keys of Initial packets are others after a Retry, and the same mistakes have the same codes.
#[test]
fn a12_after_a_retry_each_wrong_parameter_has_its_code() {
    let quic = json!({ "address_validation": { "mode": "always" } });
    cases::play_with("A12 after a Retry", "parameters", quic);
}
