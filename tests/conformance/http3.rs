//! Rows E01 and B09, HTTP/3 and QPACK: messages, frames and critical streams that RFC 9114 and RFC 9204 forbid.

use crate::cases;

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
//= type=test
//# Receipt of an invalid sequence of frames MUST be treated as a connection
//# error of type H3_FRAME_UNEXPECTED.
//= https://www.rfc-editor.org/rfc/rfc9114#section-5.2
//= type=test
//# Receiving a GOAWAY containing a larger identifier than previously
//# received MUST be treated as a connection error of type H3_ID_ERROR.
//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2
//= type=test
//# A receiver MUST tolerate unidirectional streams being closed or reset
//# prior to the reception of the unidirectional stream header.
//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
//= type=test
//# If the first frame of the control stream is any other frame type, this
//# MUST be treated as a connection error of type H3_MISSING_SETTINGS.
//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
//= type=test
//# receipt of a second stream claiming to be a control stream MUST be
//# treated as a connection error of type H3_STREAM_CREATION_ERROR.
//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
//= type=test
//# If either control stream is closed at any point, this MUST be treated as
//# a connection error of type H3_CLOSED_CRITICAL_STREAM.
//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.2
//= type=test
//# Only servers can push; if a server receives a client-initiated push
//# stream, this MUST be treated as a connection error of type
//# H3_STREAM_CREATION_ERROR.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.1
//= type=test
//# A frame payload that contains additional bytes after the identified
//# fields or a frame payload that terminates before the end of the
//# identified fields MUST be treated as a connection error of type
//# H3_FRAME_ERROR.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.1
//= type=test
//# If a DATA frame is received on a control stream, the recipient MUST
//# respond with a connection error of type H3_FRAME_UNEXPECTED.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.2
//= type=test
//# If a HEADERS frame is received on a control stream, the recipient MUST
//# respond with a connection error of type H3_FRAME_UNEXPECTED.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.3
//= type=test
//# Receiving a CANCEL_PUSH frame on a stream other than the control stream
//# MUST be treated as a connection error of type H3_FRAME_UNEXPECTED.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.3
//= type=test
//# If a CANCEL_PUSH frame is received that references a push ID greater
//# than currently allowed on the connection, this MUST be treated as a
//# connection error of type H3_ID_ERROR.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.3
//= type=test
//# If a server receives a CANCEL_PUSH frame for a push ID that has not yet
//# been mentioned by a PUSH_PROMISE frame, this MUST be treated as a
//# connection error of type H3_ID_ERROR.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4
//= type=test
//# If an endpoint receives a second SETTINGS frame on the control stream,
//# the endpoint MUST respond with a connection error of type
//# H3_FRAME_UNEXPECTED.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4
//= type=test
//# If an endpoint receives a SETTINGS frame on a different stream, the
//# endpoint MUST respond with a connection error of type
//# H3_FRAME_UNEXPECTED.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4.1
//= type=test
//# Endpoints MUST NOT consider such settings to have any meaning upon
//# receipt.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4.1
//= type=test
//# These reserved settings MUST NOT be sent, and their receipt MUST be
//# treated as a connection error of type H3_SETTINGS_ERROR.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.5
//= type=test
//# A server MUST treat the receipt of a PUSH_PROMISE frame as a connection
//# error of type H3_FRAME_UNEXPECTED.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.7
//= type=test
//# Receipt of a MAX_PUSH_ID frame on any other stream MUST be treated as a
//# connection error of type H3_FRAME_UNEXPECTED.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.7
//= type=test
//# A MAX_PUSH_ID frame cannot reduce the maximum push ID; receipt of a
//# MAX_PUSH_ID frame that contains a smaller value than previously received
//# MUST be treated as a connection error of type H3_ID_ERROR.
//= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.8
//= type=test
//# These frame types MUST NOT be sent, and their receipt MUST be treated as
//# a connection error of type H3_FRAME_UNEXPECTED.
#[test]
fn b09_e01_http3_each_mistake_has_its_code() {
    cases::play("B09 E01", "http3");
}
