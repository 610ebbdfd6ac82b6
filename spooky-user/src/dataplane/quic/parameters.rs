//! Settings as quiche takes them: transport parameters (RFC 9000 §18.2) and what steers loss recovery.

use super::settings::{Congestion, QuicSettings};

/// HTTP/3 needs three unidirectional streams of the client's: control and two of QPACK (RFC 9114 §6.2). The rest is for
/// reserved stream types, which a client may open and we ignore.
//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2
//# Therefore, the transport parameters sent by both clients and servers
//# MUST allow the peer to create at least three unidirectional streams.
const UNI_STREAMS: u64 = 16;
/// Those streams carry settings and little else.
const UNI_WINDOW: u64 = 16 << 10;

/// Sets everything but TLS.
pub(super) fn apply(config: &mut quiche::Config, settings: &QuicSettings) {
    // The list is a constant that quiche accepts; there is nothing to report.
    let _ = config.set_application_protos(&[b"h3"]);
    config
        .set_max_idle_timeout(u64::try_from(settings.idle_timeout.as_millis()).unwrap_or(u64::MAX));
    // What we accept is bounded by our receive buffers, not by the path.
    config.set_max_recv_udp_payload_size(1500);
    config.set_max_send_udp_payload_size(settings.max_udp_payload);
    config.set_initial_max_data(settings.connection_window.initial);
    config.set_max_connection_window(settings.connection_window.max);
    config.set_initial_max_stream_data_bidi_remote(settings.stream_window.initial);
    config.set_max_stream_window(settings.stream_window.max);
    // A server of HTTP/3 opens no bidirectional stream.
    config.set_initial_max_stream_data_bidi_local(0);
    config.set_initial_max_stream_data_uni(UNI_WINDOW);
    config.set_initial_max_streams_bidi(settings.max_streams);
    config.set_initial_max_streams_uni(UNI_STREAMS);
    config.set_active_connection_id_limit(settings.active_connection_id_limit);
    // Clients may migrate: path validation is quiche's, steering is ours.
    config.set_disable_active_migration(false);
    config.set_cc_algorithm(match settings.congestion {
        Congestion::Cubic => quiche::CongestionControlAlgorithm::CUBIC,
        Congestion::Reno => quiche::CongestionControlAlgorithm::Reno,
        Congestion::Bbr2 => quiche::CongestionControlAlgorithm::Bbr2Gcongestion,
    });
    config.enable_hystart(true);
    // Pacing needs a timer for each burst or kernel support; until then bursts are bounded by the congestion window.
    config.enable_pacing(false);
    config.set_initial_congestion_window_packets(10);
    // A reserved stream and frames that mean nothing (RFC 9114 §6.2.3, §7.2.8) would cost each connection an eighth stream
    // and with it 3 KiB of quiche's table. Clients that need the exercise get it from larger sites.
    config.grease(false);
}
